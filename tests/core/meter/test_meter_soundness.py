"""Does the promise hold against a developer who attacks it? Seeded simulations; each says how often it cries wolf.

The attack: random classifiers, whose true error is 1/2 whatever they predict, are submitted with a validation loss
that puts their true gap on a boundary. Each signal then tells whether a classifier is luckier than a coin on the
sealed set; it is turned round where it is not. The majority vote of all of them, submitted last, is still a coin on
fresh data, yet looks better on the sealed set by (1 / pi) sqrt((T - 1) / n) in the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from easeml_core.meter.meter import read_submission
from easeml_core.meter.planner import plan_meter
from easeml_core.meter.ranges import signal_of
from easeml_core.settings.config import MeterConfig

if TYPE_CHECKING:
    from easeml_core.meter.reading import Reading

RANGES = (0.2, 0.4, 0.6, 0.8)
EPSILON = 0.05
SITTING = 0.3  # validation loss that puts a coin's true gap, .5 - .3, on the first boundary
FALSE_ALARM = 1e-7

Answer = Callable[[int, float], int | None]


def violations_allowed(runs: int, delta: float) -> int:
    """A sound meter breaks its promise in more of the runs than this with a chance below one in ten million."""
    return int(stats.binom.isf(FALSE_ALARM, runs, delta))


def broken(signal: int | None, true_gap: float, tolerance: float = EPSILON) -> bool:
    """Whether the true gap lies outside the range that was answered, widened by the tolerance."""
    if signal is None:
        return False
    edges = (-math.inf, *RANGES, math.inf)
    return not edges[signal - 1] - tolerance <= true_gap <= edges[signal] + tolerance


def attack(rng: np.random.Generator, steps: int, n: int, answer: Answer) -> tuple[float, int | None]:
    """One life of a sealed set under attack: by how much the last submission flatters, and its signal (or None).

    The last submission comes with the validation loss that makes its true gap lie just outside range 1 and its
    tolerance: the gauge should not be green.
    """
    wrong = np.unpackbits(rng.integers(0, 256, size=((steps - 1) * n + 7) // 8, dtype=np.uint8))[: (steps - 1) * n]
    votes = np.zeros(n, dtype=np.int32)
    cast = 0
    for row in wrong.reshape(steps - 1, n):
        signal = answer(int(row.sum()), SITTING)
        if signal is None:
            break
        votes += row if signal == 1 else 1 - row
        cast += 1
    errors = int((2 * votes > cast).sum())
    flatters = 0.5 - errors / n
    return flatters, answer(errors, 0.5 - RANGES[0] - EPSILON - 0.001) if cast == steps - 1 else None


def plain_meter(n: int) -> Answer:
    """A meter without a ledger: all its safety must lie in n."""
    return lru_cache(maxsize=None)(lambda errors, loss: signal_of(errors / n - loss, RANGES))


class PathAdaptive:
    """A meter with the ledger of one life; readings depend on nothing else and are remembered across lives."""

    def __init__(self, config: MeterConfig, n: int) -> None:
        self.log_weight = 0.0
        self.log: list[Reading] = []
        self.read = lru_cache(maxsize=None)(
            lambda errors, loss, log_weight: read_submission(
                errors=errors, examples=n, validation_loss=loss, config=config, log_weight=log_weight
            )
        )

    def new_life(self) -> PathAdaptive:
        self.log_weight, self.log = 0.0, []
        return self

    def __call__(self, errors: int, loss: float) -> int | None:
        self.log.append(self.read(errors, loss, self.log_weight))
        self.log_weight += self.log[-1].log_cost
        return self.log[-1].signal


def attack_many(seed: int, runs: int, steps: int, n: int) -> tuple[float, int]:
    """Mean flattery, and lives in which the last answer broke the promise, for a meter without a ledger."""
    rng = np.random.default_rng(seed)
    answer = plain_meter(n)
    lives = [attack(rng, steps, n, answer) for _ in range(runs)]
    return float(np.mean([flattery for flattery, _ in lives])), sum(
        broken(signal, RANGES[0] + EPSILON + 0.001) for _, signal in lives
    )


def labels(method: str, steps: int, **rest: float) -> int:
    return plan_meter(ranges=RANGES, tolerance=EPSILON, reliability=0.99, steps=steps, method=method, **rest).labels


@pytest.mark.parametrize(
    ("steps", "runs", "share"),
    [(32, 500, 0.1), (100, 60, 0.9), pytest.param(1_000, 20, 0.9, marks=pytest.mark.nightly)],
)
def test_attack_fools_the_non_adaptive_size(steps, runs, share):
    """Section 9.1: 22 % of the lives at T = 32 and all at T = 100 and 1000 are fooled, where 1 % was promised.

    False alarm: fewer than 10 % of 500 at a rate of 22 %, or 90 % of 60 at over 99.9 %: below 1e-9.
    """
    n = labels("non-adaptive", steps)
    flattery, fooled = attack_many(steps, runs, steps, n)
    assert fooled > share * runs > violations_allowed(runs, 0.01)
    # Predicted for many small advantages; saturates a little at T = 1000 (.195 against .204).
    assert flattery == pytest.approx(math.sqrt((steps - 1) / n) / math.pi, rel=0.07)


@pytest.mark.parametrize(
    ("steps", "n", "runs", "measured"),
    [
        (32, 1_752, 400, 0.0429),
        (32, 5_495, 200, 0.0242),
        (100, 1_980, 60, 0.0718),
        (100, 14_922, 20, 0.0262),
        pytest.param(32, 1_752, 4_000, 0.0429, marks=pytest.mark.nightly, id="32-1752-many"),
        pytest.param(32, 5_495, 2_000, 0.0242, marks=pytest.mark.nightly, id="32-5495-many"),
        pytest.param(100, 1_980, 800, 0.0718, marks=pytest.mark.nightly, id="100-1980-many"),
        pytest.param(100, 14_922, 300, 0.0262, marks=pytest.mark.nightly, id="100-14922-many"),
        pytest.param(1_000, 2_441, 40, 0.195, marks=pytest.mark.nightly, id="1000-2441"),
    ],
)
def test_the_attack_gains_what_was_measured(steps, n, runs, measured):
    """Section 9.1. The last error rate has a standard deviation of at most .5 / sqrt(n); .0004 for what is printed.

    False alarm: five standard errors, below 1e-6.
    """
    flattery, _ = attack_many(7 * steps + n, runs, steps, n)
    print(f"T={steps} n={n}: {flattery:.4f} (specification: {measured})")
    assert flattery == pytest.approx(measured, abs=5 * 0.5 / math.sqrt(n * runs) + (0.0004 if steps < 1_000 else 0.003))


@pytest.mark.parametrize("method", ["pruned", "exact-tree"])
@pytest.mark.parametrize(
    ("steps", "runs"), [(32, 300), (100, 25), pytest.param(100, 400, marks=pytest.mark.nightly, id="100-many")]
)
def test_attack_does_not_fool_sizes_that_count_the_tree(method, steps, runs):
    """Section 9.1. False alarm: below 1e-7 by the promise itself."""
    n = labels(method, steps)
    flattery, fooled = attack_many(steps + 1, runs, steps, n)
    assert fooled <= violations_allowed(runs, 0.01)
    assert flattery == pytest.approx(math.sqrt((steps - 1) / n) / math.pi, rel=0.15)
    assert flattery < EPSILON


@pytest.mark.parametrize(
    ("steps", "n", "runs"),
    [
        (32, 1_500, 300),
        (32, 5_000, 150),
        (100, 15_000, 20),
        pytest.param(100, 15_000, 300, marks=pytest.mark.nightly, id="100-many"),
    ],
)
def test_path_adaptive_promise_holds_under_attack(steps, n, runs):
    """Section 9.2, Hoeffding, delta = .1: every answer is counted ambiguous, and the true gap is never far off.

    False alarm: below 1e-7 by the promise itself.
    """
    config = MeterConfig(ranges=(0.2, 0.8), tolerance=0.15, reliability=0.9, steps=steps, tail="hoeffding")
    final = math.sqrt((math.log(2 * steps / 0.1) + (steps - 1) * math.log(2)) / (2 * n))
    rng = np.random.default_rng(n)
    meter, missed = PathAdaptive(config, n), 0
    for _ in range(runs):
        attack(rng, steps, n, meter.new_life())
        assert [reading.reachable for reading in meter.log[:-1]] == [2] * (steps - 1)
        assert meter.log[-1].tolerance_now == pytest.approx(final, rel=1e-9)
        missed += any(not reading.low <= 0.5 <= reading.high for reading in meter.log)
    assert missed <= violations_allowed(runs, 0.1)


@pytest.mark.parametrize(
    ("steps", "n", "runs", "final"), [(32, 1_500, 60, 0.123), (32, 5_000, 60, 0.055), (100, 15_000, 20, 0.051)]
)
def test_path_adaptive_tolerance_ends_where_it_was_measured(steps, n, runs, final):
    """Section 9.2: final tolerances .123 / .055 / .051. Its ranges are not printed; .1, .2, .3 with coins parked on
    each boundary in turn give them, ranges .2 apart give less (.097 for the first: fewer ranges within two tolerances).

    The last tolerance hardly varies between lives (.002 at most); a twentieth is allowed for the choice of ranges.
    """
    config = MeterConfig(ranges=(0.1, 0.2, 0.3), tolerance=0.3, reliability=0.9, steps=steps, tail="hoeffding")
    rng = np.random.default_rng(n + 1)
    meter, ends, missed = PathAdaptive(config, n), [], 0
    for _ in range(runs):
        meter.new_life()
        for t in range(steps):
            meter(int(rng.binomial(n, 0.5)), 0.5 - config.ranges[t % 3])
        assert all(reading.reachable > 1 for reading in meter.log)
        missed += any(not reading.low <= 0.5 <= reading.high for reading in meter.log)
        ends.append(meter.log[-1].tolerance_now)
    print(f"T={steps} n={n}: {np.mean(ends):.4f} (specification: {final})")
    assert np.mean(ends) == pytest.approx(final, rel=0.05)
    assert missed <= violations_allowed(runs, 0.1)


@pytest.mark.parametrize("tail", ["hoeffding", "clopper-pearson"])
def test_attack_only_shortens_the_life_of_a_planned_path_adaptive_set(tail):
    """Planned for 5 ambiguous answers out of 32, a set answers the attacker 6 times and is retired unfooled."""
    n = labels("path-adaptive", 32, ambiguous=5, tail=tail)
    config = MeterConfig(ranges=RANGES, tolerance=EPSILON, reliability=0.99, steps=32, tail=tail)
    rng = np.random.default_rng(5)
    meter = PathAdaptive(config, n)
    for _ in range(100):
        _, last = attack(rng, 32, n, meter.new_life())
        assert last is None
        assert [reading.retired for reading in meter.log] == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("steps", "n", "runs", "attacked", "measured"),
    [
        (8, 400, 1_500, False, 0.055),
        (8, 400, 1_500, True, 0.079),
        pytest.param(8, 400, 20_000, False, 0.055, marks=pytest.mark.nightly, id="8-400-many"),
        pytest.param(8, 400, 20_000, True, 0.079, marks=pytest.mark.nightly, id="8-400-attacked-many"),
        pytest.param(32, 1_500, 1_000, True, 0.022, marks=pytest.mark.nightly, id="32-1500-attacked"),
    ],
)
def test_path_adaptive_promise_holds_with_exact_intervals(steps, n, runs, attacked, measured):
    """Section 9.2, delta = .3: violation rates .055 (random), .079 (attack), .022 (attack, T = 32) were seen.

    False alarm of the promise: below 1e-7. The printed rates are taken to come from 2,000 lives: five standard errors
    of the difference are allowed.
    """
    config = MeterConfig(ranges=RANGES, tolerance=0.3, reliability=0.7, steps=steps, tail="clopper-pearson")
    rng = np.random.default_rng(steps + n + attacked)
    meter, missed = PathAdaptive(config, n), 0
    for _ in range(runs):
        meter.new_life()
        if attacked:
            attack(rng, steps, n, meter)
        else:
            for errors in rng.binomial(n, 0.5, size=steps):
                meter(int(errors), SITTING)
        missed += any(not reading.low <= 0.5 <= reading.high for reading in meter.log)
    print(f"T={steps} n={n} attacked={attacked}: {missed / runs:.3f} of the lives have a miss")
    assert missed <= violations_allowed(runs, 0.3)
    error = math.sqrt(measured * (1 - measured) * (1 / runs + 1 / 2_000))
    assert missed / runs == pytest.approx(measured, abs=5 * error)


def benign(seed: int, runs: int, steps: int, n: int) -> tuple[float, float]:
    """A developer whose models have true gaps of .01 +- .005: mean ambiguous answers and mean last tolerance."""
    config = MeterConfig(ranges=(0.05, 0.13, 0.25), tolerance=0.2, reliability=0.9, steps=steps, tail="hoeffding")
    rng = np.random.default_rng(seed)
    meter = PathAdaptive(config, n)
    ambiguous, last = [], []
    for _ in range(runs):
        meter.new_life()
        for errors in rng.binomial(n, np.clip(0.09 + rng.normal(0.01, 0.005, size=steps), 0, 1)):
            meter(int(errors), 0.09)
        ambiguous.append(sum(reading.reachable > 1 for reading in meter.log))
        last.append(meter.log[-1].tolerance_now)
    return float(np.mean(ambiguous)), float(np.mean(last))


def test_benign_developer_pays_little_on_wide_ranges():
    """Section 9.3: 5.7 ambiguous answers of 100 and a last tolerance of .0165 were seen.

    The mean of 40 lives has a standard error of about .5 answers; false alarm below 1e-9 at this width.
    """
    ambiguous, last = benign(3, runs=40, steps=100, n=20_000)
    assert ambiguous == pytest.approx(5.7, abs=2.5)
    assert last == pytest.approx(0.0165, abs=0.001)


def test_benign_developer_pays_every_time_where_the_first_boundary_is_too_near():
    """Section 9.3: with 5,000 labels two tolerances (.07) are more than the distance to the boundary (.04).

    False alarm: a gap would have to lie .03 off, over 4 standard deviations in every direction of noise.
    """
    ambiguous, _ = benign(4, runs=20, steps=32, n=5_000)
    assert ambiguous > 31
