"""Rounds on a whole stack: DAG runs at work, one fault, and a look at whether all comes back without a person."""

from __future__ import annotations

import os
import random
import shutil
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg2
from fault_checks import OPEN, broken_artifacts, broken_products, broken_rows, orphans
from fault_kinds import NotReachedError
from fault_round import Round, commit, safely
from stack_kinds import CUT_SUGGESTING, KILL_SUGGESTING, STACK_FAULTS
from stack_work import StackWork
from stack_world import StackWorld, since_now

from easeml_core.errors import EasemlError
from easeml_core.store.server.server import throwaway_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USUAL_SECONDS = 25.0
"""About how long the work of a round takes without a fault."""

AT_ONCE = ("named point", KILL_SUGGESTING, CUT_SUGGESTING)
"""Faults that wait for a moment of the work: they begin within its first second."""

LIMIT_SECONDS = 300.0
_LOOK_SECONDS = 0.5
_STEPS = """SELECT 1 + (SELECT count(*) FROM work.requests) + (SELECT count(*) FROM work.answers)
  + (SELECT count(*) FROM work.suggestion_requests WHERE decided_at IS NOT NULL)
  + (SELECT count(started_at) + count(finished_at) FROM work.trials)"""
_LEFT_FOR_THE_NEXT = "trials that have not ended"
"""A night ends with trials that were handed back; the next one takes them up."""


@contextmanager
def stack_world(home: Path | None) -> Iterator[StackWorld]:
    """A stack of this state folder, or of one that is removed."""
    with ExitStack() as held:
        place = home.absolute() if home is not None else held.enter_context(throwaway_folder()) / "home"
        place.parent.mkdir(parents=True, exist_ok=True)
        with StackWorld(place).running() as world:
            warm = StackWork(world, f"warm-{int(time.time())}", random.Random(0))
            warm.start()
            warm.join(LIMIT_SECONDS)
            if warm.is_alive() or warm.broken:
                message = f"the stack does not work without a fault: {warm.broken or warm.runs}"
                raise RuntimeError(message)
            yield world


def choose(seed: int) -> tuple[str, float, random.Random]:
    """Return the fault of a seed, when it comes, and the random numbers that say how."""
    rng = random.Random(f"stack {seed}")
    names = list(STACK_FAULTS)
    fault = rng.choices(names, [STACK_FAULTS[name][1] for name in names])[0]
    return fault, rng.uniform(0.0, USUAL_SECONDS), rng


def play(world: StackWorld, seed: int, fault: str | None) -> Round:
    """Play one round."""
    chosen, after, rng = choose(seed)
    name = fault or chosen
    work = StackWork(world, f"s{seed}", rng, needs_login=name in (KILL_SUGGESTING, CUT_SUGGESTING))
    after = after / USUAL_SECONDS if name in AT_ONCE else after
    before = world.restarts()
    work.start()
    time.sleep(after)
    reached = True
    try:
        what = STACK_FAULTS[name][0](world, rng)
    except (NotReachedError, EasemlError, psycopg2.Error) as error:
        reached, what = False, str(error)
    since, ended, steps, progress = since_now(), time.monotonic(), _steps(world), None
    left = ["the round has not begun"]
    while left and time.monotonic() - ended < LIMIT_SECONDS:
        left = _left(world, work, since)
        if progress is None and (steps := steps or _steps(world)) and _steps(world) > steps:
            progress = round(time.monotonic() - ended, 2)
        if work.broken and left == work.broken:  # no later look can change it
            break
        if left:
            time.sleep(_LOOK_SECONDS)
    seconds = time.monotonic() - ended
    return Round(
        seed=seed,
        fault=name,
        what=what,
        after=round(after, 2),
        reached=reached,
        recovered=not left,
        progress=progress,
        seconds=round(seconds, 2),
        lost=_lost(world, work),
        left=left,
        orphans=safely(lambda: orphans(world.rows, world.places.artifacts)),
        restarts=max(0, world.restarts() - before),
        cores=os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 1),
        commit=commit(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        stack=True,
        work=str(work),
    )


def _steps(world: StackWorld) -> int:
    try:
        return int(world.rows(_STEPS)[0][0])
    except (EasemlError, psycopg2.Error, OSError):
        return 0


def _left(world: StackWorld, work: StackWork, since: datetime) -> list[str]:
    if work.is_alive():
        return [f"{work} is at work: {work.runs[-1:]}", *safely(world.open_tasks), *world.not_well(since)]
    if work.broken:
        return work.broken
    open_now = {what: sql for what, sql in OPEN.items() if what != _LEFT_FOR_THE_NEXT}
    return (
        world.not_well(since)
        or safely(world.open_tasks)
        or safely(lambda: [f"{what}: {found}" for what, sql in open_now.items() if (found := world.rows(sql))])
    )


def _lost(world: StackWorld, work: StackWork) -> list[str]:
    keys = world.places.referee
    artifacts = world.places.artifacts
    return [
        *safely(lambda: broken_rows(world.rows)),
        *safely(lambda: broken_artifacts(world.rows, artifacts)),
        *safely(lambda: broken_products(world.worker, world.referee, keys, artifacts)),
        *safely(work.differing),
    ]


def keep_logs(world: StackWorld, keep: Path, name: str) -> Path:
    """Copy the logs, those of tasks included; where they are."""
    target = keep / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(world.places.logs, target, ignore_dangling_symlinks=True)
    return target
