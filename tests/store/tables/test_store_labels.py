"""Labels as rows: what follows from what labelers say, and what a request waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.store.tables import labels, sealed

if TYPE_CHECKING:
    from collections.abc import Callable

    Seal = Callable[..., int]
    File = Callable[..., int]

WORDS = st.dictionaries(
    st.sampled_from(["ann", "bob", "cid", "referee"]), st.lists(st.integers(-1, 3), min_size=6, max_size=6), max_size=4
)


@given(WORDS)
def test_what_is_known_is_the_referees_word_or_what_all_who_spoke_agree_on(said: dict[str, list[int]]) -> None:
    expected, open_ = [], []
    for place in range(6):
        spoken = {words[place] for name, words in said.items() if name != "referee" and words[place] >= 0}
        word = said.get("referee", [-1] * 6)[place]
        expected.append(word if word >= 0 else spoken.pop() if len(spoken) == 1 else -1)
        open_.append(len({w[place] for n, w in said.items() if n != "referee" and w[place] >= 0}) > 1)
    arrays = {name: np.array(words, dtype=np.int64) for name, words in said.items()}
    assert labels.settled(arrays, 6).tolist() == expected
    assert labels.disputed(arrays, 6).tolist() == open_


@pytest.fixture
def wish(database: Any, make_rows: Any, seal: Seal, file: File) -> tuple[int, int]:
    """A request and a set of five examples, of which the labels of the last three are not known."""
    study = make_rows()
    set_id, request_id = seal(study, "gate"), file(study, "gate", study.baseline_id)
    return request_id, set_id


@pytest.fixture
def unlabel(ask: Any) -> Callable[[int], None]:
    from easeml_core.store.rows import pack

    def forget(set_id: int) -> None:
        labels_ = np.array([1, 0, -1, -1, -1], dtype=np.int64)
        ask("UPDATE sealed.test_sets SET labels = %s WHERE id = %s", pack(labels_), set_id)

    return forget


def test_sealed_labels_come_before_whatever_anybody_says(
    database: Any, wish: tuple[int, int], unlabel: Callable[[int], None]
) -> None:
    _, set_id = wish
    unlabel(set_id)
    with database.referee.begin() as tx:
        assert labels.known_labels(tx, set_id).tolist() == [1, 0, -1, -1, -1]
        labels.keep_labels(tx, set_id, "referee", np.array([0, 1, 1, -1, -1]))
        labels.keep_labels(tx, set_id, "ann", np.array([-1, -1, 0, 1, -1]))
        assert labels.known_labels(tx, set_id).tolist() == [1, 0, 1, 1, -1]
        assert labels.known_labels(tx, set_id).dtype == np.int64
        labels.keep_labels(tx, set_id, "ann", np.array([-1, -1, 0, 0, 0]))
        assert {n: v.tolist() for n, v in labels.labels_given(tx, set_id).items()} == {
            "ann": [-1, -1, 0, 0, 0],
            "referee": [0, 1, 1, -1, -1],
        }


def test_wishes_are_replaced_repeated_and_closed(
    database: Any, wish: tuple[int, int], unlabel: Callable[[int], None]
) -> None:
    request_id, set_id = wish
    unlabel(set_id)
    asked = {"request_id": request_id, "test_set_id": set_id}
    with database.referee.begin() as tx:
        for positions in ([3, 2], [3, 2], [4]):
            labels.want(tx, positions=np.array(positions), **asked)
        (found,) = labels.open_wanted(tx)
        assert (found.request_id, found.test_set_id, found.positions.tolist()) == (request_id, set_id, [4])
        assert found.asked.tolist() == [False, False, True, True, True]
        assert labels.used_examples(tx, set_id).tolist() == [False, False, True, True, False]
        labels.keep_labels(tx, set_id, "ann", np.array([-1, -1, -1, -1, 1]))
        assert labels.open_wanted(tx) == []
        assert labels.used_examples(tx, set_id).tolist() == [False, False, True, True, True]
        labels.want(tx, positions=np.array([2]), **asked)
        labels.close_wanted(tx, request_id)
        labels.close_wanted(tx, request_id)
        assert labels.open_wanted(tx) == []
        (closed,) = labels.wanted_of(tx, set_id)
        assert not closed.is_open
        labels.want(tx, positions=np.array([0, 1]), **asked)  # known: nothing to wait for
        assert labels.open_wanted(tx) == []


def test_a_request_that_is_judged_on_another_set_leaves_the_old_one(
    database: Any, make_rows: Any, seal: Seal, file: File, unlabel: Callable[[int], None]
) -> None:
    study = make_rows()
    old, request_id = seal(study, "gate"), file(study, "gate", study.baseline_id)
    new = seal(study, "meter", start=100, examples=5)
    for set_id in (old, new):
        unlabel(set_id)
    with database.referee.begin() as tx:
        for set_id in (old, new):
            labels.want(tx, request_id=request_id, test_set_id=set_id, positions=np.array([4]))
        assert [(w.request_id, w.test_set_id) for w in labels.open_wanted(tx)] == [(request_id, new)]
        labels.close_wanted_of_set(tx, new)
        assert labels.open_wanted(tx) == []


@pytest.mark.parametrize("positions", [[5], [-1, 2], [0, 10**9]])
def test_a_position_outside_the_set_is_refused(database: Any, wish: tuple[int, int], positions: list[int]) -> None:
    request_id, set_id = wish
    refused = pytest.raises(InvalidInputError, match="wanted positions must be from 0 to 4")
    with refused, database.referee.begin() as tx:
        labels.want(tx, request_id=request_id, test_set_id=set_id, positions=np.array(positions))


def test_an_unknown_set_has_no_labels(database: Any) -> None:
    for look in (labels.known_labels, labels.used_examples, sealed.sealed_keys):
        with pytest.raises(NotFoundError, match="no sealed set with id 7"), database.referee.begin() as tx:
            look(tx, 7)


def test_labels_wake_the_referee_and_nobody_else(
    database: Any, wish: tuple[int, int], ask: Callable[..., Any], heard: Callable[[int], Any]
) -> None:
    """Every role may listen to a channel whose name it knows; this one's follows from the installation's secret."""
    _, set_id = wish
    with database.referee.begin() as tx:
        private = sealed.private_channel(tx)
    ask(f"LISTEN {private}")
    with database.referee.begin() as tx:
        labels.keep_labels(tx, set_id, "ann", np.full(5, -1, dtype=np.int64))
    assert heard(1) == [(private, f"labels:{set_id}")]
