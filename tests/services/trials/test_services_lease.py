"""The lease of an attempt without a database: what news, heartbeats and looks do to it, by the store's answers."""

from __future__ import annotations

import contextlib
import math
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.entities import Executor
from easeml_core.errors import (
    ArtifactError,
    ConcurrentUpdateError,
    InvalidInputError,
    StoreUnavailableError,
    TrainingCancelled,
)
from easeml_core.services.trials import lease as module
from easeml_core.services.trials.lease import LOOK_SECONDS, CheckpointUpload, Lease, point_of
from easeml_core.settings.config import TrainingConfig
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.tables.leases import Checkpoint
from easeml_core.store.tables.trials import MOST_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST, SECOND = Checkpoint("sha256:1", 10.0, 0.1), Checkpoint("sha256:2", 20.0, 0.2)
AWAY = StoreUnavailableError("away")


class Store:
    """Answers heartbeats and looks; ``begun`` counts transactions."""

    def __init__(self) -> None:
        self.answer: bool | Exception | None = False
        self.wanted: bool | Exception | None = True
        self.begun, self.forgotten, self.points, self.saved = 0, 0, list[Any](), list[Checkpoint | None]()

    @contextlib.contextmanager
    def begin(self) -> Iterator[Any]:
        self.begun += 1
        yield None

    def extend_lease(self, _: Any, *, checkpoint: Checkpoint | None, **__: Any) -> bool | None:
        if isinstance(self.answer, Exception):
            raise self.answer
        self.saved.append(checkpoint)
        return self.answer

    def is_wanted(self, *_: Any, **__: Any) -> bool | None:
        if isinstance(self.wanted, Exception):
            raise self.wanted
        return self.wanted


class Uploaded:
    """An upload with these checkpoints, or errors, in their places."""

    def __init__(self, *kept: Checkpoint | ArtifactError) -> None:
        self.waiting, self.discarded = list(kept), list[str]()

    def uploaded(self) -> Checkpoint | ArtifactError | None:
        return self.waiting.pop(0) if self.waiting else None

    def discard(self, reference: str) -> None:
        self.discarded.append(reference)

    def join(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: Any) -> SimpleNamespace:
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def store(monkeypatch: Any, clock: Any) -> Store:
    found = Store()
    monkeypatch.setattr(module.leases, "extend_lease", found.extend_lease)
    monkeypatch.setattr(module.leases, "is_wanted", found.is_wanted)
    monkeypatch.setattr(module.trials, "add_points", lambda _, __, points: found.points.extend(points))

    def forget(*_: Any, **__: Any) -> None:
        found.forgotten += 1

    monkeypatch.setattr(module.leases, "forget_checkpoint", forget)
    return found


def lease(store: Any, *, attempt: int = 1, excused: int = 0, **changes: Any) -> Lease:
    trial: Any = SimpleNamespace(id=7, excused=excused, device=None)
    executor: Any = SimpleNamespace()
    given: dict[str, Any] = {
        "config": TrainingConfig(),
        "artifact": "sha256:0",
        "tenant": "lab",
        "log": [].append,
    } | changes
    held = Lease(store, trial, attempt, executor=executor, **given)
    held.started = held._beaten = held._looked = module.time.monotonic()
    return held


def test_the_seconds_of_a_trial_are_those_of_all_its_devices(store: Store) -> None:
    four, quarter = (lease(store, reserved_seconds=84.0, checkpoint=FIRST) for _ in range(2))
    four.trial.device, quarter.trial.device = "gpu:4", "gpu/4"
    assert four.cost_seconds(5.0) == 10.0 + 20.0
    assert four.time_limit_seconds == 20.0  # 84 s of four devices are 21 s on the clock, one of them for the start
    assert four.is_cut_short
    assert quarter.cost_seconds(5.0) == 10.0 + 1.25
    assert quarter.time_limit_seconds == 4 * 84.0 - 1


@pytest.mark.parametrize(
    ("wrote", "checkpoint", "named"),
    [("1", FIRST, "1"), ("2", FIRST, None), (None, FIRST, None), ("1", None, None)],
)
def test_an_attempt_names_the_other_version_that_wrote_its_checkpoint(
    wrote: str | None, checkpoint: Checkpoint | None, named: str | None
) -> None:
    trial: Any = SimpleNamespace(executor_details=wrote and {"code_version": wrote})
    assert module._resuming(trial, Executor("trainer:tree", "2"), checkpoint).resumed_from == named


