"""From predictions and some labels to a decision: only labels that matter are asked for, and only they count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.entities import Verdict
from easeml_core.errors import ConfigError, InvalidInputError, ShapeError
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import Decision, Wanted, decide_counts
from easeml_core.gate.exact_sizes import labels_in_words
from easeml_core.gate.judge import Slice, judge_predictions, slices_of
from easeml_core.gate.outcomes import count_outcomes

LEVEL = math.log(0.01)
PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN


def judge(source, labels, old, new, *, log_level=LEVEL, mode="fp-free", **more):
    return judge_predictions(parse_condition(source), labels, old, new, log_level=log_level, mode=mode, **more)


def models(n=1000, *, gain=0.1, apart=0.2, accuracy=0.8, classes=3, seed=0):
    """Labels, old and new predictions: where the models differ, the new one is right more often by the gain."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    wrong = (labels + 1) % classes
    old = np.where(rng.random(n) < accuracy, labels, wrong)
    differ = rng.random(n) < apart
    better = rng.random(n) < (1 + gain / apart) / 2
    old = np.where(differ, np.where(better, wrong, labels), old)
    new = np.where(differ, np.where(better, labels, wrong), old)
    return labels, old, new


SOURCES = st.sampled_from(
    [
        "n - o > 0.02 +/- 0.02",
        "n > 0.7 +/- 0.02",
        "n - o > 0 +/- 0.02 /\\ d < 0.3 +/- 0.1",
        "n - 1.1 * o > -0.1 +/- 0.05",
        "n - o - 0.5 * d > -0.1 +/- 0.05",
        "d < 0.3 +/- 0.1",
    ]
)
ROWS = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=80)


@settings(deadline=None, max_examples=examples(60))
@given(SOURCES, ROWS, st.floats(-30, -1), st.sampled_from(["fp-free", "fn-free"]))
def test_with_all_labels_it_is_the_decision_on_counts(source, rows, log_level, mode):
    labels, old, new = np.array(rows).T
    found = judge(source, labels, old, new, log_level=log_level, mode=mode)
    expected = decide_counts(parse_condition(source), count_outcomes(labels, old, new), log_level=log_level, mode=mode)
    assert (found.verdict, found.passed, found.clauses) == (expected.verdict, expected.passed, expected.clauses)


@settings(deadline=None, max_examples=examples(60))
@given(
    SOURCES,
    ROWS,
    st.sampled_from(["fp-free", "fn-free"]),
    st.sampled_from([("fixed", False), ("fixed", True), ("early", False)]),
    st.data(),
)
def test_labels_given_a_few_at_a_time_end_in_the_same_verdict(source, rows, mode, how, data):
    """Labels given on demand, in portions of any size, lead to the verdict of all labels at once."""
    labels, old, new = np.array(rows).T
    sampling, on_demand = how
    asked_as = {"mode": mode, "sampling": sampling, "batch": data.draw(st.integers(1, 7)), "on_demand": on_demand}
    at_once = judge(source, labels, old, new, **asked_as, log_level=-1.5)
    known = np.full_like(labels, -1)
    asked = 0
    while isinstance(found := judge(source, known, old, new, **asked_as, log_level=-1.5), Wanted):
        assert (known[found.positions] < 0).all()
        assert (np.diff(found.positions) > 0).all()
        some = found.positions[: data.draw(st.integers(1, found.positions.size))]
        known[some] = labels[some]
        asked += some.size
    assert found.passed == at_once.passed
    if sampling == "early":
        assert (found.verdict, found.labels) == (at_once.verdict, at_once.labels)
    assert found.labels == asked


def test_only_disagreements_are_asked_for():
    labels, old, new = models(500)
    hidden = np.full_like(labels, -1)
    apart = np.flatnonzero(old != new)
    for source in ("n - o > 0.02 +/- 0.01", "2 * o - 2 * n < 0.1 +/- 0.02", "n - o > 0.02 +/- .01 /\\ d < 0.5 +/- 0.1"):
        assert np.array_equal(judge(source, hidden, old, new).positions, apart)
    assert np.array_equal(judge("n - o + 0.1 * d > 0 +/- 0.1", hidden, old, new).positions, apart)
    for source in ("n > 0.5 +/- 0.1", "n - 1.1 * o > 0 +/- 0.1", "n - o > 0 +/- 0.1 /\\ o > 0.1 +/- 0.1"):
        assert np.array_equal(judge(source, hidden, old, new).positions, np.arange(500))
    hidden[apart] = labels[apart]
    found = judge("n - o > 0.02 +/- 0.01", hidden, old, new)
    assert found.labels == apart.size
    assert found.clauses == judge("n - o > 0.02 +/- 0.01", labels, old, new).clauses


