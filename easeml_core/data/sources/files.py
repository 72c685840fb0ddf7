"""Files and folders that somebody names, read with this account's rights: no waiting, no links out, bounded.

Inside a folder everything is opened relative to the folder already open, and links are refused, so that nobody can
exchange a part of the path for a link between the check and the reading.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Refusal = Callable[[Path, str], InvalidInputError]
    """Makes the error from the path and what is wrong with it, such as ``is not UTF-8 (byte 7)``."""

# Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def read_bytes(path: Path, refused: Refusal, *, most: int, folder: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: Where it is, for messages too.
        refused: How a refusal is worded.
        most: Bytes at most.
        folder: Descriptor of the folder that it lies in; then only the last part of the path counts, and is no link.

    Raises:
        InvalidInputError: If it cannot be read, is not a regular file, or is larger.
    """
    try:
        with os.fdopen(_opened(path, folder, _READ), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise refused(path, "is not a regular file")
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise _reworded(path, refused, error) from error
    if len(content) > most:
        raise refused(path, f"is larger than {most // 1024**2} MB")
    return content


@contextmanager
def opened_folder(path: Path, refused: Refusal, *, folder: int | None = None) -> Iterator[int]:
    """A descriptor of a folder, for ``folder=`` of the others.

    Raises:
        InvalidInputError: If it is none or cannot be read.
    """
    try:
        descriptor = _opened(path, folder, _FOLDER)
    except (OSError, ValueError) as error:
        raise _reworded(path, refused, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def entries(path: Path, refused: Refusal, *, folder: int, most: int) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in an open folder, each sorted; what begins with a dot is left out.

    Args:
        path: Of the folder, for messages.
        refused: How a refusal is worded.
        folder: Its descriptor.
        most: Entries at most; of a larger folder no more than these are looked at.

    Raises:
        InvalidInputError: If there are more, or one is a link, something else, or has a name that cannot be printed.
    """
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as listing:
        for count, entry in enumerate(listing, start=1):
            if count > most:
                raise refused(path, f"has more than {most:,} entries")
            if not entry.name.isprintable():
                raise refused(path, f"has an entry {entry.name[:80]!r}: its name cannot be printed; rename it")
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                raise refused(path, f"has a symbolic link {entry.name[:80]!r}; put the file itself there")
            if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
                raise refused(path, f"has an entry {entry.name[:80]!r} that is no file")
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    return sorted(folders), sorted(files)


def _opened(path: Path, folder: int | None, flags: int) -> int:
    return os.open(path, flags) if folder is None else os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=folder)


def _reworded(path: Path, refused: Refusal, error: OSError | ValueError) -> InvalidInputError:
    if isinstance(error, InvalidInputError):
        return error
    # A ValueError is a zero byte in the path.
    reason = (error.strerror or "an error") if isinstance(error, OSError) else "the path cannot be used"
    return refused(path, f"cannot be read: {reason}")
