"""The program of a table: what the sources would make of each column.

A text column of few words is a category, one of more is as many numbers as it is hashed to, everything else is one
number. A CSV file with the columns ``id`` and ``step`` is left to ``series_inference``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError
from easeml_core.programs.data_type import Category, DataType, Program, Tensor
from easeml_core.programs.schema import LONE_FIELD, CategoryClass, CategoryField, Node, Schema, TensorField
from easeml_core.training.column_summary import ColumnSummary
from easeml_core.training.inferred import Inferred, class_note, field_names, listed, note_of_source, output_of, shown
from easeml_core.training.inferred_target import choose_target, infer_target, sizes_of_classes
from easeml_core.training.seen_table import check_inputs, note_of_reading, notes_of_columns, notes_of_names, see_table
from easeml_core.training.series_inference import KEYS, program_of_series
from easeml_core.training.source_specs import Source
from easeml_core.training.table_blocks import csv_blocks, most_rows, parquet_blocks
from easeml_core.training.targets import target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from easeml_core.entities import Task
    from easeml_core.training.seen_table import SeenTable
    from easeml_core.training.table_blocks import Block
    from easeml_core.training.targets import Target

_MOST_NODES = 500
"""Columns of a table that is written as a schema: larger ones would come near the bounds of a program."""


def infer_csv(path: Path, target: str | None, task: Task | None, report: Callable[[str], None]) -> Inferred:
    """The program of a CSV file: of a table, or of series if it has the columns ``id`` and ``step``."""
    header, blocks = csv_blocks(path)
    scheme = "series" if set(KEYS) <= set(header) else "csv"
    return _infer(Source(scheme, path.name), header, blocks, target, task, report)


def infer_parquet(path: Path, target: str | None, task: Task | None, report: Callable[[str], None]) -> Inferred:
    """The program of a Parquet file, which is always a table."""
    header, blocks = parquet_blocks(path)
    return _infer(Source("parquet", path.name), header, blocks, target, task, report)


def _infer(
    source: Source,
    header: Sequence[str],
    blocks: Iterator[Block],
    target: str | None,
    task: Task | None,
    report: Callable[[str], None],
) -> Inferred:
    keys = KEYS if source.scheme == "series" else ()
    free = [name for name in header if name not in keys]
    if len(free) < 2:
        least = "a target and at least one more are needed"
        message = f"there are {len(free)} columns{' beside id and step' if keys else ''}; {least}"
        raise InvalidInputError(message)
    chosen, rule = choose_target(free, target)
    # Of columns without rows, the target is found, and a wrong one refused, before anything is read.
    name = target_of(dict.fromkeys(free, np.zeros(0)), chosen, task).column
    inputs = tuple(ColumnSummary(c, number) for number, c in enumerate(header, start=1) if c not in (*keys, name))
    seen = see_table(blocks, inputs, target=name, keys=keys, most=most_rows(len(header)), report=report)
    found, why = infer_target({name: seen.columns[name]}, chosen, task)
    program_of = program_of_series if keys else _program_of_table
    return program_of(source, seen, found, chosen, (rule, why))


def _program_of_table(source: Source, seen: SeenTable, found: Target, target: str, why: tuple[str, str]) -> Inferred:
    labels = found.labels[found.present]
    classes = sizes_of_classes(found, labels, partial=seen.partial)
    check_inputs(seen, len(labels))
    names = field_names([found.column, *(column.name for column in seen.inputs)])
    fields = tuple(
        Category(c.width, names[c.name]) if c.is_category else Tensor((c.width,), names[c.name]) for c in seen.inputs
    )
    program = Program(DataType(fields), output_of(classes, names[found.column]))
    shared = _shared_words(seen.inputs) if len(fields) <= _MOST_NODES else {}
    if shared:
        program = _with_shared_classes(program, {names[a]: names[b] for a, b in shared.items()})
    notes = (
        note_of_source(source, target, found.task),
        *why,
        note_of_reading(seen, kept=len(labels), whole=seen.rows, what="rows"),
        *([class_note(names[found.column], classes)] if classes else []),
        *([] if classes else ["its rows are numbers: easeml program match FILE --targets numbers"]),
        *notes_of_columns(seen, names),
        *([f"columns of the same words have the same classes: {listed(_groups(shared))}"] if shared else []),
        *notes_of_names(names),
    )
    return Inferred(source, target, found.task, program, len(labels), seen.partial, classes, notes)


def _shared_words(columns: Sequence[ColumnSummary]) -> dict[str, str]:
    """Column -> the first column of the same words, where there are several; the paper's form cannot say that."""
    groups: dict[frozenset[str], list[str]] = {}
    for column in columns:
        if column.is_category and len(column.words) > 1:
            groups.setdefault(frozenset(column.words), []).append(column.name)
    return {name: group[0] for group in groups.values() if len(group) > 1 for name in group}


def _groups(shared: Mapping[str, str]) -> list[str]:
    firsts = dict.fromkeys(shared.values())
    return [" and ".join(shown(name) for name in shared if shared[name] == first) for first in firsts]


def _with_shared_classes(program: Program, shared: Mapping[str, str]) -> Program:
    """The program as two schemas, where each field of ``shared`` has the class of another."""
    return Program(*(_schema(side, shared) for side in (program.input, program.output) if isinstance(side, DataType)))


def _schema(side: DataType, shared: Mapping[str, str]) -> Schema:
    nodes: list[Node] = []
    classes: dict[str, CategoryClass] = {}
    for part in side.fields:
        if isinstance(part, Category):
            name = shared.get(part.name, part.name)
            classes[name] = CategoryClass(name, part.size)
            nodes.append(Node(part.name, (CategoryField(LONE_FIELD, name),), singleton=True))
        else:
            nodes.append(Node(part.name, (TensorField(LONE_FIELD, part.dims),), singleton=True))
    return Schema(tuple(nodes), tuple(classes.values()))
