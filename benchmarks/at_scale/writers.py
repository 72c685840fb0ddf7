"""Writers at once on a large installation: how long a suggestion, claim, heartbeat and result take, and what waits.

    python benchmarks/at_scale/writers.py --writers 64 --studies 1000 --trials 100 --seconds 120

A server that waits for its disk is filled with finished trials. Then writers in a few processes, each with one
scheduler, ask for a trial, claim it, send heartbeats and report a result, one trial after the other, without training
anything; meanwhile pages are asked for. Milliseconds by the clock, of the calls alone, after every writer has made its
first suggestion. Sampled: what waits for a lock, and for how long. In the end: bytes and dead rows of each table, the
share of updates that touched no index (HOT), and the checks of the database that follow injected faults.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import queue
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "faults"))

import made_up_installation
import pages
from fault_checks import NEVER

from easeml_airflow.web.server.auth import Role, Viewer
from easeml_core.errors import ConcurrentUpdateError, StoreUnavailableError, TrialStateError
from easeml_core.services.operations import doctor
from easeml_core.services.reports.assessments import assess_changes
from easeml_core.services.selection.scheduler import LiveScheduler
from easeml_core.services.trials.execution import claim, record_success
from easeml_core.settings.config import TrainingConfig
from easeml_core.store import schema
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store
from easeml_core.store.rows import rows
from easeml_core.store.server.server import Server
from easeml_core.store.tables.trials import CurvePoint
from easeml_core.training.job import TrainingResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from easeml_core.services.selection.scheduler_state import Memory

RESULTS = Path(__file__).resolve().parents[1] / "results" / "load.jsonl"
STEPS = ("suggestion", "claim", "heartbeat", "result")
LEFT = 40
"""Candidates of each study that have not run."""

SAMPLE_SECONDS = 0.1
VALIDATION_ROWS = 200
MADE_UP = (
    "seal without",
    "active study without",
    "registration and sealing",
    "without its model",
    "without a suggestion",
)
"""Parts of the names of checks that do not hold of trials and studies that were made up."""


@dataclass
class Writer:
    """One device: asks, claims, beats and reports, until the time is over.

    Attributes:
        store: Of its process; role ``easeml_worker``.
        live: The process's scheduler.
        artifacts: Where its models go.
        folder: Of its model's file.
        name: Begins its request keys.
        beats: Heartbeats of each trial.
        took: Milliseconds of each step, from ``began`` on.
        faults: Errors by kind.
    """

    store: Store
    live: LiveScheduler
    artifacts: ArtifactStore
    folder: Path
    name: str
    beats: int
    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    faults: Counter[str] = field(default_factory=Counter)

    def run(self, begin: threading.Barrier, seconds: float) -> None:
        """Work; the first trial is not counted, since the scheduler learns from all trials before it."""
        try:
            self._one(0)
        except BaseException:
            begin.abort()
            raise
        begin.wait()
        self.took.clear()
        until, number = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            number += 1
            self._one(number)

    def _one(self, number: int) -> None:
        key, rng = f"{self.name}/{number}", np.random.default_rng([number, *self.name.encode()])
        try:
            asked = self._timed("suggestion", lambda: self.live.ask(request_key=key))
            for trial in asked.trials:
                self._train(trial.trial_id, key, rng)
        except (ConcurrentUpdateError, StoreUnavailableError, TrialStateError) as error:
            self.faults[f"{type(error).__name__}: {str(error)[:80]}"] += 1

    def _train(self, trial_id: int, key: str, rng: np.random.Generator) -> None:
        lease = self._timed("claim", partial(claim, self.store, trial_id=trial_id, request_key=key))
        if lease is None:
            self.faults["no lease"] += 1
            return
        for beat in range(self.beats):
            lease.last_news = {"epoch": beat, "loss": float(rng.random())}
            lease._points.append(
                CurvePoint(beat + 1, self.beats, float(rng.random()), float(rng.random()), 0.01 * beat)
            )
            self._timed("heartbeat", lease.beat)
        model = self.folder / "model"
        model.write_text(json.dumps({"label": 0, "of": key}))
        result = TrainingResult(
            quality=float(rng.random()),
            cost_seconds=0.01,
            artifact_path=model,
            format="constant",
            validation_predictions=rng.integers(0, 2, VALIDATION_ROWS),
        )
        self._timed("result", partial(record_success, self.store, self.artifacts, lease, result))

    def _timed(self, step: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = call()
        self.took[step].append(1e3 * (time.perf_counter() - began))
        return found


class Counting(LiveScheduler):
    """Counts how often the whole state is loaded anew."""

    loads = 0

    def load(self, *given: Any) -> Memory:
        """Load."""
        self.loads += 1
        return super().load(*given)


def write(url: str, place: str, names: Sequence[str], beats: int, seconds: float, begin: Any, found: Any) -> None:
    """Be some of the writers, in a separate process."""
    with contextlib.closing(Store(url, connections=len(names) + 1)) as store, tempfile.TemporaryDirectory() as folder:
        live, artifacts, writers = Counting(store), ArtifactStore(place), []
        for name in names:
            (Path(folder) / name).mkdir()
            writers.append(Writer(store, live, artifacts, Path(folder) / name, name, beats))
        threads = [threading.Thread(target=writer.run, args=(begin, seconds)) for writer in writers]
        used = time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.put(
            (time.process_time() - used, live.loads, [(dict(writer.took), dict(writer.faults)) for writer in writers])
        )


_WAITING = """
SELECT a.pid, coalesce(extract(epoch FROM clock_timestamp() - l.waitstart), 0)::float8 AS seconds, left(a.query, 60)
FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND NOT l.granted
WHERE a.wait_event_type = 'Lock' AND a.datname = current_database()
"""


class LockWatch:
    """Samples which connections wait for a lock of another one, and how long the longest has.

    Args:
        owner: Store of the owner; it may read what others run.
    """

    def __init__(self, connection: Any) -> None:
        self._connection, self._stop = connection, threading.Event()
        self.samples, self.waiting, self.longest = 0, list[int](), 0.0
        self.queries: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> LockWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            while not self._stop.wait(SAMPLE_SECONDS):
                cursor.execute(_WAITING)
                found = cursor.fetchall()
                self.samples += 1
                self.waiting.append(len({pid for pid, *_ in found}))
                self.longest = max([self.longest, *(seconds for _, seconds, _ in found)])
                self.queries.update(" ".join(query.split()) for *_, query in found)

    def figures(self) -> dict[str, Any]:
        """Mean and largest number of waiting connections, and the longest wait that was seen, in milliseconds."""
        return {
            "waiting": round(float(np.mean(self.waiting or [0])), 2),
            "most_waiting": max(self.waiting, default=0),
            "longest_wait_ms": round(1e3 * self.longest, 1),
            "waits_of": dict(self.queries.most_common(5)),
        }


_TABLES = """
SELECT s.schemaname || '.' || s.relname AS name, pg_total_relation_size(s.relid) AS bytes, s.n_live_tup AS live,
       s.n_dead_tup AS dead, s.n_tup_ins AS inserted, s.n_tup_upd AS updated, s.n_tup_hot_upd AS hot,
       s.autovacuum_count AS vacuums
