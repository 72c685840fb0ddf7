"""Monte-Carlo size of every test of the gate, on the very threshold: as exact tests should, or below the level.

The laws are those of the table in docs/gate.md (``benchmarks/figures/gate/errors.py``). The expected sizes are computed
from scipy, without any function of the gate. Seeded; a rate is held to five of its standard errors, which another
seed would miss with a chance below one in a million for each test.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from figures.gate import errors
from property_sizes import at_night
from scipy import optimize, stats

from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import decide_counts
from easeml_core.gate.outcomes import Outcomes
from easeml_core.gate.planner import plan_gate

ALPHA = 0.01
RUNS = 20_000
FEW = pytest.mark.parametrize("runs", [1_000, at_night(4_000)])


def rate(k: int, runs: int = RUNS) -> float:
    return errors.wrong_verdicts(errors.NULLS[k], np.random.default_rng(k), runs, alpha=ALPHA) / runs


def five_errors(size: float, runs: int = RUNS) -> float:
    return 5 * math.sqrt(size * (1 - size) / runs)


def binomial_size(n: int, p: float) -> float:
    """P(K >= k) for the least k at which it is at most the level."""
    k = np.arange(n + 1)
    tails = stats.binom.sf(k - 1, n, p)
    return float(tails[tails <= ALPHA].max())


def score_law(n: int, up: float, down: float) -> np.ndarray:
    """Chances of wins minus losses = -n..n, by repeated convolution."""
    law = np.ones(1)
    for _ in range(n):
        law = np.convolve(law, [down, 1 - up - down, up])
    return law


def test_one_proportion():
    # n > .9 rejects large counts of right answers, d < .1 small counts of disagreements: the same law turned round.
    size = binomial_size(1000, 0.9)
    assert rate(0) == pytest.approx(size, abs=five_errors(size))
    assert rate(1) == pytest.approx(size, abs=five_errors(size))


@FEW
def test_the_sign_test(runs):
    decided = np.arange(501)
    sizes = [0.0] + [float(stats.binom.sf(_critical(m) - 1, m, 0.5)) for m in decided[1:]]
    size = float(stats.binom.pmf(decided, 500, 0.1) @ sizes)
    assert rate(2, runs) == pytest.approx(size, abs=five_errors(size, runs))


def _critical(m: int) -> int:
    return int(stats.binom.isf(ALPHA, m, 0.5)) + 1


def test_the_trinomial_test():
    tails = np.cumsum(score_law(500, 0.06, 0.04)[::-1])
    size = float(tails[tails <= ALPHA].max())
    assert 0.005 < size <= ALPHA
    assert rate(3) == pytest.approx(size, abs=five_errors(size))


@FEW
def test_the_trinomial_test_with_a_bound_from_the_same_examples_is_careful(runs):
    # Its level is .009 at d = the bound of about .148 instead of .1: 2.37 * sqrt(1.48) = 2.88 standard deviations.
    size = float(stats.norm.sf(2.88))
    assert rate(4, runs) <= size + five_errors(size, runs)


def test_a_wrong_fail_of_two_clauses_shares_the_level():
    # Both clauses are on their thresholds: each fails wrongly at half of the level, hardly ever both.
    one = max(s for s in stats.binom.cdf(np.arange(501), 500, 0.9) if s <= ALPHA / 2)
    other = max(s for s in stats.binom.sf(np.arange(501), 500, 0.8) if s <= ALPHA / 2)
    assert rate(6) <= one + other + five_errors(one + other)
    assert rate(6) > 0.5 * ALPHA


def test_two_clauses_pass_at_the_whole_level_and_fail_at_half_of_it():
    """Counts whose p-values lie between the two levels, out of scipy: enough for a PASS, too little for a FAIL."""
    condition = parse_condition("n > 0.9 +/- 0.01 /\\ o < 0.8 +/- 0.01")

    def verdict(new: int, old: int) -> str:
        counts = Outcomes(500, max(0, new - old), max(0, old - new), new, old, abs(new - old))
        return decide_counts(condition, counts, log_level=math.log(ALPHA), mode="fp-free").verdict.value

    k = np.arange(501)
    low = {"n": stats.binom.cdf(k, 500, 0.9), "o": stats.binom.cdf(k, 500, 0.8)}
    high = {"n": stats.binom.sf(k - 1, 500, 0.9), "o": stats.binom.sf(k - 1, 500, 0.8)}

    def between(tail: np.ndarray) -> int:
        return int(np.flatnonzero((tail > ALPHA / 2) & (tail <= ALPHA))[0])

    assert verdict(between(high["n"]), between(low["o"])) == "PASS"
    assert verdict(between(low["n"]), 400) == "UNKNOWN"
    assert verdict(450, between(high["o"])) == "UNKNOWN"
    assert verdict(int(np.flatnonzero(low["n"] <= ALPHA / 2)[-1]), 400) == "FAIL"
    assert verdict(450, int(np.flatnonzero(high["o"] <= ALPHA / 2)[0])) == "FAIL"


def test_each_end_of_an_interval_has_the_level_of_the_test_on_its_side():
    """For ``>`` the low end has the whole level and the high end half of it, for ``<`` the other way round."""
    condition = parse_condition("n > 0.5 +/- 0.1 /\\ o < 0.9 +/- 0.1")
    counts = Outcomes(500, wins=40, losses=10, new_correct=400, old_correct=370, disagreements=50)
    new, old = decide_counts(condition, counts, log_level=math.log(ALPHA), mode="fp-free").clauses

    def ends(k: int, below: float, above: float) -> tuple[float, float]:
        return float(stats.beta.ppf(below, k, 501 - k)), float(stats.beta.isf(above, k + 1, 500 - k))

    assert new.interval == pytest.approx(ends(400, ALPHA, ALPHA / 2), rel=1e-9)
    assert old.interval == pytest.approx(ends(370, ALPHA / 2, ALPHA), rel=1e-9)


@pytest.mark.parametrize("log_alpha", [math.log(ALPHA), -25.0])
def test_a_plan_for_a_weighted_left_side_lies_between_the_optimum_and_chernoffs(log_alpha):
    """The optimum: a normal test that knows the law. Chernoff's: for the worst law on the range."""

    def kl(x: float, c: float) -> float:
        return x * math.log(x / c) + (1 - x) * math.log((1 - x) / (1 - c))

    condition = parse_condition("n - 1.1 * o > 0.01 +/- 0.05")
    null, alternative = (0.01 + 1.1) / 2.1, (0.11 + 1.1) / 2.1
    x = optimize.brentq(
        lambda t: kl(t, null) / -log_alpha - kl(t, alternative) / math.log(10), null + 1e-9, alternative - 1e-9
    )
    variance = alternative * (1 - alternative) * 2.1**2
    optimum = (stats.norm.isf(math.exp(log_alpha)) + stats.norm.isf(0.1)) ** 2 * variance / 0.1**2
    planned = plan_gate(
        condition, reliability=-math.expm1(log_alpha), steps=1, adaptivity="none", mode="fp-free", power=0.9
    )
    assert optimum < planned.labels < 1.35 * optimum < -log_alpha / kl(x, null)


@pytest.mark.parametrize("k", [7, at_night(8)])
def test_early_stopping_at_every_look(k):
    runs = 100
    # At most the level: of 100 runs 10 or more would be wrong with a chance below 1e-6.
    assert errors.wrong_verdicts(errors.NULLS[k], np.random.default_rng(k), runs, alpha=ALPHA) <= 9


def test_a_weighted_left_side():
    assert errors.wrong_verdicts(errors.NULLS[5], np.random.default_rng(5), 100, alpha=ALPHA) <= 9


def test_every_law_lies_on_the_threshold_of_its_clause():
    from easeml_core.gate.condition import OUTCOMES

    for null in errors.NULLS:
        assert sum(null.law) == pytest.approx(1)
        for clause in parse_condition(null.condition).clauses[: 1 if null.clause == 0 else None]:
            value = sum(p * clause.value_of(outcome) for p, outcome in zip(null.law, OUTCOMES, strict=True))
            assert value == pytest.approx(clause.threshold), null.name
