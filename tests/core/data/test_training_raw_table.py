"""Whole tables: what is refused, which rows count as the same, the hash of the content, the fixed sample."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data.layout import Layout
from easeml_core.data.table import content_hash, make_table, sample_rows
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError, ShapeError


def table_of(inputs, labels, classes=2, **changes):
    width = np.asarray(inputs).shape[1]
    names = tuple(f"f{i}" for i in range(width))
    settings_ = {"class_names": tuple(map(str, range(classes))), "feature_names": names, **changes}
    return make_table(inputs, labels, **settings_)


rows = st.lists(
    st.tuples(st.sampled_from([0.0, -0.0, 1.0, np.nan, -2.5]), st.sampled_from([0.0, np.nan]), st.integers(0, 1)),
    min_size=2,
    max_size=40,
).filter(lambda r: len({label for *_, label in r}) == 2)  # fmt: skip


def key(row):
    """NaN is NaN and -0 is 0."""
    return tuple("nan" if value != value else float(value) + 0.0 for value in row)


@given(rows)
@settings(deadline=None, max_examples=examples(100))
def test_of_rows_with_equal_inputs_exactly_one_is_kept(drawn) -> None:
    try:
        table = table_of([row[:2] for row in drawn], [row[2] for row in drawn])
    except InvalidInputError:  # the ones that were kept are of one class
        return
    kept = [(key(inputs), int(label)) for inputs, label in zip(table.inputs, table.labels, strict=True)]
    given_rows = [(key(row[:2]), row[2]) for row in drawn]
    assert sorted(map(str, (inputs for inputs, _ in kept))) == sorted({str(inputs) for inputs, _ in given_rows})
    remaining = iter(given_rows)
    assert all(row in remaining for row in kept)  # a subsequence: real rows, in their order


def test_nan_is_nan_whatever_its_bits() -> None:
    bits = np.array([[0x7FC00000], [0x7FC00001], [0xFFC00000], [0x3F800000]], dtype=np.uint32)
    table = table_of(bits.view(np.float32), [0, 0, 0, 1])
    assert table.labels.tolist() == [0, 1]


def test_the_order_of_the_file_does_not_choose_the_label() -> None:
    # 1,000 inputs with both labels, all zeros first; a fair draw keeps 400 to 600 ones but for 2 in 10^10 seeds.
    table = table_of(np.tile(np.arange(1000.0), 2)[:, None], np.repeat([0, 1], 1000))
    assert len(table.labels) == 1000
    assert 400 < table.labels.sum() < 600


@pytest.mark.parametrize(
    ("inputs", "labels", "changes", "error", "message"),
    [
        (np.zeros((3, 0)), [0, 1, 1], {}, ShapeError, "at least one feature"),
        ([[1.0], [2.0]], [0, 1, 1], {}, ShapeError, "labels must have shape"),
        ([[1.0], [2.0]], [0, 1], {"feature_names": ("a", "b")}, ShapeError, "feature_names"),
        ([[1.0, 2.0], [2.0, 3.0]], [0, 1], {"layout": Layout("image", (2, 2, 1))}, ShapeError, "layout"),
        ([[1.0], [2.0]], [0, 2], {}, InvalidInputError, "labels must be from 0 to 1"),
        ([[1.0], [2.0]], [-1, 1], {}, InvalidInputError, "labels must be from 0 to 1"),
        ([[1.0], [2.0]], [1, 1], {}, InvalidInputError, "at least two classes"),
        ([[1.0, 1.0], [2.0, np.inf]], [0, 1], {}, InvalidInputError, "row 2, column 2 is infinite"),
        ([[1e300], [2.0]], [0, 1], {}, InvalidInputError, "row 1, column 1 is infinite or beyond"),
        (np.zeros((0, 2)), [], {}, InvalidInputError, "at least two classes"),
    ],
)
def test_arrays_that_make_no_table_are_refused(inputs, labels, changes, error, message) -> None:
    with pytest.raises(error, match=message):
        table_of(inputs, labels, **changes)


def test_the_hash_is_sha256_of_names_then_little_endian_values() -> None:
    table = table_of([[1.0, 2.0], [3.0, 4.0]], [0, 1], feature_names=("a", "b"), class_names=("no", "yes"))
    said = b'[[2, 2], ["no", "yes"], ["a", "b"], null]'
    values = np.array([1, 2, 3, 4], dtype="<f4").tobytes() + np.array([0, 1], dtype="<i8").tobytes()
    assert content_hash(table) == hashlib.sha256(said + values).hexdigest()


def test_the_hash_changes_with_anything_the_table_says() -> None:
    base = {"inputs": [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], "labels": [0, 1]}
    variants = [
        base,
        {**base, "labels": [1, 0]},
        {**base, "inputs": [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 9.0]]},
        {**base, "feature_names": ("a", "b", "c", "d")},
        {**base, "class_names": ("x", "y")},
        {**base, "layout": Layout("image", (2, 2, 1))},
        {**base, "layout": Layout("image", (1, 4, 1))},
        {**base, "layout": Layout("image", (1, 2, 2))},
        {**base, "layout": Layout("series", (2, 2))},
        {**base, "class_names": (), "task": Task.REGRESSION},
    ]
    assert len({content_hash(table_of(**variant)) for variant in variants}) == len(variants)


@given(st.integers(10, 60))
@settings(deadline=None, max_examples=examples(30))
def test_a_sample_is_always_the_same_rows_in_their_order(count: int) -> None:
    table = table_of(np.arange(50.0)[:, None], np.arange(50) % 2)
    sample = sample_rows(table, count)
    assert len(sample.labels) == min(count, 50)
    assert (np.diff(sample.inputs[:, 0]) > 0).all()
    assert np.array_equal(sample.inputs, sample_rows(table, count).inputs)
    assert np.array_equal(sample.labels, sample.inputs[:, 0].astype(int) % 2)
