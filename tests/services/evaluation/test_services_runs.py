"""Runs that a decision needs, without a database: all named at once, made in their order, and none for nothing."""

from __future__ import annotations

import contextlib
import functools
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.entities import Model
from easeml_core.errors import ArtifactError, ConcurrentUpdateError, StateError, StoreUnavailableError, TrainingKilled
from easeml_core.models.answers import A_CLASS
from easeml_core.sandbox.isolation import Isolation
from easeml_core.services.evaluation import sealed_runs
from easeml_core.services.evaluation.backoff import Patience
from easeml_core.services.evaluation.sealed_runs import (
    NotRunError,
    Preparation,
    Run,
    at_once,
    sealed_predictions,
    validation_loss,
)
from easeml_core.store.tables.sealed import Predictions

if TYPE_CHECKING:
    from collections.abc import Generator

SET = 5
OLD, NEW = (Model(number, 1, None, "skops", f"sha256:{number}", 0.5) for number in (1, 2))
LABELS = Predictions(np.array([0, 1]), None)
FAILED = Predictions(None, "it crashed")
KILLED, GONE = TrainingKilled("by signal 9"), ArtifactError("gone")


def prepared(monkeypatch: Any, **ends: Exception | bool) -> tuple[Preparation, list[str]]:
    """Preparation whose runs end so, by model and place; and the list of runs that were made."""
    ran: list[str] = []

    def run(_: Any, model: Model, test_set_id: int | None) -> tuple[bool, Any]:
        ran.append(f"{'old' if model is OLD else 'new'}_{'open' if test_set_id is None else 'sealed'}")
        end = ends.get(ran[-1], True)
        if isinstance(end, Exception):
            raise end
        return end, lambda: ran.append("kept")

    monkeypatch.setattr(Preparation, "_run_on", run)
    monkeypatch.setattr(Preparation, "_load", lambda *_: True)
    return Preparation(None, None), ran  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("runs", "ends", "ran"),
    [
        ((Run(OLD, SET), Run(NEW, SET)), {}, ["old_sealed", "new_sealed"]),
        # The submission is compared with nothing, and its request refused: it is not run.
        ((Run(OLD, SET), Run(NEW, SET)), {"old_sealed": False}, ["old_sealed"]),
        ((Run(OLD, SET), Run(NEW, SET)), {"old_sealed": GONE}, ["old_sealed"]),
        # A model that fails on one set is read on the other, too.
        ((Run(NEW, None), Run(NEW, SET), Run(NEW, SET + 1)), {"new_sealed": False}, ["new_open"] + ["new_sealed"] * 2),
        ((Run(NEW, None), Run(NEW, SET)), {"new_open": GONE}, ["new_open"]),
    ],
)
def test_runs_are_made_in_their_order_and_none_that_no_decision_needs(
    monkeypatch: Any, runs: tuple[Run, ...], ends: dict[str, Any], ran: list[str]
) -> None:
    ready, made = prepared(monkeypatch, **ends)
    ready.run(NotRunError(*runs))
    assert [one for one in made if one != "kept"] == ran


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), ConcurrentUpdateError("a lock")])
def test_a_fault_of_the_database_is_raised_and_kept_for_no_decision(monkeypatch: Any, error: Exception) -> None:
    ready, _ = prepared(monkeypatch, old_sealed=error)
    with pytest.raises(type(error)):
        ready.run(NotRunError(Run(OLD, SET)))
    assert isinstance(ready.missing(Run(OLD, SET)), NotRunError)


@pytest.mark.parametrize(("end", "kept"), [(True, ["kept", "kept"]), (GONE, ["kept"])])
def test_all_runs_of_a_request_have_one_padded_end_and_nothing_is_stored_before(
    monkeypatch: Any, end: Any, kept: list[str]
) -> None:
    """However they end. Without padding each result is stored before the next run, so that a kill loses one."""
    runs = NotRunError(Run(OLD, SET), Run(NEW, SET))
    ready, ran = prepared(monkeypatch, new_sealed=end)
    steps = ready.steps(runs)
    assert [list(ran) for _ in steps] == [["old_sealed", "new_sealed"]]
    assert ran[2:] == kept
    ready, ran = prepared(monkeypatch, new_sealed=end)
    ready.run(runs)
    assert ran[:3] == ["old_sealed", "kept", "new_sealed"]


def predictions(monkeypatch: Any, ready: Preparation, **known: Predictions) -> list[Predictions]:
    by_identity = {(OLD if name == "old" else NEW).identity: found for name, found in known.items()}
    monkeypatch.setattr(sealed_runs.sealed, "known_predictions", lambda *_: by_identity)
    return sealed_predictions(None, ready, SET, OLD, NEW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "missing"),
    [({}, (OLD, NEW)), ({"old": LABELS}, (NEW,)), ({"new": LABELS}, (OLD,)), ({"new": FAILED}, (OLD,))],
)
def test_all_runs_that_are_missing_are_named_at_once(
    monkeypatch: Any, known: dict[str, Predictions], missing: tuple[Model, ...]
) -> None:
    ready, _ = prepared(monkeypatch)
    with pytest.raises(NotRunError) as found:
        predictions(monkeypatch, ready, **known)
    assert found.value.runs == tuple(Run(model, SET) for model in missing)


