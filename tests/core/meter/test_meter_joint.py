"""One ledger for gate and meter: levels add up to delta over the whole tree, and an attack on the signals fails."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from attrs import evolve
from scipy import stats

from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.meter.meter import read_submission
from easeml_core.meter.shared_ledger import JointPlan, check_joint_meter, gate_log_cost, gate_log_level
from easeml_core.settings.config import MeterConfig
from easeml_core.stats.binomial_bounds import log_upper_tail

METER = MeterConfig(ranges=(0.2, 0.6), tolerance=0.3, reliability=0.5, steps=99, tail="hoeffding")
HIDDEN = JointPlan(reliability=0.9, gate_steps=32, meter_steps=32, adaptivity="none")


def next_gate_log_level(plan: JointPlan, costs: list[float]) -> float:
    """Ln of the level of the next verdict after answers of these log costs, of either system."""
    return gate_log_level(plan, math.fsum(costs))


def next_meter_log_level(plan: JointPlan, costs: list[float]) -> float:
    """Ln of the level of the next signal: ln delta_meter - ln T - log weight."""
    return math.log((1 - plan.reliability) * (1 - plan.gate_share) / plan.meter_steps) - math.fsum(costs)


def meter_settings(plan: JointPlan, config: MeterConfig) -> MeterConfig:
    """The meter's settings with its part of delta and the plan's steps."""
    delta = (1 - plan.reliability) * (1 - plan.gate_share)
    return evolve(config, reliability=math.nextafter(1 - delta, 1.0), steps=plan.meter_steps)


@pytest.mark.parametrize("order", ["gmgm", "ggmm", "mmgg", "mgmgg", "mmmgg"])
@pytest.mark.parametrize("adaptivity", ["full", "none"])
@pytest.mark.parametrize("possible", [1, 2, 3])
def test_levels_of_the_whole_tree_add_up_to_delta(order, adaptivity, possible):
    """Every signal could be one of so many ranges, and every verdict either; the order of asking is any."""
    plan = JointPlan(
        reliability=0.9,
        gate_steps=order.count("g"),
        meter_steps=order.count("m"),
        gate_share=0.3,
        adaptivity=adaptivity,
    )

    def spend(rest: str, costs: list[float]) -> float:
        if not rest:
            return 0.0
        if rest[0] == "m":
            level, branches, cost = next_meter_log_level(plan, costs), possible, math.log(possible)
        else:
            level, cost = next_gate_log_level(plan, costs), gate_log_cost(plan)
            branches = 2 if adaptivity == "full" else 1
        return math.exp(level) + branches * spend(rest[1:], [*costs, cost])

    assert spend(order, []) == pytest.approx(0.1, rel=1e-9)


def test_a_hidden_gate_pays_for_signals_and_adds_no_branch():
    costs = [gate_log_cost(HIDDEN)] * 3 + [math.log(2)] * 5
    assert next_gate_log_level(HIDDEN, costs[:3]) == pytest.approx(math.log(0.05 / 32))
    assert next_gate_log_level(HIDDEN, costs) == pytest.approx(math.log(0.05 / 32) - 5 * math.log(2))
    shown = replace(HIDDEN, adaptivity="full")
    assert gate_log_cost(shown) == math.log(2)


@pytest.mark.parametrize("adaptivity", ["recycle", "upTo:3", "firstChange", "hybrid"])
def test_allocations_that_the_proof_does_not_cover_are_refused_with_the_reason(adaptivity):
    with pytest.raises(InvalidInputError, match=r"cannot share a sealed set with a meter: it .* take 'full' or"):
        replace(HIDDEN, adaptivity=adaptivity)


@pytest.mark.parametrize(
    "change",
    [{"method": "full"}, {"method": "ratchet"}, {"teams": 2}, {"open_ended": True}, {"developer": "kt"}],
)
def test_meters_that_the_proof_does_not_cover_are_refused(change):
    with pytest.raises(InvalidInputError, match="cannot share a sealed set with a gate"):
        check_joint_meter(evolve(METER, **change))


@pytest.mark.parametrize(
    "change", [{"reliability": 1.0}, {"gate_share": 0.0}, {"gate_steps": 0}, {"meter_steps": 1.5}, {"adaptivity": "x"}]
)
def test_wrong_plans_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(HIDDEN, **change)


def attacked_gate(rng: np.random.Generator, n: int) -> tuple[int, list[float]]:
    """31 coins parked on a boundary, each turned by its signal; the correct answers of their vote, and the ledger."""
    settings = meter_settings(HIDDEN, METER)
    costs: list[float] = []
    votes = np.zeros(n, dtype=np.int64)
    for wrong in rng.integers(0, 2, size=(31, n)):
        reading = read_submission(
            errors=int(wrong.sum()),
            examples=n,
            validation_loss=0.3,
            config=settings,
            log_weight=math.fsum(costs),
        )
        assert reading.signal is not None
        costs += [reading.log_cost, gate_log_cost(HIDDEN)]
        votes += wrong if reading.signal == 1 else 1 - wrong
    return int((2 * votes < 31).sum()), costs


def test_an_attack_on_signals_fools_a_gate_with_an_account_of_its_own_and_not_the_joint_one():
    """Section 9.7: gate in ``none``, condition n > .5, exact binomial test with delta = .05; all models are coins.

    False alarms: the promise allows at most 5 % wrong passes; more than the bound below has a chance of 1e-7. The
    separate account passes about two of three: fewer than 40 % of 150 has a chance below 1e-9.
    """
    rng = np.random.default_rng(97)
    runs, n, separate, joint, flattered = 150, 1_000, 0, 0, []
    for _ in range(runs):
        correct, costs = attacked_gate(rng, n)
        flattered.append(correct / n - 0.5)
        tail = log_upper_tail(correct, n, 0.5)
        separate += tail <= math.log(0.05 / 32)
        joint += tail <= next_gate_log_level(HIDDEN, costs)
    print(f"inflation {np.mean(flattered):.4f}, separate {separate / runs:.3f}, joint {joint / runs:.3f}")
    assert np.mean(flattered) == pytest.approx(math.sqrt(31 / n) / math.pi, abs=5 * math.sqrt(0.25 / n / runs) + 0.003)
    assert separate > 0.4 * runs > stats.binom.isf(1e-7, runs, 0.05)
    assert joint <= stats.binom.isf(1e-7, runs, 0.05)
    assert joint == 0  # e^-21.5 below the level: chance of a pass below 1e-6 even for the vote
