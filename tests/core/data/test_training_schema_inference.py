"""Programs of data: the right row of the templates, as the sources read the same data, and text that reads back."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_data import FLOWERS, arrays, loaded, loaded_or_why, picture, row_of, width, written
from property_sizes import examples

from easeml_core.data.inference import column_stats, infer
from easeml_core.data.inference.infer import infer_program
from easeml_core.data.layout import Layout
from easeml_core.data.sources.load import load_source
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError
from easeml_core.programs.data_type import Category, DataType
from easeml_core.programs.schema import Schema
from easeml_core.programs.templates import TEMPLATES, match_program

if TYPE_CHECKING:
    from pathlib import Path


SERIES = "id,step,u,v,kind\nb,2,12,-2,rain\nb,1,11,-1,\na,10,1,,sun\na,30,3,,sun\na,20,2,-9,sun\nc,1,,1,\n"


def test_a_table_of_classes_is_row_5a(tmp_path: Path) -> None:
    path = written(tmp_path, FLOWERS)
    found = infer_program(path)
    assert str(found.program) == (
        "{input: {[size :: Tensor[1], colour :: Category[2]], []}, output: {[kind :: Category[2]], []}}"
    )
    assert row_of(found) == "5a"
    assert (found.classes, found.rows, found.partial) == ((("x", 2), ("y", 2)), 4, False)
    assert found.notes == (
        "source 'csv:data.csv', target 'kind', task classification",
        "target 'kind': the last column, since none is called target, label, class, y; --target COLUMN names another",
        "task classification: the target holds words",
        "read: all 5 rows; rows without a target, which are left out: 1",
        "kind of 2 classes: 'x' 2, 'y' 2",
        "missing values, in 2 columns: 'size' 1, 'colour' 1",
        "text of few words, colour of 2 classes: 'red' 2, 'blue' 1",
    )
    table = loaded(path, found)
    assert (table.layout.shape, table.class_names) == ((width(found),), ("x", "y"))


def test_a_table_of_numbers_is_row_5b(tmp_path: Path) -> None:
    found = infer_program(written(tmp_path, FLOWERS), target="size", task="regression")
    assert str(found.program.output) == "{[size :: Tensor[1]], []}"
    assert (row_of(found), found.classes, found.task, found.rows) == ("5b", (), Task.REGRESSION, 4)
    work = match_program(found.program, TEMPLATES, targets="numbers").workloads
    assert [w.name for w in work] == ["table regression"]


@pytest.mark.parametrize(
    ("header", "target"),
    [("a,b,c", "c"), ("Target,label,c", "Target"), ("a,y,LABEL", "LABEL"), ("class,y,c", "class"), ("a,y,c", "y")],
)
def test_the_target_is_the_one_with_a_name_that_says_so_else_the_last(tmp_path: Path, header: str, target: str) -> None:
    found = infer_program(written(tmp_path, f"{header}\n1,2,3\n4,5,6\n"), task="regression")
    assert found.target == target
    rule = "the last column, since none is called" if target == "c" and "y" not in header else "by its name"
    assert found.notes[1].startswith(f"target {target!r}: {rule}")


@pytest.mark.parametrize(
    ("values", "task", "why"),
    [
        ([0, 1] * 3, Task.CLASSIFICATION, "2 different numbers, all whole"),
        ([*range(20)] * 2, Task.CLASSIFICATION, "20 different numbers, all whole"),
        ([*range(21)] * 2, Task.REGRESSION, "21 different numbers, more than 20"),
        ([0, 1, 0.5] * 3, Task.REGRESSION, "numbers that are not whole"),
        ([0, 1, 2], Task.REGRESSION, "3 different numbers in 3 rows"),
        (["a", 1, 2], Task.CLASSIFICATION, "holds words"),
    ],
)
def test_classes_or_numbers(tmp_path: Path, values: list[Any], task: Task, why: str) -> None:
    text = "x,y\n" + "".join(f"{n},{value}\n" for n, value in enumerate(values))
    found = infer_program(written(tmp_path, text))
    assert found.task == task
    assert f"task {task}: the target h" in found.notes[2]
    assert why in found.notes[2]
    other = Task.REGRESSION if task == Task.CLASSIFICATION else Task.CLASSIFICATION
    if "a" not in values:
        assert infer_program(written(tmp_path, text), task=other).task == other


def test_a_threshold_makes_two_classes_and_its_column_is_no_input(tmp_path: Path) -> None:
    path = written(tmp_path, "x,price\n1,5\n2,50\n3,500\n4,\n")
    found = infer_program(path, target="price>20")
    assert (found.classes, row_of(found)) == ((("price <= 20", 1), ("price > 20", 2)), "5a")
    assert (width(found), loaded(path, found).class_names) == (1, ("price <= 20", "price > 20"))


def test_long_text_is_as_wide_as_the_sources_hash_it(tmp_path: Path) -> None:
    rows = "".join(f"word{n},some words {n},{n % 2}\n" for n in range(80))
    path = written(tmp_path, "code,remark,label\n" + rows)
    found = infer_program(path)
    assert str(found.program.input) == "{[code :: Tensor[64], remark :: Tensor[256]], []}"
    assert "text of more than 32 words, hashed to so many numbers: 'code' to 64, 'remark' to 256" in found.notes
    assert loaded(path, found).layout.shape == (320,)
    assert row_of(found) == "5a"


def test_columns_of_the_same_words_share_a_class_in_the_schema_form(tmp_path: Path) -> None:
    text = "from,to,miles,late\nZRH,FRA,1,yes\nFRA,ZRH,2,no\nZRH,FRA,3,yes\n"
    found = infer_program(written(tmp_path, text))
    schema = found.program.input
    assert isinstance(schema, Schema)
    assert schema.sizes == {"from": 2}
    assert [getattr(node.fields[0], "category", "") for node in schema.nodes] == ["from", "", "from"]
    assert row_of(found) == "5a"
    assert "columns of the same words have the same classes: 'from' and 'to'" in found.notes


def test_a_large_number_among_words_is_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_stats, "BLOCK_CELLS", 2)
    found = infer_program(written(tmp_path, "x,y\n1e39,a\nred,b\n"))
    assert str(found.program.input) == "{[x :: Category[2]], []}"


def test_series_are_row_3_and_classes_count_series(tmp_path: Path) -> None:
    path = written(tmp_path, SERIES)
    found = infer_program(path)
    assert str(found.program) == "{input: {[Tensor[2]], [next]}, output: {[kind :: Category[2]], []}}"
    assert (row_of(found), found.source.scheme) == ("3", "series")
    assert (found.classes, found.rows) == ((("rain", 1), ("sun", 1)), 2)
    assert "series, since there are columns id and step: 3 series of 1 to 3 steps" in found.notes
    assert "missing values, in 2 columns: 'u' 1, 'v' 2" in found.notes
    assert "read: all 6 rows; series without a target, which are left out: 1" in found.notes
    table = loaded(path, found)
    assert (table.layout.shape, table.program) == ((3, 2), found.program)
    numbers = infer_program(written(tmp_path, SERIES.replace("rain", "1.5").replace("sun", "2")))
    assert (row_of(numbers), str(numbers.program.output)) == ("3", "{[kind :: Tensor[1]], []}")


def test_a_folder_of_images_is_row_1_and_as_its_source_says(tmp_path: Path) -> None:
    for name, size in (("a", (6, 8)), ("b", (6, 8)), ("c", (9, 9))):
        picture(tmp_path / "pets" / "cat" / f"{name}.png", size)
    picture(tmp_path / "pets" / "dog" / "d.png", (6, 8))
    found = infer_program(tmp_path / "pets")
    assert str(found.program) == "{input: {[Tensor[6,8,1]], []}, output: {[class :: Category[2]], []}}"
    assert (row_of(found), found.classes) == ("1", (("cat", 3), ("dog", 1)))
    assert loaded(tmp_path / "pets", found).layout.shape == (6, 8, 1)
    picture(tmp_path / "pets" / "dog" / "e.png", (6, 8), "RGB")
    found = infer_program(tmp_path / "pets")
    table = loaded(tmp_path / "pets", found)
    assert (table.layout.shape, table.program) == ((6, 8, 3), found.program)


def test_large_images_become_what_the_source_takes(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        picture(tmp_path / "photos" / kind / "a.png", (600, 800))
    found = infer_program(tmp_path / "photos")
    assert ("size", "384x512") in found.source.options
    assert loaded(tmp_path / "photos", found).layout.shape == (384, 512, 1)
    assert any("made 384 x 512, since larger ones are refused" in note for note in found.notes)
    # 1,000,000 images of 100 pixels would be 100 million numbers; ten times as many pixels are too many.
    assert infer._fitting((10, 10), 1, 1_000_000) == (10, 10)
    height, wide = infer._fitting((20, 50), 1, 1_000_000)
    assert 60 < height * wide <= 100


def test_of_many_images_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "MOST_IMAGES", 2)
    for kind, count in (("cat", 3), ("dog", 2)):
        for n in range(count):
            picture(tmp_path / "pets" / kind / f"{n}.png", (4, 4))
    reported: list[str] = []
    found = infer_program(tmp_path / "pets", report=reported.append)
    assert reported == ["1 of 2 images looked at", "2 of 2 images looked at"]
    assert (found.partial, found.rows, found.classes) == (True, 5, (("cat", 3), ("dog", 2)))
    assert "read: 2 of 5 images, of each the header; none was decoded" in found.notes


@pytest.mark.parametrize(
    ("shape", "side", "row"),
    [
        ((8, 5), "{[Tensor[5]], []}", "5a"),
        ((8, 5, 2), "{[Tensor[2]], [next]}", "3"),
        ((8, 5, 4, 3), "{[Tensor[5,4,3]], []}", "1"),
    ],
)
def test_arrays_by_their_shape(tmp_path: Path, shape: tuple[int, ...], side: str, row: str) -> None:
    inputs = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    path = arrays(tmp_path / "arrays", inputs, np.arange(8) % 4)
    found = infer_program(path)
    assert (str(found.program.input), row_of(found)) == (side, row)
    assert found.classes == (("0", 2), ("1", 2), ("2", 2), ("3", 2))
    assert loaded(path, found).layout.shape[-len(shape) + 1 :] == shape[1:]
    assert infer_program(path / "inputs.npy") == found
    arrays(path, inputs, np.linspace(0, 1, 8))
    assert row_of(infer_program(path)) == ("5b" if row == "5a" else row)
    arrays(path, inputs, np.eye(2)[np.arange(8) % 2])
    assert infer_program(path).classes == (("0", 4), ("1", 4))
    arrays(path, inputs, np.array([*"aabbccdd"]))
    assert len(infer_program(path).classes) == 4


def test_arrays_of_several_numbers_a_row(tmp_path: Path) -> None:
    inputs = np.random.default_rng(1).normal(size=(8, 5, 4, 1)).astype(np.float32)
    path = arrays(tmp_path / "arrays", inputs, inputs[:, :2])
    found = infer_program(path)
    assert str(found.program) == "{input: {[Tensor[5,4,1]], []}, output: {[Tensor[2,4,1]], []}}"
    assert (row_of(found), found.task) == ("2", Task.REGRESSION)
    assert loaded(path, found).target_layout == Layout("image", (2, 4, 1))
    arrays(path, inputs, inputs[:, :, 0, 0])
    assert str(infer_program(path, task="regression").program.output) == "{[Tensor[5]], []}"
    inputs[3, :2] = np.nan
    arrays(path, inputs, inputs[:, :2])
    with pytest.raises(InvalidInputError, match="none that is known in some row"):
        infer_program(path)


def test_parquet_is_a_table_like_the_same_csv(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = written(tmp_path, FLOWERS)
    pandas.read_csv(path).to_parquet(tmp_path / "data.parquet")
    found, other = infer_program(path), infer_program(tmp_path / "data.parquet")
    assert (other.program, other.classes, other.rows) == (found.program, found.classes, found.rows)
    assert other.notes[1:] == found.notes[1:]
    assert other.source.scheme == "parquet"
    os.rename(tmp_path / "data.parquet", tmp_path / "renamed.csv")
    assert infer_program(tmp_path / "renamed.csv").source.scheme == "parquet"  # by its content


def test_a_bounded_part_is_read_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x,kind\n" + "".join(f"{n},{'ab'[n % 2] if n < 50 else 'c'}\n" for n in range(100))
    path = written(tmp_path, text)
    monkeypatch.setattr(column_stats, "BLOCK_CELLS", 20)
    reported: list[str] = []
    whole = infer_program(path, report=reported.append)
    assert reported == [f"{n} rows read" for n in range(10, 101, 10)]
    assert (len(whole.classes), whole.partial, whole.rows) == (3, False, 100)
    monkeypatch.setattr(column_stats, "MOST_CELLS", 90)
    reported.clear()
    part = infer_program(path, report=reported.append)
    assert reported == [f"{n} rows read" for n in (10, 20, 30, 40, 45)]
    assert (part.classes, part.partial, part.rows) == ((("a", 23), ("b", 22)), True, 45)
    note = "read: the first 45 rows, not the rest; classes and words that come later are not counted"
    assert note in part.notes
    monkeypatch.setattr(column_stats, "MOST_CELLS", 200)
    assert not infer_program(path).partial  # exactly as many as there are


def test_blocks_that_hold_different_things_make_one_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_stats, "BLOCK_CELLS", 4)
    path = written(tmp_path, "x,y\n1,1\n2 ,1.0\n2,2\nred,2\n,1\n1.0,01\n")
    found = infer_program(path)
    assert str(found.program.input) == "{[x :: Category[4]], []}"
    assert found.classes == (("1", 4), ("2", 2))
    assert loaded(path, found).feature_names == ("x=2", "x=1", "x=1.0", "x=red")


CELLS = st.one_of(
    st.sampled_from(["", "NA", "1", "1.0", "2", "-3.5", "red", "blue", "two words", "nan", "1e39", "inf", "1_0"]),
    st.integers(0, 60).map(str),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(str),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).map(str.strip)


@st.composite
def tables(draw: Any) -> tuple[list[str], list[list[str]]]:
    """Names and rows; some rows come many times with other words in the columns that are numbered."""
    names = draw(st.lists(NAMES.filter(bool), min_size=2, max_size=5, unique=True))
    few = [st.sampled_from(["1", "2", ""]), st.sampled_from(["a", "b", ""]), st.sampled_from("abc"), st.just("{}")]
    kinds = [draw(st.sampled_from([CELLS, *few, st.sampled_from(["w{}", "a w{}"])])) for _ in names[1:]]
    kinds.append(draw(st.sampled_from([CELLS, *few])))
    rows = draw(st.lists(st.tuples(*kinds).map(list), min_size=2, max_size=12))
    times = draw(st.sampled_from([1, 30]))
    return names, [[cell.replace("{}", str(n)) for cell in row] for n in range(times) for row in rows]


def taken(path: Path, target: str, task: Task) -> bool:
    try:
        load_source(f"csv:{path}", target, task)
    except InvalidInputError:
        return False
    return True


@settings(max_examples=examples(150), deadline=None)
@given(table=tables(), task=st.sampled_from([None, *Task]), block=st.integers(1, 200))
def test_a_random_table_is_reported_as_its_source_makes_it(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[list[str], list[list[str]]], task: Task | None, block: int
) -> None:
    names, rows = table
    path = tmp_path_factory.getbasetemp() / "random.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_stats, "BLOCK_CELLS", block)
        try:
            found = infer_program(path, target=names[-1], task=task)
        except InvalidInputError:
            # Nothing is refused that the source takes; without a task, either may have been meant.
            assert not all(taken(path, names[-1], asked) for asked in ([task] if task else Task))
            return
    assert row_of(found) == ("5a" if found.task == Task.CLASSIFICATION else "5b")
    raw, refused = loaded_or_why(path, found)
    if raw is None:
        assert "the labels are all the same" in refused  # once rows with the same inputs are left out
        return
    assert found.rows == len(raw.labels) + raw.duplicates
    assert raw.class_names == tuple(name for name, _ in found.classes)
    assert raw.program == found.program
    if isinstance(found.program.input, DataType):
        assert raw.layout.shape == (width(found),)
        kinds = [part.size for part in found.program.input.fields if isinstance(part, Category)]
        words = [n for n in raw.feature_names if "=" in n and n not in names and not n.startswith("text_")]
        assert sum(kinds) == len(words)
