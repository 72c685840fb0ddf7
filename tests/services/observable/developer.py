"""What a developer observes of an installation: the database as the role easeml_worker, pages, commands, notifications.

Each function gives ``Sight``s: one item of the alphabet, where it was looked at, and what was there. Two installations
are compared sight by sight. Names of databases and folders are replaced, and times by their rank among all times.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2
from click.testing import CliRunner
from page_client import Client
from sqlalchemy import text
from surfaces import RELATIONS, commands, routes_of, watchers

from easeml_airflow.web import app as web
from easeml_airflow.web.frame import Site
from easeml_airflow.web.people import Viewer
from easeml_core.errors import StoreUnavailableError
from easeml_core.observable import Basis, Kind, Letter, letter_of
from easeml_core.store import database as channels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import click

CHANNELS = [name for name in vars(channels) if name.endswith("CHANNEL")]
"""Constants with the channels that the source code names: anybody can listen to these."""

EPOCH = "2020-01-01 00:00:00+00"
"""Times of the past are replaced by seconds after this one."""


@dataclass(frozen=True)
class Sight:
    """One item of the alphabet as a developer saw it.

    Attributes:
        kind: What it is.
        name: The item's name.
        where: Which study, row or argument; empty for the whole item.
        value: What was there.
    """

    kind: Kind
    name: str
    where: str
    value: Any

    @property
    def letter(self) -> Letter:
        """The item's letter; what is compared as it is, such as most of ``pg_catalog``, counts as a public fact."""
        return letter_of(self.kind, self.name) or Letter.INPUT


def differences(ours: Iterable[Sight], theirs: Iterable[Sight], bases: Iterable[Basis]) -> list[str]:
    """Name every item with one of these bases that differs between two installations.

    Args:
        ours: Sights of one installation.
        theirs: Sights of the other, made in the same way.
        bases: What both installations agree in; without ``Basis.TIMES`` the times in texts are left out.
    """
    allowed = set(bases)
    without_times = Basis.TIMES not in allowed
    here, there = (
        {(s.kind, s.name, s.where): s for s in sights if s.letter.basis in allowed} for sights in (ours, theirs)
    )
    found = []
    for key in {**here, **there}:
        pair = [_shown(sights.get(key), without_times=without_times) for sights in (here, there)]
        if pair[0] != pair[1]:
            sight = here.get(key) or there[key]
            item = f"{sight.kind} {sight.name!r} {sight.where}".strip()
            found.append(f"{item} ({sight.letter.name}, may depend on {sight.letter.basis} only): {_unlike(*pair)}")
    return found


_HEAD = re.compile("'head': '[0-9a-f]{64}'")
_ANY_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?|\d\d:\d\d:\d\d UTC")


def _shown(sight: Sight | None, *, without_times: bool) -> Any:
    if sight is None:
        return "nothing"
    if sight.kind is Kind.EVENT:  # the head of a chain depends on secret random nonces: letter EVIDENCE
        shown = _HEAD.sub("'head': 'HEAD'", repr(sight.value))
        return _ANY_TIME.sub("TIME", shown) if without_times else shown
    return _ANY_TIME.sub("TIME", repr(sight.value)) if without_times else sight.value


def _unlike(ours: Any, theirs: Any, around: int = 60) -> str:
    """The first place where two values differ."""
    a, b = repr(ours), repr(theirs)
    place = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    begin = max(0, place - around)
    return f"...{a[begin : place + around]}... against ...{b[begin : place + around]}..."


# -- the database -----------------------------------------------------------------------------------------------------

_BY_THE_CLOCK = "work.offers"
"""A row is written again once a minute at most, so how often depends on how fast a world is played."""

_IS_TIME = """
SELECT table_schema || '.' || table_name, column_name FROM information_schema.columns
WHERE data_type = 'timestamp with time zone'
"""


