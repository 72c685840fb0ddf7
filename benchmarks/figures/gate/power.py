"""What the exact gate saves of its power: ratios of sizes before and after ADR 0023, and against lower bounds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from easeml_core.gate.condition import DIFFERING, parse_condition, values_of
from easeml_core.gate.exact_sizes import exact_sizes, labels_of_submission
from easeml_core.gate.planner import plan_gate
from easeml_core.stats.betting import bet_times, log_plugin_wealth, log_wealth
from easeml_core.stats.binomial_bounds import clopper_pearson
from easeml_core.stats.bound_sizes import chernoff_test_size
from easeml_core.stats.paired_differing import Differing
from easeml_core.stats.weighted import AtMost, log_weighted_p_value, weighted_test_size
from figures.blocks import table
from figures.gate.sizes import BOTH, GAIN, RELIABILITY, SIMPLE, STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from easeml_core.gate.planner import GatePlan
    from figures.commands import SessionRunner

NONE = math.log1p(-RELIABILITY) - math.log(STEPS)
WEIGHTED, LEVEL, MISS = "n - 1.1 * o > 0.01 +/- 0.01", math.log(0.005), math.log(0.1)
# Of n - 1.1 o: the law on the threshold with this o and d, the law at c + 2 eps, and the d to plan for.
POINTS = (
    ("o = .8, d = .1", (0.795, 0.095, 0.005, 0.105, 0.0), (0.8, 0.11, 0.0, 0.09, 0.0), 0.1),
    ("o = .5, d = .3", (0.38, 0.18, 0.12, 0.32, 0.0), (0.39, 0.19, 0.11, 0.31, 0.0), 0.3),
)
STEP_VALUES = np.array([-1.0, 0.0, 1.0])


def power(runner: SessionRunner) -> str:
    """Every saving as one row: what, before, after."""
    rows = [*_slices(), *_full(), *_weighted(runner.repeats), *_unknown(), *_on_demand(), *_early(runner.repeats)]
    return table(["what", "measured against", "before", "after"], rows)


def _slices() -> list[list[str]]:
    """Sizes at the level divided by k + 1, over those at the whole level."""
    rows = []
    for count in (4, 20):
        ratios = []
        for source in (SIMPLE, BOTH, "n - o > 0 +/- 0.02"):
            for miss in (None, 0.9):
                condition, levels = parse_condition(source), (NONE - math.log(count + 1), NONE)
                divided, whole = (exact_sizes(condition, log_level=a, mode="fp-free", power=miss) for a in levels)
                ratios.append(divided.labels / whole.labels)
        rows.append([f"{count} slices, `fp-free`", "no slices", f"{min(ratios):.2f}-{max(ratios):.2f}", "1.00"])
    return rows


def _full() -> list[list[str]]:
    """Sizes at delta / 2^H over those at delta / 2^(H - 1)."""
    rows = []
    for steps in (4, 8, 32):
        before = exact_sizes(
            parse_condition(BOTH), log_level=math.log1p(-RELIABILITY) - steps * math.log(2), mode="fp-free", power=0.9
        )
        after = plan_gate(
            parse_condition(BOTH), reliability=RELIABILITY, steps=steps, adaptivity="full", mode="fp-free", power=0.9
        )
        rows.append([f"`full`, {steps} steps, power .9", "labels", f"{before.labels:,}", f"{after.labels:,}"])
    return rows


def _weighted(repeats: int) -> list[list[str]]:
    """Planned sizes over those of a normal test that knows the law; and the judge's power at 1.5 times these."""
    rows = []
    clause = parse_condition(WEIGHTED).clauses[0]
    values = np.array(values_of(clause))
    low, high = clause.reach()
    null, alternative = ((value - low) / (high - low) for value in (0.01, 0.03))
    old = chernoff_test_size(null=null, alternative=alternative, log_level=LEVEL - math.log(2), log_miss=MISS)
    for name, threshold_law, law, bound in POINTS:
        spread = float(np.array(threshold_law) @ values**2) - 0.01**2
        optimum = (norm.isf(math.exp(LEVEL)) + norm.isf(math.exp(MISS))) ** 2 * spread / 0.02**2
        size = weighted_test_size(
            tuple(values.tolist()),
            threshold=0.01,
            alternative=0.03,
            differing=DIFFERING,
            disagreement_bound=bound,
            tested=False,
            log_level=LEVEL,
            log_miss=MISS,
        )
        drawn = np.random.default_rng(1).multinomial(math.floor(1.5 * optimum), law, size=20 * repeats)
        passed = [log_weighted_p_value(row, AtMost(values, 0.01), log_level=LEVEL) <= LEVEL for row in drawn]
        plan = f"optimum {optimum:,.0f}"
        rows.append([f"`{WEIGHTED}`, {name}, plan", plan, f"{old / optimum:.2f}", f"{size / optimum:.2f}"])
        low, high = clopper_pearson(sum(passed), len(passed), log_level=math.log(0.05))
        rows.append(
            ["the same, power at 1.5 times the optimum", "0.9", "", f"{np.mean(passed):.3f} ({low:.3f}-{high:.3f})"]
        )
    return rows


