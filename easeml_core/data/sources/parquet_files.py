"""Columns of an untrusted Parquet file: numbers and text, bounded. Needs pyarrow (extra ``parquet``).

A few bytes of Parquet can encode any number of cells. So the row and column counts are checked before any page is read,
rows are read in batches and counted again, and text stays dictionary-encoded until its words are known. What the file
says of its size is no bound, since nothing has to be true of it: words are measured before they become text, and
counted. What pages take that are not that large is bounded by the process that reads a stranger's file alone.

A file that is larger than memory is read into a mapped table, one row group and one block of rows at a time. All its
inputs are columns of numbers, since words would have to be known before the first row is encoded; the target may be
text.
"""

from __future__ import annotations

import io
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data import mapped
from easeml_core.data.columns import split_values_of, target_of
from easeml_core.data.program import InputColumn, program_of_table
from easeml_core.data.sources.csv_files import MAX_CELL, MAX_COLUMNS
from easeml_core.data.sources.files import read_bytes
from easeml_core.data.sources.spec import optional_package
from easeml_core.data.table import MAX_CELLS, table_of_mapped
from easeml_core.errors import InvalidInputError, counted, reason_of
from easeml_core.formats.csv_text import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.columns import Column
    from easeml_core.data.split_spec import Split
    from easeml_core.data.table import RawTable
    from easeml_core.entities import Task


MAX_UNPACKED = 1024**3
_BATCH = 65_536
_HEADER = 16 * 1024 * 1024  # bytes of one string, and items of one list, in the file's own description