def database_sights(lab: Any, *, catalogue: bool = True) -> list[Sight]:
    """Every row of every table that a worker may read, and its place; with the whole catalogue, if asked for."""
    with lab.worker.begin() as tx:
        relations = [(schema, name) for schema, name in tx.execute(text(RELATIONS))]
        times = {(table, column) for table, column in tx.execute(text(_IS_TIME))}
        ours = [f"{schema}.{name}" for schema, name in relations if schema not in _CATALOGUES]
        content = {table: _content(tx, table) for table in ours}
        found = [s for r in relations if r[0] in _CATALOGUES for s in _catalogue(lab, tx, *r)] if catalogue else []
        found += [*_functions(tx), _sizes(lab)] if catalogue else []
    steady = {table: rows for table, rows in content.items() if table != _BY_THE_CLOCK}
    ranks = _ranks(v for table, rows in steady.items() for row in rows for c, v in row.items() if (table, c) in times)
    writers = _ranks(row["xmin"] for rows in steady.values() for row in rows)
    for table, rows in content.items():
        places = [(row.pop("ctid"), writers.get(row.pop("xmin"))) for row in rows]
        if table != _BY_THE_CLOCK:
            found.append(Sight(Kind.CATALOGUE, "ctid and xmin", table, places))
        found.append(Sight(Kind.TABLE, table, "", len(rows)))
        shown = [{c: ranks.get(v) if (table, c) in times else v for c, v in row.items()} for row in rows]
        if table == "work.catalogue":  # holds the number of a transaction
            shown = [row | {"changed_by": writers.get(int(row["changed_by"]))} for row in shown]
        shown.sort(key=lambda row: _public(table, row))
        found += [Sight(Kind.COLUMN, f"{table}.{c}", "", [row[c] for row in shown]) for c in (rows[0] if rows else ())]
    return found


_CATALOGUES = ("pg_catalog", "information_schema")


def _public(table: str, row: dict[str, Any]) -> str:
    """What of a row must be equal whatever the symbols are: the order of rows then is, too."""
    letters = {column: letter_of(Kind.COLUMN, f"{table}.{column}") or Letter.INPUT for column in row}
    return repr([row[c] for c, letter in letters.items() if letter.basis in (Basis.PUBLIC, Basis.PREDICTIONS)])


def _ranks(values: Iterable[Any]) -> dict[Any, int]:
    """Place of each value among all different ones: the order of events, without their times."""
    return {value: place for place, value in enumerate(sorted({v for v in values if v is not None}))}


def _content(tx: Any, table: str) -> list[dict[str, Any]]:
    found = tx.execute(text(f"SELECT ctid::text, xmin::text::bigint AS xmin, * FROM {table} ORDER BY ctid")).mappings()
    return [{name: _plain(value) for name, value in row.items()} for row in found]


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


def _catalogue(lab: Any, tx: Any, schema: str, name: str) -> list[Sight]:
    """A relation of the catalogue, column by column, or that it is refused."""
    if letter_of(Kind.CATALOGUE, name) is not None:
        return []
    try:
        with tx.begin_nested():
            found = [dict(row) for row in tx.execute(text(f"SELECT * FROM {schema}.{name}")).mappings()]
    except Exception as error:  # whatever it is, it must be the same everywhere
        return [Sight(Kind.CATALOGUE, name, "", type(error).__name__)]
    columns = [c for c in (found[0] if found else ()) if letter_of(Kind.CATALOGUE, f"{name}.{c}") is None]
    rows = sorted(repr([_plain(row[c]) for c in columns]).replace(lab.name, "DATABASE") for row in found)
    return [Sight(Kind.CATALOGUE, name, schema, rows)]


_CALLABLE = """
SELECT p.proname, p.pronargs FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
AND p.provolatile <> 'i' AND NOT p.proretset AND has_function_privilege(p.oid, 'EXECUTE')
AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
AND (p.pronargs = 0 OR (p.pronargs = 1 AND p.proargtypes[0] = 'regclass'::regtype)) ORDER BY 1
"""
_SEALED = (
    "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'sealed' ORDER BY 1"
)


