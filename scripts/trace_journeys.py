"""Trace four journeys through the product: a trial, a commit, a meter reading, and the page of a study.

Each runs on an embedded database with the real code, once to import and to cache what it needs, and then traced. The
table shows how many modules of ours run in it, how often one of them calls another one, and how many SQL statements
and transactions it sends. Child processes, which train and predict, are not traced. Where a journey waits for a child
it polls, so its calls and statements vary a little with the load of the machine; its modules and pairs do not.

Without a revision the working tree is measured: ``scripts/trace_journeys.py 75f753e .`` compares a commit with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dis
import inspect
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from measuring.source_tree import PACKAGES, WORKING_TREE, EntryPoints, import_roots, source_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType


_SUSPENDED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_PREFIXES = tuple(f"{package}." for package in PACKAGES)


@dataclass(frozen=True)
class Statement:
    """One SQL statement.

    Attributes:
        module: The module of ours that sent it.
        caller: The nearest module outside ``easeml_core.store`` on the stack; the same as ``module`` where there is
            none inside.
        transaction: Number of its transaction in the trace, from 1.
        sql: Its text, on one line.
    """

    module: str
    caller: str
    transaction: int
    sql: str


@dataclass
class Trace:
    """What ran.

    Attributes:
        modules: Calls of functions by the module that defines them.
        calls: Calls from one module of ours into another, by (caller, called); code of libraries in between, such as
            context managers, is passed over.
        statements: SQL in the order in which it was sent.
        transactions: How many transactions began.
    """

    modules: Counter[str] = field(default_factory=Counter)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    statements: list[Statement] = field(default_factory=list)
    transactions: int = 0


@contextlib.contextmanager
def tracing() -> Iterator[Trace]:
    """Trace this thread and the threads that it starts; child processes are not traced."""
    from sqlalchemy import Engine, event

    trace = Trace()
    numbers: dict[int, int] = {}

    def profile(frame: FrameType, kind: str, _: Any) -> None:
        if kind == "call":
            _note_call(trace, frame)

    def begin(connection: Any) -> None:
        trace.transactions += 1
        numbers[id(connection)] = trace.transactions

    def execute(connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        names = list(_our_modules(sys._getframe()))
        outer = next((name for name in names if not name.startswith("easeml_core.store.")), names[0])
        number = numbers.get(id(connection), 0)
        trace.statements.append(Statement(names[0], outer, number, " ".join(sql.split())))

    listeners: dict[str, Callable[..., None]] = {"begin": begin, "before_cursor_execute": execute}
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)


def _note_call(trace: Trace, frame: FrameType) -> None:
    module = _module(frame)
    if module is None or frame.f_code.co_name == "<module>" or _is_resumed(frame):
        return
    trace.modules[module] += 1
    caller = next(_our_modules(frame.f_back), None)
    if caller is not None and caller != module:
        trace.calls[caller, module] += 1


def _is_resumed(frame: FrameType) -> bool:
    """Whether a generator or coroutine goes on where it was suspended; that is no call."""
    return bool(frame.f_code.co_flags & _SUSPENDED) and frame.f_lasti > _beginning(frame.f_code)


@cache
def _beginning(code: CodeType) -> int:
    """Offset of the instruction with which the body of a function begins."""
    return next(one.offset for one in dis.get_instructions(code) if one.opname == "RESUME")


def _module(frame: FrameType) -> str | None:
    """Name of the module whose code runs; None for libraries, and for methods that dataclasses generate."""
    name: str = frame.f_globals.get("__name__", "")
    if frame.f_code.co_filename.startswith("<"):
        return None
    return name if name in PACKAGES or name.startswith(_PREFIXES) else None


def _our_modules(frame: FrameType | None) -> Iterator[str]:
    """The modules of ours on the stack, innermost first."""
    while frame is not None:
        name = _module(frame)
        if name is not None:
            yield name
        frame = frame.f_back


SECRET = "5eed5eed-5eed-4eed-8eed-5eed5eed5e16"  # noqa: S105 - of traces alone
"""Secret of the installation: the same rows are sealed, and the same runs are missing, in every trace."""

GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "estimator": "paper"}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4}
STUDIES = {"warm": "sklearn:digits", "traced": "sklearn:breast_cancer"}
ARTIFACT = """
SELECT artifact FROM work.models m JOIN work.studies s ON s.id = m.study_id WHERE s.name = %s AND m.format = 'skops'
"""
CANDIDATES = [{"name": kind, "kind": kind} for kind in ("decision_tree", "nearest_centroid", "gaussian_naive_bayes")]


@dataclass(frozen=True)
class Journey:
    """What one journey did.

    Attributes:
        name: ``trial``, ``commit``, ``reading`` or ``study page``.
        modules: Calls of functions by module.
        calls: Calls between modules, as ``caller -> called``, to their number.
        statements: SQL in order.
        transactions: How many transactions began.
    """

    name: str
    modules: dict[str, int]
    calls: dict[str, int]
    statements: list[Statement]
    transactions: int

    @classmethod
    def of(cls, name: str, trace: Trace) -> Journey:
        """Return the record of a trace, with the largest numbers first."""
        calls = {f"{caller} -> {called}": n for (caller, called), n in trace.calls.most_common()}
        return cls(name, dict(trace.modules.most_common()), calls, trace.statements, trace.transactions)

    @property
    def figures(self) -> dict[str, int]:
        """Return the figures of the table."""
        return {
            "modules": len(self.modules),
            "pairs of modules": len(self.calls),
            "calls between modules": sum(self.calls.values()),
            "statements": len(self.statements),
            "transactions": self.transactions,
        }


class Installation:
    """An installation on a throwaway server, and the journeys on it.

    Every entry point of the product that this script needs is named here and in ``measured``.
    """

    def __init__(self, server: Any, points: EntryPoints, folder: Path) -> None:
        self.server, self.get = server, points.get
        store = self.get("Store")
        self.worker, self.referee = (store(server.url(f"easeml_{role}", "easeml")) for role in ("worker", "referee"))
        self.artifacts = self.get("ArtifactStore")(folder / "artifacts")
        self.judge = self.get("Referee")(self.referee, self.artifacts)  # one process answers all requests
        self.trained: dict[str, str] = {}

    def register(self, study: str, source: str) -> None:
        """Register a study and let the referee seal its sets."""
        given: dict[str, Any] = {"tenant": "lab", "source": source, "gate": GATE, "meter": METER}
        given |= {"candidates": CANDIDATES, "request_key": f"register/{study}"}
        filed = self.get("register_study")(self.worker, study=study, **given)
        self.answer(filed["request_id"] if isinstance(filed, dict) else filed.request_id)

    def answer(self, filed: Any) -> Any:
        """Let the referee answer what waits; the answer to the request."""
        while self.judge.answer_one() is not None:
            pass
        request_id = filed if isinstance(filed, int) else filed["request_id"]
        answer = self.get("answer_of")(self.worker, request_id)
        if answer is None or (answer["refused"] if isinstance(answer, dict) else answer.refused):
            message = f"request {request_id} was not answered: {answer}"
            raise RuntimeError(message)
        return answer

    def trial(self, study: str) -> None:
        """Suggest, claim, train and observe one trial."""
        asked = {"count": 1, "studies_only": [study]}
        suggested = self.get("suggest_trials")(self.worker, request_key=f"suggest/{study}", **asked)
        (trial,) = suggested.trials
        done = self.get("run_trial")(self.worker, self.artifacts, trial_id=trial.trial_id, request_key=f"train/{study}")
        if done.state != "SUCCEEDED":
            raise RuntimeError(str(done))

    def find_trained(self, study: str) -> None:
        """Note the file of the trial's model, which a person would have at hand."""
        with closing(self.server.connect(database="easeml")) as opened, opened.cursor() as cursor:
            cursor.execute(ARTIFACT, [study])
            ((self.trained[study],),) = cursor.fetchall()

    def commit(self, study: str) -> None:
        """Hand in the model of the trial and let the gate judge it; no model has run on the sealed set before."""
        given = {
            "study": study,
            "path": next(self.artifacts.root.rglob(self.trained[study].removeprefix("sha256:"))),
            "format": "skops",
            "message": "commit",
        }
        given |= {"request_key": f"submit/{study}"}
        handed = self.get("submit_model")(self.worker, self.artifacts, **given)
        asked = {
            "study": study,
            "model_id": handed["model_id"] if isinstance(handed, dict) else handed.model_id,
            "request_key": f"gate/{study}",
        }
        self.answer(self.get("file_gate_request")(self.worker, **asked))

    def reading(self, study: str) -> None:
        """Ask the meter about the study's best model."""
        self.answer(self.get("file_meter_request")(self.worker, study=study, request_key=f"meter/{study}"))

    def page(self) -> Callable[[str], None]:
        """Return a function that loads the page of a study as a developer who may change it."""
        import httpx

        viewer = self.get("Viewer")("dev", frozenset(), lambda _study, _tenant, *, write: True)
        site = self.get("Site")(lambda: self.worker, lambda: self.artifacts, lambda: self.referee, lambda: viewer)
        app = self.get("create_app", "easeml_airflow.web")(site, require_login=lambda: None)

        async def load(study: str) -> None:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
                (await client.get(f"/studies/{study}")).raise_for_status()

        return lambda study: asyncio.run(load(study))


