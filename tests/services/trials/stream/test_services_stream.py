"""The stream drive: no device waits for the slowest, none spins, and one that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import (
    ConfigError,
    NotFoundError,
)
from easeml_core.formats.encoding import to_json
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.attempts import hand_back
from easeml_core.services.trials.execution import cancel_trial, claim, trial_state
from easeml_core.services.trials.worker import DeviceSummary, run_device
from easeml_core.store.tables.capacity import Outlook, outlook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


NEVER_POLL = 3600.0
"""Seconds: who is woken in a test with this poll was woken by a notification."""


def trees(*depths: int) -> list[dict[str, Any]]:
    return [{"name": f"tree-{d}", "kind": "decision_tree", "parameters": {"max_depth": d}} for d in depths]


@dataclasses.dataclass
class Device:
    """A device at work in a separate thread, with a separate store."""

    lab: Any
    arguments: dict[str, Any]
    name: str
    events: list[str]
    summary: Any = None
    error: BaseException | None = None
    stopped: bool = False
    lines: list[str] = dataclasses.field(default_factory=list)

    def start(self) -> Device:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            self.summary = work(self.lab, should_stop=lambda: self.stopped, log=self.lines.append, **self.arguments)
        except BaseException as error:
            self.error = error
        self.events.append(f"{self.name} is done")

    def join(self) -> Any:
        self._thread.join(60)
        assert not self._thread.is_alive(), self.lines
        assert self.error is None, self.error
        return self.summary


def work(lab: Any, *studies: str, **changes: Any) -> DeviceSummary:
    given = {"device": "cpu", "request_key": "night/run/device/0", "poll_seconds": NEVER_POLL}
    given["studies_only"] = studies or ("busy",)
    return run_device(lab.worker, lab.artifacts, **given | changes)


@pytest.fixture
def make_device(lab: Any, trainers: Any) -> Iterator[Callable[..., Device]]:
    """Devices at work; whatever of them is left at the end is stopped."""
    made: list[Device] = []

    def make(name: str = "device", **arguments: Any) -> Device:
        made.append(Device(lab, {"request_key": f"night/run/{name}"} | arguments, name, trainers.events))
        return made[-1]

    yield make
    for device in made:
        device.stopped = True
        with contextlib.suppress(AttributeError):
            device._thread.join(60)


def states(lab: Any, study: str = "busy") -> list[tuple[str, str, int]]:
    """Candidate, state and attempts of a study's trials, by candidate."""
    return list(
        lab.rows(
            "SELECT c.name, t.state, t.attempt FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id "
            "JOIN work.studies s ON s.id = t.study_id WHERE s.name = :study ORDER BY c.name",
            study=study,
        )
    )


def test_no_device_waits_for_the_slowest(lab: Any, trainers: Any, make_device: Any, wait_for: Any) -> None:
    """One trial lasts until the two other devices have trained everything else and have gone home."""
    lab.register("busy", candidates=trees(1, 2, 3, 4, 5, 6, 7, 8))
    slow = trainers.hold(1)
    devices = [make_device(name).start() for name in ("a", "b", "c")]
    wait_for(lambda: sum(e.endswith("is done") for e in trainers.events) >= 2)
    assert [device.error for device in devices] == [None] * 3
    assert ("tree-1", "RUNNING", 1) in states(lab)
    slow.set()
    summaries = [device.join() for device in devices]

    assert trainers.events[-2] == "end 1"  # and then its own device is done; everything else came before
    assert sorted(e for e in trainers.events if e.startswith("end")) == [f"end {d}" for d in range(1, 9)]
    assert {s.reason for s in summaries} == {"nothing left"}
    assert states(lab) == [(f"tree-{d}", "SUCCEEDED", 1) for d in range(1, 9)]
    trained = [t.candidate for s in summaries for t in s.trials]
    assert sorted(trained) == [f"tree-{d}" for d in range(1, 9)]  # each by one device


def one_at_a_time(lab: Any, **settings: Any) -> None:
    """A study with two candidates, of a tenant that may have one open trial."""
    lab.register("busy", candidates=trees(1, 2), **settings)
    lab.as_superuser("UPDATE work.tenants SET max_parallel = 1")


