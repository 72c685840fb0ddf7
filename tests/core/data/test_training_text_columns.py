"""Columns of many words: hashed to a fixed width, the same everywhere, and of use to a learner."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from sklearn.linear_model import LogisticRegression

from easeml_core.data import columns as module
from easeml_core.data.columns import MAX_CATEGORIES, TEXT_WIDTH, WORD_WIDTH, hashed_text, hashed_width, table_of_columns
from easeml_core.errors import InvalidInputError


def words(*cells):
    return np.array(cells, dtype=object)


def murmur3(key: bytes) -> int:
    """MurmurHash3_x86_32 with seed 0, signed, written from Austin Appleby's public-domain description."""
    h, mask = 0, 0xFFFFFFFF

    def mixed(k: int) -> int:
        k = k * 0xCC9E2D51 & mask
        return ((k << 15 | k >> 17) & mask) * 0x1B873593 & mask

    whole = len(key) // 4 * 4
    for i in range(0, whole, 4):
        h ^= mixed(int.from_bytes(key[i : i + 4], "little"))
        h = ((h << 13 | h >> 19) & mask) * 5 + 0xE6546B64 & mask
    if key[whole:]:
        h ^= mixed(int.from_bytes(key[whole:], "little"))
    h ^= len(key)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ h >> shift) * factor & mask
    return h - 2**32 if h >= 2**31 else h


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=20))
@settings(deadline=None, max_examples=examples(60))
def test_a_word_goes_where_murmurhash_says(cells) -> None:
    block = hashed_text(words(*cells, None), WORD_WIDTH)
    assert not block[-1].any()  # missing
    for row, cell in zip(block[:-1], cells, strict=True):
        place = murmur3(cell.encode())
        expected = np.zeros(WORD_WIDTH)
        expected[abs(place) % WORD_WIDTH] = 1 if place >= 0 else -1
        assert row.tolist() == expected.tolist()


def test_free_text_counts_words_and_has_length_one() -> None:
    block = hashed_text(words("Red red  BLUE!", "blue, red; red", None, "..."), TEXT_WIDTH)
    np.testing.assert_allclose(block[0], block[1])  # case, punctuation and order do not count
    np.testing.assert_allclose(np.linalg.norm(block, axis=1), [1, 1, 0, 0], rtol=1e-6)
    # Two of one word, one of another, scaled to length 1.
    np.testing.assert_allclose(sorted(np.abs(block[0][block[0] != 0])), np.array([1, 2]) / 5**0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("cells", "width"),
    [
        (("red", "blue", None), WORD_WIDTH),
        (("New York", "Rome", "Oslo"), WORD_WIDTH),
        (("New York", "Rome", None), TEXT_WIDTH),
        (("a\tb",), TEXT_WIDTH),
        ((None, None), WORD_WIDTH),
    ],
)
def test_text_is_free_when_half_of_it_has_blanks(cells, width) -> None:
    assert hashed_width(words(*cells)) == width


def test_up_to_the_limit_a_word_has_its_column_and_beyond_it_all_are_hashed() -> None:
    names = [f"w{i:02}" for i in range(MAX_CATEGORIES + 1)]
    y = np.arange(len(names)) % 2 * 1.0
    few = table_of_columns({"w": words(*names[:-1], names[0]), "x": np.arange(33.0), "y": y}, "y")
    assert few.feature_names == (*(f"w={name}" for name in names[:-1]), "x")
    many = table_of_columns({"w": words(*names), "x": np.arange(33.0), "y": y}, "y")
    assert many.feature_names == (*(f"text_w_{i}" for i in range(WORD_WIDTH)), "x")
    assert np.array_equal(many.inputs[:, :-1], hashed_text(words(*names), WORD_WIDTH))


def test_the_same_text_is_the_same_numbers_in_another_process() -> None:
    code = (
        "import hashlib, numpy as np; from easeml_core.data.columns import hashed_text;"
        "print(hashlib.sha256(hashed_text(np.array(['one two', 'drei', None], object), 256).tobytes()).hexdigest())"
    )
    here = hashlib.sha256(hashed_text(words("one two", "drei", None), TEXT_WIDTH).tobytes()).hexdigest()
    other = {"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"}
    reported = subprocess.run([sys.executable, "-c", code], env=other, capture_output=True, text=True)
    assert reported.stdout.strip() == here, reported.stderr


def test_free_text_can_be_learnt_from() -> None:
    rng = np.random.default_rng(3)
    good, bad, neutral = ["fine", "great", "lovely"], ["poor", "awful", "dull"], [f"word{i}" for i in range(40)]
    labels = np.arange(300) % 2
    cells = [
        " ".join([*rng.choice(neutral, 5), rng.choice(good if label else bad)]) + f" {row}"
        for row, label in enumerate(labels)
    ]
    table = table_of_columns({"review": words(*cells), "y": labels.astype(float)}, "y")
    assert table.inputs.shape == (300, TEXT_WIDTH)
    fitted = LogisticRegression(max_iter=500).fit(table.inputs[:200], table.labels[:200])
    # A coin would be right in 90 of 100 with probability below 1e-16.
    assert fitted.score(table.inputs[200:], table.labels[200:]) > 0.9


def test_a_table_that_would_grow_too_large_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = words(*(f"w{i}" for i in range(40)))
    monkeypatch.setattr(module, "MAX_CELLS", 40 * WORD_WIDTH - 1)
    monkeypatch.setattr(module, "hashed_text", lambda *_: pytest.fail("made"))
    with pytest.raises(InvalidInputError, match=r"more than 2,559 cells \(40 rows"):
        table_of_columns({"w": cells, "y": np.arange(40) % 2 * 1.0}, "y")
