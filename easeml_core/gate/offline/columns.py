"""Labels and predictions from CSV files: a million rows in a fraction of a second.

Examples are named in the order of the old model's file. ``early`` takes another one (``drawn_order``), since files are
often sorted.

Such a file comes from outside, so everything is bounded and every refusal names file, row and column. Nothing is
trimmed, rounded or guessed: ``1`` and ``1.0`` are two different texts.
"""

from __future__ import annotations

import difflib
import hashlib
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError, counted
from easeml_core.formats.csv_text import numbered_rows, read_text, without_guard

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


MAX_BYTES = 256 * 2**20
MAX_ROWS = 10_000_000
_MAX_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a file, by example.

    Attributes:
        source: The file's name, for messages.
        name: The column's name.
        examples: Names of the examples, each once, in the file's order.
        values: The texts, one for each example, none empty.
    """

    source: str
    name: str
    examples: list[str]
    values: list[str]


def read_column(path: Path, name: str, *, like: Column | None = None) -> Column:
    """Read the columns ``example`` and ``name`` of a CSV file (RFC 4180, UTF-8, a header, other columns ignored)."""
    source = str(path)
    text = read_text(path, lambda what: _refused(source, what), most=MAX_BYTES)
    examples, values = _plain_rows(text, name) or _quoted_rows(text, name, source)
    if len(examples) > MAX_ROWS:
        message = f"{source}: {len(examples):,} rows; at most {MAX_ROWS:,} are read"
        raise InvalidInputError(message)
    if not examples:
        message = f"{source}: there are no rows below the header; give one row per example"
        raise InvalidInputError(message)
    if like is not None and examples == like.examples:
        return Column(source, name, like.examples, values)
    if len(set(examples)) < len(examples):
        raise InvalidInputError(_duplicates(examples, source))
    return Column(source, name, examples, values)


def some(names: Iterable[str]) -> str:
    """The first few of several names, quoted and cut, as messages show them.

    Example:
        >>> some(["a", "b", "c", "d", "e"])
        "'a', 'b', 'c' and 2 more"
    """
    known = list(names)
    shown = ", ".join(repr(n if len(n) <= 60 else n[:57] + "...") for n in known[:_MAX_COLUMNS])
    return shown + (f" and {len(known) - _MAX_COLUMNS:,} more" if len(known) > _MAX_COLUMNS else "")


def _refused(source: str, what: str) -> InvalidInputError:
    return InvalidInputError(f"{source} {what}; give a CSV file in UTF-8 with one row per example")


def _plain_rows(text: str, name: str) -> tuple[list[str], list[str]] | None:
    """Split a file without quotes, all of whose rows have two fields; None for any other file."""
    if '"' in text or not text.startswith(f"example,{name}\n" if "\r" not in text else f"example,{name}\r\n"):
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if "\r" in text:
        return None
    text = text.removesuffix("\n")
    codes = np.frombuffer(text.encode(), dtype=np.uint8)
    # Commas and line ends must take turns: then every row has exactly two fields.
    marks = codes[(codes == ord(",")) | (codes == ord("\n"))]
    if marks.size % 2 == 0 or (marks[::2] != ord(",")).any() or (marks[1::2] != ord("\n")).any():
        return None
    if marks.size // 2 > MAX_ROWS:
        return None
    fields = text.replace("\n", ",").split(",")
    return None if "" in fields else (fields[2::2], fields[3::2])


def _quoted_rows(text: str, name: str, source: str) -> tuple[list[str], list[str]]:
    """Read any CSV file row by row, or say which row is broken."""
    rows = numbered_rows(text, lambda what: _refused(source, what))
    examples: list[str] = []
    values: list[str] = []
    _, header = next(rows, (0, []))
    key, value = _position(header, "example", source), _position(header, name, source)
    for number, row in rows:
        if len(row) != len(header):
            fields = "field" if len(row) == 1 else "fields"
            message = f"{source}, row {number}: {len(row)} {fields}, the header has {len(header)}"
            raise InvalidInputError(message)
        if not row[key] or not row[value]:
            column = "example" if not row[key] else name
            message = f"{source}, row {number}, column {column}: empty; give every row a value"
            raise InvalidInputError(message)
        examples.append(row[key])
        values.append(row[value])
        if len(examples) > MAX_ROWS:
            break
    return examples, values


def _position(header: list[str], name: str, source: str) -> int:
    if header.count(name) != 1:
        found = some(header) if header else "none"
        message = f"{source}: the header must have the column {name!r} exactly once; its columns: {found}"
        raise InvalidInputError(message)
    return header.index(name)


def _duplicates(examples: list[str], source: str) -> str:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for example in examples:
        if example in seen:
            twice[example] = None
        seen.add(example)
    return f"{source}, column example: {some(twice)} more than once; give one row per example"


MOST = 1000
"""Predicted classes that one label is compared with."""

_MAX_CLASSES = 5


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Labels and predictions of one set, as class numbers.

    Attributes:
        examples: Names, each once.
        labels: Shape ``(n_examples,)``; -1 where the labels' file has no row.
        old: Same shape.
        new: Same shape.
        mismatches: A sentence for each class that only the labels, or only the predictions, spell in this way.
    """

    examples: list[str]
    labels: NDArray[np.int64]
    old: NDArray[np.int64]
    new: NDArray[np.int64]
    mismatches: tuple[str, ...] = ()

    def at(self, order: NDArray[np.intp]) -> Predictions:
        """Return the same examples in another order."""
        names = [self.examples[place] for place in order.tolist()]
        return replace(self, examples=names, labels=self.labels[order], old=self.old[order], new=self.new[order])