FROM pg_stat_user_tables s WHERE s.schemaname IN ('work', 'sealed')
"""


def tables(tx: Connection) -> dict[str, dict[str, Any]]:
    """Size and counts of each table."""
    return {row.name: {k: v for k, v in row._mapping.items() if k != "name"} for row in rows(tx, _TABLES)}


def growth(before: dict[str, Any], after: dict[str, Any], trials: int) -> list[dict[str, Any]]:
    """What each table has grown by for each trial, the largest first; those that have not are left out."""
    found = []
    for name, now in after.items():
        grown = {key: now[key] - before[name][key] for key in ("bytes", "inserted", "updated", "hot", "vacuums")}
        if grown["inserted"] or grown["updated"]:
            found.append(
                {
                    "table": name,
                    "bytes": round(grown["bytes"] / max(1, trials)),
                    "rows": round(grown["inserted"] / max(1, trials), 2),
                    "updates": round(grown["updated"] / max(1, trials), 2),
                    "hot": round(grown["hot"] / grown["updated"], 3) if grown["updated"] else None,
                    "dead": now["dead"],
                    "live": now["live"],
                    "vacuums": grown["vacuums"],
                }
            )
    return sorted(found, key=lambda row: -row["bytes"])


def fill(owner: Store, *, studies: int, trials: int) -> None:
    """Fill the database with studies of as many tenants, and finished trials."""
    rng = np.random.default_rng(0)
    ended = [(s, k, float(rng.random()), float(rng.lognormal(1, 1))) for s in range(studies) for k in range(trials)]
    names = [f"candidate-{k}" for k in range(trials + LEFT)]
    config = {"training": TrainingConfig().to_json()}
    with pages.without_row_triggers(owner), owner.begin() as tx:
        made_up_installation.fill(tx, key="t", candidates=names, config=config, trials=ended, rows=[1000] * studies)
        made_up_installation.analyse(tx)


def look_at_pages(store: Store, stop: threading.Event, took: dict[str, list[float]]) -> None:
    """Ask for pages, one after the other, until ``stop`` is set."""
    with pages.browser(store, Viewer("ada", frozenset({Role.OPERATOR}))) as ask:
        ask("/")
        while not stop.is_set():
            for name, path in (("overview", "/"), ("study", "/studies/t-3")):
                began = time.perf_counter()
                ask(path)
                took[name].append(1e3 * (time.perf_counter() - began))
            stop.wait(0.2)


def broken(tx: Connection, url: str) -> list[str]:
    """What must not be: by the checks that follow injected faults, and by those of ``easeml doctor``."""
    asked = {what: sql for what, sql in NEVER.items() if not any(part in what for part in MADE_UP)}
    asked["a trial that a writer has left open"] = "SELECT id FROM work.trials WHERE state = 'RUNNING'"
    asked["a result without its model"] = (
        "SELECT t.id FROM work.trials t JOIN work.suggestions g ON g.trial_id = t.id LEFT JOIN work.models m "
        "ON m.trial_id = t.id WHERE t.state = 'SUCCEEDED' AND m.id IS NULL"
    )
    found = [f"{what}: {there[:3]}" for what, sql in asked.items() if (there := [tuple(r) for r in rows(tx, sql)])]
    checks = doctor.check_database(url, "the benchmark")
    return found + [f"doctor: {check.name}: {check.found}" for check in checks if check.state == "failed"]


@contextlib.contextmanager
def installation(studies: int, trials: int) -> Iterator[tuple[Server, Store, Path]]:
    """A filled server, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="easeml-load-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the database's account passes through
        with Server(folder / "home", max_connections=300).owned() as server:
            server.ensure_installation()
            with contextlib.closing(Store(server.url("easeml_owner", "easeml"))) as owner:
                schema.upgrade(owner)
                fill(owner, studies=studies, trials=trials)
                yield server, owner, folder


