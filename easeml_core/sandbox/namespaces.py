"""What a child does to itself before it touches anything of a submission: namespaces, account, rights. Linux.

The kernel's own calls through ctypes, in a process of one thread that has loaded nothing but this package's first
modules; never in the parent's name between fork and exec. A part that cannot be made ends the child, it is never left
out in silence: ``sandbox`` tries beforehand which parts there can be. Man pages: namespaces(7), pivot_root(2),
mount_setattr(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.sandbox import child_guard
from easeml_core.sandbox.private_root import build_root, mount_processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedReader

PARTS: tuple[str, ...] = ("network", "processes", "files", "account")
"""In the order in which they are made."""

NAMESPACES = "namespaces"
"""Instead of all parts but the account: what an ordinary user needs before it may make any of them."""

OWN_ACCOUNT = "a user id of its own"
FAILED = "the sandbox could not be made, part"
"""How the reason of a child begins that could not make a part."""

MADE = b"confined\n"
"""What a child says first, before it touches a model: whatever fails later, the sandbox was made."""

# Nobody's: the range that systemd sets aside for users that exist only while a service runs.
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
        uid: User id of the account; None for one that nobody has.
        gid: Its group.
        memory_mb: Of files that the child writes; with ``files`` they lie in memory.
    """

    parts: tuple[str, ...]
    uid: int | None
    gid: int | None
    memory_mb: int

    def to_json(self) -> dict[str, Any]:
        """For the child's command line."""
        return {"parts": list(self.parts), "uid": self.uid, "gid": self.gid, "memory_mb": self.memory_mb}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Confinement:
        """What ``to_json`` gave."""
        return cls(tuple(fields["parts"]), fields["uid"], fields["gid"], fields["memory_mb"])


def enter(confinement: Confinement, model: Path | None = None) -> Path | None:
    """Confine this process for good; ends it with a reason when a part cannot be made.

    Args:
        confinement: What to make.
        model: A file that the child shall find in its working directory.

    Returns:
        The copy of the model, readable for the child; None without one. With the part ``processes`` it is another
        process that returns: this one waits for it and ends as it ended.
    """
    parts, folder, number = confinement.parts, Path.cwd(), os.getpid()
    try:
        held = None if model is None else model.open("rb")  # where it lies there is nothing in the new file system
    except OSError as error:
        child_guard.fail(f"the model file {model and model.name} cannot be read: {error.strerror}")
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
        child_guard.fail(f"{FAILED} {name}: {error.strerror or error}")


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
    # Without the right to change groups a group's number may be mapped by anybody: user_namespaces(7).
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
    child_guard.ask_for_parents_death()
    if select.select([alive], [], [], 0)[0]:  # the other end is closed: the parent was gone before we asked
        os._exit(1)


def _end_like(child: int) -> None:
    # Its pipes are the child's alone, so that whoever reads them sees their end.
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
    child_guard.keep_to_itself()  # from a program that is the model
    child_guard.ask_for_parents_death()  # a change of account takes the wish back: prctl(2)
    size = confinement.memory_mb << 20
    wanted = {resource.RLIMIT_FSIZE: size, resource.RLIMIT_NOFILE: _OPEN_FILES}
    if alone:  # the kernel counts the processes of an account, whoever started them
        wanted[resource.RLIMIT_NPROC] = _PROCESSES
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))
