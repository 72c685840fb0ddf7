"""What a developer observes of an installation: the database as the role easeml_worker, pages, commands, notifications.

Each function gives ``Sight``s: one item of the alphabet, where it was looked at, and what was there. Two installations
are compared sight by sight. Names of databases and folders are replaced, and times by their rank among all times.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import signal
import zipfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import psycopg2
import pytest
from alphabet import Basis, Kind, Letter, letter_of
from click.testing import CliRunner
from page_client import Client, Seat, SeatedClient
from sqlalchemy import text
from surfaces import RELATIONS, commands, options_of, parameters_of, routes_of, watchers
from undriven import UNDRIVEN

from easeml_airflow.web import app as web
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.store import database as channels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from neutral import Neutral

CHANNELS = [name for name in vars(channels) if name.endswith("CHANNEL")]  # anybody can listen to these

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


_ANY_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?|\d\d:\d\d:\d\d UTC")


def _shown(sight: Sight | None, *, without_times: bool) -> Any:
    if sight is None:
        return "nothing"
    return _ANY_TIME.sub("TIME", repr(sight.value)) if without_times else sight.value


def _unlike(ours: Any, theirs: Any, around: int = 60) -> str:
    """The first place where two values differ, with the first sentences of pages."""
    a, b = repr(ours), repr(theirs)
    place = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    said = ((one[max(0, place - around) :][: 2 * around], re.findall("<p[^>]*>([^<]+)", one)[:2]) for one in (a, b))
    return " against ".join(f"...{part}... {sentences or ''}".rstrip() for part, sentences in said)


# -- the database -----------------------------------------------------------------------------------------------------

_IS_TIME = """
SELECT table_schema || '.' || table_name, column_name FROM information_schema.columns
WHERE data_type = 'timestamp with time zone'
"""


def age_offers(lab: Any) -> None:
    """Make every offer older than the minute within which it is not written again.

    Called before the same acts in every installation: which of them write follows from the acts, not from their pace.
    """
    lab.as_superuser("UPDATE work.offers SET asked_at = asked_at - interval '1 hour'")


def database_sights(lab: Any, neutral: Neutral, *, catalogue: bool = True) -> list[Sight]:
    """Every row of every table that a worker may read, and its place; with the whole catalogue, if asked for."""
    with lab.worker.begin() as tx:
        relations = [(schema, name) for schema, name in tx.execute(text(RELATIONS))]
        times = {(table, column) for table, column in tx.execute(text(_IS_TIME))}
        ours = [f"{schema}.{name}" for schema, name in relations if schema not in _CATALOGUES]
        content = {table: _content(tx, table) for table in ours}
        for row in content["work.heartbeats"]:  # of the process's clock alone: an interval of it, and a lease from then
            row |= {"beat_at": None, "until": None}
        found = [s for r in relations if r[0] in _CATALOGUES for s in _catalogue(lab, tx, *r)] if catalogue else []
        found += [*_functions(tx), _sizes(lab)] if catalogue else []
    ranks = _ranks(v for table, rows in content.items() for row in rows for c, v in row.items() if (table, c) in times)
    writers = _ranks(row["xmin"] for rows in content.values() for row in rows)
    for table, rows in content.items():
        places = [(row.pop("ctid"), writers.get(row.pop("xmin"))) for row in rows]
        found.append(Sight(Kind.CATALOGUE, "ctid and xmin", table, places))
        found.append(Sight(Kind.TABLE, table, "", len(rows)))
        shown = [{c: ranks.get(v) if (table, c) in times else v for c, v in row.items()} for row in rows]
        if (column := _TRANSACTIONS.get(table)) is not None:
            shown = [row | {column: writers.get(int(str(row[column] or 0)) % 2**32)} for row in shown]
        shown = [{c: _neutral_value(neutral, f"{table}.{c}", v) for c, v in row.items()} for row in shown]
        shown.sort(key=lambda row: _public(table, row))
        found += [Sight(Kind.COLUMN, f"{table}.{c}", "", [row[c] for row in shown]) for c in (rows[0] if rows else ())]
    return found


_CATALOGUES = ("pg_catalog", "information_schema")
_TRANSACTIONS = {"work.catalogue": "changed_by", "work.catalogue_changes": "xact", "work.trials": "ended_xact"}
"""Columns with the number of a transaction, which follows from the clock: its place among the writing ones counts."""


def _neutral_value(neutral: Neutral, column: str, value: Any) -> Any:
    """A value of a column; what holds hashes over secret nonces, by the letter of its column, by name.

    The summary that is kept of a study has the times of other columns, which are compared by their places there.
    """
    if column in ("work.assessments.facts", "work.assessments.needs"):
        return neutral.text(json.dumps(value, sort_keys=True))
    if letter_of(Kind.COLUMN, column) is not Letter.EVIDENCE:
        return value
    return neutral.text(value) if isinstance(value, str) else neutral.envelope(value)


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
        cursor.execute(f"UPDATE work.heartbeats SET beat_at = '{EPOCH}', until = '{EPOCH}'")
        cursor.execute(f"{_IS_TIME} AND table_schema = 'work' AND table_name <> 'heartbeats'")
        columns = cursor.fetchall()
        every = " UNION ".join(f"SELECT {column} AS t FROM {table}" for table, column in columns)
        ranked = "SELECT t, row_number() OVER (ORDER BY t) AS n"
        cursor.execute(f"CREATE TABLE public.ranks AS {ranked} FROM ({every}) x WHERE t IS NOT NULL")
        for table, column in columns:
            frozen = f"timestamptz '{EPOCH}' + n * interval '1 second'"
            cursor.execute(f"UPDATE {table} SET {column} = {frozen} FROM public.ranks WHERE t = {column}")
        cursor.execute("DROP TABLE public.ranks")
        cursor.execute("INSERT INTO work.study_changes SELECT id FROM work.studies")  # triggers heard of none of this
        opened.commit()


@contextlib.contextmanager
def listening(lab: Any) -> Iterator[list[Sight]]:
    """What a worker hears on every channel whose name stands in the source code, in order."""
    address = lab.url("easeml_worker").replace("postgresql+psycopg2", "postgresql")
    heard: list[Sight] = []
    with contextlib.closing(psycopg2.connect(address)) as listener:
        listener.autocommit = True
        with listener.cursor() as cursor:
            for name in CHANNELS:
                cursor.execute(f"LISTEN {getattr(channels, name)}")
            yield heard
            cursor.execute("SELECT 1")
        names = {getattr(channels, name): name for name in CHANNELS}
        said = [(f"{names[n.channel]} {n.payload.partition(':')[0]}", n.payload) for n in listener.notifies]
    heard.extend(
        Sight(Kind.TOPIC, name, "", [p for n, p in said if n == name]) for name in dict.fromkeys(n for n, _ in said)
    )
    heard.append(Sight(Kind.TOPIC, "CHANNEL answer", "order of all", [payload for _, payload in said]))


# -- pages ------------------------------------------------------------------------------------------------------------


VIEWERS = {
    "developer": Viewer("dev", frozenset(), lambda _study, _tenant, *, write: True),
    "reader": Viewer("ann", frozenset(), lambda _study, _tenant, *, write: not write),
    "operator": Viewer("ops", frozenset({Role.OPERATOR}), lambda _study, _tenant, *, write: True),
    "stranger": Viewer("eve", frozenset(), lambda _study, _tenant, *, write: False),
}
"""People who are no referee and no labeler: who may change studies, only see them, run the installation, or nothing."""


def clients_of(lab: Any) -> dict[str, Client]:
    """The web application of a server that holds the referee's address, too, as each of ``VIEWERS`` sees it."""
    seat = Seat(VIEWERS["developer"])
    site = Site(lambda: lab.worker, lambda: lab.artifacts, lambda: lab.referee, lambda: seat.viewer)
    app = web.create_app(site, require_login=lambda: None, rights=lambda *, write: lambda: seat.viewer.name)
    return {name: SeatedClient(app, seat, viewer) for name, viewer in VIEWERS.items()}


