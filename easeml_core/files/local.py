"""What is there whole or not at all, temporary folders that name their owner, and folders as one file.

The name of a temporary folder ends with its owner's namespace of process ids, process id and start, in ticks since the
machine started: pid_namespaces(7), proc_pid_stat(5). So those of killed processes can be recognised and removed. A
process id alone may have gone to another process, and within a sandbox it means something else.

A folder as one file and back: the same content gives the same bytes, and nothing gets out of the folder again.

Packed without compression, sorted, without dates and owners, so that the same folder has the same content hash on every
machine. Unpacked are plain files with plain names only, so many and so much.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import lzma
import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, moved there when the block ends well and removed when it does not.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with written_whole(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("done")
        >>> [p.name for p in folder.iterdir()]
        ['note.txt']
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_durably(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Replace a file as a whole, or not at all, whenever the process or the machine may die.

    When it returns, the disk has the content under its name.
    """
    content = content.encode() if isinstance(content, str) else content
    with written_whole(path) as temporary, temporary.open("wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def rename_new(folder: int, name: str, new: str) -> None:
    """Rename inside an open folder, and replace nothing, an empty folder neither: renameat2(2), RENAME_NOREPLACE.

    Where system or file system cannot (NFS, macOS), what gets the name in between may be replaced if it is empty.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "made").mkdir(), (folder / "taken").mkdir()
        (None, None)
        >>> opened = os.open(folder, os.O_RDONLY)
        >>> rename_new(opened, "made", "taken")
        Traceback (most recent call last):
        FileExistsError: [Errno 17] File exists: 'taken'
        >>> os.close(opened)
    """
    error = _renamed_without_replacing(folder, name, new)
    if error in _CANNOT:
        error = _renamed_where_free(folder, name, new)
    if error:
        error = errno.EEXIST if is_there(folder, new) else error
        raise OSError(error, os.strerror(error), new)


def _renamed_without_replacing(folder: int, name: str, new: str) -> int:
    """Number of the error; 0 for none."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return errno.ENOSYS
    return ctypes.get_errno() if call(folder, os.fsencode(name), folder, os.fsencode(new), _NO_REPLACE) else 0


def _renamed_where_free(folder: int, name: str, new: str) -> int:
    """The same by a look first."""
    if is_there(folder, new):
        return errno.EEXIST
    try:
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def is_there(folder: int, name: str) -> bool:
    """Whether an open folder has anything of this name, a link that leads nowhere included."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


_NO_REPLACE = 1
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""What system, file system, or a container's filter of system calls says where it has no such rename."""

SCRATCH_PREFIX = "easeml-"
_NAME = re.compile(rf"{SCRATCH_PREFIX}[a-z-]+-(\d+)-(\d+)-(\d+)-\w+")


@contextlib.contextmanager
def scratch_folder(purpose: str, *, ignore_cleanup_errors: bool = False) -> Iterator[str]:
    """A new folder in TMPDIR, removed at the end of the block; the first call of a process sweeps.

    Example:
        >>> with scratch_folder("trial") as folder:
        ...     os.listdir(folder)
        []
    """
    with contextlib.suppress(OSError):  # without a /proc, or with a TMPDIR that cannot be listed, nothing is swept
        _sweep_once(os.getpid())
    prefix = f"{SCRATCH_PREFIX}{purpose}-{_identity()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=ignore_cleanup_errors) as folder:
        yield folder


def sweep_scratch() -> int:
    """Remove the folders of dead processes of this account; gives how many. Folders of other sandboxes stay."""
    namespace, swept = _namespace(), 0
    for path in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*"):
        named = _NAME.fullmatch(path.name)
        if named is None or int(named[1]) != namespace or _start_of(int(named[2])) == int(named[3]):
            continue
        with contextlib.suppress(OSError):  # another sweeper was faster
            if path.lstat().st_uid == os.geteuid() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
                swept += 1
    return swept


@functools.lru_cache(maxsize=1)
def _sweep_once(pid: int) -> None:
    """Sweep; a fork is another process, hence the argument."""
    sweep_scratch()


def _identity() -> str:
    """Namespace, process id and start of this process; zeros, which are never swept, where /proc cannot be read."""
    pid = os.getpid()
    try:
        return f"{_namespace()}-{pid}-{_start_of(pid) or 0}"
    except OSError:
        return f"0-{pid}-0"


def _namespace() -> int:
    """The inode of the namespace of process ids."""
    return os.stat("/proc/self/ns/pid").st_ino


def _start_of(pid: int) -> int | None:
    """When a process was started, in ticks since the machine was; None if there is none of this id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(b")")[2].split()[19])


LARGEST_BYTES = 1 << 30
"""Of all files of a submission together."""

MOST_FILES = 10_000
MOST_FOLDERS = 10_000
"""Of all files together: a name of 400 bytes can stand for 200 folders, each of which is made."""

DEEPEST = 50
LONGEST_NAME = 400
ARCHIVE_FAULTS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError),
)
"""What reading a broken archive raises, by the way in which it is broken (``zipfile`` and its decompressors)."""

_LEFT_OUT = {".git", "__pycache__"}
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20
# Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def pack_folder(folder: Path, archive: Path, *, extra: Mapping[str, bytes], beneath: Path | None = None) -> None:
    """Write a folder to ``archive``; ``.git`` and ``__pycache__`` are left out."""
    files = {path.relative_to(folder).as_posix(): path for path in _files_in(folder)}
    own = {name: path for name, path in files.items() if name not in extra}
    pack_files(archive, own, extra=extra, beneath=beneath or folder)


def pack_files(
    archive: Path, files: Mapping[str, Path], *, extra: Mapping[str, bytes], beneath: Path | None = None
) -> None:
    """Write files under their names in the archive; errors as in ``pack_folder``, but None follows links."""
    names = sorted({*files, *extra})
    if len(names) > MOST_FILES:
        message = f"a submission may have at most {MOST_FILES:,} files, got {len(names):,}"
        raise InvalidInputError(message)
    _check_names(names, InvalidInputError)
    left = LARGEST_BYTES
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for name in names:
            content, runs = (extra[name], False) if name in extra else _read(files[name], beneath, left)
            left -= len(content)
            if left < 0:
                message = f"a submission may have at most {LARGEST_BYTES:,} bytes; {name} goes beyond"
                raise InvalidInputError(message)
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.create_system = 3  # the one whose mode bits are meant below, whichever system packs
            entry.external_attr = (stat.S_IFREG | (0o755 if runs else 0o644)) << 16
            packed.writestr(entry, content)


def unpack(archive: Path, folder: Path, *, most_bytes: int | None = None) -> None:
    """Unpack an archive into an empty folder."""
    most = most_bytes or LARGEST_BYTES
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = packed.infolist()
            check_entries(entries)
            left = most
            for entry in entries:
                if not entry.is_dir():
                    left -= _unpack_one(packed, entry, folder, left, most)
    except ARCHIVE_FAULTS as error:
        message = f"the archive {archive.name} cannot be unpacked: {error}"
        raise ArtifactError(message) from error


def check_entries(entries: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive by what it says of itself; ArtifactError."""
    if len(entries) > MOST_FILES:
        message = f"the archive holds {len(entries):,} entries, at most {MOST_FILES:,} are allowed"
        raise ArtifactError(message)
    _check_names([entry.filename.removesuffix("/") for entry in entries], ArtifactError)
    seen: set[str] = set()
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            message = f"the archive holds {entry.filename!r}, which is a link or no plain file; only files are unpacked"
            raise ArtifactError(message)
        if entry.filename in seen:
            message = f"the archive holds {entry.filename!r} twice"
            raise ArtifactError(message)
        seen.add(entry.filename)


def _unpack_one(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int, most: int) -> int:
    target = folder / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with packed.open(entry) as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):  # what it really holds, whatever it says
            written += len(chunk)
            if written > left:
                message = f"it holds more than {most:,} bytes"
                raise ValueError(message)
            writer.write(chunk)
    target.chmod(0o755 if (entry.external_attr >> 16) & 0o100 else 0o644)
    return written


