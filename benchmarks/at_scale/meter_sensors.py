"""What sensors of the overfitting meter cost while they wait, and how fast a breach wakes them, in a real Airflow.

    .venv/bin/python benchmarks/at_scale/meter_sensors.py [--sensors 200] [--seconds 60] [--resume 300] [--json]

A whole stack is started in a separate folder: PostgreSQL, referee, Airflow's four processes. One DAG maps an
OverfittingMeterSensor so many times; once all are deferred the triggerer is watched. Then a model that has learnt the
validation rows by heart is handed to the meter, and the moments from the decision to the last sensor are taken. About
five minutes on two cores; other load on the machine goes into every figure but the share of a core.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import psutil
from rich.console import Console

from easeml_core.data.parts import load_open_parts
from easeml_core.models.formats import save_model
from easeml_core.models.skops_format import PipelinePredictor
from easeml_core.services.models.submission import submit_model
from easeml_core.services.referee.requests import answer_of, file_meter_request
from easeml_core.services.registration.register import register_study
from easeml_core.services.studies.candidates import files_of
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store
from easeml_core.store.server.server import Server, throwaway_folder
from easeml_core.store.tables import studies

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from demo_night.runs import await_dag
from installation import GATE, STUDY, TARGET, TENANT, write_coins
from stack.launcher import Stack
from stack.places import Places
from stack.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


CHANNEL = "easeml"
RUNNING_TASK = re.compile(r"airflow worker -- .*[0-9a-f]{8}-[0-9a-f-]{27}")
MAPPED_TASKS = "SELECT coalesce(state, 'none'), count(*) FROM task_instance WHERE map_index >= 0 GROUP BY 1"


@dataclass(slots=True)
class BlockingListener(contextlib.AbstractContextManager["BlockingListener"]):
    """Hears notifications in a separate thread.

    Attributes:
        stack: Whose database it listens to.
        heard: Time (seconds since 1970) at which each topic was heard last.
    """

    stack: Stack
    heard: dict[str, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> BlockingListener:
        """Listen from now on."""
        connection = self.stack.server.connect("easeml_worker", "easeml")
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        self._thread = threading.Thread(target=self._listen, args=(connection,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _listen(self, connection: Any) -> None:
        with contextlib.closing(connection):
            while not self._stop.is_set():
                if select.select([connection], [], [], 0.2)[0]:
                    now = time.time()
                    connection.poll()
                    self.heard |= {notice.payload: now for notice in connection.notifies}
                    connection.notifies.clear()


class Tasks:
    """The mapped tasks of the one DAG, as Airflow's database has them."""

    def __init__(self, stack: Stack) -> None:
        self._connection = stack.server.connect("airflow", "airflow")

    def states(self) -> dict[str, int]:
        """How many there are in each state."""
        with self._connection.cursor() as cursor:
            cursor.execute(MAPPED_TASKS)
            return dict(cursor.fetchall())

    def until(self, state: str, count: int, *, seconds: float, every: float = 0.02) -> float | None:
        """The time (since 1970) from which at most, or for ``deferred`` at least, so many are in the state."""
        return next(self._looks(lambda found: found.get(state, 0) >= count, seconds, every), None)

    def fewer(self, state: str, count: int, *, seconds: float) -> float | None:
        """The time (since 1970) from which fewer are in the state; None if that takes too long."""
        return next(self._looks(lambda found: found.get(state, 0) < count, seconds, 0.02), None)

    def _looks(self, holds: Any, seconds: float, every: float) -> Iterator[float]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if holds(self.states()):
                yield time.time()
                return
            time.sleep(every)


def component(stack: Stack, name: str) -> list[psutil.Process]:
    """A component of the stack with everything below it."""
    (process,) = (psutil.Process(r.process.pid) for r in stack.processes.running if r.component.name == name)
    return [process, *process.children(recursive=True)]


def processor_seconds(processes: list[psutil.Process]) -> float:
    """Processor time so far, of processes that live on."""
    return sum(sum(p.cpu_times()[:2]) for p in processes)


def use(processes: list[psutil.Process], seconds: float) -> dict[str, float]:
    """Share of one core over this time, and what else the processes hold at its end."""
    start, before = time.monotonic(), processor_seconds(processes)
    time.sleep(seconds)
    share = (processor_seconds(processes) - before) / (time.monotonic() - start)
    return {
        "core_percent": 100 * share,
        "threads": sum(p.num_threads() for p in processes),
        "memory_mb": sum(p.memory_info().rss for p in processes) / 2**20,
        "load": os.getloadavg()[0],
    }


