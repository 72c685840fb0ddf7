"""Series in a CSV file: order of steps, padding, a target for each, and what does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data.layout import Layout
from easeml_core.data.sources import csv_files
from easeml_core.data.sources.load import load_source
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path


def spec_of(tmp_path: Path, text: str, options: str = "") -> str:
    (tmp_path / "series.csv").write_text(text)
    return f"series:{tmp_path / 'series.csv'}{options}"


TEXT = """id,step,x,y,kind
b,2,12,-2,rain
b,1,11,-1,rain
a,10,1,,sun
a,30,3,,sun
a,20,2,-9,sun
"""


def test_steps_are_put_in_order_and_padded_at_the_end(tmp_path: Path) -> None:
    table = load_source(spec_of(tmp_path, TEXT), "kind")
    assert table.layout == Layout("series", (3, 2))
    assert table.class_names == ("rain", "sun")
    assert table.labels.tolist() == [0, 1]  # in the order of their first lines
    nan = np.nan
    expected = [[[11, -1], [12, -2], [nan, nan]], [[1, nan], [2, -9], [3, nan]]]
    np.testing.assert_array_equal(table.inputs.reshape(2, 3, 2), expected)
    assert table.feature_names == ("x_0", "y_0", "x_1", "y_1", "x_2", "y_2")
    assert table.image_shape is None


def test_numbers_thresholds_and_other_names_for_the_keys(tmp_path: Path) -> None:
    text = TEXT.replace("id,step", "patient,day").replace("rain", "1.5").replace("sun", "9")
    spec = spec_of(tmp_path, text, "?id=patient&step=day")
    numbers = load_source(spec, "kind", "regression")
    assert (numbers.labels.tolist(), numbers.task) == ([1.5, 9], Task.REGRESSION)
    assert load_source(spec, "kind>2").class_names == ("kind <= 2", "kind > 2")
    with pytest.raises(InvalidInputError, match=r"no column 'id'; name the columns with \?id=COLUMN&step=COLUMN"):
        load_source(spec_of(tmp_path, text), "kind")


def test_a_series_needs_its_target_in_one_line_only_and_is_left_out_without(tmp_path: Path) -> None:
    text = "id,step,x,kind\na,1,1,\na,2,2,sun\nb,1,5,rain\nc,1,7,\nc,2,8,\nc,3,9,\nd,1,6,sun\n"
    table = load_source(spec_of(tmp_path, text), "kind")
    assert table.layout.shape == (2, 1)  # c, which is longer, has no target
    np.testing.assert_array_equal(table.inputs, [[1, 2], [5, np.nan], [6, np.nan]])
    assert table.labels.tolist() == [1, 0, 1]


lengths = st.lists(st.integers(1, 6), min_size=2, max_size=8)


@given(lengths=lengths, channels=st.integers(1, 3), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=examples(60))
def test_what_is_written_in_any_order_is_read_back(tmp_path_factory, lengths, channels, seed) -> None:
    rng = np.random.default_rng(seed)
    series = [rng.normal(size=(length, channels)).astype(np.float32) for length in lengths]
    lines = [
        f"s{i},{step * 5 - 7}," + ",".join(repr(float(v)) for v in values) + f",{i}.5"
        for i, rows in enumerate(series) for step, values in enumerate(rows)
    ]  # fmt: skip
    rng.shuffle(lines)
    header = ",".join(["id", "step", *(f"c{k}" for k in range(channels)), "y"])
    table = load_source(spec_of(tmp_path_factory.mktemp("s"), "\n".join([header, *lines])), "y", "regression")
    assert table.layout == Layout("series", (max(lengths), channels))
    assert sorted(table.labels) == [i + 0.5 for i in range(len(series))]
    for row, label in zip(table.inputs.reshape(-1, *table.layout.shape), table.labels, strict=True):
        expected = series[int(label)]
        np.testing.assert_array_equal(row[: len(expected)], expected)
        assert np.isnan(row[len(expected) :]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,x,kind\na,1,p\nb,2,q\n", "no column 'step'"),
        ("id,step,x,kind\na,1,1,p\n,1,2,q\n", "column 'id' is empty in row 2"),
        ("id,step,x,kind\na,1,1,p\nb,,2,q\n", "column 'step' is empty in row 2"),
        ("id,step,x,kind\na,one,1,p\nb,two,2,q\n", "step column 'step' has words"),
        ("id,step,x,kind\na,1,1,p\nb,3,2,q\na,1,3,p\n", "row 3 below the header repeats a step"),
        ("id,step,x,kind\na,1,1,p\nb,3,2,q\na,2,3,q\n", "row 3 below the header has another target"),
        ("id,step,x,kind\na,1,red,p\nb,3,2,q\n", "column 3 holds words"),
        ("id,step,x,z,kind\na,1,1,,p\nb,3,2,NA,q\n", "column 4 has no value"),
        ("id,step,kind\na,1,p\nb,3,q\n", "no column is left beside 'id', 'step' and the target 'kind'"),
        ("id,step,x,kind\na,1,1,p\nb,3,2,p\n", "labels are all the same"),
        ("id,step,x,kind\na,1,1,\nb,3,2,\n", "labels are all the same"),
        ("id,step,x,other\na,1,1,p\nb,3,2,q\n", "no column 'kind' to predict"),
        ("id,step,x,kind\na,1,1e99,p\nb,3,2,q\n", "row 1, column 1 is infinite or beyond"),
    ],
)
def test_files_that_make_no_series_are_refused(text, message, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_source(spec_of(tmp_path, text), "kind")


@pytest.mark.parametrize("target", ["id", "step", "step>2"])
def test_the_keys_are_no_target(target, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=f"no column '{target}' to predict"):
        load_source(spec_of(tmp_path, TEXT), target)


def test_one_long_series_among_many_short_ones_is_refused_before_padding(tmp_path: Path) -> None:
    # 40,000 series of one step and one of 40,000: the file is small, the padded table is not.
    lines = [f"{i},0,{i},{i % 2}" for i in range(40_000)] + [f"long,{i},{i},1" for i in range(40_000)]
    spec = spec_of(tmp_path, "\n".join(["id,step,x,kind", *lines]))
    with pytest.raises(InvalidInputError, match=r"40,001 series of up to 40,000 steps and 1 values.*cut the longest"):
        load_source(spec, "kind")


def test_a_series_of_more_than_a_million_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "MAX_FEATURES", 6)
    assert load_source(spec_of(tmp_path, TEXT), "kind").layout.features == 6
    monkeypatch.setattr(csv_files, "MAX_FEATURES", 5)
    with pytest.raises(InvalidInputError, match="or 5 in one of them; cut the longest"):
        load_source(spec_of(tmp_path, TEXT), "kind")


@given(text=st.text(alphabet='ab,01\n".-', max_size=120))
@settings(deadline=None, max_examples=examples(200))
def test_no_content_raises_anything_else(tmp_path_factory, text) -> None:
    try:
        table = load_source(spec_of(tmp_path_factory.mktemp("any"), "id,step,x,kind\n" + text), "kind")
    except InvalidInputError:
        return
    assert table.inputs.shape[1] == table.layout.features
    assert table.inputs.size <= csv_files.MAX_CELLS
