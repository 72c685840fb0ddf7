"""One round of faults: what came of it, as a line of the record and for people."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from easeml_core.errors import EasemlError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]


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
        stack: Whether it was played on a whole stack, with Airflow.
        work: What was at work, on a whole stack.
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
    stack: bool = False
    work: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether it recovered and nothing was lost."""
        return self.recovered and not self.lost


def commit() -> str:
    """Return the commit of the program, short."""
    done = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def safely(look: Callable[[], list[str]]) -> list[str]:
    """Return what a look finds; that nothing can be asked is found, too."""
    try:
        return look()
    except (EasemlError, psycopg2.Error, OSError) as error:
        return [f"it cannot be asked: {type(error).__name__}: {error}"]


def line_of(found: Round) -> str:
    """Return a round in a line, with what was lost and what is left below it."""
    state = "sound" if found.is_sound else "LOST" if found.recovered else "NOT RECOVERED"
    state = state if found.reached or not found.is_sound else "not reached"
    lines = [f"{found.seed:>5}  {state:<13} {found.seconds:6.1f} s  {found.fault}: {found.what}"]
    return "\n".join([*lines, *(f"       {line}" for line in [*found.lost, *found.left])])
