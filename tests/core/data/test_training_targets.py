"""What is predicted: classes as ever, or numbers where the task says so; from columns to parts in a file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data.layout import Layout
from easeml_core.data.parts import load_open_parts, save_open_parts, split_parts
from easeml_core.data.sources.load import load_source
from easeml_core.data.table import content_hash, make_table, sample_rows
from easeml_core.entities import Task
from easeml_core.errors import ArtifactError, ConfigError, InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path


TABLE_HASH = "fcf6a16d9cefeea63aacc863b358dca3b3a58b95cf17b028dfd12d5907f374ce"
IMAGE_HASH = "6ba4f3fb6a290ef3985d193ccbecaae0bc199df43c836acf259e90436ffdc8c3"


def csv_of(tmp_path: Path, text: str) -> str:
    (tmp_path / "rows.csv").write_text(text)
    return f"csv:{tmp_path / 'rows.csv'}"


def numbers_table(targets, **changes):
    inputs = np.arange(len(targets), dtype=float)[:, None]
    return make_table(inputs, targets, feature_names=("row",), task=Task.REGRESSION, **changes)


def test_numbers_stay_numbers_where_the_task_says_so(tmp_path: Path) -> None:
    spec = csv_of(tmp_path, "x,y\n1,0.5\n2,-3\n3,\n4,2e3\n")
    table = load_source(spec, "y", "regression")
    assert (table.task, table.class_names, table.feature_names) == (Task.REGRESSION, (), ("x",))
    assert table.labels.dtype == np.float32
    assert table.labels.tolist() == [0.5, -3, 2000]  # the row without a target is left out
    assert table.inputs[:, 0].tolist() == [1, 2, 4]


@pytest.mark.parametrize("task", [None, "classification", Task.CLASSIFICATION])
def test_few_numbers_and_words_are_classes_otherwise(task, tmp_path: Path) -> None:
    table = load_source(csv_of(tmp_path, "x,y\n1,0\n2,1\n3,1\n"), "y", task)
    assert (table.task, table.class_names, table.labels.dtype) == (Task.CLASSIFICATION, ("0", "1"), np.int64)


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("x,y\n1,a\n2,b\n", "y", "target 'y' is a column of words; regression needs numbers"),
        ("x,y\n1,1\n2,2\n", "y>1", "makes two classes; regression needs a column of numbers, such as 'y'"),
        ("x,y\n1,5\n2,5\n", "y", "labels are all the same; there is nothing to predict"),
        ("x,y\n1,\n2,\n", "y", "labels are all the same"),
        ("x,y\n1,1e39\n2,5\n", "y", r"target of row 1 is missing, infinite or beyond 3.4e38 \(so it is in 1 rows"),
        ("x,y\n1,1e999\n2,5\n", "y", "target of row 1 is missing, infinite"),
        ("x,z,y\n1,,1\n2,NA,2\n", "y", "column 2 has no value in any row that has a target"),
        ("x,z,y\n1,9,\n2,,2\n3,,4\n", "y", "column 2 has no value in any row that has a target"),
    ],
)
def test_targets_and_columns_that_do_not_serve_regression_are_refused(text, target, message, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_source(csv_of(tmp_path, text), target, "regression")


def test_a_column_of_words_without_a_word_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="column 2 has no value"):
        load_source(csv_of(tmp_path, "x,z,y\n1,red,\n2,,a\n3,,b\n"), "y")


def test_many_numbers_without_a_task_say_what_to_do(tmp_path: Path) -> None:
    text = "x,y\n" + "".join(f"{i},{i}\n" for i in range(60))
    with pytest.raises(InvalidInputError, match=r"'y>NUMBER', or set the task to regression"):
        load_source(csv_of(tmp_path, text), "y")
    assert len(load_source(csv_of(tmp_path, text), "y", "regression").labels) == 60


def test_a_task_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="task must be classification or regression, got 'ranking'"):
        load_source("sklearn:iris", None, "ranking")


def test_a_bundled_set_of_numbers() -> None:
    table = load_source("sklearn:diabetes", None, "regression")
    assert table.inputs.shape == (442, 10)  # Efron et al. (2004), Least Angle Regression, table 1
    assert (table.labels.min(), table.labels.max(), table.class_names) == (25, 346, ())


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e39])
def test_a_row_without_a_finite_number_is_refused(wrong: float) -> None:
    with pytest.raises(InvalidInputError, match=r"target of row 3 is missing.*in 2 rows, counting it.*leave out"):
        numbers_table([1.0, 2.0, wrong, 3.0, wrong])


def test_regression_has_no_classes() -> None:
    with pytest.raises(InvalidInputError, match="has no classes, got 1 class names"):
        numbers_table([1.0, 2.0], class_names=("a",))


def test_of_rows_with_equal_inputs_one_is_kept_whatever_their_numbers() -> None:
    table = make_table([[1.0], [1.0], [2.0]], [5.0, 6.0, 7.0], feature_names=("x",), task=Task.REGRESSION)
    assert (len(table.labels), table.duplicates) == (2, 1)
    assert table.labels[0] in (5, 6)


def test_a_sample_of_numbers(tmp_path: Path) -> None:
    table = numbers_table(np.arange(50.0))
    assert len(sample_rows(table, 20).labels) == 20
    with pytest.raises(InvalidInputError, match="all the same"):
        sample_rows(table, 1)


targets = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=12, max_size=40).filter(
    lambda values: len({v + 0.0 for v in values}) > 1
)


@given(values=targets, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=examples(60))
def test_parts_of_numbers_round_trip_through_a_file(tmp_path_factory: pytest.TempPathFactory, values, seed) -> None:
    table = numbers_table(values, layout=Layout("series", (1, 1)))
    parts = split_parts(table, sizes={"gate": 3, "validation": 4}, rng=np.random.default_rng(seed))
    path = tmp_path_factory.mktemp("parts") / "open.npz"
    save_open_parts(path, parts)
    loaded = load_open_parts(path)
    assert (loaded.task, loaded.layout, loaded.classes) == (Task.REGRESSION, Layout("series", (1, 1)), 0)
    for part in ("train", "validation"):
        labels = getattr(loaded, f"{part}_labels")
        assert labels.dtype == np.float32
        assert np.array_equal(labels, np.float32(values)[getattr(loaded, f"{part}_inputs")[:, 0].astype(int)])
    assert len(parts.gate.labels) == 3


def test_at_least_four_rows_of_numbers_are_left_for_training() -> None:
    table, rng = numbers_table(np.arange(10.0)), np.random.default_rng(0)
    assert len(split_parts(table, sizes={"validation": 6}, rng=rng).train.labels) == 4
    with pytest.raises(InvalidInputError, match="validation 7 leave 3 for training, at least 4 are needed; bring"):
        split_parts(table, sizes={"validation": 7}, rng=rng)


@pytest.mark.parametrize(
    "change",
    [
        {"task": np.array("classification")},
        {"classes": np.array(2)},
        {"train_labels": np.full(6, np.nan, np.float32)},
        {"train_labels": np.zeros(6, np.float64)},
        {"train_labels": np.zeros(6, np.int64)},
    ],
)
def test_files_of_numbers_that_do_not_fit_together_are_refused(change, tmp_path: Path) -> None:
    path = tmp_path / "open.npz"
    save_open_parts(
        path, split_parts(numbers_table(np.arange(10.0)), sizes={"validation": 4}, rng=np.random.default_rng(1))
    )
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, **change})
    with pytest.raises(ArtifactError, match="do not fit together"):
        load_open_parts(path)


@pytest.mark.parametrize(("shape", "layout"), [((), Layout("table", (4,))), ((2, 2), Layout("image", (2, 2, 1)))])
def test_a_file_from_before_layouts_is_read(shape, layout, tmp_path: Path) -> None:
    path, inputs, labels = tmp_path / "open.npz", np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(3) % 2
    arrays = {
        f"{part}_{what}": value
        for part in ("train", "validation")
        for what, value in (("inputs", inputs), ("labels", labels))
    }
    np.savez(path, **arrays, image_shape=np.array(shape, np.int64), classes=np.array(2))
    loaded = load_open_parts(path)
    assert (loaded.layout, loaded.task, loaded.classes) == (layout, Task.CLASSIFICATION, 2)
    np.savez(path, **arrays, image_shape=np.array((3, 2), np.int64), classes=np.array(2))
    with pytest.raises(ArtifactError, match="do not fit together"):
        load_open_parts(path)


def test_what_could_be_said_before_layouts_keeps_its_hash() -> None:
    # Made with the version before: sha256 of '[[2, 4], ["a", "b"], ["w", "x", "y", "z"], IMAGE_SHAPE]' and the values.
    given_ = {"class_names": ("a", "b"), "feature_names": ("w", "x", "y", "z")}
    inputs = np.arange(8.0).reshape(2, 4)
    assert content_hash(make_table(inputs, [0, 1], **given_)) == TABLE_HASH
    image = make_table(inputs, [0, 1], **given_, layout=Layout("image", (2, 2, 1)))
    assert content_hash(image) == IMAGE_HASH
    numbers = make_table(inputs, [0, 1], feature_names=tuple("wxyz"), task=Task.REGRESSION)
    series = make_table(inputs, [0, 1], **given_, layout=Layout("series", (2, 2)))
    turned = make_table(inputs, [0, 1], **given_, layout=Layout("series", (4, 1)))
    assert len({content_hash(table) for table in (numbers, series, turned, image)}) == 4


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("table", ()),
        ("table", (2, 2)),
        ("image", (2, 2)),
        ("series", (2,)),
        ("series", (0, 2)),
        ("cube", (2, 2)),
        ("table", (-1,)),
    ],
)
def test_layouts_that_there_are_not_are_refused(kind, shape) -> None:
    with pytest.raises(InvalidInputError, match=rf"layout '{kind}' of shape .* is not known; allowed: table"):
        Layout(kind, shape)


def test_features_of_a_layout() -> None:
    assert Layout("image", (4, 5, 3)).features == math.prod((4, 5, 3)) == 60
    assert (Layout("image", (4, 5, 3)).image_shape, Layout("series", (4, 5)).image_shape) == ((4, 5), None)
