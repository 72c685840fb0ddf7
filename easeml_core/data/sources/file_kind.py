"""Which source reads a path: by what is in a folder, by a file's first bytes, else by its ending."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from easeml_core.data.sources.files import opened_folder
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = ("inputs.npy", "targets.npy")
_PARQUET, _NPY = b"PAR1", b"\x93NUMPY"
_ENDINGS = {".csv": "csv", ".txt": "csv", "": "csv", ".parquet": "parquet", ".pq": "parquet", ".npy": "npy"}
_ALLOWED = (
    "allowed: a CSV or Parquet file, a folder with a sub-folder of images for each class, or a folder with "
    "inputs.npy and targets.npy"
)
_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


def kind_of(path: Path) -> str:
    """``csv``, ``parquet``, ``images`` or ``npy``.

    Args:
        path: An absolute path. A pipe is never waited for.

    Raises:
        InvalidInputError: If there is nothing that can be read, or it is of another kind.
    """
    if path.is_dir():
        return "npy" if any(os.path.lexists(path / name) for name in ARRAYS) else "images"
    with opened_folder(path.parent, _refused) as folder:
        start, _ = first_bytes(path, len(_NPY), folder=folder, follow=True)
    by_content = "parquet" if start.startswith(_PARQUET) else "npy" if start == _NPY else None
    kind = by_content or _ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise _refused(path, f"is of no known kind; {_ALLOWED}")
    if kind == "npy" and path.name not in ARRAYS:
        raise _refused(path, f"is one array; {_ALLOWED}")
    return kind


def first_bytes(path: Path, most: int, *, folder: int, follow: bool = False) -> tuple[bytes, int]:
    """The first bytes of a regular file in an open folder, and the size of all.

    Args:
        path: Its last part counts; the whole is for messages.
        most: How many, at least 1.
        folder: Descriptor of the folder.
        follow: Whether it may be a link.

    Raises:
        InvalidInputError: If it cannot be read or is not a regular file.
    """
    flags = _READ_FLAGS & ~os.O_NOFOLLOW if follow else _READ_FLAGS
    try:
        with os.fdopen(os.open(path.name, flags, dir_fd=folder), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise _refused(path, "is not a regular file")
            return file.read(most), about.st_size
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror or 'an error'}") from error


def _refused(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"{str(path)[-200:]!r} {what}")