def test_on_demand_the_first_disagreements_are_asked_for_and_no_other_label_counts():
    labels, old, new = models(4000, gain=0.1, apart=0.2)
    apart, source = np.flatnonzero(old != new), "n - o > 0.02 +/- 0.05"
    hidden = np.full_like(labels, -1)
    asked = judge(source, hidden, old, new, on_demand=True).positions
    assert 0 < asked.size < apart.size / 3
    assert np.array_equal(asked, apart[: asked.size])
    hidden[asked] = labels[asked]
    found = judge(source, hidden, old, new, on_demand=True)
    assert (found.verdict, found.labels, found.outcomes.judged) == (PASS, asked.size, asked.size)
    # Whatever else is known, also all of it, and whatever it says: the same decision.
    for others in (labels, old, new):
        known = np.where(np.isin(np.arange(4000), asked), labels, others)
        assert judge(source, known, old, new, on_demand=True) == found
    # A smaller level asks for more.
    assert (
        judge(source, np.full_like(labels, -1), old, new, on_demand=True, log_level=-30.0).positions.size > asked.size
    )


@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
@pytest.mark.parametrize(
    "source", ["n - o > 0.02 +/- 0.02 /\\ d < 0.3 +/- 0.1", "n > 0.5 +/- 0.1", "n - 1.1 * o > 0 +/- 0.1"]
)
def test_where_a_clause_bounds_d_or_needs_agreements_on_demand_changes_nothing(source, mode):
    labels, old, new = models(1000)
    hidden = np.full_like(labels, -1)
    for known in (hidden, labels):
        one, two = (judge(source, known, old, new, mode=mode, on_demand=each) for each in (False, True))
        assert one == two if known is labels else np.array_equal(one.positions, two.positions)


def test_models_that_differ_too_little_to_pass_are_refused_without_a_label_in_every_slice():
    labels, old, new = models(1000, apart=0.01, gain=0.01)
    part = Slice("all", parse_condition("n - o > 0 +/- 0.1"), np.arange(1000))
    hidden = np.full_like(labels, -1)
    found = judge("n - o > 0.02 +/- 0.05", hidden, old, new, on_demand=True, slices=[part])
    assert (found.verdict, found.passed, found.labels) == (UNKNOWN, False, 0)
    assert judge("n - o > -0.1 +/- 0.05", hidden, old, new, on_demand=True).verdict is PASS


def test_a_wrong_disagreement_needs_its_label_and_counts_nothing():
    old, new = np.array([0, 0, 1]), np.array([1, 1, 1])
    assert judge("n - o > 0 +/- 0.1", [-1, -1, -1], old, new).positions.tolist() == [0, 1]
    found = judge("n - o > 0 +/- 0.1", [2, 1, -1], old, new)
    assert (found.outcomes.wins, found.outcomes.losses, found.outcomes.disagreements) == (1, 0, 2)


@pytest.mark.parametrize("sampling", ["fixed", "early"])
def test_d_needs_no_label(sampling):
    labels, old, new = models()
    found = judge("d < 0.3 +/- 0.1", np.full_like(labels, -1), old, new, sampling=sampling)
    assert (found.verdict, found.passed, found.labels, found.examples) == (PASS, True, 0, 1000)


@pytest.mark.parametrize("sampling", ["fixed", "early"])
@pytest.mark.parametrize(
    ("bound", "mode", "verdict", "asks"),
    [
        (0.1, "fp-free", FAIL, False),
        (0.1, "fn-free", FAIL, False),
        (0.21, "fp-free", UNKNOWN, False),
        (0.21, "fn-free", None, True),
        (0.4, "fp-free", None, True),
    ],
)
def test_a_clause_on_d_that_settles_the_symbol_spends_no_label(sampling, bound, mode, verdict, asks):
    labels, old, new = models()
    hidden = np.full_like(labels, -1)
    found = judge(f"n - o > 0.02 +/- 0.01 /\\ d < {bound} +/- 0.05", hidden, old, new, mode=mode, sampling=sampling)
    assert isinstance(found, Wanted) == asks
    if not asks:
        assert (found.verdict, found.passed, found.labels) == (verdict, False, 0)
        assert (found.clauses[0].verdict, found.clauses[0].examples, found.clauses[0].estimate) == (UNKNOWN, 0, None)
        full = judge(f"n - o > 0.02 +/- 0.01 /\\ d < {bound} +/- 0.05", labels, old, new, mode=mode)
        assert full.passed == found.passed


