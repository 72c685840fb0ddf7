"""From columns to a table: what is a number, what words become, which targets make classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data import columns as module
from easeml_core.data.columns import column_of_texts, table_of_columns
from easeml_core.errors import InvalidInputError


def words(*cells):
    return np.array(cells, dtype=object)


def numbers(*cells):
    return np.array(cells, dtype=np.float64)


def test_numbers_stay_and_words_become_columns_by_frequency() -> None:
    table = table_of_columns(
        {
            "size": numbers(1, np.nan, 3, 4),
            "colour": words("red", "blue", "red", None),
            "y": words("no", "yes", "no", "yes"),
        },
        "y",
    )
    assert table.feature_names == ("size", "colour=red", "colour=blue")
    assert table.class_names == ("no", "yes")
    np.testing.assert_array_equal(table.inputs, np.array([[1, 1, 0], [np.nan, 0, 1], [3, 1, 0], [4, 0, 0]]))
    assert table.labels.tolist() == [0, 1, 0, 1]


def test_rows_without_target_are_dropped() -> None:
    table = table_of_columns({"x": numbers(1, 2, 3), "y": words("a", None, "b")}, "y")
    assert table.inputs[:, 0].tolist() == [1, 3]


@pytest.mark.parametrize("target", ["price>20", "price > 20", " price>2e1 ", "price>20.0"])
def test_a_threshold_makes_two_classes(target) -> None:
    table = table_of_columns({"price": numbers(5, 20, 21, np.nan), "x": numbers(1, 2, 3, 4)}, target)
    assert table.labels.tolist() == [0, 0, 1]  # 20 is not above 20; the missing price has no class
    assert table.feature_names == ("x",)  # the price itself is no input


def test_a_column_may_be_called_like_a_threshold() -> None:
    table = table_of_columns({"a>1": words("p", "q"), "a": numbers(1, 2)}, "a>1")
    assert table.class_names == ("p", "q")


@pytest.mark.parametrize(
    ("columns", "target", "message"),
    [
        ({"x": numbers(1, 2), "y": numbers(0, 1)}, "z", "no column 'z' to predict among the 2 columns"),
        ({"x": numbers(1, 2), "y": numbers(0, 1)}, "z>1", "no column 'z>1'"),
        ({"x": numbers(1, 2), "y": numbers(0, 1)}, "y>ten", "no column 'y>ten'"),
        ({"x": numbers(1, 2), "y": words("a", "b")}, "y>1", "'y' is a column of words"),
        ({"y": numbers(0, 1)}, "y", "no column is left beside the target 'y'"),
        ({"x": numbers(1, 2), "y": numbers(1, 1)}, "y", "at least two classes"),
        ({"x": numbers(1, 2), "y": words(None, None)}, "y", "at least two classes"),
        (
            {"x": numbers(*range(60)), "y": numbers(*range(60))},
            "y",
            "'y' has 60 different values, at most 50 classes; make two classes of it: 'y>NUMBER'",
        ),
        (
            {"x": numbers(*range(60)), "y": words(*map(str, range(60)))},
            "y",
            "'y' has 60 different values, at most 50 classes; choose a column of fewer words",
        ),
    ],
)
def test_targets_that_make_no_classes_are_refused(columns, target, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        table_of_columns(columns, target)


def test_a_table_that_would_grow_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CELLS", 7)
    with pytest.raises(InvalidInputError, match="more than 7 cells"):
        table_of_columns({"a": words("p", "q"), "b": words("r", "s"), "y": numbers(0, 1)}, "y")


def test_number_classes_are_in_the_order_of_numbers() -> None:
    table = table_of_columns({"x": numbers(1, 2, 3), "y": numbers(10, 9, 2.5)}, "y")
    assert table.class_names == ("2.5", "9", "10")
    assert table.labels.tolist() == [2, 1, 0]


@pytest.mark.parametrize("cell", ["1_000", "inf", "-Infinity", "+nan", "0x10", "12,5", "1e", "one"])
def test_what_is_no_plain_number_is_a_word(cell) -> None:
    assert column_of_texts(["1", cell]).dtype == object


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1))
@settings(deadline=None, max_examples=examples(100))
def test_written_numbers_are_read_back(values) -> None:
    assert column_of_texts([repr(value) for value in values]).tolist() == values


def test_every_spelling_of_missing_is_missing() -> None:
    assert np.isnan(column_of_texts(["", "NA", "N/A", "NaN", "nan", "null", "NULL", " "])).all()
