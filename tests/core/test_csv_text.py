"""CSV files for people: no cell is a formula, a number stays one, and names come back as they were."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data.rows.row_tables import class_indices, encode, read_examples
from easeml_core.formats.csv_text import GuardedWriter, guarded, without_guard
from easeml_core.services.test_sets.release import _write_csv

if TYPE_CHECKING:
    from pathlib import Path

BEGINNINGS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"


@given(text=st.text(alphabet=f"{BEGINNINGS}'1aé ", max_size=6))
@settings(max_examples=examples(400))
def test_what_is_guarded_is_no_formula_and_comes_back(text: str) -> None:
    cell = guarded(text)
    assert without_guard(cell) == text
    if cell.startswith(tuple(BEGINNINGS)):
        float(cell)


@pytest.mark.parametrize("value", [-1.5, "-1.5", "+3", np.float32(-0.1), -7, "1e-05", True])
def test_a_number_stays_a_number(value: object) -> None:
    assert guarded(value) == str(value)


def test_a_released_set_that_was_made_to_run_is_read_back(tmp_path: Path) -> None:
    inputs = np.array([[1, -2.5], [3, np.nan]], dtype=np.float32)
    names, classes, keys = ["=cmd|' /C calc'!A0", "@a"], ["-no", "'=yes"], ["+1+1", "=2"]
    arrays = {"inputs": inputs, "labels": np.array([1, 0]), "keys": np.array(keys), "class_names": np.array(classes)}
    _write_csv(tmp_path / "a.csv", arrays | {"feature_names": np.array(names)})
    cells = [cell for row in csv.reader(io.StringIO((tmp_path / "a.csv").read_text())) for cell in row]
    assert [cell for cell in cells if cell.startswith(tuple(BEGINNINGS))] == ["-2.5"]
    file = read_examples(tmp_path / "a.csv")
    assert file.keys == tuple(keys)
    np.testing.assert_array_equal(encode(file, feature_names=names, features=2, beside="label"), inputs)
    assert class_indices(file, "label", classes).tolist() == [1, 0]


def test_each_cell_of_a_row_is_guarded() -> None:
    file = io.StringIO()
    GuardedWriter(file).row(["=1", None, 2, "why, so"])
    assert file.getvalue() == '\'=1,,2,"why, so"\n'
