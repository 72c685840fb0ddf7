"""The attack on a meter's signals that fools a gate on the same set, run through the real store."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from joint_lab import LN2, costs, parked, register

from easeml_core.gate.condition import parse_condition
from easeml_core.gate.judge import judge_predictions
from easeml_core.stats.binomial_bounds import log_upper_tail


def test_the_attack_on_signals_fools_a_gate_with_an_account_of_its_own_and_not_the_joint_ledger(
    bare: Any, tmp_path: Any
) -> None:
    """Gate in ``none``, condition n > .5, meter live on one set.

    31 coins stand on the boundary; each is turned by its signal, and their vote is submitted last. Nothing here is
    random but the coins, whose seed is fixed: the vote of this run is one of the two in three that fool a gate with
    delta / H (tests/core/meter/test_meter_joint.py gives the rates over many runs).
    """
    coins = 31
    shared = register(
        bare,
        tmp_path,
        gate={"condition": "n > 0.5 +/- 0.2", "adaptivity": "none", "steps": coins + 1},
        meter={"steps": coins + 1, "ambiguous": coins, "tolerance": 0.4},
        joint={"reliability": 0.9, "gate_share": 0.5},
    )
    parked(shared)
    rng, truth = np.random.default_rng(5), shared.labels
    n, votes = len(truth), np.zeros(len(truth), dtype=np.int64)
    for wrong in rng.integers(0, 2, size=(coins, n)).astype(bool):
        coin = shared.model(wrong)
        signal = shared.meter(coin).signal
        assert shared.gate(coin).symbol == "withheld"
        votes += wrong if signal == 1 else ~wrong
    fooling = 2 * votes > coins
    assert shared.gate(shared.model(fooling)).symbol == "withheld"

    entries = shared.ledger()
    first = math.log(0.05 / (coins + 1))
    meter_levels = [level for system, *_, level, _ in entries if system == "meter"]
    gate_levels = [level for system, *_, level, _ in entries if system == "gate"]
    assert meter_levels == pytest.approx([first - t * LN2 for t in range(coins)], abs=1e-9)
    assert gate_levels == pytest.approx([first - min(t + 1, coins) * LN2 for t in range(coins + 1)], abs=1e-9)
    assert costs(shared) == [("meter", 1.0), ("gate", 0.0)] * coins + [("gate", 0.0)]

    correct = int(n - fooling.sum())
    tail = log_upper_tail(correct, n, 0.5)
    print(f"vote right on {correct} of {n}, ln tail {tail:.2f}, separate {first:.2f}, joint {gate_levels[-1]:.2f}")
    assert gate_levels[-1] < tail <= first
    condition, said = parse_condition("n > 0.5 +/- 0.2"), np.where(fooling, 1 - truth, truth)
    separate = judge_predictions(condition, truth, truth, said, log_level=first, mode="fp-free")
    assert separate.passed  # what delta / H would have answered to a model that is right half of the time
    assert bare.one("SELECT report ->> 'symbol' FROM sealed.ledger ORDER BY id DESC LIMIT 1") == "fail"
    assert shared.state() == ("retired", "steps")
