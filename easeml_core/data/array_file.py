"""Arrays by name in one file that numpy reads (.npz), laid so that a process can map the large ones.

The file is an uncompressed zip of .npy files (numpy.lib.format). An extra field in front of each (APPNOTE.TXT 4.5)
moves its values to an address that is a multiple of 64, as a mapped array needs it.
"""

from __future__ import annotations

import struct
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from easeml_core.data import mapped

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_EPOCH = (1980, 1, 1, 0, 0, 0)
_ALIGNMENT, _LOCAL_HEADER = 64, 30
_PADDING_ID = 0xD935
"""Of an extra field that only pads: what Android's zipalign uses."""

_LEAST_MAPPED = 1 << 22


def write_arrays(file: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays block by block; the same ones give the same bytes.

    Args:
        file: Open for writing, at its beginning.
        arrays: By name.
    """
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
                for part in mapped.blocks(values):
                    writer.write(np.ascontiguousarray(values[part]).data)


def mapped_arrays(path: Path, packed: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    """Return the large arrays of a file that can be mapped, read-only; the others are left to numpy.

    Args:
        path: Of the file.
        packed: The same, open.

    Raises:
        ValueError: It is damaged.
    """
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