def read_parquet(path: Path, *, least_rows: int = 2) -> dict[str, Column]:
    """The columns of a Parquet file, by name.

    Numbers, booleans and decimals become float64, text stays text, nulls and empty text are missing.
    """
    if not path.is_absolute():
        raise parquet_refusal(path, "must be named by an absolute path (it is read by another process)")
    arrow = optional_package("pyarrow", "pyarrow", extra="parquet")
    content = read_bytes(path, parquet_refusal, most=MAX_BYTES)
    try:
        names, kinds = described(
            path, _file(content, []), most_cells=MAX_CELLS, most_unpacked=MAX_UNPACKED, least_rows=least_rows
        )
        texts = [name for name, kind in zip(names, kinds, strict=True) if kind == "text"]
        return _columns(path, _file(content, texts), dict(zip(names, kinds, strict=True)), least_rows)
    except (arrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise parquet_refusal(path, "is no Parquet file that can be read; is it damaged?") from error


def _file(content: bytes, texts: list[str]) -> Any:
    parquet = optional_package("pyarrow", "pyarrow.parquet", extra="parquet")
    limits = {"thrift_string_size_limit": _HEADER, "thrift_container_size_limit": _HEADER}
    return parquet.ParquetFile(io.BytesIO(content), read_dictionary=texts, pre_buffer=False, **limits)


def described(
    path: Path, file: Any, *, most_cells: int, most_unpacked: int | None, least_rows: int = 2
) -> tuple[list[str], list[str]]:
    """Names of the columns and what each holds, from the file's description of itself."""
    arrow = optional_package("pyarrow", "pyarrow", extra="parquet")
    about, schema = file.metadata, file.schema_arrow
    names = [str(name) for name in schema.names]
    if about.num_columns > MAX_COLUMNS:
        raise parquet_refusal(path, f"has more than {MAX_COLUMNS:,} columns")
    if not names or "" in names or len(set(names)) < len(names):
        raise parquet_refusal(path, "needs names for its columns, each different and none empty")
    if about.num_rows * about.num_columns > most_cells:
        raise parquet_refusal(path, f"has more than {most_cells:,} cells")
    if about.num_rows < least_rows:
        raise parquet_refusal(path, f"has {counted(about.num_rows, 'row')}; at least {least_rows} are needed")
    unpacked = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    if most_unpacked is not None and unpacked > most_unpacked:
        raise parquet_refusal(path, f"has {unpacked:,} bytes unpacked, at most {most_unpacked:,} are allowed")
    return names, [_kind(path, number, field.type, arrow) for number, field in enumerate(schema, start=1)]


def _kind(path: Path, number: int, kind: Any, arrow: Any) -> str:
    inner = kind.value_type if arrow.types.is_dictionary(kind) else kind
    if arrow.types.is_string(inner) or arrow.types.is_large_string(inner):
        return "text"
    is_number = (arrow.types.is_boolean, arrow.types.is_integer, arrow.types.is_floating, arrow.types.is_decimal)
    if inner is kind and any(is_one(kind) for is_one in is_number):
        return "numbers"
    if arrow.types.is_null(kind):
        return "nothing"
    raise parquet_refusal(path, f"has a column of type {str(kind)[:40]} (number {number}); allowed: numbers and text")


def _columns(path: Path, file: Any, kinds: Mapping[str, str], least_rows: int) -> dict[str, Column]:
    """The columns, batch by batch; a file that has more rows than it says is refused."""
    words, rows = Words(path), 0
    cells: dict[str, list[Column]] = {name: [] for name in kinds}
    for batch in file.iter_batches(batch_size=_BATCH):
        rows += batch.num_rows
        if rows * len(kinds) > MAX_CELLS:
            raise parquet_refusal(path, f"has more than {MAX_CELLS:,} cells")
        for (name, kind), chunk in zip(kinds.items(), batch.columns, strict=True):
            cells[name].append(cells_of_chunk(chunk, kind, words))
    if rows < least_rows:
        raise parquet_refusal(path, f"has {counted(rows, 'row')}; at least {least_rows} are needed")
    return {name: np.concatenate(parts) for name, parts in cells.items()}


class Words:
    """The different texts of a file, each held once; they are measured before Python has them.

    Args:
        path: Of the file, for errors.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._left = path, MAX_UNPACKED
        self._known: dict[str, str] = {}

    def of(self, dictionary: Any) -> list[str | None]:
        """Return what an array of pyarrow's holds, stripped; None for nothing."""
        compute = optional_package("pyarrow", "pyarrow.compute", extra="parquet")
        if (compute.max(compute.utf8_length(dictionary)).as_py() or 0) > MAX_CELL:
            raise parquet_refusal(self._path, f"has a cell of more than {MAX_CELL:,} characters")
        if (compute.sum(compute.binary_length(dictionary)).as_py() or 0) > self._left:
            raise parquet_refusal(self._path, f"has more than {MAX_UNPACKED:,} bytes of different texts")
        return [None if word is None else self._kept(word.strip()) for word in dictionary.to_pylist()]

    def _kept(self, word: str) -> str | None:
        if word not in self._known:
            self._left -= len(word.encode())
            self._known[word] = word
        return self._known[word] or None


def cells_of_chunk(chunk: Any, kind: str, words: Words) -> Column:
    """Return some cells of a column of pyarrow's."""
    return _text(chunk, words) if kind == "text" else _numbers(chunk, kind)


def _numbers(chunk: Any, kind: str) -> Column:
    if kind == "nothing":
        return np.full(len(chunk), np.nan)
    numbers: Column = chunk.cast("float64", safe=False).to_numpy(zero_copy_only=False)
    return numbers.astype(np.float64)  # a null is NaN already


def _text(chunk: Any, words: Words) -> Column:
    encoded = chunk if hasattr(chunk, "dictionary") else chunk.dictionary_encode()
    indices = encoded.indices.cast("int64").fill_null(-1).to_numpy(zero_copy_only=False)
    dictionary = encoded.dictionary
    if len(dictionary) > len(indices):  # which the whole row group shares: only what these cells name is looked at
        used, indices = np.unique(np.append(indices, -1), return_inverse=True)
        dictionary, indices = dictionary.take(used[1:]), indices[:-1] - 1
    table = np.array([*words.of(dictionary), None], dtype=object)
    column: Column = table[indices]
    return column


def parquet_refusal(path: Path, what: str) -> InvalidInputError:
    """Return the error that names a Parquet file; ``what`` is the rest of the sentence."""
    return InvalidInputError(f"source of Parquet: {str(path)[-200:]!r} {what}")


MOST_STREAMED_CELLS = 5_000_000_000
"""Cells of a file: 20 GB of float32."""

MOST_STREAMED_ROWS = 5_000_000
"""Rows of a file: of each, the referee holds half a kilobyte in memory while it registers it."""

MAX_GROUP_BYTES = 512 << 20
"""Of one row group, unpacked: pages of a whole group may be in memory."""

_BUFFER = 1 << 20


def read_large_parquet(path: Path, target: str, task: Task | None, split: Split) -> RawTable:
    """Return the table of a Parquet file of numbers, whose inputs are in a file themselves."""
    with _opened(path) as file:
        return _table(path, file, target, task, split)


def is_large(path: Path) -> bool:
    """Whether a file is streamed: one of more bytes than are read into memory."""
    return path.is_absolute() and path.is_file() and path.stat().st_size > MAX_BYTES


def large_columns(
    path: Path, rows_of: Callable[[int], int], *, least_rows: int = 2
) -> tuple[list[str], Iterator[dict[str, Column]]]:
    """Return the names of the columns of a file, which may be large, and its cells, some rows at a time."""
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
    """Open a regular file as Parquet, page by page, without waiting for the other end of a pipe."""
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
