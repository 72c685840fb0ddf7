"""A developer who learns the sealed set from signals, against sizes that count for it and one that does not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.config import MeterConfig
from easeml_core.display.figures import COLOURS
from easeml_core.meter.meter import Answered, read_submission
from easeml_core.stats.binomial_bounds import clopper_pearson
from figures.markdown import table
from figures.meter.plans import RANGES, labels_by_method, plan
from figures.pictures import canvas, saved

if TYPE_CHECKING:
    from figures.sessions import SessionRunner

EPSILON = 0.05
LOG_MISS = math.log(0.001)
CASES = (("non-adaptive", 32, 10), ("pruned", 32, 10), ("non-adaptive", 100, 2), ("pruned", 100, 2))
"""Method that the set is sized by, submissions, and runs as a multiple of the runner's repeats."""


def gains(rng: np.random.Generator, *, steps: int, examples: int, runs: int) -> np.ndarray:
    """By how much the last submission seems better than a coin, which it is; shape ``(runs,)``.

    Coin models sit on a boundary, so that a signal says whether luck was with one; the vote of all, each turned to its
    lucky side, comes last.

    Args:
        rng: Seeded.
        steps: T, with the vote.
        examples: n.
        runs: Sets.
    """
    found = np.empty(runs)
    for run in range(runs):
        wrong = rng.integers(0, 2, (steps - 1, examples), dtype=np.int8)
        green = 2 * wrong.sum(axis=1, dtype=np.int64) <= examples
        votes = np.where(green[:, None], wrong, 1 - wrong).sum(axis=0)
        found[run] = 0.5 - (2 * votes > steps - 1).mean()
    return found


def answers_before_retirement(examples: int, steps: int) -> int:
    """How many of the attacker's questions a path-adaptive set answers."""
    config = MeterConfig(
        ranges=tuple(float(b) for b in RANGES.split(",")), tolerance=EPSILON, reliability=0.99, steps=steps,
        tail="hoeffding",
    )  # fmt: skip
    earlier: list[Answered] = []
    while True:
        reading = read_submission(
            errors=examples // 2, examples=examples, validation_loss=0.4, config=config, earlier=earlier
        )
        if reading.signal is None:
            return len(earlier)
        earlier.append(Answered(reading.signal, reading.log_cost))


def attack(runner: SessionRunner) -> str:
    """Table and plot of what the attack gains."""
    rows = []
    for method, steps, factor in CASES:
        size = labels_by_method(runner, plan(tolerance=EPSILON, steps=steps, method=method))[method]
        runs = factor * runner.repeats
        seen = gains(np.random.default_rng((steps, size)), steps=steps, examples=size, runs=runs)
        wrong = int((seen > EPSILON).sum())
        low, high = clopper_pearson(wrong, runs, log_level=LOG_MISS)
        predicted = math.sqrt((steps - 1) / size) / math.pi
        share = f"{wrong / runs:.3f} ({low:.3f}-{high:.3f})"
        rows.append([f"`{method}`", str(steps), f"{size:,}", f"{seen.mean():.4f}", f"{predicted:.4f}", share])
    for steps in (32, 100):
        size = labels_by_method(runner, plan(tolerance=EPSILON, steps=steps, method="path-adaptive"))["path-adaptive"]
        cells = ["", "", f"none: retired after {answers_before_retirement(size, steps)} answers"]
        rows.append(["`path-adaptive`", str(steps), f"{size:,}", *cells])
    header = ["set sized by", "submissions", "labels", "vote seems better by", "predicted", "broken promises (99.9 %)"]
    return f"{_picture(runner)}\n\n{table(header, rows)}"


def _picture(runner: SessionRunner) -> str:
    """Gain over submissions by size."""
    figure, (axes,) = canvas()
    steps = (4, 8, 16, 32, 64, 128)
    for colour, method in zip(COLOURS, ("non-adaptive", "pruned"), strict=False):
        means = []
        for count in steps:
            size = labels_by_method(runner, plan(tolerance=EPSILON, steps=count, method=method))[method]
            runs = math.ceil(runner.repeats * max(1.0, 256 / count))
            drawn = gains(np.random.default_rng((count, size, 1)), steps=count, examples=size, runs=runs)
            means.append(float(drawn.mean()))
        axes.plot(steps, means, "o-", color=colour, label=f"set sized by {method}")
    axes.axhline(EPSILON, color=COLOURS[7], linestyle="--", label="tolerance")
    axes.set(xscale="log", xlabel="submissions", ylabel="mean of what the vote seems better by", ylim=(0, None))
    axes.set_xticks(steps, [str(count) for count in steps])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return saved(runner, figure, "meter-attack.png", "What the attack gains, by submissions and size of the set")
