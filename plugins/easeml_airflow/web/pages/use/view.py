"""A row of a study as fields of a form, and the answers to rows as a table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.config import require
from easeml_core.data.columns import text_column_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.services.models.inference import Inferred

MOST_FIELDS = 60
"""A wider row is pasted as numbers."""

CELL = "cell:"
"""Before the name of a column in the name of its field."""

MOST_SHOWN = 50
"""Answers that the page shows; a file has all of them."""


@dataclass(frozen=True, slots=True)
class RowField:
    """A field for one column of the data.

    Attributes:
        name: The column.
        words: What stands in it, where that is one of a few words; empty otherwise.
        is_text: Whether it is free text.
    """

    name: str
    words: tuple[str, ...] = ()
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model has answered.

    Attributes:
        labels: The first answers, in the order of the rows.
        chances: For each of them class and probability, the likeliest first; empty if not requested.
        columns: What the rows came with, by name, as many as the labels.
        rows: How many were asked about.
        model: Which model answered: its number, and what it is.
        total_ms: How long it took, in milliseconds.
    """

    labels: Sequence[str]
    chances: Sequence[Sequence[tuple[str, float]]]
    columns: Mapping[str, Sequence[str]]
    rows: int
    model: str
    total_ms: float


def row_fields(columns: Sequence[str] | None) -> list[RowField]:
    """The fields of a row, in the order of the data; none where its columns have no names, or are too many.

    A model is given ``COLUMN=WORD`` of 0 and 1 for each word of a column, and ``text_COLUMN_NUMBER`` for free text; a
    person gives the column itself.

    Example:
        >>> row_fields(["size", "colour=red", "colour=blue", "text_note_0", "text_note_1"])[1].words
        ('red', 'blue')
    """
    found: dict[str, list[str]] = {}
    for column in columns or ():
        name, _, word = column.partition("=")
        found.setdefault(text_column_of(column) or (name if word else column), []).append(column)
    fields = []
    for name, made_of in found.items():
        is_words = len(made_of) > 1 and all(column.startswith(f"{name}=") for column in made_of)
        is_text = not is_words and all(text_column_of(column) for column in made_of)
        if is_words:
            fields.append(RowField(name, tuple(column[len(name) + 1 :] for column in made_of)))
        elif is_text:
            fields.append(RowField(name, is_text=True))
        else:
            fields += [RowField(column) for column in made_of]
    return fields if len(fields) <= MOST_FIELDS else []


def inputs_of(values: Mapping[str, str]) -> Any:
    """The row in a form: its fields by column, or the pasted numbers.

    Raises:
        ConfigError: There is neither.
    """
    cells = {name[len(CELL) :]: text for name, text in values.items() if name.startswith(CELL)}
    if cells:
        return cells
    pasted = values.get("numbers", "").strip().strip("[]")
    require(bool(pasted), "row", pasted, "given: fill in its fields, or paste its numbers")
    return [_number(part) for part in re.split(r"[\s,;]+", pasted) if part]


def answers_of(found: Inferred, *, with_columns: bool) -> Answers:
    """What the model has answered, as the page shows it; ``with_columns`` where the rows came in a file."""
    columns = list(found.columns.items())[:8] if with_columns else []
    return Answers(
        labels=[_label(label) for label in found.labels[:MOST_SHOWN]],
        chances=[
            sorted(row.items(), key=lambda pair: -pair[1])[:5] for row in (found.probabilities or [])[:MOST_SHOWN]
        ],
        columns={name: cells[:MOST_SHOWN] for name, cells in columns},
        rows=len(found.labels),
        model=f"model {found.model_id}, {found.candidate or 'handed in'}, of data version {found.data_version}",
        total_ms=found.latency.total_ms,
    )


def _label(label: object) -> str:
    if isinstance(label, list):
        shown = ", ".join(map(str, label[:8]))
        return f"[{shown}{', ...' if len(label) > 8 else ''}]"
    return f"{label:g}" if isinstance(label, float) else str(label)


def _number(text: str) -> float | str | None:
    """A number, or nothing for a missing one; anything else is refused by the model's own check, with its words."""
    if text.lower() in ("null", "none", "nan"):
        return None
    try:
        return float(text)
    except ValueError:
        return text
