"""How long the overview takes with very many studies: seconds in the server, from the question to the page.

    python benchmarks/pages.py --studies 1000 --trials 60

A separate server is filled by SQL and thrown away afterwards. What is measured is the application itself, without
Airflow's login and without the network: the queries of the page and of its bar, and the page's making.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from typing import Any

import click
import httpx
import made_up_installation

from easeml_airflow.web.app import create_app
from easeml_airflow.web.components.action_items import count_needs
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.cli.output import show_json
from easeml_core.store import schema
from easeml_core.store.database import Store
from easeml_core.store.rows import change
from easeml_core.store.server.throwaway import throwaway_server

PAGES = {
    "needs a person": "/",
    "all": "/?show=all",
    "last page": "/?show=all&page=1000",
    "search": "/?show=all&q=t-7",
    "by quality": "/?show=all&sort=quality",
    "a tenant's own": "/",
}

_SETS = """
INSERT INTO work.test_sets (study_id, data_version_id, purpose, state, rows, steps, plan)
SELECT s.id, v.id, 'gate', 'live', 1000, 8, '{}' FROM work.studies s JOIN work.data_versions v ON v.study_id = s.id
"""
_ALERTS = """
INSERT INTO work.alerts (study_id, kind, test_set_id, message)
SELECT study_id, 'new-test-set', id, 'a new test set is needed' FROM work.test_sets WHERE study_id % 33 = 0
"""
_STATES = "UPDATE work.studies SET state = 'PAUSED' WHERE id % 19 = 0"


def fill(owner: Store, *, studies: int, trials: int) -> None:
    """Studies of as many tenants with finished trials; some are paused, some have an alert."""
    drawn = random.Random(0)
    ended = [(s, k, drawn.random(), drawn.lognormvariate(1, 1)) for s in range(studies) for k in range(trials)]
    names = [f"candidate-{k}" for k in range(trials + 4)]
    with owner.begin() as tx:
        made_up_installation.fill(tx, key="t", candidates=names, config={}, trials=ended, rows=[1000] * studies)
        for statement in (_SETS, _ALERTS, _STATES):
            change(tx, statement)
        made_up_installation.analyse(tx)


def measure(store: Store, viewer: Viewer, path: str, repeats: int) -> list[float]:
    """Seconds of each answer; the first one, which warms the process up, is left out."""
    site = Site(lambda: store, _no_artifacts, lambda: store, lambda: viewer, count_needs)
    app = create_app(site, require_login=lambda: None)

    async def ask() -> list[float]:
        took = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here") as client:
            for _ in range(repeats + 1):
                began = time.perf_counter()
                answer = await client.get(path)
                took.append(time.perf_counter() - began)
                answer.raise_for_status()
        return took[1:]

    return asyncio.run(ask())


def _no_artifacts() -> Any:
    raise NotImplementedError


@click.command()
@click.option("--studies", default=1000, show_default=True, type=click.IntRange(1, 20_000))
@click.option("--trials", default=60, show_default=True, type=click.IntRange(1, 2000), help="Of each study.")
@click.option("--repeats", default=9, show_default=True, type=click.IntRange(1, 1000))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def main(studies: int, trials: int, repeats: int, as_json: bool) -> None:
    """Measure the overview's pages; median and worst in milliseconds."""
    found = {}
    with throwaway_server() as server:
        server.ensure_installation()
        owner, worker = (Store(server.url(f"easeml_{role}", "easeml")) for role in ("owner", "worker"))
        schema.upgrade(owner)
        fill(owner, studies=studies, trials=trials)
        operator = Viewer("ada", frozenset({Role.OPERATOR}))
        tenant = Viewer("ann", frozenset(), lambda study, _tenant, *, write: study in ("t-1", "t-2"))
        for name, path in PAGES.items():
            took = measure(worker, tenant if name.startswith("a tenant") else operator, path, repeats)
            found[name] = {"median_ms": 1000 * statistics.median(took), "worst_ms": 1000 * max(took)}
        owner.close()
        worker.close()
    if as_json:
        show_json({"studies": studies, "trials": trials, "pages": found})
        return
    for name, figures in found.items():
        click.echo(f"{name:>16}  median {figures['median_ms']:6.0f} ms  worst {figures['worst_ms']:6.0f} ms")


if __name__ == "__main__":
    main()
