"""Saved work counts once: what an attempt saved is not lost with it, and what is charged is what was taken."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from attempts import begin_attempt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.entities import TrialState
from easeml_core.errors import ArtifactError
from easeml_core.files.cache import FileCache
from easeml_core.store.artifacts import orphans
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.artifacts.remote import RemoteArtifactStore
from easeml_core.store.rows import change, row, scalar
from easeml_core.store.tables import capacity, leases, trials
from easeml_core.store.tables.leases import Checkpoint
from easeml_core.store.tables.trials import CurvePoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

REFERENCE = "sha256:" + "a" * 64
LIMIT = 1000.0


@pytest.fixture
def new_trial(store: Any, make_rows: Callable[..., Any]) -> Iterator[Callable[..., int]]:
    """A trial of a separate study; ``new_trial(limit=None)`` has no reservation."""
    numbers = iter(range(10**6))

    def make(limit: float | None = LIMIT) -> int:
        study = make_rows(f"study-{next(numbers)}")
        ids = {"study_id": study.study_id, "data_version_id": study.version_id}
        with store.begin() as tx:
            return trials.add_trial(tx, candidate_id=study.candidates[0], limit_seconds=limit, **ids)

    return make


def start(tx: Connection, trial_id: int, *, ran: float = 0.0) -> int:
    """An attempt that began so many seconds ago."""
    attempt = begin_attempt(tx, trial_id, key="k")
    change(
        tx,
        "UPDATE work.trials SET attempt_started_at = clock_timestamp() - make_interval(secs => :ran) WHERE id = :id",
        id=trial_id,
        ran=ran,
    )
    return attempt


def save(tx: Connection, trial_id: int, attempt: int, seconds: float) -> bool | None:
    saved = Checkpoint(REFERENCE, seconds, 0.5)
    return leases.extend_lease(
        tx, trial_id=trial_id, attempt=attempt, lease_seconds=60, progress=None, checkpoint=saved
    )


def lose(tx: Connection, trial_id: int, *, held: float) -> None:
    """Its worker fell silent: its last heartbeat was so many seconds after its start."""
    change(
        tx,
        "UPDATE work.trials SET attempt_started_at = beat_at - make_interval(secs => :held) WHERE id = :id",
        id=trial_id,
        held=held,
    )
    leases.release_lease(tx, trial_id)


def account(tx: Connection, trial_id: int) -> tuple[float, float, float]:
    """Lost, saved and resumed seconds."""
    found = row(
        tx,
        "SELECT lost_seconds, coalesce(checkpoint_seconds, 0), resumed_seconds FROM work.trials WHERE id = :id",
        id=trial_id,
    )
    return tuple(float(value) for value in found)


def test_an_attempt_that_saved_loses_the_rest(store: Any, new_trial: Any) -> None:
    trial_id = new_trial()
    with store.begin() as tx:
        attempt = start(tx, trial_id, ran=100.0)
        assert save(tx, trial_id, attempt, 70.0) is False
        lose(tx, trial_id, held=90.0)
        assert account(tx, trial_id) == (20.0, 70.0, 0.0)
        assert leases.checkpoint_of(tx, trial_id) == Checkpoint(REFERENCE, 70.0, 0.5)

        attempt = start(tx, trial_id, ran=40.0)
        assert account(tx, trial_id) == (20.0, 70.0, 70.0)
        assert save(tx, trial_id, attempt, 10.0) is False
        assert account(tx, trial_id) == (20.0, 80.0, 70.0)
        lose(tx, trial_id, held=30.0)
        assert account(tx, trial_id) == (40.0, 80.0, 70.0)

        attempt = start(tx, trial_id, ran=5.0)
        ended = {"attempt": attempt, "state": TrialState.SUCCEEDED, "cost_seconds": 80.0 + 4.0}
        assert leases.finish_trial(tx, trial_id=trial_id, **ended)
        assert scalar(tx, "SELECT work.charge(t) FROM work.trials t WHERE id = :id", id=trial_id) == 90 + 30 + 4
        assert leases.checkpoint_of(tx, trial_id) is None


@pytest.mark.parametrize("seconds", [1e6, 100.5])
def test_no_more_is_saved_than_the_attempt_has_run(seconds: float, store: Any, new_trial: Any) -> None:
    trial_id = new_trial()
    with store.begin() as tx:
        attempt = start(tx, trial_id, ran=100.0)
        save(tx, trial_id, attempt, seconds)
        _, saved, _ = account(tx, trial_id)
        assert 100.0 <= saved < 100.5


def test_the_lease_of_an_attempt_ends_with_what_is_left_of_the_reservation(store: Any, new_trial: Any) -> None:
    trial_id = new_trial()
    with store.begin() as tx:
        change(
            tx,
            "UPDATE work.trials SET lost_seconds = 300, checkpoint = :reference, checkpoint_seconds = 680, "
            "checkpoint_progress = 0.9 WHERE id = :id",
            id=trial_id,
            reference=REFERENCE,
        )
        attempt = start(tx, trial_id)
        held = "SELECT extract(epoch FROM lease_until - attempt_started_at) FROM work.trials WHERE id = :id"
        assert float(scalar(tx, held, id=trial_id)) == pytest.approx(20.0, abs=0.5)
        change(
            tx,
            "UPDATE work.trials SET attempt_started_at = clock_timestamp() - interval '21 s' WHERE id = :id",
            id=trial_id,
        )
        assert save(tx, trial_id, attempt, 21.0) is None  # the device is not its own any more, and nothing is saved
        assert account(tx, trial_id) == (300.0, 680.0, 680.0)


def test_what_is_forgotten_is_lost_and_the_attempt_goes_on(store: Any, new_trial: Any) -> None:
    trial_id = new_trial()
    with store.begin() as tx:
        save(tx, trial_id, start(tx, trial_id, ran=100.0), 70.0)
        lose(tx, trial_id, held=90.0)
        attempt = start(tx, trial_id, ran=10.0)
        assert not leases.forget_checkpoint(tx, trial_id=trial_id, attempt=attempt - 1)
        for done in (True, False):
            assert leases.forget_checkpoint(tx, trial_id=trial_id, attempt=attempt) is done
        assert account(tx, trial_id) == (90.0, 0.0, 0.0)
        lose(tx, trial_id, held=5.0)
        assert account(tx, trial_id) == (95.0, 0.0, 0.0)


ENDS = {
    "cancelled while it waits": lambda tx, i: trials.request_cancel(tx, i),
    "given up": lambda tx, i: leases.give_up(tx, i, why="enough"),
    "lost too often": lambda tx, i: (
        start(tx, i, ran=60.0),
        change(
            tx,
            "UPDATE work.trials SET attempt = 1000, attempt_started_at = now() - interval '60 s', "
            "lease_until = now() - interval '60 s' WHERE id = :id",
            id=i,
        ),
        leases.expire_leases(tx),
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_saved_work_is_lost_when_no_attempt_ends_with_a_cost(end: str, store: Any, new_trial: Any) -> None:
    trial_id = new_trial()
    with store.begin() as tx:
        save(tx, trial_id, start(tx, trial_id, ran=100.0), 70.0)
        lose(tx, trial_id, held=90.0)
        ENDS[end](tx, trial_id)
        assert account(tx, trial_id)[:2] == (90.0, 0.0)
        assert scalar(tx, "SELECT work.charge(t) FROM work.trials t WHERE id = :id", id=trial_id) == 90.0
        assert trials.ended_trials(tx, [trial_id, 10**9]) == [trial_id]


def test_an_overrun_costs_the_reservation_and_no_more(store: Any, new_trial: Any) -> None:
    trial_id = new_trial()
    with store.begin() as tx:
        save(tx, trial_id, start(tx, trial_id, ran=100.0), 70.0)
        lose(tx, trial_id, held=90.0)
        attempt = start(tx, trial_id)
        ended = {"attempt": attempt, "state": TrialState.SUCCEEDED, "cost_seconds": 981.0}
        assert not leases.finish_trial(tx, trial_id=trial_id, **ended)
        assert leases.end_overrun(tx, trial_id=trial_id, attempt=attempt, why="late")
        assert account(tx, trial_id)[:2] == (LIMIT, 0.0)


def test_a_limit_that_comes_later_has_room_for_saved_work(store: Any, new_trial: Any) -> None:
    trial_id = new_trial(limit=None)
    with store.begin() as tx:
        save(tx, trial_id, start(tx, trial_id, ran=900.0), 890.0)
        study_id = trials.get_trial(tx, trial_id).study_id
        assert capacity.reserve_open(tx, study_id=study_id, time_limit=1.0, grace=1.0) == 1
        limit = float(scalar(tx, "SELECT limit_seconds FROM work.trials WHERE id = :id", id=trial_id))
        assert limit >= 890.0 + 900.0


ATTEMPTS = st.lists(
    st.tuples(
        st.floats(0, 400),  # how long the lease holds the device
        st.floats(0, 1) | st.none(),  # which part of it is saved; None: nothing
        st.booleans(),  # whether the next attempt finds the file
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(ATTEMPTS)
def test_whatever_happens_to_attempts_every_second_counts_once(
    store: Any, new_trial: Any, attempts: list[tuple[float, float | None, bool]]
) -> None:
    trial_id, taken = new_trial(), 0.0
    with store.begin() as tx:
        for held, share, is_there in attempts:
            held = min(held, LIMIT - taken)
            if LIMIT - taken < 1e-3:
                break
            number = start(tx, trial_id, ran=held)
            if not is_there:
                leases.forget_checkpoint(tx, trial_id=trial_id, attempt=number)
            if share is not None:
                save(tx, trial_id, number, share * held)
            lose(tx, trial_id, held=held)
            taken += held
            lost, saved, _ = account(tx, trial_id)
            assert lost + saved == pytest.approx(taken, abs=1e-4)
            assert lost + saved <= LIMIT + 1e-6
        leases.give_up(tx, trial_id, why="enough")
        charged = scalar(tx, "SELECT work.charge(t) FROM work.trials t WHERE id = :id", id=trial_id)
        assert charged == pytest.approx(taken, abs=1e-4)
        assert charged <= LIMIT


# -- curves ------------------------------------------------------------------------------------------------------------


def point(step: int, **changes: Any) -> CurvePoint:
    return replace(CurvePoint(step, 9, 0.5, 1.5, float(step)), **changes)


def test_a_step_is_reported_once_and_a_curve_is_in_order(store: Any, new_trial: Any) -> None:
    trial_id, other = new_trial(), new_trial()
    with store.begin() as tx:
        trials.add_points(tx, trial_id, [point(2), point(1, of=None, loss=None)])
        trials.add_points(tx, trial_id, [point(2, quality=0.9), point(3, quality=None)])
        trials.add_points(tx, trial_id, [])
        trials.add_points(tx, other, [point(7)])
        expected = (point(1, of=None, loss=None), point(2), point(3, quality=None))
        assert trials.curve_of(tx, trial_id) == expected
        assert trials.curve_of(tx, other) == (point(7),)


# -- files -------------------------------------------------------------------------------------------------------------


def test_trials_share_no_file_and_ended_ones_leave_none(
    store: Any, new_trial: Any, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    first, second = new_trial(), new_trial()
    path = tmp_path / "checkpoint"
    path.write_bytes(b"the same")
    references = {i: orphans.files_of(artifacts, i).put(path) for i in (first, second)}
    assert references[first] == references[second]
    orphans.files_of(artifacts, first).discard(references[first])
    orphans.files_of(artifacts, first).discard(references[first])
    with pytest.raises(ArtifactError, match="is missing"):
        orphans.files_of(artifacts, first).path(references[first])
    assert orphans.files_of(artifacts, second).path(references[second]).read_bytes() == b"the same"

    assert orphans.remove_ended(store, artifacts) == []
    with store.begin() as tx:
        trials.request_cancel(tx, second)
    (artifacts.root / "checkpoints" / "not a trial").mkdir()
    assert orphans.remove_ended(store, artifacts) == [second]
    assert sorted(p.name for p in (artifacts.root / "checkpoints").iterdir()) == sorted([str(first), "not a trial"])
    assert artifacts.put(path) == references[first]  # another artifact


def test_where_there_are_no_checkpoints_nothing_is_removed(store: Any, tmp_path: Path) -> None:
    assert orphans.remove_ended(store, ArtifactStore(tmp_path / "nowhere")) == []
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "7").mkdir(parents=True)
    root = tmp_path / "root"
    root.mkdir()
    (root / "checkpoints").symlink_to(elsewhere)
    assert orphans.remove_ended(store, ArtifactStore(root)) == []
    assert (elsewhere / "7").exists()


def test_a_folder_of_checkpoints_has_the_mode_of_the_whole(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o2770)
    made = orphans.files_of(ArtifactStore(root), 7).root
    assert [p.stat().st_mode & 0o7777 for p in (made, made.parent)] == [0o2770, 0o2770]


def test_checkpoints_in_a_bucket_go_with_their_trials(store: Any, new_trial: Any, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.store.clear()
    first, second = new_trial(), new_trial()
    artifacts = RemoteArtifactStore("memory://bucket/easeml", FileCache(tmp_path / "cache", limit_mb=1))
    assert orphans.remove_ended(store, artifacts) == []
    (tmp_path / "checkpoint").write_bytes(b"saved")
    for trial_id in (first, second):
        orphans.files_of(artifacts, trial_id).put(tmp_path / "checkpoint")
    with store.begin() as tx:
        trials.request_cancel(tx, second)
    assert orphans.remove_ended(store, artifacts) == [second]
    assert [key.split("/")[4] for key in files.store] == [str(first)]
    files.store.clear()
