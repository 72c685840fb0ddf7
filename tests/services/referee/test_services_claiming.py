"""Claiming and publishing without a database: what is passed over, kept, let go, put off, and set aside."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import ConcurrentUpdateError, StateError, StoreUnavailableError, TrainingKilled
from easeml_core.services.evaluation.backoff import Patience, Turn
from easeml_core.services.evaluation.model_runs import Computed
from easeml_core.services.referee import claiming, publishing
from easeml_core.services.referee.claiming import POSTPONE_SECONDS, Claims, Underway
from easeml_core.services.referee.publishing import release_due
from easeml_core.store.tables.requests import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterator


class Store:
    @contextlib.contextmanager
    def begin(self) -> Iterator[Any]:
        yield None


class Fetches:
    def __init__(self) -> None:
        self.fetched, self.running, self.kept, self.done = list[int](), list[int](), list[set[int]](), list[int]()

    def requests(self) -> list[int]:
        return self.fetched

    def under_way(self) -> list[int]:
        return self.running

    def keep(self, request_ids: set[int]) -> None:
        self.kept.append(request_ids)

    def decided(self, request_id: int) -> None:
        self.done.append(request_id)


class World:
    """Claims over a database that is not there: ``open`` are the undecided requests, ``skipped`` what was asked for."""

    def __init__(self, monkeypatch: Any) -> None:
        self.now, self.open, self.skipped, self.looked = 0.0, [1, 2, 3, 4, 5], list[list[int]](), list[set[int]]()
        self.attempt = Attempt(number=1, lost=0, put_offs=0)
        self.fetches, self.runs = (
            Fetches(),
            SimpleNamespace(under_way=lambda: self.running, has=lambda one: one in self.running),
        )
        self.running: list[int] = []
        self.judging: list[int] = []
        self.computed, self.is_free, self.released = Computed(), True, list[int]()
        judgements = SimpleNamespace(
            under_way=lambda: self.judging, has=lambda one: one in self.judging, are_padded=True
        )
        underway: Any = Underway(self.fetches, self.runs, judgements, self.computed)  # type: ignore[arg-type]
        store, lease = Store(), SimpleNamespace(number=lambda: 7)
        self.claims = Claims(store, None, underway, lease, most_put_offs=2)  # type: ignore[arg-type]
        monkeypatch.setattr(claiming.referee_claims, "take", lambda *_: self.is_free)
        monkeypatch.setattr(claiming.referee_claims, "let_go", lambda _, ids, __: self.released.extend(ids))
        monkeypatch.setattr(claiming, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(claiming.referee_claims, "claim_request", self._claim)
        monkeypatch.setattr(claiming.requests, "undecided", self._undecided)
        monkeypatch.setattr(claiming.requests, "note_attempt", lambda *_: self.attempt)

    def _claim(self, _: Any, *, skip: list[int], referee: int, **_more: Any) -> int | None:
        assert referee == 7
        self.skipped.append(sorted(skip))
        return next((one for one in self.open if one not in skip), None)

    def _undecided(self, _: Any, request_ids: list[int]) -> set[int]:
        self.looked.append(set(request_ids))
        return set(request_ids) & set(self.open)

    def claim(self) -> int | None:
        return self.claims.claim(None, None)  # type: ignore[arg-type]

    def begin(self, request_id: int) -> Any:
        turn = Turn(request_id)
        begun = self.claims.begin(turn)
        assert begun is not None
        self.claims.end(turn)
        return turn, begun[0]


@pytest.fixture
def world(monkeypatch: Any) -> World:
    return World(monkeypatch)


def test_what_stands_aside_is_passed_over_until_its_time(world: World) -> None:
    world.claims.set_aside(1)
    world.fetches.running, world.running, world.judging = [2], [3], [4]
    assert (world.claim(), world.skipped[-1]) == (5, [1, 2, 3, 4])
    assert world.claims.seconds_to_next() == [POSTPONE_SECONDS]
    world.judging, world.open = [], [4]
    assert (world.claim(), world.skipped[-1]) == (4, [1, 2, 3])
    world.now, world.fetches.running, world.running = POSTPONE_SECONDS, [], []
    world.claim()
    assert (world.skipped[-1], world.claims.standing_aside()) == ([], [])


def test_what_is_kept_of_a_request_goes_where_another_referee_has_decided_it(world: World) -> None:
    for request_id in (1, 2):
        world.begin(request_id)
    world.computed.judged |= {(request_id,): None for request_id in (1, 4)}
    world.fetches.fetched, world.open = [3], [1]
    assert world.claim() == 1
    assert world.looked == [{1, 2, 3, 4}]
    assert (list(world.claims._prepared), world.fetches.kept) == ([1], [{1}])
    assert list(world.computed.judged) == [(1,)]


def test_nothing_is_asked_where_nothing_is_kept_of_others(world: World) -> None:
    world.begin(1)
    assert (world.claim(), world.looked) == (1, [])


@pytest.mark.parametrize("number", [1, 4])
def test_an_attempt_begins_with_the_patience_that_is_left(world: World, number: int) -> None:
    world.attempt = Attempt(number=number, lost=3, put_offs=1)
    turn = Turn(1)
    begun = world.claims.begin(turn)
    assert begun is not None
    ready, lost = begun
    assert (turn.attempt, lost, ready.patience) == (number, 3, Patience(1, 2))
    assert world.claims.begin(Turn(1)) is None  # another thread works on it
    world.claims.end(turn)
    world.judging = [1]
    assert world.claims.begin(Turn(1)) is None  # and now it is under way, handed over since this thread looked
    world.judging = []
    assert world.begin(1)[1] is ready  # what its runs have left is there until it is decided
    world.claims.decided(1)
    assert world.fetches.done == [1]
    assert world.begin(1)[1] is not ready


def test_no_attempt_begins_at_a_request_that_another_referee_works_on(world: World) -> None:
    world.is_free, turn = False, Turn(1)
    assert world.claims.begin(turn) is None
    assert turn.attempt == 0
    world.claims.end(turn)
    world.is_free = True
    assert world.claims.begin(turn) is not None
    assert (world.claim(), world.skipped[-1]) == (2, [1])


def test_runs_are_forgotten_with_the_last_request_that_may_need_them(world: World) -> None:
    for request_id in (1, 2):
        world.begin(request_id)
    world.computed.losses["model", "data"] = 0.25
    world.claims.decided(1)
    assert world.computed.losses
    world.claims.decided(2)
    assert not world.computed.losses


@pytest.mark.parametrize(
    ("error", "attempt", "put_offs", "then"),
    [
        (ConcurrentUpdateError("a lock"), 1, 0, "aside"),
        (ConcurrentUpdateError("a lock"), 0, 0, "aside"),
        (TrainingKilled("by signal 9"), 1, 1, "put off"),
        (TrainingKilled("by signal 9"), 1, 2, "raised"),  # as often as it may be
        (StoreUnavailableError("away"), 0, 0, "raised"),  # not even the attempt was noted
        (StateError("no live set"), 1, 0, "raised"),
        (ValueError("a bug"), 1, 0, "raised"),
    ],
)
def test_a_fault_puts_a_request_off_or_is_raised(
    world: World, monkeypatch: Any, error: Exception, attempt: int, put_offs: int, then: str
) -> None:
    put_off: list[int] = []
    monkeypatch.setattr(world.claims._put_offs, "put_off", lambda turn, _: put_off.append(turn.request_id) or "put off")
    monkeypatch.setattr(world.claims._put_offs, "settle", lambda: None)
    world.attempt = Attempt(attempt, lost=0, put_offs=put_offs)
    turn, _ = world.begin(1)
    if then == "raised":
        with pytest.raises(type(error)):
            world.claims.put_off(turn, error)
    else:
        assert world.claims.put_off(turn, error).startswith("put off")
    assert world.claims.standing_aside() == ([1] if then == "aside" else [])
    assert put_off == ([1] if then == "put off" else [])
    assert world.released == [1]  # in any case: another referee may try at once
    assert world.fetches.done == put_off  # what could not be fetched is fetched anew
    assert list(world.claims._prepared) == []


@pytest.mark.parametrize("turn", [Turn(), Turn(9, 1)], ids=["nothing was claimed", "not begun"])
def test_a_fault_before_a_request_has_begun_is_raised(world: World, turn: Turn) -> None:
    with pytest.raises(ConcurrentUpdateError):
        world.claims.put_off(turn, ConcurrentUpdateError("a lock"))


# Publishing.


class Notary:
    """``due`` are answers, or errors in their place; ``woken`` and ``left`` what was said."""

    def __init__(self, monkeypatch: Any, *due: Any) -> None:
        self.due, self.left, self.woken = list(due), list[int](), list[int]()
        monkeypatch.setattr(publishing.outbox, "claim_due", self._claim)
        monkeypatch.setattr(publishing, "release", self._release)
        monkeypatch.setattr(publishing, "wake", lambda _, request_id: self.woken.append(request_id))

    @contextlib.contextmanager
    def begin(self) -> Iterator[Any]:
        yield None

    def _claim(self, _: Any, *, skip: list[int]) -> Any:
        found = self.due.pop(0) if self.due else None
        if isinstance(found, Exception):
            raise found
        return found

    def _release(self, _: Any, held: Any) -> None:
        if held.error is not None:
            raise held.error
        self.left.append(held.request_id)


def held(request_id: int, error: Exception | None = None) -> Any:
    return SimpleNamespace(request_id=request_id, error=error)


def test_due_answers_leave_in_their_order_and_wake_what_waits_for_them(world: World, monkeypatch: Any) -> None:
    notary: Any = Notary(monkeypatch, held(4), held(2))
    assert [release_due(notary, world.claims) for _ in range(3)] == [4, 2, None]
    assert (notary.left, notary.woken) == ([4, 2], [4, 2])


@pytest.mark.parametrize("error", [ConcurrentUpdateError("a lock"), ValueError("a bug")])
def test_an_answer_that_cannot_leave_is_set_aside(
    world: World, monkeypatch: Any, caplog: Any, error: Exception
) -> None:
    notary: Any = Notary(monkeypatch, held(4, error))
    caplog.set_level("INFO")
    assert release_due(notary, world.claims) == 4
    assert (world.claims.standing_aside(), notary.left, notary.woken) == ([4], [], [])
    # A lock of another transaction is no fault; anything else is one, and the log has its story.
    assert [record.levelname for record in caplog.records] == [
        "INFO" if isinstance(error, ConcurrentUpdateError) else "ERROR"
    ]


@pytest.mark.parametrize(
    "due", [held(4, StoreUnavailableError("away")), StoreUnavailableError("away"), ValueError("a bug")]
)
def test_a_database_that_is_away_or_an_error_before_any_answer_is_raised(
    world: World, monkeypatch: Any, due: Any
) -> None:
    notary: Any = Notary(monkeypatch, due)
    with pytest.raises(StoreUnavailableError if not isinstance(due, ValueError) else ValueError):
        release_due(notary, world.claims)
    assert world.claims.standing_aside() == []