@pytest.mark.parametrize(
    ("known", "found"),
    [
        ({"old": LABELS, "new": LABELS}, [LABELS, LABELS]),
        ({"old": LABELS, "new": FAILED}, [LABELS, FAILED]),
        ({"old": FAILED, "new": LABELS}, [FAILED]),
        ({"old": FAILED}, [FAILED]),  # what comes after it is not needed
    ],
)
def test_the_first_model_that_could_not_be_run_is_the_last_one_reported(
    monkeypatch: Any, known: dict[str, Predictions], found: list[Predictions]
) -> None:
    ready, _ = prepared(monkeypatch)
    assert predictions(monkeypatch, ready, **known) == found


def test_an_error_of_a_run_is_met_in_its_turn(monkeypatch: Any) -> None:
    ready, _ = prepared(monkeypatch, new_sealed=GONE)
    ready.run(NotRunError(Run(OLD, SET), Run(NEW, SET)))
    with pytest.raises(ArtifactError):
        predictions(monkeypatch, ready, old=LABELS)
    with pytest.raises(NotRunError):  # the old one is missing again: that comes first
        predictions(monkeypatch, ready)


@pytest.mark.parametrize(("put_offs", "answer"), [(1, None), (2, "put off 2 times; by signal 9")])
def test_a_kill_puts_off_until_it_was_put_off_as_often_as_it_may_be(
    monkeypatch: Any, put_offs: int, answer: str | None
) -> None:
    ready, _ = prepared(monkeypatch, new_sealed=KILLED, new_open=KILLED)
    ready.patience = Patience(put_offs, 2)
    ready.run(NotRunError(Run(NEW, SET)))
    ready.run(NotRunError(Run(NEW, None)))
    if answer is None:
        with pytest.raises(TrainingKilled):
            predictions(monkeypatch, ready, old=LABELS)
        assert ready.missing(Run(NEW, None)) is KILLED
    else:
        last = predictions(monkeypatch, ready, old=LABELS)[-1]
        assert (last.labels, last.failure) == (None, answer)
        assert isinstance(ready.missing(Run(NEW, None)), StateError)  # on open data: nothing is spent


def test_a_loss_that_was_not_measured_is_missing(monkeypatch: Any) -> None:
    ready, _ = prepared(monkeypatch)
    version: Any = SimpleNamespace(artifact="sha256:data")
    with pytest.raises(NotRunError) as found:
        validation_loss(ready, NEW, version)
    assert found.value.runs == (Run(NEW, None),)
    ready._losses[NEW.identity, "sha256:data"] = 0.25
    assert validation_loss(ready, NEW, version) == 0.25


def test_what_follows_from_labels_is_computed_within_or_before_the_decision() -> None:
    within = Preparation(None, None)  # type: ignore[arg-type]
    assert within.judged((1,), lambda: 7) == 7
    computed = sealed_runs.Computed()
    before = Preparation(None, None, computed)  # type: ignore[arg-type]
    with pytest.raises(sealed_runs.NotJudgedError) as missing:
        before.judged((1,), lambda: 7)
    computed.judged[missing.value.key] = missing.value.compute()
    assert before.judged((1,), lambda: 8) == 7


def test_work_in_steps_is_taken_at_once() -> None:
    def steps() -> Generator[None, None, str]:
        yield
        yield
        return "done"

    assert at_once(steps()) == "done"


@pytest.mark.parametrize(("kept_from", "most"), [(("network", "processes", "files"), 2), (("network", "files"), 1)])
def test_models_run_side_by_side_only_where_they_cannot_see_each_other(
    monkeypatch: Any, kept_from: tuple[str, ...], most: int
) -> None:
    now, seen, both = list[int](), list[int](), threading.Barrier(2)
    monkeypatch.setattr(sealed_runs, "probe_isolation", lambda _: Isolation(None, kept_from))

    def predict(*_: Any, **__: Any) -> Any:
        now.append(1)
        if most == 2:
            both.wait(60)
        seen.append(len(now))
        if most == 2:
            both.wait(60)
        now.pop()
        return np.zeros(1, dtype=np.int64)

    monkeypatch.setattr(sealed_runs, "predict_in_child", predict)
    artifacts: Any = SimpleNamespace(copy=lambda _: contextlib.nullcontext("model"))
    run = functools.partial(sealed_runs.run_model, artifacts, Model(1, 1, None, "skops", "a", 0.5))
    threads = [threading.Thread(target=run, args=(np.zeros((1, 1)), A_CLASS)) for _ in range(2)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert max(seen) == most
