"""Waiting sensors in one triggerer: what they cost while nothing happens, and how soon they hear.

    python benchmarks/at_scale/waiters.py --waiters 10000 --seconds 60

The triggers of the product run in one event loop, as in Airflow's triggerer, without Airflow's own work for each of
them (``meter_sensors.py`` measures that with some hundreds). Half of them wait for a test set of one study, the others
each for another request. Read are memory, share of a core and looks a second while nothing happens, then the
seconds until a single one hears its answer, and until all that wait for the study have heard of its set.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import click
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import writers as load

from easeml_airflow.triggers import easeml as triggers
from easeml_airflow.triggers import questions
from easeml_airflow.triggers.easeml import EasemlTrigger
from easeml_core.store.database import Store, notify
from easeml_core.store.listen import until
from easeml_core.store.rows import change, rows
from easeml_core.store.tables import requests, studies

if TYPE_CHECKING:
    from collections.abc import Callable

STUDY = "t-1"
_REQUESTS = """
INSERT INTO work.requests (kind, study_id, model_id, arguments, request_key)
SELECT 'seal', :study_id, NULL, '{}', 'wait/' || n FROM generate_series(1, :n) AS n RETURNING id
"""


_SET = """
INSERT INTO work.test_sets (study_id, data_version_id, purpose, state, rows, steps, plan)
SELECT study_id, max(id), 'gate', 'live', 1000, 8, '{}' FROM work.data_versions WHERE study_id = :id GROUP BY study_id
"""


class Looks:
    """Counts looks."""

    def __init__(self) -> None:
        self.number = 0
        self._look = questions.look

    def __call__(self, *given: Any) -> Any:
        """Look."""
        self.number += 1
        return self._look(*given)


async def wait_for(trigger: EasemlTrigger, heard: list[float]) -> None:
    """Note when it fires."""
    async for _ in trigger.run():
        heard.append(time.perf_counter())


async def run(server_store: Store, referee: Store, waiters: int, seconds: float, poll: float) -> dict[str, Any]:
    """Let them wait, watch, notify."""
    mine, looks = psutil.Process(), Looks()
    with referee.begin() as tx:
        study_id = studies.get_study(tx, STUDY).id
    with patch.object(triggers, "look", looks):
        alone = mine.memory_full_info().pss
        asked = [r for r in _filed(server_store, study_id, waiters // 2)]
        heard: list[float] = []
        answered: list[float] = []
        settings: dict[str, Any] = {"easeml_conn_id": None, "poll_interval": poll}
        alerts = [EasemlTrigger(question="test-set", subject=STUDY, **settings) for _ in range(waiters - len(asked))]
        own = [EasemlTrigger(question="answer", subject=str(number), **settings) for number in asked]
        began, used = time.perf_counter(), _cpu(mine)
        tasks = [asyncio.create_task(wait_for(trigger, heard)) for trigger in alerts]
        tasks += [asyncio.create_task(wait_for(trigger, answered)) for trigger in own]
        while looks.number < waiters:  # noqa: ASYNC110 - threads count
            await asyncio.sleep(0.1)
        first = {"first_looks_seconds": time.perf_counter() - began, "first_looks_cpu": _cpu(mine) - used}
        began, used, before = time.perf_counter(), _cpu(mine), looks.number
        slowest = await _pauses(seconds)
        took = time.perf_counter() - began
        idle = {
            "core_share": (_cpu(mine) - used) / took,
            "looks_a_second": (looks.number - before) / took,
            "longest_pause_ms": slowest,
            "pss_mb": (mine.memory_full_info().pss - alone) / 1e6,
            "threads": threading.active_count(),
        }
        began = time.perf_counter()
        with referee.begin() as tx:
            requests.add_answer(tx, asked[0], refused=True, message="for the benchmark")
        await _until(lambda: bool(answered), 120)
        one = time.perf_counter() - began
        began, used = time.perf_counter(), _cpu(mine)
        with server_store.begin() as tx:
            change(tx, _SET, id=study_id)
            notify(tx, f"study:{STUDY}")
        await _until(lambda: len(heard) == len(alerts), 280)
        burst = {"heard": len(heard), "cpu": _cpu(mine) - used}
        burst |= {"first": min(heard, default=0) - began, "last": max(heard, default=0) - began}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {**first, "idle": idle, "one_answer_seconds": one, "alert": burst}


def _filed(store: Store, study_id: int, number: int) -> list[int]:
    with store.begin() as tx:
        return [int(r.id) for r in rows(tx, _REQUESTS, study_id=study_id, n=number)]


def _cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


async def _pauses(seconds: float) -> float:
    """Sleep in short steps; the longest that the loop was late, in milliseconds."""
    worst, until_then = 0.0, time.perf_counter() + seconds
    while (began := time.perf_counter()) < until_then:
        await asyncio.sleep(0.02)
        worst = max(worst, time.perf_counter() - began - 0.02)
    return 1e3 * worst


async def _until(is_so: Callable[[], bool], seconds: float) -> None:
    for _ in range(int(seconds / 0.01)):
        if is_so():
            return
        await asyncio.sleep(0.01)


def measure(*, waiters: int, seconds: float, poll: float) -> dict[str, Any]:
    """Fill a database and let the triggers wait in this process."""
    with (
        load.installation(8, 2) as (server, owner, _),
        contextlib.closing(Store(server.url("easeml_worker", "easeml"))) as worker,
        contextlib.closing(Store(server.url("easeml_referee", "easeml"))) as referee,
        patch.object(triggers, "_open", lambda _: (worker, until)),
    ):
        with owner.begin() as tx:
            change(tx, "ANALYZE work.studies")
        found = asyncio.run(run(owner, referee, waiters, seconds, poll))
    return {"kind": "waiters", "waiters": waiters, "poll": poll, **found, "load": round(psutil.getloadavg()[0], 1)}


@click.command(help=__doc__)
@click.option("--waiters", default=200, show_default=True, type=click.IntRange(2, 100_000))
@click.option("--seconds", default=10.0, show_default=True, help="How long they are watched while nothing happens.")
@click.option("--poll", default=60.0, show_default=True, help="Seconds between two looks without a notification.")
@click.option("--save", is_flag=True, help="Keep the figures in benchmarks/results/load.jsonl.")
def main(save: bool, **sizes: Any) -> None:
    """Measure and print."""
    found = measure(**sizes)
    if save:
        load.keep(found)
    click.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
