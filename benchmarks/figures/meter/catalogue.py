"""Every figure of ``docs/meter.md`` by name, the page's example of a developer who overfits, and durations."""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.meter.meter import Answered, read_submission
from easeml_core.settings.config import MeterConfig
from figures.blocks import FOLDER, embedded, shown, table
from figures.commands import Command, session
from figures.meter.promises import attack, cifar, ladder, validation
from figures.meter.sizes import labels, plan, sizes, tails

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from figures.commands import SessionRunner


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


USEFUL, NOISE = 8, 400
STRENGTH = 0.5
"""How far a useful feature lies from 0 in the direction of the label, in its standard deviations."""
VALIDATION, TEST, SUBMISSIONS, FRESH, SEED = 200, 5_000, 20, 20_000, 7
SHOWN = 27
"""Lines of the replay: up to the first alert."""
HISTORY, PICTURE = "history.csv", "meter-replay.png"

_RANGES = ("--ranges", "0.1,0.3", "--tolerance", "0.03", "--reliability", "0.99", "--steps", "20")
_SETTINGS = (*_RANGES, "--ambiguous", "10", "--tail", "clopper-pearson")
PLAN = Command(("meter", "plan", *_SETTINGS, "--error-rate", "0.2"))
REPLAY = Command(
    (
        *("meter", "replay", "--history", HISTORY, "--test-size", str(TEST), *_SETTINGS),
        *("--budget", "two yellow in a row", "--plot", f"{FOLDER}/{PICTURE}"),
    )
)


@dataclass(frozen=True, slots=True)
class Step:
    """One submission.

    Attributes:
        validation_loss: Share of wrong answers on the validation set.
        test_errors: Wrong answers on the sealed set.
        true_gap: Loss on a large fresh sample minus validation loss.
    """

    validation_loss: float
    test_errors: int
    true_gap: float


def history(rng: np.random.Generator, *, validation: int, test: int, submissions: int, fresh: int) -> list[Step]:
    """Submissions of a developer who adds, each time, the feature that lowers the validation loss most.

    Features are Gaussian; a few tell something of the label, the others nothing. The classifier is the sign of the sum
    of the chosen features, each with its sign on the validation set.

    Args:
        rng: Seeded.
        validation: Rows of the validation set, on which every choice is made.
        test: Rows of the sealed set.
        submissions: How many models are handed in.
        fresh: Rows of the sample that stands for the truth.
    """
    open_rows, labels = _rows(rng, validation)
    signs = np.sign(labels @ open_rows)
    votes = [open_rows * signs * labels[:, None]]
    for size in (test, fresh):
        rows, truth = _rows(rng, size)
        votes.append(rows * signs * truth[:, None])
    chosen: list[int] = []
    found = []
    for _ in range(submissions):
        chosen.append(_best(votes[0], chosen))
        losses = [float((part[:, chosen].sum(axis=1) <= 0).mean()) for part in votes]
        found.append(Step(losses[0], round(losses[1] * test), losses[2] - losses[0]))
    return found


def _rows(rng: np.random.Generator, size: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    labels = rng.integers(0, 2, size) * 2 - 1
    rows = rng.standard_normal((size, USEFUL + NOISE))
    rows[:, :USEFUL] += STRENGTH * labels[:, None]
    return rows, labels


def _best(margins: NDArray[np.float64], chosen: list[int]) -> int:
    """The feature not yet chosen with which fewest validation rows are wrong; the larger margin among equals."""
    total = margins[:, chosen].sum(axis=1) if chosen else np.zeros(len(margins))
    together = total[:, None] + margins
    wrong = (together <= 0).mean(axis=0) - 1e-6 * together.mean(axis=0)
    wrong[chosen] = np.inf
    return int(np.argmin(wrong))


def steps() -> list[Step]:
    """The developer's submissions, always the same."""
    return history(np.random.default_rng(SEED), validation=VALIDATION, test=TEST, submissions=SUBMISSIONS, fresh=FRESH)


def recorded(runner: SessionRunner) -> str:
    """Write the history and show it."""
    with (runner.folder / HISTORY).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["submission", "validation_loss", "test_errors"])
        for number, step in enumerate(steps(), start=1):
            writer.writerow([number, f"{step.validation_loss:g}", step.test_errors])
    return f"```\n{(runner.folder / HISTORY).read_text(encoding='utf-8').rstrip()}\n```"


def replayed(runner: SessionRunner) -> str:
    """The replay, its plot, and the truth beside it."""
    recorded(runner)
    answers = session(REPLAY, lines=SHOWN)(runner)
    return f"{answers}\n\n{embedded(PICTURE, 'Measured gaps with their tolerance over the ranges')}"


def truth(runner: SessionRunner) -> str:
    """What a large fresh sample says of some submissions."""
    recorded(runner)
    found = steps()
    signals = [r["signal"] for r in runner.answer(Command((*REPLAY.words, "--json")))["readings"]]
    rows = [
        [
            str(number),
            f"{step.validation_loss:.3f}",
            f"{step.validation_loss + step.true_gap:.3f}",
            f"{step.true_gap:.3f}",
            str(signal),
        ]
        for number, (step, signal) in enumerate(zip(found, signals, strict=False), start=1)
        if number in (1, 3, 6, 8, 9, 12, 16, 20)
    ]
    return table(["submission", "validation loss", "true loss", "true gap", "signal"], rows)


FIGURES: Mapping[str, Callable[[SessionRunner], str]] = {
    "example-plan": session(PLAN),
    "example-history": recorded,
    "example-replay": replayed,
    "example-truth": truth,
    "sizes": sizes,
    "labels": labels,
    "tails": tails,
    "validation": validation,
    "attack": attack,
    "cifar": cifar,
    "ladder": ladder,
    "speed": speed,
}
"""Name of the block in the page, and what makes it."""

NEED_DATA = frozenset({"cifar", "ladder"})
"""Figures that read the published data."""
