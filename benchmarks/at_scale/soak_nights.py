"""Nights back to back on a real Airflow: do memory, files, connections and logs of the long-lived processes stay flat?

    python benchmarks/at_scale/soak_nights.py --nights 24 --studies 4

The stack of ``night.py`` plays small nights one after the other, each of which counts as an hour: an installation that
trains anew every hour, without the pauses. Between two nights pages are asked for, event streams are opened and closed,
and every process is read: memory (PSS: shared pages are divided among those that share them), file descriptors, threads
and connections; and for the installation temporary files, segments of shared memory and bytes of logs. A line is fitted
to what follows the first quarter; a slope whose interval (95 %) lies above 0 by more than the limit is a leak.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import psutil
from scipy.stats import t as student

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import night
from stack.rest import RestError

from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.register import register_study
from easeml_core.store.database import Store
from easeml_core.store.server.cluster import find_postmaster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stack.launcher import Stack
    from stack.rest import Rest

RESULTS = Path(__file__).resolve().parents[1] / "results" / "soak.jsonl"
GATE = {"condition": "n > 0.5 +/- 0.4", "reliability": 0.9, "steps": 64, "adaptivity": "recycle"}
METER = {"ranges": [0.4], "tolerance": 0.3, "reliability": 0.9, "steps": 64, "ambiguous": 2}
PARTS = ("referee", "triggerer", "api-server", "scheduler", "dag-processor", "task-api-server", "database")
WATCHED = ("referee", "triggerer", "api-server")
"""Parts whose slope is judged: the others are Airflow's and PostgreSQL's own."""

LEAK_MB = 1.0
"""Megabytes an hour from which on the lower end of a slope's interval is called a leak: 24 MB a day."""

PAGES = ("/easeml/", "/easeml/studies/t00000", "/easeml/compute", "/easeml/audit", "/easeml/health")
LOOKS = 5
"""Times that each page is asked for between two nights."""


def register(stack: Stack, store: Store, *, studies: int, nights: int) -> None:
    """Register studies with one candidate for each night and some to spare."""
    kinds = [
        {
            "name": f"tree-{n}",
            "kind": "decision_tree",
            "parameters": {"max_depth": 1 + n % 12, "min_samples_leaf": 1 + n},
        }
        for n in range(nights + 4)
    ]
    filed = []
    for number in range(studies):
        name = f"t{number:05d}"
        night.write_table(stack.places.data / name / "table.csv", number)
        asked: dict[str, Any] = {"tenant": name, "source": "csv:table.csv", "target": "label", "gate": GATE}
        asked |= {"meter": METER, "candidates": kinds, "request_key": f"register/{name}"}
        filed.append(register_study(store, study=name, **asked).request_id)
    deadline = time.monotonic() + night.SEAL_SECONDS * studies
    for request in filed:
        while (answer := answer_of(store, request)) is None and time.monotonic() < deadline:
            stack.check()
            time.sleep(0.2)
        if answer is None or answer.refused:
            message = f"request {request} was not sealed: {answer}"
            raise RuntimeError(message)


def read(stack: Stack) -> dict[str, Any]:
    """What each part uses now, and what the installation has left about."""
    roots = {running.component.name: running.process.pid for running in stack.processes.running}
    postmaster = find_postmaster(stack.server.data)
    if postmaster is not None:
        roots["database"] = postmaster.pid
    parts = {name: _used(pid) for name, pid in roots.items() if name in PARTS}
    logs = [path for path in stack.places.logs.rglob("*") if path.is_file()]
    return {
        "parts": parts,
        "connections": _connections(stack),
        "temporary": len(os.listdir(tempfile.gettempdir())),
        "segments": len([name for name in os.listdir("/dev/shm") if not name.startswith("easeml-throwaway")]),  # noqa: S108 - it is only listed
        "log_mb": round(sum(path.stat().st_size for path in logs) / 1e6, 3),
    }


def _used(pid: int) -> dict[str, float]:
    """Of the process and all below it, but tasks that come and go."""
    found = {"pss_mb": 0.0, "rss_mb": 0.0, "files": 0.0, "threads": 0.0, "processes": 0.0}
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory = process.memory_full_info()
                found["pss_mb"] += memory.pss / 1e6
                found["rss_mb"] += memory.rss / 1e6
                found["files"] += process.num_fds()
                found["threads"] += process.num_threads()
                found["processes"] += 1
    return found


