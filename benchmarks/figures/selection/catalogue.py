"""Every figure of ``docs/selection.md`` by name; parts switched off, devices, fairness, speed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from easeml_core.settings.config import PUBLISHED
from figures.blocks import NEVER, Picture, embedded, seeds_note, shown, spread, table, three, with_plot
from figures.commands import Command, simulate
from figures.selection.losses import PriceFigure, Section, price
from figures.selection.tables import CLASSIFIER, CLASSIFIER_UNIT, DEEPLEARNING, TABZILLA_18, TABZILLA_35, synthetic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from figures.commands import Runner
    from figures.selection.tables import Source


# -- what each part is worth -------------------------------------------------------------------------------------------

PARTS = {
    "all parts": "default",
    "qualities normal as they are, no logit": "default:link=identity",
    "empirical covariance alone": "default:blend=0",
    "squared-exponential covariance alone": "default:blend=1",
    "one scale for all tenants": "default:tenant_scale=false",
    "no guard": "default:guard=0",
    "none of these": "default:link=identity,blend=0,tenant_scale=false,guard=0",
    "costs ignored": "default:cost_aware=false",
    "published rule and prior": "mm-gp-ei",
}
"""What a row is called, and its policy; the first is what the others are compared with."""
JUDGED = ("0.02", "0.01")


def ablation(sources: Sequence[Source], *, seeds: int) -> Callable[[Runner], str]:
    """The figure in which each part of the default policy is switched off, on some tables."""

    def figure(runner: Runner) -> str:
        found = [runner.batches(source, tuple(PARTS.values()), seeds=seeds) for source in sources]
        answers = [each for _, each in found]
        rows = [
            [label, f"`{policy}`", *(_both(each, policy) for each in answers), _worth(answers, policy)]
            for label, policy in PARTS.items()
        ]
        batches = len(answers[0])
        note = "" if batches == 1 else f"Geometric means over {batches} batches, `--seed` 0 to {batches - 1}."
        header = ["", "policy", *(source.title for source in sources), "x all parts"]
        return f"{table(header, rows)}\n\n{shown([command for command, _ in found], note)}"

    return figure


def _both(answers: Sequence[Mapping[str, Any]], policy: str) -> str:
    """The prices of the losses JUDGED."""
    return " / ".join(_middle([price(answer, policy, loss) for answer in answers]) for loss in JUDGED)


def _mean(values: Sequence[float]) -> float:
    """Geometric."""
    return math.exp(sum(map(math.log, values)) / len(values))


def _middle(values: Sequence[float]) -> str:
    return "-" if max(values) >= NEVER else three(_mean(values))


def _worth(answers: Sequence[Sequence[Mapping[str, Any]]], policy: str) -> str:
    """Geometric mean over tables and losses of the price, as a multiple of that of all parts."""
    whole = PARTS["all parts"]
    ratios = [
        _mean([price(answer, policy, loss) / price(answer, whole, loss) for answer in found])
        for found in answers
        for loss in JUDGED
    ]
    return f"{_mean(ratios):.2f}"


# -- several devices ---------------------------------------------------------------------------------------------------

DEVICES = (1, 4, 16, 64)
AT_ONCE = ("default", "default:believe=false", "mm-gp-ei", "hybrid", "clairvoyant")
CROWDS: tuple[tuple[Source, dict[str, int]], ...] = (
    (TABZILLA_18, {"served": 50, "until": 5}),
    (TABZILLA_18, {"served": 104, "history": 0, "until": 3, "repeats": 3}),
    (CLASSIFIER, {"served": 100, "until": 30, "repeats": 2}),
)
"""Tables, and how many of their tenants are served."""

SPEED_UP_TO = "0.02"


def devices(runner: Runner) -> str:
    """How much sooner a loss is reached with several devices, by table and number of tenants served."""
    rows, commands = [], []
    for source, options in CROWDS:
        found = {n: runner.batches(source, AT_ONCE, seeds=3, devices=n, **options) for n in DEVICES}
        alone = found[1][1]
        commands.append(found[DEVICES[-1]][0])
        for number, (_, answers) in list(found.items())[1:]:
            cells = [source.title, str(options["served"]), str(number)]
            for policy in AT_ONCE:
                shares = [
                    number * price(one, policy, SPEED_UP_TO) / price(many, policy, SPEED_UP_TO)
                    for one, many in zip(alone, answers, strict=True)
                ]
                cells.append(spread(shares))
            rows.append(cells)
    header = ["table", "served", "devices", *(f"`{policy}`" for policy in AT_ONCE)]
    formula = "M x percent with one device / percent with M"
    note = f"Speed-up to {SPEED_UP_TO.removeprefix('0')} = {formula}. {seeds_note(len(alone))}".strip()
    return f"{table(header, rows)}\n\n{shown(commands, note)}"


COMING = ("default", "hybrid", "mm-gp-ei", "roundrobin")
COURSES = {
    "all stay": "--tenant-stays inf --device-stays inf",
    "tenants come and go": "--tenant-stays 0.2 --tenant-away 0.2 --device-stays inf",
    "tenants and devices come and go": "--tenant-stays 0.2 --tenant-away 0.2 --device-stays 0.2 --device-away 0.05",
}
"""What a row is called, and the options of the command."""


def come_and_go(runner: Runner) -> str:
    """Loss of the tenants present, where tenants and devices come and go."""
    policies = " ".join(f"--policy {policy}" for policy in COMING)
    many = f"{policies} --devices 1 --devices 16 --until 1 --repeats {min(5, runner.repeats)} --json"
    rows, commands = [], []
    for label, options in COURSES.items():
        words = (*TABZILLA_18.words, *many.split(), *options.split())
        commands.append(Command(words, script="benchmarks/at_scale/arrivals.py"))
        found = runner.answer(commands[-1])["found"]
        for devices in sorted({one["devices"] for one in found}):
            here = {one["policy"]: one for one in found if one["devices"] == devices}
            cells = [f"{100 * here[p]['loss']:.2f} ({100 * here[p]['loss_standard_error']:.2f})" for p in COMING]
            lost = here["default"]["lost"] / max(1.0, here["default"]["trials"] + here["default"]["lost"])
            rows.append([label, str(devices), *cells, f"{100 * lost:.0f}%"])
    header = ["", "devices", *(f"`{policy}`" for policy in COMING), "trials lost with their device"]
    note = "100 x the mean loss of the tenants present, averaged over 1 % of the compute; brackets: its standard error."
    return f"{table(header, rows)}\n\n{shown(commands[-1:], note)}"


# -- efficiency against fairness ---------------------------------------------------------------------------------------


def fairness(knob: str) -> Callable[[Runner], str]:
    """The figure of one knob of the default policy."""

    def figure(runner: Runner) -> str:
        parts = [_fairness_of(runner, knob, source, name) for source, name in _FAIR]
        return "\n\n".join(parts)

    return figure


FAIR_RIVALS = ("hybrid", "roundrobin", "mm-gp-ei", "clairvoyant")
_FAIR = ((DEEPLEARNING, "deeplearning"), (TABZILLA_18, "tabzilla"))


def _fairness_of(runner: Runner, knob: str, source: Source, name: str) -> str:
    """Table, picture and commands of one table."""
    picture = f"fairness-{knob}-{name}.png"
    curve = with_plot(simulate(source, ("default",), repeats=runner.repeats, curve=knob), picture)
    rivals = simulate(source, FAIR_RIVALS, repeats=runner.repeats)
    answer, others = runner.answer(curve), runner.answer(rivals)["policies"]
    header = ["policy", knob, "total regret", "worst tenant", "10th percentile", "first model of the last, %"]
    header += ["least share", "to .02", "to .01"]
    rows = [
        _fair_row("default", f"{point['value']:g}", answer["policies"][f"default:{knob}={point['value']:g}"])
        for point in answer["curve"]["points"]
    ]
    rows += [_fair_row(policy, "", others[policy]) for policy in FAIR_RIVALS]
    drawn = embedded(picture, f"Total regret against the worst tenant's over the {knob}, {source.title}")
    return f"**{source.title}**\n\n{table(header, rows)}\n\n{drawn}\n\n{shown([curve, rivals])}"


def _fair_row(policy: str, value: str, figures: Mapping[str, Any]) -> list[str]:
    """One policy at one value of the knob."""
    least = figures["compute_share"]["10"]
    return [
        f"`{policy}`",
        value,
        *(three(figures["regret"][key]) for key in ("total", "worst_tenant", "p10_tenant")),
        three(figures["first_model_percent"]["worst"]),
        "" if least is None else f"{least['least']:.2f}",
        *(three(figures["percent_to_loss"][loss]["median"]) for loss in JUDGED),
    ]


# -- speed -------------------------------------------------------------------------------------------------------------


def bench(runner: Runner) -> str:
    """What a decision takes."""
    words = "--tenants 1000 --candidates 179 --observations 20 --json"
    command = Command(tuple(words.split()), script="benchmarks/selection_speed.py")
    answer = runner.answer(command)
    memory, committed = answer["decision_microseconds"], answer["committed_decision_milliseconds"]
    protocol = answer["protocol"]
    rows = [
        ["decision in memory", f"{three(memory['median'])} us (95 %: {three(memory['p95'])} us)", "50 us"],
        [
            f"scikit-learn refits all tenants, from {protocol['refitted_tenants']} of them",
            f"{three(answer['refit_all_seconds'])} s",
            "",
        ],
        ["the second over the first", three(answer["ratio"]), "50,000 at least"],
        ["first decision from a cold database", f"{three(answer['cold_start_seconds'])} s", "1 s"],
        [
            "decision committed with its reasons",
            f"{three(committed['median'])} ms (95 %: {three(committed['p95'])} ms)",
            "2 ms",
        ],
    ]
    return f"{table(['1000 tenants x 179 candidates', 'measured', 'aim'], rows)}\n\n{shown([command])}"


def cost_error(runner: Runner) -> str:
    """How far predicted costs are off."""
    rows, commands = [], []
    for source in (TABZILLA_18, TABZILLA_35):
        command = Command(("costs", "--history", source.words[-1], "--json"))
        commands.append(command)
        rows += [
            [
                source.title,
                str(error["own"]),
                three(10 ** error["median_absolute_log10"]),
                three(error["rmse_log"]),
                three(error["r2"]),
                f"{error['right_order']:.0%}",
                f"{error['interval_coverage']:.0%}",
            ]
            for error in runner.answer(command)["errors"]
        ]
    header = ["table", "own trials", "median factor", "rmse of ln", "R^2 of ln", "pairs in the right order"]
    return f"{table([*header, '80 % interval holds'], rows)}\n\n{shown(commands)}"


SYN = ("SYN(0.01,0.1)", "SYN(0.01,1.0)", "SYN(0.5,0.1)", "SYN(0.5,1.0)")
BETAS = ("hybrid", "hybrid@0.05", "hybrid@0.01")
ORDERS = ("order:mostcited.txt", "order:mostrecent.txt")
RIVALS = ("default", *BETAS, "roundrobin", "random")
COST_AWARE = (*RIVALS, "mm-gp-ei", "cheapest", "clairvoyant")
COLD = ("default", "default:cold_start=false", "hybrid", "mm-gp-ei", "cheapest", "clairvoyant")

DEEP = Section(
    "",
    DEEPLEARNING,
    (*RIVALS, "fcfs", "mm-gp-ei", "cheapest", *ORDERS, "backtested", "clairvoyant"),
    aims={"0.02": 0.75, "0.01": 2.8},
)
PUBLISHED_ALL = Section("", DEEPLEARNING, tuple(name for name in PUBLISHED if name != "order"))
U01 = Section("", CLASSIFIER, COST_AWARE, {"until": 20}, {"0.02": 1.0, "0.01": 5.0})
UNIT = Section("", CLASSIFIER_UNIT, (*RIVALS, "mm-gp-ei", "clairvoyant"), {"until": 30})
SHRUNK = ("hybrid:pseudo_studies=5", "mm-gp-ei:kernel=squared-exponential")
TABZILLA = tuple(
    Section(f"{source.title[-2:]} candidates", source, (*COST_AWARE[:-2], *SHRUNK, *COST_AWARE[-2:]), {}, aims)
    for source, aims in ((TABZILLA_18, {"0.02": 0.027, "0.01": 0.11}), (TABZILLA_35, {"0.02": 0.026, "0.01": 0.17}))
)
HISTORY = tuple(
    Section(f"{source.title}, {past} past", source, ("default", "roundrobin", "hybrid"), {"history": past})
    for source in (DEEPLEARNING, TABZILLA_18, TABZILLA_35)
    for past in (3, 5, 10)
)
CLASSIFIER_HISTORY = tuple(
    Section(f"{past} past", CLASSIFIER, ("default", "roundrobin", "hybrid"), {"history": past, "until": 20})
    for past in (3, 5, 10)
)
SYNTHETIC = tuple(
    Section(f"{name}, {label}", synthetic(name), ("default", "roundrobin", "random", "clairvoyant"), options)
    for name in SYN
    for label, options in (("unit", {"cost_mode": "unit"}), ("U(0,1)", {}))
)
COLD_START = (
    Section("none", TABZILLA_18, COLD, {"served": 50, "history": 0}),
    Section("54 tenants", TABZILLA_18, ("default", "hybrid"), {"served": 50}),
)
COSTS = tuple(
    Section(
        f"{source.title[-2:]} candidates, {label}",
        source,
        policies,
        options,
        base=f"{source.title[-2:]} candidates, known" if label == "predicted" else "",
    )
    for source in (TABZILLA_18, TABZILLA_35)
    for label, policies, options in (
        ("known", ("default", "hybrid"), {}),
        ("predicted", ("default", "hybrid"), {"cost_mode": "predicted"}),
        ("ignored", ("default:cost_aware=false", "hybrid:cost_aware=false"), {}),
        ("unit: percent of the trials", ("default", "hybrid"), {"cost_mode": "unit"}),
    )
)

FIGURES: Mapping[str, Callable[[Runner], str]] = {
    "deeplearning": PriceFigure((DEEP,), worst=True),
    "deeplearning-picture": Picture(
        "losses-deeplearning.png", DEEPLEARNING, ("default", "hybrid", "random", *ORDERS, "clairvoyant")
    ),
    "published": PriceFigure((PUBLISHED_ALL,), losses=("0.05", "0.02", "0.01"), against="hybrid", worst=True),
    "classifier": PriceFigure((U01,), seeds=2),
    "classifier-unit": PriceFigure((UNIT,), seeds=2),
    "tabzilla": PriceFigure(TABZILLA, losses=("0.02", "0.01")),
    "tabzilla-picture": Picture(
        "losses-tabzilla.png",
        TABZILLA_18,
        ("default", "hybrid", "roundrobin", "cheapest", "clairvoyant"),
    ),
    "history": PriceFigure(HISTORY, seeds=3, losses=("0.02", "0.01"), against="roundrobin", commands=1),
    "history-classifier": PriceFigure(
        CLASSIFIER_HISTORY, seeds=1, losses=("0.02", "0.01"), against="roundrobin", commands=1
    ),
    "synthetic": PriceFigure(SYNTHETIC, losses=("0.05", "0.02"), commands=2),
    "cold-start": PriceFigure(COLD_START, seeds=3),
    "devices": devices,
    "come-and-go": come_and_go,
    "costs": PriceFigure(COSTS, seeds=3, losses=("0.02", "0.01"), against=None, commands=4),
    "cost-error": cost_error,
    "ablation": ablation((DEEPLEARNING, TABZILLA_18, TABZILLA_35), seeds=3),
    "ablation-classifier": ablation((CLASSIFIER, CLASSIFIER_UNIT), seeds=1),
    "fairness-guard": fairness("guard"),
    "fairness-objective": fairness("objective"),
    "bench": bench,
}
"""Name of the block in the page, and what makes it."""
