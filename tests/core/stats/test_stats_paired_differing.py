"""The test of n - o on some of the disagreements: its level over every law on the threshold, and where m comes from.

Chances are added up exactly, over how many examples differ, and of these over wins and losses.
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
from scipy.stats import beta, binom, multinomial

from easeml_core.errors import InvalidInputError
from easeml_core.stats.paired_differing import (
    Differing,
    differing_labels,
    differing_lower_bound,
    log_differing_p_value,
)

N = 24
ALTERNATIVE = 0.4
"""By how much the truth that is to be found lies beyond the threshold."""


def labels_for(count, threshold, alpha, miss=0.2):
    asked = {"threshold": threshold, "alternative": threshold + ALTERNATIVE}
    return differing_labels(Differing(count, N), **asked, log_level=math.log(alpha), log_miss=math.log(miss))


def worst_chance(threshold, alpha, *, all_of_them=False):
    """The largest chance of a rejection over laws on the threshold: over d, and the share of it that is decided."""

    @cache
    def rejects(wins, losses, judged, count):
        shown = Differing(count, N)
        return log_differing_p_value(
            wins, losses, judged, shown, threshold=threshold, log_level=math.log(alpha)
        ) <= math.log(alpha)

    worst = 0.0
    for d, decided in itertools.product(np.linspace(0.1, 1, 10), (1.0, 0.97, 0.8)):
        if d * decided <= abs(threshold):
            continue
        mean = threshold / d
        law = [(decided + mean) / 2, (decided - mean) / 2, 1 - decided]
        total = 0.0
        for count in range(N + 1):
            judged = count if all_of_them else labels_for(count, threshold, alpha)
            splits = [(w, k) for w in range(judged + 1) for k in range(judged + 1 - w) if rejects(w, k, judged, count)]
            if splits:
                rows = [(w, k, judged - w - k) for w, k in splits]
                total += binom.pmf(count, N, d) * multinomial.pmf(rows, judged, law).sum()
        worst = max(worst, float(total))
    return worst


@pytest.mark.parametrize(("threshold", "alpha"), [(0.1, 0.2), (-0.1, 0.2), (0.0, 0.2), (0.3, 0.05)])
@pytest.mark.parametrize("all_of_them", [False, True])
def test_no_law_on_the_threshold_is_rejected_more_often_than_the_level(threshold, alpha, all_of_them):
    assert worst_chance(threshold, alpha, all_of_them=all_of_them) <= alpha * (1 + 1e-9)


def chance_on_the_threshold(examples, d, threshold, alpha):
    """The chance of a rejection where n - o is the threshold, one model is right of each disagreement, and m is D."""
    total, log_level = 0.0, math.log(alpha)
    for count in range(*map(int, binom.interval(1 - 1e-6, examples, d))):
        shown, low, high = Differing(count, examples), 0, count + 1
        while high > low:
            wins = (low + high) // 2
            at = (wins, count - wins, count, shown)
            rejects = wins > count or log_differing_p_value(*at, threshold=threshold, log_level=log_level) <= log_level
            low, high = (low, wins) if rejects else (wins + 1, high)
        total += binom.pmf(count, examples, d) * binom.sf(low - 1, count, (1 + threshold / d) / 2)
    return total


def test_the_share_seen_in_place_of_its_bound_would_break_the_level(monkeypatch):
    """What the bound is for: with d as observed, a law with n - o on the threshold passes too often."""

    def plugged_in(self, difference, *, log_level, largest=True):
        return difference * self.examples / self.count if self.count and difference else 0.0

    monkeypatch.setattr(Differing, "mean_of", plugged_in)
    assert chance_on_the_threshold(200, 0.4, 0.3, 0.05) > 0.06


@pytest.mark.parametrize("count", [4_239, 12_717])
@pytest.mark.parametrize("threshold", [0.005, -0.02])
def test_it_is_the_binomial_tail_at_the_bound_of_d_with_a_tenth_of_the_level(threshold, count):
    """Out of scipy alone, where all 151 labels are decided, which is the worst then."""
    examples, judged, wins, alpha = 84_779, 151, 100, 3.125e-6
    low, high = beta.ppf(alpha / 10, count, examples - count + 1), beta.isf(alpha / 10, count + 1, examples - count)
    mean = threshold / (low if threshold > 0 else high)
    golden = binom.sf(wins - 1, judged, (1 + mean) / 2) + alpha / 10
    found = log_differing_p_value(
        wins, judged - wins, judged, Differing(count, examples), threshold=threshold, log_level=math.log(alpha)
    )
    assert math.exp(found) == pytest.approx(golden, rel=1e-6)


def test_at_threshold_zero_nothing_is_paid_for_d():
    found = log_differing_p_value(9, 1, 10, Differing(90, 900), threshold=0.0, log_level=-3.0)
    assert math.exp(found) == pytest.approx(binom.sf(8, 10, 0.5), rel=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(120, 31), (31, 120), (80, 71)])
def test_the_lower_bound_is_the_threshold_that_is_rejected_just_so(wins, losses):
    shown, log_level = Differing(4_239, 84_779), math.log(1e-3)
    bound = differing_lower_bound(wins, losses, 151, shown, log_level=log_level)

    def rejected(threshold):
        p = log_differing_p_value(wins, losses, 151, shown, threshold=threshold, log_level=log_level)
        return p <= log_level

    assert rejected(bound - 1e-7)
    assert not rejected(bound + 1e-6)


@pytest.mark.parametrize("d", [0.05, 0.15, 0.3])
@pytest.mark.parametrize(("threshold", "alternative"), [(0.02, 0.04), (-0.02, 0.0), (0.0, 0.02)])
def test_the_labels_asked_for_are_enough_and_hardly_more(d, threshold, alternative):
    """At n - o = c + 2 eps the chance of a miss, out of scipy's binomial law, is at most the planned one."""
    examples, alpha, miss = 84_779, 3.125e-6, 0.1
    shown = Differing(round(d * examples), examples)
    asked = {"threshold": threshold, "alternative": alternative, "log_level": math.log(alpha)}
    judged = differing_labels(shown, **asked, log_miss=math.log(miss))
    wins = np.arange(judged + 1)
    low = beta.ppf(alpha / 10, shown.count, examples - shown.count + 1)
    high = beta.isf(alpha / 10, shown.count + 1, examples - shown.count)
    null = threshold / (low if threshold > 0 else high)
    level = alpha if threshold == 0 else 0.9 * alpha
    rejecting = binom.sf(wins - 1, judged, (1 + null) / 2) <= level
    worst = alternative / (high if alternative > 0 else low)  # at the d where the test misses most
    missed = binom.cdf(int(rejecting.argmax()) - 1, judged, (1 + worst) / 2)
    assert miss / 2 < missed <= miss
    assert judged < shown.count / 2


def test_where_predictions_alone_decide_no_label_is_asked_for():
    asked = {"alternative": 0.05, "log_level": -5.0, "log_miss": -2.0}
    assert differing_labels(Differing(10, 1000), threshold=0.02, **asked) == 0  # n - o is at most d
    assert differing_labels(Differing(10, 1000), threshold=-0.05, **asked) == 0  # n - o is at least -d
    shown = Differing(10, 1000)
    assert log_differing_p_value(0, 0, 0, shown, threshold=0.02, log_level=-5.0) == 0
    assert log_differing_p_value(0, 0, 0, shown, threshold=-0.05, log_level=-5.0) == pytest.approx(-5 + math.log(0.1))


@pytest.mark.parametrize("counts", [(2, 0, 1), (1, 1, 11), (-1, 1, 5)])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(InvalidInputError, match="judged <= 10"):
        log_differing_p_value(*counts, Differing(10, 20), threshold=0.1, log_level=-3.0)


@pytest.mark.parametrize(("count", "examples"), [(6, 5), (-1, 5), (0, 0)])
def test_counts_that_cannot_be_are_refused(count, examples):
    with pytest.raises(InvalidInputError, match="need examples >= 1 and count from 0 to that"):
        Differing(count, examples)