def _functions(tx: Any) -> list[Sight]:
    """What functions of the server say that need no argument, or a sealed relation."""
    sealed = list(tx.execute(text(_SEALED)).scalars())
    here = tx.execute(text("SELECT oid FROM pg_database WHERE datname = current_database()")).scalar()
    found = []
    for name, arguments in tx.execute(text(_CALLABLE)).all():
        if letter_of(Kind.CATALOGUE, f"{name}()") is None:
            calls = [f"{name}()"] if not arguments else [f"{name}({oid}::regclass)" for oid in sealed]
            said = [_said(tx, call).replace(f"/{here}/", "/DATABASE/") for call in calls]
            found.append(Sight(Kind.CATALOGUE, f"{name}()", "", said))
    return found


_SIZES = """
SELECT c.relname, pg_relation_size(c.oid), pg_total_relation_size(c.oid) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'sealed' AND c.relkind = 'r' ORDER BY 1
"""


def _sizes(lab: Any) -> Sight:
    """Sizes of sealed tables, which every role may ask for on a server that was not closed (docs/install.md)."""
    return Sight(Kind.CATALOGUE, "sizes of sealed tables", "", lab.superuser_rows(_SIZES))


def _said(tx: Any, call: str) -> str:
    try:
        with tx.begin_nested():
            return repr(tx.exec_driver_sql(f"SELECT pg_catalog.{call}").scalar())
    except Exception as error:
        return type(error).__name__


def freeze_times(lab: Any) -> None:
    """Replace every time in schema work by its rank in seconds: pages of two installations then show the same times."""
    with contextlib.closing(lab.server.connect(database=lab.name)) as opened, opened.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(f"{_IS_TIME} AND table_schema = 'work'")
        columns = cursor.fetchall()
        every = " UNION ".join(f"SELECT {column} AS t FROM {table}" for table, column in columns)
        ranked = "SELECT t, row_number() OVER (ORDER BY t) AS n"
        cursor.execute(f"CREATE TABLE public.ranks AS {ranked} FROM ({every}) x WHERE t IS NOT NULL")
        for table, column in columns:
            frozen = f"timestamptz '{EPOCH}' + n * interval '1 second'"
            cursor.execute(f"UPDATE {table} SET {column} = {frozen} FROM public.ranks WHERE t = {column}")
        cursor.execute("DROP TABLE public.ranks")
        opened.commit()


@contextlib.contextmanager
def listening(lab: Any) -> Iterator[list[Sight]]:
    """What a worker hears on every channel whose name stands in the source code, in order."""
    address = lab.url("easeml_worker").replace("postgresql+psycopg2", "postgresql")
    heard: list[Sight] = []
    with contextlib.closing(psycopg2.connect(address)) as ear:
        ear.autocommit = True
        with ear.cursor() as cursor:
            for name in CHANNELS:
                cursor.execute(f"LISTEN {getattr(channels, name)}")
            yield heard
            cursor.execute("SELECT 1")
        names = {getattr(channels, name): name for name in CHANNELS}
        said = [(f"{names[n.channel]} {n.payload.partition(':')[0]}", n.payload) for n in ear.notifies]
    heard.extend(
        Sight(Kind.TOPIC, name, "", [p for n, p in said if n == name]) for name in dict.fromkeys(n for n, _ in said)
    )
    heard.append(Sight(Kind.TOPIC, "CHANNEL answer", "order of all", [payload for _, payload in said]))


# -- pages ------------------------------------------------------------------------------------------------------------


def _away() -> Any:
    message = "this server was not given the referee's address"
    raise StoreUnavailableError(message)


def client_of(lab: Any) -> Client:
    """The web application as a developer who may read and change every study, and is no referee or labeler."""
    viewer = Viewer("dev", frozenset(), lambda _study, _tenant, *, write: True)
    site = Site(lambda: lab.worker, lambda: lab.artifacts, _away, lambda: viewer)
    app = web.create_app(site, require_login=lambda: None, rights=lambda *, write: lambda: "dev")
    return Client(app)


ENDLESS = "GET /events"
"""Streams notifications (``listening`` compares these) and does not end."""