def test_a_device_waits_for_what_the_end_of_another_trial_frees(
    lab: Any, trainers: Any, make_device: Any, wait_for: Any
) -> None:
    """The tenant may have one trial at a time: its end wakes the device that got none, by a notification."""
    one_at_a_time(lab)
    gates = {depth: trainers.hold(depth) for depth in (1, 2)}
    first = make_device("first", max_trials=1).start()
    wait_for(lambda: trainers.events)
    second = make_device("second").start()
    wait_for(lambda: any("waiting for 1 trial under way" in line for line in second.lines))
    begun = int(trainers.events[0].split()[1])
    gates[begun].set()
    assert first.join().reason == "enough trials"
    gates[3 - begun].set()
    assert [t.candidate for t in second.join().trials] == [f"tree-{3 - begun}"]
    assert trainers.events.index(f"end {begun}") < trainers.events.index(f"begin {3 - begun}")


def test_a_device_that_waits_takes_a_lost_workers_trial_up_as_soon_as_its_lease_ends(
    lab: Any, trainers: Any, make_device: Any
) -> None:
    """A worker that is lost notifies no device."""
    one_at_a_time(lab, training={"lease_seconds": 2.0})
    (trial,) = suggest_trials(lab.worker, count=1, studies_only=["busy"], request_key="k").trials
    claim(lab.worker, trial_id=trial.trial_id, request_key="k")
    summary = make_device("idle").start().join()
    assert summary.trials[0].trial_id == trial.trial_id
    assert sorted(states(lab)) == sorted(
        (name, "SUCCEEDED", 2 if name == trial.candidate else 1) for name in ("tree-1", "tree-2")
    )


def test_an_idle_device_is_stopped_or_sent_home_while_it_waits(
    lab: Any, trainers: Any, make_device: Any, wait_for: Any
) -> None:
    one_at_a_time(lab)
    trainers.hold(1), trainers.hold(2)
    make_device("first").start()
    wait_for(lambda: len(trainers.events) == 1)
    patient = make_device("patient").start()
    wait_for(lambda: any("waiting for 1 trial " in line for line in patient.lines))
    assert work(lab, request_key="hasty", until=0.2).reason == "time is up"
    asked = "SELECT count(*) FROM work.suggestion_batches WHERE request_key LIKE :key"
    assert lab.one(asked, key="night/run/patient/%") == 1  # it does not ask again and again
    work(lab, request_key="restless", until=1.0, poll_seconds=0.1)
    assert lab.one(asked, key="restless/%") >= 2  # but it looks by itself when its poll says so
    patient.stopped = True
    assert patient.join().reason == "stopped"


DIVERGING = {"name": "net", "kind": "torch_mlp", "parameters": {"learning_rate": 1e30, "epochs": 2}}


@pytest.mark.journey
def test_a_device_trains_for_real_and_a_failed_trial_stops_nobody(lab: Any) -> None:
    lab.register("busy", candidates=[DIVERGING, *trees(3)])
    lines: list[str] = []
    summary = work(lab, log=lines.append)
    assert set(to_json(summary)) == {"device", "reason", "message", "handed_back", "trials", "blocked", "is_useless"}
    assert (summary.device, summary.reason, summary.handed_back) == ("cpu", "nothing left", None)
    by_name = {t.candidate: t for t in summary.trials}
    assert {k: t.state for k, t in by_name.items()} == {"net": "FAILED", "tree-3": "SUCCEEDED"}
    assert by_name["tree-3"] == trial_state(lab.worker, trial_id=by_name["tree-3"].trial_id)
    assert "\n" not in by_name["net"].failure
    assert summary.message.startswith("2 trials (")
    assert any(line.startswith(f"trial {by_name['net'].trial_id}: busy, net: ") for line in lines)  # with the reason
    assert any("fitting decision_tree" in line for line in lines)


def test_the_limits(lab: Any, trainers: Any) -> None:
    lab.register("busy", candidates=trees(1, 2, 3))
    assert to_json(work(lab, until=0.0)) | {"trials": 0} == {
        "device": "cpu",
        "reason": "time is up",
        "message": "0 trials: the time is up",
        "handed_back": None,
        "trials": 0,
        "blocked": [],
        "is_useless": False,
    }
    assert work(lab, request_key="early", should_stop=lambda: True).reason == "stopped"
    two = work(lab, max_trials=2)
    assert (two.reason, len(two.trials)) == ("enough trials", 2)
    assert two.message == "2 trials (2 succeeded): the limit of trials is reached"
    assert work(lab, max_trials=2) == two  # a further try of the same task has had its two already
    assert len(trainers.events) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"request_key": ""}, "request_key must be not empty"),
        ({"until": -1.0}, "until must be seconds, >= 0"),
        ({"until": float("nan")}, "until must be seconds, >= 0"),
        ({"max_trials": 0}, "max_trials must be >= 1 or None"),
        ({"max_trials": True}, "max_trials must be >= 1 or None"),
        ({"poll_seconds": 0.0}, "poll_seconds must be seconds, > 0"),
        ({"policy": "luck"}, "policy must be one of"),
    ],
)
def test_what_is_not_allowed(changes: Any, words: str, lab: Any) -> None:
    with pytest.raises(ConfigError, match=words):
        work(lab, "full", **changes)