def _connections(stack: Stack) -> int:
    with contextlib.closing(stack.server.connect(database="easeml")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
        ((number,),) = cursor.fetchall()
    return int(number) - 1


def look(rest: Rest) -> int:
    """Ask for pages and hold event streams open for a moment, as people do; how many answered."""
    answered = 0
    for _ in range(LOOKS):
        for path in PAGES:
            with contextlib.suppress(RestError, OSError), rest._open("GET", path, None, 30) as response:
                response.read()
                answered += 1
        with contextlib.suppress(RestError, OSError), rest._open("GET", "/easeml/events", None, 5) as response:
            response.read(8)
            answered += 1
    return answered


def measure(*, nights: int, studies: int, devices: int) -> Iterator[dict[str, Any]]:
    """Play the nights, and give a reading after each."""
    with night.running(["--answer-delay", "0"]) as stack, contextlib.closing(Store(stack.access.worker_url)) as store:
        register(stack, store, studies=studies, nights=nights)
        rest, began = stack.access.rest(), time.monotonic()
        for number in range(nights):
            form = night.form(night.AT_SCALE, trials=studies, devices=devices, chunk_size=64)
            state = night.play(stack, night.AT_SCALE, form)
            rest.log_in()
            answered = look(rest)
            found = {"kind": "soak", "night": number, "state": state, "answered": answered, **read(stack)}
            trials = night.results(stack, night.AT_SCALE)["trials"]
            yield {**found, "trials": trials, "at": round(time.monotonic() - began, 1)}


def slopes(readings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fit a line to each figure over the nights, the first quarter left out; slope an hour with its interval (95 %)."""
    kept = readings[len(readings) // 4 :]
    series = {
        (part, figure): [reading["parts"][part][figure] for reading in kept]
        for part in kept[0]["parts"] if all(part in reading["parts"] for reading in kept)
        for figure in ("pss_mb", "files", "threads")
    }  # fmt: skip
    for figure in ("connections", "temporary", "segments", "log_mb"):
        series["installation", figure] = [reading[figure] for reading in kept]
    return [{"part": part, "figure": figure, **_line(values)} for (part, figure), values in series.items()]


def _line(values: Sequence[float]) -> dict[str, float]:
    """Least squares over whole numbers; without an interval for fewer than three."""
    hours = np.arange(len(values), dtype=float)
    if len(values) < 3:
        return {"first": values[0], "last": values[-1], "slope": float("nan"), "low": -np.inf, "high": np.inf}
    slope, start = np.polyfit(hours, values, 1)
    rest = np.asarray(values) - (start + slope * hours)
    spread = np.sqrt((rest**2).sum() / (len(values) - 2) / ((hours - hours.mean()) ** 2).sum())
    half = float(student.ppf(0.975, len(values) - 2) * spread)
    named = {"first": values[0], "last": values[-1], "slope": float(slope)}
    return {name: round(x, 3) for name, x in {**named, "low": slope - half, "high": slope + half}.items()}


def leaks(found: Sequence[dict[str, Any]]) -> list[str]:
    """What grows: memory of our own processes beyond the limit, or files, threads, connections and segments at all."""
    said = []
    for line in found:
        is_ours = line["part"] in (*WATCHED, "installation") and line["figure"] != "log_mb"
        if is_ours and line["low"] > (LEAK_MB if line["figure"] == "pss_mb" else 0.05):
            said.append(f"{line['part']}: {line['figure']} grows by {line['slope']:.2f} an hour")
    return said


@click.command(help=__doc__)
@click.option("--nights", default=8, show_default=True, type=click.IntRange(1, 1000), help="Each counts as an hour.")
@click.option("--studies", default=4, show_default=True, type=click.IntRange(1, 1000))
@click.option("--devices", default=2, show_default=True, type=click.IntRange(1, 64))
@click.option("--save", is_flag=True, help="Keep the readings in benchmarks/results/soak.jsonl, in place of others.")
def main(nights: int, studies: int, devices: int, save: bool) -> None:
    """Play and print."""
    readings = []
    for reading in measure(nights=nights, studies=studies, devices=devices):
        readings.append(reading)
        memory = ", ".join(f"{part} {reading['parts'][part]['pss_mb']:.0f} MB" for part in WATCHED)
        click.echo(f"night {reading['night']} {reading['state']} after {reading['at']:.0f} s: {memory}", err=True)
    if save:
        RESULTS.write_text("".join(json.dumps(reading) + "\n" for reading in readings), encoding="utf-8")
    found = slopes(readings)
    for line in found:
        interval = f"{line['low']:+.3f} to {line['high']:+.3f}"
        values = f"{line['first']:10.2f} -> {line['last']:10.2f}   {line['slope']:+.3f} an hour ({interval})"
        click.echo(f"{line['part']:16} {line['figure']:12} {values}")
    click.echo("leaks: " + ("; ".join(leaks(found)) or "none"))


if __name__ == "__main__":
    main()