@settings(deadline=None, max_examples=examples(30))
@given(SOURCES, ROWS, st.randoms(use_true_random=False))
def test_the_order_of_examples_says_nothing_under_fixed(source, rows, shuffle):
    one = judge(source, *np.array(rows).T)
    shuffle.shuffle(rows)
    two = judge(source, *np.array(rows).T)
    assert (one.verdict, one.clauses) == (two.verdict, two.clauses)


@pytest.mark.parametrize("sampling", ["fixed", "early"])
def test_exchanging_the_models_mirrors_the_verdict(sampling):
    labels, old, new = models(4000)
    for c in (0.02, 0.1, 0.3):
        one = judge(f"n - o > {c} +/- 0.02", labels, old, new, sampling=sampling)
        two = judge(f"o - n > {c} +/- 0.02", labels, new, old, sampling=sampling)
        three = judge(f"n - o < {-c} +/- 0.02", labels, new, old, sampling=sampling)
        assert one.verdict is two.verdict is three.verdict
        assert one.labels == two.labels == three.labels


@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
@pytest.mark.parametrize("sampling", ["fixed", "early"])
def test_slices_have_the_whole_level_for_a_pass_share_it_for_a_fail_and_must_all_hold(sampling, mode):
    labels, old, new = models(3000, gain=0.15)
    members = np.arange(0, 3000, 3)
    condition = parse_condition("n > 0.6 +/- 0.05")
    found = judge(
        "n - o > 0.02 +/- 0.02",
        *(labels, old, new),
        slices=[Slice("third", condition, members), Slice("rest", condition, np.setdiff1d(np.arange(3000), members))],
        sampling=sampling,
        mode=mode,
    )
    assert found.passed
    assert [name for name, _ in found.slices] == ["third", "rest"]
    for decision in (found, *(d for _, d in found.slices)):
        assert [clause.log_level_pass for clause in decision.clauses] == [LEVEL]
        assert [clause.log_level_fail for clause in decision.clauses] == [pytest.approx(LEVEL - math.log(3))]
    alone = judge("n > 0.6 +/- 0.05", *(x[members] for x in (labels, old, new)), mode=mode)
    if sampling == "fixed":
        third = found.slices[0][1].clauses[0]
        assert (third.log_p_pass, third.interval[0]) == (alone.clauses[0].log_p_pass, alone.clauses[0].interval[0])
        assert found.labels == 3000
    spoilt = np.where(np.isin(np.arange(3000), members[:400]), (labels + 1) % 3, new)
    bad = judge(
        "n - o > -0.9 +/- 0.02",
        *(labels, old, spoilt),
        slices=[Slice("third", parse_condition("n > 0.8 +/- 0.05"), members)],
        sampling=sampling,
        mode=mode,
    )
    assert (bad.verdict, bad.passed) == (FAIL, False)
    assert bad.to_json()["slices"]["third"]["verdict"] == "FAIL"


def test_labels_of_slices_are_positions_of_the_whole_set():
    labels, old, new = models(300)
    hidden = np.full_like(labels, -1)
    members = np.arange(100, 200)
    part = Slice("middle", parse_condition("n - o > 0 +/- 0.1"), members)
    wanted = judge("d < 0.9 +/- 0.1", hidden, old, new, slices=[part]).positions
    assert np.array_equal(wanted, members[old[members] != new[members]])
    hidden[wanted] = labels[wanted]
    assert judge("d < 0.9 +/- 0.1", hidden, old, new, slices=[part]).labels == wanted.size


@settings(deadline=None, max_examples=examples(200))
@given(
    st.sampled_from(["n - o > 0.3 +/- 0.1", "n - o > 0 +/- 0.02 /\\ d < 0.3 +/- 0.1", "n > 0.5 +/- 0.1"]),
    st.lists(st.sampled_from(["n > 0.5 +/- 0.1", "n - o > 0 +/- 0.1", "d < 0.4 +/- 0.1"]), min_size=1, max_size=2),
    st.lists(st.tuples(*[st.integers(0, 1)] * 5), min_size=4, max_size=60),
    st.sets(st.integers(0, 1), max_size=1),
    st.sampled_from(["fp-free", "fn-free"]),
    st.booleans(),
)
def test_what_fixed_asks_for_is_the_same_whatever_the_known_labels_are(
    source, of_slices, rows, labelled, mode, on_demand
):
    """Two worlds with the same predictions, and labels known of the same examples: both wait for the same ones."""
    old, new, here, there, codes = np.array(rows).T
    known = np.isin(codes, list(labelled))
    parts = [
        Slice(str(place), parse_condition(condition), np.flatnonzero(codes == place))
        for place, condition in enumerate(of_slices)
        if (codes == place).any()
    ]
    found = [
        judge(
            source, np.where(known, truth, -1), old, new, mode=mode, slices=parts, log_level=-1.2, on_demand=on_demand
        )
        for truth in (here, there)
    ]
    asked = [one.positions.tolist() if isinstance(one, Wanted) else None for one in found]
    assert asked[0] == asked[1]