# What the training tells.


@pytest.mark.parametrize(
    ("news", "anew"),
    [
        ({"resumed": False}, True),
        ({"resumed": True}, False),
        ({"resumed": None}, False),
        ({"resumed": 0}, False),
        ({"note": "epoch 1 of 8"}, False),
    ],
)
def test_only_a_training_that_says_so_has_begun_anew(store: Store, news: dict[str, Any], anew: bool) -> None:
    held = lease(store, checkpoint=FIRST)
    held.progress(news)
    assert (held.checkpoint, held.resumed_seconds) == ((None, 0.0) if anew else (FIRST, 10.0))
    held.beat()
    held.beat()
    assert store.forgotten == anew  # once, with the next heartbeat


def test_beginning_anew_without_a_checkpoint_changes_nothing(store: Store) -> None:
    held = lease(store)
    held.progress({"resumed": False})
    held.beat()
    assert store.forgotten == 0


def test_points_are_reported_once_and_kept_until_a_heartbeat_is_stored(store: Store) -> None:
    held = lease(store)
    held.progress({"step": 1, "quality": 0.5})
    store.answer = AWAY
    held.beat()
    assert store.points == []
    store.answer = False
    held.progress({"step": 2, "quality": 0.6})
    held.beat()
    held.beat()
    assert [point.step for point in store.points] == [1, 2]


def test_news_that_cannot_be_stored_are_left_out_and_the_lease_is_not(store: Store) -> None:
    held = lease(store)
    held.progress({"step": 1, "quality": 0.5})
    store.answer = InvalidInputError("not JSON")
    held.beat()
    assert (held.lost, held.cancelled, held.last_news) == (False, False, None)
    store.answer = False
    held.beat()
    assert store.points == []


def test_of_many_steps_a_second_one_is_logged_and_the_last(store: Store, clock: Any) -> None:
    logged: list[str] = []
    held = lease(store, log=logged.append)
    for step, seconds in ((1, 0.0), (2, 0.5), (3, 0.5), (4, 0.1), (5, 0.1)):
        clock.seconds += seconds
        held.progress({"step": step, "of": 5})
    assert [line.rpartition("step ")[2].split(",")[0] for line in logged] == ["1", "3", "5"]


# Heartbeats and looks.


@pytest.mark.parametrize(
    ("answer", "lost", "cancelled"), [(False, False, False), (True, False, True), (None, True, False)]
)
def test_a_heartbeat_learns_what_became_of_the_trial(
    store: Store, answer: bool | None, lost: bool, cancelled: bool
) -> None:
    held = lease(store)
    store.answer = answer
    held.beat()
    assert (held.lost, held.cancelled) == (lost, cancelled)


@pytest.mark.parametrize(
    ("wanted", "lost", "cancelled"), [(True, False, False), (False, False, True), (None, True, False)]
)
def test_a_look_learns_the_same(store: Store, wanted: bool | None, lost: bool, cancelled: bool) -> None:
    held = lease(store)
    store.wanted = wanted
    held.look()
    assert (held.lost, held.cancelled) == (lost, cancelled)


@pytest.mark.parametrize("error", [AWAY, ConcurrentUpdateError("another was first")])
def test_a_database_that_is_away_ends_no_training(store: Store, clock: Any, error: Exception) -> None:
    held = lease(store)
    store.answer = store.wanted = error
    held.beat()
    clock.seconds += LOOK_SECONDS
    assert not held.should_stop()
    begun = store.begun
    clock.seconds += LOOK_SECONDS
    assert not held.should_stop()
    assert store.begun == begun  # after a look that failed the next heartbeat tells


@pytest.mark.parametrize(
    ("lease_seconds", "after", "beats", "looks"),
    [(60.0, 0.9, 0, 0), (60.0, 1.0, 0, 1), (60.0, 14.9, 0, 1), (60.0, 15.0, 1, 0), (3600.0, 29.9, 0, 1),
     (3600.0, 30.0, 1, 0)],
)  # fmt: skip
def test_heartbeats_come_at_a_quarter_of_the_lease_and_looks_each_second(
    store: Store, clock: Any, lease_seconds: float, after: float, beats: int, looks: int
) -> None:
    held = lease(store, config=TrainingConfig(lease_seconds=lease_seconds))
    clock.seconds += after
    assert not held.should_stop()
    assert (len(store.saved), store.begun - len(store.saved)) == (beats, looks)