QUERY = {"show": "all", "q": "a", "sort": "name", "window": "day", "of": "train", "study": "full", "edges": "0.1"}
FORM = {
    **{name: "because" for name in ("why", "reason", "message", "who", "say")},
    **{
        name: "1"
        for name in ("number", "model", "model_id", "test_set", "trial_id", "request", "weight", "at", "place")
    },
    **{
        "key": "form",
        "request_key": "form",
        "name": "next",
        "purpose": "gate",
        "kind": "decision_tree",
        "label": "yes",
    },
}


def requests_of(
    client: Client, bindings: dict[str, list[str]], methods: Iterable[str]
) -> list[tuple[str, str, str, bool]]:
    """Method, route, path and whether parameters are added, for every route with every binding of its path.

    Args:
        client: Of the application.
        bindings: Values of each parameter of paths.
        methods: Of which methods.
    """
    found = []
    for route in routes_of(client.app):
        names = re.findall(r"{(\w+)}", route.path)
        for method in sorted(route.methods & set(methods)):
            for values in itertools.product(*(bindings[name] for name in names)):
                path = route.path.format(**dict(zip(names, values, strict=True)))
                if f"{method} {route.path}" != ENDLESS:
                    found.append((method, route.path, path, False))
                    found += (
                        [(method, route.path, path, True)] if route.dependant.query_params and method == "GET" else []
                    )
    return found


def page_sight(lab: Any, client: Client, asked: tuple[str, str, str, bool], ids: dict[str, int]) -> Sight:
    """One request and its answer: status, target of a redirect, and content."""
    method, route, path, has_more = asked
    headers = {"sec-fetch-site": "same-origin"}
    if method == "GET":
        known = {r.path: r for r in routes_of(client.app)}[route]
        names = [parameter.name for parameter in known.dependant.query_params] if has_more else []
        answer = client.get(
            path, params={name: QUERY.get(name, str(ids.get(name, 1))) for name in names}, headers=headers
        )
    elif path.startswith("/api/"):
        answer = client.post(path, json={"request_key": "api"}, headers=headers)
    else:
        answer = client.post(path, data=FORM, headers=headers)
    shown = answer.status_code, answer.headers.get("location"), _neutral(lab, answer.text)
    return Sight(Kind.ROUTE, f"{method} {route}", f"{path}{'?' if has_more else ''}", shown)


_NOW = re.compile(r'<time datetime="(?!2020-01-01)[^<]*</time>|(?!2020-01-01)\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?')
_CLOCK = re.compile(r"clock is [0-9.]+ s (ahead|behind)")
_RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def _neutral(lab: Any, shown: str) -> str:
    """Without the database's name, random keys of forms and commands, and the present time; frozen times stay."""
    shown = _CLOCK.sub("CLOCK", _NOW.sub("NOW", _RANDOM.sub("KEY", shown)))
    return shown.replace(lab.name, "DATABASE")


# -- commands ---------------------------------------------------------------------------------------------------------

UNRUN = {
    "referee": "the referee's own process; tests of the referee start it with the wrong role",
    "device run": "a worker that trains on open rows and measures real times",
    "mlflow sync": "needs an MLflow server; it sends what `model list` prints",
    "bench select": "fills an empty database of its own",
    "db upgrade": "changes the schema with the owner's address",
    "db artifacts": "needs the owner's address",
    "db backup": "needs the owner's address",
    "db restore": "needs the owner's address",
    "policy set": "needs the owner's address",
}
"""Commands with a database that are not run here, and why."""

MORE = {"backtest": ["--repeats", "1", "--served", "2", "--processes", "1"]}
"""What keeps a command short."""