def test_a_slice_whose_known_labels_refuse_waits_for_the_labels_of_the_others():
    """Else each question would tell, beside its symbol, whether that slice holds."""
    labels, old, new = models(400, gain=0.2, apart=0.4)
    members = np.arange(200)
    known = np.where(np.arange(400) < 200, labels, -1)
    for source in ("n > 0.99 +/- 0.1", "n > 0.01 +/- 0.1"):
        found = judge("n - o > 0 +/- 0.1", known, old, new, slices=[Slice("s", parse_condition(source), members)])
        assert found.positions.tolist() == np.flatnonzero((old != new) & (np.arange(400) >= 200)).tolist()
    refused = Slice("s", parse_condition("d < 0.05 +/- 0.01"), members)  # by predictions alone: no label is asked for
    assert not judge("n - o > 0 +/- 0.1", np.full(400, -1), old, new, slices=[refused]).passed


def test_slices_are_found_by_name():
    found = slices_of([("b", parse_condition("n > 0 +/- 1"))], ["a", "b", "", "b"])
    assert (found[0].name, found[0].members.tolist()) == ("b", [1, 3])
    with pytest.raises(InvalidInputError, match="slice 'c' has no examples; slices of this set: 'a', 'b'"):
        slices_of([("c", parse_condition("n > 0 +/- 1"))], ["a", "b"])


def test_an_empty_slice_or_set_is_refused():
    condition = parse_condition("n > 0.5 +/- 0.1")
    with pytest.raises(InvalidInputError, match="slice 'x' has no examples"):
        judge("d < 1 +/- 0.1", [1], [1], [1], slices=[Slice("x", condition, np.empty(0, dtype=np.int64))])
    for sampling in ("fixed", "early"):
        for source in ("n > 0.5 +/- 0.1", "d < 0.5 +/- 0.1"):
            empty = np.empty(0, dtype=np.int64)
            with pytest.raises(InvalidInputError, match="cannot be judged on no examples"):
                judge(source, empty, empty, empty, sampling=sampling)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sampling": "often"}, "sampling must be one of fixed, early, got 'often'"),
        ({"power": 1.0}, "power must be > 0 and < 1, or nothing, got 1.0"),
        ({"batch": 0}, "batch must be a whole number >= 1, got 0"),
        ({"log_level": 0.0}, "log_level must be finite and < 0"),
        ({"mode": "strict"}, "mode must be one of fp-free, fn-free"),
    ],
)
def test_settings_outside_their_range_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        judge("n > 0.5 +/- 0.1", [1], [1], [1], **wrong)


def test_shapes_must_be_equal():
    with pytest.raises(ShapeError, match="new predictions must have shape"):
        judge("n > 0.5 +/- 0.1", [1], [1], [1, 2])


def test_pass_and_fail_are_never_both_shown():
    labels, old, new = models(300)
    for log_level in (-0.1, -0.5, -1.0, -5.0):
        for source in ("n - o > 0.1 +/- 0.05", "n > 0.8 +/- 0.05", "n - 1.1 * o > 0.02 +/- 0.1"):
            for sampling in ("fixed", "early"):
                found = judge(source, labels, old, new, log_level=log_level, sampling=sampling)
                assert isinstance(found, Decision)
                for clause in found.clauses:
                    shown = (clause.log_p_pass <= clause.log_level_pass, clause.log_p_fail <= clause.log_level_fail)
                    assert clause.verdict is {(True, False): PASS, (False, True): FAIL}.get(shown, UNKNOWN)


def test_labels_of_a_submission_are_said_where_every_clause_can_hold() -> None:
    condition = parse_condition("n - o > 0.02 +/- 0.01 /\\ n - o > 0.12 +/- 0.05")
    asked = {"log_level": -12.676, "mode": "fp-free", "power": 0.9, "conditions": 2}
    words = labels_in_words(condition, 84_779, **asked)
    assert words is not None
    assert (
        "on at most 15 % of the examples needs 2,395 labels, on 30 % 8,930" in words
    )  # a gain of 12 % differs on more
