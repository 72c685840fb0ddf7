"""Confine a child before it touches a submission: namespaces, account, capabilities, file system, system calls. Linux.

The child makes kernel calls through ctypes, in one thread, after it has loaded only the first modules of this package;
the parent never makes them between fork and exec. A part that cannot be made ends the child: ``isolation`` has tried
beforehand which parts are possible. Man pages: namespaces(7), pivot_root(2), mount_setattr(2), capabilities(7).

The child's file system holds the runtime, read only, and an empty folder in memory. There is no home, database, socket
or shared folder; what the child writes lies in memory and ends with it.

System calls that no model needs are closed for good: keyrings, namespaces, and doors into the kernel. The kernel keeps
keys for a user id, for days: a model could leave there what it has seen. And in a separate user namespace it would
have every capability again. A filter of the kernel's (seccomp(2), a program of classic BPF) answers such calls with an
error; it holds for all programs that the child starts, and nothing takes it away.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import select
import shutil
import signal
import struct
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import easeml_core
from easeml_core.sandbox import child_protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

    from easeml_core.entities import JsonObject


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
    """Make the new file system over ``folder`` and move into it; it has an empty ``folder`` under the same name."""
    _mount(libc, "none", "/", None, _REC | _PRIVATE, None)
    _mount(libc, "tmpfs", folder, "tmpfs", _NOSUID | _NODEV, f"size={size_mb}m,mode=0755")
    bound: list[Path] = []
    for path in runtime_paths():
        if not any(path.is_relative_to(b) for b in bound):
            _show(libc, path, _under(folder, path), bound)
    for device in map(Path, _DEVICES):
        _bind(libc, device, _under(folder, device))
    for place in (Path("/dev/shm"), Path("/tmp"), folder):  # noqa: S108 - empty ones of the sandbox
        _make_empty(libc, _under(folder, place), size_mb, shown=any(place.is_relative_to(b) for b in bound))
    for shared in ("/dev/shm", "/tmp"):  # noqa: S108 - empty ones of the sandbox
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


PARTS: tuple[str, ...] = ("network", "processes", "files", "account")
"""In the order in which they are made."""

NAMESPACES = "namespaces"
"""Instead of all parts but the account: what an ordinary user needs before it may make any of them."""

OWN_ACCOUNT = "a dedicated user id"
FAILED = "the sandbox could not be made, part"
"""How the reason of a child begins that could not make a part."""

MADE = b"confined\n"
"""What a child says first, before it touches a model: whatever fails later, the sandbox was made."""

# Unused ids: the range that systemd reserves for users that exist only while a service runs.
_FIRST_UID, _UIDS = 61184, 4336
_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_PROCESSES = 512
_OPEN_FILES = 1024


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one child must make.

    Attributes:
        parts: Some of PARTS.
        uid: User id of the account; None for an unused one.
        gid: Its group.
        memory_mb: Of files that the child writes; with ``files`` they lie in memory.
    """

    parts: tuple[str, ...]
    uid: int | None
    gid: int | None
    memory_mb: int

    @property
    def is_apart(self) -> bool:
        """Whether the child can neither signal nor trace a fork server, nor ask one; else it must not come from one.

        A server answers its own account, and a socket's path leads out of any namespace but that of files.
        """
        return "account" in self.parts or {"processes", "files"} <= set(self.parts)

    def to_json(self) -> JsonObject:
        """For the child's command line."""
        return {"parts": list(self.parts), "uid": self.uid, "gid": self.gid, "memory_mb": self.memory_mb}

    @classmethod
    def from_json(cls, fields: JsonObject) -> Confinement:
        """What ``to_json`` gave."""
        return cls(tuple(fields["parts"]), fields["uid"], fields["gid"], fields["memory_mb"])


def enter(confinement: Confinement, model: Path | None = None) -> Path | None:
    """Confine this process for good; ends it with a reason when a part cannot be made."""
    parts, folder, number = confinement.parts, Path.cwd(), os.getpid()
    try:
        held = None if model is None else model.open("rb")  # where it lies there is nothing in the new file system
    except OSError as error:
        child_protocol.fail(f"the model file {model and model.name} cannot be read: {error.strerror}")
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 and parts:
        with _part(NAMESPACES):
            _own_user_namespace(libc)
    if "network" in parts:
        with _part("network"):
            _unshare(libc, _NEWNET)
    if "files" in parts:
        with _part("files"):
            _unshare(libc, _NEWNS)
    if "processes" in parts:
        with _part("processes"):
            _unshare(libc, _NEWPID | _NEWIPC)
            _go_on_in_a_child()
    uid = confinement.uid if confinement.uid is not None else _FIRST_UID + number % _UIDS
    owner = (uid, confinement.gid if confinement.gid is not None else uid) if "account" in parts else None
    with _part("files"):
        if "files" in parts:
            build_root(libc, folder, size_mb=confinement.memory_mb)
            mount_processes(libc, own="processes" in parts)
        copy = None if model is None or held is None else _keep(held, folder / model.name)
        if owner is not None:
            os.chown(folder, *owner)
        os.chdir(folder)
    if owner is not None:
        with _part("account"):
            os.setgroups([])
            os.setresgid(owner[1], owner[1], owner[1])
            os.setresuid(owner[0], owner[0], owner[0])
    _give_up_rights(libc, confinement, alone=owner is not None)
    os.environ.update(HOME=str(folder), TMPDIR=str(folder), USER="model", LOGNAME="model")
    return copy


