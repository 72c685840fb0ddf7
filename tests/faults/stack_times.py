"""Measure on a whole stack: the database away for 60 s, `make up` after a kill of all, registrations behind gates.

    python tests/faults/stack_times.py

Prints what it measured, with the load; docs/production.md has the figures.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

from fault_people import CANDIDATES, GATE, METER, ROWS, Table
from fault_world import send
from stack_rounds import stack_world
from stack_work import StackWork
from stack_world import TENANT, since_now

from easeml_core.actions.studies import RegisterStudy
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request
from easeml_core.services.registration.register import register_study
from easeml_core.store.server.place import locked
from easeml_core.store.server.server import START_LOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack_world import StackWorld

AWAY_SECONDS, STUDIES, REGISTRATIONS = 60.0, 3, 5
_LOOK_SECONDS, _LONGEST_SECONDS = 0.1, 600.0


def until(holds: Callable[[], bool]) -> float:
    """Return the seconds until it holds.

    Raises:
        TimeoutError: If it does not for ten minutes.
    """
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > _LONGEST_SECONDS:
            raise TimeoutError
        time.sleep(_LOOK_SECONDS)
    return time.monotonic() - began


def say(what: str) -> None:
    """Print a figure with the load."""
    click.echo(f"{what} (load {os.getloadavg()[0]:.1f})")


def outage(world: StackWorld) -> None:
    """The database is away for a minute while a stream is at work."""
    work = StackWork(world, "outage", random.Random(5))
    work.start()
    time.sleep(10)
    with locked(world.server.home / START_LOCK):
        send(world.postmaster(), signal.SIGINT)
        time.sleep(AWAY_SECONDS)
        since, began = since_now(), time.monotonic()
    well = until(lambda: not world.not_well(since))
    work.join(_LONGEST_SECONDS)
    ended = time.monotonic() - began
    say(
        f"database away for {AWAY_SECONDS:.0f} s: all healthy {well:.1f} s after its return, "
        f"{work} ended after {ended:.1f}"
    )
    say(f"  what did not end well: {work.broken or 'nothing'}")


def killed(world: StackWorld) -> None:
    """Every process is killed at once while a night is at work; then `make up`."""
    work = StackWork(world, "killed", random.Random(2))
    work.start()
    time.sleep(10)
    found = world.all_processes()
    for process in found:
        send(process.pid, signal.SIGKILL)
    since, began = since_now(), time.monotonic()
    world.up()
    up = time.monotonic() - began
    until(lambda: not world.not_well(since))
    well = time.monotonic() - began
    work.join(_LONGEST_SECONDS)
    ended = time.monotonic() - began
    say(
        f"{len(found)} processes killed: make up took {up:.1f} s, all healthy after {well:.1f}, "
        f"{work} ended after {ended:.1f}"
    )
    say(f"  what did not end well: {work.broken or 'nothing'}")


def queue(world: StackWorld) -> None:
    """Registrations are filed while gates and meters wait."""
    for number in range(STUDIES):
        work = StackWork(world, f"queue-{number}", random.Random(3))
        work.run()
        if work.broken:
            raise RuntimeError(str(work.broken))
    models = world.rows("SELECT s.name, m.id FROM work.models m JOIN work.studies s ON s.id = m.study_id "
                        "WHERE s.name LIKE 'queue-%%' AND m.trial_id IS NOT NULL ORDER BY m.id")  # fmt: skip
    long = []
    for study, model in models:
        long.append(file_gate_request(world.worker, study=study, model_id=model, request_key=f"gate {model}"))
        long.append(file_meter_request(world.worker, study=study, model_id=model, request_key=f"meter {model}"))
    began, waited = time.monotonic(), []
    for number in range(REGISTRATIONS):
        ahead = sum(answer_of(world.worker, request) is None for request in long)
        waited.append((register(world, f"queued-{number}"), ahead))
    until(lambda: all(answer_of(world.worker, request) is not None for request in long))
    say(f"{len(long)} requests of gate and meter took {time.monotonic() - began:.1f} s; "
        "registrations filed meanwhile took "
        + ", ".join(f"{seconds:.1f} s ({ahead} open)" for seconds, ahead in waited)
        + f"; median {statistics.median(seconds for seconds, _ in waited):.1f} s")  # fmt: skip


def register(world: StackWorld, study: str) -> float:
    """Register a study; the seconds until it is sealed."""
    Table.of(study, 0, ROWS).write(world.places.data / TENANT / f"{study}.csv")
    wanted = RegisterStudy(
        tenant=TENANT, study=study, source=f"csv:{study}.csv", target="label", gate=GATE, meter=METER,
        candidates=[{"name": kind, "kind": kind} for kind in CANDIDATES],
    )  # fmt: skip
    filed = register_study(world.worker, wanted, request_key=study)
    return until(lambda: answer_of(world.worker, filed.request_id) is not None)


@click.command(help=__doc__)
def main() -> None:
    """Measure and print."""
    with stack_world(None) as world:
        queue(world)
        outage(world)
        killed(world)


if __name__ == "__main__":
    main()
