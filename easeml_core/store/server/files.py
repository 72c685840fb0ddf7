"""The small files beside the embedded server: locks between processes, generated secrets.

Everything here is about one folder and knows no PostgreSQL; the server itself is in ``server.py``.
Locks are ``flock`` locks: the kernel releases them when their process ends, however it ends, so no lock is ever stale.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from easeml_core.errors import NotFoundError, StateError
from easeml_core.files import write_durably

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
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
    """Hold a lock for as long as one owns something; a second owner is refused, not kept waiting.

    Args:
        path: The lock's file; it tells the owner's process id to those who are refused.
        what: What is owned, for the message.

    Raises:
        StateError: If a living process owns it; the message names the process.
    """
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
        """All secrets; empty as long as none was made.

        Raises:
            StateError: If the file was damaged, or belongs to another account.
        """
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
        """The secret of that name.

        Raises:
            NotFoundError: If it was not made yet.
        """
        values = self.read()
        if name not in values:
            raise NotFoundError(
                kind="secret", name=name, known=values, remedy=f"{self._path} holds those that were made"
            )
        return values[name]

    def get_or_make(self, name: str, make: Callable[[], str]) -> str:
        """The secret of that name, made now if there is none; safe among processes and threads.

        Args:
            name: For example ``fernet_key``.
            make: Gives a new value; must not ask this file for another secret.
        """
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
