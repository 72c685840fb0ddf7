"""Play rounds of faults, check after each that nothing is lost, and write a line a round.

    python tests/faults/run_faults.py --rounds 24 --seed 1
    python tests/faults/run_faults.py --rounds 900 --results build/faults/results.jsonl   (goes on from the last seed)

A round begins the work of a new study, injects one fault at a moment that its seed names, and waits until everything
is quiet. Rounds of one block of seeds share an installation, so that a fault meets what earlier ones have left.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import psycopg2
from fault_checks import every_fault, left_over, orphans
from fault_kinds import FAULTS, NotReachedError
from fault_round import ROOT, Round, commit, line_of, safely
from fault_table import RECORD, RECORD_OF_STACKS, read_rounds, table_of
from fault_world import PEOPLE, World, Worlds

from easeml_core.errors import EasemlError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

RESULTS = ROOT / "build" / "faults" / "results.jsonl"
BLOCK = 16
"""Rounds of one installation."""

USUAL_SECONDS = 6.0
"""About how long the work of a round takes without a fault on an idle machine of two cores."""

_OWN_STACK = "a new one"
LIMIT_SECONDS, LIMIT_OF_COMMAND_SECONDS = 120.0, 400.0
"""After so long a round has not recovered; `easeml referee` pads a run that took more than 10 s to 60 s."""

_LOOK_SECONDS, _CLI_SHARE, _DELAYED_SHARE = 0.2, 0.15, 0.3
_STEPS = """SELECT 1 + (SELECT count(*) FROM work.requests) + (SELECT count(*) FROM work.answers)
  + (SELECT count(*) FROM sealed.outbox) + (SELECT count(*) FROM work.feeds) + (SELECT count(*) FROM work.test_sets)
  + (SELECT count(started_at) + count(finished_at) FROM work.trials)"""
"""Steps of requests, trials, feeds and sets; more than none at any time."""


def choose(seed: int) -> tuple[str, float, random.Random]:
    """Return the fault of a seed, when it comes, and the random numbers that say how."""
    rng = random.Random(seed)
    names = list(FAULTS)
    fault = rng.choices(names, [FAULTS[name][1] for name in names])[0]
    after = rng.uniform(0.0, 0.5) if fault == "named point" else rng.uniform(0.0, USUAL_SECONDS)
    return fault, after, rng


def warm_up(world: World, study: str) -> None:
    """Let all parts start and import what they need, with a study that meets no fault."""
    people, ended = world.begin(study), time.monotonic() + LIMIT_OF_COMMAND_SECONDS
    while _left(world, people.is_done):
        if time.monotonic() > ended:
            message = f"the installation does not work without a fault: {_left(world, people.is_done)}"
            raise click.ClickException(message)
        time.sleep(_LOOK_SECONDS)


def play(world: World, seed: int, fault: str | None, studies: list[str]) -> Round:
    """Play one round; all studies are looked at after it."""
    chosen, after, rng = choose(seed)
    name = fault or chosen
    before = _restarts(world)
    study = f"s{seed}"
    studies.append(study)
    people = world.begin(study)
    time.sleep(after)
    reached, what = True, ""
    try:
        what = FAULTS[name][0](world, rng)
    except (NotReachedError, EasemlError) as error:
        reached, what = False, str(error)
    ended, steps, progress = time.monotonic(), _steps(world), None
    left = ["the round has not begun"]
    limit = LIMIT_OF_COMMAND_SECONDS if world.with_cli else LIMIT_SECONDS
    while left and time.monotonic() - ended < limit:
        left = _left(world, people.is_done)
        if progress is None and (steps := steps or _steps(world)) and _steps(world) > steps:
            progress = round(time.monotonic() - ended, 2)
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
        lost=_lost(world, studies),
        left=left,
        orphans=safely(lambda: orphans(world.rows, world.artifacts)),
        restarts=_restarts(world) + people.restarts - before,
        cores=os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 1),
        commit=commit(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _restarts(world: World) -> int:
    return sum(part.restarts for part in world.parts.values() if part.name != PEOPLE) + world.server_starts


def _steps(world: World) -> int:
    """Return how many steps of any work are done; 0 where the server cannot be asked."""
    try:
        return int(world.rows(_STEPS)[0][0])
    except (EasemlError, psycopg2.Error, OSError):
        return 0


def _left(world: World, are_done: bool) -> list[str]:
    if not are_done:
        return ["people are at work"]
    down = [part.name for part in world.parts.values() if not part.is_up and not part.is_done]
    return [f"{name} does not run" for name in down] or safely(lambda: left_over(world.rows))


def _lost(world: World, studies: list[str]) -> list[str]:
    places = {"keys": world.keys, "artifacts": world.artifacts, "journal": world.folder / "journal"}
    return safely(lambda: every_fault(world.rows, world.worker, world.referee, **places, studies=studies))


def blocks(first: int, count: int) -> Iterator[list[int]]:
    """Return the seeds of each installation: a block begins at a multiple of its size."""
    seeds = range(first, first + count)
    for start in range(first - first % BLOCK, first + count, BLOCK):
        if found := [s for s in range(start, start + BLOCK) if s in seeds]:
            yield found


def without_airflow(seeds: Iterator[list[int]], fault: str | None, keep: Path) -> Generator[Round]:
    """Play blocks of rounds, each on an installation without Airflow; what follows an unsound round is left out."""
    with Worlds(keep) as worlds:
        for block in seeds:
            rng = random.Random(f"installation {block[0] // BLOCK}")
            options = {"delay": 1.0 if rng.random() < _DELAYED_SHARE else 0.0, "with_cli": rng.random() < _CLI_SHARE}
            with worlds.new(**options) as world:
                studies = [f"warm-{block[0]}"]
                warm_up(world, studies[0])
                for one in block:
                    found = play(world, one, fault, studies)
                    yield found
                    if not found.is_sound:
                        _tell_of(block, one, fault, worlds.keep_logs(world, f"seed-{one}"))
                        break


def on_stacks(seeds: Iterator[list[int]], fault: str | None, keep: Path, home: Path | None) -> Generator[Round]:
    """Play blocks of rounds on whole stacks; a new one is made after an unsound round, but not for a kept home."""
    import stack_rounds

    for block in seeds:
        with stack_rounds.stack_world(home) as world:
            for one in block:
                found = stack_rounds.play(world, one, fault)
                yield found
                if not found.is_sound:
                    _tell_of([one], one, fault, stack_rounds.keep_logs(world, keep, f"stack-{one}"), "--stack")
                    if home is None:
                        break


def _tell_of(block: list[int], one: int, fault: str | None, kept: Path, more: str = "") -> None:
    """Say where the logs of a round are, and how it is played again."""
    arguments = " ".join([more, *([f"--fault '{fault}'"] if fault else [])]).strip()
    again = f"make test-faults SEED={block[0]} ROUNDS={one - block[0] + 1}"
    click.echo(f"  logs: {kept}")
    click.echo(f"  again: {again}" + (f' FAULTS_ARGS="{arguments}"' if arguments else ""))


def _fault_names(with_airflow: bool) -> list[str]:
    if not with_airflow:
        return list(FAULTS)
    from stack_kinds import STACK_FAULTS

    return list(STACK_FAULTS)


@click.command(help=__doc__)
@click.option("--rounds", default=24, show_default=True, type=click.IntRange(1))
@click.option(
    "--seed", type=click.IntRange(0), help="Of the first round; default: the one after the last that was played."
)
@click.option("--fault", help="This fault in every round.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--seconds", type=float, default=float("inf"), help="Begin no further round after so long.")
@click.option(
    "--stack",
    is_flag=False,
    flag_value=_OWN_STACK,
    metavar="[HOME]",
    help="Play on a whole stack with Airflow: one that is made for it, or that of a state folder, which is kept.",
)
def main(rounds: int, seed: int | None, fault: str | None, results: Path, seconds: float, stack: str | None) -> None:
    """Play, print and end with 1 where a round is not sound."""
    for name in (signal.SIGINT, signal.SIGTERM):  # a shell may have it ignored: what was started is ended all the same
        signal.signal(name, signal.default_int_handler)
    is_stack = stack is not None
    if is_stack:
        sys.path.append(str(ROOT / "scripts"))
    if fault is not None and fault not in (known := _fault_names(is_stack)):
        raise click.BadParameter(f"{fault!r} is none of {', '.join(known)}", param_hint="--fault")
    recorded = read_rounds(RECORD_OF_STACKS if is_stack else RECORD)
    earlier = [r for r in (*recorded, *read_rounds(results)) if r.get("stack", False) == is_stack]
    first = seed if seed is not None else max((r["seed"] for r in earlier), default=0) + 1
    results.parent.mkdir(parents=True, exist_ok=True)
    home = Path(stack) if stack not in (None, _OWN_STACK) else None
    seeds, began, played = blocks(first, rounds), time.monotonic(), []
    with contextlib.closing(
        on_stacks(seeds, fault, results.parent, home) if is_stack else without_airflow(seeds, fault, results.parent)
    ) as playing:
        for found in playing:
            played.append(found)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(found)) + "\n")
            click.echo(line_of(found))
            if time.monotonic() - began > seconds:
                break
    click.echo(table_of([asdict(found) for found in played]))
    raise SystemExit(0 if all(found.is_sound for found in played) else 1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
