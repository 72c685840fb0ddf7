"""What a decision has missed, without a database: made at once or beside, and noted before others may claim it."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.entities import Model, Task
from easeml_core.errors import StoreUnavailableError
from easeml_core.services.datasets.fetching import NotFetchedError
from easeml_core.services.evaluation.backoff import Turn
from easeml_core.services.evaluation.model_runs import Computed
from easeml_core.services.evaluation.sealed_runs import NotJudgedError, NotRunError, Run
from easeml_core.services.referee import dispatch
from easeml_core.services.referee.claiming import Underway
from easeml_core.services.referee.dispatch import Prerequisites
from easeml_core.store.tables.requests import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

CONSTANT = Run(Model(1, 1, None, "constant", "sha256:1", 0.5), 5)
SKOPS = Run(Model(2, 1, None, "skops", "sha256:2", 0.5), 5)


class World:
    """Everything that is done, in its order, in ``done``; ``away`` is a database that cannot be written."""

    def __init__(self, monkeypatch: Any, *, padded: bool = True) -> None:
        self.done, self.away = list[Any](), False
        self.asked: Any = None
        fetches = SimpleNamespace(ask=lambda *given: self._ask("fetch", given))
        runs = SimpleNamespace(
            are_padded=padded,
            ask=lambda *given: self._ask("beside", given),
            one_at_a_time=lambda: self.done.append("one at a time"),
        )
        monkeypatch.setattr(dispatch, "side_by_side", lambda: self.may_overlap)
        self.may_overlap = True
        judgements = SimpleNamespace(ask=lambda *given: self._ask("computation", given))
        self.computed, self.resumed = Computed(), Attempt(9, 0, 0)
        claims: Any = SimpleNamespace(
            survived=lambda turn: self.done.append(("survived", turn.request_id, turn.attempt)),
            settle=self._settle,
            stop=lambda turn: self.done.append(("given up", turn.request_id)),
            resume=lambda _: self.resumed,
        )
        self.ready: Any = SimpleNamespace(run=lambda _: self.done.append("ran"), steps=self._steps)
        underway: Any = Underway(fetches, runs, judgements, self.computed)  # type: ignore[arg-type]
        store: Any = SimpleNamespace(begin=self._begin)
        self.made = Prerequisites(store, claims, underway)
        monkeypatch.setattr(dispatch.requests, "note_attempt", lambda *_: Attempt(9, 0, 0))
        monkeypatch.setattr(dispatch.requests, "tenant_of", lambda *_: 12)
        monkeypatch.setattr(dispatch, "wake", lambda _, request_id: self.done.append(("woke", request_id)))

    @contextlib.contextmanager
    def _begin(self) -> Iterator[Any]:
        if self.away:
            message = "away"
            raise StoreUnavailableError(message)
        yield None

    def _ask(self, what: str, given: Any) -> None:
        self.done.append(what)
        self.asked = given

    def _settle(self) -> None:
        if self.away:
            message = "away"
            raise StoreUnavailableError(message)
        self.done.append("settled")

    def _steps(self, _: Any) -> Iterator[None]:
        self.done.append("step")
        yield

    def make(self, missing: Any) -> list[Any]:
        self.made.make(missing, self.ready, Turn(3, 1))
        return self.done


STOPPED = [("survived", 3, 1), "settled"]


@pytest.mark.parametrize(
    ("padded", "runs", "done"),
    [
        (True, (SKOPS,), [*STOPPED, ("given up", 3), "beside"]),
        (True, (CONSTANT, SKOPS), [*STOPPED, ("given up", 3), "beside"]),
        (True, (CONSTANT,), ["ran", *STOPPED]),  # it runs no code: its time tells nothing
        (False, (CONSTANT, SKOPS), ["ran", *STOPPED]),  # a model that ends this process leaves a lost attempt
    ],
)
def test_models_run_beside_other_requests_where_runs_are_padded(
    monkeypatch: Any, padded: bool, runs: tuple[Run, ...], done: list[Any]
) -> None:
    assert World(monkeypatch, padded=padded).make(NotRunError(*runs)) == done


def test_models_that_could_see_each_other_run_one_after_the_other(monkeypatch: Any) -> None:
    world = World(monkeypatch)
    world.may_overlap = False
    assert world.make(NotRunError(SKOPS)) == [*STOPPED, ("given up", 3), "one at a time", "beside"]


def test_a_run_in_its_turn_is_an_attempt_of_its_own(monkeypatch: Any) -> None:
    world = World(monkeypatch)
    world.make(NotRunError(SKOPS))
    request_id, steps, ended, owner = world.asked
    world.done.clear()
    assert (request_id, next(steps), owner) == (3, None, 12)
    assert world.done == ["step"]
    assert list(steps) == []
    ended()
    assert world.done == ["step", ("survived", 3, 9), "settled", ("woke", 3)]


def test_no_model_runs_for_a_request_that_another_referee_has_decided_or_works_on(monkeypatch: Any) -> None:
    world = World(monkeypatch)
    world.make(NotRunError(SKOPS))
    world.resumed = None
    world.done.clear()
    assert list(world.asked[1]) == []
    assert world.done == []


def test_a_run_whose_end_cannot_be_written_is_remembered(monkeypatch: Any, caplog: Any) -> None:
    world = World(monkeypatch)
    world.make(NotRunError(SKOPS))
    _, steps, ended, _ = world.asked
    next(steps)
    world.away = True
    world.done.clear()
    assert list(steps) == []
    ended()
    assert world.done == [("survived", 3, 9)]
    assert caplog.text.count("could not be noted") == 2


@pytest.mark.parametrize(("source", "attempt"), [("sql:orders", 9), ("url:https://host/orders.csv", 0)])
def test_a_fetch_that_may_end_this_process_is_an_attempt(monkeypatch: Any, source: str, attempt: int) -> None:
    """Rows of a query pass through its memory, a file does not."""
    world = World(monkeypatch)
    study: Any = SimpleNamespace(name="orders", source=source, target="label", task=Task.CLASSIFICATION)
    assert world.make(NotFetchedError(study)) == [*STOPPED, "fetch"]
    world.done.clear()
    with world.asked[2]:
        world.done.append("fetched")
    assert world.done == ["fetched", ("survived", 3, attempt), "settled", ("woke", 3)]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_follows_from_a_computation_before_its_padded_end_however_it_ends(
    monkeypatch: Any, fails: bool
) -> None:
    """Until then its attempt has not survived: a computation that ends this process must count against the request."""
    world = World(monkeypatch)
    assert world.make(NotJudgedError((3,), lambda: 7 // (not fails))) == ["computation"]
    request_id, steps, ended, owner = world.asked
    assert (request_id, next(steps), owner) == (3, None, 12)
    assert (world.done, world.computed.judged) == (["computation"], {})
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        assert list(steps) == []
    ended()
    assert world.done == ["computation", *STOPPED, ("woke", 3)]
    assert world.computed.judged == ({} if fails else {(3,): 7})
