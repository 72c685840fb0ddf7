"""The stream drive: a device that becomes free asks for its next trial at once, and waits for no other device.

The request key of each ask is the device's key and a running number. A device that is restarted under the same key
repeats its numbers: ended trials are only reported, the trial that was running is taken over, and then it continues. So
nothing is trained twice and nothing is lost.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import threading
import time
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from easeml_core.entities import TrialState
from easeml_core.errors import (
    ArtifactError,
    ConcurrentUpdateError,
    ConfigError,
    NotFoundError,
    StoreError,
    StoreUnavailableError,
    TrialStateError,
    WrongRoleError,
    counted,
)
from easeml_core.formats.encoding import typed_record
from easeml_core.services.selection.executors import TRAINERS_ONLY
from easeml_core.services.selection.scheduler_process import suggester_for
from easeml_core.services.telemetry import LEASES_LOST
from easeml_core.services.trials.attempts import execute, handing_back
from easeml_core.services.trials.devices import announced, claimed_devices, claimed_of
from easeml_core.services.trials.execution import STOP_SECONDS, attempts, trial_state
from easeml_core.services.trials.lease import silent
from easeml_core.settings.config import require
from easeml_core.settings.device_requests import devices_of
from easeml_core.store.database import CHANNEL
from easeml_core.store.listen import BlockingListener
from easeml_core.store.tables import decisions, trials
from easeml_core.store.tables.capacity import (
    LeftCandidate,
    Outlook,
    has_candidates_for,
    left_candidates,
    next_lease_end,
    outlook,
)
from easeml_core.store.tables.trials import TrialReport
from easeml_core.training.devices import NO_CLAIM, Claim
from easeml_core.training.job import require_slot
from easeml_core.training.supervisor import never
from easeml_core.training.trainers import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from easeml_core.services.selection.executors import Executors
    from easeml_core.services.selection.scheduler_process import Suggester
    from easeml_core.services.trials.lease import Log
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.decisions import SuggestedTrial

POLL_SECONDS = 60.0
"""Longest wait of a device without a trial before it asks again; notifications wake it at once."""

_AFTER_LEASE_SECONDS = 0.1
"""After the end of another worker's lease, a waiting device looks whether it was extended."""

_MOST_NAMED = 10
"""Candidates named in a message that cannot run here; the answer has all of them."""

FAILED_IN_A_ROW = 5
"""Successive failed trials, of more than one study, after which the device itself counts as faulty."""

UNREADABLE_IN_A_ROW = 3
"""Successive trials with unreadable data after which the device counts as having the wrong folder."""

_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 60.0, 60.0)
"""Seconds between two tries while the database is away; afterwards the device gives up."""


class Reason(StrEnum):
    """Why a device ended its stream."""

    NOTHING_LEFT = "nothing left"
    NOTHING_RUNNABLE = "nothing runnable"
    TIME_IS_UP = "time is up"
    ENOUGH_TRIALS = "enough trials"
    STOPPED = "stopped"
    TAKEN_OVER = "taken over"
    DEVICE_FAILS = "device fails"


_SENTENCE = {
    Reason.NOTHING_LEFT: "nothing is left to train, and no trial under way can change that",
    Reason.NOTHING_RUNNABLE: "candidates are left, and this device can run none of them",
    Reason.TIME_IS_UP: "the time is up",
    Reason.ENOUGH_TRIALS: "the limit of trials is reached",
    Reason.STOPPED: "stopped from outside",
    Reason.TAKEN_OVER: "another process works under the same request key and goes on in place of this one",
    Reason.DEVICE_FAILS: f"{FAILED_IN_A_ROW} trials of several studies failed one after the other; look at the device",
}


@dataclass(frozen=True, slots=True)
class Blocked:
    """A candidate without a result on the present data that this device cannot run.

    Attributes:
        study: The study's name.
        candidate: The candidate's name.
        needs: What it needs, for a sentence.
    """

    study: str
    candidate: str
    needs: str

    def __str__(self) -> str:
        """Name the candidate and what it needs."""
        return f"{self.candidate} of {self.study} needs {self.needs}"


@typed_record
class DeviceSummary:
    """The result of one device's stream.

    Attributes:
        device: Kind of the device; None where all are alike.
        reason: Why it ended.
        message: The same in one sentence.
        handed_back: The trial that was handed back, or None.
        trials: Every trial under the request key; of a failure only its first line.
        blocked: Where nothing is left, the candidates that the device cannot run.
        is_useless: Whether it can run no candidate of these studies at all.
    """

    device: str | None
    reason: Reason
    message: str
    handed_back: int | None
    trials: tuple[TrialReport, ...]
    blocked: tuple[Blocked, ...]
    is_useless: bool