def _plan(source: str, *, assume_disagreement: float | None = None) -> GatePlan:
    """Plan a condition as the table states it."""
    return plan_gate(
        parse_condition(source),
        reliability=RELIABILITY,
        steps=STEPS,
        adaptivity="none",
        mode="fp-free",
        power=0.9,
        assume_disagreement=assume_disagreement,
    )


def _unknown() -> list[list[str]]:
    """Sizes without a clause on d, at d = 1 and at an assumed d with the bound that the judge finds, over known d."""
    rows = []
    unknown = _plan(GAIN).labels
    for d in (0.05, 0.1, 0.15, 0.3):
        known = _plan(f"{GAIN} /\\ d < {d} +/- 0.01").labels
        assumed = _plan(GAIN, assume_disagreement=d).labels
        name = f"`{GAIN}`, `--assume-disagreement {d}`"
        rows.append([name, f"a clause on d: {known:,}", f"{unknown / known:.2f} (d = 1)", f"{assumed / known:.2f}"])
    return rows


def _on_demand() -> list[list[str]]:
    """Labels that one submission asks for at a d that the plan does not know: of all disagreements, and now."""
    rows = []
    condition, plan = parse_condition(GAIN), _plan(GAIN)
    for d in (0.05, 0.15, 0.3):
        known = _plan(f"{GAIN} /\\ d < {d} +/- 0.01")
        shown = Differing(round(d * plan.labels), plan.labels)
        now = labels_of_submission(condition, shown, log_level=plan.log_level, mode="fp-free", power=0.9)
        name = f"`{GAIN}`, d unknown, labels of a submission that differs on {d:g}"
        rows.append([name, f"a clause on d: {known.labels_per_submission:,}", f"{shown.count:,}", f"{now:,}"])
    return rows


def _early(repeats: int) -> list[list[str]]:
    """Mean examples to decide at n - o = .04 against .02, over ln(1/alpha) / KL."""
    rows, alphas = [], np.array([0.01, 1e-4, 3e-6])
    for d in (0.05, 0.1, 0.3):
        law = np.array([(d - 0.04) / 2, 1 - d, (d + 0.04) / 2])
        bets = np.linspace(0, 0.95, 4000)
        divergence = float((law @ np.log1p(np.multiply.outer(STEP_VALUES - 0.02, bets))).max())
        bounds = -np.log(alphas) / divergence
        before, after = (_times(each, law, bounds, alphas, 10 * repeats) for each in (_grid, _plugin))
        for k, alpha in enumerate(alphas):
            name = f"early, d = {d:g}, level {alpha:g}"
            rows.append(
                [name, f"ln(1/alpha)/KL = {bounds[k]:,.0f}", _with_error(before[:, k]), _with_error(after[:, k])]
            )
    return rows


def _with_error(times: NDArray[np.float64]) -> str:
    return f"{times.mean():.2f} ({times.std(ddof=1) / math.sqrt(len(times)):.2f})"


def _times(
    wealth: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    law: NDArray[np.float64],
    bounds: NDArray[np.float64],
    alphas: NDArray[np.float64],
    runs: int,
) -> NDArray[np.float64]:
    """Examples until each level is reached, over the bounds: shape ``(runs, n_levels)``."""
    rng, most = np.random.default_rng(1), int(3.5 * bounds.max())
    times = np.zeros((runs, len(alphas)))
    for run in range(runs):
        drawn = rng.choice(3, size=most, p=law)
        counts = np.stack([np.concatenate([[0], np.cumsum(drawn == k)]) for k in range(3)], axis=1)
        found = wealth(counts)
        for k, alpha in enumerate(alphas):
            reached = found >= -math.log(alpha)
            times[run, k] = int(reached.argmax()) + 1 if reached.any() else most
    return times / bounds


def _grid(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return log_wealth(counts[1:], STEP_VALUES, threshold=0.02, low=-1, high=1)


def _plugin(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    times = np.arange(1, len(counts))
    before = counts[bet_times(len(times))]
    return log_plugin_wealth(times, counts[1:], before, STEP_VALUES, threshold=0.02, gap=0.02)