def drawn_order(examples: Sequence[str]) -> NDArray[np.intp]:
    """Draw the order in which ``early`` goes through examples, by a hash of their names.

    Bets on the way assume an order that has nothing to do with labels and predictions, and the same one for every model
    and for all labels that are still to come. So it follows from the names alone, never from where a row lies in a file
    that may be sorted by class. Two names of one hash keep their order: among 10 million names there are such with a
    chance of 3e-6.

    Returns:
        The place of each next example, shape ``(n_examples,)``.

    Example:
        >>> names = ["a", "b", "c", "d"]
        >>> [names[i] for i in drawn_order(names)] == [names[::-1][i] for i in drawn_order(names[::-1])]
        True
    """
    keys = (hashlib.blake2b(name.encode(), digest_size=8, person=b"gate early order").digest() for name in examples)
    return np.argsort(np.frombuffer(b"".join(keys), dtype=">u8"), kind="stable")


def read_predictions(labels: Path | None, old: Path, new: Path) -> Predictions:
    """Read labels and the predictions of both models."""
    before = read_column(old, "prediction")
    after = read_column(new, "prediction", like=before)
    classes: dict[str, int] = {}
    old_codes, new_codes = _codes(before.values, classes), _codes(after.values, classes)
    new_codes = _in_order(after, new_codes, before)
    truth = np.full(len(before.examples), -1, dtype=np.int64)
    mismatches: tuple[str, ...] = ()
    if labels is not None:
        given = read_column(labels, "label", like=before)
        predicted = len(classes)
        codes = _codes(given.values, classes)
        if (codes >= predicted).all():
            seen = f"labels such as {some(set(given.values))}, predictions such as {some(list(classes)[:predicted])}"
            message = f"no label is ever predicted: {seen}; classes are compared as texts"
            raise InvalidInputError(message)
        truth[_known_positions(given, before)] = codes
        mismatches = class_mismatches(given.values, list(classes)[:predicted])
    return Predictions(before.examples, truth, old_codes, new_codes, mismatches)


