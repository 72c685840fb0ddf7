"""One ledger for gate and meter: levels add up to delta over the whole tree, and an attack on the signals fails."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from path_adaptive import read_meter
from scipy import stats

from easeml_core.config import MeterConfig
from easeml_core.errors import BudgetExhaustedError, ConfigError, InvalidInputError, StateError
from easeml_core.meter.joint import (
    JointEntry,
    JointPlan,
    gate_log_cost,
    log_weight,
    meter_settings,
    next_gate_log_level,
    next_meter_log_level,
)
from easeml_core.stats.clopper_pearson import log_upper_tail

METER = MeterConfig(ranges=(0.2, 0.6), tolerance=0.3, reliability=0.5, steps=99, tail="hoeffding")
HIDDEN = JointPlan(reliability=0.9, gate_steps=32, meter_steps=32, adaptivity="none")


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

    def spend(rest: str, entries: list[JointEntry]) -> float:
        if not rest:
            return 0.0
        if rest[0] == "m":
            level, branches, entry = (
                next_meter_log_level(plan, entries),
                possible,
                JointEntry("meter", math.log(possible)),
            )
        else:
            level, entry = next_gate_log_level(plan, entries), JointEntry("gate", gate_log_cost(plan))
            branches = 2 if adaptivity == "full" else 1
        return math.exp(level) + branches * spend(rest[1:], [*entries, entry])

    assert spend(order, []) == pytest.approx(0.1, rel=1e-9)


def test_a_hidden_gate_pays_for_signals_and_adds_no_branch():
    entries = [JointEntry("gate", gate_log_cost(HIDDEN))] * 3 + [JointEntry("meter", math.log(2))] * 5
    assert next_gate_log_level(HIDDEN, entries[:3]) == pytest.approx(math.log(0.05 / 32))
    assert next_gate_log_level(HIDDEN, entries) == pytest.approx(math.log(0.05 / 32) - 5 * math.log(2))
    shown = replace(HIDDEN, adaptivity="full")
    assert gate_log_cost(shown) == math.log(2)
    assert next_meter_log_level(shown, [JointEntry("gate", math.log(2))]) == pytest.approx(math.log(0.05 / 32 / 2))


def test_the_meter_reads_at_the_joint_level():
    settings = meter_settings(HIDDEN, METER)
    entries = [JointEntry("gate"), JointEntry("meter", math.log(2))]
    reading = read_meter(
        errors=300, examples=1_000, validation_loss=0.25, config=settings, log_weight=log_weight(entries)
    )
    assert reading.log_level == pytest.approx(next_meter_log_level(HIDDEN, entries), rel=1e-9)
    assert 1 - settings.reliability <= 0.1 * 0.5
    assert settings.steps == 32


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
        meter_settings(HIDDEN, replace(METER, **change))


def test_a_retired_or_used_up_set_answers_neither():
    for entry in (JointEntry("gate", retired=True), JointEntry("meter", retired=True)):
        for level in (next_gate_log_level, next_meter_log_level):
            with pytest.raises(StateError, match="retired, for gate and meter alike"):
                level(HIDDEN, [entry])
    with pytest.raises(BudgetExhaustedError, match="gate answers on the shared sealed set: 32 of 32 used"):
        next_gate_log_level(HIDDEN, [JointEntry("gate")] * 32)
    assert next_meter_log_level(HIDDEN, [JointEntry("gate")] * 32) < 0


@pytest.mark.parametrize(
    "change", [{"reliability": 1.0}, {"gate_share": 0.0}, {"gate_steps": 0}, {"meter_steps": 1.5}, {"adaptivity": "x"}]
)
def test_wrong_plans_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(HIDDEN, **change)


def attacked_gate(rng: np.random.Generator, n: int) -> tuple[int, list[JointEntry]]:
    """31 coins parked on a boundary, each turned by its signal; the correct answers of their vote, and the ledger."""
    settings = meter_settings(HIDDEN, METER)
    entries: list[JointEntry] = []
    votes = np.zeros(n, dtype=np.int64)
    for wrong in rng.integers(0, 2, size=(31, n)):
        reading = read_meter(
            errors=int(wrong.sum()),
            examples=n,
            validation_loss=0.3,
            config=settings,
            log_weight=log_weight(entries),
        )
        assert reading.signal is not None
        entries += [JointEntry("meter", reading.log_cost), JointEntry("gate", gate_log_cost(HIDDEN))]
        votes += wrong if reading.signal == 1 else 1 - wrong
    return int((2 * votes < 31).sum()), entries


def test_an_attack_on_signals_fools_a_gate_with_an_account_of_its_own_and_not_the_joint_one():
    """Section 9.7: gate in ``none``, condition n > .5, exact binomial test with delta = .05; all models are coins.

    False alarms: the promise allows at most 5 % wrong passes; more than the bound below has a chance of 1e-7. The
    separate account passes about two of three: fewer than 40 % of 150 has a chance below 1e-9.
    """
    rng = np.random.default_rng(97)
    runs, n, separate, joint, flattered = 150, 1_000, 0, 0, []
    for _ in range(runs):
        correct, entries = attacked_gate(rng, n)
        flattered.append(correct / n - 0.5)
        tail = log_upper_tail(correct, n, 0.5)
        separate += tail <= math.log(0.05 / 32)
        joint += tail <= next_gate_log_level(HIDDEN, entries)
    print(f"inflation {np.mean(flattered):.4f}, separate {separate / runs:.3f}, joint {joint / runs:.3f}")
    assert np.mean(flattered) == pytest.approx(math.sqrt(31 / n) / math.pi, abs=5 * math.sqrt(0.25 / n / runs) + 0.003)
    assert separate > 0.4 * runs > stats.binom.isf(1e-7, runs, 0.05)
    assert joint <= stats.binom.isf(1e-7, runs, 0.05)
    assert joint == 0  # e^-21.5 below the level: chance of a pass below 1e-6 even for the vote