def _files_in(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(f for f in folders if f not in _LEFT_OUT)
        for name in [*names, *folders]:
            path = type(folder)(root) / name
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                message = f"{path} is a link or no plain file; put a copy of the file there"
                raise InvalidInputError(message)
            if stat.S_ISREG(mode):
                yield path


def _read(path: Path, beneath: Path | None, left: int) -> tuple[bytes, bool]:
    """The content, and whether it may be run."""
    try:
        with os.fdopen(os.open(path, _READ) if beneath is None else _opened(path, beneath), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                message = f"{path} is no plain file; put a copy of the file there"
                raise InvalidInputError(message)
            return file.read(left + 1), bool(mode & 0o100)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise InvalidInputError(message) from error


def _opened(path: Path, beneath: Path) -> int:
    """A file by steps from a folder downwards, none of which is a link at the moment when it is taken."""
    folder = os.open(beneath, _FOLDER)
    try:
        *between, name = path.relative_to(beneath).parts
        for step in between:
            inner = os.open(step, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, _READ | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


def _check_names(names: Iterable[str], error: type[ArtifactError | InvalidInputError]) -> None:
    """Refuse names that lead out of a folder, or stand for too many folders."""
    folders: set[str] = set()
    for name in names:
        parts = name.split("/")
        plain = name.isprintable() and "\\" not in name and ":" not in parts[0] and len(name.encode()) <= LONGEST_NAME
        if not plain or any(part in ("", ".", "..") for part in parts):
            message = f"{name!r} is no name of a file inside a folder; allowed: relative, printable, without '..'"
            raise error(message)
        if len(parts) > DEEPEST:
            message = f"{name!r} lies in {len(parts) - 1} folders, at most {DEEPEST - 1} in each other are allowed"
            raise error(message)
        above = name
        while (above := above.rpartition("/")[0]) and above not in folders:
            folders.add(above)
        if len(folders) > MOST_FOLDERS:
            message = f"the files lie in more than {MOST_FOLDERS:,} folders; put them into fewer"
            raise error(message)
