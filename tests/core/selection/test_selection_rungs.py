"""Rules that end a trial at a rung: by hand, and what must hold whatever the numbers are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rungs import RULES, by_halving

from easeml_core.selection.pruning import LEVEL, Reached, by_gains, by_median, decide, rung_step

SHARE = st.floats(0, 1)
OTHERS = st.lists(st.builds(Reached, SHARE, st.none() | SHARE, st.booleans(), SHARE), max_size=30)


def ended(gains: list[float], *, is_here: bool = False) -> list[Reached]:
    """Trials that were at .5, which is 0 on the logit scale, and ended so much higher there."""
    return [Reached(0.5, 1 / (1 + 2.718281828459045**-gain), is_here) for gain in gains]


def test_the_sixth_of_six_and_the_ninth_of_nine_gains_count() -> None:
    """ceil(7 x .85) = 6, ceil(10 x .85) = 9, ceil(14 x .85) = 12: the largest of 9, the second largest of 13."""
    for count, rank in ((6, 6), (9, 9), (13, 12)):
        decision = by_gains(0.5, ended([k / 10 for k in range(1, count + 1)][::-1]), 0.99)
        assert decision.hoped == pytest.approx(1 / (1 + 2.718281828459045 ** (-rank / 10)))
        assert decision == (False, decision.hoped, 0.99, count, "gains")


def test_too_few_gains_or_nothing_to_beat_and_the_trial_goes_on() -> None:
    assert by_gains(0.01, ended([0.0] * 5), 0.99) == (True, None, 0.99, 5, "gains")
    assert by_gains(0.01, ended([0.0] * 6), 0.99).goes_on is False
    assert by_gains(0.01, ended([0.0] * 6), None) == (True, None, None, 6, "gains")
    running = [Reached(0.5, None, is_here=True)] * 20
    assert by_gains(0.01, running, 0.99) == (True, None, 0.99, 0, "gains")


def test_a_study_that_learns_slowly_is_not_measured_by_quick_ones() -> None:
    quick, slow = ended([0.0] * 50), ended([2.0] * 6, is_here=True)
    assert not by_gains(0.5, quick, 0.8).goes_on
    assert by_gains(0.5, quick + slow, 0.8).goes_on  # expit(2) = .88
    assert not by_gains(0.5, quick + slow[:5], 0.8).goes_on  # the study has too few
    # and one that learns quickly is not measured by itself alone
    assert by_gains(0.5, ended([2.0] * 50) + ended([0.0] * 6, is_here=True), 0.8).goes_on


def test_halving_by_hand() -> None:
    others = [Reached(q, None, is_here=True) for q in (0.1, 0.2, 0.3, 0.4, 0.5)]
    elsewhere = [Reached(0.9, 0.9, is_here=False)] * 9
    assert by_halving(0.4, others + elsewhere, None) == (True, 0.4, 0.4, 5, "halving")  # the second of six
    assert by_halving(0.39, others, None) == (False, 0.39, 0.4, 5, "halving")
    assert by_halving(0.0, [], None).goes_on


def test_median_by_hand() -> None:
    here = [Reached(0.9, 0.9, True, average) for average in (0.3, 0.5, 0.9)]
    unfinished = [Reached(0.9, None, True, 0.1)] * 9
    assert by_median(0.5, here + unfinished, None) == (True, 0.5, 0.5, 3, "median")
    assert by_median(0.49, here, None) == (False, 0.49, 0.5, 3, "median")
    assert by_median(0.0, here[:2], None).goes_on


def test_as_long_as_gains_are_too_few_the_median_decides_but_against_nobody_who_leads() -> None:
    here = [Reached(0.5, 0.6, True, 0.5)] * 3
    assert decide(0.4, here, 0.6) == (False, 0.4, 0.5, 3, "median")
    assert decide(0.5, here, 0.6).goes_on
    assert decide(0.4, here, 0.4) == (True, None, 0.4, 3, "gains")
    assert decide(0.4, here, None).goes_on
    assert decide(0.4, here[:2], 0.6) == (True, None, 0.6, 2, "median")
    elsewhere = [Reached(0.4, 0.7, is_here=False)] * 3
    assert decide(0.4, here + elsewhere, 0.6).rule == "gains"
    assert decide(0.4, here + elsewhere, 0.6).goes_on


@given(OTHERS, SHARE, SHARE)
def test_whoever_leads_is_never_stopped(others: list[Reached], quality: float, behind: float) -> None:
    best = quality * behind
    assert decide(quality, others, best).goes_on
    leads = max((other.quality for other in others if other.is_here), default=0.0)
    assert by_halving(max(quality, leads), others, best).goes_on


@pytest.mark.parametrize("rule", RULES.values())
@given(others=OTHERS, best=st.none() | SHARE, low=SHARE, high=SHARE)
def test_a_better_trial_goes_on_where_a_worse_one_does(rule, others, best, low, high) -> None:
    low, high = sorted((low, high))
    assert rule(high, others, best).goes_on >= rule(low, others, best).goes_on


@pytest.mark.parametrize("rule", RULES.values())
@given(others=OTHERS, best=st.none() | SHARE, quality=SHARE)
def test_a_stop_has_its_reason_and_the_order_of_trials_is_none(rule, others, best, quality) -> None:
    decision = rule(quality, others, best)
    assert decision == rule(quality, others[::-1], best)
    assert decision.goes_on or decision.hoped < decision.needed
    assert decision.hoped is None or quality <= decision.hoped <= 1


def test_without_data_everybody_goes_on() -> None:
    assert all(rule(0.0, [], None).goes_on for rule in RULES.values())


@given(st.lists(st.floats(-3, 3), min_size=7, max_size=40, unique=True))
def test_of_exchangeable_gains_few_are_larger_than_what_is_allowed(gains: list[float]) -> None:
    """Of each set of n + 1 gains, taken out one by one, at most (1 - LEVEL) exceed what the others allow for."""
    beyond = 0
    for left_out in range(len(gains)):
        others = ended(gains[:left_out] + gains[left_out + 1 :])
        (own,) = ended([gains[left_out]])
        decision = by_gains(0.5, others, 0.9999)
        beyond += decision.hoped is not None and own.final > decision.hoped + 1e-12
    assert beyond <= (1 - LEVEL) * len(gains) + 1e-9


@given(st.floats(0.001, 0.999), st.integers(1, 10_000))
def test_a_rung_is_a_step(share: float, of: int) -> None:
    assert 1 <= rung_step(share, of) <= of
    assert rung_step(share, of) - 1 < share * of + 1e-6
