"""Read untrusted files and folders with this account's rights: no blocking, no links, bounded sizes.

Inside a folder every file is opened relative to the open folder, and links are refused, so that no part of the path can
be replaced by a link between the check and the reading; what a name leads to in a folder that others may write in is
opened step by step and read from its descriptor (``opened_beneath``). Which source reads a path follows from the
folder's content, from a file's first bytes, or else from its ending. In place of a folder of images or arrays there
may be a zip file.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError, InvalidInputError
from easeml_core.files.local import MOST_FILES, scratch_folder, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    Refusal = Callable[[Path, str], InvalidInputError]
    """Makes the error from the path and what is wrong with it, such as ``is not UTF-8 (byte 7)``."""


# Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def read_bytes(path: Path, refused: Refusal, *, most: int, folder: int | None = None) -> bytes:
    """The content of a regular file."""
    with opened_file(path, refused, folder=folder) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise refused(path, f"is larger than {most // 1024**2} MB")
    return content


@contextmanager
def opened_file(path: Path, refused: Refusal, *, folder: int | None = None) -> Iterator[BinaryIO]:
    """A regular file, open; as ``read_bytes``, also for what goes wrong while it is read."""
    try:
        with os.fdopen(_opened(path, folder, _READ), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise refused(path, "is not a regular file")
            yield file
    except (OSError, ValueError) as error:
        raise _reworded(path, refused, error) from error


@contextmanager
def opened_folder(path: Path, refused: Refusal, *, folder: int | None = None) -> Iterator[int]:
    """A descriptor of a folder, for ``folder=`` of the others."""
    try:
        descriptor = _opened(path, folder, _FOLDER)
    except (OSError, ValueError) as error:
        raise _reworded(path, refused, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


_MOST_LINKS = 40
"""That one name may lead through, as of the kernel (path_resolution(7))."""

_DEEPEST = 100
"""Folders in each other: all on the way are open at once."""

_NOTHING_THERE = (
    errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL,
)  # fmt: skip


@contextmanager
def opened_beneath(folder: Path, name: str, *, is_folder: bool) -> Iterator[Path]:
    """Yield a path to what a name leads to in a folder, whichever process writes in the folder at the same time.

    Each part of the name is opened from the one before, and the target of a link likewise, so nothing outside the
    folder is opened. The path is that of the open descriptor: it leads to the very file or folder that was opened, also
    when another one has its name by now. A link may leave the folder neither upwards nor by an absolute target, unless
    that is a path into the folder.
    """
    try:
        descriptor = _opened_by_steps(folder, name)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from error
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISDIR(mode) if is_folder else stat.S_ISREG(mode)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _opened_by_steps(folder: Path, name: str) -> int:
    """A descriptor of what a name leads to; the ones on the way are those of the folders that were gone through."""
    way, links = [os.open(folder, _FOLDER)], 0
    try:
        left = _steps(folder, name)
        while left:
            step = left.pop(0)
            if step == os.pardir:
                if len(way) == 1:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
                os.close(way.pop())
                continue
            if len(way) > _DEEPEST:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
            try:
                way.append(os.open(step, _READ | os.O_NOFOLLOW, dir_fd=way[-1]))
            except OSError as error:
                links += 1
                if error.errno != errno.ELOOP or links > _MOST_LINKS:
                    raise
                target = os.readlink(step, dir_fd=way[-1])
                left = _steps(folder, target) + left
                while os.path.isabs(target) and len(way) > 1:
                    os.close(way.pop())
        return way.pop()
    finally:
        for descriptor in way:
            os.close(descriptor)


def _steps(folder: Path, name: str) -> list[str]:
    """The parts of a relative name, or of an absolute one below the folder."""
    path = Path(name)
    if not path.is_absolute():
        return list(path.parts)
    above = next((one for one in (folder.absolute(), folder.resolve()) if path.is_relative_to(one)), None)
    if above is None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return list(path.relative_to(above).parts)


def entries(path: Path, refused: Refusal, *, folder: int, most: int) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in an open folder, each sorted; what begins with a dot is left out."""
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


ARRAYS = ("inputs.npy", "targets.npy")
_PARQUET, _NPY = b"PAR1", b"\x93NUMPY"
_ENDINGS = {".csv": "csv", ".txt": "csv", "": "csv", ".parquet": "parquet", ".pq": "parquet", ".npy": "npy"}
_ALLOWED = (
    "allowed: a CSV or Parquet file, a folder with a sub-folder of images for each class, or a folder with "
    "inputs.npy and targets.npy"
)
_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


def kind_of(path: Path) -> str:
    """``csv``, ``parquet``, ``images`` or ``npy``."""
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
    """The first bytes of a regular file in an open folder, and the size of all."""
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


MOST_DIRECTORY_BYTES = 4 << 20
"""Of the list of entries at a zip file's end, which is read at once: 10,000 names of 400 characters."""

_END, _END_64 = b"PK\x05\x06", b"PK\x06\x07"
_END_BYTES, _LOCATOR_BYTES, _LONGEST_COMMENT = 22, 20, 1 << 16
_ADDED = "__MACOSX"
"""A folder that one system adds to every zip file."""


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The folder that a zip file stands for, while the block lasts; any other path as it is."""
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
