"""Developers who use what they learn, against every allocation of the level: one for each kind of feedback.

The attacks are those of docs/gate.md (``benchmarks/figures/gate/risks.py``). Each attack works where the level does
not pay for its feedback, and fails where it does. All seeded; false-alarm chances are for other seeds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from figures.gate import risks

from easeml_core.stats.adaptivity import allocate

RUNS = 150
# Of 150 sets with a false answer in at most 5 % each, 26 or more have a chance below one in a million.
MOST = 25
# How an attack goes about it: often changed, so that every answer tells much; seldom, so that the set lives long.
OFTEN, SELDOM = 0.5, 0.05


@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
def test_answers_that_are_not_paid_for_fool_the_gate(mode):
    # Seen: 63 and 52 % of 200. Fewer than 45 of 150 has a chance below 1e-6 if it is one half.
    attack = risks.Attack(aim=OFTEN, mode=mode)
    assert risks.false_answers(np.random.default_rng(1), attack, "none", runs=RUNS, counted=False).sum() >= 45


@pytest.mark.parametrize("aim", [OFTEN, SELDOM])
@pytest.mark.parametrize(
    ("adaptivity", "mode", "known"),
    [
        ("full", "fp-free", 0.3),
        ("firstChange", "fp-free", 0.15),
        ("upTo:3", "fp-free", 0.15),
        ("upTo:3", "fn-free", 0.15),
        ("recycle", "fp-free", 0.15),
        ("recycle", "fp-free", 0.4),
        ("recycle", "fn-free", 0.4),
    ],
)
def test_answers_that_are_paid_for_do_not(adaptivity, mode, known, aim):
    attack = risks.Attack(aim=aim, mode=mode, known=known)
    assert risks.false_answers(np.random.default_rng(2), attack, adaptivity, runs=RUNS).sum() <= MOST


@pytest.mark.parametrize(
    ("adaptivity", "mode", "costly"),
    [
        ("recycle", "fp-free", True),
        ("recycle", "fn-free", False),
        ("upTo:3", "fp-free", True),
        ("upTo:3", "fn-free", False),
        ("firstChange", "fp-free", True),
        ("firstChange", "fn-free", True),
    ],
)
def test_what_costs_is_the_answer_that_the_promise_is_about(adaptivity, mode, costly):
    """A wrong pass breaks the promise of fp-free, a wrong fail that of fn-free; firstChange ends at a pass anyway."""
    allocation = allocate(adaptivity, 32, mode=mode, estimator="exact")
    assert allocation.is_change(passed=costly)
    assert not allocation.is_change(passed=not costly)


@pytest.mark.parametrize("adaptivity", ["recycle", "upTo:3"])
def test_the_attacks_reach_the_states_that_they_are_about(adaptivity, monkeypatch):
    """Questions are tuned well enough that sets see several changes, and each changes what the next test costs."""
    seen: list[int] = []
    priced = risks.Allocation.log_multiplicity

    def noted(self: Any, changes: int = 0) -> float:
        seen.append(changes)
        return float(priced(self, changes))

    monkeypatch.setattr(risks.Allocation, "log_multiplicity", noted)
    risks.false_answers(np.random.default_rng(3), risks.Attack(aim=OFTEN, known=0.4), adaptivity, runs=5)
    assert max(seen) >= 2
    assert adaptivity == "recycle" or max(seen) == 2  # the third change retires the set


def test_a_vote_passes_a_hoeffding_threshold_at_one_level_per_step_half_of_the_time():
    """The specification's figure: at N = 1000 and delta = .05 the 32nd model passes in 50.6 % of the runs."""
    counts = risks.vote_counts(np.random.default_rng(4), examples=1000, answers=31, runs=300)
    excess = counts / 1000 - 0.5
    fooled = {}
    for adaptivity in ("none", "full"):
        nats = allocate(adaptivity, 32, mode="fp-free", estimator="paper").log_multiplicity() - math.log(0.05)
        fooled[adaptivity] = float((excess > math.sqrt(nats / 2000)).mean())
    # Five standard errors of 300 runs: .144.
    assert fooled["none"] == pytest.approx(0.506, abs=0.144)
    assert fooled["full"] == 0


@pytest.mark.parametrize(("examples", "points"), [(500, 7.9), (1000, 5.6), (5000, 2.5)])
def test_the_vote_looks_better_as_the_formula_says(examples, points):
    counts = risks.vote_counts(np.random.default_rng(5), examples=examples, answers=31, runs=100)
    # Five standard errors: 0.5 / sqrt(100 N) each.
    assert (counts / examples - 0.5).mean() == pytest.approx(points / 100, abs=5 * 0.05 / math.sqrt(examples) + 0.0005)
    assert risks.inflation(examples, 31) == pytest.approx(points / 100, abs=0.0006)


@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
def test_the_critical_count_is_the_binomial_one(mode):
    """Out of scipy: the least count whose tail is at most the level, or the least that fn-free does not fail."""
    from scipy.stats import binom

    for log_level in (-3.0, -8.0, -25.0):
        found = risks.critical_count(log_level, 1000, mode)
        if mode == "fp-free":
            assert binom.logsf(found - 1, 1000, 0.5) <= log_level < binom.logsf(found - 2, 1000, 0.5)
        else:
            assert binom.logcdf(found - 1, 1000, 0.5) <= log_level < binom.logcdf(found, 1000, 0.5)
