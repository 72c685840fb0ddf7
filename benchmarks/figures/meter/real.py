"""The meter on published data: 30 image classifiers, and an attack on a leaderboard."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from easeml_core.config import MeterConfig
from easeml_core.meter.meter import Answered, read_submission
from figures.commands import Command
from figures.gate.cifar import read_models
from figures.markdown import shown, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from figures.gate.cifar import Models
    from figures.sessions import SessionRunner

SEED = 101
_SETTINGS = ("--ranges", "0.03,0.3", "--tolerance", "0.1", "--reliability", "0.9", "--steps", "30")
TAILS = ("hoeffding", "clopper-pearson")
CURVE = "meter/ladder-photo/kaggleboosting-4000-400-5-highacc.csv"
CURVE_SIZE, QUERIES = 4_000, (10, 50, 100, 200, 300, 400)


def replayed(name: str, size: int, tail: str) -> Command:
    """The command that replays the file of that name."""
    words = ("meter", "replay", "--history", f"{name}.csv", "--test-size", str(size), *_SETTINGS)
    return Command((*words, "--tail", tail, "--json"))


def cifar(runner: SessionRunner) -> str:
    """Signals of 30 models on random halves of CIFAR-10's test set, and on its re-collection."""
    rows, commands = [], []
    for name, title, losses, errors, size in _pairs(runner):
        _write(runner, name, losses, errors)
        gaps = np.array(errors) / size - np.array(losses)
        for tail in TAILS:
            command = replayed(name, size, tail)
            found = runner.answer(command)
            signals = [reading["signal"] for reading in found["readings"]]
            ambiguous = sum(reading["reachable"] > 1 for reading in found["readings"])
            counts = ", ".join(f"{signals.count(s)} x {s}" for s in sorted(set(signals)))
            spread = f"{gaps.mean():.3f} ({gaps.min():.3f} to {gaps.max():.3f})"
            rows.append([title, f"{size:,}", spread, tail, counts, str(ambiguous), f"{found['final_tolerance']:.3f}"])
            commands += [command] if tail == TAILS[1] and name != "v6" else []
    header = ["D_val, D_test", "n", "gap: mean (range)", "tail", "signals", "ambiguous", "last tolerance"]
    return f"{table(header, rows)}\n\n{shown(commands, _order(runner))}"


def _order(runner: SessionRunner) -> str:
    """How alike the order of the models is on both collections."""
    old, new = (_wrong(read_models(runner.data, split)).mean(axis=1) for split in ("original", "v4"))
    return (
        f"Spearman's rank correlation of the 30 error rates, CIFAR-10 against v4: {spearmanr(old, new).statistic:.3f}."
    )


def _pairs(runner: SessionRunner) -> list[tuple[str, str, list[float], list[int], int]]:
    """Name, title, validation losses, test errors and test size of each comparison."""
    wrong = _wrong(read_models(runner.data))
    order = np.random.default_rng(SEED).permutation(wrong.shape[1])
    first, second = wrong[:, order[5_000:]], wrong[:, order[:5_000]]
    found = [("halves", "random halves of CIFAR-10's test set", first, second)]
    for split in ("v4", "v6"):
        again = _wrong(read_models(runner.data, split))
        found.append((split, f"CIFAR-10's test set, CIFAR-10.1 {split}", wrong, again))
    return [
        (name, title, visible.mean(axis=1).tolist(), hidden.sum(axis=1).tolist(), hidden.shape[1])
        for name, title, visible, hidden in found
    ]


def _wrong(models: Models) -> NDArray[np.bool_]:
    return np.not_equal(models.predictions, models.labels)


def _write(runner: SessionRunner, name: str, losses: Sequence[float], errors: Sequence[int]) -> None:
    with (runner.folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["submission", "validation_loss", "test_errors"])
        writer.writerows([k, f"{loss:.6f}", count] for k, (loss, count) in enumerate(zip(losses, errors, strict=True)))


def ladder(runner: SessionRunner) -> str:
    """Blum and Hardt's attack on a precise leaderboard: what it gained, and what a meter's tolerance covers."""
    with (runner.data / CURVE).open(newline="", encoding="utf-8") as file:
        scores = {int(r["x"]): float(r["y"]) for r in csv.DictReader(file) if r["label"] == "Kaggle"}
    config = MeterConfig(ranges=(0.1, 0.9), tolerance=0.5, reliability=0.99, steps=QUERIES[-1] + 1, tail="hoeffding")
    rows = []
    for queries in QUERIES:
        reading = read_submission(
            errors=round(CURVE_SIZE * scores[queries]),
            examples=CURVE_SIZE,
            validation_loss=0.4,
            config=config,
            earlier=[Answered(1, math.log(2))] * queries,
        )
        gained, theory = 0.5 - scores[queries], math.sqrt(queries / (2 * CURVE_SIZE)) / math.pi
        rows.append([str(queries), f"{gained:.4f}", f"{theory:.4f}", f"{reading.tolerance_now:.3f}"])
    header = ["queries", "gained by the attack", "(1/pi) sqrt(k / 2n)", "tolerance after as many ambiguous answers"]
    return table(header, rows)
