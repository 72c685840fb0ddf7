"""The same pipeline gives the same skops file, whatever the order in which its sets are walked; skops reads it back."""

from __future__ import annotations

import zipfile
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import skops.io
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline, make_pipeline

from easeml_core.models.skops_format import PipelinePredictor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


class Labels(frozenset[int]):
    """A frozen set under another name."""


class Stateless:
    """An object without attributes, whose state is None."""


class Paired:
    """An object whose state is a tuple."""

    def __getstate__(self) -> tuple[int, int]:
        return (3, 4)


def saved(path: Path, **attributes: Any) -> Path:
    pipeline = make_pipeline(DummyClassifier()).fit([[0], [1]], [0, 1])
    vars(pipeline).update(attributes)
    PipelinePredictor(pipeline).save(path)
    return path


def again(path: Path) -> Pipeline:
    return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))


def two_orders(kind: Callable[[Iterable[Any]], Any], values: Iterable[Any]) -> tuple[Any, Any]:
    """Return two equal sets that are walked in different orders: their members fell on the same slot."""
    for pair in combinations(values, 2):
        sets = kind(pair), kind(pair[::-1])
        if list(sets[0]) != list(sets[1]):
            return sets
    message = "no two values fell on the same slot"
    raise AssertionError(message)


def test_bytes_are_kept_and_named_in_their_order(tmp_path: Path) -> None:
    attributes = {"note_": b"abc", "array_": np.arange(3.0), "more_": [bytearray(b"d"), b""]}
    first, second = saved(tmp_path / "first", **attributes), saved(tmp_path / "second", **attributes)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as file:
        names = [name for name in file.namelist() if name.endswith(".bin")]
        assert len(names) == 3
        assert len(file.namelist()) == len(set(file.namelist()))
    loaded = again(first)
    assert (loaded.note_, loaded.more_) == (b"abc", [bytearray(b"d"), b""])
    assert loaded.array_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", [set, frozenset, Labels])
@pytest.mark.parametrize(
    "values",
    [
        [0, 8],
        [f"word {i}" for i in range(40)],
        [bytes([i]) for i in range(40)],
        [np.float64(i) for i in range(40)],
        [("a", frozenset([i])) for i in range(40)],
    ],
    ids=["numbers", "words", "bytes", "numpy", "nested"],
)
def test_a_set_is_written_in_one_order(kind: Any, values: list[Any], tmp_path: Path) -> None:
    one, other = two_orders(kind, values)
    first = saved(tmp_path / "first", seen_=one, twice_=one)
    second = saved(tmp_path / "second", seen_=other, twice_=other)
    assert first.read_bytes() == second.read_bytes()
    loaded = again(first)
    assert (type(loaded.seen_), loaded.seen_) == (kind, one)
    assert loaded.seen_ is loaded.twice_


def test_sets_inside_of_a_set_do_not_decide_its_order(tmp_path: Path) -> None:
    one, other = two_orders(frozenset, [0, 8])
    first = saved(tmp_path / "first", seen_={one, frozenset([4])})
    second = saved(tmp_path / "second", seen_={other, frozenset([4])})
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("kind", [Stateless, Paired])
def test_an_object_of_any_state_is_written(kind: Any, tmp_path: Path) -> None:
    assert saved(tmp_path / "first", one_=kind()).read_bytes() == saved(tmp_path / "second", one_=kind()).read_bytes()


def test_the_address_of_stop_words_is_not_kept(tmp_path: Path) -> None:
    files = []
    for number in range(2):
        words = TfidfVectorizer(stop_words=["the", "and"], vocabulary={"alpha", "beta"})
        words.fit_transform(["the alpha", "beta and alpha"])
        files.append(saved(tmp_path / f"model {number}", words_=words))
    assert files[0].read_bytes() == files[1].read_bytes()
    loaded = again(files[0]).words_
    assert (
        loaded.transform(["alpha beta beta"]).toarray().tolist()
        == words.transform(["alpha beta beta"]).toarray().tolist()
    )


def test_what_has_an_order_keeps_it(tmp_path: Path) -> None:
    attributes = {"list_": [8, 0], "tuple_": (frozenset([1]), "z", "a"), "dict_": {2: "b", 1: "a"}}
    loaded = again(saved(tmp_path / "model", **attributes))
    assert (loaded.list_, loaded.tuple_, list(loaded.dict_.items())) == (
        [8, 0],
        (frozenset([1]), "z", "a"),
        [(2, "b"), (1, "a")],
    )
