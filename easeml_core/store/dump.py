"""PostgreSQL's own pg_dump and pg_restore: which program, which version, and a password that no process list shows."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from easeml_core.errors import StateError, StoreError
from easeml_core.store.rows import scalar
from easeml_core.store.server.programs import PROGRAMS, installed_site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.database import Store

SCHEMAS = ("work", "sealed")
"""The schemas of a backup."""


def server_version(store: Store) -> int:
    """Return the major version of the server, e.g. 18."""
    with store.begin(check_schema=False) as tx:
        return int(scalar(tx, "SELECT current_setting('server_version_num')::int / 10000"))


def is_in_use(store: Store) -> bool:
    """Whether the database has a study, so that a restore would end what is there. Role ``easeml_owner``."""
    with store.begin(check_schema=False) as tx:
        if scalar(tx, "SELECT to_regclass('work.studies')") is None:
            return False
        return bool(scalar(tx, "SELECT EXISTS (SELECT FROM work.studies)"))


def program(name: str, *, server: int) -> Path:
    """Return the first program of PostgreSQL on PATH, or of the embedded server, that suits a server.

    Args:
        name: ``pg_dump`` or ``pg_restore``.
        server: Major version of the server: an older pg_dump refuses it, and an older pg_restore may not read a dump.

    Raises:
        StateError: There is none; says which versions were found.
    """
    found = [Path(there)] if (there := shutil.which(name)) else []
    with contextlib.suppress(StateError):  # the wheel of the embedded server is not installed
        found.append(installed_site() / PROGRAMS / name)
    versions = {path: _version(path) for path in found}
    suited = next((path for path, version in versions.items() if version is not None and version >= server), None)
    if suited is None:
        seen = ", ".join(f"{path} of version {version}" for path, version in versions.items()) or "none"
        message = (
            f"{name} of PostgreSQL {server} or newer is needed, found: {seen}; install PostgreSQL's client programs "
            "of the server's version and put them on PATH"
        )
        raise StateError(message)
    return suited


def dump(url: str, path: Path, *, server: int, schemas: Sequence[str] = SCHEMAS) -> None:
    """Write a dump in PostgreSQL's custom format, of one snapshot.

    Args:
        url: Address of a role that reads everything, password included.
        path: The file.
        server: Major version of the server.
        schemas: Which schemas; empty for the whole database.

    Raises:
        StateError: There is no pg_dump that suits.
        StoreError: It failed; with its first line.
    """
    only = [f"--schema={schema}" for schema in schemas]
    _run([str(program("pg_dump", server=server)), "--format=custom", *only, f"--file={path}"], url)


def restore(url: str, path: Path, *, server: int) -> None:
    """Put a dump in the place of what the database has, in one transaction; arguments and errors as of ``dump``."""
    options = ("--clean", "--if-exists", "--exit-on-error", "--single-transaction")
    _run([str(program("pg_restore", server=server)), *options, str(path)], url)


def _run(command: list[str], url: str) -> None:
    """Run a program on a database; its address is an argument without the password, which is in its environment."""
    address = make_url(url).set(drivername="postgresql")
    secret = {} if address.password is None else {"PGPASSWORD": str(address.password)}
    shown = address._replace(password=None).render_as_string(hide_password=False)
    done = subprocess.run(
        [*command[:-1], f"--dbname={shown}", command[-1]],
        env={**os.environ, "LC_ALL": "C"} | secret,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]
        message = f"{Path(command[0]).name} failed, and nothing is used of what it wrote: {said}"
        raise StoreError(message)


def _version(path: Path) -> int | None:
    """Major version of a program; None where it does not run."""
    try:
        done = subprocess.run([str(path), "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(\d+)(\.\d+)?", done.stdout)
    return int(found[1]) if found else None
