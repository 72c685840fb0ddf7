"""Under which accounts Airflow runs: root's launcher steps down, so that no task is the account of the referee.

There are two, and one more for each of the hosts of a stack on Celery. One is that of tasks, and of what starts them.
The API server has another, since it may read sealed sets for the referee's pages: a task must neither look into it nor
put something in its way, such as a plugin that it would load, or in the place of a log a link to what only the API
server may read.

None is created: they are unused user ids. Sandboxed models of the referee have ids of another range
(``easeml_core.sandbox.confinement``), so that no task may look into them either.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import stat
import subprocess
import sys
import time
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import easeml_core

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from stack.places import Places

# Unused by systemd, which sets aside what is above for services and what is below for homes (its UIDS-GIDS.md), and
# below 65536, beyond which containers often have no ids.
FIRST_UID, UIDS = 60706, 478
PACKAGES = ("easeml_core", "easeml_airflow")
END_SECONDS = 5.0
SHARED = 0o2770  # what either account makes belongs to the group, so that both may write


@dataclass(frozen=True, slots=True)
class Account:
    """What a component becomes before its program starts; ``tether`` does it.

    Attributes:
        uid: User id, never root's.
        gid: Group id, the only group; both accounts have the same, in which they share artifacts.
        cwd: Working directory, the account's own.
        doors: Folders that the account may not pass though something it needs lies behind; none within another.
        shown: What it needs, and whether it may write there; parents before what is in them.
        linkless: Folders in which it follows no link, since another account writes there.
    """

    uid: int
    gid: int
    cwd: str
    doors: tuple[str, ...] = ()
    shown: tuple[tuple[str, bool], ...] = ()
    linkless: tuple[str, ...] = ()

    def to_json(self) -> str:
        """For the command line of ``tether``."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Accounts:
    """The two of one stack.

    Attributes:
        tasks: Of scheduler, DAG processor, triggerer, and of what tasks run.
        api_server: Of the API server that people use.
        hosts: Of each host, where tasks run on separate hosts.
    """

    tasks: Account
    api_server: Account
    hosts: Mapping[str, Account] = field(default_factory=dict)

    def uids(self) -> tuple[int, ...]:
        """The user ids of all."""
        return tuple(account.uid for account in (self.tasks, self.api_server, *self.hosts.values()))


def prepare_accounts(
    places: Places, readable: Iterable[Path] = (), hosts: Mapping[str, Iterable[tuple[Path, bool]]] | None = None
) -> Accounts | None:
    """The accounts of this state folder's Airflow, with their folders; None where the launcher is not root.

    Args:
        places: Where the files lie.
        readable: What else they read; nothing that has the state folder in it, where the secrets lie.
        hosts: For each host what it needs besides its folder and the code, and whether it may write there.

    Raises:
        OSError: If the machine does not let the folders be given away.
    """
    if os.geteuid() != 0:
        return None
    tasks = _uid_of(places.airflow, places)
    server = _uid_of(places.api_server, places, but=[tasks])
    uids: dict[str, int] = {}
    for name in hosts or {}:
        uids[name] = _uid_of(places.host(name), places, but=[tasks, server, *uids.values()])
    _give_folders(places, tasks, server, {places.host(name): uid for name, uid in uids.items()})
    code = [(path, False) for path in _read_only(places, readable)]
    needed = [*code, (places.artifacts, True)]
    of_tasks = [*needed, (places.airflow, True), (places.task_logs, True)]
    of_server = [*needed, (places.api_server, True), (places.task_logs, False)]
    return Accounts(
        _account(tasks, tasks, places.airflow, of_tasks),
        replace(_account(server, tasks, places.api_server, of_server), linkless=(str(places.task_logs),)),
        {name: _of_host(uids[name], tasks, places, name, [*code, *more]) for name, more in (hosts or {}).items()},
    )


def _of_host(uid: int, group: int, places: Places, name: str, needed: list[tuple[Path, bool]]) -> Account:
    """The account of a host; only one that may write artifacts is in the group that shares them."""
    gid = group if (places.artifacts, True) in needed else uid
    return _account(uid, gid, places.host(name), [*needed, (places.host(name), True)])


def _account(uid: int, gid: int, home: Path, needed: Iterable[tuple[Path, bool]]) -> Account:
    shown = {str(p): free for path, free in needed for p in (path, path.resolve())}
    doors = sorted({door for path in shown if (door := _door(Path(path), uid, gid))})
    outermost = tuple(d for d in doors if not any(d.startswith(f"{other}/") for other in doors))
    return Account(uid, gid, str(home), outermost, tuple(sorted(shown.items())))


