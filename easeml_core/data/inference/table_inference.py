"""The program of a table: what the sources would make of each column.

A text column of few words is a category, one of more is as many numbers as it is hashed to, everything else is one
number. A CSV file with the columns ``id`` and ``step``, or with others named for them, is left to ``series_inference``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from easeml_core.data.columns import split_values_of
from easeml_core.data.inference.column_stats import ColumnSummary
from easeml_core.data.inference.result import Asked, Inferred, class_note, listed, note_of_source, shown
from easeml_core.data.inference.seen_table import (
    check_inputs,
    note_of_reading,
    notes_of_columns,
    notes_of_names,
    see_table,
)
from easeml_core.data.inference.series_inference import KEYS, program_of_series
from easeml_core.data.inference.target import choose_target, infer_target, sizes_of_classes
from easeml_core.data.program import InputColumn, program_of_table
from easeml_core.data.sources.blocks import csv_blocks, most_rows, parquet_blocks
from easeml_core.data.sources.series import series_key
from easeml_core.data.sources.spec import Source
from easeml_core.data.targets import target_of
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from easeml_core.data.inference.seen_table import SeenTable
    from easeml_core.data.sources.blocks import Block
    from easeml_core.data.targets import Target


def infer_csv(path: Path, asked: Asked, report: Callable[[str], None]) -> Inferred:
    """The program of a CSV file: of a table, or of series where keys are named, or it has ``id`` and ``step``."""
    header, blocks = csv_blocks(path)
    keys = asked.keys or (KEYS if set(KEYS) <= set(header) else ())
    others = tuple((option, key) for option, key in zip(KEYS, keys, strict=False) if key != option)
    source = Source("series" if keys else "csv", path.name, others)
    return _infer(source, header, blocks, asked._replace(keys=keys), report)


def infer_parquet(path: Path, asked: Asked, report: Callable[[str], None]) -> Inferred:
    """The program of a Parquet file, which is always a table."""
    header, blocks = parquet_blocks(path)
    return _infer(Source("parquet", path.name), header, blocks, asked, report)


def _infer(
    source: Source, header: Sequence[str], blocks: Iterator[Block], asked: Asked, report: Callable[[str], None]
) -> Inferred:
    # Of columns without rows, everything is found, and what is wrong refused, before anything is read.
    empty = dict.fromkeys(header, np.zeros(0))
    for key in asked.keys:
        series_key(empty, key)
    others = {*asked.keys, "" if asked.split.keep else asked.split.column}
    chosen, rule = choose_target(_free(header, others), asked.target)
    target = target_of({c: empty[c] for c in header if c not in asked.keys}, chosen, asked.task)
    split_values_of(empty, asked.split, target)
    others.add(target.column)
    inputs = tuple(ColumnSummary(c, number) for number, c in enumerate(header, start=1) if c not in others)
    seen = see_table(
        blocks,
        inputs,
        target=target.column,
        keys=asked.keys,
        split=asked.split,
        most=most_rows(len(header)),
        report=report,
    )
    found, why = infer_target({target.column: seen.columns[target.column]}, chosen, asked.task)
    program_of = program_of_series if asked.keys else _program_of_table
    return program_of(source, seen, found, asked._replace(target=chosen), (rule, why))


def _free(header: Sequence[str], others: set[str]) -> list[str]:
    """The columns that may be predicted; at least two, since one of them is, and is predicted from the rest."""
    free = [name for name in header if name not in others]
    if len(free) < 2:
        beside = [name for name in header if name in others]
        least = "a target and at least one more are needed"
        message = f"it has {counted(len(free), 'column')}{' beside ' if beside else ''}{' and '.join(beside)}; {least}"
        raise InvalidInputError(message)
    return free


def _program_of_table(source: Source, seen: SeenTable, found: Target, asked: Asked, why: tuple[str, str]) -> Inferred:
    split_values_of(seen.columns, asked.split, found)
    labels = found.labels[found.present]
    classes = sizes_of_classes(found, labels, partial=seen.partial)
    check_inputs(seen, len(labels))
    columns = [InputColumn(c.name, c.width, frozenset(c.words) if c.is_category else frozenset()) for c in seen.inputs]
    program, names, shared = program_of_table(columns, found.column, len(classes))
    told = asked.target or ""
    notes = (
        note_of_source(source, told, found.task, asked.split),
        *why,
        note_of_reading(seen, kept=len(labels), whole=seen.rows, what="rows"),
        *([class_note(names[found.column], classes)] if classes else []),
        *([] if classes else ["its rows are numbers: easeml program match FILE --targets numbers"]),
        *notes_of_columns(seen, names),
        *([f"columns of the same words have the same classes: {listed(_groups(shared))}"] if shared else []),
        *notes_of_names(names),
    )
    return Inferred(source, told, found.task, program, len(labels), seen.partial, classes, notes, asked.split)


def _groups(shared: Mapping[str, str]) -> list[str]:
    firsts = dict.fromkeys(shared.values())
    return [" and ".join(shown(name) for name in shared if shared[name] == first) for first in firsts]
