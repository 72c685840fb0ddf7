"""Every run-time method against the attack on signals, and the dithered meter's mean number of histories."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from attrs import evolve
from meter_oracles import ratchet_automaton
from scipy import stats

from easeml_core.meter.meter import Answered, read_submission
from easeml_core.meter.planner import plan_config
from easeml_core.meter.ranges import exact, late_shift, mean_branches, shifted, signal_of
from easeml_core.settings.config import METER_METHODS, MeterConfig

if TYPE_CHECKING:
    from easeml_core.meter.reading import Reading

RANGES = (0.2, 0.4, 0.6, 0.8)
BASE = MeterConfig(ranges=RANGES, tolerance=0.05, reliability=0.9, steps=32, tail="hoeffding", ambiguous=31)
MORE = {
    "nonuniform": {"tolerances": (0.05, 0.06, 0.07, 0.08, 0.09)},
    "multitenant": {"teams": 2},
    "deviations": {"deviations": 40},
    "automaton": {"automaton": ratchet_automaton(5).rows},
}
FALSE_ALARM = 1e-7


def violations_allowed(runs: int, delta: float) -> int:
    return int(stats.binom.isf(FALSE_ALARM, runs, delta))


def broken(reading: Reading, config: MeterConfig, true_gap: float, worst: float) -> bool:
    """Whether the answer's claim is false; ``worst`` is the largest true gap so far, which a ratchet speaks of."""
    if reading.signal is None:
        return False
    edges = (-math.inf, *(reading.edges or config.ranges), math.inf)
    low, high, slack = edges[reading.signal - 1], edges[reading.signal], reading.tolerance_now
    upward = worst if config.method in ("ratchet", "automaton") else true_gap
    return not (low - slack <= upward and true_gap <= high + slack)


def attacked_life(config: MeterConfig, n: int, rng: np.random.Generator) -> tuple[float, bool, int]:
    """Coins parked on the first boundary, turned by their signals; then their vote, just outside range 1 and tolerance.

    Returns:
        By how much the vote flatters, whether any claim was false, and how many submissions were answered.
    """
    steps = config.steps // config.teams
    earlier: list[Answered] = []
    votes, cast, wrong_claim, worst = np.zeros(n, dtype=np.int32), 0, False, -1.0
    for step in range(steps):
        last = step == steps - 1
        row = (2 * votes > cast) if last else rng.integers(0, 2, size=n, dtype=np.int8)
        park = config.ranges[0] + (config.tolerance + 0.001 if last else 0.0)
        reading = read_submission(
            errors=int(row.sum()),
            examples=n,
            validation_loss=0.5 - park,
            config=config,
            earlier=earlier,
            shift=late_shift(config.ranges, rng) if config.method == "dithered" else None,
        )
        worst = max(worst, park)
        wrong_claim |= broken(reading, config, park, worst)
        if reading.signal is None:
            break
        if not last:
            votes += row if reading.signal == 1 else 1 - row
            cast += 1
        earlier.append(Answered(reading.signal, reading.log_cost))
    return 0.5 - int((2 * votes > cast).sum()) / n, wrong_claim, len(earlier)


@pytest.mark.parametrize("tail", ["hoeffding", "clopper-pearson"])
@pytest.mark.parametrize("method", sorted(METER_METHODS))
def test_no_method_is_fooled_at_its_planned_size(method, tail):
    """delta = .1; false alarm below 1e-7 by the promise itself."""
    config = evolve(BASE, method=method, tail=tail, **MORE.get(method, {}))
    n, rng, runs = plan_config(config).labels, np.random.default_rng(len(method)), 25
    lives = [attacked_life(config, n, rng) for _ in range(runs)]
    assert sum(wrong for _, wrong, _ in lives) <= violations_allowed(runs, 0.1)
    answered = {count for _, _, count in lives}
    if method != "first-change":
        assert answered == {config.steps // config.teams}


def test_the_same_attack_fools_a_level_that_ignores_reactions():
    """The control: the first-change level for a meter that goes on all the same.

    About 43 % of the lives are fooled, where 10 % was promised; fewer than 24 % of 200 has a chance below 1e-7.
    """
    n = plan_config(evolve(BASE, method="first-change")).labels
    config = evolve(BASE, method="path-adaptive", tolerance=0.05)
    rng, fooled = np.random.default_rng(8), 0
    for _ in range(200):
        votes = np.zeros(n, dtype=np.int32)
        for _ in range(31):
            row = rng.integers(0, 2, size=n, dtype=np.int8)
            votes += row if signal_of(float(row.mean()) - 0.3, RANGES) == 1 else 1 - row
        gap = float((2 * votes > 31).mean()) - (0.5 - RANGES[0] - config.tolerance - 0.001)
        fooled += signal_of(gap, RANGES) == 1
    print(f"fooled {fooled} of 200")
    assert fooled > violations_allowed(200, 0.1)


@pytest.mark.parametrize("paths", [20_000, pytest.param(1_000_000, marks=pytest.mark.nightly)])
def test_section_9_4_the_mean_number_of_histories_of_a_dithered_meter(paths):
    """epsilon = .02, w = .1, T = 50: mean 1.84e7 in 20,000 paths against 1.4^50 = 2.02e7, median 2^20.

    The product is 2^X with X ~ Bin(50, .4): the mean of P paths has a relative standard error of
    sqrt((2.2 / 1.96)^50 / P), .13 for 20,000 paths; heavy tails: four of them are allowed. The median of X is 20,
    and the sample's is another whole number with a chance below 1e-9.
    """
    ranges, tolerance, truth = (0.1, 0.2, 0.3, 0.4), 0.02, 0.27
    assert mean_branches(ranges, tolerance) == pytest.approx(1.4)
    rng = np.random.default_rng(94)
    branching = np.zeros(paths, dtype=np.int64)
    for _ in range(50):
        shifts = rng.random(paths) * 0.1
        # An edge .1 i + shift lies in [truth - eps, truth + eps): the reachable signals are one more than such edges.
        branching += (((truth - tolerance - shifts) % 0.1) > 0.1 - 2 * tolerance).astype(np.int64)
    mean, error = float(np.mean(2.0**branching)), math.sqrt((2.2 / 1.96) ** 50 / paths)
    print(f"{paths} paths: mean {mean:.3g}, 1.4^50 = {1.4**50:.3g}, median 2^{np.median(branching):g}")
    assert mean == pytest.approx(1.4**50, rel=4 * error)
    assert np.median(branching) == 20
    assert 0.9 * math.log(1.4**50) < 50 * math.log(1.4) - math.log(0.4) < 1.1 * math.log(1.4**50)


def test_dithered_branches_are_those_of_the_meter():
    """The vector formula above, against the meter's own shifted ranges."""
    ranges, tolerance, truth = (0.1, 0.2, 0.3, 0.4), 0.02, 0.27
    rng = np.random.default_rng(95)
    for _ in range(400):
        shift = late_shift(ranges, rng)
        edges = shifted(ranges, shift)
        low, high = (signal_of(exact(truth) + side * exact(tolerance), edges) for side in (-1, 1))
        assert high - low == int(((truth - tolerance - shift) % 0.1) > 0.1 - 2 * tolerance)