def listeners(stack: Stack) -> int:
    """Connections that wait for our notifications and are not the referee's or this benchmark's."""
    with contextlib.closing(stack.server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'easeml_worker' "
            "AND application_name = 'easeml-listener'"
        )
        ((count,),) = cursor.fetchall()
        return int(count)


def workers(stack: Stack) -> int:
    """Processes that run a task now; those of the executor that wait for one are none."""
    return sum(RUNNING_TASK.search(" ".join(p.cmdline())) is not None for p in component(stack, "scheduler")[1:])


DAG = "meter_sensors"
METER = {"ranges": (0.2,), "tolerance": 0.1, "reliability": 0.99, "steps": 4}
DEFER_SECONDS = 900.0
SETTLE_SECONDS = 10.0
DAG_FILE = '''
"""Sensors that wait for one alert."""
import pendulum
from airflow.sdk import DAG
from easeml_airflow.sensors import OverfittingMeterSensor

with DAG("{dag}", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None, max_active_tasks={sensors}):
    OverfittingMeterSensor.partial(task_id="watch", study="{study}").expand(after_id=[0] * {sensors})
'''


@contextlib.contextmanager
def running(sensors: int) -> Iterator[Stack]:
    """A separate stack with the DAG in it, gone at the end."""
    with throwaway_folder() as folder:
        dags = folder / "dags"
        dags.mkdir()
        (dags / "sensors.py").write_text(DAG_FILE.format(dag=DAG, sensors=sensors, study=STUDY))
        try:
            with Stack(Places.of(folder / "home", dags), Progress(Console(stderr=True, highlight=False))) as stack:
                yield stack
        finally:
            Server(folder / "home" / "postgres").stop()


def seal(stack: Stack, store: Store) -> None:
    """Register the study of coins and wait until the referee has sealed its data."""
    write_coins(stack.places.data / TENANT / "coins.csv", rows=4_000)
    asked: dict[str, Any] = {"tenant": TENANT, "source": "csv:coins.csv", "target": TARGET}
    candidates = [{"name": "tree", "kind": "decision_tree"}]
    filed = register_study(
        store, study=STUDY, gate=GATE, meter=METER, candidates=candidates, request_key="register", **asked
    )
    answer = wait_for(lambda: answer_of(store, filed.request_id), 60)
    if answer.refused:
        raise RuntimeError(answer.message)


def hand_in_by_heart(stack: Stack, store: Store) -> int:
    """Hand in a tree that knows every validation row: no loss there, 1/2 in truth. Its id."""
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier

    artifacts = files_of(store, ArtifactStore(stack.places.artifacts), study=STUDY)
    with store.begin() as tx:
        version = studies.latest_data_version(tx, studies.get_study(tx, STUDY).id)
    parts = load_open_parts(artifacts.path(version.artifact))
    tree = make_pipeline(DecisionTreeClassifier(random_state=0)).fit(parts.validation_inputs, parts.validation_labels)
    path = stack.places.home / "by-heart"
    save_model(PipelinePredictor(tree), path)
    handed = submit_model(
        store, artifacts, study=STUDY, path=path, format="skops", message="by heart", request_key="by heart"
    )
    return int(handed.model_id)


def breach(stack: Stack, store: Store, tasks: Tasks, sensors: int) -> dict[str, float | None]:
    """Hand the model to the meter; seconds after the alert was written unless said, None for what never came."""
    model = hand_in_by_heart(stack, store)
    with BlockingListener(stack) as listener:
        asked = time.time()
        filed = file_meter_request(store, study=STUDY, model_id=model, request_key="breach")
        first = tasks.fewer("deferred", sensors, seconds=60)
        last = tasks.fewer("deferred", 1, seconds=120)
        answer = wait_for(lambda: answer_of(store, filed), 60)
    decided, alerted = _moments(stack)
    heard = listener.heard[f"alert:{STUDY}"]
    if answer.signal != 2:
        message = f"the model was not found out: {answer}"
        raise RuntimeError(message)
    return {
        "question_to_decision": decided - asked,
        "decision_to_alert_row": alerted - decided,
        "decision_to_notification": heard - decided,
        "notification_to_first_task": None if first is None else first - heard,
        "notification_to_last_task": None if last is None else last - heard,
        "heard_at": heard,
    }


