"""Airflow's checks of ``easeml doctor``: the connection in the environment, its tables, its device pool.

Airflow itself is not imported, since that takes seconds. The entry point ``easeml.doctor`` names ``airflow_checks``.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import urllib.error
import urllib.request
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from easeml_core.errors import ConfigError, EasemlError, InvalidInputError, counted
from easeml_core.files.urls import WEB, parse_url
from easeml_core.services.operations.checks import Check
from easeml_core.settings.config import require
from easeml_core.settings.connection import artifacts_of, database_url, extra_of, tls_of
from easeml_core.store.database import Store
from easeml_core.store.logins import LOGIN_PREFIX
from easeml_core.store.queries import health
from easeml_core.store.roles import WORKER
from easeml_core.store.server.server import Server, default_home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.entities import JsonObject
    from easeml_core.services.operations.doctor import ApiServer, Installation

VARIABLE = "AIRFLOW_CONN_EASEML_DEFAULT"
WHOLE_EXTRA = "__extra__"
"""What Airflow calls an extra in an address that its parameters cannot say."""

_METADATA, _HOME, _CONFIG = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW_HOME", "AIRFLOW_CONFIG"
_ELSEWHERE = ("_CMD", "_SECRET")
"""What Airflow appends to the name of a setting that a command or a secrets backend has."""

_CONNECTION, _MULTI_TEAM = "AIRFLOW_CONN_", "AIRFLOW__CORE__MULTI_TEAM"

ANSWER_SECONDS = 10.0
MOST_BYTES = 1_000_000
_REVISION = re.compile(r"^(down_revision|revision)(?:: [^=]+)? = (.+)$", re.MULTILINE)
_ID = re.compile(r"[0-9a-f]{12}")


def airflow_checks(place: Installation) -> list[Check]:
    """Every check of Airflow: connection, teams, tables, device pool."""
    metadata_url = metadata_address(place.environment)
    return [
        check_connection(place.environment),
        check_teams(place.environment),
        check_metadata(metadata_url),
        check_pool(place.api_server),
    ]


def metadata_address(environment: Mapping[str, str]) -> str | None:
    """Where Airflow's own tables are: as its environment or its file of settings says, or on the embedded server."""
    if given := environment.get(_METADATA):
        return given
    if any(environment.get(_METADATA + suffix) for suffix in _ELSEWHERE):
        return None
    server = Server(default_home())
    ours = (server.home.parent / "airflow").absolute()  # that of `make up`, which names its database to its processes
    home = Path(environment.get(_HOME) or (ours if ours.is_dir() else "~/airflow")).expanduser().absolute()
    if home != ours or environment.get(_CONFIG):
        file = Path(environment.get(_CONFIG) or home / "airflow.cfg").expanduser()
        if file.is_file():
            return _address_in(file, home)
        if environment.get(_CONFIG) or environment.get(_HOME):
            return None
    if not server.home.exists():
        return None
    try:
        return server.url("airflow", "airflow")
    except EasemlError:  # never started, or another account's: the check of our database says so
        return None


def _address_in(file: Path, home: Path) -> str | None:
    """Return the address that a file of Airflow's settings gives; None where it cannot be read, or is elsewhere."""
    settings = configparser.RawConfigParser(strict=False)
    try:
        settings.read(file, encoding="utf-8")
    except (OSError, ValueError, configparser.Error):  # Airflow says so itself
        return None
    given = dict(settings.items("database")) if settings.has_section("database") else {}
    if any(given.get("sql_alchemy_conn" + suffix.lower()) for suffix in _ELSEWHERE):
        return None
    address = given.get("sql_alchemy_conn") or f"sqlite:///{home}/airflow.db"
    return os.path.expandvars(address.replace("%%", "%"))


