"""SYN: the structure that its docstring promises, and its seeds."""

from __future__ import annotations

import numpy as np
import pytest

from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.selection.simulate.tables import Synthetic, parse_synthetic


def silent(correlation_length=0.5, **changes):
    """A generator without noise and spread of bases, in which nothing is clipped."""
    return Synthetic(correlation_length, **{"model_weight": 0.02, "base_std": 0.0, "noise_std": 0.0, **changes})


def test_the_published_variants_have_200_tenants_and_100_models():
    table = parse_synthetic("SYN(0.01,1.0)").table(seed=0)
    assert table.quality.shape == table.cost.shape == (200, 100)
    assert (table.tenants[0], table.candidates[99]) == ("tenant_001", "model_100")
    assert 0 <= table.quality.min() <= table.quality.max() <= 1
    assert 0 < table.cost.min() <= table.cost.max() <= 1


def test_same_seed_same_table():
    one, two, other = (parse_synthetic("SYN(0.5,0.1)").table(seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.quality, two.quality)
    np.testing.assert_array_equal(one.cost, two.cost)
    assert not np.array_equal(one.quality, other.quality)
    assert not np.array_equal(one.cost, other.cost)


def test_without_model_effect_and_noise_only_the_base_levels_are_left():
    quality = silent(model_weight=0.0, tenants=6, candidates=3).table(seed=0).quality
    np.testing.assert_array_equal(quality, np.repeat([[0.25], [0.75]], 3, axis=0) * np.ones(3))


def test_a_group_shares_its_model_effect_and_another_does_not():
    quality = silent(tenants=40, candidates=7).table(seed=1).quality
    effects = quality - np.repeat([0.25, 0.75], 20)[:, None]
    np.testing.assert_allclose(effects[:10], np.broadcast_to(effects[0], (10, 7)), atol=1e-12)
    assert np.abs(effects[10] - effects[0]).max() > 1e-3


@pytest.mark.parametrize(("sigma_m", "low", "high"), [(1e6, 0.999, 1.0), (1e-6, -0.1, 0.1)])
def test_sigma_m_says_how_alike_candidates_are(sigma_m, low, high):
    """4,000 independent draws of m: an empirical correlation of 0 has a standard error of 0.016, so 0.1 is six of them:
    a false alarm in one of the six pairs has a chance below one in a hundred million.
    """
    effects = silent(sigma_m, tenants=4000, candidates=4, group_size=1).table(seed=2).quality
    effects = effects - np.repeat([0.25, 0.75], 2000)[:, None]
    correlation = np.corrcoef(effects.T)[np.triu_indices(4, 1)]
    assert low <= correlation.min()
    assert correlation.max() <= high + 1e-9
    np.testing.assert_allclose(effects.std(), 0.02, rtol=0.1)  # 4,000 draws or more: five standard errors are 6 %


def test_correlation_falls_with_distance_as_the_formula_says():
    """f is hidden, but recovered from the correlations themselves: -sigma^2 log corr = (f_j - f_l)^2 is additive on a
    line, so for three candidates the largest root is the sum of the two others.
    """
    effects = silent(1.0, tenants=20_000, candidates=3, group_size=1).table(seed=5).quality
    effects = effects - np.repeat([0.25, 0.75], 10_000)[:, None]
    roots = np.sort(np.sqrt(-np.log(np.corrcoef(effects.T)[np.triu_indices(3, 1)])))
    np.testing.assert_allclose(roots[2], roots[0] + roots[1], atol=0.05)


def test_bases_and_noise_have_their_spreads():
    """2,000 bases and 200,000 cells: standard errors are 1.6 % and 0.2 %, the bounds more than six of them."""
    spread = Synthetic(0.5, 0.0, tenants=2000, noise_std=0.01).table(seed=0).quality
    np.testing.assert_allclose((spread - spread.mean(axis=1, keepdims=True)).std(), 0.01, rtol=0.03)
    base = spread.mean(axis=1) - np.repeat([0.25, 0.75], 1000)
    np.testing.assert_allclose(base.std(), 0.05, rtol=0.1)


@pytest.mark.parametrize("text", ["SYN(0.01,1.0)", " syn( 0.01 , 1 ) ", "SYN(1e-2,1.)".replace("1.)", "1.0)")])
def test_how_it_is_written(text):
    assert parse_synthetic(text) == Synthetic(correlation_length=0.01, model_weight=1.0)


@pytest.mark.parametrize("text", ["", "SYN", "SYN(1)", "SYN(1,2,3)", "SYN(a,b)", "SYN(-1,1)", "SYN(nan,1)", "ABC(1,1)"])
def test_what_is_not_one(text):
    with pytest.raises(InvalidInputError, match=r'is written "SYN\(sigma_M,alpha\)"'):
        parse_synthetic(text)


@pytest.mark.parametrize(
    "wrong",
    [{"correlation_length": 0.0}, {"model_weight": 1e9}, {"tenants": 0}, {"group_size": 0}, {"noise_std": -1.0}],
)
def test_ranges(wrong):
    [name] = wrong
    with pytest.raises(ConfigError, match=name):
        Synthetic(**{"correlation_length": 0.1, "model_weight": 1.0, **wrong})
