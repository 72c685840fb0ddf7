"""The worked example of docs/meter.md: a developer who overfits, and what the meter says to each submission."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from figures.commands import Command
from figures.markdown import table
from figures.meter_answers import session
from figures.meter_developer import Step, history
from figures.pictures import FOLDER, embedded

if TYPE_CHECKING:
    from figures.meter_answers import MeterRunner

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


def steps() -> list[Step]:
    """The developer's submissions, always the same."""
    return history(np.random.default_rng(SEED), validation=VALIDATION, test=TEST, submissions=SUBMISSIONS, fresh=FRESH)


def recorded(runner: MeterRunner) -> str:
    """Write the history and show it."""
    with (runner.folder / HISTORY).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["submission", "validation_loss", "test_errors"])
        for number, step in enumerate(steps(), start=1):
            writer.writerow([number, f"{step.validation_loss:g}", step.test_errors])
    return f"```\n{(runner.folder / HISTORY).read_text(encoding='utf-8').rstrip()}\n```"


def replayed(runner: MeterRunner) -> str:
    """The replay, its plot, and the truth beside it."""
    recorded(runner)
    answers = session(REPLAY, lines=SHOWN)(runner)
    return f"{answers}\n\n{embedded(PICTURE, 'Measured gaps with their tolerance over the ranges')}"


def truth(runner: MeterRunner) -> str:
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
