"""Metrics: scores as scikit-learn's or worked by hand, maps to quality strictly monotone, what is refused and how."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from easeml_core.errors import ConfigError, InvalidInputError, NumericalError, ShapeError, TrainingError
from easeml_core.metrics.metric import METRICS, metric_of, wrong
from easeml_core.metrics.quality import Affine, Decay, Exponential, Growth, Logistic, ShareExplained, Square

LABELS = [0, 0, 1, 1, 1, 2]
SAID = [0, 1, 1, 1, 0, 2]
CHANCES = [[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25], [0.1, 0.1, 0.8]]
NUMBERS = [1.0, 2.0, 4.0, 7.0]
GUESSES = [1.5, 2.0, 3.0, 9.0]


# Worked by hand. f1: 1/2, 2/3, 1. auc: class 0 has one of 8 pairs wrong (.3 < .4), class 1 one of 9 (.6 > .35, .5), ...
BY_HAND = {
    "accuracy": 4 / 6,
    "balanced_accuracy": (1 / 2 + 2 / 3 + 1) / 3,
    "f1": (1 / 2 + 2 / 3 + 1) / 3,
    "log_loss": -math.log(0.7 * 0.3 * 0.8 * 0.5 * 0.35 * 0.8) / 6,
    "rmse": math.sqrt((0.25 + 0 + 1 + 4) / 4),
    "mae": 3.5 / 4,
    "r2": 1 - 5.25 / 21,
    "within:0.5": 2 / 4,
}


def given_for(name):
    needs = metric_of(name).needs
    if needs == "numbers":
        return NUMBERS, GUESSES, None
    return LABELS, SAID, CHANCES if needs == "probabilities" else None


@pytest.mark.parametrize("name", BY_HAND)
def test_scores_worked_by_hand(name) -> None:
    assert metric_of(name).score(*given_for(name)) == pytest.approx(BY_HAND[name], rel=1e-12)


def by_sklearn(name, targets, said, chances):
    return {
        "accuracy": lambda: sk.accuracy_score(targets, said),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(targets, said),
        "f1": lambda: sk.f1_score(targets, said, average="macro"),
        "log_loss": lambda: sk.log_loss(targets, chances),
        "auc": lambda: (
            sk.roc_auc_score(targets, chances[:, 1])
            if chances.shape[1] == 2
            else sk.roc_auc_score(targets, chances, multi_class="ovr", average="macro")
        ),
    }[name]()


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "f1", "log_loss", "auc"])
def test_scores_of_classifiers_are_sklearns(name, classes) -> None:
    rng = np.random.default_rng(classes)
    targets = np.concatenate([np.arange(classes), rng.integers(classes, size=80)])
    chances = rng.dirichlet(np.ones(classes), size=len(targets))
    said = chances.argmax(axis=1)
    score = metric_of(name).score(targets, said, chances)
    assert score == pytest.approx(by_sklearn(name, targets, said, chances), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "function"),
    [("rmse", sk.root_mean_squared_error), ("mae", sk.mean_absolute_error), ("r2", sk.r2_score)],
)
def test_scores_of_regressions_are_sklearns(name, function) -> None:
    rng = np.random.default_rng(3)
    targets, said = rng.normal(size=(2, 50)) * 40 + 1000
    assert metric_of(name).score(targets, said) == pytest.approx(function(targets, said), rel=1e-12)


def test_auc_of_three_classes_counts_pairs() -> None:
    def share_of_pairs(label):
        right = [row[label] for row, true in zip(CHANCES, LABELS, strict=True) if true == label]
        wrong = [row[label] for row, true in zip(CHANCES, LABELS, strict=True) if true != label]
        return np.mean([(a > b) + (a == b) / 2 for a in right for b in wrong])

    expected = np.mean([share_of_pairs(label) for label in range(3)])
    assert metric_of("auc").score(LABELS, None, CHANCES) == pytest.approx(expected, rel=1e-12)


# Maps

MAPS = [
    (Affine(), 0.0, 1.0, 1),
    (Affine(100.0, -20.0), -20.0, 100.0, -1),
    (Exponential(), 0.0, 20.0, -1),
    (Decay(), 0.0, 1e3, -1),
    (Decay(5.0, -1), -1e3, 5.0, 1),
    (Growth(2.0), 2.0, 1e3, 1),
    (Growth(2.0, -1), -1e3, 2.0, -1),
    (Square(), 1e-3, 1e3, -1),
    (ShareExplained(), -1e4, 1.0, 1),
    (Logistic(), -10.0, 10.0, 1),
    (Logistic(-1), -10.0, 10.0, -1),
]
SHARES = st.floats(0, 1)


@pytest.mark.parametrize(("map_", "low", "high", "sign"), MAPS)
@settings(deadline=None)
@given(a=SHARES, b=SHARES, scale=st.floats(0.5, 2))
def test_maps_are_strictly_monotone_and_stay_in_the_unit_interval(map_, low, high, sign, a, b, scale) -> None:
    s, t = sorted((low + a * (high - low), low + b * (high - low)))
    p, q = map_.quality(s, scale), map_.quality(t, scale)
    assert 0 <= min(p, q) <= max(p, q) <= 1
    assert sign * (q - p) >= 0
    if t - s > 1e-6 * max(1.0, abs(s), abs(t)):  # far more than a rounding error: the order must show
        assert sign * (q - p) > 0


@pytest.mark.parametrize(("map_", "low", "high", "sign"), MAPS)
@settings(deadline=None)
@given(a=SHARES, scale=st.floats(0.5, 2))
def test_score_is_the_inverse_of_quality(map_, low, high, sign, a, scale) -> None:
    s = low + a * (high - low)
    assert map_.score(map_.quality(s, scale), scale) == pytest.approx(s, rel=1e-6, abs=1e-6)


LARGE = st.floats(0, allow_infinity=True)


@pytest.mark.parametrize(("map_", "low", "high", "sign"), MAPS[2:])
@settings(deadline=None)
@given(d=LARGE, e=LARGE, ulps=st.integers(0, 3), scale=st.floats(1e-300, 1e300))
def test_rounding_never_reverses_an_order(map_, low, high, sign, d, e, ulps, scale) -> None:
    if ulps:  # neighbours
        e = d
        for _ in range(ulps):
            e = math.nextafter(e, math.inf)
    upward = abs(low) <= 10
    bound = (0.0 if isinstance(map_, Logistic | Square) else low) if upward else high
    s, t = sorted((bound + d, bound + e) if upward else (bound - d, bound - e))
    p, q = map_.quality(s, scale), map_.quality(t, scale)
    assert 0 <= min(p, q) <= max(p, q) <= 1
    assert sign * (q - p) >= 0


@pytest.mark.parametrize("name", METRICS)
def test_best_has_quality_1_and_worst_0_and_back(name) -> None:
    metric = METRICS[name]
    best, worst = (metric.high, metric.low) if metric.higher_is_better else (metric.low, metric.high)
    assert metric.quality(best, 3.0) == 1
    assert metric.quality(worst, 3.0) == 0
    assert metric.value(1, 3.0) == best
    assert metric.value(0, 3.0) == worst


def test_known_qualities() -> None:
    assert metric_of("log_loss").quality(math.log(4)) == pytest.approx(0.25, rel=1e-12)
    assert metric_of("rmse").quality(6.0, 2.0) == pytest.approx(0.1, rel=1e-12)
    assert metric_of("mae").quality(6.0, 2.0) == pytest.approx(0.25, rel=1e-12)
    assert metric_of("r2").quality(-8.0) == pytest.approx(0.1, rel=1e-12)
    assert metric_of("accuracy").quality(0.83) == 0.83
    assert metric_of("log_loss").value(0.5) == pytest.approx(math.log(2), rel=1e-12)


@pytest.mark.parametrize(("name", "constant"), [("rmse", np.mean), ("r2", np.mean), ("mae", np.median)])
@settings(deadline=None)
@given(targets=st.lists(st.integers(-1000, 1000), min_size=2, max_size=20), shift=st.floats(-50, 50))
def test_the_best_constant_prediction_has_quality_one_half(name, constant, targets, shift) -> None:
    assume(min(targets) < max(targets))
    metric = metric_of(name)
    scale = metric.scale_of(targets)

    def quality(prediction):
        return metric.quality(metric.score(targets, np.full(len(targets), prediction)), scale)

    best = float(constant(targets))
    assert quality(best) == pytest.approx(0.5, rel=1e-9)
    assert quality(best + shift) <= 0.5 + 1e-9


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=20))
def test_r2_and_rmse_give_one_quality_on_the_same_rows(pairs) -> None:
    targets, said = np.array(pairs).T
    assume(targets.std() > 1e-3)
    rmse, r2 = metric_of("rmse"), metric_of("r2")
    left = rmse.quality(rmse.score(targets, said), rmse.scale_of(targets))
    assert left == pytest.approx(r2.quality(r2.score(targets, said)), rel=1e-9)


# Odd cases


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "f1", "log_loss"])
def test_one_class_among_the_targets_is_scored(name) -> None:
    score = metric_of(name).score([1, 1, 1, 1], [1, 1, 1, 0], [[0.5, 0.5]] * 4)
    assert score == pytest.approx({"f1": (6 / 7 + 0) / 2, "log_loss": math.log(2)}.get(name, 0.75), rel=1e-12)


def test_auc_of_one_class_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="auc needs two classes in the validation rows, there is one"):
        metric_of("auc").score([1, 1], None, [[0.5, 0.5]] * 2)


def test_auc_passes_over_a_class_that_has_no_row() -> None:
    targets, chances = [0, 0, 1, 1], np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.3, 0.6, 0.1], [0.1, 0.2, 0.7]])
    one = sk.roc_auc_score([1, 1, 0, 0], chances[:, 0])
    other = sk.roc_auc_score([0, 0, 1, 1], chances[:, 1])
    assert metric_of("auc").score(targets, None, chances) == pytest.approx((one + other) / 2, rel=1e-12)


@pytest.mark.parametrize("name", [*METRICS, "within:1"])
def test_no_rows_is_refused(name) -> None:
    with pytest.raises(InvalidInputError, match="at least one validation row"):
        metric_of(name).score([], [], np.zeros((0, 2)))


@pytest.mark.parametrize("name", ["accuracy", "f1", "rmse", "mae", "r2", "within:1"])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_predictions_that_are_not_finite_mean_a_broken_model(name, broken) -> None:
    with pytest.raises(TrainingError, match="1 of 3 predictions are not finite"):
        metric_of(name).score([0, 1, 2], [0.0, broken, 1.0])
    with pytest.raises(InvalidInputError, match="1 of 3 targets are not finite"):
        metric_of(name).score([0.0, broken, 1.0], [0, 1, 2])


@pytest.mark.parametrize(
    "chances",
    [[[0.5, 0.6]] * 2, [[1.5, -0.5]] * 2, [[math.nan, 1.0]] * 2, [[0.0, 0.0]] * 2, [[math.inf, 0.0]] * 2],
)
@pytest.mark.parametrize("name", ["auc", "log_loss"])
def test_what_are_no_probabilities_means_a_broken_model(name, chances) -> None:
    with pytest.raises(TrainingError, match="2 of 2 rows of probabilities are none"):
        metric_of(name).score([0, 1], None, chances)


def test_probabilities_may_sum_to_1_but_for_rounding() -> None:
    chances = np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32) * np.float32(1.0005)
    assert metric_of("log_loss").score([0, 1], None, chances) == pytest.approx(-math.log(0.72) / 2, rel=1e-6)


def test_a_sure_mistake_costs_much_but_not_everything() -> None:
    score = metric_of("log_loss").score([0, 1], None, np.array([[0, 1], [0, 1]], dtype=np.float32))
    assert score == pytest.approx(-math.log(np.finfo(np.float64).eps) / 2, rel=1e-6)


@pytest.mark.parametrize("name", ["auc", "log_loss"])
def test_missing_probabilities_are_reported_with_a_remedy(name) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} needs the probabilities of the classes.*use accuracy"):
        metric_of(name).score(LABELS, SAID)


@pytest.mark.parametrize("name", ["rmse", "mae"])
def test_targets_that_are_all_the_same_have_no_scale(name) -> None:
    with pytest.raises(InvalidInputError, match=r"all 10 validation targets are 0\.1"):
        metric_of(name).scale_of([0.1] * 10)  # whose standard deviation comes out as 1e-17
    assert metric_of(name).score([0.1] * 10, [0.1] * 10) == 0


def test_r2_of_targets_that_are_all_the_same_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="nothing to predict"):
        metric_of("r2").score([2.0], [2.0])


@pytest.mark.parametrize("off", [0.5, -0.5])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_number_exactly_at_the_tolerance_is_right_whatever_labels_and_answers_are_rounded_to(off, kind) -> None:
    """Sealed labels are float32: 1.4 is 1.39999998 there, and 1.9 would be 0.50000002 off."""
    ratings = np.round(np.arange(-50, 50) / 10, 1)
    answers, further = np.round(ratings + off, 1).astype(kind), (ratings + off * 1.0001).astype(kind)
    labels = ratings.astype(np.float32)
    assert not wrong("within:0.5", labels, answers).any()
    assert wrong("within:0.5", labels, further).all()
    images = np.stack([labels, labels], axis=1), np.stack([answers, answers], axis=1)
    assert not wrong("within:0.5", *images).any()


def test_the_room_for_rounding_is_never_a_share_of_the_tolerance_that_counts() -> None:
    labels = np.array([1e6, 1e6], dtype=np.float32)  # neighbours in float32 are 0.0625 apart
    assert wrong("within:0.1", labels, labels + np.array([0.1, 0.106])).tolist() == [False, True]


def test_numbers_too_large_are_reported_of() -> None:
    with pytest.raises(NumericalError, match="rmse came out as inf"):
        metric_of("rmse").score([1e300, 0.0], [-1e300, 0.0])
    with pytest.raises(NumericalError, match="another unit"):
        metric_of("rmse").scale_of([1e300, -1e300])
    assert metric_of("within:1").score([1.7e308, 0.0], [-1.7e308, 0.0]) == 0.5


@pytest.mark.parametrize(
    ("targets", "said", "chances"),
    [(LABELS, SAID[:3], None), ([LABELS], SAID, None), (LABELS, [[0]] * 6, None)],
)
def test_shapes_must_fit(targets, said, chances) -> None:
    with pytest.raises(ShapeError, match="must have shape"):
        metric_of("accuracy").score(targets, said, chances)


@pytest.mark.parametrize("chances", [[0.5] * 6, [[0.5, 0.5]] * 5, [[1.0]] * 6])
def test_shapes_of_probabilities_must_fit(chances) -> None:
    with pytest.raises(ShapeError, match=r"probabilities must have shape \(6, classes\)"):
        metric_of("auc").score(LABELS, None, chances)


@pytest.mark.parametrize(
    ("targets", "said", "expected"),
    [
        ([0, -1], [0, 1], "got -1"),
        ([0, 0.5], [0, 1], "got 0.5"),
        (["a", "b"], [0, 1], "targets must be numbers"),
        ([0, 1], None, "predictions are missing"),
        ([0, 1], [0, 1e300], "predictions must be labels"),
    ],
)
def test_what_are_no_labels_is_refused(targets, said, expected) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        metric_of("accuracy").score(targets, said)


@pytest.mark.parametrize(("said", "chances"), [([0, [1]], None), (None, [[0.5, 0.5], [1.0]])])
def test_rows_of_different_lengths_are_refused(said, chances) -> None:
    with pytest.raises(InvalidInputError, match="must have rows of one length"):
        metric_of("auc" if chances else "accuracy").score([0, 1], said, chances)


def test_a_label_without_a_column_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="probabilities of 2 classes, but label 2"):
        metric_of("log_loss").score([0, 2], None, [[0.5, 0.5]] * 2)


def test_scale_is_needed_by_rmse_and_mae_alone() -> None:
    for name in ("rmse", "mae"):
        for scale in (None, 0.0, -1.0, math.inf, math.nan):
            with pytest.raises(ConfigError, match=f"scale of {name} must be a finite number > 0"):
                metric_of(name).quality(1.0, scale)
    assert metric_of("r2").quality(0.5) == metric_of("r2").quality(0.5, 3.0)


@pytest.mark.parametrize(("name", "score"), [("accuracy", 1.01), ("rmse", -1.0), ("r2", 1.5), ("auc", math.nan)])
def test_scores_outside_the_range_are_refused(name, score) -> None:
    with pytest.raises(ConfigError, match=f"{name} score must be in"):
        metric_of(name).quality(score, 1.0)


@pytest.mark.parametrize("quality", [-0.1, 1.1, math.nan])
def test_qualities_outside_the_unit_interval_are_refused(quality) -> None:
    with pytest.raises(ConfigError, match=r"quality must be in \[0, 1\]"):
        metric_of("accuracy").value(quality)