def trace_tree(tree: Path) -> list[Journey]:
    """Trace the journeys with the packages of a tree, which must be those that ``import`` finds."""
    points = EntryPoints.of_product(tree)
    with tempfile.TemporaryDirectory() as name, points.get("throwaway_server")() as server:
        os.environ.setdefault("AIRFLOW_HOME", name)  # Airflow makes one where it is imported
        server.ensure_installation()
        with closing(points.get("Store")(server.url("easeml_owner", "easeml"))) as owner:
            points.get("upgrade", "easeml_core.store.schema")(owner)
        with closing(server.connect(database="easeml")) as opened, opened.cursor() as cursor:
            cursor.execute("UPDATE sealed.installation SET secret = %s", [SECRET])
            opened.commit()
        installation = Installation(server, points, Path(name))
        journeys = {
            "trial": installation.trial,
            "commit": installation.commit,
            "reading": installation.reading,
            "study page": installation.page(),
        }
        for study, source in STUDIES.items():
            installation.register(study, source)
        for name, run in journeys.items():
            if name == "commit":
                installation.find_trained("warm")
            run("warm")
        found = []
        for name, run in journeys.items():
            if name == "commit":
                installation.find_trained("traced")
            if name == "study page":
                run("traced")  # a page is loaded often: what the server keeps of a study is there
            found.append(_traced(name, run))
        return found


