"""Play a whole night for many studies in a real Airflow, and print what each stage takes.

    .venv/bin/python benchmarks/night.py --studies 64 --trials 128 [--dag easeml_nightly_retraining] [--json]

A whole stack is started in a separate folder: PostgreSQL, referee, Airflow's processes. Every study has a tenant and a
made-up table of 700 rows; each eighth table is noise, so that its model is rejected. The candidates train
in milliseconds: what is measured is everything else. Wall seconds are those of Airflow's task instances, processor
seconds those of all processes of the stack; other load on the machine goes into the wall seconds.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import platform
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import psutil
from result_files import FOLDER, read_rows, write_rows
from rich.console import Console
from rich.table import Table

from easeml_core.cli.output import show_json
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.register import register_study
from easeml_core.store.database import Store
from easeml_core.store.server.cluster import find_postmaster
from easeml_core.store.server.server import Server, throwaway_folder

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from demo_night.runs import await_dag
from stack.launcher import Stack
from stack.places import Places
from stack.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

AT_SCALE, ROUNDS = "easeml_night_at_scale", "easeml_nightly_retraining"
ROWS, NOISE_EVERY = 700, 8
GATE = {"condition": "n > 0.7 +/- 0.2", "reliability": 0.95, "steps": 8, "adaptivity": "full"}
METER = {"ranges": [0.4], "tolerance": 0.2, "reliability": 0.95, "steps": 8}
EVERY_SECONDS = 0.5
SEAL_SECONDS = 60.0
"""Patience with the referee for each study that it seals."""

RESULTS = FOLDER / "night.csv"
NIGHT = ("dag", "studies", "trials", "devices")
"""What makes two nights the same one."""

FORK_SERVER, SERVERS = "easeml_core.sandbox.fork_server", "fork servers"
PARTS = ("scheduler", SERVERS, "referee", "database", "triggerer", "dag-processor", "api-server", "task-api-server")
TRAINING = ("suggest", "train", "devices")
CHEAP: tuple[dict[str, Any], ...] = (
    {"name": "bayes", "kind": "gaussian_naive_bayes"},
    {"name": "centroid", "kind": "nearest_centroid"},
    *({"name": f"tree-{d}", "kind": "decision_tree", "parameters": {"max_depth": d}} for d in range(1, 13)),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage took.

    Attributes:
        name: Of the stage.
        wall_seconds: From its first task's start to its last one's end.
        cpu_seconds: Of all processes of the stack.
        parts: The same by component.
    """

    name: str
    wall_seconds: float
    cpu_seconds: float
    parts: dict[str, float]


@dataclass(slots=True)
class Meter(contextlib.AbstractContextManager["Meter"]):
    """Reads the processor time of the stack's processes twice a second, the ended ones below them included.

    Attributes:
        stack: What is measured.
        times: Seconds since 1970 of each reading.
        readings: Processor seconds so far by component.
    """

    stack: Stack
    times: list[float] = field(default_factory=list)
    readings: list[dict[str, float]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Meter:
        self.read()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self.read()

    def read(self) -> None:
        """Read once."""
        roots = {r.component.name: r.process.pid for r in self.stack.processes.running}
        postmaster = find_postmaster(self.stack.server.data)
        if postmaster is not None:
            roots["database"] = postmaster.pid
        before = self.readings[-1] if self.readings else {}
        now = {name: max(before.get(name, 0.0), _family_seconds(pid)) for name, pid in roots.items()}
        now[SERVERS] = max(before.get(SERVERS, 0.0), sum(_family_seconds(pid) for pid in self._fork_servers()))
        self.readings.append(now)
        self.times.append(time.time())

    def _fork_servers(self) -> list[int]:
        """Servers that tasks have started: they are no descendants of a component."""
        accounts = self.stack.accounts
        account = os.geteuid() if accounts is None else accounts.tasks.uid
        found = []
        for process in psutil.process_iter(["cmdline", "uids", "ppid"]):
            words, uids = process.info["cmdline"] or [], process.info["uids"]
            is_ours = words[:1] == [sys.executable] and FORK_SERVER in words and uids is not None
            if is_ours and uids.effective == account and process.info["ppid"] == 1:
                found.append(process.pid)
        return found

    def between(self, start: float, end: float) -> dict[str, float]:
        """Processor seconds by component between two moments, since 1970."""
        first, last = (self.readings[min(bisect.bisect(self.times, t), len(self.times) - 1)] for t in (start, end))
        return {name: last[name] - first.get(name, 0.0) for name in last}


def _family_seconds(pid: int) -> float:
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])  # with those of its children that have ended
    return total