def _moments(stack: Stack) -> tuple[float, float]:
    """When the signal went into the ledger and when the alert was written, seconds since 1970."""
    with contextlib.closing(stack.server.connect(database="easeml")) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM l.decided_at)::float8, extract(epoch FROM a.created_at)::float8 "
            "FROM sealed.ledger l, work.alerts a WHERE a.kind = 'overfitting'"
        )
        ((decided, alerted),) = cursor.fetchall()
    return decided, alerted


def measure(sensors: int, seconds: float, resume: float) -> dict[str, Any]:
    """Start everything, wait until all sensors are deferred, watch, breach, watch again."""
    with running(sensors) as stack, contextlib.closing(Store(stack.access.worker_url)) as store:
        rest, tasks = stack.access.rest(), Tasks(stack)
        await_dag(rest, DAG, stack.check)
        seal(stack, store)
        triggerer = component(stack, "triggerer")
        time.sleep(SETTLE_SECONDS)
        found: dict[str, Any] = {"sensors": sensors, "seconds": seconds, "idle": use(triggerer, seconds)}
        rest.pause(DAG, False)
        began = time.time()
        rest.trigger(DAG)
        deferred = tasks.until("deferred", sensors, seconds=DEFER_SECONDS, every=1.0)
        if deferred is None:
            message = f"not all sensors were deferred after {DEFER_SECONDS:.0f} s: {tasks.states()}"
            raise RuntimeError(message)
        found["all_deferred_after_seconds"] = deferred - began
        time.sleep(SETTLE_SECONDS)
        found["waiting"] = use(component(stack, "triggerer"), seconds)
        found |= {"states": tasks.states(), "listeners": listeners(stack), "workers": workers(stack)}
        pool = rest.call("GET", "/pools/default_pool")
        found["pool"] = {name: pool[name] for name in ("slots", "occupied_slots", "running_slots", "deferred_slots")}
        found["breach"] = breach(stack, store, tasks, sensors)
        done = tasks.until("success", sensors, seconds=resume, every=0.2)
        found["resumed"] = tasks.states().get("success", 0)
        found["all_resumed_after_seconds"] = None if done is None else done - found["breach"]["heard_at"]
        del found["breach"]["heard_at"]
        return found


def wait_for(look: Callable[[], Any], seconds: float) -> Any:
    """The first value that is not None."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > deadline:
            message = f"it did not come within {seconds:.0f} s"
            raise RuntimeError(message)
        time.sleep(0.05)
    return found


def table(found: dict[str, Any]) -> Iterator[str]:
    """The figures in words."""
    idle, waiting, pool = found["idle"], found["waiting"], found["pool"]
    yield f"{found['sensors']} sensors wait on one triggerer; averages over {found['seconds']:.0f} s"
    yield f"  share of a core          {waiting['core_percent']:.1f} %, without sensors {idle['core_percent']:.1f} %"
    yield f"  threads, memory          {waiting['threads']:.0f}, {waiting['memory_mb']:.0f} MB"
    yield f"  load of the machine      {waiting['load']:.1f}, before {idle['load']:.1f}"
    yield f"  listening connections    {found['listeners']}"
    yield f"  worker processes         {found['workers']}; pool: {pool}; tasks: {found['states']}"
    yield f"  all deferred after       {found['all_deferred_after_seconds']:.0f} s (Airflow's scheduler and workers)"
    yield "one breach, seconds"
    for name, value in found["breach"].items():
        yield f"  {name.replace('_', ' '):28}{'never' if value is None else f'{value:.3f}'}"
    all_of_them = found["all_resumed_after_seconds"]
    shown = "not yet" if all_of_them is None else f"{all_of_them:.1f}"
    yield f"  {'all tasks ended':28}{shown} ({found['resumed']} of {found['sensors']})"


@click.command(help=__doc__)
@click.option("--sensors", default=200, show_default=True)
@click.option("--seconds", default=60.0, show_default=True, help="How long the triggerer is watched, twice.")
@click.option("--resume", default=300.0, show_default=True, help="How long to wait for the ends of all tasks.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def main(sensors: int, seconds: float, resume: float, as_json: bool) -> None:
    """Measure and print."""
    found = measure(sensors, seconds, resume)
    click.echo(json.dumps(found) if as_json else "\n".join(table(found)))


if __name__ == "__main__":
    main()
