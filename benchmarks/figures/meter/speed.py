"""How long plans and readings take."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from easeml_core.config import MeterConfig
from easeml_core.meter.meter import Answered, read_submission
from figures.commands import Command
from figures.markdown import shown, table
from figures.meter.plans import plan

if TYPE_CHECKING:
    from figures.sessions import SessionRunner

STEPS, TRIES = 10_000, 3
EXAMPLES = 20_000
NOTHING = Command(("meter", "--help"))
TAILS = ("hoeffding", "clopper-pearson")


def speed(_runner: SessionRunner) -> str:
    """Seconds of plans with all alternatives, each in a separate process, and milliseconds of readings."""
    rows, commands = [], []
    for tail in TAILS:
        command = plan(tolerance=0.05, steps=STEPS, tail=tail)
        seconds = min(_whole(command) for _ in range(TRIES))
        rows.append([f"plan with all alternatives, {STEPS:,} submissions, {tail}", f"{seconds:.2f} s"])
        commands.append(command)
    rows.append(
        ["of which: the start of Python and of the command line", f"{min(_whole(NOTHING) for _ in range(TRIES)):.2f} s"]
    )
    for tail in TAILS:
        config = MeterConfig(ranges=(0.1, 0.3, 0.5, 0.7), tolerance=0.05, reliability=0.99, steps=STEPS, tail=tail)
        rows.append([f"reading, {EXAMPLES:,} labels, after 1,000 others, {tail}", f"{_reading(config):.1f} ms"])
    return f"{table(['what', 'processor time'], rows)}\n\n{shown(commands)}"


def _whole(command: Command) -> float:
    """Processor seconds of a command in a new process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", "easeml_core.cli", *command.words]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _reading(config: MeterConfig) -> float:
    """Milliseconds of one reading, the least of several tries."""
    found = []
    for k in range(TRIES):
        start = time.process_time()
        read_submission(
            errors=2_000 + k, examples=EXAMPLES, validation_loss=0.02, config=config, earlier=[Answered(1)] * 1_000
        )
        found.append(1000 * (time.process_time() - start))
    return min(found)
