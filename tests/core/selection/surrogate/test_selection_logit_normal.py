"""Logit-normal qualities against quadrature: expected improvement in all tails, moments, the ends of the scale."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from property_sizes import at_night
from scipy.integrate import quad
from scipy.special import expit

from easeml_core.selection.surrogate.logit_normal import HIGHEST, LOWEST, expected_improvement, logit, logit_of, moments


def exact(mean, std, best):
    """E[(Q - best)^+] by quadrature over x = (Z - logit best) / std, with exp(-depth^2 / 2) taken out of deep tails.

    Q - b = b (1 - b) (1 - e^{-u}) / (b + (1 - b) e^{-u}) for u = Z - logit b loses no digits near u = 0.
    """
    depth = (math.log(best / (1 - best)) - mean) / std
    outside = depth**2 / 2 if depth > 0 else 0.0

    def density(x):
        shrunk = math.exp(-std * x)
        gain = -best * (1 - best) * math.expm1(-std * x) / (best + (1 - best) * shrunk)
        return gain * math.exp(outside - (depth + x) ** 2 / 2)

    peak, width = max(0.0, -depth), 1 / max(depth, 1.0)
    ends = sorted({max(peak + step * width, 0.0) for step in (-9, -3, -1, 0, 1, 4, 12, 45)})
    parts = [quad(density, a, b, epsabs=0, epsrel=1e-9, limit=200)[0] for a, b in itertools.pairwise(ends)]
    return math.fsum(parts) * math.exp(-outside) / math.sqrt(2 * math.pi)


def cases(count, *, smallest, widest, seed):
    """Random (mean, std, best) over the whole scale, half of them near the best, the others up to 36 std below it."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        std = float(np.exp(rng.uniform(np.log(smallest), np.log(widest))))
        best = float(expit(rng.uniform(-6.9, 6.9)))
        depth = rng.uniform(-4, 4) if number % 2 else rng.uniform(-12, 36)
        yield math.log(best / (1 - best)) - depth * std, std, best


def error(mean, std, best):
    found = expected_improvement(np.array([mean]), np.array([std]), best=best)[0]
    truth = exact(mean, std, max(best, LOWEST))
    return abs(found / truth - 1) if truth > 1e-280 else 0.0


def is_ordinary(mean, best):
    return best >= 0.05 or mean >= -2


@pytest.mark.parametrize("count", [2000, at_night(6000)])
@pytest.mark.parametrize(("smallest", "widest", "most", "low"), [(1e-3, 0.5, 0.01, 0.03), (0.5, 3.0, 0.12, 0.6)])
def test_expected_improvement_against_quadrature(smallest, widest, most, low, count):
    """The bounds of the docstring; the errors found come near them, so that they are not idle."""
    errors = {True: [], False: []}
    for mean, std, best in cases(count, smallest=smallest, widest=widest, seed=1):
        errors[is_ordinary(mean, best)].append(error(mean, std, best))
    assert max(errors[True]) < most
    assert max(errors[False]) < low
    assert max(errors[True]) > most / 3
    assert min(len(found) for found in errors.values()) > count / 30


@pytest.mark.parametrize(("narrow", "wide", "most"), [(0.01, 0.5, 0.005), (0.5, 3.0, 0.12)])
def test_expected_improvement_of_a_first_trial(narrow, wide, most):
    """Best 0 counts as .001, and the improvement is nearly the expected quality."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        mean, std = float(rng.uniform(-2, 7)), float(rng.uniform(narrow, wide))
        assert error(mean, std, 0.0) < most
        found = expected_improvement(np.array([mean]), np.array([std]), best=0.0)[0]
        assert found == pytest.approx(moments(mean, std)[0] - LOWEST, rel=most)


def test_digits_far_below_the_best():
    """30 standard deviations below, still right to 1 %; the number is from mpmath with 40 digits."""
    assert exact(-3.0, 0.1, 0.5) == pytest.approx(4.07986934e-201, rel=1e-8, abs=0)
    assert error(-3.0, 0.1, 0.5) < 1e-2
    tiny = expected_improvement(np.array([-5.0]), np.array([1e-5]), best=0.9)
    assert tiny.tolist() == [0.0]


def test_a_narrow_candidate_is_its_gain():
    """Std 1e-5, all of it above the best: Q - b."""
    found = expected_improvement(np.array([2.0]), np.array([1e-5]), best=0.5)
    assert found[0] == pytest.approx(float(expit(2.0)) - 0.5, rel=1e-9)


@pytest.mark.parametrize("best", [HIGHEST, 0.9995, 1.0])
def test_nothing_is_expected_beyond_the_highest(best):
    found = expected_improvement(np.array([-3.0, 50.0]), np.array([0.1, 5.0]), best=best)
    assert found.tolist() == [0.0, 0.0]


def test_just_below_the_highest_is_no_end():
    assert expected_improvement(np.array([7.0]), np.array([1.0]), best=0.9989)[0] > 0


def test_arms_are_independent_of_one_another():
    means, stds = np.linspace(-4, 4, 9), np.geomspace(0.01, 2, 9)
    together = expected_improvement(means, stds, best=0.6)
    alone = [expected_improvement(means[k : k + 1], stds[k : k + 1], best=0.6)[0] for k in range(9)]
    np.testing.assert_allclose(together, alone, rtol=1e-14)


def test_moments_by_hand():
    """Std 0 is the quality itself; mean 0 is symmetric; for a wide normal Q is nearly a coin: std to 1/2."""
    mean, std = moments(1.0, 0.0)
    assert mean == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-14)
    assert std < 1e-7
    for spread in (0.1, 1.0, 4.0):
        assert moments(0.0, spread)[0] == pytest.approx(0.5, abs=1e-12)
        here, there = moments(0.8, spread), moments(-0.8, spread)
        assert here[0] == pytest.approx(1 - there[0], abs=1e-12)
        assert here[1] == pytest.approx(there[1], abs=1e-12)


@pytest.mark.parametrize("std", [0.05, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("mean", [-6.0, -1.0, 0.3, 2.5, 6.0])
def test_moments_against_quadrature(mean, std):
    def integral(function):
        def density(z):
            return function(expit(mean + std * z)) * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

        return quad(density, -12, 12, epsabs=1e-13, epsrel=1e-11, limit=200)[0]

    centre = integral(lambda q: q)
    spread = math.sqrt(integral(lambda q: (q - centre) ** 2))
    found = moments(mean, std)
    assert found[0] == pytest.approx(centre, rel=1e-5)
    assert found[1] == pytest.approx(spread, rel=1e-4)


def test_logit_is_clipped():
    ends = [float(logit(LOWEST)), float(logit(HIGHEST))]
    assert logit(np.array([0.0, 0.0005, 0.9995, 1.0])).tolist() == [ends[0], ends[0], ends[1], ends[1]]
    assert ends == pytest.approx([-math.log(999), math.log(999)])
    assert float(logit(0.5)) == 0.0
    assert float(logit(0.8)) == pytest.approx(math.log(4))
    for quality in (0.0, 0.3, 0.9, 0.98765, 1.0):
        assert logit_of(quality) == float(logit(quality))
