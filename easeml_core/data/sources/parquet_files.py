"""Columns of an untrusted Parquet file: numbers and text, bounded. Needs pyarrow (extra ``parquet``).

A few bytes of Parquet can encode any number of cells. So the row and column counts are checked before any page is read,
rows are read in batches and counted again, and text stays dictionary-encoded until its words are known. What the file
says of its size is no bound, since nothing has to be true of it: words are measured before they become text, and
counted. What pages take that are not that large is bounded by the process that reads a stranger's file alone.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.csv_text import MAX_BYTES
from easeml_core.data.sources.csv_files import MAX_CELL, MAX_COLUMNS
from easeml_core.data.sources.files import read_bytes
from easeml_core.data.sources.optional import optional_package
from easeml_core.data.table import MAX_CELLS
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from easeml_core.data.columns import Column

MAX_UNPACKED = 1024**3
_BATCH = 65_536
_HEADER = 16 * 1024 * 1024  # bytes of one string, and items of one list, in the file's own description


def read_parquet(path: Path, *, least_rows: int = 2) -> dict[str, Column]:
    """The columns of a Parquet file, by name.

    Numbers, booleans and decimals become float64, text stays text, nulls and empty text are missing.

    Args:
        path: An absolute path of a regular file of at most 64 MB.
        least_rows: Fewer are refused.

    Raises:
        InvalidInputError: If the file cannot be read, is too large once unpacked, or has a column of another type;
            also if pyarrow is not installed.
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
    """Names of the columns and what each holds, from the file's description of itself.

    Args:
        path: For errors.
        file: pyarrow's ``ParquetFile``.
        most_cells: Rows times columns.
        most_unpacked: Bytes of all row groups; None where these are looked at one by one.
        least_rows: Fewer are refused.

    Returns:
        Names, and ``numbers``, ``text`` or ``nothing`` for each.

    Raises:
        InvalidInputError: The file is too large, or has columns that cannot be used.
    """
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
        """Return what an array of pyarrow's holds, stripped; None for nothing.

        Raises:
            InvalidInputError: A cell is too long, or the file has too much text.
        """
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
    """Return some cells of a column of pyarrow's.

    Raises:
        InvalidInputError: As ``Words``.
    """
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