ENDLESS = "GET /events"
"""Streams notifications (``listening`` compares these) and does not end."""

QUERY = {"show": "all", "q": "a", "sort": "name", "window": "day", "of": "train", "study": "full", "edges": "0.1"}
QUERY |= {"who": "dev", "since": "2020-01-01", "needs": "all", "dag": "dag", "run": "run", "task": "GateOperator-full"}
FORM = {
    **{name: "because" for name in ("why", "reason", "message", "who", "say")},
    **{
        name: "1"
        for name in ("number", "model", "model_id", "test_set", "trial_id", "request", "weight", "at", "place")
    },
    **{name: "1" for name in ("max_parallel", "quota_hours", "priority", "budget_hours", "gate", "meter", "add", "to")},
    **{name: "1" for name in ("gate_request", "alert_id", "test_set_id", "examples", "steps")},
    **{name: "0.9" for name in ("target_quality", "reliability", "power")},
    **{"adaptivity": "full", "mode": "fp-free", "condition": "n > 0.1 +/- 0.4", "back": "gate", "row": "0" * 64},
    **{"parameters": "{}", "devices": "", "deadline": "2030-01-01T00:00"},
    **{
        "key": "form",
        "request_key": "form",
        "name": "next",
        "purpose": "gate",
        "kind": "decision_tree",
        "label": "yes",
    },
}


