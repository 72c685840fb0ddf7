"""Bounds where the worst share of decided examples lies just below one: mutations showed what was not held."""

from __future__ import annotations

import math

import pytest

from easeml_core.stats.paired import log_paired_p_value, paired_lower_bound


@pytest.mark.parametrize("n", [20, 51, 376])
@pytest.mark.parametrize("alpha", [0.3, 0.01, 1e-4])
def test_a_lower_bound_is_rejected_by_the_whole_search_and_nothing_above_it_is(n, alpha):
    """The tail at q = 1 alone would put the bound higher, by up to .02, where just one of n and the score is even."""
    for score in (1, 3, 7):
        low = paired_lower_bound(score, n, decided_bound=1.0, log_level=math.log(alpha))
        assert log_paired_p_value(score, n, threshold=low, decided_bound=1.0) <= math.log(alpha)
        assert log_paired_p_value(score, n, threshold=low + 2.1e-6, decided_bound=1.0) > math.log(alpha)
