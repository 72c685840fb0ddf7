"""Early stopping: how many labels it takes, that it never errs too often, and that it mirrors."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import at_night, examples

from easeml_core.entities import Verdict
from easeml_core.errors import InvalidInputError
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import Wanted
from easeml_core.gate.early_stopping import Looks
from easeml_core.gate.judge import Slice, judge_looks_of_submission, judge_predictions, looks_of_submission

NONE = math.log(1e-4 / 32)
PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN


def judge(source, labels, old, new, *, log_level=NONE, mode="fp-free", **more):
    return judge_predictions(
        parse_condition(source), labels, old, new, log_level=log_level, mode=mode, sampling="early", **more
    )


def draw(rng, n, *, gain, apart=0.1, both=0.7):
    """Labels, old, new of two classes; a share ``apart`` differs."""
    win = (apart + gain) / 2
    cells = rng.choice(4, size=n, p=[both, win, apart - win, 1 - both - apart])
    return np.zeros(n, dtype=np.int64), np.array([0, 1, 0, 1])[cells], np.array([0, 0, 1, 1])[cells]


def labels_until_decided(*, gain, runs, seed, n=30_000, batch=1, **more):
    rng = np.random.default_rng(seed)
    found = [judge("n - o > 0.02 +/- 0.01", *draw(rng, n, gain=gain), batch=batch, **more) for _ in range(runs)]
    return np.array([f.labels for f in found]), [f.verdict for f in found]


def check_mean_labels(gain, most, runs):
    """At most so many times ln(1/alpha) / KL labels, the least possible mean; a tenth of the examples need one."""
    labels, verdicts = labels_until_decided(gain=gain, runs=runs, seed=int(1000 * gain))
    # None is given up: the chance is 3e-6 a run.
    assert set(verdicts) == {PASS}
    law, values = np.array([(0.1 - gain) / 2, 0.9, (0.1 + gain) / 2]), np.array([-1.0, 0.0, 1.0])
    growth = law @ np.log1p(np.multiply.outer(values - 0.02, np.linspace(0, 0.95, 4000)))
    least = -NONE / growth.max() / 10
    # Seeded; five standard errors of this sample: false alarm below 1e-6.
    error = 5 * labels.std() / math.sqrt(runs)
    assert least - error < labels.mean() < most * least + error


@pytest.mark.parametrize(("gain", "most"), [at_night(0.04, 1.1), (0.05, 1.15)])
def test_mean_labels_until_decided(gain, most):
    """n - o > .02 at d = .1, level 1e-4 / 32, and power for .04; the grid of 9.5 needs 701 and 310."""
    check_mean_labels(gain, most, runs=60)


@pytest.mark.nightly
@pytest.mark.parametrize(("gain", "most"), [(0.04, 1.1), (0.05, 1.15)])
def test_mean_labels_until_decided_closely(gain, most):
    check_mean_labels(gain, most, runs=2000)


@pytest.mark.parametrize("gain", [0.0, -0.02])
def test_a_model_without_a_gain_is_given_up(gain):
    """Without the rule for giving up every one of these would use all 3,000 labels; 5 runs of each gain, seeded."""
    labels, verdicts = labels_until_decided(gain=gain, runs=5, seed=3)
    assert labels.max() < 600
    assert set(verdicts) <= {UNKNOWN, FAIL}


def test_power_says_how_easily_to_give_up():
    slow, _ = labels_until_decided(gain=0.0, runs=5, seed=3)
    quick, verdicts = labels_until_decided(gain=0.0, runs=5, seed=3, power=0.9)
    assert (quick < slow).all()
    assert set(verdicts) == {UNKNOWN}


@pytest.mark.parametrize(("runs", "most"), [(60, 31), at_night(200, 70)])
def test_a_gain_of_twice_the_tolerance_is_rarely_given_up(runs, most):
    labels, verdicts = labels_until_decided(gain=0.04, runs=runs, seed=4, n=8_000, power=0.8, batch=20)
    # At most 20 % of the runs: so many or more have a chance below 1e-6.
    assert sum(v is UNKNOWN and used < 750 for v, used in zip(verdicts, labels, strict=True)) < most


def test_looks_come_after_whole_batches_of_labels_that_matter():
    rng = np.random.default_rng(1)
    labels, old, new = draw(rng, 5_000, gain=0.08)
    apart = np.flatnonzero(old != new)
    hidden = np.full_like(labels, -1)
    first = judge("n - o > 0.02 +/- 0.01", hidden, old, new, batch=64).positions
    assert np.array_equal(first, apart[:64])
    hidden[apart[:100]] = labels[apart[:100]]
    assert np.array_equal(judge("n - o > 0.02 +/- 0.01", hidden, old, new, batch=64).positions, apart[100:128])
    found = judge("n - o > 0.02 +/- 0.01", labels, old, new, batch=64)
    assert found.labels % 64 == 0
    assert found.examples == apart[found.labels - 1] + 1
    assert found.outcomes.disagreements == found.labels


def test_labels_that_were_known_before_do_not_change_the_verdict():
    """Labels given for an earlier submission are no reason to look further than the rule says."""
    labels, old, new = draw(np.random.default_rng(2), 5_000, gain=0.08)
    at_once = judge("n - o > 0.02 +/- 0.01", labels, old, new)
    used = np.flatnonzero(old != new)[: at_once.labels]
    hidden = np.full_like(labels, -1)
    hidden[used] = labels[used]
    found = judge("n - o > 0.02 +/- 0.01", hidden, old, new)
    assert (found.clauses, found.labels, found.outcomes) == (at_once.clauses, at_once.labels, at_once.outcomes)


def test_at_the_last_example_what_is_open_is_unknown():
    labels, old, new = draw(np.random.default_rng(2), 400, gain=0.03)
    found = judge("n - o > 0.02 +/- 0.01", labels, old, new)
    assert (found.verdict, found.examples, found.labels) == (UNKNOWN, 400, np.count_nonzero(old != new))
    assert found.clauses[0].method == "betting"
    assert found.clauses[0].interval[0] < 0.02 < found.clauses[0].interval[1]


def test_models_that_never_differ_need_no_label():
    same = np.zeros(20_000, dtype=np.int64)
    found = judge("n - o > 0.02 +/- 0.01", np.full_like(same, -1), same, same)
    assert (found.verdict, found.passed, found.labels) == (FAIL, False, 0)


def test_every_clause_has_its_own_moment():
    labels, old, new = draw(np.random.default_rng(5), 20_000, gain=0.06)
    found = judge("n - o > 0.02 +/- 0.01 /\\ n > 0.5 +/- 0.1 /\\ d < 0.2 +/- 0.05", labels, old, new, batch=10)
    gain, right, change = found.clauses
    assert [c.verdict for c in found.clauses] == [PASS, PASS, PASS]
    assert right.examples < gain.examples == found.examples < change.examples == 20_000
    assert found.labels == found.examples  # n needs the label of every example
    for clause in (gain, right):
        assert clause.log_p_pass <= clause.log_level_pass == NONE
        # The interval comes from other bets, which need no order.
        assert clause.threshold - 0.05 < clause.interval[0] < clause.estimate < clause.interval[1]
    assert change.method == "binomial"


def test_the_first_refusal_ends_it():
    labels, old, new = draw(np.random.default_rng(6), 20_000, gain=0.06)
    found = judge("n - o > 0.02 +/- 0.01 /\\ n > 0.9 +/- 0.01", labels, old, new, batch=10)
    assert found.clauses[1].verdict in (FAIL, UNKNOWN)
    assert found.clauses[0].verdict is UNKNOWN
    assert found.examples == found.clauses[0].examples == found.clauses[1].examples
    # Under fn-free an UNKNOWN clause refuses nothing, so it goes on to a FAIL.
    other = judge("n - o > 0.02 +/- 0.01 /\\ n > 0.9 +/- 0.01", labels, old, new, batch=10, mode="fn-free")
    assert other.verdict is FAIL


def test_a_threshold_near_the_top_is_not_given_up_at_once():
    """Twice the tolerance above .95 there is no accuracy: then the aim is halfway to 1."""
    rng = np.random.default_rng(8)
    labels = np.zeros(3_000, dtype=np.int64)
    new = (rng.random(3_000) > 0.99).astype(np.int64)
    assert judge("n > 0.95 +/- 0.04", labels, labels, new).verdict is PASS


@settings(deadline=None, max_examples=examples(30))
@given(
    st.integers(0, 10**6),
    st.floats(-0.3, 0.3),
    st.sampled_from(["n - o", "n", "n - 1.2 * o"]),
    st.integers(1, 60),
    st.floats(-20, -1),
)
def test_fn_free_is_fp_free_in_the_mirror(seed, c, left, batch, log_level):
    """x > c under fn-free promises what x < c promises under fp-free."""
    data = draw(np.random.default_rng(seed), 600, gain=0.05, apart=0.3, both=0.5)
    # Within reach: beyond, "more than" and "less than" differ in whether the end itself counts.
    c = round(c + 0.6 * (left == "n"), 3)
    one = judge(f"{left} > {c} +/- 0.05", *data, batch=batch, mode="fn-free", log_level=log_level)
    two = judge(f"{left} < {c} +/- 0.05", *data, batch=batch, mode="fp-free", log_level=log_level)
    assert {PASS: FAIL, FAIL: PASS, UNKNOWN: UNKNOWN}[one.verdict] is two.verdict
    assert (one.passed, one.labels) == (not two.passed, two.labels)
    assert one.clauses[0].log_p_pass == pytest.approx(two.clauses[0].log_p_fail, rel=1e-12)


@pytest.mark.parametrize(
    ("source", "right", "mode", "count"),
    [
        ("n - o > 0 +/- 0.1", 0.5, "fp-free", 6),
        ("n - o > 0.2 +/- 0.1", 0.6, "fn-free", 6),
        *(
            at_night(source, right, mode, 9)
            for source, right in (("n - o > 0 +/- 0.1", 0.5), ("n - o > 0.2 +/- 0.1", 0.6))
            for mode in ("fp-free", "fn-free")
        ),
    ],
)
def test_a_wrong_verdict_is_never_likelier_than_the_level(source, right, mode, count):
    """All 2^k sequences of labels on k disagreements, with a truth exactly on the threshold; a look after each."""
    old, new = np.ones(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    alpha, shown = 0.3, {PASS: 0.0, FAIL: 0.0, UNKNOWN: 0.0}
    for sequence in itertools.product((0, 1), repeat=count):
        labels = np.array(sequence)
        found = judge(source, labels, old, new, log_level=math.log(alpha), mode=mode, batch=1)
        wins = int((labels == 0).sum())
        shown[found.verdict] += right**wins * (1 - right) ** (count - wins)
    assert sum(shown.values()) == pytest.approx(1)
    assert max(shown[PASS], shown[FAIL]) <= alpha
    assert shown[PASS if mode == "fp-free" else FAIL] > 0.01


def test_wanted_positions_are_never_empty():
    labels, old, new = draw(np.random.default_rng(2), 400, gain=0.03)
    hidden = np.full_like(labels, -1)
    while isinstance(found := judge("n - o > 0.02 +/- 0.01", hidden, old, new, batch=7), Wanted):
        assert 0 < found.positions.size <= 7
        hidden[found.positions] = labels[found.positions]
    assert found.verdict is UNKNOWN


@settings(deadline=None, max_examples=examples(60))
@given(
    st.sampled_from(["n - o > 0.02 +/- 0.02", "n > 0.7 +/- 0.02 /\\ d < 0.4 +/- 0.1", "d < 0.3 +/- 0.1"]),
    st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=8, max_size=200),
    st.integers(1, 30),
    st.sampled_from(["fp-free", "fn-free"]),
    st.sampled_from([None, 0.9]),
    st.floats(-8, -0.5),
    st.booleans(),
)
def test_the_counts_of_the_looks_give_the_verdict_again(source, rows, batch, mode, power, log_level, sliced):
    labels, old, new = np.array(rows).T
    parts = [(parse_condition("n > 0.5 +/- 0.1"), np.arange(0, len(rows), 2))] if sliced else []
    slices = [Slice("even", condition, members) for condition, members in parts]
    asked = {"log_level": log_level, "mode": mode, "power": power}
    condition, waiting = parse_condition(source), np.full_like(labels, -1)
    while isinstance(
        found := judge_predictions(condition, waiting, old, new, sampling="early", batch=batch, slices=slices, **asked),
        Wanted,
    ):
        waiting[found.positions] = labels[found.positions]
    looks = looks_of_submission(condition, waiting, old, new, slices=slices, batch=batch, **asked)
    again = [Looks.from_json(json.loads(json.dumps(asdict(one)))) for one in looks]
    reported, verdict, passed = judge_looks_of_submission([condition, *(c for c, _ in parts)], again, **asked)
    assert (verdict, passed) == (found.verdict, found.passed)
    if reported[0].examples is not None:
        assert (reported[0].examples, reported[0].wins) == (found.outcomes.examples, found.outcomes.wins)
    if not sliced and reported[0].examples is not None and len(looks[0].moments) > 1:
        cut = replace(again[0], moments=again[0].moments[:-1], cells=again[0].cells[:-1], is_whole=False)
        with pytest.raises(InvalidInputError):  # the bets no longer fit, or the verdict is open
            judge_looks_of_submission([condition], [cut], **asked)


def test_when_a_model_is_given_up_follows_from_the_power_in_the_looks_too():
    condition, asked = parse_condition("n - o > 0.02 +/- 0.01"), {"log_level": NONE, "mode": "fp-free"}
    drawn = draw(np.random.default_rng(1), 30_000, gain=0.0)
    looks = looks_of_submission(condition, *drawn, power=0.9, batch=20, **asked)
    assert not looks[0].is_whole
    assert judge_looks_of_submission([condition], looks, power=0.9, **asked)[1:] == (UNKNOWN, False)
    with pytest.raises(InvalidInputError, match="the looks end before the verdict is clear"):
        judge_looks_of_submission([condition], looks, **asked)


@pytest.mark.parametrize(("gain", "refuses"), [(-0.1, True), (0.1, False)])
def test_an_open_slice_is_left_open_where_the_condition_refuses_and_nowhere_else(gain, refuses):
    condition, asked = parse_condition("n - o > 0.02 +/- 0.01"), {"log_level": NONE, "mode": "fp-free"}
    labels, old, new = draw(np.random.default_rng(1), 30_000, gain=gain)
    late = Slice("late", parse_condition("n > 0.5 +/- 0.01"), np.arange(20_000, 30_000))
    known = np.where(np.arange(30_000) < 20_000, labels, -1)
    looks = looks_of_submission(condition, known, old, new, slices=[late], batch=50, **asked)
    if not refuses:
        with pytest.raises(InvalidInputError, match="the looks end before the verdict is clear"):
            judge_looks_of_submission([condition, late.condition], looks, **asked)
        return
    (first, second), verdict, passed = judge_looks_of_submission([condition, late.condition], looks, **asked)
    assert (first.refuses, second.is_open, verdict, passed) == (True, True, FAIL, False)
    found = judge_predictions(condition, known, old, new, sampling="early", batch=50, slices=[late], **asked)
    assert (found.verdict, found.passed) == (FAIL, False)