def command_lines(study: str, ids: dict[str, int], folder: Path, *, is_first: bool) -> Iterator[tuple[str, list[str]]]:
    """Every command that opens a database, with arguments for this study.

    Args:
        study: The study.
        ids: Values of ``model_id``, ``trial_id``, ``handle`` and the like.
        folder: Where commands read and write files; it holds ``handed-in`` and ``rows.csv``.
        is_first: Whether commands are wanted, too, that are not about one study.
    """
    files = {"path": "handed-in", "program": "handed-in", "inputs": "rows.csv", "to": "out.npz", "target": "out"}
    given = {
        **{name: str(value) for name, value in ids.items()},
        **{name: str(folder / file) for name, file in {**files, "file": "file", "artifacts": "none"}.items()},
        **{"study": study, "name": study, "reason": "because", "why": "because", "labeler": "ann", "message": "mine"},
        **{"hashes": "0" * 64, "source": "csv:none.csv", "format": "constant", "timeout": "0", "tenant": "lab"},
    }
    for words, command in commands():
        name = " ".join(words)
        parameters = {p.name: p for p in command.params}
        is_of_study = name in ("study show", "study set") or {"study", "trial_id", "handle"} & set(parameters)
        if "database" not in parameters or name in UNRUN or not (is_of_study or is_first):
            continue
        given["request_key"] = f"cli/{name}/{study}"
        arguments = list(_arguments(parameters, given))
        if None not in arguments:  # test_observable_complete.py names a command without a value
            yield name, [*words, *MORE.get(name, []), *map(str, arguments)]


OPTIONAL = ("timeout", "request_key", "model_id", "path")
"""Parameters that are given where a command has them."""


def _arguments(parameters: dict[Any, click.Parameter], given: dict[str, str]) -> Iterator[str | None]:
    for parameter in parameters.values():
        if parameter.name == "wait":
            yield from ["--no-wait"] if getattr(parameter, "is_flag", False) else ["--wait", "0"]
        elif parameter.name == "as_json":
            yield "--json"
        elif parameter.required or parameter.name in OPTIONAL:
            value = given.get(str(parameter.name))
            yield from (value,) if parameter.param_type_name == "argument" else (parameter.opts[0], value)


def command_sight(lab: Any, name: str, line: list[str], where: str, folder: Path) -> Sight:
    """One command with the worker's address: exit status, both outputs, and the file that it wrote."""
    line = [lab.artifacts.root.as_posix() if word == str(folder / "none") else word for word in line]
    (folder / "file").unlink(missing_ok=True)
    (folder / "file").write_text("example,label\nnew 1,yes\n")
    before = (folder / "file").read_bytes()
    from easeml_core.cli.app import cli

    result = CliRunner().invoke(cli, ["--by", "dev", *line, "--database", lab.url("easeml_worker")])
    after = (folder / "file").read_bytes() if (folder / "file").exists() else b""
    written = "" if after == before else _members(folder / "file")
    shown = result.exit_code, _neutral(lab, result.stdout), _neutral(lab, result.stderr), written
    return Sight(Kind.COMMAND, name, where, shown)


def _members(path: Path) -> str:
    """Content of a file; of an archive each member's."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes().hex()
    with zipfile.ZipFile(path) as archive:
        return repr({name: archive.read(name) for name in sorted(archive.namelist())})


# -- events -----------------------------------------------------------------------------------------------------------


def event_sights(lab: Any, studies: Iterable[str], requests: Iterable[int], trials: Iterable[int]) -> list[Sight]:
    """What triggers, sensors and watchers find, and the news since the beginning."""
    from easeml_airflow.triggers.questions import QUESTIONS
    from easeml_core.services import events

    subjects = {"answer": list(map(str, requests)), "trial": list(map(str, trials))}
    found = [
        Sight(Kind.EVENT, f"question {name}", subject, _looked(lambda q=question, s=subject: q.look(lab.worker, s, 0)))
        for name, question in QUESTIONS.items()
        for subject in subjects.get(name, list(studies))
    ]
    for trigger in watchers():
        found.append(Sight(Kind.EVENT, f"trigger {trigger.__name__}", "", repr(trigger.waiting(lab.worker, None))))
    seen = events.look(lab.worker, {"since": EPOCH, "told": {}}, limit=10_000)
    for kind in events.EventKind:
        told = [event for event in seen.events if event["kind"] == kind]
        found.append(Sight(Kind.EVENT, f"news {kind}", "", repr(told)))
    return found


def _looked(look: Callable[[], Any]) -> str:
    try:
        return repr(look())
    except Exception as error:
        return repr(error)
