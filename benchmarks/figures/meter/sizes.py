"""How many labels a meter needs: plans of docs/meter.md by method, by submissions, and by the error rate."""

from __future__ import annotations

from typing import Any

from easeml_core.formats.display import COLOURS
from figures.blocks import canvas, saved, shown, table
from figures.commands import Command, SessionRunner

RANGES, RELIABILITY = "0.1,0.3,0.5,0.7", "0.99"


def plan(*, tolerance: float, steps: int, ranges: str = RANGES, reliability: str = RELIABILITY, **more: Any) -> Command:
    """A plan.

    Args:
        tolerance: epsilon.
        steps: T.
        ranges: As the command writes them.
        reliability: 1 - delta.
        more: Further options, ``error_rate=0.1`` for ``--error-rate 0.1``.
    """
    words = ["meter", "plan", "--ranges", ranges, "--tolerance", f"{tolerance:g}", "--reliability", reliability]
    words += ["--steps", str(steps)]
    for name, value in more.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return Command((*words, "--json"))


def labels_by_method(runner: SessionRunner, command: Command) -> dict[str, int]:
    """Return the labels that a plan needs, by its method and by each alternative."""
    found = runner.answer(command)
    others = {other["method"]: int(other["labels"]) for other in found["alternatives"]}
    return {found["method"]: int(found["labels"])} | others


CASES = ((0.05, 32), (0.05, 100), (0.05, 1000), (0.02, 100))
METHODS = (
    ("fresh", "a new set for each submission", (56_096, 198_100, 2_442_000, 1_238_000)),
    ("score", "a score with all its digits", (70_251, 246_913, 2_979_534, 1_788_219)),
    ("full", "m^T histories", (11_361, 33_249, 322_948, 207_803)),
    ("exact-tree", "(m^T - 1) / (m - 1) models", (11_083, 32_972, 322_670, 206_070)),
    ("pruned", "2^T - 1 models", (5_496, 14_923, 139_690, 93_267)),
    ("dithered", "shifted ranges, 10 tolerances wide", (2_548, 5_028, 37_846, 31_425)),
    ("ratchet", "signals only rise", (3_628, 4_728, 7_012, 29_545)),
    ("deviations", "3 answers unlike the one before", (3_997, 4_930, 6_782, 30_812)),
    ("multitenant", "4 teams (96 submissions for 100)", (3_635, 8_785, 81_532, 54_907)),
    ("path-adaptive", "5 ambiguous answers", (2_446, 2_674, 3_135, 16_712)),
    ("path-adaptive", "10 ambiguous answers", (3_140, 3_367, 3_828, 21_044)),
    ("path-adaptive", "5, Clopper-Pearson at error rate .1", (923, 1_023, 1_225, None)),
    ("first-change", "retired at the first signal above 1", (1_753, 1_981, 2_442, 12_380)),
    ("non-adaptive", "models fixed beforehand", (1_753, 1_981, 2_442, 12_380)),
)
"""Method, what it pays for, and labels by ``CASES`` as another program computed them before the planner was written."""

RATES = (0.5, 0.2, 0.1, 0.05)
TAILS = (
    ("non-adaptive", 32, (1_753, 1_313, 952, 622, 418)),
    ("exact-tree", 32, (11_083, 10_400, 7_475, 4_816, 3_154)),
    ("pruned", 32, (5_496, 4_914, 3_536, 2_282, 1_500)),
    ("path-adaptive", 32, (2_446, 1_966, 1_421, 923, 609)),
    ("exact-tree", 1000, (322_670, 320_160, 229_760, 147_640, 96_320)),
)
"""Method, steps, labels by Hoeffding and by Clopper-Pearson at each of ``RATES``, from the same source."""
DRAWN = (
    *(("score", "score"), ("fresh", "fresh"), ("full", "full"), ("pruned", "pruned")),
    *(("dithered", "dithered, ranges 4 tolerances wide"), ("ratchet", "ratchet"), ("deviations", "deviations, 3")),
    *(("path-adaptive", "path-adaptive, 5 ambiguous"), ("first-change", "first-change")),
)
RANGES_SHOWN = ".1, .3, .5, .7"
DRAWN_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 5000, 10_000)
DRAWN_RATES = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