def class_mismatches(labels: Sequence[str], predicted: Sequence[str]) -> tuple[str, ...]:
    """Name the classes that occur among the labels only, and predictions that differ from a label in spelling alone.

    Example:
        >>> class_mismatches(["Repaid", "default"], ["repaid", "default"])[0]
        "the label 'Repaid' (1 example) is never predicted; the nearest prediction is 'repaid'"
        >>> class_mismatches(["1", "0"], ["1", "0", "1.0"])
        ("the prediction '1.0' is no label; the label '1' has another spelling",)
    """
    counts = Counter(labels)
    known, found = set(predicted), []
    for label in (label for label in counts if label not in known):
        near = _same_class(label, predicted) or next(
            iter(difflib.get_close_matches(label, predicted[:MOST], n=1)), None
        )
        hint = f"; the nearest prediction is {some([near])}" if near is not None else ""
        found.append(f"the label {some([label])} ({counted(counts[label], 'example')}) is never predicted{hint}")
    for name in (name for name in predicted if name not in counts):
        same = _same_class(name, counts)
        if same is not None:
            found.append(f"the prediction {some([name])} is no label; the label {some([same])} has another spelling")
    return (
        *found[:_MAX_CLASSES],
        *([f"{len(found) - _MAX_CLASSES:,} more classes like these"] if len(found) > _MAX_CLASSES else []),
    )


def _same_class(name: str, others: Iterable[str]) -> str | None:
    """The class that differs from a name by case, spaces, or the form of a number alone."""
    return next((other for other in others if other != name and _spelling(other) == _spelling(name)), None)


def _spelling(name: str) -> str | float:
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    try:
        return float(text)
    except ValueError:
        return text


def read_slice_names(path: Path, examples: list[str]) -> list[str]:
    """Read the slice of every example from a CSV file with the columns ``example,slice``; "" where it has none."""
    order = Column("", "", examples, [])
    given = read_column(path, "slice", like=order)
    names = [""] * len(examples)
    for position, name in zip(_known_positions(given, order).tolist(), given.values, strict=True):
        names[position] = name
    return names


def _codes(values: list[str], classes: dict[str, int]) -> NDArray[np.int64]:
    """Number the classes; new ones are added to ``classes``."""
    for value in dict.fromkeys(values):
        classes.setdefault(value, len(classes))
    return np.fromiter(map(classes.__getitem__, values), dtype=np.int64, count=len(values))


def _in_order(column: Column, codes: NDArray[np.int64], order: Column) -> NDArray[np.int64]:
    """Bring a column's codes into the order of another file, which must have the same examples."""
    positions = _positions(column, order)
    hit = np.zeros(len(order.examples), dtype=np.bool_)
    hit[positions[positions >= 0]] = True
    if (positions < 0).any() or not hit.all():
        missing, strange = np.flatnonzero(~hit).tolist(), np.flatnonzero(positions < 0).tolist()
        parts = [f"{column.source} lacks {some(order.examples[i] for i in missing)}"] if missing else []
        parts += [f"{order.source} lacks {some(column.examples[i] for i in strange)}"] if strange else []
        message = f"both models must have a prediction for every example; {'; '.join(parts)}"
        raise InvalidInputError(message)
    ordered = np.empty_like(codes)
    ordered[positions] = codes
    return ordered


def _known_positions(column: Column, order: Column) -> NDArray[np.int64]:
    """Where the examples of a column stand in the set's order, all of which must be there."""
    positions = _positions(column, order)
    strange = np.flatnonzero(positions < 0).tolist()
    if strange:
        message = f"{column.source} has examples without a prediction: {some(column.examples[i] for i in strange)}"
        raise InvalidInputError(message)
    return positions


def _positions(column: Column, order: Column) -> NDArray[np.int64]:
    """Where the examples of a column stand in the set's order, -1 for those that do not."""
    if column.examples is order.examples:
        return np.arange(len(order.examples))
    places = {example: place for place, example in enumerate(order.examples)}
    found = np.fromiter(map(places.get, column.examples, repeat(-1)), dtype=np.int64, count=len(column.examples))
    strange = np.flatnonzero(found < 0).tolist()
    taken = set(found.tolist()) if strange else set()
    for row in strange:  # perhaps as a file for people has it (``--wanted``)
        place = places.get(without_guard(column.examples[row]), -1)
        if place not in taken:
            taken.add(place)
            found[row] = place
    return found