@pytest.mark.parametrize(("name", "answer"), [("cancelled", True), ("lost", None)])
def test_staging_ends_where_its_data_is_of_no_use(store: Store, clock: Any, name: str, answer: bool | None) -> None:
    held = lease(store)
    store.answer = answer
    held.staging("1 of 2 MB")  # type: ignore[arg-type]
    clock.seconds += 60
    with pytest.raises(TrainingCancelled):
        held.staging("2 of 2 MB")  # type: ignore[arg-type]
    assert getattr(held, name)


# Checkpoints.


@pytest.mark.parametrize(
    ("answer", "discarded"),
    [(False, ["sha256:1"]), (True, ["sha256:1"]), (AWAY, []), (None, [])],
    ids=["recorded", "cancelled", "away", "lost"],
)
def test_a_checkpoint_goes_only_once_the_store_names_a_newer_one(
    store: Store, answer: bool | Exception | None, discarded: list[str]
) -> None:
    held = lease(store)
    held._upload = upload = Uploaded(FIRST)  # type: ignore[assignment]
    held.should_stop()
    assert (store.saved, upload.discarded) == ([FIRST], [])  # the first one replaces none
    upload.waiting, store.answer = [SECOND], answer
    held.should_stop()
    assert upload.discarded == discarded


def test_a_checkpoint_that_was_not_recorded_is_reported_with_the_next_heartbeat(store: Store) -> None:
    held = lease(store)
    held._upload = Uploaded(FIRST)  # type: ignore[assignment]
    store.answer = AWAY
    held.should_stop()
    store.answer = False
    held.beat()
    held.beat()
    assert store.saved == [FIRST, None]


def test_seconds_of_a_checkpoint_are_charged_as_those_of_its_device(
    store: Store, monkeypatch: Any, tmp_path: Path
) -> None:
    held, started = lease(store), list[Any]()
    held.trial.device = "gpu:4"
    monkeypatch.setattr(CheckpointUpload, "start", lambda _, *given: started.append(given))
    held.keep(ArtifactStore(tmp_path), tmp_path / "file", 2.5, 0.5)
    assert started == [(tmp_path / "file", 10.0, 0.5)]


def test_the_same_checkpoint_kept_twice_stays(store: Store) -> None:
    held = lease(store)
    held._upload = upload = Uploaded(FIRST, FIRST)  # type: ignore[assignment]
    held.should_stop()
    assert (store.saved, upload.discarded) == ([FIRST, FIRST], [])


def test_a_checkpoint_that_cannot_be_kept_is_logged_and_the_next_one_recorded(store: Store) -> None:
    logged: list[str] = []
    held = lease(store, log=logged.append)
    held._upload = Uploaded(ArtifactError("the disk is full"), SECOND)  # type: ignore[assignment]
    held.should_stop()
    assert store.saved == [SECOND]
    assert "the disk is full" in logged[0]


@pytest.mark.parametrize(("ended", "saved"), [(False, [FIRST]), (True, [])])
def test_what_is_under_way_is_recorded_unless_the_trial_has_ended(
    store: Store, ended: bool, saved: list[Checkpoint]
) -> None:
    held = lease(store, ended=ended)
    held._upload = Uploaded(FIRST)  # type: ignore[assignment]
    held.finish_upload()
    assert store.saved == saved


# What an attempt may take.


@pytest.mark.parametrize(
    ("attempt", "excused", "is_last"), [(1, 0, False), (2, 0, False), (3, 0, True), (3, 1, False), (4, 1, True)]
)
def test_attempts_that_a_restart_took_do_not_count(attempt: int, excused: int, is_last: bool) -> None:
    assert lease(None, attempt=attempt, excused=excused).is_last_attempt is is_last


def test_the_limit_is_what_the_study_allows_or_what_is_reserved() -> None:
    config = TrainingConfig(time_limit_seconds=100.0)
    free = lease(None, config=config, checkpoint=FIRST)
    assert (free.time_limit_seconds, free.is_cut_short, free.cost_seconds(5.0)) == (90.0, False, 15.0)
    short = lease(None, config=config, reserved_seconds=40.0, staged_seconds=10.0)
    assert short.time_limit_seconds == module.training_seconds(30.0) < 30.0 + 1e-9
    assert short.is_cut_short
    assert lease(None, config=config, reserved_seconds=0.0).time_limit_seconds > 0
    assert not lease(None, config=config, reserved_seconds=math.inf).is_cut_short


