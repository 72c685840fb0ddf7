"""Betting: a martingale by exact enumeration, the same in a plain loop, sizes of 9.5 by seeded simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy.special import gammaln, xlogy

from easeml_core.errors import ConfigError
from easeml_core.stats.betting import bet_times, betting_lower_bound, log_plugin_wealth, log_wealth

NONE = math.log(1e-4 / 32)
FULL = math.log(1e-4) - 32 * math.log(2)
PAIRED = {"low": -1.0, "high": 1.0}
SCALE = [-1.0, 0.0, 1.0]


def plain_wealth(draws, c, low, high):
    """The definition of section 9.2, one draw after the other, no logarithms."""
    bets = [0.02 / (high - low) * (0.95 * (high - low) / (0.02 * (c - low))) ** (j / 11) for j in range(12)]
    fortunes = [1 / 12] * 12
    for x in draws:
        fortunes = [f * (1 + bet * (x - c)) for f, bet in zip(fortunes, bets, strict=True)]
    return sum(fortunes)


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(st.sampled_from(SCALE), max_size=60), st.floats(-0.9, 0.9))
def test_it_is_the_product_of_the_definition(draws, c):
    counts = [draws.count(x) for x in SCALE]
    expected = plain_wealth(draws, c, -1, 1)
    assert math.exp(log_wealth(counts, SCALE, threshold=c, **PAIRED)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("threshold", [1.5, 50.0, 1e9])
def test_a_threshold_far_above_every_value_ruins_every_bet_a_little(threshold):
    """No factor below 0.05, so no fortune below 0: the smallest bet would have lost more than there is."""
    lost = log_wealth([7, 0, 0], SCALE, threshold=threshold, **PAIRED)
    assert 7 * math.log(0.05) <= lost < 0


def all_counts(n, kinds):
    cuts = itertools.combinations(range(n + kinds - 1), kinds - 1)
    return np.array([np.diff([-1, *c, n + kinds - 1]) - 1 for c in cuts])


LINEAR_VALUES = [-0.1, 1.0, -1.1, 0.0, 0.0]


@pytest.mark.parametrize(("values", "c"), [(SCALE, 0.02), (SCALE, -0.4), ([0.0, 1.0], 0.9), (LINEAR_VALUES, 0.05)])
@pytest.mark.parametrize("n", [1, 3, 7])
def test_its_mean_is_one_on_the_threshold_and_at_most_one_below(values, c, n):
    """Over all outcomes of n draws, exactly, for laws with mean c and for laws with a smaller mean."""
    rng = np.random.default_rng(92)
    rows, worth = all_counts(n, len(values)), np.array(values)
    ways = gammaln(n + 1) - gammaln(rows + 1).sum(axis=1)
    wealth = np.exp(log_wealth(rows, values, threshold=c, low=min(values), high=max(values)))
    laws = rng.dirichlet(np.full(len(values), 0.5), 200)
    above, below = laws[laws @ worth > c], laws[laws @ worth < c]
    for one, two in zip(above, itertools.cycle(below), strict=False):
        share = (c - two @ worth) / ((one - two) @ worth)
        edge = two + share * (one - two)
        assert np.exp(ways + xlogy(rows, edge).sum(axis=1)) @ wealth == pytest.approx(1, rel=1e-9)
        assert np.exp(ways + xlogy(rows, two).sum(axis=1)) @ wealth < 1
    assert len(above) > 5


@pytest.mark.parametrize("n", [6, 12])
def test_no_walk_ever_reaches_one_over_alpha_too_often(n):
    """Ville's inequality, exactly: all walks of n steps, stopped at the first moment at which the bet is won."""
    c, alpha = 0.1, 0.2
    for decided in (0.1, 0.3, 0.6, 1.0):
        law = {1: (decided + c) / 2, -1: (decided - c) / 2, 0: 1 - decided}
        chances, won = {(0, 0): 1.0}, 0.0
        for t in range(1, n + 1):
            later: dict[tuple[int, int], float] = {}
            for (wins, losses), chance in chances.items():
                for step, p in law.items():
                    key = (wins + (step == 1), losses + (step == -1))
                    later[key] = later.get(key, 0.0) + chance * p
            keys = list(later)
            counts = [(b, t - a - b, a) for a, b in keys]
            wealth = log_wealth(counts, SCALE, threshold=c, **PAIRED)
            stopped = {k for k, w in zip(keys, wealth, strict=True) if w >= -math.log(alpha)}
            won += sum(later[k] for k in stopped)
            chances = {k: v for k, v in later.items() if k not in stopped}
        assert won + sum(chances.values()) == pytest.approx(1)
        assert won <= alpha


COUNTS = st.tuples(*[st.integers(0, 500)] * 3)


