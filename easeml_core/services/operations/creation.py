"""An installation on a PostgreSQL server that others run: roles, database, schema, the place of artifacts.

The passwords are made here and go into a folder that only the account of the caller can read: ``ROLE.url`` with an
address for each role, as `easeml service install` reads them, and ``connection.json`` for `airflow connections import`.
The addresses are written before the server is changed, so that what was interrupted can be repeated with the same
passwords; the connection once the artifacts are known to be the installation's.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from easeml_core.errors import InvalidInputError, StateError, reason_of
from easeml_core.files.local import write_durably
from easeml_core.formats.encoding import typed_record
from easeml_core.services.operations.artifact_store import checked_artifacts, installed_place
from easeml_core.store.artifacts.remote import artifact_store
from easeml_core.store.database import Store
from easeml_core.store.roles import EASEML_DATABASE, OWNER, WORKER
from easeml_core.store.schema import upgrade
from easeml_core.store.server.creation import LOGINS, Administrator, ServerAddress, address_file, psql_script
from easeml_core.store.server.place import new_password

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECTION_ID, CONNECTION_FILE = "easeml_default", "connection.json"


@typed_record
class CreatedInstallation:
    """The answer of ``easeml db create``.

    Attributes:
        database: Where it is, such as ``db:5432/easeml``.
        schema: Revision of the schema; None where an administrator has to run ``sql`` first.
        artifacts: The place of models and data.
        files: Addresses of the roles, and the connection of Airflow: with passwords, readable by this account only.
        left: SQL that a superuser still has to run in the database; empty where all is as it should be.
        sql: For an administrator; None where it was run.
    """

    database: str
    schema: str | None
    artifacts: str
    files: tuple[str, ...]
    left: tuple[str, ...]
    sql: str | None = None


def create_installation(
    admin: str, artifacts: str, folder: Path, *, host: str = "", port: int = 0, kept: Mapping[str, str] | None = None
) -> CreatedInstallation:
    """Make an installation, or bring the one that was made with this folder to what it should be."""
    administrator = Administrator(admin)
    of_admin = administrator.address
    at = replace(of_admin, host=host or of_admin.host, port=port or of_admin.port)
    if not at.host:
        message = "the administrator's address names no host: give --host, by which Airflow's machines reach the server"
        raise InvalidInputError(message)
    place = _absolute(artifacts)
    passwords = _read_passwords(folder, at) | dict(kept or {})
    present = administrator.present_roles()
    if unknown := sorted(present - passwords.keys()):
        missing = folder / address_file(unknown[0])
        message = (
            f"the server has the role {unknown[0]} already, and {missing} with its password is not there: give "
            "--secrets the folder of that installation, or take a server for each installation; for the server of "
            "`easeml db start` run this in the folder where that was started"
        )
        raise StateError(message)
    administrator.check_installation({role: passwords[role] for role in sorted(present)}, folder)
    passwords = {role: passwords.get(role) or new_password() for role in LOGINS}
    files = _write_addresses(folder, at, passwords)
    left = administrator.create(passwords)
    owner = Store(at.url(OWNER, passwords[OWNER]), needs=OWNER, source=str(folder / address_file(OWNER)))
    try:
        revision = upgrade(owner)
        checked_artifacts(owner, artifact_store(place))
        if installed_place(owner) is None:
            message = f"this account cannot write into {place}: make the folder, or name another with --artifacts"
            raise StateError(message)
    finally:
        owner.close()
    files += _write_connection(folder, at, passwords[WORKER], place)
    return CreatedInstallation(_shown(at), revision, place, files, tuple(map(str, left)))


def print_installation(artifacts: str, folder: Path, at: ServerAddress) -> CreatedInstallation:
    """Make the passwords, and the SQL by which an administrator makes the installation; no server is needed."""
    known, place = _read_passwords(folder, at), _absolute(artifacts)
    passwords = {role: known.get(role) or new_password() for role in LOGINS}
    files = _write_addresses(folder, at, passwords) + _write_connection(folder, at, passwords[WORKER], place)
    return CreatedInstallation(_shown(at), None, place, files, (), psql_script(passwords))


def _absolute(artifacts: str) -> str:
    return artifacts if "://" in artifacts else str(Path(artifacts).absolute())


def _shown(at: ServerAddress) -> str:
    return f"{at.host}:{at.port}/{EASEML_DATABASE}"


def _read_passwords(folder: Path, at: ServerAddress) -> dict[str, str]:
    """Return the passwords that an earlier call has written, by role."""
    found = {}
    _refuse_foreign(folder, forbidden=0o022, remedy="chmod go-w")
    for role in LOGINS:
        path = folder / address_file(role)
        try:
            if _refuse_foreign(path, forbidden=0o077, remedy="chmod 600"):
                parts = urlsplit(path.read_text(encoding="utf-8").strip())
                if parts.username == role and parts.password:
                    _refuse_another(path, f"{parts.hostname}:{parts.port or 5432}{parts.path}", at)
                    found[role] = unquote(parts.password)
        except (OSError, ValueError) as error:
            message = f"{path} cannot be read: {reason_of(error)}"
            raise StateError(message) from error
    return found


def _refuse_foreign(path: Path, *, forbidden: int, remedy: str) -> bool:
    """Return whether there is a file or folder; refuse one that others may have made, changed or read."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        message = f"{path} cannot be read: {reason_of(error)}"
        raise StateError(message) from error
    if stat.S_ISLNK(about.st_mode):
        problem = "is a link: give the folder itself, with files in it"
    elif not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
        problem = "is no file: remove it"
    elif about.st_uid != os.geteuid():
        problem = "is of another account: run this as the account that owns it, or name another folder with --secrets"
    elif about.st_mode & forbidden:
        problem = f"is open to other accounts: if its passwords are still yours alone, {remedy} {path}"
    else:
        return True
    message = f"{path} {problem}"
    raise StateError(message)


def _refuse_another(path: Path, stored: str, at: ServerAddress) -> None:
    if stored.lower() != _shown(at).lower():
        message = (
            f"{path} is of {stored}, not of {_shown(at)}: name another folder with --secrets; or, where it is the same "
            "server under another name, give --host and --port of that file, or correct the addresses in the folder"
        )
        raise StateError(message)


def _write_addresses(folder: Path, at: ServerAddress, passwords: Mapping[str, str]) -> tuple[str, ...]:
    return _write(folder, {address_file(role): at.url(role, password) + "\n" for role, password in passwords.items()})


def _write_connection(folder: Path, at: ServerAddress, password: str, place: str) -> tuple[str, ...]:
    connection = {
        "conn_type": "easeml", "host": at.host, "port": at.port, "schema": EASEML_DATABASE, "login": WORKER,
        "password": password, "extra": {"artifacts": place, **at.tls},
    }  # fmt: skip
    return _write(folder, {CONNECTION_FILE: json.dumps({CONNECTION_ID: connection}, indent=2) + "\n"})


def _write(folder: Path, texts: Mapping[str, str]) -> tuple[str, ...]:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in texts.items():
            write_durably(folder / name, text)
    except OSError as error:
        message = f"{folder} cannot be written: {reason_of(error)}; name another folder with --secrets"
        raise StateError(message) from error
    return tuple(str(folder / name) for name in texts)
