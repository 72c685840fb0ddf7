"""Cells that mean the same have the same token; rows are found again in whatever order of rows and columns."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easeml_core.training.row_cells import Cells, row_ids, tokens_of
from easeml_core.training.row_matching import Rows, match_rows

KEY = b"key"


def tokens(*cells: Any) -> list[int]:
    """Tokens of cells of one column, text or missing."""
    return tokens_of(Cells(("a",), (np.array(cells, dtype=object),)), KEY)[:, 0].tolist()


@pytest.mark.parametrize(
    "same",
    [
        ("1", "1.0", '"1"', " '1.00' ", "1e0", "True", "+1"),
        ("0", "-0.0", "false"),
        ("", None, "NA", "n/a", "'null'", "NaN"),
        ("São Paulo", "Sa\u0303o  Paulo", "\u201cSÃO PAULO\u201d", "'são\tpaulo'"),
        ("2020-01-01T00:00:00", "2020-01-01 01:00:00+01:00", "2019-12-31T19:00:00-05:00", "2020-01-01t00:00:00z"),
    ],
)
def test_the_same_value_in_other_words(same: tuple[Any, ...]) -> None:
    assert len(set(tokens(*same))) == 1
    assert (tokens(*same)[0] == 0) == (None in same)


def test_other_values_have_other_tokens() -> None:
    others = "1", "2", "1.5", "a", "a b", "ab", "2020-01-01T00:00:00", "2020-01-01T00:00:00+01:00", "1_0", "Sao Paulo"
    assert len(set(tokens(*others))) == len(others)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(width=32, min_value=-(2.0**127), max_value=2.0**127),
    st.text(max_size=12),
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001 -- times without a zone are the subject
    st.integers(-14 * 60, 14 * 60),
)
def test_spelling_does_not_matter(number: float, word: str, when: datetime, minutes: int) -> None:
    as_number = tokens_of(Cells(("a",), (np.array([number]),)), KEY)[0, 0]
    assert {*tokens(repr(number), f"{number:.12e}", f'"{number!r}"')} == {int(as_number)}
    spelt = unicodedata.normalize("NFD", word), f"'{word}'", f'  "{word}"\n', unicodedata.normalize("NFC", word)
    assert {*tokens(*spelt)} == {*tokens(word)}
    there = when.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    assert {*tokens(there.isoformat(), there.isoformat(" "))} == {*tokens(when.isoformat())}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_and_columns_does_not_matter_nor_does_a_column_of_guesses(seed: int) -> None:
    """Two columns are continuous, so that a chance match of a row in both has a probability below 1e-12."""
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=240), rng.integers(0, 9, 240) + 0.0, rng.uniform(size=240), rng.integers(0, 2, 240) + 0.0)
    every = tokens_of(Cells(tuple("abcd"), values), KEY)
    known, names = every[:200], np.arange(4, dtype=np.uint64)
    rows, columns = rng.permutation(240)[:150], rng.permutation(4)
    order = rng.permutation(200)
    new = Rows(every[rows][:, columns], names + np.uint64(9))
    first = np.zeros(200, dtype=bool)
    found = match_rows(new, Rows(known[order], names), first, seed=seed)
    assert np.where(found.place >= 0, order[found.place], -1).tolist() == [r if r < 200 else -1 for r in rows.tolist()]
    guesses = rng.integers(2**62, 2**63, 2, dtype=np.uint64)[rng.integers(0, 2, 150)]
    wider = Rows(np.column_stack([guesses, new.tokens]), np.append(np.uint64(99), new.names))
    assert match_rows(wider, Rows(known[order], names), first, seed=seed).place.tolist() == found.place.tolist()
    assert row_ids(new.tokens, KEY) == row_ids(every[rows], KEY)
