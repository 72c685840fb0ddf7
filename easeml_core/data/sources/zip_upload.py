"""A zip file in place of a folder: images in a folder per class, or arrays."""

from __future__ import annotations

import shutil
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError, InvalidInputError
from easeml_core.files import MOST_FILES, scratch_folder, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_DIRECTORY_BYTES = 4 << 20
"""Of the list of entries at a zip file's end, which is read at once: 10,000 names of 400 characters."""

_END, _END_64 = b"PK\x05\x06", b"PK\x06\x07"
_END_BYTES, _LOCATOR_BYTES, _LONGEST_COMMENT = 22, 20, 1 << 16
_ADDED = "__MACOSX"
"""A folder that one system adds to every zip file."""


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The folder that a zip file stands for, while the block lasts; any other path as it is.

    Raises:
        InvalidInputError: As ``unpack_upload``; of the block, such an error names the file, not where it is unpacked.
    """
    if path.suffix.lower() != ".zip" or not path.is_file():
        yield path
        return
    with scratch_folder("unpacked") as folder:
        try:
            yield unpack_upload(path, Path(folder))
        except InvalidInputError as error:
            message = str(error).replace(folder, str(path))
            raise InvalidInputError(message) from error


def unpack_upload(archive: Path, folder: Path, *, most_bytes: int | None = None) -> Path:
    """Unpack a zip file into an empty folder; where the data are in it.

    Folders that hold nothing but one other folder are stepped over, since many programs pack a folder with its name.

    Args:
        archive: The file.
        folder: Where to.
        most_bytes: That it may hold, whatever it says, as of ``unpack``; few bytes can stand for very many.

    Raises:
        InvalidInputError: It is no zip file, or holds links, names that lead elsewhere, too many files or too much.
    """
    _require_short_list(archive)
    try:
        unpack(archive, folder, most_bytes=most_bytes)
    except ArtifactError as error:
        raise InvalidInputError(str(error)) from error
    shutil.rmtree(folder / _ADDED, ignore_errors=True)
    found = folder
    while (inner := _only_folder(found)) is not None:
        found = inner
    return found


def _only_folder(folder: Path) -> Path | None:
    """The one thing in a folder, if it is a folder of folders or of arrays; a folder of files is a class."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if len(inside) != 1 or not inside[0].is_dir():
        return None
    below = [path for path in inside[0].iterdir() if not path.name.startswith(".")]
    is_outer = any(path.is_dir() or path.suffix == ".npy" for path in below)
    return inside[0] if is_outer else None


def _require_short_list(archive: Path) -> None:
    """Look at the end of the file before the list of entries is read, which says itself how long it is."""
    with archive.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_BYTES - _LOCATOR_BYTES - _LONGEST_COMMENT))
        tail = file.read()
    begin = tail.rfind(_END)
    if begin < 0 or begin + _END_BYTES > len(tail):
        message = f"{archive.name} is no zip file, or not a whole one"
        raise InvalidInputError(message)
    entries, length = struct.unpack_from("<HL", tail, begin + 10)
    if _END_64 in tail[max(0, begin - _LOCATOR_BYTES) : begin] or length > MOST_DIRECTORY_BYTES or entries > MOST_FILES:
        message = (
            f"{archive.name} has more than {MOST_FILES:,} entries, or very long names; pack fewer files, or ask "
            "the operator of the referee to put the folder into its data folder"
        )
        raise InvalidInputError(message)