def test_on_four_devices_a_second_takes_four_of_what_is_reserved_and_was_saved() -> None:
    config = TrainingConfig(time_limit_seconds=100.0)
    held = lease(None, config=config, checkpoint=FIRST)  # 10 seconds of devices are in it
    held.trial.device = "gpu:4"
    assert (held.time_limit_seconds, held.cost_seconds(5.0)) == (97.5, 30.0)
    for reserved, limit in ((396.0, 97.5), (392.0, 97.0), (200.0, 49.0)):  # a second is for the end of the trial
        held.reserved_seconds = reserved
        assert (held.time_limit_seconds, held.is_cut_short) == (limit, limit < 97.5)


@pytest.mark.parametrize(
    ("news", "point"),
    [
        ({"step": 2, "of": 8, "quality": 0.5, "loss": 1}, (2, 8, 0.5, 1.0)),
        ({"step": 10**400, "quality": 0.5}, None),
        ({"step": True, "quality": 0.5}, None),
        ({"step": 2, "of": 10**400, "quality": 0.5}, (2, None, 0.5, None)),
        ({"step": 2, "of": 1, "quality": 0.5}, (2, None, 0.5, None)),
        ({"step": 2, "quality": 10**400, "loss": 3}, (2, None, None, 3.0)),
        ({"step": 2, "quality": 1.5}, None),
        ({"step": 1, "of": 1, "quality": 0}, (1, 1, 0.0, None)),
        ({"step": MOST_STEPS, "of": 2**31 - 1, "quality": 1}, (MOST_STEPS, 2**31 - 1, 1.0, None)),
        ({"step": MOST_STEPS + 1, "of": 2**31, "quality": 1}, None),
        ({"step": 0, "quality": 1}, None),
        ({"step": 2, "loss": 2**63 - 1}, (2, None, None, 2.0**63)),
        ({"step": 2, "loss": 2**63}, None),
    ],
)
def test_progress_of_a_training_is_a_point_only_where_it_is_one(news: dict[str, Any], point: Any) -> None:
    found = point_of(news, seconds=3.0)
    assert (found and (found.step, found.of, found.quality, found.loss)) == point


@pytest.mark.parametrize(("seconds", "kept"), [(3.0, 3.0), (1e9, 1e9), (1e12, 1e9)])
def test_a_point_has_no_more_seconds_than_the_store_takes(seconds: float, kept: float) -> None:
    found = point_of({"step": 1, "loss": 0.5}, seconds=seconds)
    assert found is not None
    assert found.seconds == kept


class Files:
    """Storage whose uploads wait until they may end."""

    def __init__(self) -> None:
        self.begun, self.may_end = list[str](), threading.Event()

    def put(self, path: Path) -> str:
        self.begun.append(path.read_text())
        assert self.may_end.wait(60)
        return f"sha256:{len(self.begun)}"


def test_a_checkpoint_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    """A training owns the folder of its checkpoints: it may lead its worker to a file that it cannot read itself."""
    (tmp_path / "secret").write_text("of another tenant")
    (tmp_path / "checkpoint").symlink_to(tmp_path / "secret")
    upload = CheckpointUpload(lambda: ArtifactStore(tmp_path / "artifacts"))
    upload.start(tmp_path / "checkpoint", 1.0, 0.1)
    upload.join()
    assert isinstance(upload.uploaded(), ArtifactError)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("checkpoint")] == ["checkpoint"]


def test_one_checkpoint_at_a_time_is_uploaded_as_it_was_then(tmp_path: Path) -> None:
    files, path = Files(), tmp_path / "checkpoint"
    upload = CheckpointUpload(lambda: files)  # type: ignore[arg-type,return-value]  # that part of a store alone
    upload.start(path, 1.0, 0.1)
    assert upload.uploaded() is None  # nothing was there
    path.write_text("first")
    upload.start(path, 10.0, 0.1)
    path.unlink()
    path.write_text("second")
    upload.start(path, 20.0, 0.2)  # while the first is under way
    files.may_end.set()
    upload.join()
    assert (files.begun, upload.uploaded(), upload.uploaded()) == (["first"], FIRST, None)
    upload.start(path, 20.0, 0.2)
    upload.join()
    assert (files.begun, upload.uploaded()) == (["first", "second"], SECOND)
