"""Arrays in a folder: what their dimensions mean, which targets there are, and files made to hurt."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data.layout import Layout
from easeml_core.data.sources import arrays
from easeml_core.data.sources.load import load_source
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path


def put(folder: Path, inputs, targets) -> str:
    folder.mkdir(exist_ok=True)
    np.save(folder / "inputs.npy", np.asarray(inputs))
    np.save(folder / "targets.npy", np.asarray(targets))
    return f"npy:{folder}"


def distinct(*shape: int, dtype=np.float32) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "option", "layout"),
    [
        ((4, 3), "", Layout("table", (3,))),
        ((4, 3, 2), "", Layout("series", (3, 2))),
        ((4, 3, 2), "?layout=image", Layout("image", (3, 2, 1))),
        ((4, 3, 2), "?layout=table", Layout("table", (6,))),
        ((4, 3, 2, 5), "", Layout("image", (3, 2, 5))),
        ((4, 3, 2, 5), "?layout=table", Layout("table", (30,))),
        ((4, 3), "?rows=4&layout=table", Layout("table", (3,))),
    ],
)
def test_dimensions_say_what_a_row_is(shape, option, layout, tmp_path: Path) -> None:
    table = load_source(put(tmp_path / "a", distinct(*shape), [0, 1, 1, 0]) + option)
    assert table.layout == layout
    np.testing.assert_array_equal(table.inputs, distinct(*shape).reshape(4, -1))
    assert table.labels.tolist() == [0, 1, 1, 0]


@given(
    rows=st.integers(4, 12), shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=st.integers(0, 99),
    dtype=st.sampled_from(["f4", "f8", ">f4", "i2", "?", "f2"]), fortran=st.booleans(),
)  # fmt: skip
@settings(deadline=None, max_examples=examples(60))
def test_what_is_written_is_read_back(tmp_path_factory, rows, shape, seed, dtype, fortran) -> None:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(rows, *shape)) * 10
    inputs = inputs.astype(dtype)
    inputs = np.asfortranarray(inputs) if fortran else inputs
    flat = np.ascontiguousarray(inputs).reshape(rows, -1).astype(np.float32)
    targets = np.arange(rows) / 7
    kept = {bytes(row.tobytes()) for row in flat + np.float32(0)}
    if len(kept) == 1:
        return  # one row is no table
    table = load_source(put(tmp_path_factory.mktemp("a"), inputs, targets), None, "regression")
    assert len(table.labels) == len(kept)
    if len(kept) == rows:
        np.testing.assert_array_equal(table.inputs, flat)
        np.testing.assert_array_equal(table.labels, targets.astype(np.float32))


def test_bytes_of_images_are_divided_by_255_and_nothing_else_is(tmp_path: Path) -> None:
    images = np.array([0, 51, 255, 102], np.uint8).reshape(4, 1, 1, 1)
    table = load_source(put(tmp_path / "a", images, [0, 1, 0, 1]))
    np.testing.assert_allclose(table.inputs[:, 0], [0, 0.2, 1, 0.4], rtol=1e-6)
    assert load_source(put(tmp_path / "b", images, [0, 1, 0, 1]) + "?layout=table").inputs[2, 0] == 255
    assert load_source(put(tmp_path / "c", images.astype(float), [0, 1, 0, 1])).inputs[2, 0] == 255


@pytest.mark.parametrize(
    ("targets", "names", "labels"),
    [
        ([3, 1, 3, 3], ("1", "3"), [1, 0, 1, 1]),
        (["no", "yes", "no", "no"], ("no", "yes"), [0, 1, 0, 0]),
        ([True, False, True, True], ("0", "1"), [1, 0, 1, 1]),
        ([[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]], ("0", "1", "2"), [1, 0, 2, 0]),
        ([0.5, 1.5, 0.5, 0.5], ("0.5", "1.5"), [0, 1, 0, 0]),
    ],
)
def test_targets_that_make_classes(targets, names, labels, tmp_path: Path) -> None:
    table = load_source(put(tmp_path / "a", distinct(4, 2), targets))
    assert (table.class_names, table.labels.tolist(), table.task) == (names, labels, Task.CLASSIFICATION)


@pytest.mark.parametrize(
    ("inputs", "targets", "task", "message"),
    [
        (distinct(4, 2), [0, 1, 1], None, "has 4 inputs and 3 targets"),
        (distinct(4, 2), [0, 0, 0, 0], None, "labels are all the same"),
        (distinct(4, 2), [0, 1, np.nan, 1], None, "has no target in row 3"),
        (distinct(4, 2), [0, 1, np.nan, 1], "regression", "target of row 3 is missing"),
        (distinct(4, 2), [0, 1, np.inf, 1], "regression", "target of row 3 is missing, infinite"),
        (distinct(4, 2), ["a", "b", "a", "b"], "regression", "is a column of words; regression needs numbers"),
        (distinct(60, 2), np.arange(60), None, "60 different values, at most 50 classes.*set the task to regression"),
        (distinct(4, 2), [[1, 1], [1, 0], [0, 1], [1, 0]], None, "not one-hot"),
        (distinct(4, 2), [[0.5, 0.5], [1, 0], [0, 1], [1, 0]], None, "not one-hot"),
        (distinct(4, 2), [["a", "b"]] * 4, "regression", "must be numbers, and the task regression"),
        (distinct(4, 2), np.zeros((4, 2, 1)), None, r"targets of shape \(4, 2, 1\); they must be numbers"),
        (distinct(4, 2), [[0, 1], [np.nan] * 2, [0, 1], [1, 0]], "regression", "the target of row 2 is missing"),
        (distinct(4, 2), [[0, 1], [0, np.inf], [0, 1], [1, 0]], "regression", "the target of row 2 is missing"),
        (distinct(4, 2), [[0, 1], [np.nan, 1], [0, 1], [0, np.nan]], "regression", "there is nothing to predict"),
        (distinct(4, 2), np.zeros((4, 2**14 + 1)), "regression", "16,385 numbers, at most 16,384 are allowed"),
        (distinct(4, 2), np.zeros((4, 1, 1)), None, r"targets of shape \(4, 1, 1\)"),
        (np.where(distinct(4, 2) % 2, np.nan, 1), [0, 1, 1, 0], None, "has no value in column 2 of the inputs"),
        (np.where(distinct(4, 2) == 2, np.inf, 1), [0, 1, 1, 0], None, "row 2, column 1 is infinite"),
        (distinct(4), [0, 1, 1, 0], None, "no table of at most 1,000,000 numbers a row"),
        (distinct(4, 1, 1, 1, 1), [0, 1, 1, 0], None, "5 dimensions"),
        (np.zeros((0, 3)), [], None, "0 values"),
        (np.zeros((2, 0)), [0, 1], None, "0 values"),
        (np.array(1.0), [0], None, "0 dimensions"),
        (distinct(4, 2) * 1j, [0, 1, 1, 0], None, "holds complex64; allowed: numbers"),
        (np.array([["a"], ["b"]]), [0, 1], None, "holds <U1; allowed: numbers"),
        (np.zeros(2, [("x", "f4")]), [0, 1], None, r"holds \[\('x', '<f4'\)\]; allowed: numbers"),
        (distinct(2, 2), np.array([0, 1], "M8[s]"), None, "holds datetime64"),
        (distinct(2, 2), np.array(["a" * 1001, "b"]), None, "holds <U1001; allowed: numbers or text"),
    ],
)
def test_arrays_that_make_no_table_are_refused(inputs, targets, task, message, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_source(put(tmp_path / "a", inputs, targets), None, task)


def header_of(text: str) -> bytes:
    content = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content


class Trap:
    def __reduce__(self):
        return (exec, ("raise RuntimeError('a pickle was opened')",))


def objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Trap(), Trap()], dtype=object), allow_pickle=True)
    return file.getvalue()


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000), }"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (objects(), "holds object; allowed: numbers"),
        (b"", "is no .npy file"),
        (b"hello", "is no .npy file"),
        (b"PK\x03\x04" + bytes(60), "is no .npy file"),
        (header_of(HUGE), "1,000,000,000,000,000 values, at most 100,000,000"),
        (header_of(HUGE.replace("1000000000, 1000000", "-4, -4")), "that are not empty"),
        (header_of(HUGE.replace("1000000000, 1000000", "40, 40")), "its header and its length do not fit together"),
        (header_of(HUGE.replace("<f4", "<f4\\n")), "is no .npy file"),
        (header_of("{" * 90), "is no .npy file"),
        (header_of("(" * 110), "is no .npy file"),
        (b"\x93NUMPY\x03\x00" + bytes(60), "is no .npy file"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(60), "is no .npy file"),
    ],
)
def test_files_made_to_hurt_are_refused(content, message, tmp_path: Path) -> None:
    spec = put(tmp_path / "a", distinct(4, 2), [0, 1, 1, 0])
    (tmp_path / "a" / "inputs.npy").write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        load_source(spec)


@given(
    content=st.binary(max_size=60), place=st.integers(0, 160), cut=st.integers(0, 200),
    name=st.sampled_from(["inputs.npy", "targets.npy"]), targets=st.sampled_from([[0, 1, 1, 0], ["a", "b", "b", "a"]]),
)  # fmt: skip
@example(content=b"\x00\x00\x11", place=128, cut=0, name="targets.npy", targets=["a", "b", "b", "a"])  # no character
@settings(deadline=None, max_examples=examples(400))
def test_no_content_raises_anything_else(tmp_path_factory, content, place, cut, name, targets) -> None:
    folder = tmp_path_factory.mktemp("any")
    spec = put(folder, distinct(4, 2), targets)
    good = (folder / name).read_bytes()
    (folder / name).write_bytes((good[:place] + content + good[place + len(content) :])[: cut or None])
    try:
        table = load_source(spec)
    except InvalidInputError:
        return
    assert table.inputs.shape[1] == table.layout.features


def test_missing_files_links_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = put(tmp_path / "a", distinct(4, 2), [0, 1, 1, 0])
    (tmp_path / "a" / "targets.npy").rename(tmp_path / "outside.npy")
    with pytest.raises(InvalidInputError, match=r"targets.npy' cannot be read: No such file"):
        load_source(spec)
    (tmp_path / "a" / "targets.npy").symlink_to(tmp_path / "outside.npy")
    with pytest.raises(InvalidInputError, match=r"targets.npy' cannot be read: Too many levels of symbolic links"):
        load_source(spec)
    with pytest.raises(InvalidInputError, match="must be named by an absolute path"):
        load_source("npy:a")
    monkeypatch.setattr(arrays, "MAX_BYTES", 100)
    with pytest.raises(InvalidInputError, match=r"inputs.npy' is larger than"):
        load_source(spec)