@settings(deadline=None, max_examples=examples(100))
@given(COUNTS, st.floats(-0.99, 0.98), st.floats(0.001, 1), st.floats(0.1, 30))
def test_it_falls_with_the_threshold_and_knows_no_unit(counts, c, share, scale):
    here = float(log_wealth(counts, SCALE, threshold=c, **PAIRED))
    higher = float(log_wealth(counts, SCALE, threshold=c + share * (1 - c), **PAIRED))
    assert higher <= here + 1e-9 * max(1, abs(here))
    scaled = log_wealth(counts, [scale * x for x in SCALE], threshold=scale * c, low=-scale, high=scale)
    assert float(scaled) == pytest.approx(here, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=examples(60))
@given(COUNTS, st.floats(-600, -0.1))
def test_the_lower_bound_is_where_the_bet_is_no_longer_won(counts, log_level):
    low = betting_lower_bound(counts, SCALE, log_level=log_level, **PAIRED)
    assert -1 <= low <= 1
    assert low == -1 or log_wealth(counts, SCALE, threshold=low, **PAIRED) >= -log_level
    assert low > 1 - 3e-6 or log_wealth(counts, SCALE, threshold=low + 2.1e-6, **PAIRED) < -log_level


def test_a_moment_does_not_depend_on_the_others():
    rng = np.random.default_rng(5)
    counts = np.cumsum(rng.multinomial(1, [0.03, 0.9, 0.07], 5000), axis=0)
    together = log_wealth(counts, SCALE, threshold=0.02, **PAIRED)
    for some in (counts[:1], counts[17:31], counts[::7]):
        alone = log_wealth(some, SCALE, threshold=0.02, **PAIRED)
        matching = together[np.isin(counts.sum(axis=1), some.sum(axis=1))]
        assert np.array_equal(alone, matching)


def test_thresholds_at_and_beyond_the_edge():
    assert log_wealth([0, 5, 0], SCALE, threshold=-1.01, **PAIRED) == math.inf
    # On the edge itself one value above it speaks loudly, the lowest value not at all.
    assert log_wealth([5, 0, 0], SCALE, threshold=-1.0, **PAIRED) == pytest.approx(0)
    assert log_wealth([5, 9, 0], SCALE, threshold=-1.0, **PAIRED) > 20
    assert log_wealth([0, 0, 0], SCALE, threshold=0.3, **PAIRED) == pytest.approx(0)
    assert log_wealth([0, 0, 900], SCALE, threshold=1.0, **PAIRED) == pytest.approx(0)
    with pytest.raises(ConfigError, match=r"high must be > 1\.0, the smallest value, got 1\.0"):
        log_wealth([1], [1.0], threshold=0.0, low=1.0, high=1.0)
    with pytest.raises(ConfigError, match="log_level must be finite and < 0"):
        betting_lower_bound([1, 1, 1], SCALE, log_level=0.0, **PAIRED)


def moments_to_win(law, values, c, log_level, *, steps, runs, seed):
    """The first example at which each run's bet is won; steps + 1 for never."""
    rng = np.random.default_rng(seed)
    first = []
    for _ in range(runs):
        drawn = rng.choice(len(values), size=steps, p=law)
        counts = np.stack([np.cumsum(drawn == k) for k in range(len(values))], axis=-1)
        won = log_wealth(counts, values, threshold=c, low=min(values), high=max(values)) >= -log_level
        first.append(int(won.argmax()) + 1 if won.any() else steps + 1)
    return np.array(first)


def paired(gain, decided=0.1):
    return [(decided - gain) / 2, 1 - decided, (decided + gain) / 2]


# Mean number of examples to decide n - o > .02 at d = .1, and n > .9: an independent simulation.
MEANS = [
    ("n - o", 0.05, NONE, 3_100),
    ("n - o", 0.04, NONE, 7_010),
    ("n - o", 0.05, FULL, 7_210),
    ("n - o", 0.04, FULL, 16_280),
    ("n", 0.93, NONE, 2_720),
    ("n", 0.92, NONE, 6_110),
    ("n", 0.93, FULL, 6_060),
    ("n", 0.92, FULL, 14_160),
]


def check_mean(what, truth, log_level, expected, runs, seed):
    law, values, c = (paired(truth), SCALE, 0.02) if what == "n - o" else ([1 - truth, truth], [0.0, 1.0], 0.9)
    first = moments_to_win(law, values, c, log_level, steps=4 * expected, runs=runs, seed=seed)
    assert (first <= 4 * expected).all()
    # Five standard errors of this sample and 1.5 % for the noise of the reference itself: false alarm below 1e-6.
    assert first.mean() == pytest.approx(expected, abs=5 * first.std() / math.sqrt(runs) + 0.015 * expected)


