"""An example is known by its named values, in whatever order the columns come, in whatever table they lie."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easeml_core.errors import ShapeError
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from collections.abc import Mapping


def by_definition(example: Mapping[str, float]) -> bytes:
    """The hash, written out: keys of names in their order as numbers, then the values in that order."""
    keys = {int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"): name for name in example}
    kept = [key for key in sorted(keys) if example[keys[key]] != 0]
    values = [example[keys[key]] for key in kept]
    return hashlib.sha256(struct.pack(f"<{len(kept)}Q{len(kept)}f", *kept, *values)).digest()


def of(**example: float) -> bytes:
    (found,) = example_hashes(np.array([list(example.values())]), list(example))
    return found


def test_the_hash_is_that_of_the_definition() -> None:
    assert of(a=1.0, b=2.0, c=-0.5) == by_definition({"a": 1.0, "b": 2.0, "c": -0.5})
    assert of(a=1.0, b=0.0, c=-0.5) == by_definition({"a": 1.0, "c": -0.5})
    assert of(a=0.0) == hashlib.sha256(b"").digest()


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)
CELLS = st.sampled_from([0.0, 1.0, -2.5, float("nan")])


@given(st.dictionaries(NAMES, CELLS, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_neither_the_order_of_columns_nor_columns_of_zeros_count(example: dict[str, float], random: Any) -> None:
    shuffled = [*example.items(), ("another word", 0.0)]
    random.shuffle(shuffled)
    there, here = (list(pairs) for pairs in (example.items(), shuffled))
    table = np.array([[value for _, value in here], [7.0] * len(here)])
    assert (
        example_hashes(np.array([[v for _, v in there]]), [n for n, _ in there])
        == (example_hashes(table, [n for n, _ in here])[:1])
    )


def test_a_number_is_the_same_however_it_is_written() -> None:
    odd_nan = np.frombuffer(struct.pack("<I", 0x7FC00001), dtype="<f4")
    assert example_hashes(odd_nan[None], ["a"]) == example_hashes(np.array([[np.nan]]), ["a"])
    assert example_hashes(np.array([[1, 2]]), ["a", "b"]) == example_hashes(np.array([[1.0, 2.0]]), ["a", "b"])
    assert of(a=-0.0, b=1.0) == of(a=0.0, b=1.0)


@pytest.mark.parametrize(
    "other",
    [{"a": 1.0, "c": 2.0}, {"a": 2.0, "b": 1.0}, {"a": 1.0}, {"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 1.0, "b": 2.5}],
)
def test_other_names_or_values_are_another_example(other: dict[str, float]) -> None:
    assert of(**other) != of(a=1.0, b=2.0)


def test_a_value_that_is_missing_is_not_one_that_is_zero() -> None:
    assert of(a=float("nan"), b=1.0) != of(a=0.0, b=1.0)


def test_names_are_read_as_the_database_keeps_them() -> None:
    asked = ["a\0", "\ud800"]
    kept = ["a\ufffd", "?"]
    assert example_hashes(np.ones((1, 2)), asked) == example_hashes(np.ones((1, 2)), kept)


def test_without_names_the_places_count_whatever_the_shape() -> None:
    images = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    expected = [by_definition({f"\0{place}": value for place, value in enumerate(image.ravel())}) for image in images]
    assert example_hashes(images, None) == expected
    assert example_hashes(images.reshape(2, 4), None) == expected
    assert example_hashes(np.asfortranarray(images), None) == expected
    assert example_hashes(images[::-1], None) == expected[::-1]
    assert example_hashes(images.reshape(2, 4)[:, ::-1], None) != expected


@pytest.mark.parametrize("cells", [28, 3])  # seven rows at once; less than a row
def test_long_tables_are_hashed_in_pieces(monkeypatch: Any, cells: int) -> None:
    table = np.random.default_rng(3).integers(0, 3, (50, 4)).astype(np.float32)
    whole = example_hashes(table, list("abcd"))
    monkeypatch.setattr("easeml_core.store.tables.test_sets._CELLS_AT_ONCE", cells)
    assert example_hashes(table, list("abcd")) == whole
    assert len(set(whole)) == len(np.unique(table, axis=0))


def test_there_is_a_name_for_every_column() -> None:
    with pytest.raises(ShapeError, match=r"names must have shape \(3,\), got \(2,\)"):
        example_hashes(np.ones((1, 3)), ["a", "b"])
