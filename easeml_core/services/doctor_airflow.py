"""What can be seen of Airflow from outside it: the connection in the environment, its tables, its device pool.

Airflow itself is not imported: the core knows none, and it would take seconds.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from easeml_core.entities import ConnectionExtra
from easeml_core.errors import EasemlError, counted
from easeml_core.services.checks import Check
from easeml_core.store import health
from easeml_core.store.database import Store
from easeml_core.store.roles import WORKER

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "AIRFLOW_CONN_EASEML_DEFAULT"
ANSWER_SECONDS = 10.0
MOST_BYTES = 1_000_000
_REVISION = re.compile(r"^(down_revision|revision)(?:: [^=]+)? = (.+)$", re.MULTILINE)
_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Pool:
    """How to ask about the pool of devices.

    Attributes:
        url: Of Airflow's API server, such as http://localhost:8080.
        user: Who asks; needs the right to read pools.
        password: Of this user; never shown.
        name: Of the pool.
    """

    url: str
    user: str
    password: str = field(repr=False)
    name: str = "easeml_devices"


def check_connection(environment: Mapping[str, str]) -> Check:
    """The connection ``easeml_default``, where it stands in the environment: role, and place of the artifacts."""
    name = "Airflow connection"
    text = environment.get(VARIABLE)
    if text is None:
        why = f"no {VARIABLE} here; a connection in Airflow's database or a secrets backend is not seen from outside"
        return Check(name, "skipped", why, "see `airflow connections get easeml_default` where tasks run")
    remedy = f"correct {VARIABLE}, see docs/install.md"
    try:
        told = _connection(text)
    except (ValueError, TypeError) as error:
        return Check(name, "failed", f"{VARIABLE} cannot be read: {type(error).__name__}", remedy)
    missing = [key for key in ("host", "login", "schema") if not told.get(key)]
    if missing:
        return Check(name, "failed", f"{VARIABLE} lacks {', '.join(missing)}", remedy)
    where = f"{told['login']} at {told['host']}:{told.get('port') or 5432}/{told['schema']}"
    if told["login"] != WORKER:
        return Check(name, "failed", f"{where}: tasks must connect as {WORKER}", remedy)
    unknown = sorted(set(told["extra"]) - set(ConnectionExtra))
    if unknown:
        allowed = ", ".join(ConnectionExtra)
        return Check(name, "failed", f"{where}: extra may hold {allowed}, not {', '.join(unknown)}", remedy)
    if not told["extra"].get("artifacts"):
        return Check(name, "failed", f"{where}: extra.artifacts is missing", remedy)
    return _reached(name, told, f"{where}, artifacts at {told['extra']['artifacts']}")


def _connection(text: str) -> dict[str, Any]:
    """Host, login and so on of a connection as Airflow writes them, JSON or an address; ``extra`` without gaps."""
    if text.lstrip().startswith("{"):
        told = dict(json.loads(text))
        extra = told.get("extra") or {}
        extra = json.loads(extra) if isinstance(extra, str) else extra
        return told | {"extra": {key: value for key, value in dict(extra).items() if value not in (None, "")}}
    parts = urlsplit(text)
    names = {"host": parts.hostname, "login": parts.username, "password": parts.password}
    told = {name: None if value is None else unquote(value) for name, value in names.items()}
    extra = {key: values[0] for key, values in parse_qs(parts.query).items()}
    return told | {"port": parts.port, "schema": unquote(parts.path.lstrip("/")), "extra": extra}


def _reached(name: str, told: dict[str, Any], found: str) -> Check:
    login, password, database = (quote(str(told.get(key) or ""), safe="") for key in ("login", "password", "schema"))
    url = f"postgresql+psycopg2://{login}:{password}@{told['host']}:{told.get('port') or 5432}/{database}"
    tls = urlencode({key: value for key, value in told["extra"].items() if key != "artifacts"}, quote_via=quote)
    url = f"{url}?{tls}" if tls else url
    try:
        _ask(url, health.who_and_when)
    except EasemlError as error:
        return Check(name, "failed", str(error), "start the database, or correct the connection")
    return Check(name, "ok", found)


def check_metadata(url: str | None) -> Check:
    """Airflow's own tables against the Airflow that is installed here.

    Args:
        url: Address of the metadata database, password included; None where it is not known.
    """
    name = "Airflow tables"
    if url is None:
        why = "no address of Airflow's metadata database: no AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, no embedded server"
        return Check(name, "skipped", why, "see `airflow db check-migrations` where Airflow runs")
    wanted = airflow_head()
    if wanted is None:
        return Check(name, "skipped", "Airflow is not installed here")
    if not url.startswith("postgresql"):
        return Check(name, "skipped", f"a database of kind {url.partition(':')[0]} is not looked into")
    try:
        found = _ask(url, health.revision_of_airflow)
    except EasemlError as error:
        return Check(name, "failed", str(error), "start the database, or correct the address")
    if found == wanted:
        return Check(name, "ok", f"revision {found}, as this Airflow wants it")
    remedy = "run `airflow db migrate` with the Airflow that is installed; `make up` does it by itself"
    if found is None:
        return Check(name, "warning", "no Airflow has used its metadata database yet", remedy)
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


def check_pool(pool: Pool | None) -> Check:
    """Whether Airflow has the pool whose slots are the devices."""
    name = "device pool"
    if pool is None:
        why = "nobody said where Airflow's API server is"
        return Check(name, "skipped", why, "give --airflow URL, --airflow-user and --airflow-password-file")
    try:
        token = _call(f"{pool.url}/auth/token", {"username": pool.user, "password": pool.password})["access_token"]
        found = _call(f"{pool.url}/api/v2/pools/{quote(pool.name, safe='')}", token=str(token))
        slots, used = int(found["slots"]), int(found["occupied_slots"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            remedy = f"airflow pools set {pool.name} SLOTS 'one slot for each training device'"
            return Check(name, "failed", f"Airflow has no pool {pool.name}", remedy)
        return Check(name, "failed", f"Airflow answers {error.code} to {pool.user}", "check user, password and rights")
    except (OSError, ValueError, LookupError, TypeError) as error:
        return Check(
            name, "skipped", f"{pool.url} gives no answer: {type(error).__name__}", "start Airflow's API server"
        )
    if slots == 0:
        return Check(name, "failed", f"{pool.name} has no slot", f"airflow pools set {pool.name} SLOTS TEXT")
    return Check(name, "ok", f"{pool.name}: {counted(slots, 'slot')}, {used} in use")


def _call(url: str, body: Mapping[str, str] | None = None, *, token: str | None = None) -> dict[str, Any]:
    if urlsplit(url).scheme not in ("http", "https"):
        message = "an address of Airflow begins with http:// or https://"
        raise ValueError(message)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return dict(json.loads(answer.read(MOST_BYTES)))
