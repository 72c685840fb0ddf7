"""What a promise costs in labels: plans of docs/gate.md, published sizes beside exact ones, and stopping early."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from easeml_core.formats.display import COLOURS
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import Decision
from easeml_core.gate.judge import judge_predictions
from easeml_core.stats.adaptivity import allocate
from figures.blocks import canvas, saved, shown, table
from figures.commands import Command, SessionRunner
from figures.gate.errors import sequence

SIMPLE = "n > 0.9 +/- 0.01"
GAIN = "n - o > 0.02 +/- 0.01"
SMALL = "d < 0.1 +/- 0.01"
BOTH = f"{GAIN} /\\ {SMALL}"
RELIABILITY, STEPS = 0.9999, 32


def plan(
    condition: str, adaptivity: str, *, steps: int = STEPS, reliability: float = RELIABILITY, **more: Any
) -> Command:
    """A plan.

    Args:
        condition: In the language of conditions.
        adaptivity: As the command writes it.
        steps: H.
        reliability: 1 - delta.
        more: Further options, ``power="same"`` for ``--power same``.
    """
    words = ["gate", "plan", "--condition", condition, "--reliability", str(reliability), "--steps", str(steps)]
    words += ["--adaptivity", adaptivity]
    for name, value in more.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return Command((*words, "--json"))


DISAGREEMENT, ACCURACY = 0.1, 0.9
GAINS = (0.0, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05, 0.06)
TRUE_GAIN = 0.04
POWER, BATCH = 0.9, 10
PUBLISHED_LABELS, PUBLISHED_VALID = 2188, 2905
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
        f"{np.std(used) / math.sqrt(runs):.0f}). Published: {PUBLISHED_LABELS:,}, and {PUBLISHED_VALID:,} with the "
        "multiplicity that it leaves out."
    )


RELIABILITIES, TOLERANCES = (0.99, 0.9999), (0.1, 0.05, 0.025, 0.01)
ADAPTIVITIES = ("none", "firstChange", "recycle", "upTo:3", "full")
DRAWN = (
    ("full", "full", 0),
    ("recycle, after 3 passes", "recycle", 3),
    ("upTo:3", "upTo:3", 0),
    ("recycle, after 1 pass", "recycle", 1),
    ("none, firstChange, recycle without a pass", "none", 0),
)
DRAWN_STEPS = (1, 2, 4, 8, 16, 24, 32, 48, 64)
DRAWN_TOLERANCES = (0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04)


def labels(runner: SessionRunner, command: Command) -> int:
    """Examples whose labels a plan may need."""
    return int(runner.answer(command)["labels"])


def published(runner: SessionRunner) -> str:
    """The published table of sizes beside those that a deviation exactly needs."""
    rows: list[list[str]] = []
    first: dict[str, list[Command]] = {}
    for reliability in RELIABILITIES:
        for tolerance in TOLERANCES:
            cells = []
            for source in (f"n > 0.9 +/- {tolerance:g}", f"n - o > 0.02 +/- {tolerance:g}"):
                for adaptivity in ("none", "full"):
                    both = [
                        plan(source, adaptivity, reliability=reliability, estimator="paper"),
                        plan(source, adaptivity, reliability=reliability, estimator="exact", target="estimate"),
                    ]
                    cells.append(" / ".join(f"{labels(runner, command):,}" for command in both))
                    first.setdefault(source[:5], both)
            rows.append([f"{reliability:g}", f"{tolerance:g}", *cells])
    header = ["reliability", "tolerance", "`n`, none", "`n`, full", "`n - o`, none", "`n - o`, full"]
    return f"{table(header, rows)}\n\n{shown([c for both in first.values() for c in both])}"


def tests(runner: SessionRunner) -> str:
    """What a test needs instead, with two powers, and what stopping early needs on average."""
    kinds: list[tuple[str, str, str, dict[str, Any]]] = [
        (SIMPLE, "none", "", {}),
        (SIMPLE, "full", "", {}),
        (BOTH, "none", "", {}),
        (BOTH, "full", "", {}),
        (BOTH, "upTo:3", "", {}),
        (BOTH, "recycle", ", no pass yet", {}),
        (BOTH, "recycle", ", after 1 pass", {"passes": 1}),
    ]
    rows, commands = [], []
    for condition, adaptivity, label, more in kinds:
        paper = "full" if adaptivity in ("upTo:3", "recycle") else adaptivity
        three = [
            plan(condition, paper, estimator="paper"),
            plan(condition, adaptivity, **more, power="same"),
            plan(condition, adaptivity, **more, power="0.9"),
        ]
        sizes = [labels(runner, command) for command in three]
        answer = runner.answer(three[1])
        alone, at = (SIMPLE, 0.92) if condition == SIMPLE else (GAIN, 0.04)
        mean = early_labels(alone, at, examples=sizes[1], log_level=answer["log_level"], runs=runner.repeats * 5)
        shares = 1.0 if condition == SIMPLE else 0.1
        cells = [f"{size:,}" + (f" ({size * shares:,.0f})" if shares < 1 else "") for size in sizes]
        rows.append([f"`{condition}`", adaptivity + label, *cells, f"{mean:,.0f}"])
        commands += three if adaptivity == "full" else []
    header = [
        "condition",
        "adaptivity",
        "`paper`",
        "`exact`, power as reliability",
        "`exact`, power .9",
        "early, mean labels",
    ]
    return f"{table(header, rows)}\n\n{shown(commands[3:])}"


def adaptivity(runner: SessionRunner) -> str:
    """The price of what a developer learns: nats and labels, by adaptivity and steps."""
    rows, commands = [], []
    for kind, changes in (*((kind, 0) for kind in ADAPTIVITIES), ("recycle", 1), ("recycle", 2)):
        more = {"passes": changes} if changes else {}
        command = plan(BOTH, kind, **more, power="0.9")
        nats = allocate(kind, STEPS, mode="fp-free", estimator="exact").log_multiplicity(changes)
        found = runner.answer(command)
        name = f"`{kind}`" + (f" after {changes} pass{'es' if changes > 1 else ''}" if changes else "")
        rows.append([name, f"{nats:.2f}", f"{found['labels']:,}", f"{found['labels_per_submission']:,}"])
        commands.append(command)
    figure, (axes,) = canvas()
    for colour, (name, kind, changes) in zip(COLOURS, DRAWN, strict=False):
        steps = [h for h in DRAWN_STEPS if h >= (3 if kind.startswith("upTo") else 1 + changes)]
        more = {"passes": changes} if changes else {}
        sizes = [labels(runner, plan(BOTH, kind, steps=h, **more, power="0.9")) for h in steps]
        axes.plot(steps, sizes, color=colour, label=name)
    axes.set(xlabel="steps that one set serves", ylabel="examples in the set", ylim=(0, None))
    axes.set_title(f"{BOTH}, reliability {RELIABILITY}, power .9", fontsize=9)
    axes.legend(frameon=False)
    picture = saved(runner, figure, "gate-adaptivity.png", "Examples over steps, by adaptivity")
    header = ["adaptivity", "price in nats", "examples in the set", "labels of one submission, about"]
    return f"{table(header, rows)}\n\n{picture}\n\n{shown(commands[:1] + commands[-2:])}"


def tolerance(runner: SessionRunner) -> str:
    """Labels over tolerance."""
    figure, (axes,) = canvas()
    kinds: tuple[tuple[str, str, dict[str, Any], str, str], ...] = (
        ("paper, full", "full", {"estimator": "paper"}, COLOURS[1], "-"),
        ("paper, none", "none", {"estimator": "paper"}, COLOURS[1], "--"),
        ("exact, full, power as reliability", "full", {"power": "same"}, COLOURS[0], "-"),
        ("exact, none, power as reliability", "none", {"power": "same"}, COLOURS[0], "--"),
        ("exact, full, power .9", "full", {"power": "0.9"}, COLOURS[2], "-"),
        ("exact, none, power .9", "none", {"power": "0.9"}, COLOURS[2], "--"),
    )
    for name, kind, more, colour, style in kinds:
        sizes = [
            labels(runner, plan(f"n - o > 0.02 +/- {eps:g} /\\ {SMALL}", kind, **more)) for eps in DRAWN_TOLERANCES
        ]
        axes.plot(DRAWN_TOLERANCES, sizes, color=colour, linestyle=style, label=name)
    axes.set(xscale="log", yscale="log", xlabel="tolerance of n - o", ylabel="examples in the set")
    axes.set_xticks(DRAWN_TOLERANCES, [f"{eps:g}" for eps in DRAWN_TOLERANCES])
    axes.minorticks_off()
    axes.set_title(f"n - o > 0.02 +/- tolerance /\\ {SMALL}, {STEPS} steps, reliability {RELIABILITY}", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    picture = saved(runner, figure, "gate-tolerance.png", "Examples over tolerance")
    half = math.floor(
        100 * labels(runner, plan(BOTH, "none", power="0.9")) / labels(runner, plan(BOTH, "none", estimator="paper"))
    )
    note = f"At tolerance .01 under `none`, power .9 needs {half} % of the published size."
    return f"{picture}\n\n{note}\n\n{shown([plan(BOTH, 'none', power='0.9'), plan(BOTH, 'none', estimator='paper')])}"
