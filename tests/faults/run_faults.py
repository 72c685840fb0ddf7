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
import subprocess
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import psycopg2
from fault_checks import every_fault, left_over, orphans
from fault_kinds import FAULTS, NotReachedError
from fault_table import RECORD, read_rounds, table_of
from fault_world import PEOPLE, World, Worlds

from easeml_core.errors import EasemlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "faults" / "results.jsonl"
BLOCK = 16
"""Rounds of one installation."""

USUAL_SECONDS = 6.0
"""About how long the work of a round takes without a fault on an idle machine of two cores."""

LIMIT_SECONDS, LIMIT_OF_COMMAND_SECONDS = 120.0, 400.0
"""After so long a round has not recovered; `easeml referee` pads a run that took more than 10 s to 60 s."""

_LOOK_SECONDS, _CLI_SHARE, _DELAYED_SHARE = 0.2, 0.15, 0.3
_STEPS = """SELECT 1 + (SELECT count(*) FROM work.requests) + (SELECT count(*) FROM work.answers)
  + (SELECT count(*) FROM sealed.outbox) + (SELECT count(*) FROM work.feeds) + (SELECT count(*) FROM work.test_sets)
  + (SELECT count(started_at) + count(finished_at) FROM work.trials)"""
"""Steps of requests, trials, feeds and sets; more than none at any time."""


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one round.

    Attributes:
        seed: Of the round; with the block of the installation it replays.
        fault: Name of the fault.
        what: What was done, in words.
        after: Seconds from the beginning of the work to the fault.
        reached: Whether the fault could be made.
        recovered: Whether everything was done in the end.
        progress: From the end of the fault to the next step of any work, in seconds; None where all was done by then.
        seconds: From the end of the fault to the end of all work.
        lost: What must never be, and is.
        left: Work that was left over, where it has not recovered.
        orphans: Files of artifacts that no row names.
        restarts: How often a part was started again, and the server.
        cores: Of the machine.
        load: Its average of a minute.
        commit: Of the program.
        at: When it ended, ISO 8601, UTC.
    """

    seed: int
    fault: str
    what: str
    after: float
    reached: bool
    recovered: bool
    progress: float | None
    seconds: float
    lost: list[str]
    left: list[str]
    orphans: list[str]
    restarts: int
    cores: int
    load: float
    commit: str
    at: str

    @property
    def is_sound(self) -> bool:
        """Whether it recovered and nothing was lost."""
        return self.recovered and not self.lost


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
        orphans=_safely(lambda: orphans(world.rows, world.artifacts)),
        restarts=_restarts(world) + people.restarts - before,
        cores=os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 1),
        commit=_commit(),
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
    return [f"{name} does not run" for name in down] or _safely(lambda: left_over(world.rows))


def _lost(world: World, studies: list[str]) -> list[str]:
    places = {"keys": world.keys, "artifacts": world.artifacts, "journal": world.folder / "journal"}
    return _safely(lambda: every_fault(world.rows, world.worker, world.referee, **places, studies=studies))


def _safely(look: Callable[[], list[str]]) -> list[str]:
    try:
        return look()
    except (EasemlError, psycopg2.Error, OSError) as error:
        return [f"it cannot be asked: {type(error).__name__}: {error}"]


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def blocks(first: int, count: int) -> Iterator[list[int]]:
    """Return the seeds of each installation: a block begins at a multiple of its size."""
    seeds = range(first, first + count)
    for start in range(first - first % BLOCK, first + count, BLOCK):
        if found := [s for s in range(start, start + BLOCK) if s in seeds]:
            yield found


@click.command(help=__doc__)
@click.option("--rounds", default=24, show_default=True, type=click.IntRange(1))
@click.option(
    "--seed", type=click.IntRange(0), help="Of the first round; default: the one after the last that was played."
)
@click.option("--fault", type=click.Choice(list(FAULTS)), help="This fault in every round.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--seconds", type=float, default=float("inf"), help="Begin no further round after so long.")
def main(rounds: int, seed: int | None, fault: str | None, results: Path, seconds: float) -> None:
    """Play, print and end with 1 where a round is not sound."""
    for name in (signal.SIGINT, signal.SIGTERM):  # a shell may have it ignored: what was started is ended all the same
        signal.signal(name, signal.default_int_handler)
    earlier = [*read_rounds(RECORD), *read_rounds(results)]
    first = seed if seed is not None else max((r["seed"] for r in earlier), default=0) + 1
    results.parent.mkdir(parents=True, exist_ok=True)
    broken, played, began = 0, [], time.monotonic()
    with Worlds(results.parent) as worlds:
        for block in blocks(first, rounds):
            if time.monotonic() - began > seconds:
                break
            rng = random.Random(f"installation {block[0] // BLOCK}")
            options = {"delay": 1.0 if rng.random() < _DELAYED_SHARE else 0.0, "with_cli": rng.random() < _CLI_SHARE}
            with worlds.new(**options) as world:
                studies = [f"warm-{block[0]}"]
                warm_up(world, studies[0])
                for one in block:
                    found = play(world, one, fault, studies)
                    played.append(asdict(found))
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(found)) + "\n")
                    click.echo(_line(found))
                    if not found.is_sound:
                        broken += 1
                        kept = worlds.keep_logs(world, f"seed-{one}")
                        with_fault = f" --fault '{fault}'" if fault else ""
                        click.echo(f"  logs: {kept}")
                        click.echo(
                            f"  again: make test-faults SEED={block[0]} ROUNDS={one - block[0] + 1}"
                            + (f' FAULTS_ARGS="{with_fault.strip()}"' if fault else "")
                        )
                        break  # what follows in this installation would say the same once more
                    if time.monotonic() - began > seconds:
                        break
    click.echo(table_of(played))
    raise SystemExit(1 if broken else 0)


def _line(found: Round) -> str:
    state = "sound" if found.is_sound else "LOST" if found.recovered else "NOT RECOVERED"
    state = state if found.reached or not found.is_sound else "not reached"
    lines = [f"{found.seed:>5}  {state:<13} {found.seconds:6.1f} s  {found.fault}: {found.what}"]
    return "\n".join([*lines, *(f"       {line}" for line in [*found.lost, *found.left])])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