def test_an_unknown_study_is_reported(lab: Any) -> None:
    with pytest.raises(NotFoundError, match="there is no study 'nowhere'"):
        work(lab, "nowhere")


def test_a_further_try_reports_what_the_one_before_has_done(lab: Any, trainers: Any) -> None:
    lab.register("busy", candidates=trees(1, 2))
    first = work(lab)
    assert [t.state for t in first.trials] == ["SUCCEEDED", "SUCCEEDED"]
    assert work(lab) == first
    lab.register("new", candidates=trees(3))
    again = work(lab, "busy", "new")  # and goes on, past the empty answers of the first
    assert again.trials[:2] == first.trials
    assert [t.study for t in again.trials[2:]] == ["new"]
    assert len(trainers.events) == 6  # three began, three ended


def test_a_stopped_device_hands_its_trial_back_at_once(
    lab: Any, trainers: Any, make_device: Any, wait_for: Any
) -> None:
    # With the default lease a heartbeat would come after 15 s only: the stop does not wait for it.
    lab.register("busy", candidates=trees(1))
    trainers.hold(1)
    device = make_device("first").start()
    wait_for(lambda: trainers.events)
    device.stopped = True
    summary = device.join()
    (trial_id,) = [t for (t,) in lab.rows("SELECT t.id FROM work.trials t WHERE t.state = 'SUGGESTED'")]
    assert trainers.events == ["begin 1", "cancel 1", "first is done"]
    assert (summary.reason, summary.handed_back, summary.trials) == ("stopped", trial_id, ())
    assert summary.message == f"0 trials: stopped from outside; trial {trial_id} was handed back"
    assert f"trial {trial_id} is handed back: it is free for the next one that asks" in device.lines
    assert states(lab) == [("tree-1", "SUGGESTED", 1)]

    trainers.held.clear()
    assert [t.trial_id for t in work(lab, request_key="other").trials] == [trial_id]
    assert states(lab) == [("tree-1", "SUCCEEDED", 2)]
    assert [t.state for t in work(lab, request_key="night/run/first").trials] == ["SUCCEEDED"]  # only reported


def test_the_next_try_trains_what_was_handed_back(lab: Any, trainers: Any, make_device: Any, wait_for: Any) -> None:
    lab.register("busy", candidates=trees(1, 2))
    trainers.hold(1), trainers.hold(2)
    device = make_device("first").start()
    wait_for(lambda: trainers.events)
    device.stopped = True
    device.join()
    trainers.held.clear()
    summary = work(lab, request_key="night/run/first")
    assert (summary.reason, len(summary.trials)) == ("nothing left", 2)
    assert {state for _, state, _ in states(lab)} == {"SUCCEEDED"}


def test_whatever_else_is_raised_the_trial_is_handed_back(lab: Any, trainers: Any) -> None:
    """As Airflow's time-out is, in the middle of a training."""
    lab.register("busy", candidates=trees(1))
    trainers.raising = KeyboardInterrupt()
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        work(lab, log=lines.append)
    assert states(lab) == [("tree-1", "SUGGESTED", 1)]
    assert "is handed back" in lines[-1]


def test_only_what_is_ours_is_handed_back(lab: Any) -> None:
    lab.register("busy", candidates=trees(1))
    (trial,) = suggest_trials(lab.worker, count=1, studies_only=["busy"], request_key="k").trials
    asked = {"trial_id": trial.trial_id, "request_key": "k"}
    assert hand_back(lab.worker, **asked)  # it was not started
    claim(lab.worker, trial_id=trial.trial_id, request_key="another")
    assert not hand_back(lab.worker, **asked)
    assert states(lab) == [("tree-1", "RUNNING", 1)]
    assert not hand_back(lab.worker, trial_id=1, request_key="hand-in")  # it has succeeded long ago
    assert trial_state(lab.worker, trial_id=1).state == "SUCCEEDED"