def measure(*, writers: int, processes: int, studies: int, trials: int, seconds: float, beats: int) -> dict[str, Any]:
    """Fill, let the writers work, and read the figures."""
    context = multiprocessing.get_context("spawn")
    began = time.perf_counter()
    with installation(studies, trials) as (server, owner, folder):
        filled = time.perf_counter() - began
        url, looks = str(server.url("easeml_worker", "easeml")), defaultdict[str, list[float]](list)
        time.sleep(2)  # statistics of ended transactions arrive
        with owner.begin() as tx:
            before = tables(tx)
        begin, found, stop = context.Barrier(writers + 1), context.Queue(), threading.Event()
        shares = [[f"w{n}" for n in range(writers) if n % processes == p] for p in range(processes)]
        given = [(url, str(folder / "artifacts"), names, beats, seconds, begin, found) for names in shares]
        started = [context.Process(target=write, args=each) for each in given]
        for process in started:
            process.start()
        with contextlib.closing(Store(url)) as store, contextlib.closing(server.connect(database="easeml")) as watched:
            assess_changes(store)
            looker = threading.Thread(target=look_at_pages, args=(store, stop, looks))
            looker.start()
            _await(begin, started)
            for name in looks:
                looks[name].clear()
            with LockWatch(watched) as locks:
                parts = [_result(found, started, seconds) for _ in started]
            stop.set()
            looker.join()
        for process in started:
            process.join()
        time.sleep(2)
        with owner.begin() as tx:
            after, faults = tables(tx), broken(tx, url)
            ((deadlocks,),) = rows(tx, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        took = {step: [ms for *_, people in parts for one, _ in people for ms in one.get(step, [])] for step in STEPS}
        errors: Counter[str] = Counter()
        for *_, people in parts:
            for _, mine in people:
                errors.update(mine)
        ended = len(took["result"])
        return {
            "kind": "writers", "writers": writers, "processes": processes, "studies": studies,
            "trials": studies * trials,
            "seconds": seconds, "fill_seconds": round(filled, 1), "ended": ended,
            "per_second": round(ended / seconds, 2), "steps": {k: percentiles(v) for k, v in {**took, **looks}.items()},
            "writers_cpu_seconds": round(sum(used for used, *_ in parts), 1),
            "loads": sum(loads for _, loads, _ in parts), "locks": locks.figures(),
            "deadlocks": int(deadlocks), "errors": dict(errors), "growth": growth(before, after, ended + writers),
            "broken": faults, "load": round(psutil.getloadavg()[0], 1),
        }  # fmt: skip


def _await(begin: Any, started: Sequence[Any]) -> None:
    """Wait until all writers have begun; fail where one of their processes has ended."""
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(1):
            if any(process.exitcode for process in started):
                begin.abort()
                return

    threading.Thread(target=watch, daemon=True).start()
    begin.wait()
    watching.set()


def _result(found: Any, started: Sequence[Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds + 300
    while time.monotonic() < deadline:
        with contextlib.suppress(queue.Empty):
            return found.get(timeout=1)
        if any(process.exitcode for process in started):
            break
    message = "a process of writers has ended, or does not end"
    raise RuntimeError(message)


def percentiles(took: Sequence[float]) -> dict[str, float]:
    """Number, median, 99th percentile and largest of some milliseconds."""
    if not took:
        return {"count": 0}
    middle, high = np.percentile(took, [50, 99])
    return {"count": len(took), "p50": round(middle, 1), "p99": round(high, 1), "most": round(max(took), 1)}


def text_of(found: dict[str, Any]) -> Iterator[str]:
    """The figures in words."""
    yield f"{found['writers']} writers in {found['processes']} processes on {found['trials']:,} trials"
    yield f"{found['ended']:,} trials ended in {found['seconds']:.0f} s, {found['per_second']} a second"
    yield f"the scheduler's state was loaded {found['loads']} times"
    yield f"load of the machine {found['load']}; filled in {found['fill_seconds']} s"
    for step, shown in found["steps"].items():
        if shown["count"]:
            times = "  ".join(f"{name} {shown[name]:8.1f} ms" for name in ("p50", "p99", "most"))
            yield f"  {step:12} {shown['count']:>7,} x  {times}"
    yield f"locks: {found['locks']}; deadlocks {found['deadlocks']}; errors {found['errors']}"
    yield "of each trial:"
    for row in found["growth"]:
        counts = f"{row['bytes']:>7,} B  {row['rows']:6.2f} rows  {row['updates']:6.2f} updates"
        hot = "" if row["hot"] is None else f", HOT {row['hot']:.0%}"
        dead = f"dead {row['dead']:,} of {row['live']:,}, vacuums {row['vacuums']}"
        yield f"  {row['table']:30} {counts}{hot}  {dead}"
    yield f"broken: {found['broken'] or 'nothing'}"


@click.command(help=__doc__)
@click.option("--writers", default=8, show_default=True, type=click.IntRange(1, 200))
@click.option("--processes", default=4, show_default=True, type=click.IntRange(1, 64))
@click.option("--studies", default=50, show_default=True, type=click.IntRange(4, 20_000))
@click.option("--trials", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Of each study.")
@click.option("--seconds", default=10.0, show_default=True)
@click.option("--beats", default=3, show_default=True, help="Heartbeats of each trial.")
@click.option("--save", is_flag=True, help="Keep the figures in benchmarks/results/load.jsonl.")
def main(save: bool, **sizes: Any) -> None:
    """Measure and print."""
    found = measure(**sizes)
    if save:
        keep(found)
    click.echo("\n".join(text_of(found)))


def keep(found: dict[str, Any], path: Path = RESULTS) -> None:
    """Write a line of results, in place of an earlier one of the same kind and size."""
    names = ("kind", "writers", "trials", "browsers", "waiters")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    kept = [line for line in lines if any(line.get(name) != found.get(name) for name in names)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*kept, found]), encoding="utf-8")


if __name__ == "__main__":
    main()
