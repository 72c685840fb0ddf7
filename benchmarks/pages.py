"""How long pages and looks take with very many studies: milliseconds in the server, and of its processors.

    python benchmarks/pages.py --studies 1000 --studies 10000 --trials 60

A separate server is filled by SQL and thrown away afterwards. What is measured is the application itself, without
Airflow's login and without the network: the queries of the page and of its bar, and the page's making. The first look
assesses all studies; further ones those that have changed.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import httpx
import made_up_installation
import psutil
from result_files import FOLDER, read_rows, write_rows

from easeml_airflow.web.app import create_app
from easeml_airflow.web.components.action_items import count_needs
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.cli.output import show_json
from easeml_core.services.operations import notifications
from easeml_core.services.reports.assessments import assess_changes
from easeml_core.services.reports.next_steps import next_steps
from easeml_core.services.reports.overview import overview
from easeml_core.store import schema
from easeml_core.store.database import Store
from easeml_core.store.rows import change, rows
from easeml_core.store.server.server import throwaway_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RESULTS = FOLDER / "pages.csv"
FIELDS = ("view", "studies", "trials", "median_ms", "worst_ms", "processor_ms", "load")

PAGES = {
    "overview: needs a person": "/",
    "overview: all": "/?show=all",
    "overview: last page": "/?show=all&page=1000",
    "overview: search": "/?show=all&q=t-7",
    "overview: by quality": "/?show=all&sort=quality",
    "overview: all needs": "/?needs=all",
    "page of a study": "/studies/t-3",
    "compute": "/compute",
    "audit": "/audit",
}
OWN = "overview: of two studies"

CHANGED = (16, 600)
"""So many studies have changed since the last look."""

_SETS = """
INSERT INTO work.test_sets (study_id, data_version_id, purpose, state, rows, steps, plan)
SELECT s.id, v.id, 'gate', 'live', 1000, 8, '{}' FROM work.studies s JOIN work.data_versions v ON v.study_id = s.id
"""
_ALERTS = """
INSERT INTO work.alerts (study_id, kind, test_set_id, message)
SELECT study_id, 'new-test-set', id, 'a new test set is needed' FROM work.test_sets WHERE study_id % 33 = 0
"""
_STATES = "UPDATE work.studies SET state = 'PAUSED' WHERE id % 19 = 0"


_PER_ROW = (
    ("trials", "trials_within_limits"),
    ("candidates", "candidates_audit"),
    ("candidates", "candidates_catalogue"),
)
"""Triggers that take most of the time of a bulk load, and change nothing that is measured."""


def fill(owner: Store, *, studies: int, trials: int) -> None:
    """Studies of as many tenants with finished trials; some are paused, some have an alert."""
    drawn = random.Random(0)
    ended = [(s, k, drawn.random(), drawn.lognormvariate(1, 1)) for s in range(studies) for k in range(trials)]
    names = [f"candidate-{k}" for k in range(trials + 4)]
    with without_row_triggers(owner), owner.begin() as tx:
        made_up_installation.fill(tx, key="t", candidates=names, config={}, trials=ended, rows=[1000] * studies)
        for statement in (_SETS, _ALERTS, _STATES):
            change(tx, statement)
        made_up_installation.analyse(tx)


@contextmanager
def without_row_triggers(owner: Store) -> Iterator[None]:
    """Leave out triggers on each row that take most of the time of a bulk load."""
    for what in ("DISABLE", "ENABLE"):
        with owner.begin() as tx:
            for table, trigger in _PER_ROW:
                change(tx, f"ALTER TABLE work.{table} {what} TRIGGER {trigger}")
        if what == "DISABLE":
            yield


class Meter:
    """Measures calls, with the processor time of this process and of the server's."""

    def __init__(self, store: Store, postmaster: int) -> None:
        self._store, self._server = store, psutil.Process(postmaster)
        self.found: list[dict[str, Any]] = []

    def processor_seconds(self) -> float:
        """Of this process and of the processes of the server that run now."""
        found = time.process_time()
        for process in self._server.children():
            used = process.cpu_times()
            found += used.user + used.system
        return found

    def time(self, view: str, call: Callable[[], object], *, repeats: int, before: Callable[[], object] = int) -> None:
        """Add the milliseconds of these calls; ``before`` prepares each one and is not measured."""
        took, used = [], 0.0
        for _ in range(repeats):
            before()
            processor, began = self.processor_seconds(), time.perf_counter()
            call()
            took.append(1000 * (time.perf_counter() - began))
            used += 1000 * (self.processor_seconds() - processor)
        self.found.append(
            {"view": view, "median_ms": statistics.median(took), "worst_ms": max(took), "processor_ms": used / repeats}
        )


