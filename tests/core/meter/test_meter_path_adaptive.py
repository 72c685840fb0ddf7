"""One reading of the meter: worked by hand, against a slow oracle, and its properties."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import ConfigError
from easeml_core.meter.meter import read_submission
from easeml_core.meter.planner import plan_meter
from easeml_core.settings.config import MeterConfig
from easeml_core.stats.binomial_bounds import clopper_pearson

if TYPE_CHECKING:
    from easeml_core.meter.reading import Reading

HOEFFDING = MeterConfig(ranges=(0.1, 0.3), tolerance=0.05, reliability=0.99, steps=32, tail="hoeffding")
EXACT = evolve(HOEFFDING, tail="clopper-pearson")
moderate = settings(deadline=None, max_examples=examples(150))
tails = st.sampled_from(["hoeffding", "clopper-pearson"])


def read(errors: int, examples: int, loss: float, config: MeterConfig = HOEFFDING, log_weight: float = 0.0) -> Reading:
    return read_submission(errors=errors, examples=examples, validation_loss=loss, config=config, log_weight=log_weight)


@st.composite
def submissions(draw) -> tuple[int, int, float]:
    examples = draw(st.integers(1, 3_000))
    return draw(st.integers(0, examples)), examples, draw(st.integers(0, 200)) / 200


def test_a_hoeffding_reading_worked_by_hand():
    # ln(2 * 32 / 0.01) = 8.764; radius = sqrt(8.764 / 8000) = 0.0331; gap .15 is within two of them from .1 only.
    reading = read(800, 4_000, 0.05)
    assert reading.signal == 2
    assert reading.gap == pytest.approx(0.15, abs=1e-15)
    assert reading.tolerance_now == pytest.approx(math.sqrt(math.log(6_400) / 8_000), rel=1e-12)
    assert (reading.low, reading.high) == pytest.approx((0.2 - 0.033098, 0.2 + 0.033098), abs=1e-6)
    assert (reading.reachable, reading.log_cost) == (2, math.log(2))
    assert reading.log_level == pytest.approx(math.log(0.01 / 32), rel=1e-12)
    assert not reading.retired


def test_a_clear_answer_is_free_and_an_ambiguous_one_costs_ln_2():
    radius = read(0, 4_000, 0.0).tolerance_now
    for gap, reachable in [(0.0, 1), (0.1 - 2.01 * radius, 1), (0.1 - 1.99 * radius, 2), (0.1 + 1.99 * radius, 2)]:
        reading = read(round((0.3 + gap) * 4_000), 4_000, 0.3)
        assert reading.reachable == reachable
        assert reading.log_cost == math.log(reachable)


def test_narrow_ranges_make_more_than_two_answers_reachable():
    config = evolve(HOEFFDING, ranges=(0.05, 0.1, 0.15, 0.2), tolerance=0.1)
    reading = read(400, 1_000, 0.28, config)  # gap .12, radius .066: [-.012, .252]
    assert (reading.signal, reading.reachable) == (3, 5)


def test_earlier_costs_lower_the_level():
    for config in (HOEFFDING, EXACT):
        free, paid = read(400, 4_000, 0.09, config), read(400, 4_000, 0.09, config, log_weight=3 * math.log(2))
        fewer = evolve(config, reliability=1 - 0.01 / 8)
        assert paid.tolerance_now > free.tolerance_now
        assert paid.tolerance_now == pytest.approx(read(400, 4_000, 0.09, fewer).tolerance_now, rel=1e-9)


def test_more_submissions_planned_lower_the_level_likewise():
    for config in (HOEFFDING, EXACT):
        one, eight = evolve(config, steps=4), evolve(config, steps=32)
        paid = read(400, 4_000, 0.09, one, log_weight=math.log(8))
        assert read(400, 4_000, 0.09, eight).tolerance_now == pytest.approx(paid.tolerance_now, rel=1e-12)


@pytest.mark.parametrize("errors", [0, 700, 1_752])
def test_hoeffding_retires_before_it_looks(errors):
    """1,753 labels are just enough for T = 32 clear answers with tolerance .05, and not for one ambiguous answer."""
    assert not read(errors, 1_753, 0.0).retired
    assert read(errors, 1_752, 0.0).retired
    reading = read(errors, 1_753, 0.0, log_weight=math.log(2))
    assert (reading.signal, reading.reachable, reading.log_cost) == (None, 1, 0.0)
    assert reading.tolerance_now > 0.05


def test_exact_intervals_retire_by_their_longer_side():
    """At an error rate of .1 the upper side is the longer one; 622 labels are enough for T = 32 clear answers."""
    assert not read(62, 622, 0.0, EXACT).retired
    assert read(62, 622, 0.0, EXACT, log_weight=math.log(2)).retired
    assert read(300, 622, 0.0, EXACT).retired
    for errors, side in [(62, "high"), (560, "low")]:
        reading = read(errors, 622, 0.0, EXACT)
        assert reading.tolerance_now == pytest.approx(abs(getattr(reading, side) - errors / 622), rel=1e-12)


@pytest.mark.parametrize("b", [0, 1, 5, 10])
@pytest.mark.parametrize(("tail", "rate"), [("hoeffding", 0.2), ("clopper-pearson", 0.2), ("clopper-pearson", 0.05)])
def test_a_planned_set_gives_the_planned_number_of_ambiguous_answers(tail, rate, b):
    """A developer who sits on a boundary gets b + 1 answers (the last one's cost is never paid) and no more."""
    config = evolve(HOEFFDING, ranges=(0.0, 0.4), tail=tail, ambiguous=b)
    plan = plan_meter(
        ranges=config.ranges,
        tolerance=config.tolerance,
        reliability=config.reliability,
        steps=config.steps,
        ambiguous=b,
        tail=tail,
        error_rate=rate,
    )
    errors, log_weight, answers = round(plan.labels * rate), 0.0, 0
    while not (reading := read(errors, plan.labels, rate, config, log_weight)).retired:
        assert reading.reachable == 2
        log_weight += reading.log_cost
        answers += 1
    assert answers == b + 1


@pytest.mark.parametrize(
    ("errors", "examples", "loss", "signal"),
    [
        (2_000, 5_000, 0.3, 1),  # the gap is the boundary .1, and .4 - .3 > .1 in floats
        (2_001, 5_000, 0.3, 2),
        (3_000, 5_000, 0.3, 2),  # the boundary .3
        (3_001, 5_000, 0.3, 3),
        (2_600, 6_000, 1 / 3, 1),  # 13/30 - 1/3 is the boundary .1
        (2_601, 6_000, 1 / 3, 2),
        (2_000, 5_000, 1 - 0.7, 1),
        (0, 5_000, 1.0, 1),
        (5_000, 5_000, 0.0, 3),
    ],
)
@pytest.mark.parametrize("config", [HOEFFDING, EXACT], ids=["hoeffding", "clopper-pearson"])
def test_gaps_on_a_boundary_are_answered_exactly(errors, examples, loss, signal, config):
    assert read(errors, examples, loss, config).signal == signal


def slow_reachable(errors: int, examples: int, loss: float, config: MeterConfig, log_level: float) -> int:
    """Signals of all counts between the outermost ones whose interval holds an end of ours, one by one."""
    low, high = clopper_pearson(errors, examples, log_level=log_level)
    intervals = [clopper_pearson(k, examples, log_level=log_level) for k in range(examples + 1)]
    lowest = min(k for k, (a, b) in enumerate(intervals) if a <= low <= b)
    highest = max(k for k, (a, b) in enumerate(intervals) if a <= high <= b)
    signals = {
        1 + sum(round((k / examples - loss) * 1e9) > round(b * 1e9) for b in config.ranges)
        for k in range(lowest, highest + 1)
    }
    return len(signals)


def test_reachable_counts_agree_with_looking_at_every_interval():
    rng = np.random.default_rng(7)
    seen = set()
    for _ in range(150):
        examples = int(rng.integers(1, 200))
        errors = int(rng.integers(0, examples + 1))
        loss = int(rng.integers(0, 21)) / 20
        config = MeterConfig(ranges=(0.05, 0.2, 0.45), tolerance=0.999, steps=int(rng.integers(1, 30)))
        log_weight = float(rng.uniform(0, 20))
        reading = read(errors, examples, loss, config, log_weight)
        log_level = math.log((1 - config.reliability) / config.steps) - log_weight
        assert reading.reachable == slow_reachable(errors, examples, loss, config, log_level)
        seen.add(reading.reachable)
    assert seen == {1, 2, 3, 4}


def test_large_sets_are_read_quickly_and_deep_levels_too():
    for log_weight in (0.0, 700.0):
        reading = read(5_000, 50_000, 0.08, evolve(EXACT, tolerance=0.1), log_weight)
        assert reading.signal == 1
        assert reading.low < 0.1 < reading.high


@moderate
@given(submissions(), tails, st.floats(0, 400), st.floats(0, 400))
def test_tolerance_grows_with_what_was_spent(submission, tail, one, other):
    little, much = sorted((one, other))
    config = evolve(HOEFFDING, tail=tail)
    before, after = (read(*submission, config, log_weight).tolerance_now for log_weight in (little, much))
    assert before <= after + 1e-12
    if much > little + 1e-6 and tail == "hoeffding":
        assert before < after


@moderate
@given(st.integers(1, 100_000), st.integers(1, 100_000), st.floats(0, 400))
def test_more_labels_never_raise_the_hoeffding_tolerance(one, other, log_weight):
    few, many = sorted((one, other))
    assert (
        read(0, many, 0.0, log_weight=log_weight).tolerance_now
        <= read(0, few, 0.0, log_weight=log_weight).tolerance_now
    )


@moderate
@given(submissions(), tails, st.data())
def test_signal_rises_with_the_errors(submission, tail, data):
    errors, examples, loss = submission
    config = evolve(HOEFFDING, tail=tail, tolerance=0.9999)
    more = data.draw(st.integers(errors, examples))
    low, high = read(errors, examples, loss, config).signal, read(more, examples, loss, config).signal
    if low is not None and high is not None:
        assert low <= high


@moderate
@given(submissions(), tails, st.floats(0, 50))
def test_a_reading_is_consistent(submission, tail, log_weight):
    errors, examples, loss = submission
    config = evolve(HOEFFDING, tail=tail, tolerance=0.5)
    reading = read(errors, examples, loss, config, log_weight)
    assert reading.retired == (reading.tolerance_now > config.tolerance) == (reading.signal is None)
    assert 0 <= reading.low <= errors / examples + 1e-12
    assert errors / examples - 1e-12 <= reading.high <= 1
    assert reading.gap == pytest.approx(errors / examples - loss, abs=1e-12)
    assert 1 <= reading.reachable <= 3
    assert reading.log_cost == math.log(reading.reachable)
    assert json.loads(json.dumps(reading.to_json()))["signal"] == reading.signal


@moderate
@given(submissions(), st.floats(0, 20))
def test_exact_intervals_are_never_wider_than_hoeffdings(submission, log_weight):
    """What the planner relies on when it starts from Hoeffding's size (Chernoff's bound lies between the two)."""
    loose, exact = (read(*submission, config, log_weight) for config in (HOEFFDING, EXACT))
    assert exact.tolerance_now <= loose.tolerance_now + 1e-12


def test_counts_of_numpy_are_taken():
    found = read_submission(errors=np.int64(3), examples=np.int32(9), validation_loss=np.float64(0.1), config=EXACT)
    assert found == read(3, 9, 0.1, EXACT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"errors": -1}, "errors must be a whole number from 0 to 10 .count the wrong predictions., got -1"),
        ({"errors": 11}, "errors must be a whole number from 0 to 10"),
        ({"errors": 2.0}, "errors must be a whole number"),
        ({"errors": math.nan}, "errors must be a whole number"),
        ({"examples": 0}, "examples must be a whole number >= 1"),
        ({"examples": 10.0}, "examples must be a whole number >= 1"),
        ({"validation_loss": math.nan}, r"validation_loss must be in \[0, 1\] .give the share .*, got nan"),
        ({"validation_loss": 1.1}, r"validation_loss must be in \[0, 1\]"),
        ({"validation_loss": -0.1}, r"validation_loss must be in \[0, 1\]"),
    ],
)
def test_wrong_input_is_refused_with_what_is_allowed(change, message):
    right = {"errors": 3, "examples": 10, "validation_loss": 0.1, "config": EXACT}
    with pytest.raises(ConfigError, match=message):
        read_submission(**{**right, **change})
