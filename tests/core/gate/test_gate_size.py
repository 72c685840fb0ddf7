"""How often each test errs on its threshold: by simulation, at its nominal level.

Every law lies exactly on the threshold, where an error is likeliest. The count of errors must not be above what its
level allows by a chance of one in ten million; where the exact size is known from outside, not below it either.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from property_sizes import at_night
from scipy import stats

from easeml_core.entities import Verdict
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import decide_counts
from easeml_core.gate.judge import judge_predictions
from easeml_core.gate.outcomes import Outcomes

ALPHA, SETS, CHANCE = 0.05, 2000, 1e-7


def on_threshold(gain, apart, both=0.6, wrong_apart=0.0):
    """Chances of both right, win, loss, both wrong alike, both wrong apart."""
    decided = apart - wrong_apart
    return [both, (decided + gain) / 2, (decided - gain) / 2, 1 - both - apart, wrong_apart]


# Condition, law, size, and the exact size where the test has no slack: P(Bin(150, .8) >= k) at the first k that has
# at most .05; the trinomial test at p = A likewise, from the double sum over binomials.
CASES = [
    ("n > 0.8 +/- 0.1", on_threshold(0.0, 0.2, both=0.7), 150),
    ("n < 0.8 +/- 0.1", on_threshold(0.0, 0.2, both=0.7), 150),
    ("d < 0.2 +/- 0.1", on_threshold(0.0, 0.2), 150),
    ("n - o > 0 +/- 0.1", on_threshold(0.0, 0.2), 30),
    at_night("n - o > 0 +/- 0.1", on_threshold(0.0, 0.2), 100),
    ("n - o > 0 +/- 0.1", on_threshold(0.0, 0.2, wrong_apart=0.1), 100),
    ("n - o > 0.05 +/- 0.1", on_threshold(0.05, 0.2), 60),
    ("n - o < 0.05 +/- 0.1", on_threshold(0.05, 0.2), 60),
    ("n - o > 0.05 +/- 0.1 /\\ d < 0.2 +/- 0.1", on_threshold(0.05, 0.1999), 60),
    ("n - o > 0.05 +/- 0.1 /\\ d < 0.2 +/- 0.1", on_threshold(0.12, 0.2), 60),
    ("n - 1.1 * o > -0.01 +/- 0.1", [0.6, 0.15, 0.1, 0.15, 0.0], 10),
    ("n - 2 * o > -0.2 +/- 0.1", [0.2, 0.3, 0.15, 0.35, 0.0], 10),
    # Hardly two of the 2,000 sets are alike, and each p-value of a weighted side takes milliseconds.
    at_night("n - 1.1 * o > -0.01 +/- 0.1", [0.6, 0.15, 0.1, 0.15, 0.0], 60),
    at_night("n - 2 * o > -0.2 +/- 0.1", [0.2, 0.3, 0.15, 0.35, 0.0], 60),
]
MOST = int(stats.binom.isf(CHANCE, SETS, ALPHA))


def drawn(law, examples, seed):
    return np.random.default_rng(seed).multinomial(examples, law, size=SETS)


def error_counts(source, law, examples, mode="fp-free"):
    """How many sets get a PASS, and how many a FAIL."""
    condition = parse_condition(source)

    everything = condition.needs_agreements

    @functools.cache
    def verdict(both, wins, losses, apart):
        right = (both + wins, both + losses) if everything else (None, None)
        counts = Outcomes(examples, wins, losses, *right, wins + losses + apart)
        return decide_counts(condition, counts, log_level=math.log(ALPHA), mode=mode).verdict

    rows = drawn(law, examples, seed=41).tolist()
    found = [verdict(both if everything else 0, wins, losses, apart) for both, wins, losses, _, apart in rows]
    return found.count(Verdict.PASS), found.count(Verdict.FAIL)


@pytest.mark.parametrize(("source", "law", "examples"), CASES)
def test_no_test_errs_more_often_than_its_level(source, law, examples):
    assert sum(law) == pytest.approx(1)
    passes, fails = error_counts(source, law, examples)
    assert passes <= MOST
    # A condition on its threshold is false, so a FAIL is right; for one clause it is as likely as a PASS at most.
    assert "/\\" in source or fails <= MOST


def test_the_binomial_test_uses_its_level():
    critical = next(k for k in range(151) if stats.binom.sf(k - 1, 150, 0.8) <= ALPHA)
    size = stats.binom.sf(critical - 1, 150, 0.8)
    passes, _ = error_counts(*CASES[0])
    assert stats.binom.ppf(CHANCE, SETS, size) <= passes <= stats.binom.isf(CHANCE, SETS, size)


def trinomial_tail(score, n, c, q):
    """The double sum: how many examples are decided, and how many of those are wins."""
    j = np.arange(n + 1)
    return float((stats.binom.pmf(j, n, q) * stats.binom.sf(np.ceil((j + score) / 2) - 1, j, (q + c) / (2 * q))).sum())


def test_the_trinomial_test_uses_its_level():
    critical = next(s for s in range(101) if trinomial_tail(s, 100, 0.05, 0.2) <= ALPHA)
    size = trinomial_tail(critical, 100, 0.05, 0.2)
    condition = parse_condition("n - o > 0.05 +/- 0.1 /\\ d < 0.2 +/- 0.1")
    passes = 0
    for _, wins, losses, _, _ in drawn(on_threshold(0.05, 0.2), 100, seed=42).tolist():
        # Only the difference enters the test: the smallest counts that have it stand for all.
        win, loss = max(wins - losses, 0), max(losses - wins, 0)
        passes += _log_p(condition, Outcomes(100, win, loss, None, None, win + loss)) <= math.log(ALPHA)
    assert stats.binom.ppf(CHANCE, SETS, size) <= passes <= stats.binom.isf(CHANCE, SETS, size)


@functools.cache
def _log_p(condition, counts):
    return decide_counts(condition, counts, log_level=math.log(ALPHA), mode="fp-free").clauses[0].log_p_pass


@pytest.mark.parametrize(("examples", "batch", "runs"), [(100, 5, 150), at_night(200, 2, 600)])
@pytest.mark.parametrize(("source", "gain"), [("n - o > 0.05 +/- 0.3", 0.05), at_night("n - o < 0.05 +/- 0.3", 0.05)])
def test_looking_after_every_batch_does_not_add_to_the_errors(source, gain, examples, batch, runs):
    condition, passes = parse_condition(source), 0
    rng = np.random.default_rng(43)
    labels = np.zeros(examples, dtype=np.int64)
    old, new = np.array([0, 1, 0, 1, 1]), np.array([0, 0, 1, 1, 2])
    for _ in range(runs):
        cells = rng.choice(5, size=examples, p=on_threshold(gain, 0.3))
        found = judge_predictions(
            condition,
            labels,
            old[cells],
            new[cells],
            log_level=math.log(0.2),
            mode="fp-free",
            sampling="early",
            batch=batch,
        )
        passes += found.passed
    assert 0 < passes <= stats.binom.isf(CHANCE, runs, 0.2)