@pytest.mark.parametrize(("what", "truth", "log_level", "expected"), MEANS[::4] + MEANS[1:2])
def test_mean_examples_until_decided(what, truth, log_level, expected):
    check_mean(what, truth, log_level, expected, runs=60, seed=95)


@pytest.mark.nightly
@pytest.mark.parametrize(("what", "truth", "log_level", "expected"), MEANS)
def test_mean_examples_until_decided_closely(what, truth, log_level, expected):
    check_mean(what, truth, log_level, expected, runs=2000, seed=96)


def test_nothing_is_won_on_the_threshold():
    first = moments_to_win(paired(0.02), SCALE, 0.02, math.log(0.01), steps=5_000, runs=300, seed=7)
    # At most 1 % of runs; 15 or more of 300 has a chance below one in a million at 1 %.
    assert (first <= 5_000).sum() < 15


@pytest.mark.nightly
def test_how_often_the_bet_is_won_on_the_threshold():
    first = moments_to_win(paired(0.02), SCALE, 0.02, math.log(0.01), steps=20_000, runs=2_000, seed=8)
    # The reference has about .003, so 6 runs; 22 or more have a chance of about 1e-7 then. The level allows 20.
    assert (first <= 20_000).sum() < 22


VALUES = np.array([-1.0, 0.0, 1.0])


def plugin(x: np.ndarray, *, threshold: float, gap: float) -> np.ndarray:
    """The fortune after every example of a course of values -1, 0, 1."""
    counts = np.stack([np.concatenate([[0], np.cumsum(x == v)]) for v in VALUES], axis=1)
    moments = np.arange(1, len(x) + 1)
    return log_plugin_wealth(moments, counts[1:], counts[bet_times(len(x))], VALUES, threshold=threshold, gap=gap)


@pytest.mark.parametrize(
    ("law", "threshold"), [((0.2, 0.4, 0.4), 0.2), ((0.0, 0.98, 0.02), 0.02), ((0.7, 0, 0.3), -0.4)]
)
@pytest.mark.parametrize("gap", [0.02, 0.3, 5.0])
def test_bets_that_follow_what_was_seen_gain_nothing_on_the_threshold(law, threshold, gap):
    """The expected fortune after 1 to 4 examples, over all 3^4 courses: at most 1, and never negative."""
    total = np.zeros(4)
    for course in itertools.product(range(3), repeat=4):
        fortune = np.exp(plugin(VALUES[list(course)], threshold=threshold, gap=gap))
        assert fortune.min() > 0
        total += math.prod(law[k] for k in course) * fortune
    assert total == pytest.approx(np.ones(4), rel=1e-9)


def test_a_moments_fortune_depends_on_the_examples_before_it_only():
    x = np.random.default_rng(1).choice(VALUES, size=400, p=[0.1, 0.7, 0.2])
    whole = plugin(x, threshold=0.02, gap=0.02)
    for t in (1, 2, 39, 40, 41, 200):
        assert plugin(x[:t], threshold=0.02, gap=0.02)[-1] == pytest.approx(whole[t - 1], rel=1e-9)
    assert np.isinf(plugin(x[:3], threshold=-1.5, gap=0.1)).all()
    assert (plugin(x[:3], threshold=1.0, gap=0.1) == 0).all()
    with pytest.raises(ConfigError, match="gap must be > 0"):
        plugin(x[:3], threshold=0.0, gap=0.0)


def test_bets_that_follow_what_was_seen_rarely_win_on_the_threshold():
    """Ville at 60 null courses of 2,000 examples: more than 8 of them at level .01 have a chance below 1e-7."""
    rng = np.random.default_rng(3)
    won = sum(
        plugin(rng.choice(VALUES, size=2_000, p=[0.04, 0.9, 0.06]), threshold=0.02, gap=0.02).max() >= math.log(100)
        for _ in range(60)
    )
    assert won <= 8


@pytest.mark.parametrize(("d", "alpha"), [(0.05, 1e-4), (0.1, 1e-4), (0.3, 0.01)])
def test_the_mean_number_of_examples_is_near_the_lower_bound(d, alpha):
    """At .04 against .02: below 1.15 ln(1/alpha) / KL; seeded, and a standard error of 40 courses is about .1."""
    law = np.array([(d - 0.04) / 2, 1 - d, (d + 0.04) / 2])
    bets = np.linspace(0, 0.95, 2_000)
    divergence = float((law @ np.log1p(np.multiply.outer(VALUES - 0.02, bets))).max())
    bound = -math.log(alpha) / divergence
    rng, needed = np.random.default_rng(4), []
    for _ in range(40):
        found = plugin(rng.choice(VALUES, size=int(4 * bound), p=law), threshold=0.02, gap=0.02) >= -math.log(alpha)
        needed.append(int(found.argmax()) + 1 if found.any() else int(4 * bound))
    assert np.mean(needed) <= 1.15 * bound
