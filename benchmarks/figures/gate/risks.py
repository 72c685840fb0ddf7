"""The gate's errors: against developers who learn, at the threshold of every test, and on published models.

The labels of the attacks are fair coins. One developer asks for the majority vote of models whose answers it has seen;
the other knows part of the labels and tunes its questions (``easeml_core.gate.attack``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.entities import Verdict
from easeml_core.formats.display import COLOURS
from easeml_core.gate.attack import CONDITION, DELTA, EXAMPLES, STEPS, Attack, critical_count, false_answers
from easeml_core.gate.condition import parse_condition
from easeml_core.stats.adaptivity import Allocation, allocate
from easeml_core.stats.binomial_bounds import clopper_pearson
from figures.blocks import canvas, saved, shown, table
from figures.gate.cifar import early, fixed, read_models, tabulate
from figures.gate.errors import ALPHA, NULLS, wrong_verdicts
from figures.gate.sizes import plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from figures.commands import SessionRunner

__all__ = [
    "CONDITION",
    "DELTA",
    "EXAMPLES",
    "STEPS",
    "Allocation",
    "Attack",
    "critical_count",
    "false_answers",
    "inflation",
    "vote_counts",
]


def vote_counts(rng: np.random.Generator, *, examples: int, answers: int, runs: int) -> NDArray[np.int64]:
    """How many labels the vote of so many answered models has right, shape ``(runs,)``.

    Each model is a coin; its developer learns whether it was right on more than half of the set. A model that was not
    is as informative: its opposite was. The vote is right on a share of 1/2 + (1/pi) sqrt(answers / examples), about.

    Args:
        rng: Seeded.
        examples: N.
        answers: Models that were asked about, >= 1.
        runs: Repeats.
    """
    counts = np.empty(runs, dtype=np.int64)
    for run in range(runs):
        # Whether a coin model is right is a coin, too: the labels need not be drawn.
        right = rng.integers(0, 2, (answers, examples), dtype=np.int8)
        above = 2 * right.sum(axis=1, dtype=np.int64) > examples
        votes = np.where(above[:, None], right, 1 - right).sum(axis=0)
        ties = rng.integers(0, 2, examples)
        counts[run] = int((2 * votes + ties > answers).sum())
    return counts


def inflation(examples: int, answers: float) -> float:
    """What the vote seems to be better than 1/2, to first order: (1/pi) sqrt(answers / examples)."""
    return math.sqrt(answers / examples) / math.pi


LOG_MISS = math.log(0.001)
ANSWERS = (1, 3, 7, 15, 31, 47, 63)
ATTACKS = (
    ("delta / H, the set lives on", "none", "fp-free", 0.15, False),
    ("`full`: delta / 2^(H - 1)", "full", "fp-free", 0.3, True),
    ("`upTo:3`", "upTo:3", "fp-free", 0.15, True),
    ("`recycle`", "recycle", "fp-free", 0.15, True),
    ("`firstChange`", "firstChange", "fp-free", 0.15, True),
    ("delta / H, the set lives on", "none", "fn-free", 0.15, False),
    ("`full`: delta / 2^H", "full", "fn-free", 0.3, True),
    ("`upTo:3`", "upTo:3", "fn-free", 0.15, True),
    ("`recycle`", "recycle", "fn-free", 0.15, True),
    ("`firstChange`", "firstChange", "fn-free", 0.15, True),
)
AIMS = (0.5, 0.2, 0.05)
CIFAR = "n - o > 0.02 +/- 0.02"
CIFAR_RELIABILITY, HALF, SEEDS = 0.99, 5000, 5


def interval(count: int, runs: int) -> str:
    """A share with its 99.9 % interval of Clopper and Pearson."""
    low, high = clopper_pearson(count, runs, log_level=LOG_MISS)
    return f"{count / runs:.4f} ({low:.4f}-{high:.4f})"


def votes(runner: SessionRunner) -> str:
    """The vote of answered models: how much better it looks, and how often it passes."""
    figure, (left, right) = canvas(2)
    grid = np.linspace(0, max(ANSWERS), 200)
    for colour, examples in zip(COLOURS, (500, 1000, 5000), strict=False):
        drawn = [
            vote_counts(np.random.default_rng((examples, t)), examples=examples, answers=t, runs=10 * runner.repeats)
            for t in ANSWERS
        ]
        left.plot(grid, [inflation(examples, t) for t in grid], color=colour, linewidth=0.8)
        seen = [float(counts.mean()) / examples - 0.5 for counts in drawn]
        left.plot(ANSWERS, seen, "o", color=colour, label=f"N = {examples:,}")
        if examples != EXAMPLES:
            continue
        for style, (name, kind) in enumerate((("delta / H", "none"), ("delta / 2^(H - 1)", "full"))):
            shares = []
            for t, counts in zip(ANSWERS, drawn, strict=True):
                log_level = (
                    math.log(DELTA) - allocate(kind, t + 1, mode="fp-free", estimator="exact").log_multiplicity()
                )
                shares.append(float((counts >= critical_count(log_level, examples)).mean()))
            right.plot(ANSWERS, shares, "o-", color=COLOURS[3 + style], label=f"level {name}")
    left.set(xlabel="answers that were asked for", ylabel="mean of what the vote seems better", ylim=(0, None))
    right.set(xlabel="answers that were asked for", ylabel="share of sets on which the vote passes", ylim=(-0.02, 1.02))
    right.axhline(DELTA, color=COLOURS[7], linewidth=0.8, label="delta")
    left.legend(frameon=False)
    right.legend(frameon=False)
    return saved(runner, figure, "gate-attack.png", "The vote of answered models, by the answers asked for")


def attacks(runner: SessionRunner) -> str:
    """False answers that attacks obtain, by allocation of the level."""
    runs, rows = 20 * runner.repeats, []
    for k, (name, kind, mode, known, counted) in enumerate(ATTACKS):
        cells = []
        for aim in AIMS:
            attack = Attack(aim=aim, known=known, mode=mode)
            found = false_answers(
                np.random.default_rng((k, round(100 * aim))), attack, kind, runs=runs, counted=counted
            )
            cells.append(interval(int(found.sum()), runs))
        rows.append([name, mode, *cells])
    header = ["level of a test", "mode", *(f"changes aimed at: {aim:g}" for aim in AIMS)]
    note = (
        f"Share of {runs:,} sets of {EXAMPLES:,} examples with a false answer, delta = {DELTA:g}, {STEPS} steps; "
        "in brackets: 99.9 % intervals."
    )
    return f"{table(header, rows)}\n\n{note}"


def errors(runner: SessionRunner) -> str:
    """Wrong verdicts on the threshold."""
    rows = []
    for k, null in enumerate(NULLS):
        slow = null.sampling == "early" or null.name.startswith("weighted")
        runs = (50 if slow else 1000) * runner.repeats
        count = wrong_verdicts(null, np.random.default_rng(k), runs)
        condition = null.condition.split(" /\\ ")[0] if null.clause == 0 else null.condition
        rows.append([null.name, f"`{condition}`", f"{null.examples:,}", f"{runs:,}", interval(count, runs)])
    header = ["test", "on the threshold of", "N", "sets", f"wrong verdicts at level {ALPHA:g} (99.9 % interval)"]
    return table(header, rows)


def cifar(runner: SessionRunner) -> str:
    """Thirty published models, each against each."""
    models, condition = read_models(runner.data), parse_condition(CIFAR)
    truth, pairs = tabulate(models).gains() / models.labels.size, list(models.pairs())
    halves = [models.sample(np.random.default_rng(seed), HALF) for seed in range(SEEDS)]
    rows: list[list[str]] = []
    commands = []
    for name, steps in (("each pair by itself", 1), ("32 verdicts, none", 32)):
        log_level = math.log1p(-CIFAR_RELIABILITY) - math.log(steps)
        command = plan(CIFAR, "none", steps=steps, reliability=CIFAR_RELIABILITY, estimator="paper")
        published = int(runner.answer(command)["labels"])
        commands.append(command)
        for sampling in ("all disagreements", "early"):
            found: list[tuple[float, Any]] = []
            for half in halves:
                if sampling == "early":
                    decisions = early(condition, half, pairs, log_level=log_level, power=0.9)
                else:
                    decisions = fixed(condition, tabulate(half), pairs, log_level=log_level)
                found += [(float(truth[pair]), decision) for pair, decision in decisions.items()]
            rows.append([name, sampling, *_summary(found), f"{published:,}"])
    header = [
        "level",
        "labels of",
        "PASS",
        "UNKNOWN",
        "FAIL",
        "wrong PASS",
        "wrong FAIL",
        "passes of the clearly better",
    ]
    header += ["mean labels", "published plan"]
    note = (
        f"`{CIFAR}`, reliability {CIFAR_RELIABILITY:g}, {SEEDS} random halves of {HALF:,} images, {len(pairs)} ordered "
        "pairs each. Wrong: against n - o on all 10,000 images. Clearly better: by more than .06 there. The published "
        "plan is the number of labels that the paper asks for before the first verdict; there are 10,000."
    )
    return f"{table(header, rows)}\n\n{note}\n\n{shown(commands)}"


def _summary(found: list[tuple[float, Any]]) -> list[str]:
    """Verdicts, wrong ones, power and labels of many pairs (true n - o, decision)."""
    verdicts = [decision.verdict for _, decision in found]
    wrong_pass = sum(d.verdict is Verdict.PASS and gain <= 0.02 for gain, d in found)
    wrong_fail = sum(d.verdict is Verdict.FAIL and gain >= 0.02 for gain, d in found)
    clear = [d.passed for gain, d in found if gain > 0.06]
    counts = [f"{verdicts.count(v):,}" for v in (Verdict.PASS, Verdict.UNKNOWN, Verdict.FAIL)]
    mean = float(np.mean([d.labels for _, d in found]))
    return [*counts, str(wrong_pass), str(wrong_fail), f"{100 * float(np.mean(clear)):.1f} %", f"{mean:,.0f}"]
