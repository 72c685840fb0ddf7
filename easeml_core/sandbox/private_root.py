"""A file system for one child: the runtime, read only, an empty folder in memory, and nothing else.

Everything that is not named here does not exist for the child: no home, no database, no socket of anybody, no shared
folder to leave something in. What the child writes lies in memory and is gone with it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

import easeml_core

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives", "/nix/store")
_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_LONGEST_CHAIN = 40
_NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_DETACH = 2
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4


def runtime_paths() -> list[Path]:
    """Files and folders that Python, the numerical libraries and this package need; parents before what is in them.

    The package itself is named, not the folder it lies in: a checkout also holds the embedded database and its keys.
    """
    package = Path(easeml_core.__file__).parent
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    named: list[str | Path] = [*_SYSTEM, *_FILES, *prefixes, package]
    named += [p for p in sys.path if p and Path(p) != package.parent]
    named += _links(Path(sys.executable))
    named += filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    absolute = {Path(os.path.abspath(p)) for p in named}
    return sorted(p for q in absolute for p in {q, q.resolve()} if p.exists() and p != Path("/"))


def _links(path: Path) -> list[Path]:
    """A path and what it leads to link by link: a virtual environment's interpreter is a link, often to another one."""
    found = [path]
    while found[-1].is_symlink() and len(found) < _LONGEST_CHAIN:
        found.append(found[-1].parent / os.readlink(found[-1]))
    return found


def build_root(libc: ctypes.CDLL, folder: Path, *, size_mb: int) -> None:
    """Make the new file system over ``folder`` and move into it; it has an empty ``folder`` under the same name.

    Args:
        libc: The C library, with errno.
        folder: Absolute path of the child's folder; what is in it is hidden from here on.
        size_mb: Of all files that the child may write, > 0.

    Raises:
        OSError: The kernel does not allow it.
    """
    _mount(libc, "none", "/", None, _REC | _PRIVATE, None)
    _mount(libc, "tmpfs", folder, "tmpfs", _NOSUID | _NODEV, f"size={size_mb}m,mode=0755")
    bound: list[Path] = []
    for path in runtime_paths():
        if not any(path.is_relative_to(b) for b in bound):
            _show(libc, path, _under(folder, path), bound)
    for device in map(Path, _DEVICES):
        _bind(libc, device, _under(folder, device))
    for place in (Path("/dev/shm"), Path("/tmp"), folder):
        _make_empty(libc, _under(folder, place), size_mb, shown=any(place.is_relative_to(b) for b in bound))
    for shared in ("/dev/shm", "/tmp"):
        _under(folder, Path(shared)).chmod(0o1777)
    _under(folder, Path("/proc")).mkdir()
    _bind(libc, Path("/proc"), _under(folder, Path("/proc")))
    _enter(libc, folder)


def mount_processes(libc: ctypes.CDLL, *, own: bool) -> None:
    """Show the process namespace's own processes, where the kernel lets us; else /proc stays as it was shown.

    Even then those of others keep their secrets: another account, or another user namespace.
    """
    if own:
        libc.mount(b"proc", b"/proc", b"proc", _NOSUID | _NODEV | _NOEXEC, None)


def _under(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _show(libc: ctypes.CDLL, path: Path, target: Path, bound: list[Path]) -> None:
    if path.is_symlink() and path.parent == Path("/"):  # /bin -> usr/bin: kept as it is
        target.symlink_to(os.readlink(path))
        bound.append(path)
        return
    _bind(libc, path, target)
    attributes = struct.pack("=4Q", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0, 0, 0)
    result = libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    _checked_mount(result, target)
    bound.append(path)


def _make_empty(libc: ctypes.CDLL, target: Path, size_mb: int, *, shown: bool) -> None:
    """A folder to write in, over whatever is shown there of the machine's own."""
    target.mkdir(parents=True, exist_ok=True)
    if shown:
        _mount(libc, "tmpfs", target, "tmpfs", _NOSUID | _NODEV, f"size={size_mb}m,mode=0755")


def _bind(libc: ctypes.CDLL, path: Path, target: Path) -> None:
    if path.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(libc, path, target, None, _BIND | _REC, None)


def _enter(libc: ctypes.CDLL, root: Path) -> None:
    """Make ``root`` the root and let go of the old one: pivot_root(2), "pivot_root(".", ".")"."""
    os.chdir(root)
    _checked_mount(libc.pivot_root(b".", b"."), root)
    _checked_mount(libc.umount2(b".", _DETACH), root)
    os.chdir("/")


def _mount(
    libc: ctypes.CDLL, source: str | Path, target: str | Path, kind: str | None, flags: int, options: str | None
) -> None:
    words = [None if w is None else os.fsencode(w) for w in (source, target, kind, options)]
    _checked_mount(libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), target)


def _checked_mount(result: int, place: str | Path) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} ({place})")
