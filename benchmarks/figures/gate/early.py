"""How many labels a verdict takes when it stops as soon as it can."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.display.figures import COLOURS
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import Decision
from easeml_core.gate.judge import judge_predictions
from figures.gate.errors import sequence
from figures.gate.plans import BOTH, GAIN, plan
from figures.markdown import shown, table
from figures.pictures import canvas, saved

if TYPE_CHECKING:
    from figures.sessions import SessionRunner

DISAGREEMENT, ACCURACY = 0.1, 0.9
GAINS = (0.0, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05, 0.06)
TRUE_GAIN = 0.04
POWER, BATCH = 0.9, 10
PUBLISHED, PUBLISHED_VALID = 2188, 2905
"""Labels of one submission in the paper, and with the multiplicity that it leaves out (32 steps, none)."""


def law_of(condition: str, value: float) -> tuple[float, ...]:
    """A law of one example: n - o of the value with d = .1 throughout, or for ``n > c`` an accuracy of the value."""
    if parse_condition(condition).needs_agreements:
        return value, 0.0, 0.0, 1 - value, 0.0
    wins, losses = (DISAGREEMENT + value) / 2, (DISAGREEMENT - value) / 2
    return ACCURACY - wins, wins, losses, 1 - ACCURACY - losses, 0.0


def early_decisions(
    condition: str, value: float, *, examples: int, log_level: float, runs: int, power: float | None = None, batch: int
) -> list[Decision]:
    """Verdicts on random sets of a law, stopped early; seeded by the run."""
    parsed, law = parse_condition(condition), law_of(condition, value)
    found = []
    for run in range(runs):
        labels, old, new = sequence(np.random.default_rng((run, round(1000 * value))), law, examples)
        judged = judge_predictions(
            parsed,
            labels,
            old,
            new,
            log_level=log_level,
            mode="fp-free",
            sampling="early",
            power=power,
            batch=batch,
        )
        assert isinstance(judged, Decision)  # all labels are there
        found.append(judged)
    return found


def early_labels(condition: str, value: float, *, examples: int, log_level: float, runs: int) -> float:
    """Mean labels of a verdict."""
    batch = 100 if parse_condition(condition).needs_agreements else BATCH
    found = early_decisions(condition, value, examples=examples, log_level=log_level, runs=runs, batch=batch)
    return float(np.mean([decision.labels for decision in found]))


def early(runner: SessionRunner) -> str:
    """Mean labels, and the share of passes, over the true gain: as planned, and with futility at another power."""
    commands = [plan(BOTH, "none", power=power) for power in ("same", POWER)]
    strict, cheap = (runner.answer(command) for command in commands)
    log_level = strict["log_level"]
    figure, (left, right) = canvas(2)
    at_gain = {}
    for colour, (name, size, power) in zip(
        COLOURS,
        (
            ("planned and stopped as reliability", strict["labels"], None),
            ("planned as reliability, stopped at .9", strict["labels"], POWER),
            ("planned and stopped at .9", cheap["labels"], POWER),
        ),
        strict=False,
    ):
        labels, passes = _over_gains(size, log_level, power, runs=3 * runner.repeats)
        left.plot(GAINS, labels, color=colour, label=name)
        right.plot(GAINS, passes, color=colour, label=name)
        at_gain[name] = (labels[GAINS.index(TRUE_GAIN)], 100 * passes[GAINS.index(TRUE_GAIN)])
    for answer, colour, name in ((strict, COLOURS[0], "as reliability"), (cheap, COLOURS[2], ".9")):
        size = answer["labels"] * DISAGREEMENT
        left.axhline(size, color=colour, linestyle="--", linewidth=0.9, label=f"all disagreements, planned {name}")
    left.axhline(PUBLISHED_VALID, color=COLOURS[7], linestyle=":", label="published, with multiplicity")
    for axes in (left, right):
        axes.axvline(0.02, color=COLOURS[7], linewidth=0.8)
        axes.set(xlabel="true n - o")
    left.set(ylabel="mean labels of one verdict", ylim=(0, 4600))
    right.set(ylabel="share of passes", ylim=(-0.02, 1.02))
    left.legend(frameon=False, fontsize=8, loc="upper left")
    figure.suptitle(f"{GAIN}, true d = .1, 32 steps, none, ln level {log_level:.2f}", fontsize=9)
    picture = saved(runner, figure, "gate-early.png", "Labels and passes over the true gain")
    rows = [[name, f"{mean:,.0f}", f"{share:.0f} %"] for name, (mean, share) in at_gain.items()]
    found = table(["at a true gain of .04", "mean labels", "passes"], rows)
    return f"{picture}\n\n{found}\n\n{_headline(strict, runs=30 * runner.repeats)}\n\n{shown(commands)}"


def _over_gains(size: int, log_level: float, power: float | None, *, runs: int) -> tuple[list[float], list[float]]:
    """Mean labels and share of passes at each of ``GAINS``."""
    found = [
        early_decisions(GAIN, gain, examples=size, log_level=log_level, runs=runs, power=power, batch=BATCH)
        for gain in GAINS
    ]
    labels = [float(np.mean([decision.labels for decision in decisions])) for decisions in found]
    return labels, [float(np.mean([decision.passed for decision in decisions])) for decisions in found]


def _headline(answer: dict[str, Any], *, runs: int) -> str:
    """The mean at a true gain of .04, from more sets, beside the published numbers."""
    levels = {"log_level": answer["log_level"], "batch": BATCH}
    drawn = early_decisions(GAIN, TRUE_GAIN, examples=answer["labels"], runs=runs, **levels)
    used = [decision.labels for decision in drawn]
    return (
        f"From {runs:,} sets, stopped as reliability: {np.mean(used):,.0f} labels on average (standard error "
        f"{np.std(used) / math.sqrt(runs):.0f}). Published: {PUBLISHED:,}, and {PUBLISHED_VALID:,} with the "
        "multiplicity that it leaves out."
    )
