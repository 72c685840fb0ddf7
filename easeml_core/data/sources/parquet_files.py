"""Columns of an untrusted Parquet file: numbers and text, bounded. Needs pyarrow (extra ``parquet``).

A few bytes of Parquet can encode any number of cells. So the row and column counts are checked before any page is read,
rows are read in batches and counted again, and text stays dictionary-encoded until its words are known.
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
    from pathlib import Path

    from easeml_core.data.columns import Column

MAX_UNPACKED = 1024**3
_BATCH = 65_536
_HEADER = 16 * 1024 * 1024  # bytes of one string, and items of one list, in the file's own description


def read_parquet(path: Path) -> dict[str, Column]:
    """The columns of a Parquet file, by name.

    Numbers, booleans and decimals become float64, text stays text, nulls and empty text are missing.

    Args:
        path: An absolute path of a regular file of at most 64 MB.

    Raises:
        InvalidInputError: If the file cannot be read, is too large once unpacked, or has a column of another type;
            also if pyarrow is not installed.
    """
    if not path.is_absolute():
        raise parquet_refusal(path, "must be named by an absolute path (it is read by another process)")
    arrow = optional_package("pyarrow", "pyarrow", extra="parquet")
    content = read_bytes(path, parquet_refusal, most=MAX_BYTES)
    try:
        names, kinds = described(path, _file(content, []), most_cells=MAX_CELLS, most_unpacked=MAX_UNPACKED)
        texts = [name for name, kind in zip(names, kinds, strict=True) if kind == "text"]
        batches = _batches(path, content, texts, names)
        return {name: column_of_chunks(path, [b[i] for b in batches], kinds[i]) for i, name in enumerate(names)}
    except (arrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise parquet_refusal(path, "is no Parquet file that can be read; is it damaged?") from error


def _file(content: bytes, texts: list[str]) -> Any:
    parquet = optional_package("pyarrow", "pyarrow.parquet", extra="parquet")
    limits = {"thrift_string_size_limit": _HEADER, "thrift_container_size_limit": _HEADER}
    return parquet.ParquetFile(io.BytesIO(content), read_dictionary=texts, pre_buffer=False, **limits)


def described(path: Path, file: Any, *, most_cells: int, most_unpacked: int | None) -> tuple[list[str], list[str]]:
    """Names of the columns and what each holds, from the file's description of itself.

    Args:
        path: For errors.
        file: pyarrow's ``ParquetFile``.
        most_cells: Rows times columns.
        most_unpacked: Bytes of all row groups; None where these are looked at one by one.

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
    if about.num_rows < 2:
        raise parquet_refusal(path, f"has {counted(about.num_rows, 'row')}; at least 2 are needed")
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


def _batches(path: Path, content: bytes, texts: list[str], names: list[str]) -> list[list[Any]]:
    """The columns of each batch; a file that has more rows than it says is refused."""
    batches, rows = [], 0
    for batch in _file(content, texts).iter_batches(batch_size=_BATCH):
        rows += batch.num_rows
        if rows * len(names) > MAX_CELLS:
            raise parquet_refusal(path, f"has more than {MAX_CELLS:,} cells")
        batches.append(list(batch.columns))
    if rows < 2:
        raise parquet_refusal(path, f"has {counted(rows, 'row')}; at least 2 are needed")
    return batches


def column_of_chunks(path: Path, chunks: list[Any], kind: str) -> Column:
    """Return a column of pyarrow's chunks of it.

    Raises:
        InvalidInputError: A cell is too long.
    """
    cells = [_text(path, chunk) if kind == "text" else _numbers(chunk, kind) for chunk in chunks]
    column: Column = np.concatenate(cells)
    return column


def _numbers(chunk: Any, kind: str) -> Column:
    if kind == "nothing":
        return np.full(len(chunk), np.nan)
    numbers: Column = chunk.cast("float64", safe=False).to_numpy(zero_copy_only=False)
    return numbers.astype(np.float64)  # a null is NaN already


def _text(path: Path, chunk: Any) -> Column:
    encoded = chunk if hasattr(chunk, "dictionary") else chunk.dictionary_encode()
    words = [None if word is None else word.strip() or None for word in encoded.dictionary.to_pylist()]
    if max((len(word) for word in words if word), default=0) > MAX_CELL:
        raise parquet_refusal(path, f"has a cell of more than {MAX_CELL:,} characters")
    table = np.array([*words, None], dtype=object)
    indices = encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    column: Column = table[indices.astype(np.int64)]
    return column


def parquet_refusal(path: Path, what: str) -> InvalidInputError:
    """Return the error that names a Parquet file; ``what`` is the rest of the sentence."""
    return InvalidInputError(f"source of Parquet: {str(path)[-200:]!r} {what}")