def check_connection(environment: Mapping[str, str]) -> Check:
    """The connection ``easeml_default``, where it stands in the environment: role, and place of the artifacts."""
    name = "Airflow connection"
    text = environment.get(VARIABLE)
    if text is None:
        why = f"no {VARIABLE} here; a connection in Airflow's database or a secrets backend is not seen from outside"
        return Check(name, "skipped", why, "see `airflow connections get easeml_default` where tasks run")
    remedy = f"correct {VARIABLE}, see docs/install.md"
    try:
        connection = _connection(text)
    except (ValueError, TypeError) as error:
        return Check(name, "failed", f"{VARIABLE} cannot be read: {type(error).__name__}", remedy)
    missing = [key for key in ("host", "login", "schema") if not connection.get(key)]
    if missing:
        return Check(name, "failed", f"{VARIABLE} lacks {', '.join(missing)}", remedy)
    where = f"{connection['login']} at {connection['host']}:{connection.get('port') or 5432}/{connection['schema']}"
    if connection["login"] != WORKER:
        return Check(name, "failed", f"{where}: tasks must connect as {WORKER}", remedy)
    try:
        extra = extra_of(connection["extra"])
        place, tls = _kept_at(artifacts_of(extra)), tls_of(extra)
    except ConfigError as error:
        return Check(name, "failed", f"{where}: {error}", remedy)
    return _reached(name, connection, tls, f"{where}, artifacts at {place}")


def check_teams(environment: Mapping[str, str]) -> Check:
    """Say which tenants' connections stand in the environment, and whether Airflow keeps them from other teams' tasks.

    Whether the workers of each team have a separate account of the operating system is not seen from here.
    """
    name = "Airflow teams"
    found = {}
    for variable, text in environment.items():
        if variable.startswith(_CONNECTION):
            with contextlib.suppress(ValueError, TypeError):
                login = str(_connection(text).get("login") or "")
                if login.startswith(LOGIN_PREFIX):
                    found[variable.removeprefix(_CONNECTION).lower()] = login
    if not found:
        return Check(name, "skipped", "the environment has no connection of a tenant's login: one team, it seems")
    listed = ", ".join(f"{connection} ({login})" for connection, login in sorted(found.items()))
    if len(set(found.values())) < len(found):
        return Check(name, "warning", f"{listed}: two teams share a login", "give each a login: `easeml tenant login`")
    if environment.get(_MULTI_TEAM, "").lower() not in ("1", "true", "t", "yes", "on"):
        remedy = f"set {_MULTI_TEAM}=True, and run each team's workers under a separate account (docs/security.md)"
        said = "multi-team mode is not on here, and without it Airflow gives every task every connection"
        return Check(name, "warning", f"{listed}; {said}", remedy)
    return Check(name, "ok", f"{listed}; multi-team mode; that each team's workers have a separate account is not seen")


def _connection(text: str) -> JsonObject:
    """Host, login and so on of a connection as Airflow reads them, JSON or an address; its ``extra`` as it is."""
    if text.lstrip().startswith("{"):
        connection = dict(json.loads(text))
        extra = connection.get("extra") or {}
        return connection | {"extra": json.loads(extra) if isinstance(extra, str) else extra}
    parts = urlsplit(text)
    names = {"host": parts.hostname, "login": parts.username, "password": parts.password}
    connection = {name: None if value is None else unquote(value) for name, value in names.items()}
    extra = dict(parse_qsl(parts.query, keep_blank_values=True))
    whole = extra.get(WHOLE_EXTRA)  # Airflow takes it, and nothing beside it
    held = extra if whole is None else json.loads(whole or "{}")
    return connection | {"port": parts.port, "schema": unquote(parts.path[1:]), "extra": held}


def _kept_at(place: str) -> str:
    """The place of the artifacts, unless it is an address that every task refuses; that one may hold a password."""
    if "://" in place:
        try:
            is_good = parse_url(place).protocol not in WEB
        except InvalidInputError:
            is_good = False
        wanted = "the path of a folder, or an address such as s3://BUCKET/PATH, without user and password"
        require(is_good, "extra.artifacts", "another address", wanted)
    return place


def _reached(name: str, connection: JsonObject, tls: dict[str, str], found: str) -> Check:
    host, login, password, database = (
        str(connection.get(key) or "") for key in ("host", "login", "password", "schema")
    )
    url = database_url(
        host=host, port=connection.get("port"), database=database, login=login, password=password, tls=tls
    )
    try:
        _ask(url, health.who_and_when)
    except EasemlError as error:
        return Check(name, "failed", str(error), "start the database, or correct the connection")
    return Check(name, "ok", found)


