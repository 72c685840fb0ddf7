"""The three-valued verdict: against scipy's tests, Kleene's table, and the edges of what counts can say."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy import stats

from easeml_core.entities import Verdict
from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import conjunction, decide_counts
from easeml_core.gate.outcomes import Outcomes
from easeml_core.gate.planner import plan_gate

ONE_PERCENT = math.log(0.01)
PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN


def outcomes(examples=1000, *, both=750, wins=0, losses=0, wrong_apart=0):
    """Counts from the five cells of an example; both wrong and alike is what remains."""
    return Outcomes(
        examples=examples,
        wins=wins,
        losses=losses,
        new_correct=both + wins,
        old_correct=both + losses,
        disagreements=wins + losses + wrong_apart,
    )


def judge(source, counts, *, log_level=ONE_PERCENT, mode="fp-free"):
    return decide_counts(parse_condition(source), counts, log_level=log_level, mode=mode)


CELLS = st.tuples(*[st.integers(0, 60)] * 5).filter(lambda c: sum(c) > 0)
COUNTS = CELLS.map(lambda c: outcomes(sum(c), both=c[0], wins=c[1], losses=c[2], wrong_apart=c[3]))
LEVELS = st.floats(-900, -0.05)


@settings(deadline=None, max_examples=examples(60))
@given(COUNTS, st.sampled_from("nod"), st.floats(0.01, 0.99))
def test_one_proportion_is_the_binomial_test(counts, variable, threshold):
    clause = judge(f"{variable} > {threshold} +/- 0.1", counts).clauses[0]
    k, n = counts.count_of(variable), counts.examples
    above = stats.binomtest(k, n, clause.threshold, alternative="greater").pvalue
    below = stats.binomtest(k, n, clause.threshold, alternative="less").pvalue
    assert math.exp(clause.log_p_pass) == pytest.approx(above, rel=1e-9, abs=0)
    assert math.exp(clause.log_p_fail) == pytest.approx(below, rel=1e-9, abs=0)
    assert (clause.verdict is PASS, clause.verdict is FAIL) == (above <= 0.01, below <= 0.01)
    assert clause.interval[0] == pytest.approx(
        stats.binomtest(k, n, alternative="greater").proportion_ci(0.99).low, abs=1e-9
    )
    assert clause.interval[1] == pytest.approx(
        stats.binomtest(k, n, alternative="less").proportion_ci(0.99).high, abs=1e-9
    )


@settings(deadline=None, max_examples=examples(40))
@given(COUNTS)
def test_any_improvement_is_the_exact_mcnemar_test(counts):
    clause = judge("n - o > 0 +/- 0.1", counts).clauses[0]
    decided = counts.wins + counts.losses
    expected = stats.binomtest(counts.wins, decided, 0.5, alternative="greater").pvalue if decided else 1.0
    assert clause.method == "sign test"
    assert math.exp(clause.log_p_pass) == pytest.approx(expected, rel=1e-9, abs=0)
    assert (clause.verdict is PASS) == (expected <= 0.01)


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("n > 0.7 +/- 0.1", PASS),
        ("n > 0.85 +/- 0.1", UNKNOWN),
        ("n > 0.95 +/- 0.1", FAIL),
        ("n < 0.7 +/- 0.1", FAIL),
        ("n < 0.85 +/- 0.1", UNKNOWN),
        ("n < 0.95 +/- 0.1", PASS),
        ("-2 * n > -1.9 +/- 0.1", PASS),
        ("-2 * n < -1.9 +/- 0.1", FAIL),
        ("o > 0.7 +/- 0.1", PASS),
        ("d < 0.2 +/- 0.1", PASS),
        ("d > 0.2 +/- 0.1", FAIL),
        ("d < 0.12 +/- 0.1", UNKNOWN),
        ("n - o > 0.04 +/- 0.1", PASS),
        ("o - n < -0.04 +/- 0.1", PASS),
        ("n - o > 0.08 +/- 0.1", UNKNOWN),
        ("n - o > 0.12 +/- 0.1", FAIL),
        ("o - n > 0 +/- 0.1", FAIL),
        ("o - n > -0.12 +/- 0.1", PASS),
        ("3 * n - 3 * o < 0.36 +/- 0.1", PASS),
        ("n - o > -0.1 +/- 0.1", PASS),
        ("n - o < -0.1 +/- 0.1", FAIL),
        ("n - o > -0.1 +/- 0.1 /\\ d < 0.2 +/- 0.1", PASS),
        ("n - o > 0.04 +/- 0.1 /\\ d < 0.12 +/- 0.1", UNKNOWN),
        ("n - o > 0.12 +/- 0.1 /\\ d < 0.13 +/- 0.1", FAIL),
        ("d < 0.09 +/- 0.1 /\\ n > 0.8 +/- 0.1", FAIL),
        ("n + o - d > 1 +/- 0.1", PASS),
    ],
)
def test_verdicts_on_one_set_of_counts(source, verdict):
    # n = 0.85, o = 0.77, d = 0.12, n - o = 0.08 on 1,000 examples.
    assert judge(source, outcomes(wins=100, losses=20)).verdict is verdict


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("n > -0.5 +/- 0.1", PASS),
        ("n > 1 +/- 0.1", FAIL),
        ("n > 1.5 +/- 0.1", FAIL),
        ("n < 0 +/- 0.1", FAIL),
        ("n < 1.5 +/- 0.1", PASS),
        ("d < -1 +/- 0.1", FAIL),
        ("n - o > -1.5 +/- 0.1", PASS),
        ("n - o > 1 +/- 0.1", FAIL),
        ("n - o < -1 +/- 0.1", FAIL),
        ("n + d > -0.1 +/- 0.1", PASS),
        ("n + d > 2 +/- 0.1", FAIL),
        ("n + d < 2.1 +/- 0.1", PASS),
    ],
)
def test_thresholds_out_of_reach_need_no_test(source, verdict):
    clause = judge(source, outcomes(1, both=1), log_level=-3475.0).clauses[0]
    assert (clause.verdict, clause.method) == (verdict, "arithmetic")
    assert {clause.log_p_pass, clause.log_p_fail} == {0.0, -math.inf}
    assert clause.interval[0] <= clause.interval[1]


def test_thresholds_at_the_edge_of_reach_are_tested():
    assert judge("n > 0 +/- 0.1", outcomes(both=1)).verdict is PASS
    assert judge("n > 0 +/- 0.1", outcomes(both=0)).verdict is UNKNOWN
    assert judge("n < 1 +/- 0.1", outcomes(both=999)).verdict is PASS
    assert judge("n < 1 +/- 0.1", outcomes(both=1000)).verdict is UNKNOWN


def test_a_bound_on_d_below_zero_bounds_nothing():
    decision = judge("d < -0.2 +/- 0.1 /\\ n - o > -0.3 +/- 0.1", outcomes(wins=100))
    assert [clause.verdict for clause in decision.clauses] == [FAIL, PASS]
    assert decision.verdict is FAIL


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([PASS], PASS),
        ([PASS, PASS], PASS),
        ([PASS, UNKNOWN], UNKNOWN),
        ([UNKNOWN, UNKNOWN], UNKNOWN),
        ([PASS, FAIL], FAIL),
        ([UNKNOWN, FAIL], FAIL),
        ([FAIL, FAIL], FAIL),
    ],
)
def test_kleene(verdicts, expected):
    assert conjunction(verdicts) is conjunction(verdicts[::-1]) is expected


@pytest.mark.parametrize(
    ("source", "fp_free", "fn_free"),
    [("n > 0.7 +/- 0.1", True, True), ("n > 0.85 +/- 0.1", False, True), ("n > 0.95 +/- 0.1", False, False)],
)
def test_the_mode_settles_the_unknown(source, fp_free, fn_free):
    counts = outcomes(wins=100, losses=20)
    assert judge(source, counts, mode="fp-free").passed is fp_free
    assert judge(source, counts, mode="fn-free").passed is fn_free


def test_a_pass_may_use_the_whole_level_in_every_clause_a_fail_shares_it():
    decision = judge("n > 0.8 +/- 0.1 /\\ o > 0.5 +/- 0.1", outcomes(wins=100, losses=20))
    for clause in decision.clauses:
        assert clause.log_level_pass == math.log(0.01)
        assert clause.log_level_fail == pytest.approx(math.log(0.005))


SOURCES = st.sampled_from(
    [
        "n > {c} +/- .1",
        "o < {c} +/- .1",
        "d < {c} +/- .1",
        "n - o > {c} +/- .1",
        "n - o < -{c} +/- .1",
        "n - 2 * o > {c} +/- .1",
        "d < .99 +/- .1 /\\ n - o > {c} +/- .1",
        "n > {c} +/- .1 /\\ o > .4 +/- .1",
    ]
)


@settings(deadline=None, max_examples=examples(80))
@given(SOURCES, st.floats(0, 0.9), COUNTS, LEVELS)
def test_verdict_interval_and_level_agree(source, c, counts, log_level):
    condition = parse_condition(source.format(c=round(c, 3)))
    decision = decide_counts(condition, counts, log_level=log_level, mode="fp-free")
    for clause in decision.clauses:
        low, high = clause.interval
        above = " > " in clause.clause
        # At levels of one half and more, a one-sided bound may lie beyond the estimate.
        assert log_level > math.log(0.25) or low <= clause.estimate + 1e-9
        assert log_level > math.log(0.25) or high >= clause.estimate - 1e-9
        if clause.method == "sign test":
            continue
        shown_above = (clause.log_p_pass if above else clause.log_p_fail) <= (
            clause.log_level_pass if above else clause.log_level_fail
        )
        if abs(low - clause.threshold) > 2e-6:
            assert shown_above == (low > clause.threshold)
    json.dumps(decision.to_json(), allow_nan=False)


@settings(deadline=None, max_examples=examples(50))
@given(SOURCES, st.floats(0, 0.9), COUNTS, LEVELS, st.floats(1, 50))
def test_a_smaller_level_never_decides_more(source, c, counts, log_level, factor):
    condition = parse_condition(source.format(c=round(c, 3)))
    strict = decide_counts(condition, counts, log_level=log_level * factor, mode="fp-free").verdict
    # Levels above one half can show both sides at once and then say UNKNOWN; below, decided stays decided.
    if strict is not UNKNOWN and log_level < math.log(0.25):
        assert decide_counts(condition, counts, log_level=log_level, mode="fp-free").verdict is strict


@settings(deadline=None, max_examples=examples(15))
@given(CELLS, LEVELS, st.floats(-0.9, 0.9))
def test_exchanging_the_models_mirrors_the_verdict(cells, log_level, c):
    both, wins, losses, apart, _ = cells
    here = outcomes(sum(cells), both=both, wins=wins, losses=losses, wrong_apart=apart)
    there = outcomes(sum(cells), both=both, wins=losses, losses=wins, wrong_apart=apart)
    c = round(c, 3)
    one = decide_counts(parse_condition(f"n - o > {c} +/- 0.1"), here, log_level=log_level, mode="fp-free")
    two = decide_counts(parse_condition(f"o - n > {c} +/- 0.1"), there, log_level=log_level, mode="fp-free")
    three = decide_counts(parse_condition(f"n - o < {-c} +/- 0.1"), there, log_level=log_level, mode="fp-free")
    assert one.verdict is two.verdict is three.verdict
    assert one.clauses[0].log_p_pass == two.clauses[0].log_p_pass == three.clauses[0].log_p_pass


@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
@pytest.mark.parametrize("log_level", [math.log(0.7), math.log(0.8), math.log(0.9)])
def test_levels_of_one_half_and_more_never_show_both_sides(log_level, mode):
    both_shown = 0
    for wins in range(6):
        for source in ("n > 0.4 +/- 0.1", "n - o > 0 +/- 0.1", "n - o > 0.1 +/- 0.1"):
            decision = judge(source, outcomes(5, both=0, wins=wins), log_level=log_level, mode=mode)
            clause = decision.clauses[0]
            if max(clause.log_p_pass, clause.log_p_fail) <= log_level:
                both_shown += 1
                assert decision.verdict is UNKNOWN
            assert decision.passed is (decision.verdict is PASS or (decision.verdict, mode) == (UNKNOWN, "fn-free"))
    assert both_shown


def test_levels_far_below_the_smallest_double_can_still_pass():
    # Chance of 5,000 of 5,000 right at n = 0.5: e^-3465.7.
    counts = outcomes(5000, both=5000)
    assert judge("n > 0.5 +/- 0.1", counts, log_level=-3465.0).verdict is PASS
    assert judge("n > 0.5 +/- 0.1", counts, log_level=-3466.0).verdict is UNKNOWN
    counts = outcomes(5000, both=0, wins=5000)
    assert judge("n - o > 0 +/- 0.1", counts, log_level=-3465.0).verdict is PASS
    assert judge("n - o > 0 +/- 0.1", counts, log_level=-3466.0).verdict is UNKNOWN
    assert judge("n - o > 0.02 +/- 0.1", counts, log_level=-3000.0).verdict is PASS


PLANS = [
    "n > 0.8 +/- 0.05",
    "d < 0.2 +/- 0.05",
    "n - o > 0.02 +/- 0.05",
    "n - o > -0.02 +/- 0.05",
    "n - 1.1 * o > 0 +/- 0.05",
    "d < 0.3 +/- 0.05 /\\ n - o > 0.1 +/- 0.05",
]


@pytest.mark.parametrize("adaptivity", ["none", "full"])
@pytest.mark.parametrize("source", PLANS)
def test_the_planned_size_decides_beyond_the_tolerance(source, adaptivity):
    """An estimate off every threshold by the tolerance is decided, so the published sizes keep their promise."""
    condition = parse_condition(source)
    asked = {"reliability": 0.99, "steps": 8, "adaptivity": adaptivity, "mode": "fp-free"}
    plan = plan_gate(condition, **asked, estimator="paper")
    n = plan.examples
    for sign, expected in ((1, PASS), (-1, FAIL)):
        counts = shifted_counts(source, n, sign * 0.05)
        assert decide_counts(condition, counts, log_level=plan.log_level, mode="fp-free").verdict is expected


def shifted_counts(source, n, shift):
    """Counts whose estimates are beyond the thresholds of PLANS by the shift, rounded outwards."""

    def beyond(share):
        return math.ceil(n * share) if shift > 0 else math.floor(n * share)

    if source.startswith("n >"):
        return outcomes(n, both=beyond(0.8 + shift))
    if source == "d < 0.2 +/- 0.05":
        return outcomes(n, both=0, wrong_apart=n - beyond(0.8 + shift))
    if source.startswith("n - 1.1"):
        # o = 0.5 exactly or a little less; n = 0.55 + shift.
        both = n // 2
        extra = beyond(0.55 + shift) - both
        return outcomes(n, both=both - (shift < 0), wins=max(extra, 0), losses=max(-extra, 0) + (shift < 0))
    if source.startswith("d < 0.3"):
        return outcomes(n, both=0, wins=beyond(0.1 + shift), wrong_apart=n // 20)
    c = 0.02 if "> 0.02" in source else -0.02
    gap = beyond(c + shift)
    return outcomes(n, both=n // 2, wins=n // 10 + max(gap, 0), losses=n // 10 + max(-gap, 0))


def test_a_verdict_on_twenty_thousand_examples_is_quick():
    counts = outcomes(20_000, both=10_000, wins=5_000, losses=4_000)
    start = time.process_time()
    for source in ("n - o > 0.02 +/- 0.01", "n - o > 0.02 +/- 0.01 /\\ d < 0.9 +/- 0.1"):
        judge(source, counts, log_level=-25.0)
    # Seconds of the processor, not of the clock, so that a busy machine does not matter.
    assert time.process_time() - start < 2


def test_no_examples_are_refused():
    with pytest.raises(InvalidInputError, match="cannot be judged on no examples"):
        judge("n > 0.5 +/- 0.1", outcomes(0, both=0))


@pytest.mark.parametrize("log_level", [0.0, 0.1, -math.inf, math.nan])
def test_a_level_outside_of_its_range_is_refused(log_level):
    with pytest.raises(ConfigError, match="log_level must be finite and < 0"):
        judge("n > 0.5 +/- 0.1", outcomes(), log_level=log_level)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match="mode must be one of fp-free, fn-free, got 'strict'"):
        judge("n > 0.5 +/- 0.1", outcomes(), mode="strict")


def test_the_report_is_plain_json():
    report = judge("n > 1.5 +/- 0.1 /\\ n - o > 0.02 +/- 0.1", outcomes(wins=100, losses=20)).to_json()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["verdict"], report["passed"], report["examples"]) == ("FAIL", False, 1000)
    assert report["clauses"][0]["log_p_fail"] is None
    assert report["clauses"][1]["quantity"] == "n - o"
    assert (report["wins"], report["losses"], report["disagreements"], report["slices"]) == (100, 20, 120, {})
    assert report["clauses"][1]["examples"] == 1000


def test_a_missing_label_is_never_a_vacuous_pass():
    """What the counts do not hold stays UNKNOWN, whatever the level; arithmetic and d need no label."""
    bare = Outcomes(100, wins=None, losses=None, new_correct=None, old_correct=None, disagreements=5)
    decision = judge("d < 0.5 +/- 0.1 /\\ n - o > -0.3 +/- 0.1", bare)
    assert [c.verdict for c in decision.clauses] == [PASS, UNKNOWN]
    assert (decision.verdict, decision.passed) == (UNKNOWN, False)
    assert decision.clauses[1].estimate is None
    assert judge("d > 0.5 +/- 0.1 /\\ n > 0 +/- 0.1", bare).verdict is FAIL
    assert judge("n > -0.1 +/- 0.1", bare).verdict is PASS
    apart = Outcomes(100, wins=40, losses=0, new_correct=None, old_correct=None, disagreements=40)
    decision = judge("n - o > 0 +/- 0.1 /\\ n > 0.1 +/- 0.1 /\\ n - o - d < 0.5 +/- 0.1", apart)
    assert [c.verdict for c in decision.clauses] == [PASS, UNKNOWN, PASS]
    json.dumps(decision.to_json(), allow_nan=False)