def question(method: str, about: str, tolerance: float, steps: int) -> Command:
    """The plan that answers one cell of the table of sizes."""
    if method == "dithered":
        return plan(tolerance=tolerance, steps=steps, ranges=f"0.1,{0.1 + 10 * tolerance:g}", method=method)
    if method == "multitenant":
        return plan(tolerance=tolerance, steps=96 if steps == 100 else steps, method=method, teams=4)
    if about.startswith("10"):
        return plan(tolerance=tolerance, steps=steps, method=method, ambiguous=10)
    if "Clopper" in about:
        return plan(tolerance=tolerance, steps=steps, method=method, tail="clopper-pearson", error_rate=0.1)
    return plan(tolerance=tolerance, steps=steps, method=method)


def sizes(runner: SessionRunner) -> str:
    """The table of labels by method, beside the independently computed one."""
    rows = []
    for method, about, expected in METHODS:
        cells = []
        for (tolerance, steps), other in zip(CASES, expected, strict=True):
            found = labels_by_method(runner, question(method, about, tolerance, steps))[method]
            cells.append(f"{found:,} / {other:,}" if other is not None else f"{found:,}")
        rows.append([f"`{method}`", about, *cells])
    header = ["method", "pays for", *(f"tolerance {e:g}, {t:,} submissions" for e, t in CASES)]
    shown_for = (METHODS[0], METHODS[5], METHODS[8], METHODS[11])
    commands = [question(method, about, *CASES[0]) for method, about, _ in shown_for]
    note = (
        "Left: what the command says; right: what another program computed before this one was written. Five ranges, "
        "reliability .99. The JSON of one plan has all other methods under `alternatives`."
    )
    return f"{table(header, rows)}\n\n{shown(commands, note)}"


def labels(runner: SessionRunner) -> str:
    """The plot of labels over submissions, and what it shows at 10,000 of them."""
    found = [labels_by_method(runner, plan(tolerance=0.05, steps=steps)) for steps in DRAWN_STEPS]
    figure, (axes,) = canvas()
    for k, (method, name) in enumerate(DRAWN):
        style = ("-", "--")[k // len(COLOURS)]
        axes.plot(DRAWN_STEPS, [each[method] for each in found], style, color=COLOURS[k % len(COLOURS)], label=name)
    axes.set(xscale="log", yscale="log", xlabel="submissions that one set serves", ylabel="labels")
    axes.set_title(f"ranges {RANGES_SHOWN}, tolerance .05, reliability .99, Hoeffding", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    picture = saved(runner, figure, "meter-labels.png", "Labels over submissions, by method")
    return f"{picture}\n\n{shown([plan(tolerance=0.05, steps=DRAWN_STEPS[-1])])}"


def tails(runner: SessionRunner) -> str:
    """Hoeffding against Clopper-Pearson: a plot over the error rate, and a table beside the independent one."""
    rows, commands = [], []
    for method, steps, (worst, *expected) in TAILS:
        plain = plan(tolerance=0.05, steps=steps, method=method)
        cells = [f"{labels_by_method(runner, plain)[method]:,} / {worst:,}"]
        for rate, other in zip(RATES, expected, strict=True):
            exact = plan(tolerance=0.05, steps=steps, method=method, tail="clopper-pearson", error_rate=rate)
            cells.append(f"{labels_by_method(runner, exact)[method]:,} / {other:,}")
            if method == "path-adaptive" and rate == RATES[2]:
                commands += [plain, exact]
        rows.append([f"`{method}`, {steps:,} submissions", *cells])
    header = ["method", "Hoeffding", *(f"Clopper-Pearson at {rate:g}" for rate in RATES)]
    figure, (axes,) = canvas()
    for colour, method in zip(COLOURS, ("exact-tree", "pruned", "path-adaptive"), strict=False):
        exact_sizes = [
            labels_by_method(
                runner, plan(tolerance=0.05, steps=32, method=method, tail="clopper-pearson", error_rate=rate)
            )
            for rate in DRAWN_RATES
        ]
        axes.plot(DRAWN_RATES, [each[method] for each in exact_sizes], color=colour, label=f"{method}, Clopper-Pearson")
        size = labels_by_method(runner, plan(tolerance=0.05, steps=32, method=method))[method]
        axes.axhline(size, color=colour, linestyle="--", linewidth=0.9, label=f"{method}, Hoeffding")
    axes.set(xlabel="error rate of the models on the sealed set", ylabel="labels", yscale="log", xlim=(0, 0.5))
    axes.set_title("tolerance .05, 32 submissions, five ranges, reliability .99", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    picture = saved(runner, figure, "meter-tails.png", "Labels over the error rate, Hoeffding and Clopper-Pearson")
    return f"{picture}\n\n{table(header, rows)}\n\n{shown(commands)}"