def run_device(
    store: Store,
    artifacts: ArtifactStore,
    *,
    device: str | None,
    request_key: str,
    policy: str | None = None,
    usual_policy: str | None = None,
    studies_only: Sequence[str] | None = None,
    until: float | None = None,
    max_trials: int | None = None,
    log: Log = silent,
    should_stop: Callable[[], bool] = never,
    poll_seconds: float = POLL_SECONDS,
    slot: str | None = None,
    executors: Executors = TRAINERS_ONLY,
) -> DeviceSummary:
    """Train one trial after the other on this device until nothing is left, or a limit is reached.

    A failed trial is recorded and the next one begins. Where nothing can be suggested while trials of other devices
    are under way whose end may free something (a budget, a quota), the device waits for that.
    """
    require(bool(request_key), "request_key", request_key, "not empty: it makes the call repeatable")
    require(until is None or 0 <= until < math.inf, "until", until, "seconds, >= 0, or None for no limit")
    require(
        max_trials is None or (type(max_trials) is int and max_trials >= 1), "max_trials", max_trials, ">= 1 or None"
    )
    require(0 < poll_seconds < math.inf, "poll_seconds", poll_seconds, "seconds, > 0")
    if slot is not None:
        require_slot(slot, devices=devices_of(device))
    runtimes = tuple(name for name in RUNTIMES if shutil.which(name) is not None)
    stream = _Stream(
        store=store,
        artifacts=artifacts,
        scheduler=suggester_for(
            store,
            policy=policy,
            usual_policy=usual_policy,
            studies_only=studies_only,
            functions=executors.sources(),
            trainers=executors.trainers,
            runtimes=runtimes,
            should_stop=should_stop,
        ),
        executors=executors,
        runtimes=runtimes,
        studies_only=studies_only,
        device=device,
        request_key=request_key,
        deadline=math.inf if until is None else time.monotonic() + until,
        max_trials=math.inf if max_trials is None else max_trials,
        log=log,
        should_stop=should_stop,
        poll_seconds=poll_seconds,
        slot=slot,
    )
    with contextlib.ExitStack() as stack:
        claim: Claim | None = NO_CLAIM
        if device is not None or slot is not None or executors.functions:
            # For as long as it runs: CUDA looks at what it may use once in a process that trains with a function.
            held = claimed_devices(device, slot=slot, holder="a stream", log=log, should_stop=should_stop)
            claim = stack.enter_context(held)
        if claim is None:
            return _summary(device, Reason.STOPPED, stream)
        stream.claim = claim
        stack.enter_context(announced(store, device=device, holder=request_key, slot=slot, claim=claim, log=log))
        reason = stream.run()
    return _summary(device, reason, stream)