def _traced(name: str, run: Callable[[str], None]) -> Journey:
    with tracing() as trace:
        run("traced")
    return Journey.of(name, trace)


def trace(revision: str) -> list[Journey]:
    """Trace the journeys of a revision, in a process that imports its packages."""
    with source_tree(revision) as tree, tempfile.NamedTemporaryFile() as written:
        command = [sys.executable, __file__, "--tree", str(tree), "--out", written.name]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(import_roots(tree))}
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment)  # Airflow logs to standard output
        found = json.load(written)
    return [Journey(**{**one, "statements": [Statement(**sent) for sent in one["statements"]]}) for one in found]


def table(traced: dict[str, list[Journey]]) -> str:
    """Return the figures as text, one column for each revision."""
    columns = {
        revision: {(one.name, figure): n for one in journeys for figure, n in one.figures.items()}
        for revision, journeys in traced.items()
    }
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    width = max(len(f"{name}: {figure}") for name, figure in rows)
    lines = [" " * width + "".join(f"{revision:>12}" for revision in columns)]
    lines += [
        f"{f'{row[0]}: {row[1]}':<{width}}" + "".join(f"{column.get(row, ''):>12}" for column in columns.values())
        for row in rows
    ]
    return "\n".join(lines)


def details(journeys: list[Journey], *, modules: bool, statements: bool) -> str:
    """Return the modules with their calls, and the statements with the modules that send them, as text."""
    lines: list[str] = []
    for one in journeys:
        if modules:
            lines += ["", f"{one.name}: calls of functions by module"]
            lines += [f"{n:>6}  {name}" for name, n in one.modules.items()]
            lines += ["", f"{one.name}: calls between modules"]
            lines += [f"{n:>6}  {pair}" for pair, n in one.calls.items()]
        if statements:
            repeated = Counter(sent.sql for sent in one.statements)
            lines += ["", f"{one.name}: statements (transaction, how often in all, module <- caller, SQL)"]
            lines += [
                f"{sent.transaction:>4} {repeated[sent.sql]:>3}x  {sent.module} <- {sent.caller}  {sent.sql[:160]}"
                for sent in one.statements
            ]
    return "\n".join(lines)


@click.command(help=__doc__)
@click.argument("revisions", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with modules, calls and statements.")
@click.option("--modules", is_flag=True, help="List the modules of each journey, and which calls which.")
@click.option("--statements", is_flag=True, help="List the statements of each journey in order.")
@click.option("--tree", type=click.Path(path_type=Path, exists=True), hidden=True)
@click.option("--out", type=click.Path(path_type=Path), hidden=True)
def main(
    revisions: tuple[str, ...],
    *,
    as_json: bool,
    modules: bool,
    statements: bool,
    tree: Path | None,
    out: Path | None,
) -> None:
    """Print what the journeys did."""
    if tree is not None and out is not None:
        out.write_text(json.dumps([asdict(one) for one in trace_tree(tree)]), encoding="utf-8")
        return
    traced = {revision: trace(revision) for revision in revisions or (WORKING_TREE,)}
    if as_json:
        found = {
            revision: [asdict(one) | {"figures": one.figures} for one in journeys]
            for revision, journeys in traced.items()
        }
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(table(traced))
    for revision, journeys in traced.items():
        if modules or statements:
            click.echo(f"\n{revision}" + details(journeys, modules=modules, statements=statements))


if __name__ == "__main__":
    main()