@dataclass(frozen=True)
class Asked:
    """One request of a page.

    Attributes:
        method: Of HTTP.
        route: As the application has it.
        path: Where it leads.
        names: Parameters of the query that are given.
    """

    method: str
    route: str
    path: str
    names: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Path and names of parameters."""
        return f"{self.path}?{'&'.join(self.names)}" if self.names else self.path


def requests_of(client: Client, bindings: dict[str, list[str]], methods: Iterable[str]) -> Iterator[Asked]:
    """Every route with every binding of its path: without parameters, with each of them alone, and with all.

    Args:
        client: Of the application.
        bindings: Values of each parameter of paths.
        methods: Of which methods.
    """
    for route in routes_of(client.app):
        names = re.findall(r"{(\w+)}", route.path)
        for method in sorted(route.methods & set(methods)):
            for values in itertools.product(*(bindings[name] for name in names)):
                path = route.path.format(**dict(zip(names, values, strict=True)))
                more = parameters_of(route) if method == "GET" else []
                if f"{method} {route.path}" != ENDLESS:
                    yield Asked(method, route.path, path)
                    yield from (Asked(method, route.path, path, (name,)) for name in more)
                    yield from [Asked(method, route.path, path, tuple(more))] if len(more) > 1 else []


def page_sight(neutral: Neutral, client: Client, asked: Asked, ids: dict[str, int], viewer: str) -> Sight:
    """One request and its answer: status, every header, and content."""
    headers = {"sec-fetch-site": "same-origin"}
    if asked.method == "GET":
        given = {name: QUERY.get(name, str(ids.get(name, 1))) for name in asked.names}
        answer = client.get(asked.path, params=given, headers=headers)
    elif asked.path.startswith("/api/"):
        answer = client.post(asked.path, json={"request_key": "api"}, headers=headers)
    else:
        answer = client.post(asked.path, data=FORM, headers=headers)
    told = [(name, neutral.text(value)) for name, value in answer.headers.multi_items() if name != "content-length"]
    shown = answer.status_code, told, neutral.text(answer.text)
    where = asked.where if viewer == "developer" else f"{asked.where} as {viewer}"
    return Sight(Kind.ROUTE, f"{asked.method} {asked.route}", where, shown)


def stream_sight(neutral: Neutral, client: Client, viewer: str) -> Sight:
    """The stream of news as it begins and ends; what wakes it in between, ``listening`` hears."""
    from easeml_airflow.web import live

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "LIFE_SECONDS", -1.0)
        answer = client.get("/events", params={"study": "full"})
    shown = answer.status_code, answer.headers.multi_items(), neutral.text(answer.text)
    return Sight(Kind.ROUTE, ENDLESS, viewer, shown)


# -- commands ---------------------------------------------------------------------------------------------------------

MORE = {
    "backtest": ["--repeats", "1", "--served", "2", "--processes", "1"],
    "device run": ["--until", "1e-9", "--poll", "0.1", "--max-trials", "1", "--study", "full"],
    "policy set": ["--policy", "roundrobin"],
}
"""What keeps a command short, or gives it something to do."""

ASKING = ("device run",)
"""Commands that ask for trials, and so write an offer."""


@dataclass(frozen=True)
class Line:
    """One command as it is entered.

    Attributes:
        name: The command, as the alphabet names it.
        words: All words of the line.
        option: The option that it is about; None where it has only what it needs.
        where: What is said of the line beside the command.
    """

    name: str
    words: tuple[str, ...]
    option: str | None
    where: str


def command_lines(
    study: str, ids: dict[str, int], folder: Path, *, is_first: bool, options: bool = False
) -> Iterator[Line]:
    """Every command that opens a database, with arguments for this study: as JSON, and for the first study as text.

    Args:
        study: The study.
        ids: Values of ``model_id``, ``trial_id``, ``handle`` and the like.
        folder: Where commands read and write files; it holds ``handed-in`` and ``rows.csv``.
        is_first: Whether commands are wanted, too, that are not about one study, and lines without ``--json``.
        options: Whether lines are wanted instead with each option of a command that it can do without, one at a time.
            What only a referee may do is left out: a worker is refused whatever the options are.
    """
    for words, command in commands():
        name = " ".join(words)
        parameters = {str(p.name): p for p in command.params}
        is_of_study = name in ("study show", "study set") or {"study", "trial_id", "handle"} & set(parameters)
        if "database" not in parameters or name in NOT_RUN or not (is_of_study or is_first):
            continue
        given = _given(study, ids, folder) | {"request_key": f"cli/{name}/{study}"}
        needed = [*words, *MORE.get(name, []), *_arguments(parameters, given)]
        if not options:
            yield Line(name, (*needed, "--json"), None, study)
            if is_first:
                yield Line(name, tuple(needed), None, f"{study} as text")
        elif letter_of(Kind.COMMAND, name) is not Letter.SEALED:
            for option in options_of(command):
                shown = str(option.name) if option.param_type_name == "argument" else option.opts[0]
                given["request_key"] = f"cli/{name}/{study}/{shown}"
                needed = [*words, *MORE.get(name, []), *_arguments(parameters, given, without=str(option.name))]
                yield Line(name, (*needed, *_option(option, given)), shown, f"{study} {shown}")


NOT_RUN = frozenset(item.name for item in UNDRIVEN if item.kind is Kind.COMMAND)


def _given(study: str, ids: dict[str, int], folder: Path) -> dict[str, str]:
    """Values by the name of the parameter."""
    files = {"path": "handed-in", "program": "handed-in", "inputs": "rows.csv", "to": "out.npz", "target": "out"}
    files |= {
        "file": "file",
        "artifacts": "none",
        "output": "out.csv",
        "plot": "out.png",
        "history": "rows.csv",
        "labels": "rows-labels.csv",
    }
    files |= {"out": "out.json", "keys": "keys-given", "folder": "out-folder"}
    return {
        **{name: str(folder / file) for name, file in files.items()},
        **{"study": study, "name": study, "reason": "because", "why": "because", "labeler": "ann", "message": "mine"},
        **{"hashes": "0" * 64, "source": "csv:none.csv", "format": "constant", "timeout": "0", "tenant": "lab"},
        **{"only": "gate", "who": "dev", "since": "2020-01-01", "policy": "roundrobin", "condition": "n > 0.1 +/- 0.4"},
        **{"studies": study, "place": "elsewhere", "request": "1", "wait": "0", "poll": "0.1"},
        **{"kind": "decision_tree", "parameters": '{"max_depth": 1}', "device": "cpu", "slot": "cpu", "limit": "2"},
        "until": "1e-9",
        **{name: str(value) for name, value in ids.items()},
    }


OPTIONAL = ("timeout", "request_key", "model_id", "path")
"""Parameters that are given where a command has them."""


def _arguments(parameters: dict[str, click.Parameter], given: dict[str, str], without: str = "") -> Iterator[str]:
    """What a command needs, so that it does not wait either, but for one option."""
    for name, parameter in parameters.items():
        if name != without and (parameter.required or name in (*OPTIONAL, "wait")):
            yield from _option(parameter, given, is_off=name == "wait")


def _option(parameter: click.Parameter, given: dict[str, str], *, is_off: bool = False) -> list[str]:
    """A parameter with a value that suits it: by its name, else by its type."""
    if getattr(parameter, "is_flag", False):
        return [f"--no-{str(parameter.name).replace('_', '-')}" if is_off else parameter.opts[0]]
    kind = parameter.type
    by_type = str(kind.choices[-1]) if isinstance(kind, click.Choice) else "1"
    by_type = "0.5" if isinstance(kind, click.types.FloatParamType) else by_type
    value = given.get(str(parameter.name), by_type)
    if isinstance(kind, click.Choice) and value not in kind.choices:
        value = by_type
    return [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]


def command_sight(lab: Any, neutral: Neutral, line: Line, folder: Path) -> Sight:
    """One command with the worker's address: exit status, both outputs, and the file that it wrote."""
    words = [lab.artifacts.root.as_posix() if word == str(folder / "none") else word for word in line.words]
    for file in folder.glob("out*"):
        file.unlink() if file.is_file() else shutil.rmtree(file)
    (folder / "file").unlink(missing_ok=True)
    (folder / "file").write_text("example,label\nnew 1,yes\n")
    before = (folder / "file").read_bytes()
    from easeml_core.cli.app import cli

    if line.name in ASKING:
        age_offers(lab)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        asked = ["--by", "dev", *words, "--database", lab.url("easeml_worker")]
        result = CliRunner(env={"COLUMNS": "1000"}).invoke(cli, asked)  # a table wraps no time
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    after = (folder / "file").read_bytes() if (folder / "file").exists() else b""
    files = [file for file in sorted(folder.glob("out*")) if file.is_file()]
    files += [folder / "file"] if after and after != before else []
    written = [(file.name, neutral.text(_members(file))) for file in files]
    broken = result.exception is not None and not isinstance(result.exception, SystemExit)
    status = -1 if broken else result.exit_code
    shown = status, neutral.text(unpadded(result.stdout)), neutral.text(unpadded(result.stderr)), written
    return Sight(Kind.COMMAND, line.name, line.where, shown)


