"""The embedded server's folder: its home, or a reachable place when the home is closed to its account.

The *home* is the folder that people name; secrets and locks are there. The *place* holds what the server's account
must reach: data, settings, programs. Both are one folder, unless root keeps the home behind a closed door (a parent
such as /root): then the place is under /var/lib/easeml, and a pointer in the home says where. Doors stay closed.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError, StateError
from easeml_core.files import write_durably

if TYPE_CHECKING:
    from easeml_core.store.server.account import Account

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

    Raises:
        InvalidInputError: If the path holds a character that PostgreSQL's starter cannot quote.

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
    """Make the home if it is not there; an existing folder keeps its permissions.

    Raises:
        StateError: If it cannot be made, or belongs to another account.
    """
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

    Raises:
        StateError: If data are there already, and the account cannot reach them.
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
