"""Under which account the embedded server runs, and how its programs are called.

PostgreSQL refuses to run as root. Root therefore steps down to an account that is already there; none is created, and
no user's folder is opened for it. Every other account runs the server as itself.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from easeml_core.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

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

        Returns:
            How it ended; status 126 when this account may not even run the program.
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
    """The account that the server of this data must run under.

    Args:
        data: The data directory, made or not. Root runs existing data as the account that owns them, so that they
            stay usable when ``postgres`` comes to a machine where ``nobody`` had to serve.

    Raises:
        StateError: If there is no such account.
    """
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
