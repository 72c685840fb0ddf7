"""Splitting a table: parts share no row, every row is in a part, files hold what was put in."""

from __future__ import annotations

import zipfile
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data.layout import Layout
from easeml_core.data.parts import load_open_parts, save_open_parts, split_parts
from easeml_core.data.table import RawTable, make_table
from easeml_core.errors import ArtifactError, InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

PARTS = ("train", "validation", "gate", "meter", "joint", "direct")


def numbered(rows: int, **changes) -> RawTable:
    """A table whose only input is the number of the row."""
    settings_ = {"class_names": ("even", "odd"), "feature_names": ("row",), **changes}
    return make_table(np.arange(rows, dtype=float)[:, None], np.arange(rows) % 2, **settings_)


def rows_of(part) -> list[int]:
    return part.inputs[:, 0].astype(int).tolist()


@given(
    rows=st.integers(10, 200), sealed=st.tuples(*[st.integers(0, 40)] * 4), validation=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(deadline=None, max_examples=examples(150))
def test_parts_share_no_row_and_together_are_the_table(rows, sealed, validation, seed) -> None:
    sizes = dict(zip(("gate", "meter", "joint", "direct"), sealed, strict=True)) | {"validation": validation}
    rng = np.random.default_rng(seed)
    if rows - sum(sizes.values()) < 4:
        asked = ", ".join(f"{name} {size}" for name, size in sizes.items() if size)
        with pytest.raises(InvalidInputError, match=f"{rows} distinct rows; {asked} leave"):
            split_parts(numbered(rows), sizes=sizes, rng=rng)
        return
    parts = split_parts(numbered(rows), sizes=sizes, rng=rng)
    everybody = Counter(row for name in PARTS for row in rows_of(getattr(parts, name)))
    assert everybody == Counter(range(rows))
    assert {name: len(getattr(parts, name).labels) for name in sizes} == sizes
    for name in PARTS:
        part = getattr(parts, name)
        assert part.labels.tolist() == [row % 2 for row in rows_of(part)]
    again = split_parts(numbered(rows), sizes=sizes, rng=np.random.default_rng(seed))
    assert [rows_of(getattr(again, name)) for name in PARTS] == [rows_of(getattr(parts, name)) for name in PARTS]


def test_every_row_is_equally_likely_to_be_sealed() -> None:
    # Over 4,000 splits each of 20 rows is sealed 1,000 times on average (5 of 20). By Hoeffding a row is off by more
    # than 200 with probability below 2 exp(-2 * 200^2 / 4000) = 4e-9, any of the 20 below 1e-7.
    rng = np.random.default_rng(11)
    table = numbered(20)
    sealed = Counter(
        row
        for _ in range(4000)
        for row in rows_of(split_parts(table, sizes={"gate": 5, "validation": 1}, rng=rng).gate)
    )
    assert all(abs(sealed[row] - 1000) < 200 for row in range(20))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"gate": 5}, "the validation part must have at least 1 row, got 0"),
        ({"gate": -1, "validation": 5}, "the gate part must have at least 0 rows, got -1"),
        ({"test": 5, "validation": 5}, "there is no part 'test'; allowed: gate, meter, joint, direct, validation"),
        ({"gate": 50, "meter": 30, "validation": 20}, "leave 0 for training, at least 4 are needed"),
        ({"gate": 90, "meter": 30, "validation": 20}, "leave -40 for training, at least 4 are needed"),
    ],
)
def test_sizes_that_cannot_be_are_refused_with_the_figures(sizes, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        split_parts(numbered(100), sizes=sizes, rng=np.random.default_rng(0))


def saved(path: Path, table: RawTable) -> Path:
    save_open_parts(path, split_parts(table, sizes={"gate": 3, "validation": 4}, rng=np.random.default_rng(1)))
    return path


def test_a_file_gives_back_the_open_parts_and_nothing_of_the_sealed_ones(tmp_path: Path) -> None:
    parts = split_parts(numbered(20), sizes={"gate": 3, "validation": 4}, rng=np.random.default_rng(1))
    path = saved(tmp_path / "open.npz", numbered(20))
    loaded = load_open_parts(path)
    assert np.array_equal(loaded.train_inputs, parts.train.inputs)
    assert np.array_equal(loaded.train_labels, parts.train.labels)
    assert np.array_equal(loaded.validation_inputs, parts.validation.inputs)
    assert np.array_equal(loaded.validation_labels, parts.validation.labels)
    assert (loaded.image_shape, loaded.classes) == (None, 2)
    assert not set(rows_of(parts.gate)) & set(loaded.train_inputs[:, 0].astype(int))
    assert [p.name for p in tmp_path.iterdir()] == ["open.npz"]
    assert saved(tmp_path / "again.npz", numbered(20)).read_bytes() == path.read_bytes()


def test_an_image_stays_an_image(tmp_path: Path) -> None:
    image = make_table(
        np.arange(80.0).reshape(20, 4), np.arange(20) % 2, class_names=("a", "b"), feature_names=tuple("abcd"),
        layout=Layout("image", (2, 2, 1)),
    )  # fmt: skip
    assert load_open_parts(saved(tmp_path / "open.npz", image)).image_shape == (2, 2)


def damaged(path: Path, kind: str) -> None:
    if kind == "missing":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "flipped":
        content = bytearray(path.read_bytes())
        content[200] ^= 255
        path.write_bytes(content)
    elif kind == "no zip":
        path.write_bytes(b"hello")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "array missing":
        np.savez(path, train_inputs=np.zeros((2, 2), np.float32))
    elif kind == "not an archive":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))


@pytest.mark.parametrize("kind", ["missing", "cut", "flipped", "no zip", "empty", "array missing", "not an archive"])
def test_a_damaged_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "open.npz", numbered(20))
    damaged(path, kind)
    with pytest.raises(ArtifactError, match=r"open.npz cannot be read.*register the study's data again"):
        load_open_parts(path)


def test_a_pickle_inside_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "open.npz"
    np.savez(path, train_inputs=np.array([object()]))  # numpy pickles it
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_open_parts(path)


@pytest.mark.parametrize(
    "change",
    [
        {"train_labels": np.zeros(5, np.int64)},
        {"train_inputs": np.zeros((13, 1))},
        {"train_labels": np.zeros(13)},
        {"validation_inputs": np.zeros((4, 2), np.float32)},
        {"layout_shape": np.array([3])},
        {"layout_shape": np.array([1, 1])},
        {"layout_shape": np.array([0])},
        {"layout_kind": np.array("cube")},
        {"task": np.array("ranking")},
        {"task": np.array("regression")},
        {"classes": np.array(1)},
        {"classes": np.array([2])},
        {"validation_inputs": np.zeros((0, 1), np.float32), "validation_labels": np.zeros(0, np.int64)},
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path: Path, change) -> None:
    path = saved(tmp_path / "open.npz", numbered(20))
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, **change})
    assert zipfile.is_zipfile(path)
    with pytest.raises(ArtifactError, match="do not fit together"):
        load_open_parts(path)