def check_metadata(url: str | None) -> Check:
    """Airflow's own tables against the Airflow that is installed here."""
    name = "Airflow tables"
    if url is None:
        why = f"no address of Airflow's metadata database is known: no {_METADATA}, no airflow.cfg that names it"
        return Check(name, "skipped", why, "see `airflow db check-migrations` where Airflow runs")
    wanted = airflow_head()
    if wanted is None:
        return Check(name, "skipped", "Airflow is not installed here")
    if not url.startswith("postgresql"):
        return Check(name, "skipped", f"a database of kind {url.partition(':')[0]} is not looked into")
    try:
        found = _ask(url, health.alembic_revision)
    except EasemlError as error:
        return Check(name, "failed", str(error), "start the database, or correct the address")
    if found == wanted:
        return Check(name, "ok", f"revision {found}, as this Airflow wants it")
    remedy = "run `airflow db migrate` with the Airflow that is installed; `make up` does it by itself"
    if found is None:
        where = urlsplit(url)
        at = f"{where.hostname}:{where.port or 5432}{where.path}"
        remedy += f"; where Airflow has another database, set {_METADATA} or AIRFLOW_HOME as it has"
        return Check(name, "warning", f"no Airflow has used the database {at} yet", remedy)
    return Check(name, "failed", f"revision {found}, the installed Airflow wants {wanted}", remedy)


def _ask(url: str, question: Any) -> Any:
    store = Store(url, statement_timeout_seconds=ANSWER_SECONDS)
    try:
        with store.begin(check_schema=False) as tx:
            return question(tx)
    finally:
        store.close()


def airflow_head() -> str | None:
    """The newest revision that the installed Airflow has, read from its files; None where it is not installed."""
    spec = util.find_spec("airflow")
    folders = (
        [Path(place) / "migrations" / "versions" for place in (spec.submodule_search_locations or [])] if spec else []
    )
    made: set[str] = set()
    left: set[str] = set()
    for file in (file for folder in folders for file in folder.glob("*.py")):
        for kind, value in _REVISION.findall(file.read_text(encoding="utf-8")):
            (made if kind == "revision" else left).update(_ID.findall(value))
    heads = made - left
    return heads.pop() if len(heads) == 1 else None


def check_pool(server: ApiServer | None) -> Check:
    """Whether Airflow has the pool whose slots are the devices."""
    name = "device pool"
    if server is None:
        why = "no address of Airflow's API server was given"
        return Check(name, "skipped", why, "give --airflow URL, --airflow-user and --airflow-password-file")
    try:
        token = _call(f"{server.url}/auth/token", {"username": server.user, "password": server.password})[
            "access_token"
        ]
        found = _call(f"{server.url}/api/v2/pools/{quote(server.pool, safe='')}", token=str(token))
        slots, used = int(found["slots"]), int(found["occupied_slots"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            remedy = f"airflow pools set {server.pool} SLOTS 'one slot for each training device'"
            return Check(name, "failed", f"Airflow has no pool {server.pool}", remedy)
        return Check(
            name, "failed", f"Airflow answers {error.code} to {server.user}", "check user, password and rights"
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        return Check(
            name, "skipped", f"{server.url} gives no answer: {type(error).__name__}", "start Airflow's API server"
        )
    if slots == 0:
        return Check(name, "failed", f"{server.pool} has no slot", f"airflow pools set {server.pool} SLOTS TEXT")
    return Check(name, "ok", f"{server.pool}: {counted(slots, 'slot')}, {used} in use")


def _call(url: str, body: Mapping[str, str] | None = None, *, token: str | None = None) -> JsonObject:
    if urlsplit(url).scheme not in ("http", "https"):
        message = "an address of Airflow begins with http:// or https://"
        raise ValueError(message)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - http only
        return dict(json.loads(answer.read(MOST_BYTES)))