def test_a_trial_in_other_hands_is_left_there(lab: Any, trainers: Any, monkeypatch: Any) -> None:
    """Its reservation ran out before it began, and another device has it."""
    lab.register("busy", candidates=trees(1, 2))
    taken: list[int] = []

    def claimed(store: Any, *, trial_id: int, **given: Any) -> Any:
        if not taken:
            taken.append(trial_id)
            claim(store, trial_id=trial_id, request_key="another device")
        return claim(store, trial_id=trial_id, **given)

    monkeypatch.setattr("easeml_core.services.trials.execution.claim", claimed)
    lines: list[str] = []
    summary = work(lab, log=lines.append)
    assert summary.reason == "nothing left"
    assert [t.state for t in summary.trials] == ["SUCCEEDED"]
    assert trial_state(lab.worker, trial_id=taken[0]).state == "RUNNING"
    assert any("going on without it" in line and "RUNNING on another worker" in line for line in lines)


def test_of_two_processes_under_one_key_one_goes_home(lab: Any, trainers: Any, make_device: Any, wait_for: Any) -> None:
    """A task that Airflow believed dead is still there when its next try begins."""
    lab.register("busy", candidates=trees(1, 2, 3), training={"lease_seconds": 0.8})
    gates = [trainers.hold(d) for d in (1, 2, 3)]
    zombie = make_device("same").start()
    wait_for(lambda: len(trainers.events) == 1)
    alive = make_device("same").start()
    assert zombie.join().reason == "taken over"  # at its next heartbeat
    for gate in gates:
        gate.set()
    assert alive.join().reason == "nothing left"
    assert len(alive.summary.trials) == 3
    assert sorted(attempt for _, _, attempt in states(lab)) == [1, 1, 2]
    assert lab.one("SELECT count(*) FROM work.observations o JOIN work.trials t ON t.id = o.trial_id "
                   "JOIN work.studies s ON s.id = t.study_id WHERE s.name = 'busy'") == 3  # fmt: skip


def test_an_answer_that_somebody_else_asked_for_under_our_key_ends_this_process(lab: Any, trainers: Any) -> None:
    lab.register("busy", candidates=trees(1, 2, 3))

    def twin(line: str) -> None:
        if line.endswith("0.5 s"):  # the first trial has ended; the twin is faster with the second ask
            suggest_trials(lab.worker, count=1, studies_only=["busy"], request_key="night/run/device/0/2")

    summary = work(lab, log=twin)
    assert (summary.reason, len(summary.trials)) == ("taken over", 1)


def test_a_cancelled_trial_is_reported_and_the_next_one_begins(
    lab: Any, trainers: Any, make_device: Any, wait_for: Any
) -> None:
    lab.register("busy", candidates=trees(1, 2), training={"lease_seconds": 0.8})
    for depth in (1, 2):
        trainers.hold(depth)
    device = make_device("first").start()
    wait_for(lambda: trainers.events)
    (trial_id,) = [t for (t,) in lab.rows("SELECT id FROM work.trials WHERE state = 'RUNNING'")]
    cancel_trial(lab.worker, trial_id=trial_id)
    wait_for(lambda: len(trainers.events) == 3)
    for depth in (1, 2):
        trainers.hold(depth).set()
    assert [t.state for t in device.join().trials] == ["CANCELLED", "SUCCEEDED"]


def test_the_outlook(lab: Any) -> None:
    """By hand: three handed-in models a study have ended, three candidates of each are untried."""
    with lab.worker.begin() as tx:
        assert outlook(tx, None) == Outlook(under_way=0, left_behind=0, ended=9, untried=9)
        assert not outlook(tx, None).may_improve
        assert outlook(tx, ["nowhere"]) == Outlook(0, 0, 0, 0)
    (trial,) = suggest_trials(lab.worker, count=1, studies_only=["full"], request_key="k").trials
    with lab.worker.begin() as tx:
        # A trial of the tenant's other study counts: a quota is the tenant's.
        assert outlook(tx, ["first"]) == Outlook(under_way=1, left_behind=0, ended=9, untried=3)
        assert outlook(tx, ["full"]) == Outlook(under_way=1, left_behind=0, ended=9, untried=2)
        assert outlook(tx, ["full"]).may_improve
    lab.let_run_out(trial.trial_id)
    with lab.worker.begin() as tx:
        assert outlook(tx, ["full"]).left_behind == 1
    lab.as_superuser("UPDATE work.studies SET state = 'PAUSED' WHERE name <> 'first'")
    lab.as_superuser("UPDATE work.candidates SET devices = '[\"gpu\", \"tpu\"]' WHERE name = 'decision_tree'")
    with lab.worker.begin() as tx:
        assert outlook(tx, None).untried == 3
        assert [outlook(tx, None, device=d).untried for d in ("cpu", "tpu")] == [2, 3]