def write_table(path: Path, seed: int) -> None:
    """A made-up table of four numbers and a class, which follows from them but for one row in ten, or from nothing."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(ROWS, 4))
    labels = inputs @ rng.normal(size=4) > 0
    noise = np.ones(ROWS, dtype=bool) if seed % NOISE_EVERY == NOISE_EVERY - 1 else rng.random(ROWS) < 0.1
    labels[noise] = rng.random(int(noise.sum())) < 0.5
    lines = [
        ",".join(f"{x:.5f}" for x in row) + f",{'yes' if y else 'no'}" for row, y in zip(inputs, labels, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a,b,c,d,label\n" + "\n".join(lines) + "\n")


def register(stack: Stack, store: Store, *, studies: int, candidates: int) -> None:
    """Register the studies, and wait until the referee has sealed the data of all."""
    filed = []
    for number in range(studies):
        name = f"t{number:05d}"
        write_table(stack.places.data / name / "table.csv", number)
        asked: dict[str, Any] = {"tenant": name, "source": "csv:table.csv", "target": "label", "gate": GATE}
        asked |= {
            "meter": METER,
            "candidates": [dict(c) for c in CHEAP[:candidates]],
            "request_key": f"register/{name}",
        }
        filed.append(register_study(store, study=name, **asked).request_id)
    deadline = time.monotonic() + SEAL_SECONDS * studies
    for request in filed:
        while (answer := answer_of(store, request)) is None:
            stack.check()
            if time.monotonic() > deadline:
                message = f"request {request} was not sealed in time"
                raise RuntimeError(message)
            time.sleep(0.2)
        if answer.refused:
            raise RuntimeError(answer.message)


def form(dag: str, *, trials: int, devices: int, chunk_size: int) -> dict[str, Any]:
    """Fill in the night's trigger form."""
    if dag == ROUNDS:
        return {"trials_per_round": min(256, -(-trials // 3))}
    return {"devices": ["cpu"] * devices, "max_trials": -(-trials // devices), "chunk_size": chunk_size}


def play(stack: Stack, dag: str, conf: Mapping[str, Any]) -> str:
    """Run one night to its end; the state of the run."""
    rest = stack.access.rest()
    await_dag(rest, dag, stack.check)
    rest.pause(dag, False)
    run_id, states = rest.trigger(dag, dict(conf)), ["queued"]
    for state in rest.wait(dag, run_id):
        stack.check()
        states.append(state)
    return states[-1]


def spans(stack: Stack, dag: str) -> dict[str, tuple[float, float]]:
    """Begin and end of the night's stages, seconds since 1970; each begins where the one before it has ended."""
    with contextlib.closing(stack.server.connect("airflow", "airflow")) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT task_id, extract(epoch FROM start_date)::float8, extract(epoch FROM end_date)::float8 "
            "FROM task_instance WHERE dag_id = %s AND start_date IS NOT NULL AND end_date IS NOT NULL",
            [dag],
        )
        found = cursor.fetchall()
    stages: dict[str, list[tuple[float, float]]] = {"train": [], "best_models": [], "release": []}
    for task_id, start, end in found:
        name = "train" if task_id.startswith(TRAINING) else task_id.partition(".")[0]
        stages[name].append((start, end))
    spans, last = {}, min(start for start, _ in stages["train"])
    for name, times in stages.items():
        end = max((end for _, end in times), default=last)
        spans[name] = (last, max(end, last))
        last = spans[name][1]
    return spans


def results(stack: Stack, dag: str) -> dict[str, Any]:
    """Count what came out: trials, verdicts, readings, models in production, starts of tasks."""
    queries = {
        "trials": "SELECT lower(state), count(*) FROM work.trials GROUP BY 1 ORDER BY 1",
        "verdicts": "SELECT symbol, count(*) FROM work.gate_verdicts GROUP BY 1 ORDER BY 1",
        "answers": "SELECT r.kind || CASE WHEN a.refused THEN ' refused' ELSE '' END, count(*) "
        "FROM work.answers a JOIN work.requests r ON r.id = a.request_id GROUP BY 1 ORDER BY 1",
    }
    found: dict[str, Any] = {}
    with contextlib.closing(stack.server.connect(database="easeml")) as connection, connection.cursor() as cursor:
        for name, query in queries.items():
            cursor.execute(query)
            found[name] = dict(cursor.fetchall())
        cursor.execute("SELECT count(*) FROM work.production")
        ((found["in_production"],),) = cursor.fetchall()
    with contextlib.closing(stack.server.connect("airflow", "airflow")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(state, 'none') FROM task_instance WHERE dag_id = %s", [dag])
        found["tasks"] = dict(Counter(state for (state,) in cursor.fetchall()))
    return found


@contextlib.contextmanager
def running(options: Sequence[str]) -> Iterator[Stack]:
    """A separate stack, gone at the end."""
    with throwaway_folder() as folder:
        progress = Progress(Console(stderr=True, highlight=False))
        try:
            with Stack(Places.of(folder / "home"), progress, referee_options=options) as stack:
                yield stack
        finally:
            Server(folder / "home" / "postgres").stop()


def measure(
    *, studies: int, trials: int, devices: int, chunk_size: int, dag: str, referee: Sequence[str]
) -> dict[str, Any]:
    """Play the night and give its stages and what came out."""
    began = time.time()
    with running(referee) as stack, Meter(stack) as meter:
        up = time.time()
        store = Store(stack.access.worker_url)
        register(stack, store, studies=studies, candidates=max(1, min(len(CHEAP), -(-trials // studies))))
        registered = time.time()
        state = play(stack, dag, form(dag, trials=trials, devices=devices, chunk_size=chunk_size))
        ended = time.time()
        time.sleep(2 * EVERY_SECONDS)
        found = results(stack, dag)
        times = {"register and seal": (up, registered), **spans(stack, dag), "whole night": (registered, ended)}
        store.close()
    stages = [_stage(name, meter.between(*span), span) for name, span in times.items()]
    return {
        "studies": studies,
        "trials": trials,
        "devices": devices,
        "dag": dag,
        "state": state,
        "stack_seconds": up - began,
        "stages": [asdict(stage) for stage in stages],
        "results": found,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
    }


def _stage(name: str, parts: dict[str, float], span: tuple[float, float]) -> Stage:
    return Stage(name, span[1] - span[0], sum(parts.values()), parts)


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print the table of stages."""
    names = list(found["stages"][0]["parts"])
    title = f"{found['dag']}: {found['studies']:,} studies, {found['trials']:,} trials, {found['devices']} devices"
    table = Table(title=title, title_justify="left")
    for heading in ("stage", "wall s", "CPU s", *names):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in found["stages"]:
        figures = (stage["wall_seconds"], stage["cpu_seconds"], *(stage["parts"][n] for n in names))
        table.add_row(stage["name"], *(f"{figure:,.1f}" for figure in figures))
    console.print(table)
    for name, value in found["results"].items():
        console.print(f"{name}: {value}")
    console.print(f"The tasks' processes are below the scheduler. Cores and load: {found['machine']}")


def keep(found: Mapping[str, Any], path: Path = RESULTS) -> None:
    """Write the stages into the file of results; those of another number of studies, or another DAG, stay."""
    night = {name: str(found[name]) for name in NIGHT}
    kept = [row for row in read_rows(path) if any(row[name] != value for name, value in night.items())]
    for stage in found["stages"]:
        parts = {part: f"{stage['parts'].get(part, 0.0):.1f}" for part in PARTS}
        seconds = {"wall_seconds": f"{stage['wall_seconds']:.1f}", "cpu_seconds": f"{stage['cpu_seconds']:.1f}"}
        kept.append(night | {"stage": stage["name"]} | seconds | parts | {"load": f"{found['machine']['load']:.1f}"})
    kept.sort(key=lambda row: (row["dag"], int(row["studies"])))  # stages stay in their order
    write_rows(path, kept, [*NIGHT, "stage", "wall_seconds", "cpu_seconds", *PARTS, "load"])


@click.command(help=__doc__)
@click.option("--studies", default=8, show_default=True, type=click.IntRange(1, 100_000))
@click.option(
    "--trials", type=click.IntRange(1, 1_000_000), help="Of all studies together; twice the studies by default."
)
@click.option("--devices", default=2, show_default=True, type=click.IntRange(1, 64))
@click.option("--chunk-size", default=200, show_default=True, type=click.IntRange(1, 1000))
@click.option("--dag", type=click.Choice([AT_SCALE, ROUNDS]), default=AT_SCALE, show_default=True)
@click.option("--referee", default="", help="Further options of `easeml referee`, such as `--workers 2`.")
@click.option(
    "--save", is_flag=True, help="Keep the stages in benchmarks/results/night.csv, in place of the same night's."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(
    studies: int,
    trials: int | None,
    devices: int,
    chunk_size: int,
    dag: str,
    referee: str,
    save: bool,
    as_json: bool,
) -> None:
    """Play the night."""
    found = measure(
        studies=studies,
        trials=2 * studies if trials is None else trials,
        devices=devices,
        chunk_size=chunk_size,
        dag=dag,
        referee=referee.split(),
    )
    if save:
        keep(found)
    if as_json:
        show_json(found)
    else:
        show(found, Console(width=150, highlight=False))


if __name__ == "__main__":
    main()