def _give_folders(places: Places, uid: int, server: int, hosts: Mapping[Path, int]) -> None:
    """Make the accounts the owners of what Airflow writes, and close what they must not read.

    Only for a launcher that is root, while no process of theirs lives: then none can exchange a file for another.
    A file with a second name is left as it is, since that may lead to a file of another account.
    """
    end_processes_of(uid, server, *hosts.values())
    places.task_logs.mkdir(exist_ok=True)
    for folder in (places.api_server, *hosts):
        folder.chmod(0o700)
    own = ((places.airflow, uid), (places.task_logs, uid), (places.api_server, server))
    for folder, owner in (*own, *hosts.items()):
        for descriptor, files in _walk(folder):
            for name in files:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if status.st_uid == 0 and status.st_nlink == 1:
                    os.chown(name, owner, owner, dir_fd=descriptor, follow_symlinks=False)
            os.fchown(descriptor, owner, owner)
    for descriptor, _ in _walk(places.artifacts):
        os.fchown(descriptor, uid, uid)
        os.fchmod(descriptor, SHARED)
    places.logs.chmod(0o711)
    for log in places.logs.glob("*.log*"):
        log.chmod(0o600)
    places.data.mkdir(exist_ok=True)
    places.data.chmod(places.data.stat().st_mode & 0o770)


def end_processes_of(*uids: int) -> None:
    """Kill all that the accounts run: a task's process that left its parents would outlive the stack.

    The kernel does it at once for all, so that none can start another meanwhile: kill(2), process id -1. A process
    that hangs in the kernel is not waited for longer than a few seconds.
    """
    for uid in uids:
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline and any(_runs_as(p, uid) for p in psutil.process_iter()):
            as_account: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []}
            subprocess.run(("/bin/sh", "-c", "kill -9 -1"), env={}, cwd="/", check=False, **as_account)
            time.sleep(0.05)


def trial(places: Places, account: Account) -> tuple[str, ...]:
    """A command that fails, with the reason as its last line, if the account lacks something that Airflow needs."""
    code = (
        "import importlib.util, os, sys, tempfile\n"
        "import numpy, easeml_core\n"
        "for name in ('airflow', 'easeml_airflow'): assert importlib.util.find_spec(name), name\n"
        "end = 2 + int(sys.argv[1])\n"
        "for folder in sys.argv[2:end]: os.listdir(folder)\n"
        "for folder in sys.argv[end:]: tempfile.TemporaryFile(dir=folder).close()\n"
    )
    read = [str(path) for path in (places.dags, places.task_logs) if str(path) in dict(account.shown)]
    writable = [path for path, is_free in account.shown if is_free]
    return (sys.executable, "-c", code, str(len(read)), *read, *writable)


def _uid_of(folder: Path, places: Places, but: Collection[int] = ()) -> int:
    """The id that the folder has already, else one that no account and no process has."""
    owner = folder.stat().st_uid
    if owner in range(FIRST_UID, FIRST_UID + UIDS) and owner not in but:
        return owner
    first = zlib.crc32(bytes(places.home))
    candidates = [uid for k in range(UIDS) if (uid := FIRST_UID + (first + k) % UIDS) not in but]
    return next((uid for uid in candidates if not _is_taken(uid)), candidates[0])


def _is_taken(uid: int) -> bool:
    with contextlib.suppress(KeyError):
        pwd.getpwuid(uid)
        return True
    return any(_runs_as(process, uid) for process in psutil.process_iter())


def _runs_as(process: psutil.Process, uid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return uid in process.uids() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _read_only(places: Places, readable: Iterable[Path]) -> list[Path]:
    """The interpreter, its libraries, our packages, DAG files and more; never the folder in which the secrets lie."""
    named = [Path(p) for p in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, places.dags)]
    named += product_folders()
    named += [Path(p) for p in sys.path if p and Path(p).is_absolute()]
    named += [*_links(Path(sys.executable)), *readable]
    return [p for p in named if p.exists() and not places.home.is_relative_to(p)]


def product_folders() -> list[Path]:
    """The folders of the product's packages, as this process would import them."""
    return [Path(place) for name in PACKAGES for place in _places_of_package(name)]


def _places_of_package(name: str) -> Iterable[str]:
    if name == easeml_core.__name__:
        return easeml_core.__path__
    found = importlib.util.find_spec(name)
    return (found.submodule_search_locations if found else None) or ()


def _links(path: Path) -> list[Path]:
    """A path and what it leads to link by link, as an environment's interpreter does."""
    found = [path]
    while found[-1].is_symlink() and len(found) < 40:
        found.append(found[-1].parent / os.readlink(found[-1]))
    return [Path(os.path.normpath(p)) for p in found]


def _door(path: Path, uid: int, gid: int) -> str | None:
    """The outermost folder on the way to a path that the account may not pass."""
    for folder in reversed(path.parents):
        status = folder.stat()
        bit = stat.S_IXUSR if status.st_uid == uid else stat.S_IXGRP if status.st_gid == gid else stat.S_IXOTH
        if not status.st_mode & bit:
            return str(folder)
    return None


def _walk(folder: Path) -> Iterator[tuple[int, list[str]]]:
    """Every folder below and the folder itself, opened, never through a link; with the names of its files."""
    for _, _, files, descriptor in os.fwalk(folder, topdown=False, follow_symlinks=False):
        yield descriptor, files
