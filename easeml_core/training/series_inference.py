"""The program of series in a table: the columns ``id`` and ``step`` tell which line belongs where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError
from easeml_core.programs.data_type import DataType, Program, Tensor
from easeml_core.training.inferred import Inferred, class_note, field_names, listed, note_of_source, output_of, shown
from easeml_core.training.inferred_target import sizes_of_classes
from easeml_core.training.seen_table import check_inputs, note_of_reading, notes_of_columns, notes_of_names
from easeml_core.training.series_source import places_of_steps, series_key, series_of_lines, target_of_series

if TYPE_CHECKING:
    from easeml_core.training.seen_table import SeenTable
    from easeml_core.training.source_specs import Source
    from easeml_core.training.targets import Target

KEYS = ("id", "step")
"""Columns that make a table one of series: which one, and when."""


def program_of_series(source: Source, seen: SeenTable, found: Target, target: str, why: tuple[str, str]) -> Inferred:
    """The program of lines that were seen; the values of a step are one tensor, and a link leads to the next step.

    Args:
        source: What reads the data.
        seen: The table, with the columns of ``KEYS``.
        found: Target of all lines.
        target: As it was asked for.
        why: Notes of what decided on target and task.

    Raises:
        InvalidInputError: As ``series_source.read_series``.
    """
    ids, steps = (series_key(seen.columns, name) for name in KEYS)
    if steps.dtype == object:
        message = "source of series: step column 'step' has words; steps are numbers"
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
    labels, present = target_of_series(series, found.labels, found.present, len(starts))
    classes = sizes_of_classes(found, labels[present], partial=seen.partial)
    check_inputs(seen, seen.rows)
    names, kept = field_names([found.column]), int(present.sum())
    program = Program(DataType((Tensor((len(seen.inputs),)),), ("next",)), output_of(classes, names[found.column]))
    notes = (
        note_of_source(source, target, found.task),
        *why,
        f"series, since there are columns {' and '.join(KEYS)}: {len(starts):,} series of {lengths.min():,} to "
        f"{lengths.max():,} steps",
        note_of_reading(seen, kept=kept, whole=len(starts), what="series"),
        *([class_note(names[found.column], classes)] if classes else []),
        f"numbers of a step ({len(seen.inputs):,}): {listed([shown(column.name) for column in seen.inputs])}",
        *notes_of_columns(seen, {}),
        *notes_of_names(names),
    )
    return Inferred(source, target, found.task, program, kept, seen.partial, classes, notes)
