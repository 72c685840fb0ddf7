"""The program of series in a table: two columns, ``id`` and ``step``, tell which line belongs where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.data.inference.result import Asked, Inferred, class_note, listed, note_of_source, shown
from easeml_core.data.inference.seen_table import check_inputs, note_of_reading, notes_of_columns, notes_of_names
from easeml_core.data.inference.target import sizes_of_classes
from easeml_core.data.layout import Layout
from easeml_core.data.program import field_names, program_of_data
from easeml_core.data.sources.series import (
    places_of_steps,
    series_key,
    series_of_lines,
    split_values_of_series,
    target_of_series,
)
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from easeml_core.data.inference.seen_table import SeenTable
    from easeml_core.data.sources.spec import Source
    from easeml_core.data.targets import Target

KEYS = ("id", "step")
"""Columns that make a table one of series: which one, and when; also the options that name others."""


def program_of_series(source: Source, seen: SeenTable, found: Target, asked: Asked, why: tuple[str, str]) -> Inferred:
    """The program of lines that were seen; the values of a step are one tensor, and a link leads to the next step.

    Args:
        source: What reads the data.
        seen: The table, with the columns of the keys.
        found: Target of all lines.
        asked: With target and keys.
        why: Notes of what decided on target and task.

    Raises:
        InvalidInputError: As ``series_source.read_series``.
    """
    ids, steps = (series_key(seen.columns, name) for name in asked.keys)
    if steps.dtype == object:
        message = f"source of series: step column {asked.keys[1]!r} has words; steps are numbers"
        raise InvalidInputError(message)
    words = next((column for column in seen.inputs if column.is_text), None)
    if words is not None:
        message = (
            f"source of series: column {words.number} holds words; the values of a series are numbers. "
            "Leave it out, or if it is the target, name it with --target"
        )
        raise InvalidInputError(message)
    series, starts = series_of_lines(ids)
    lengths = places_of_steps(series, steps, len(starts))[2]
    split_values_of_series(seen.columns, asked.split, found, series, starts)
    labels, present = target_of_series(series, found.labels, found.present, len(starts))
    classes = sizes_of_classes(found, labels[present], partial=seen.partial)
    check_inputs(seen, seen.rows)
    names, kept = field_names([found.column]), int(present.sum())
    layout = Layout("series", (int(lengths.max()), len(seen.inputs)))
    program = program_of_data(layout, found.task, len(classes), name=found.column)
    notes = (
        note_of_source(source, asked.target or "", found.task, asked.split),
        *why,
        f"series, since there are columns {' and '.join(asked.keys)}: {len(starts):,} series of {lengths.min():,} to "
        f"{lengths.max():,} steps",
        note_of_reading(seen, kept=kept, whole=len(starts), what="series"),
        *([class_note(names[found.column], classes)] if classes else []),
        f"numbers of a step ({len(seen.inputs):,}): {listed([shown(column.name) for column in seen.inputs])}",
        *notes_of_columns(seen, {}),
        *notes_of_names(names),
    )
    told = asked.target or ""
    return Inferred(source, told, found.task, program, kept, seen.partial, classes, notes, asked.split)
