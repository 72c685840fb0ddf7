"""Tables that are larger than memory: float32 rows in a file that is mapped, read and written block by block.

The file has no name, so that the operating system removes it with the last process that maps it. Pages that were read
are given back after each block: what a pass over the rows holds is one block, however many rows there are.
"""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAPPED_BLOCK_CELLS = 4_000_000
"""Cells of one block: 16 MB of float32."""


def new_rows(rows: int, features: int) -> NDArray[np.float32]:
    """Return zeros, shape (rows, features), in a file without a name in TMPDIR.

    Raises:
        OSError: There is no room for the file.
    """
    with tempfile.TemporaryFile(prefix="easeml-rows-") as file:
        file.truncate(rows * features * 4)
        return np.memmap(file, dtype=np.float32, mode="r+", shape=(rows, features))


def is_mapped(values: NDArray[Any]) -> bool:
    """Whether an array, or what it is a view of, is a file."""
    return _file_of(values) is not None


def blocks(values: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of an array's rows, of at most ``MAPPED_BLOCK_CELLS`` cells each.

    Example:
        >>> [(one.start, one.stop) for one in blocks(np.zeros((5, 2_000_000)))]
        [(0, 2), (2, 4), (4, 5)]
    """
    rows = len(values)
    size = max(1, MAPPED_BLOCK_CELLS // max(1, int(np.prod(values.shape[1:]))))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
        give_back(values)


def give_back(values: NDArray[Any]) -> None:
    """Let the operating system have the pages of a mapped array, which it reads again when they are needed."""
    file = _file_of(values)
    if file is not None:
        file.madvise(mmap.MADV_DONTNEED)


def taken(values: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """Return these rows of an array, in a file where the array is one and they are more than a block."""
    if not is_mapped(values) or len(rows) * values.shape[1] <= MAPPED_BLOCK_CELLS:
        return values[rows]
    found = new_rows(len(rows), values.shape[1])
    for part in blocks(found):
        found[part] = values[rows[part]]
        give_back(values)
    return found


def kept_in_place(values: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Move rows to the front of a mapped array; a view of them.

    Args:
        values: What is behind these rows is lost.
        rows: Which, rising.
    """
    for part in blocks(values[: len(rows)]):
        values[part] = values[rows[part]]  # none of a later block is overwritten: row i comes from i or behind it
        give_back(values)
    return values[: len(rows)]


def columns_at(values: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return some columns of an array, in memory, shape (rows, places)."""
    found = np.empty((len(values), len(places)), dtype=np.float32)
    for part in blocks(values):
        found[part] = values[part][:, places]
    return found


def fingerprints(values: NDArray[np.float32], key: bytes = b"") -> NDArray[Any]:
    """Return 16 bytes for each row (BLAKE2b, RFC 7693), equal for rows that are equal bit by bit.

    Args:
        values: Shape (rows, features).
        key: At most 64 bytes; the same rows have other fingerprints under another key.

    Returns:
        Shape (rows,), items of raw bytes.
    """
    found = np.empty(len(values), dtype="V16")
    for part in blocks(values):
        rows = np.ascontiguousarray(values[part])
        hashed = b"".join(hashlib.blake2b(row, digest_size=16, key=key).digest() for row in rows)
        found[part] = np.frombuffer(hashed, dtype="V16")
    return found


def _file_of(values: Any) -> mmap.mmap | None:
    while values is not None:
        file: mmap.mmap | None = getattr(values, "_mmap", None) if isinstance(values, np.memmap) else None
        if file is not None:
            return file
        values = getattr(values, "base", None)
    return None