@contextmanager
def _part(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        child_protocol.fail(f"{FAILED} {name}: {error.strerror or error}")


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _unshare(libc: ctypes.CDLL, flags: int) -> None:
    _checked(libc.unshare(flags))


def _own_user_namespace(libc: ctypes.CDLL) -> None:
    """Become the one user of a new user namespace, under the same number: it may make the other namespaces."""
    uid, gid = os.geteuid(), os.getegid()
    _unshare(libc, _NEWUSER)
    # Without the right to change groups, every user may map a group's number: user_namespaces(7).
    for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(content)


def _go_on_in_a_child() -> None:
    """Return in the first process of the new process namespace; the old one ends as that one ends."""
    alive, parent = os.pipe()
    child = os.fork()
    if child:
        os.close(alive)
        _end_like(child)
    os.close(parent)
    child_protocol.ask_for_parents_death()
    if select.select([alive], [], [], 0)[0]:  # the other end is closed: the parent was gone before we asked
        os._exit(1)


def _end_like(child: int) -> None:
    # Only the child keeps its pipes, so that their reader sees their end.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(max(code, 1) if code else 0)


def _keep(held: BufferedReader, copy: Path) -> Path:
    with held, copy.open("wb") as file:
        shutil.copyfileobj(held, file)
    copy.chmod(0o444)
    return copy


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _give_up_rights(libc: ctypes.CDLL, confinement: Confinement, *, alone: bool) -> None:
    """No capability, none to be had by running a program, and limits; the account is its own, or is shared.

    Raises nothing: without the rights there is nothing to give up.
    """
    header, nothing = _CapabilityHeader(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    libc.capset(ctypes.byref(header), ctypes.byref(nothing))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    child_protocol.keep_to_itself()  # from a program that is the model
    child_protocol.ask_for_parents_death()  # a change of account takes the wish back: prctl(2)
    size = confinement.memory_mb << 20
    wanted = {resource.RLIMIT_FSIZE: size, resource.RLIMIT_NOFILE: _OPEN_FILES}
    if alone:  # the kernel counts all processes of an account
        wanted[resource.RLIMIT_NPROC] = _PROCESSES
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


_PR_SET_SECCOMP, _FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, little-endian
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_OTHER_TABLE = 0x40000000  # x86-64 only: calls of the x32 kind are numbered from here on
_NEW_NAMESPACE = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET


@dataclass(frozen=True, slots=True)
class _Calls:
    """Numbers of one kind of machine.

    Attributes:
        machine: AUDIT_ARCH of linux/audit.h.
        closed: add_key, request_key, keyctl, unshare, setns, bpf, perf_event_open, userfaultfd; io_uring_setup is 425.
        clone: With the flags in its first argument; clone3, which hides them in memory, is 435 everywhere.
    """

    machine: int
    closed: tuple[int, ...]
    clone: int


_KINDS = {
    "x86_64": _Calls(0xC000003E, (248, 249, 250, 272, 308, 321, 298, 323, 425), 56),
    "aarch64": _Calls(0xC00000B7, (217, 218, 219, 97, 268, 280, 241, 282, 425), 220),
}
_CLONE3 = 435


def forbid() -> bool:
    """Close the calls for this process and all that it starts; whether this machine could.

    The process must have given up new rights before (PR_SET_NO_NEW_PRIVS).
    """
    calls = _KINDS.get(os.uname().machine)
    if calls is None:
        return False
    program = _program(calls)
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(instructions))
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_SECCOMP, _FILTER, header, 0, 0) == 0)


def _program(calls: _Calls) -> list[tuple[int, int, int, int]]:
    """Steps of (what, steps to skip if so, steps to skip if not, value)."""
    refuse, unknown = (_RETURN, 0, 0, _ERROR | errno.EPERM), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)
    program = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, calls.machine), refuse, (_LOAD, 0, 0, _NUMBER)]
    program += [(_AT_LEAST, 0, 1, _OTHER_TABLE), refuse]
    for number in calls.closed:
        program += [(_EQUAL, 0, 1, number), refuse]
    program += [(_EQUAL, 0, 1, _CLONE3), unknown]  # then the C library takes clone
    program += [(_EQUAL, 0, 3, calls.clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_ANY_BIT, 0, 1, _NEW_NAMESPACE), refuse]
    return [*program, (_RETURN, 0, 0, _ALLOW)]
