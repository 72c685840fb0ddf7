"""Values on their way into columns and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from property_sizes import examples

from easeml_core.errors import InvalidInputError
from easeml_core.store.rows import as_json, clean, pack, row, rows, scalar, unpack

WORDS = st.text(st.characters(codec=None))  # every code point, NUL and lone surrogates too
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [cleaned(v) for v in value]
    return {clean(k): cleaned(v) for k, v in value.items()} if isinstance(value, dict) else value


@settings(deadline=None, max_examples=examples(200))
@given(value=st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=4))
def test_json_keeps_what_can_be_kept(value: dict[str, Any]) -> None:
    assert json.loads(as_json(value)) == cleaned(value)


def test_the_database_takes_any_words(store: Any) -> None:
    odd = {"a": "\0", "b": "\\u0000", "c": "\\\0\0", "d": "\ud800x", "e": "\U0001f600 \u2028 \x7f"}
    with store.begin() as tx:
        found = scalar(tx, "SELECT CAST(:value AS jsonb)", value=as_json(odd))
        assert found == {"a": "\ufffd", "b": "\\u0000", "c": "\\\ufffd\ufffd", "d": "?x", "e": odd["e"]}
        assert scalar(tx, "SELECT CAST(:value AS text)", value=clean("a\0b\udcffc")) == "a\ufffdb?c"


def test_json_is_the_same_for_the_same_content() -> None:
    assert as_json({"b": 1, "a": [True, None]}) == as_json({"a": [True, None], "b": 1}) == '{"a": [true, null], "b": 1}'


@pytest.mark.parametrize("value", [{"x": float("nan")}, [float("-inf")], {"x": np.int64(1)}, {"x": b"bytes"}])
def test_what_json_has_not_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="only finite numbers, words, lists and mappings can be stored as JSON"):
        as_json(value)


@settings(deadline=None, max_examples=examples(50))
@given(
    array=st.sampled_from(["int64", "float32", "float64", "uint8", "bool"]).flatmap(
        lambda kind: arrays(kind, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5))
    )
)
def test_arrays_come_back_bit_by_bit(array: Any) -> None:
    back = unpack(memoryview(pack(array)))
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_no_array_is_pickled() -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved when allow_pickle=False"):
        pack(np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        unpack(b"\x80\x04K\x01.")


def test_none_and_nothing_are_distinguished(store: Any) -> None:
    with store.begin() as tx:
        assert row(tx, "SELECT 1 WHERE false") is None
        assert row(tx, "SELECT NULL AS x") == (None,)
        assert rows(tx, "SELECT :x AS x WHERE false", x=1) == []
