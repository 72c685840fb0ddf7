"""What a promise costs in labels: published sizes beside exact ones, by adaptivity, tolerance and steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from easeml_core.display.figures import COLOURS
from easeml_core.stats.adaptivity import allocate
from figures.gate.early import early_labels
from figures.gate.plans import BOTH, GAIN, RELIABILITY, SIMPLE, SMALL, STEPS, plan
from figures.markdown import shown, table
from figures.pictures import canvas, saved

if TYPE_CHECKING:
    from figures.commands import Command
    from figures.sessions import SessionRunner

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