@dataclass(slots=True)
class _Stream:
    """One device at work: its present number, and what it has seen."""

    store: Store
    artifacts: ArtifactStore
    scheduler: Suggester
    executors: Executors
    studies_only: Sequence[str] | None
    runtimes: Sequence[str]
    device: str | None
    request_key: str
    deadline: float
    max_trials: float
    log: Log
    should_stop: Callable[[], bool]
    poll_seconds: float
    slot: str | None = None
    claim: Claim = NO_CLAIM
    number: int = 1
    reports: list[TrialReport] = field(default_factory=list)
    handed_back: int | None = None
    _walking: bool = True  # through the numbers of an earlier process
    _asked: str | None = None
    _failed: list[str] = field(default_factory=list)  # studies of the trials that failed here since the last success
    _unreadable: int = 0
    blocked: tuple[Blocked, ...] = ()
    is_useless: bool = False

    def run(self) -> Reason:
        """Take step after step; a step that the database interrupts is repeated under the same number."""
        outages = 0
        while True:
            try:
                reason = self._step()
            except (StoreUnavailableError, ConcurrentUpdateError) as error:
                if outages == len(_PAUSES):
                    raise
                self.log(f"trying again in {_PAUSES[outages]:g} s: {error}")
                self._pause(_PAUSES[outages])
                outages += 1
                continue
            if reason is not None:
                return reason
            outages = 0

    def _step(self) -> Reason | None:
        """Ask under the present number and train the trials; return the reason to end, if there is one."""
        if (end := self._end()) is not None:
            return end
        key = f"{self.request_key}/{self.number}"
        before, is_made = self._look(key)
        repeated, self._walking = key == self._asked, self._walking and is_made
        if is_made and not self._walking and not repeated:
            return Reason.TAKEN_OVER
        self._asked = key
        found = self.scheduler.ask(device=self.device, request_key=key).trials
        if found:
            return self._work(found[0], key)
        self.number += 1
        # An answer from an earlier run does not describe the present: only a fresh one is a reason to wait or to end.
        return None if self._walking or repeated else self._wait(before)

    def _end(self) -> Reason | None:
        if self.should_stop():
            return Reason.STOPPED
        if len(self.reports) >= self.max_trials:
            return Reason.ENOUGH_TRIALS
        return Reason.TIME_IS_UP if time.monotonic() >= self.deadline else None

    def _look(self, key: str) -> tuple[Outlook, bool]:
        """Return the present outlook, and whether this key has asked before."""
        with self.store.begin() as tx:
            seen = self._outlook(tx)
            try:
                decisions.batch_of_request(tx, key)
            except NotFoundError:
                return seen, False
            return seen, True

    def _outlook(self, tx: Connection) -> Outlook:
        functions = list(self.executors.functions)
        return outlook(tx, self.studies_only, device=self.device, runtimes=self.runtimes, functions=functions)

    def _work(self, trial: SuggestedTrial, key: str) -> Reason | None:
        """Train the trial that was suggested under this key, and go on to the next number."""
        self.log(f"trial {trial.trial_id}: {trial.study}, {trial.candidate}: {trial.reason}")
        if self.device is not None or self.slot is not None or self.claim.devices:
            return self._train(trial.trial_id, key, self.claim)
        with self.store.begin() as tx:
            found = trials.get_trial(tx, trial.trial_id)
        with claimed_of(found, slot=self.slot, log=self.log, should_stop=self.should_stop) as claim:
            return Reason.STOPPED if claim is None else self._train(trial.trial_id, key, claim)

    def _train(self, trial_id: int, key: str, claim: Claim) -> Reason | None:
        trained = False
        try:
            for lease in attempts(
                self.store,
                self.artifacts,
                trial_id=trial_id,
                request_key=key,
                log=self.log,
                executors=self.executors,
                should_stop=self.should_stop,
            ):
                trained = True
                try:
                    with handing_back(lease, key, self.should_stop):
                        execute(self.store, self.artifacts, lease, self.executors, slot=self.slot, claim=claim)
                finally:
                    self.handed_back = trial_id if lease.handed_back else self.handed_back
                if lease.handed_back:
                    return Reason.STOPPED
        except TrialStateError as error:
            return self._lost(trial_id, key, error)
        except (StoreUnavailableError, ConcurrentUpdateError, WrongRoleError):
            raise  # not caused by this trial
        except (ArtifactError, ConfigError, StoreError) as error:
            self._unreadable += 1
            if self._unreadable == UNREADABLE_IN_A_ROW:
                raise
            self.log(f"trial {trial_id} is left to its lease, it cannot be run here: {error}")
            self.number += 1
            return None
        return self._note(trial_id, trained=trained)

    def _lost(self, trial_id: int, key: str, error: TrialStateError) -> Reason | None:
        """Handle a lost trial: handed back, or another worker's."""
        if self.handed_back == trial_id:
            return Reason.STOPPED
        with self.store.begin() as tx:
            trial = trials.get_trial(tx, trial_id)
        if trial.state == TrialState.RUNNING and trial.lease_key == key:
            return Reason.TAKEN_OVER
        LEASES_LOST.note(1)
        self.log(f"going on without it: {error}")
        self.number += 1
        return None

    def _note(self, trial_id: int, *, trained: bool) -> Reason | None:
        """Store the report; too many successive failures of several studies mean a faulty device."""
        report = trial_state(self.store, trial_id=trial_id)
        self.number += 1
        self.reports.append(report)
        self.log(f"trial {trial_id}: {_ended(report)}")
        if not trained:
            return None
        self._unreadable = 0
        self._failed = [*self._failed, report.study] if report.state == TrialState.FAILED else []
        is_device = len(self._failed) >= FAILED_IN_A_ROW and len(set(self._failed)) > 1
        return Reason.DEVICE_FAILS if is_device else None

    def _wait(self, before: Outlook) -> Reason | None:
        """Wait for a change since ``before``, seen ahead of the last ask, or for the end of the poll interval."""
        if not before.may_improve:
            return self._nothing_left()
        self.log(
            f"nothing to train now: waiting for {counted(before.under_way, 'trial')} under way, "
            f"whose end may free one of {counted(before.untried, 'untried candidate')}"
        )
        wake, stop = min(self.deadline, time.monotonic() + self.poll_seconds), _Stop(self._end)
        with BlockingListener(self.store.dsn, CHANNEL) as listener:  # listens before the first look: nothing is missed
            while not stop.is_set() and (left := wake - time.monotonic()) > 0:
                with self.store.begin() as tx:
                    if self._outlook(tx) != before:
                        break
                    lease = next_lease_end(tx, self.studies_only)
                listener.wait(left if lease is None else min(left, lease + _AFTER_LEASE_SECONDS), stop)
        return None

    def _nothing_left(self) -> Reason:
        """Distinguish a device that has finished from one that has found nothing it can run."""
        with self.store.begin() as tx:
            left = left_candidates(tx, self.studies_only, device=self.device)
            self.is_useless = bool(left) and not has_candidates_for(
                tx, self.studies_only, device=self.device, functions=list(self.executors.functions)
            )
        found = [Blocked(c.study, c.candidate, needs) for c in left if (needs := self._needs(c))]
        self.blocked = tuple(found)
        for blocked in found[:_MOST_NAMED]:
            self.log(f"cannot run here: {blocked}")
        has_succeeded = any(report.state == TrialState.SUCCEEDED for report in self.reports)
        return Reason.NOTHING_RUNNABLE if found and not has_succeeded else Reason.NOTHING_LEFT

    def _needs(self, left: LeftCandidate) -> str | None:
        """Return what a candidate needs that this device lacks; None where it could run here."""
        function = left.candidate.partition("-")[0] if left.kind == "function" else None
        if function is not None and function not in self.executors.functions:
            return f"its training function {function!r}, which an Airflow task with `@trial` has"
        if not left.is_offered:
            return f"a device of the kind {' or '.join(map(repr, left.devices or ()))}, this one is {self.device!r}"
        if left.kind == "container" and shutil.which(left.runtime or "docker") is None:
            return f"{left.runtime or 'docker'}, which is not installed on this machine"
        return None

    def _pause(self, seconds: float) -> None:
        wake = time.monotonic() + seconds
        while (left := wake - time.monotonic()) > 0 and self._end() is None:
            time.sleep(min(left, STOP_SECONDS))