@contextmanager
def browser(store: Store, viewer: Viewer) -> Iterator[Callable[[str], None]]:
    """Ask the application for pages, as this viewer."""
    site = Site(lambda: store, _no_artifacts, lambda: store, lambda: viewer, count_needs)
    app = create_app(site, require_login=lambda: None)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here")
    with asyncio.Runner() as loop:

        def ask(path: str) -> None:
            loop.run(client.get(path)).raise_for_status()

        yield ask


_CHANGE = """
UPDATE work.studies SET priority = 1 - priority WHERE id IN (SELECT id FROM work.studies ORDER BY id LIMIT :n)
"""


def measure(owner: Store, worker: Store, postmaster: int, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of each view, of looks after changes, and of the notifier."""
    meter = Meter(worker, postmaster)
    meter.time("first look of all", partial(assess_changes, worker), repeats=1)
    with owner.begin() as tx:
        made_up_installation.analyse(tx)
        change(tx, "ANALYZE work.assessments")
    operator = Viewer("ada", frozenset({Role.OPERATOR}))
    tenant = Viewer("ann", frozenset(), lambda study, _tenant, *, write: study in ("t-1", "t-2"))
    for viewer, pages in ((operator, PAGES), (tenant, {OWN: "/"})):
        with browser(worker, viewer) as ask:
            for view, path in pages.items():
                ask(path)  # the first one warms the process up
                meter.time(view, partial(ask, path), repeats=repeats)

    def change_some(number: int) -> None:
        with worker.begin() as tx:
            change(tx, _CHANGE, n=number)

    with browser(worker, operator) as ask:
        ask("/")
        for number in CHANGED:
            view = f"overview, {number} studies changed"
            meter.time(view, partial(ask, "/"), repeats=repeats, before=partial(change_some, number))
    cursor = notifications.look(worker, None).start.to_stored()
    meter.time("notifier", partial(notifications.look, worker, cursor), repeats=repeats)
    meter.time("`easeml next --needs`", partial(next_steps, worker, needs_only=True), repeats=repeats)
    meter.time("`easeml study list`", partial(overview, worker), repeats=repeats)
    return meter.found


def keep(found: list[dict[str, Any]], path: Path = RESULTS) -> None:
    """Write the rows into the file of results, in place of those of the same numbers of studies and trials."""
    new = {(str(row["studies"]), str(row["trials"])) for row in found}
    kept: list[dict[str, Any]] = [row for row in read_rows(path) if (row["studies"], row["trials"]) not in new]
    numbers = ("median_ms", "worst_ms", "processor_ms", "load")
    kept += [row | {name: f"{row[name]:.1f}" for name in numbers} for row in found]
    kept.sort(key=lambda row: (int(row["studies"]), int(row["trials"])))  # views stay in their order
    write_rows(path, kept, FIELDS)


def _no_artifacts() -> Any:
    raise NotImplementedError


@click.command(help=__doc__)
@click.option("--studies", "numbers", default=(1000,), show_default=True, multiple=True, type=click.IntRange(1, 20_000))
@click.option("--trials", default=60, show_default=True, type=click.IntRange(1, 10_000), help="Of each study.")
@click.option("--repeats", default=9, show_default=True, type=click.IntRange(1, 1000))
@click.option("--save", is_flag=True, help="Keep the figures in benchmarks/results/pages.csv.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def main(numbers: tuple[int, ...], trials: int, repeats: int, save: bool, as_json: bool) -> None:
    """Measure pages and looks; median and worst in milliseconds."""
    found = []
    for studies in numbers:
        with throwaway_server() as server:
            server.ensure_installation()
            owner, worker = (Store(server.url(f"easeml_{role}", "easeml")) for role in ("owner", "worker"))
            schema.upgrade(owner)
            fill(owner, studies=studies, trials=trials)
            with owner.begin() as tx:
                (one,) = rows(tx, "SELECT pg_backend_pid() AS pid")
            postmaster = psutil.Process(one.pid).ppid()
            seen = measure(owner, worker, postmaster, repeats)
            load = psutil.getloadavg()[0]
            found += [{"view": "", "studies": studies, "trials": trials} | row | {"load": load} for row in seen]
            owner.close()
            worker.close()
    if save:
        keep(found)
    if as_json:
        show_json(found)
        return
    for row in found:
        times = f"median {row['median_ms']:7,.0f} ms  worst {row['worst_ms']:7,.0f} ms"
        processor = f"processors {row['processor_ms']:6,.0f} ms"
        click.echo(f"{row['studies']:>6,} studies  {row['view']:>30}  {times}  {processor}")


if __name__ == "__main__":
    main()
