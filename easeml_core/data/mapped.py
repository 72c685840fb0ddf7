"""Arrays that are larger than memory: float32 rows in a mapped file, read and written block by block, and .npz files.

The file of a table has no name, so that the operating system removes it with the last process that maps it. Pages that
were read are given back after each block: what a pass over the rows holds is one block, however many rows there are.

Arrays by name lie in one file that numpy reads (.npz), so that a process can map the large ones: an uncompressed zip of
.npy files (numpy.lib.format). An extra field in front of each (APPNOTE.TXT 4.5) moves its values to an address that is
a multiple of 64, as a mapped array needs it.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import tempfile
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


MAPPED_BLOCK_CELLS = 4_000_000
"""Cells of one block: 16 MB of float32."""


def new_rows(rows: int, features: int) -> NDArray[np.float32]:
    """Return zeros, shape (rows, features), in a file without a name in TMPDIR."""
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
    """Move rows to the front of a mapped array; a view of them."""
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
    """Return 16 bytes for each row (BLAKE2b, RFC 7693), equal for rows that are equal bit by bit."""
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


_EPOCH = (1980, 1, 1, 0, 0, 0)
_ALIGNMENT, _LOCAL_HEADER = 64, 30
_PADDING_ID = 0xD935
"""Of an extra field that only pads: what Android's zipalign uses."""

_LEAST_MAPPED = 1 << 22


def write_arrays(file: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays block by block; the same ones give the same bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as packed:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            entry.create_system = 3
            is_large = values.nbytes >= _LEAST_MAPPED
            # Behind the fixed header: the name, the sizes of zip64 where they are forced, and our padding.
            front = file.tell() + _LOCAL_HEADER + len(entry.filename) + (20 if is_large else 0) + 4
            entry.extra = struct.pack("<HH", _PADDING_ID, pad := -front % _ALIGNMENT) + bytes(pad)
            with packed.open(entry, "w", force_zip64=is_large) as writer:
                if values.ndim != 2:
                    np.lib.format.write_array(writer, values, allow_pickle=False)
                    continue
                about = np.lib.format.header_data_from_array_1_0(values)
                np.lib.format.write_array_header_1_0(writer, {**about, "fortran_order": False})
                for part in blocks(values):
                    writer.write(np.ascontiguousarray(values[part]).data)


def mapped_arrays(path: Path, packed: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    """Return the large arrays of a file that can be mapped, read-only; the others are left to numpy."""
    found: dict[str, NDArray[Any]] = {}
    for entry in packed.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size < _LEAST_MAPPED:
            continue
        with packed.open(entry) as reader:  # checks the name in front of the values
            version = np.lib.format.read_magic(reader)
            if version != (1, 0):
                continue
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(reader)
            header = reader.tell()
        with path.open("rb") as raw:
            raw.seek(entry.header_offset)
            local = raw.read(_LOCAL_HEADER)
        name_length, extra_length = struct.unpack("<HH", local[26:30])
        start = entry.header_offset + _LOCAL_HEADER + name_length + extra_length + header
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if dtype.hasobject or is_fortran or start % dtype.itemsize or header + size != entry.file_size:
            continue
        found[entry.filename.removesuffix(".npy")] = np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape)
    return found
