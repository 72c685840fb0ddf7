"""Whatever is fed and switched, in whatever order: no row twice, none that is closed, and nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from easeml_core.data.rows.labeled_pairs import Pairs, Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAINED, LEFT_OUT, VALIDATED, CLOSED = {0, 1, 2}, {3, 4}, {5, 6}, {7, 8}
ROWS = st.integers(0, 11)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("switch"), ROWS, st.booleans()),
        st.tuples(st.just("feed"), ROWS, st.booleans()),
    ),
    max_size=30,
)


def hashes(inputs: NDArray[np.float32]) -> list[bytes]:
    return [row.tobytes() for row in inputs]


def pairs(labels: dict[int, int]) -> Pairs:
    """One row a number, with its label."""
    return Pairs(np.array(list(labels), np.float32)[:, None], np.array(list(labels.values())))


def as_dict(found: Pairs | None) -> dict[int, int]:
    if found is None:
        return {}
    rows = [int(row) for row in found.inputs[:, 0]]
    assert len(set(rows)) == len(rows), "a row is there twice"
    return dict(zip(rows, map(int, found.labels), strict=True))


@given(steps=STEPS)
def test_the_pool_does_what_a_plain_model_of_it_does(steps: list[tuple[str, int, bool]]) -> None:
    closed = hashes(pairs(dict.fromkeys(CLOSED, 0)).inputs)
    pool = Pool(hashes, pairs(dict.fromkeys(VALIDATED, 0)).inputs)
    pool.add(pairs(dict.fromkeys(TRAINED, 0)), is_on=True)
    pool.add(pairs(dict.fromkeys(LEFT_OUT, 0)), is_on=False)
    on, off = dict.fromkeys(TRAINED, 0), dict.fromkeys(LEFT_OUT, 0)
    relabelled = False
    for number, (what, row, flag) in enumerate(steps):
        one = pairs({row: int(flag)})
        if what == "switch":
            pool.switch(hashes(one.inputs)[0], is_on=flag)
            here, there = (off, on) if flag else (on, off)
            if row in here:
                there[row] = here.pop(row)
        else:
            pool.feed(number, one, hashes(one.inputs), closed=closed)
            if row in VALIDATED | CLOSED or row in on or off.get(row) == int(flag):
                continue
            off.pop(row, None)
            on[row] = int(flag)
            relabelled = True
    assert as_dict(pool.pairs(is_on=True)) == on
    assert as_dict(pool.pairs(is_on=False)) == off
    assert len(pool) == len(on) + len(off)
    assert pool.changed == (relabelled or set(on) != TRAINED)
    assert not (set(on) | set(off)) & (VALIDATED | CLOSED)
