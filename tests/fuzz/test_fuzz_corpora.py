"""Each reader of what strangers write, on the inputs of its corpus and on what Hypothesis makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fuzz_targets import TARGETS, try_one
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

CORPORA = Path(__file__).parent / "corpora"
SEEDS = {name: [path.read_bytes() for path in sorted((CORPORA / name).iterdir())] for name in TARGETS}


def test_every_target_has_a_corpus() -> None:
    assert {path.name for path in CORPORA.iterdir()} == set(TARGETS)


@st.composite
def changed(draw: Callable[..., bytes], seeds: list[bytes]) -> bytes:
    """A seed of which a part is gone, doubled, or replaced by other bytes or by a part of another seed."""
    seed, other = draw(st.sampled_from(seeds)), draw(st.sampled_from(seeds))
    begin, end = sorted(draw(st.tuples(*[st.integers(0, len(seed))] * 2)))  # type: ignore[arg-type]
    start, stop = sorted(draw(st.tuples(*[st.integers(0, len(other))] * 2)))  # type: ignore[arg-type]
    middle = draw(st.one_of(st.just(b""), st.binary(max_size=8), st.just(other[start:stop]), st.just(seed[begin:] * 2)))
    return seed[:begin] + middle + seed[end:]


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_read_or_refused(name: str) -> None:
    for seed in SEEDS[name]:
        try_one(name, seed)

    @given(changed(SEEDS[name]))
    def hold(content: bytes) -> None:
        try_one(name, content)

    hold()
