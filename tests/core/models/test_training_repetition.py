"""Asking some rows again: which, how many may change, and that models of every format are let through as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from easeml_core.errors import TrainingError
from easeml_core.models.command_model import pack_command
from easeml_core.models.formats import load_predictor, save_model
from easeml_core.models.predict import predict_in_child, require_same, rows_to_repeat
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.trainers import trainer_of

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.data.parts import OpenParts

KEY = b"sixteen bytes at least"


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize(
    ("rows", "size"), [(0, 0), (1, 1), (2, 1), (3, 2), (100, 50), (1998, 999), (2001, 1000), (10**5, 1000)]
)
def test_half_of_the_rows_are_asked_again_and_no_more_than_a_thousand(rows: int, size: int, classes: int) -> None:
    repeated = rows_to_repeat(np.arange(rows) % classes, KEY)
    assert repeated.shape == (size,)
    assert len(set(repeated.tolist())) == size
    assert set(repeated.tolist()) <= set(range(rows))


def test_the_key_decides_which() -> None:
    labels = np.arange(500) % 3
    first = rows_to_repeat(labels, KEY)
    assert np.array_equal(first, rows_to_repeat(labels, KEY))
    assert set(first.tolist()) != set(rows_to_repeat(labels, KEY + b"!").tolist())


def test_every_row_is_as_likely_in_every_place() -> None:
    """Over 2,000 keys: 40 frequencies within 5 standard deviations; false alarm 40 * 5.7e-7."""
    drawn = np.array([rows_to_repeat(np.arange(20) % 2, b"%020d" % k) for k in range(2000)])
    chosen = np.bincount(drawn.ravel(), minlength=20) / 2000
    assert np.abs(chosen - 0.5).max() < 5 * np.sqrt(0.25 / 2000)
    leads = np.bincount(drawn[:, 0], minlength=20) / 2000
    assert np.abs(leads - 0.05).max() < 5 * np.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((50, 50), {12, 38}), ((90, 10), {10, 40}), ((100, 0), {50, 0}), ((1, 99), {1, 49})],
    ids=["three of four", "the few of the others", "one class", "as far as there are"],
)
def test_half_of_the_classes_come_three_times_as_often(counts: tuple[int, int], expected: set[int]) -> None:
    labels = np.repeat([0, 1], counts)
    found = [set(np.bincount(labels[rows_to_repeat(labels, b"%020d" % k)], minlength=2).tolist()) for k in range(40)]
    assert expected in found


def test_the_classes_come_mixed() -> None:
    labels = np.repeat([0, 1], 50)
    assert np.count_nonzero(np.diff(labels[rows_to_repeat(labels, KEY)])) > 5  # 1 where one comes after the other


@pytest.mark.parametrize(("rows", "changed"), [(1, 1), (499, 1), (500, 2), (999, 2), (1000, 3)])
def test_more_changes_than_one_in_500_are_named(rows: int, changed: int) -> None:
    labels = np.arange(rows)
    again = labels.copy()
    again[:changed] += 1
    words = f"depend on which examples it sees, or change from run to run: {changed:,} of {rows:,} were others"
    with pytest.raises(TrainingError, match=words):
        require_same(labels, again)
    again[0] = labels[0]
    require_same(labels, again)  # one less is let through


def test_one_huge_number_does_not_excuse_all_others() -> None:
    """Rounding is a share of the largest number: a program could make that as large as it likes."""
    rng = np.random.default_rng(0)
    first, again = rng.normal(size=(2, 1000))
    first[7] = again[7] = 1e300
    with pytest.raises(TrainingError, match="999 of 1,000"):
        require_same(first, again, right_within=1e-9)
    changed = first * (1 + 1e-7)
    require_same(first, changed, right_within=0.5)


def test_rounding_of_large_numbers_is_small_beside_what_is_right() -> None:
    first = 1e6 + np.arange(1000.0)
    require_same(first, first + 0.4, right_within=50.0)
    with pytest.raises(TrainingError, match="1,000 of 1,000"):
        require_same(first, first + 40.0, right_within=50.0)
    require_same(first, first + 40.0)  # no tolerance is set


def test_numbers_that_are_infinitely_far_apart_are_others() -> None:
    first = np.full(1000, 1.7e308)
    with pytest.raises(TrainingError, match="1,000 of 1,000"):
        require_same(first, -first, right_within=0.5)


@pytest.mark.parametrize("kind", ["nearest_neighbors", "torch_cnn"])
def test_what_is_trained_here_answers_the_same(kind: str, digits: OpenParts, tmp_path: Path) -> None:
    model_format = save_model(trainer_of(kind).fit(digits, {}, seed=0, report=silent), tmp_path / "model")
    inputs = digits.validation_inputs
    labels = predict_in_child(tmp_path / "model", model_format, inputs)
    repeated = rows_to_repeat(labels, KEY)
    again = predict_in_child(tmp_path / "model", model_format, inputs[repeated])
    assert np.array_equal(labels[repeated], again)


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ("x[:, 0] > 0", True),
        ("x[:, 0] > np.median(x[:, 0])", False),
        ("np.arange(len(x)) % 2", False),
        ("np.full(len(x), len(x) == 400)", False),
        ("np.random.default_rng().integers(0, 2, len(x))", False),
        ("np.cumsum(x[:, 0] > 0) % 2", False),
    ],
    ids=["its own row", "ranks", "place", "number of rows", "chance", "the rows before"],
)
def test_programs_whose_answers_are_not_those_of_single_rows_are_caught(code: str, same: bool, tmp_path: Path) -> None:
    (tmp_path / "predict.py").write_text(
        f"import numpy as np\nx = np.load('inputs.npy')\nprint(*({code}).astype(int), sep='\\n')\n"
    )
    pack_command(tmp_path / "predict.py", tmp_path / "model", command="python predict.py")
    inputs = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    program = load_predictor(tmp_path / "model", "command")
    labels = program.predict(inputs)
    repeated = rows_to_repeat(labels, KEY)
    again = program.predict(inputs[repeated])
    if same:
        require_same(labels[repeated], again)
    else:
        with pytest.raises(TrainingError, match="depend on which examples"):
            require_same(labels[repeated], again)
