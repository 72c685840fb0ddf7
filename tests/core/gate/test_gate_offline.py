"""CSV files in, a verdict out: matching by name, every refusal says where, nothing is guessed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.gate.offline import columns
from easeml_core.gate.offline.columns import read_column, read_predictions, read_slice_names
from easeml_core.gate.offline.verdict import log_level_of


@pytest.fixture
def write(tmp_path):
    def to(name, *lines, end="\n", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes((end.join(lines) + end).encode(encoding))
        return path

    return to


@pytest.fixture
def old(write):
    return write("old.csv", "example,prediction", "a,cat", "b,dog", "c,cat")


def test_columns_as_they_are(write):
    column = read_column(write("x.csv", "example,label", "a,cat", "b, dog ", "é,1.0"), "label")
    assert (column.examples, column.values) == (["a", "b", "é"], ["cat", " dog ", "1.0"])


FORMS = {
    "line ends of Windows": ("example,label\r\na,x\r\nb,y\r\n", False),
    "no last line end": ("example,label\na,x\nb,y", False),
    "byte order mark": ("\ufeffexample,label\na,x\nb,y\n", False),
    "other columns, other order": ("note,label,when,example\n1,x,,a\n2,y,,b\n", True),
    "quotes": ('example,label\n"a",x\nb,"y"\n', True),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_same_column(form, tmp_path):
    text, slow = FORMS[form]
    (tmp_path / "x.csv").write_bytes(text.encode())
    column = read_column(tmp_path / "x.csv", "label")
    assert (column.examples, column.values) == (["a", "b"], ["x", "y"])
    assert (columns._plain_rows(text.removeprefix("\ufeff"), "label") is None) == slow


def test_quoted_fields_may_hold_commas_and_line_ends(write):
    column = read_column(write("x.csv", "example,label", '"a,1","x\ny"', 'b,"say ""no"""'), "label")
    assert (column.examples, column.values) == (["a,1", "b"], ["x\ny", 'say "no"'])


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(st.tuples(st.text('ab,"\n\r 1é', max_size=3), st.text('xy,"\n\r ', max_size=3)), max_size=6))
def test_the_fast_way_reads_what_the_plain_reader_reads(rows):
    """Any text: the fast way either declines or agrees with Python's CSV reader."""
    text = "example,label\n" + "".join(f"{a},{b}\n" for a, b in rows)
    fast = columns._plain_rows(text, "label")
    if fast is not None:
        assert fast == columns._quoted_rows(text, "label", "x.csv")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["example,label", "a,x", "b"], r"x.csv, row 3: 1 field, the header has 2"),
        (["example,label", "a,x", "", "b,y"], r"x.csv, row 3: 0 fields, the header has 2"),
        (["example,label", "a,x,z", "b,y"], r"x.csv, row 2: 3 fields, the header has 2"),
        (["example,label", "a,x,b", "y"], r"x.csv, row 2: 3 fields, the header has 2"),
        (["example,label", "a,x", "b,"], r"x.csv, row 3, column label: empty"),
        (["example,label", ",x"], r"x.csv, row 2, column example: empty"),
        (["example,label", "a,x", "b,y", "a,y"], r"x.csv, column example: 'a' more than once"),
        (["example,label"], r"x.csv: there are no rows below the header"),
        ([""], r"x.csv: the header must have the column 'example' exactly once; its columns: none"),
        (
            ["example,truth", "a,x"],
            r"the header must have the column 'label' exactly once; its columns: 'example', 'tru",
        ),
        (["example,label,label", "a,x,x"], r"the header must have the column 'label' exactly once"),
        (["a,x", "b,y"], r"the header must have the column 'example' exactly once; its columns: 'a', 'x'"),
        (["example,label", '"a,x'], r"x.csv is not well-formed CSV at line 2: unexpected end of data"),
        (["example,label", '"a"b,x'], r"x.csv is not well-formed CSV at line 2: ',' expected after '\"'"),
        (
            ["example,label", '"' + "a" * 200_000 + '",x'],
            r"x.csv is not well-formed CSV .*: field larger than field limit",
        ),
    ],
)
def test_a_broken_file_is_named_with_row_and_column(write, lines, message):
    with pytest.raises(InvalidInputError, match=message):
        read_column(write("x.csv", *lines), "label")


def test_a_file_that_is_none(tmp_path, write):
    with pytest.raises(InvalidInputError, match=r"gone.csv cannot be read: No such file"):
        read_column(tmp_path / "gone.csv", "label")
    with pytest.raises(InvalidInputError, match="cannot be read: Is a directory"):
        read_column(tmp_path, "label")
    with pytest.raises(InvalidInputError, match=r"is not UTF-8 \(byte 16\); give a CSV file in UTF-8"):
        read_column(write("x.csv", "example,label", "a,é", encoding="latin-1"), "label")


@pytest.mark.parametrize("quote", ["", '"'])
def test_files_are_bounded(write, monkeypatch, quote):
    path = write("x.csv", "example,label", *(f"{i},{quote}x{quote}" for i in range(50)))
    monkeypatch.setattr(columns, "MAX_ROWS", 20)
    with pytest.raises(InvalidInputError, match="rows; at most 20 are read"):
        read_column(path, "label")
    monkeypatch.setattr(columns, "MAX_BYTES", 100)
    with pytest.raises(InvalidInputError, match="is larger than 0 MB"):
        read_column(path, "label")