class _Stop(threading.Event):
    """An event that is set while there is a reason to end."""

    def __init__(self, end: Callable[[], Reason | None]) -> None:
        super().__init__()
        self._end = end

    def is_set(self) -> bool:
        return self._end() is not None


def _named(blocked: Sequence[Blocked]) -> str:
    more = len(blocked) - _MOST_NAMED
    return "; ".join(map(str, blocked[:_MOST_NAMED])) + (f"; and {more:,} more" if more > 0 else "")


def _summary(device: str | None, reason: Reason, stream: _Stream) -> DeviceSummary:
    """Sum up the stream; of a failure only its first line, since a crash prints much and a stream is long."""
    reports = tuple(replace(r, failure=(r.failure or "").partition("\n")[0] or None) for r in stream.reports)
    states = [str(r.state).lower() for r in reports]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    back = f"; trial {stream.handed_back} was handed back" if stream.handed_back is not None else ""
    sentence = _SENTENCE[reason]
    if stream.blocked:
        beside = "" if reason is Reason.NOTHING_RUNNABLE else ", but for what this device cannot run"
        sentence += f"{beside}: {_named(stream.blocked)}"
    return DeviceSummary(
        device=device,
        reason=reason,
        message=f"{counted(len(reports), 'trial')}{f' ({counts})' if counts else ''}: {sentence}{back}",
        handed_back=stream.handed_back,
        trials=reports,
        blocked=stream.blocked,
        is_useless=stream.is_useless,
    )


def _ended(report: TrialReport) -> str:
    """Describe how a trial ended, for the log: its result, or the reason of its failure."""
    reached = "" if report.quality is None else f", quality {report.quality:.4f}"
    took = "" if report.cost_seconds is None else f", {report.cost_seconds:,.1f} s"
    why = f": {report.failure}" if report.failure else ""
    return f"{report.state}{reached}{took}{why}"
