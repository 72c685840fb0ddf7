"""Rows brought in files, as JSON or as arrays: encoded as a study's data, or refused with the place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easeml_core.data.layout import Layout, table_layout
from easeml_core.data.rows.labeled_pairs import Pairs, read_pairs, write_pairs
from easeml_core.data.rows.row_files import read_named_rows, read_rows
from easeml_core.data.rows.row_format import RowForm, rows_of_json
from easeml_core.data.sources.load import load_source
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError, ShapeError
from easeml_core.models.label_errors import rank_labels

TABLE = RowForm(4, ("size", "region=south", "region=west", "age"), ("no", "yes"), table_layout(4))
NUMBERS = RowForm(2, ("a", "b"), (), table_layout(2))
IMAGES = RowForm(12, None, ("cat", "dog"), Layout("image", (2, 2, 3)))


def test_words_and_numbers_become_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("age,note,region,size,answer\n30,a,south,1.5,yes\n,b,north,-0.0,0\n")
    rows = read_rows(path, TABLE)
    assert rows.labels is None
    assert np.array_equal(rows.inputs, [[1.5, 1, 0, 30], [0, 0, 0, np.nan]], equal_nan=True)
    assert not np.signbit(rows.inputs[1, 0])
    assert rows.columns["note"] == ("a", "b")
    with pytest.raises(InvalidInputError, match="the columns 'note' are none of the study's inputs; leave them out"):
        read_rows(path, TABLE, label="answer")
    path.write_text("age,region,size,answer\n30,south,1.5,yes\n,west,2,0\n")
    labels = read_rows(path, TABLE, label="answer").labels
    assert labels is not None
    assert (labels.tolist(), labels.dtype) == ([1, 0], np.int64)


def test_text_is_hashed_as_the_studys_was(tmp_path: Path) -> None:
    lines = [f"{i},word{i % 40},the text number {i} says {i % 7},{'yes' if i % 2 else 'no'}" for i in range(80)]
    path = tmp_path / "study.csv"
    path.write_text("\n".join(["age,code,note,answer", *lines]))
    raw = load_source(f"csv:{path}", "answer")
    form = RowForm(len(raw.feature_names), raw.feature_names, raw.class_names, raw.layout)
    assert form.features == 1 + 64 + 256
    rows = read_rows(path, form, label="answer")
    known = {row.tobytes(): label for row, label in zip(raw.inputs, raw.labels, strict=True)}
    assert rows.labels is not None
    assert [known[row.tobytes()] for row in rows.inputs] == rows.labels.tolist()
    path.write_text("age,code,note\n1,7,\n")  # what looks like a number is a word here too
    assert np.abs(read_rows(path, form).inputs).sum() == 2


def test_numbers_to_predict_are_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b,label\n1,2,0.5\n3,4,-7\n")
    labels = read_rows(path, NUMBERS, label="label").labels
    assert labels is not None
    assert (labels.tolist(), labels.dtype) == ([0.5, -7.0], np.float32)
    path.write_text("a,b,label\n1,2,\n")
    with pytest.raises(InvalidInputError, match="must be a number in every row"):
        read_rows(path, NUMBERS, label="label")
    rows = rows_of_json([{"inputs": {"b": 2, "a": None}, "label": 3.5}], NUMBERS, labelled=True)
    assert np.array_equal(rows.inputs, [[np.nan, 2]], equal_nan=True)
    for wrong in (float("nan"), float("inf"), "x", None):
        with pytest.raises(InvalidInputError):
            rows_of_json([{"inputs": [1, 2], "label": wrong}], NUMBERS, labelled=True)


@pytest.mark.parametrize(
    ("header", "perhaps"),
    [("a,b,species", ", here perhaps 'species'"), ("a,b,species,note", ""), ("a,b", "")],
)
def test_a_missing_column_of_labels_is_looked_for_under_another_name(header: str, perhaps: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{header}\n{','.join('1' * len(header.split(',')))}\n")
    with pytest.raises(InvalidInputError) as caught:
        read_rows(path, NUMBERS, label="label")
    assert str(caught.value).endswith(f"`--label NAME` (`label_column`) names another{perhaps}")


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (np.array(["yes", "no"]), [1, 0]),
        (np.array([1, 0]), [1, 0]),
        (np.array([1.0, 0.0]), [1, 0]),
        (np.array([[0, 1], [1, 0]]), [1, 0]),
        (np.array([True, False]), [1, 0]),
    ],
)
def test_targets_of_arrays(targets: Any, expected: list[int], tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", np.ones((2, 4)))
    np.save(tmp_path / "targets.npy", targets)
    rows = read_rows(tmp_path, TABLE, label="label")
    assert rows.labels is not None
    assert rows.labels.tolist() == expected


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", np.ones((2, 4)))
    for targets, words in (
        (np.ones(3, int), "has 2 inputs and 3 targets"),
        (np.ones((2, 2), int), "not one-hot"),
        (np.ones((2, 3), int), r"targets of shape \(2, 3\)"),
        (np.array([0, 7]), "'7' is no class"),
    ):
        np.save(tmp_path / "targets.npy", targets)
        with pytest.raises(InvalidInputError, match=words):
            read_rows(tmp_path, TABLE, label="label")
    one = tmp_path / "row.npy"
    np.save(one, np.arange(4.0))
    assert read_rows(one, TABLE).inputs.tolist() == [[0, 1, 2, 3]]
    with pytest.raises(InvalidInputError, match="one file has no labels"):
        read_rows(one, TABLE, label="label")
    np.save(one, np.array([{}] * 4, dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInputError, match="holds object"):
        read_rows(one, TABLE)
    np.save(one, np.full((1, 4), np.inf))
    with pytest.raises(InvalidInputError, match=r"at most 3\.4e38"):
        read_rows(one, TABLE)
    np.save(one, np.ones((1, 5)))
    with pytest.raises(ShapeError, match=r"inputs must have shape \(n >= 1, 4\), got \(1, 5\)"):
        read_rows(one, TABLE)


def test_a_zip_file_stands_for_the_folder_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    np.save(folder / "inputs.npy", np.ones((2, 4)))
    np.save(folder / "targets.npy", np.array(["yes", "no"]))
    packed = Path(shutil.make_archive(str(folder), "zip", tmp_path, "new"))
    rows = read_rows(packed, TABLE, label="label")
    assert rows.labels is not None
    assert rows.labels.tolist() == [1, 0]
    np.save(folder / "targets.npy", np.array(["yes", "perhaps"]))
    packed = Path(shutil.make_archive(str(folder), "zip", tmp_path, "new"))
    with pytest.raises(InvalidInputError, match=f"^{packed}/new/targets.npy.*'perhaps' is no class"):
        read_rows(packed, TABLE, label="label")
    assert list(folder.parent.glob("easeml-*")) == []


def test_series_come_with_a_line_for_each_step_as_at_registration(tmp_path: Path) -> None:
    words = ("no", "yes")
    lines = [f"{i},{s},{i + s / 8},{-i},{words[i % 2]}" for i in range(6) for s in (3, 1, 2)[: 1 + i % 3]]
    path = tmp_path / "study.csv"
    path.write_text("\n".join(["id,step,heat,dust,label", *lines]))
    raw = load_source(f"series:{path}", "label")
    form = RowForm(6, raw.feature_names, raw.class_names, raw.layout)
    path.write_text("\n".join(["example,step,heat,dust,label", *reversed(lines)]))
    rows = read_rows(path, form, label="label")
    assert rows.labels is not None
    known = {row.tobytes(): label for row, label in zip(raw.inputs, raw.labels, strict=True)}
    assert [known[row.tobytes()] for row in rows.inputs] == rows.labels.tolist() == [1, 0, 1, 0, 1, 0]
    path.write_text("example,step,heat,dust\nb,0,1,2\na,2,3,4\na,1,5,\n")
    found = read_named_rows(path, None, form)
    assert (found.file.keys, found.file.place(1)) == (("b", "a"), "line 3 (example 'a')")
    expected = np.array([[1, 2, *[np.nan] * 4], [5, np.nan, 3, 4, np.nan, np.nan]], np.float32)
    np.testing.assert_array_equal(found.inputs, expected)
    for more, said in {
        "c,1,1,1\nc,1.0,1,1\n": r"line 6 \(example 'c'\): repeats a step",
        "c,x,1,1\n": r"line 5 \(example 'c'\): column 'step' must be a number",
        "".join(f"c,{step},1,1\n" for step in range(4)): r"line 5 .*: the series has 4 steps, one of .* at most 3",
    }.items():
        path.write_text("example,step,heat,dust\nb,0,1,2\na,2,3,4\na,1,5,\n" + more)
        with pytest.raises(InvalidInputError, match=said):
            read_named_rows(path, None, form)
    path.write_text("example,step,heat,dust,label\na,2,3,4,yes\na,1,5,,no\n")
    with pytest.raises(InvalidInputError, match=r"line 2 .*: column 'label' has another value than in a line"):
        read_rows(path, form, label="label")


def test_nodes_of_trees_name_nodes_before_them(tmp_path: Path) -> None:
    form = RowForm(9, None, ("no", "yes"), Layout("tree", (3, 3)))
    tree = np.array([[1, -1, -1], [2, -1, -1], [3, 0, 1]], np.float32)
    np.save(tmp_path / "rows.npy", tree[None])
    assert read_rows(tmp_path / "rows.npy", form).inputs.shape == (1, 9)
    tree[0, 1] = 2
    np.save(tmp_path / "rows.npy", tree[None])
    with pytest.raises(InvalidInputError, match="has no tree in row 1"):
        read_rows(tmp_path / "rows.npy", form)


def test_images_become_as_large_as_those_of_the_study(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name, colour in (("dog", (255, 0, 0)), ("cat", (0, 0, 255))):
        (tmp_path / name).mkdir()
        image.new("RGB", (6, 4), colour).save(tmp_path / name / "a.png")
    rows = read_rows(tmp_path, IMAGES, label="label")
    assert rows.labels is not None
    assert rows.labels.tolist() == [0, 1]
    assert rows.inputs.tolist() == [[0, 0, 1] * 4, [1, 0, 0] * 4]
    alone = read_rows(tmp_path / "dog" / "a.png", IMAGES)
    assert alone.inputs.tolist() == [[1, 0, 0] * 4]
    assert read_rows(tmp_path / "cat", IMAGES).columns == {"file": ("a.png",)}
    (tmp_path / "cow").mkdir()
    image.new("RGB", (2, 2)).save(tmp_path / "cow" / "a.png")
    with pytest.raises(InvalidInputError, match="'cow' is no class of the study"):
        read_rows(tmp_path, IMAGES, label="label")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG no image")
    with pytest.raises(InvalidInputError, match="is no PNG, JPEG or BMP image"):
        read_rows(tmp_path / "bomb.png", IMAGES)
    with pytest.raises(InvalidInputError, match="a row of the study is a table"):
        read_rows(tmp_path / "dog", TABLE)
    np.save(tmp_path / "one.npy", np.full((2, 2, 3), 255, np.uint8))
    assert read_rows(tmp_path / "one.npy", IMAGES).inputs.tolist() == [[1.0] * 12]


def test_rows_with_other_columns_than_the_first_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="rows with the same columns in the same order"):
        rows_of_json([{"a": 1, "b": 2}, {"b": 1, "a": 2}], NUMBERS, labelled=False)
    for wrong in ([], "ab", [{"a": [1], "b": 2}], {"a": 1}, [[1, "x"]], [[10**400, 1]]):
        with pytest.raises(InvalidInputError):
            rows_of_json(wrong, NUMBERS, labelled=False)
    assert rows_of_json([[True, None]], NUMBERS, labelled=False).inputs[0, 0] == 1


def test_pairs_are_written_the_same_each_time_and_read_back(tmp_path: Path) -> None:
    pairs = Pairs(np.array([[1, np.nan], [-0.0, 2]], np.float32), np.array([1, 0]))
    first, second = tmp_path / "a", tmp_path / "b"
    write_pairs(first, pairs)
    write_pairs(second, pairs)
    assert first.read_bytes() == second.read_bytes()
    found = read_pairs(first, features=2, classes=2, task=Task.CLASSIFICATION)
    assert np.array_equal(found.inputs, pairs.inputs, equal_nan=True)
    assert not np.signbit(found.inputs[1, 0])
    assert found.labels.tolist() == [1, 0]


@pytest.mark.parametrize(("source", "least"), [("sklearn:breast_cancer", 0.8), ("sklearn:wine", 0.8)])
def test_flipped_labels_have_the_most_doubt(source: str, least: float) -> None:
    """Of the first tenth of the ranking so many are labels that were flipped; chance would be a tenth."""
    raw, rng = load_source(source), np.random.default_rng(1)
    count, classes, labels = len(raw.labels) // 10, len(raw.class_names), raw.labels.copy()
    flipped = rng.choice(len(labels), count, replace=False)
    labels[flipped] = (labels[flipped] + rng.integers(1, classes, count)) % classes
    found = rank_labels(raw.inputs, labels, task=raw.task)
    first = np.argsort(-found.doubt, kind="stable")[:count]
    assert np.isin(first, flipped).mean() >= least
    assert (found.expected[first] != labels[first]).mean() > 0.9
    assert np.isin(np.flatnonzero(found.suspected), flipped).mean() > 0.6


def test_the_ranking_is_the_same_each_time() -> None:
    raw = load_source("sklearn:iris")
    first, second = (rank_labels(raw.inputs, raw.labels, task=raw.task) for _ in range(2))
    assert (first.doubt == second.doubt).all()
    assert (first.suspected == second.suspected).all()


def test_numbers_far_from_what_is_expected_have_the_most_doubt() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 3)).astype(np.float32)
    inputs[5, 1] = np.nan
    labels = (inputs[:, 0] * 2 + rng.normal(size=200) * 0.1).astype(np.float32)
    wrong = rng.choice(200, 10, replace=False)
    labels[wrong] += 20
    found = rank_labels(inputs, labels, task=Task.REGRESSION)
    assert set(np.argsort(-found.doubt)[:10]) == set(wrong)
    assert found.suspected[wrong].all()
    assert found.doubt.min() >= 0
    assert found.doubt.max() <= 1