def test_a_hostile_name_is_shown_harmlessly_and_short(write):
    path = write("x.csv", "example,label", "\x1b[2J" + "z" * 5000 + ",x", "\x1b[2J" + "z" * 5000 + ",x")
    with pytest.raises(InvalidInputError) as caught:
        read_column(path, "label")
    assert r"'\x1b[2Jzzz" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_files_in_any_order_are_matched_by_name(write, old):
    new = write("new.csv", "example,prediction", "c,dog", "a,cat", "b,cat")
    labels = write("labels.csv", "example,label", "b,bird", "a,cat", "c,dog")
    found = read_predictions(labels, old, new)
    assert found.examples == ["a", "b", "c"]
    assert (found.old == found.labels).tolist() == [True, False, False]
    assert (found.new == found.labels).tolist() == [True, False, True]
    assert (found.new == found.old).tolist() == [True, False, False]


def test_labels_may_be_missing(write, old):
    found = read_predictions(write("labels.csv", "example,label", "b,dog"), old, old)
    assert found.labels.tolist() == [-1, found.old[1], -1]
    assert read_predictions(None, old, old).labels.tolist() == [-1, -1, -1]


def test_examples_that_do_not_match_are_named(write, old):
    new = write("new.csv", "example,prediction", "a,cat", "x,dog", "y,dog", "z,dog", "w,dog")
    with pytest.raises(InvalidInputError, match=r"new.csv lacks 'b', 'c'; .*old.csv lacks 'x', 'y', 'z' and 1 more"):
        read_predictions(None, old, new)
    labels = write("labels.csv", "example,label", "a,cat", "q,dog")
    with pytest.raises(InvalidInputError, match=r"labels.csv has examples without a prediction: 'q'"):
        read_predictions(labels, old, old)


def test_texts_that_never_meet_are_refused(write):
    old = write("old.csv", "example,prediction", "a,1.0", "b,0.0")
    labels = write("labels.csv", "example,label", "a,1", "b,0")
    with pytest.raises(InvalidInputError, match=r"no label is ever predicted: labels such as '[01]', '[01]', pred"):
        read_predictions(labels, old, old)


def test_slices_by_name(write):
    path = write("slices.csv", "example,slice", "c,young", "a,old")
    assert read_slice_names(path, ["a", "b", "c"]) == ["old", "", "young"]
    with pytest.raises(InvalidInputError, match=r"slices.csv has examples without a prediction: 'c'"):
        read_slice_names(path, ["a", "b"])


def test_many_rows_in_another_order(tmp_path):
    names = [f"img{i}" for i in range(5000)]
    classes = [f"class{i % 7}" for i in range(5000)]
    order = np.random.default_rng(0).permutation(5000)
    for name, rows in (("old", range(5000)), ("new", order.tolist())):
        text = "example,prediction\n" + "".join(f"{names[i]},{classes[i]}\n" for i in rows)
        (tmp_path / f"{name}.csv").write_text(text)
    found = read_predictions(None, tmp_path / "old.csv", tmp_path / "new.csv")
    assert (found.old == found.new).all()
    assert found.old.max() == 6


PLAN = {"reliability": 0.9999, "adaptivity": "none", "steps": 32, "step": None, "passes": 0, "mode": "fp-free"}


@pytest.mark.parametrize(
    ("change", "log_multiplicity"),
    [
        ({}, math.log(32)),
        ({"step": 32}, math.log(32)),
        ({"adaptivity": "full", "step": 1}, 31 * math.log(2)),
        ({"adaptivity": "full", "step": 32, "estimator": "paper"}, 32 * math.log(2)),
        ({"adaptivity": "full", "passes": 5, "mode": "fn-free"}, 32 * math.log(2)),
        ({"adaptivity": "upTo:3", "passes": 2}, math.log(32 + 496 + 4960)),
        ({"adaptivity": "recycle", "passes": 2}, 3 * math.log(32)),
        ({"adaptivity": "recycle", "passes": 2, "mode": "fn-free"}, -3 * math.log(2 ** (1 / 32) - 1)),
    ],
)
def test_the_level_of_one_test(change, log_multiplicity):
    assert log_level_of(**PLAN | change) == pytest.approx(math.log(1e-4) - log_multiplicity, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 0}, "step must be 1 to 32; further steps need a new set, got 0"),
        ({"step": 33}, "step must be 1 to 32; further steps need a new set, got 33"),
        ({"step": 3, "passes": 3}, "passes must be 0 to 2, the number of earlier steps, got 3"),
        ({"passes": -1}, "passes must be 0 to 31"),
        ({"passes": 32}, "passes must be 0 to 31"),
        ({"adaptivity": "upTo:3", "passes": 3}, "changes must be < 3: the set is retired then, got 3"),
        ({"adaptivity": "firstChange", "passes": 1}, "changes must be < 1: the set is retired then"),
        ({"reliability": 1.0}, "reliability must be > 0 and < 1"),
        ({"adaptivity": "sometimes"}, "adaptivity must be"),
        ({"steps": 0}, "steps must be"),
    ],
)
def test_a_step_that_the_set_does_not_have(change, message):
    with pytest.raises(ConfigError, match=message):
        log_level_of(**PLAN | change)
