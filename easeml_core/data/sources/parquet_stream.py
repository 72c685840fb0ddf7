"""Parquet files that are larger than memory: one block of rows at a time into a mapped table.

All inputs are columns of numbers, since words would have to be known before the first row is encoded; the target may be
text. The file's description of itself is checked before any page is read, and its row groups are read one by one.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.csv_text import MAX_BYTES
from easeml_core.data import mapped
from easeml_core.data.columns import split_values_of, target_of
from easeml_core.data.program import InputColumn, program_of_table
from easeml_core.data.sources.optional import optional_package
from easeml_core.data.sources.parquet_files import Words, cells_of_chunk, described, parquet_refusal
from easeml_core.data.table import table_of_mapped
from easeml_core.errors import InvalidInputError, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.columns import Column
    from easeml_core.data.split_spec import Split
    from easeml_core.data.table import RawTable
    from easeml_core.entities import Task

MOST_STREAMED_CELLS = 5_000_000_000
"""Cells of a file: 20 GB of float32."""

MOST_STREAMED_ROWS = 5_000_000
"""Rows of a file: of each, the referee holds half a kilobyte in memory while it registers it."""

MAX_GROUP_BYTES = 512 << 20
"""Of one row group, unpacked: pages of a whole group may be in memory."""

_BUFFER = 1 << 20


def read_large_parquet(path: Path, target: str, task: Task | None, split: Split) -> RawTable:
    """Return the table of a Parquet file of numbers, whose inputs are in a file themselves.

    Args:
        path: An absolute path of a regular file.
        target: As of ``columns.table_of_columns``.
        task: As there.
        split: As there.

    Raises:
        InvalidInputError: The file cannot be read, is too large, has a column of text beside the target, or its rows do
            not make a table.
    """
    with _opened(path) as file:
        return _table(path, file, target, task, split)


def is_large(path: Path) -> bool:
    """Whether a file is streamed: one of more bytes than are read into memory."""
    return path.is_absolute() and path.is_file() and path.stat().st_size > MAX_BYTES


def large_columns(
    path: Path, rows_of: Callable[[int], int], *, least_rows: int = 2
) -> tuple[list[str], Iterator[dict[str, Column]]]:
    """Return the names of the columns of a file, which may be large, and its cells, some rows at a time.

    Args:
        path: Of the file.
        rows_of: Gives the rows of a block, >= 1, for so many columns.
        least_rows: A file of fewer rows is refused.

    Raises:
        InvalidInputError: It cannot be read, or is too large.
    """
    with _opened(path) as file:
        names, kinds = described(path, file, most_cells=MOST_STREAMED_CELLS, most_unpacked=None, least_rows=least_rows)
        _require_small_groups(path, file)

    def blocks() -> Iterator[dict[str, Column]]:
        with _opened(path) as again:
            for batch in again.iter_batches(batch_size=rows_of(len(names))):
                words = Words(path)  # of this block: none is kept
                yield {name: cells_of_chunk(batch.column(i), kinds[i], words) for i, name in enumerate(names)}

    return names, blocks()


def _table(path: Path, file: Any, target: str, task: Task | None, split: Split) -> RawTable:
    names, kinds = described(path, file, most_cells=MOST_STREAMED_CELLS, most_unpacked=None)
    rows = file.metadata.num_rows
    if rows > MOST_STREAMED_ROWS:
        raise parquet_refusal(
            path, f"has {rows:,} rows, at most {MOST_STREAMED_ROWS:,} are allowed in a file of this size"
        )
    _require_small_groups(path, file)
    wanted = [name for name in names if name in (target, target.partition(">")[0].strip(), split.column)]
    few = {name: _whole(path, file, name, kinds[names.index(name)]) for name in wanted}
    found = target_of(few if few else dict.fromkeys(names, np.zeros(0)), target, task)
    left_out = {found.column} if split.keep else {found.column, split.column}
    inputs = [name for name in names if name not in left_out]
    words = [name for name in inputs if kinds[names.index(name)] == "text"]
    if words or not inputs:
        number = names.index(words[0]) + 1 if words else 0
        what = f"has text in column {number}" if words else "has no column beside the target"
        raise parquet_refusal(path, f"{what}; a file of this size needs numbers in all columns but the target")
    divided_by = split_values_of(few, split, found)
    values = mapped.new_rows(int(found.present.sum()), len(inputs))
    place = start = 0
    for block in _blocks(path, file, inputs, kinds, names):
        chosen = block[found.present[start : start + len(block)]]
        values[place : place + len(chosen)] = chosen
        place, start = place + len(chosen), start + len(block)
        mapped.give_back(values)
    if start != rows or place != len(values):
        raise parquet_refusal(path, f"has {start:,} rows, and says {rows:,}")
    return table_of_mapped(
        values,
        found.labels[found.present],
        class_names=found.class_names,
        feature_names=tuple(inputs),
        task=found.task,
        split_values=divided_by,
        program=program_of_table([InputColumn(name) for name in inputs], found.column, len(found.class_names)).program,
    )


def _require_small_groups(path: Path, file: Any) -> None:
    largest = max(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
    if largest > MAX_GROUP_BYTES:
        what = f"has a row group of {largest:,} bytes, at most {MAX_GROUP_BYTES:,} are allowed in a file of this size"
        raise parquet_refusal(path, what + "; write it in smaller row groups (row_group_size)")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a regular file as Parquet, page by page, without waiting for the other end of a pipe.

    Raises:
        InvalidInputError: What pyarrow says while the file is read.
    """
    arrow = optional_package("pyarrow", "pyarrow", extra="parquet")
    parquet = optional_package("pyarrow", "pyarrow.parquet", extra="parquet")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise parquet_refusal(path, f"cannot be read: {reason_of(error)}") from error
    try:
        with os.fdopen(descriptor, "rb") as raw:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise parquet_refusal(path, "is not a regular file")
            limits = {"thrift_string_size_limit": 16 << 20, "thrift_container_size_limit": 16 << 20}
            yield parquet.ParquetFile(raw, pre_buffer=False, buffer_size=_BUFFER, **limits)
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InvalidInputError):
            raise
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a fault of this machine, such as a full disk
        raise parquet_refusal(path, f"is no Parquet file that can be read: {reason_of(error)}") from error


def _whole(path: Path, file: Any, name: str, kind: str) -> Column:
    """One column of all rows, in memory."""
    words, batches = Words(path), file.iter_batches(batch_size=1 << 16, columns=[name])
    return np.concatenate([cells_of_chunk(batch.column(0), kind, words) for batch in batches])


def _blocks(path: Path, file: Any, inputs: list[str], kinds: list[str], names: list[str]) -> Iterator[NDArray[Any]]:
    """The inputs, some rows at a time, float32 (rows, inputs)."""
    size, words = max(1, mapped.MAPPED_BLOCK_CELLS // len(inputs)), Words(path)
    of_input = [kinds[names.index(name)] for name in inputs]
    order = None
    for group in range(file.metadata.num_row_groups):
        for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=inputs):
            order = order or [batch.schema.get_field_index(name) for name in inputs]
            block = np.empty((batch.num_rows, len(inputs)), dtype=np.float32)
            with np.errstate(over="ignore"):  # what became infinite is refused with its place
                for place, (column, kind) in enumerate(zip(order, of_input, strict=True)):
                    cells = batch.column(column)
                    is_plain = str(cells.type) in ("float", "double")  # a null is NaN already
                    block[:, place] = (
                        cells.to_numpy(zero_copy_only=False) if is_plain else cells_of_chunk(cells, kind, words)
                    )
            yield block