def unpadded(shown: str) -> str:
    """Without the padding of a table, which is as wide as its widest cell: a latency, or the room on a disk."""
    return re.sub(r"[ ─]{2,}", "  ", shown)


def is_usage_error(sight: Sight) -> bool:
    """Whether the parser refused a command, so that the command itself did not run."""
    return sight.kind is Kind.COMMAND and sight.value[0] == 2 and "Usage: " in sight.value[2]


def _members(path: Path) -> str:
    """Content of a file; of an archive each member's."""
    if not zipfile.is_zipfile(path):
        return repr(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        return repr({name: archive.read(name) for name in sorted(archive.namelist())})


# -- events -----------------------------------------------------------------------------------------------------------


def event_sights(
    lab: Any, neutral: Neutral, studies: Iterable[str], requests: Iterable[int], trials: Iterable[int]
) -> list[Sight]:
    """What triggers, sensors and watchers find, and the news since the beginning."""
    from easeml_airflow.triggers.questions import QUESTIONS
    from easeml_core.services.operations import notifications
    from easeml_core.services.referee.release import AnswerWatch

    subjects = {"answer": list(map(str, requests)), "trial": list(map(str, trials))}
    found = [
        Sight(
            Kind.EVENT,
            f"question {name}",
            subject,
            neutral.text(_looked(partial(question.look, lab.worker, subject, 0))),
        )
        for name, question in QUESTIONS.items()
        for subject in subjects.get(name, list(studies))
    ]
    watch = AnswerWatch(lab.worker, list(requests), quiet_seconds=0)
    found.append(Sight(Kind.EVENT, "trigger AnswersTrigger", "", neutral.text(_looked(watch))))
    for trigger in watchers():
        found.append(
            Sight(Kind.EVENT, f"trigger {trigger.__name__}", "", neutral.text(repr(trigger.waiting(lab.worker, None))))
        )
    seen = notifications.look(lab.worker, {"since": EPOCH, "told": {}}, limit=10_000)
    for kind in notifications.EventKind:
        told = [event for event in seen.events if event.kind == kind]
        found.append(Sight(Kind.EVENT, f"news {kind}", "", neutral.text(repr(told))))
    return found


def _looked(look: Callable[[], Any]) -> str:
    try:
        return repr(look())
    except Exception as error:
        return repr(error)
