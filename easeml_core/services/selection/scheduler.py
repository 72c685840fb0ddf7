"""Choose the next trials over all studies, and store each with its reasons.

A ``LiveScheduler`` keeps its state between calls; ``suggest_trials`` makes one for a single call. Each decision is one
transaction under the lock ``suggest``: it reads what has changed since the last call (``scheduler_state.py``), chooses
and writes the next trials, and commits. What takes seconds with many results, to load or to learn, comes before it,
without the lock. When the transaction fails, or a change cannot be applied to the state, everything is loaded again, so
a scheduler that has run for weeks decides as one that was started now.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.errors import BudgetExhaustedError, counted
from easeml_core.formats.encoding import row_of, to_stored_json, typed_record
from easeml_core.selection.blas_threads import one_thread
from easeml_core.selection.suggestion import OF_OTHER_TENANT, RIVAL_WORDS, RunnerUp
from easeml_core.services.selection.policy import require_policy
from easeml_core.services.selection.retry import changed_tasks, retry_all
from easeml_core.services.selection.scheduler_state import Memory
from easeml_core.services.studies.limits import renewal, reservation
from easeml_core.services.telemetry import DECISION_SECONDS, span
from easeml_core.settings.config import TrainingConfig, require
from easeml_core.settings.device_requests import check_device_request, weight_of
from easeml_core.store.database import notify, notify_pages, savepoint
from easeml_core.store.tables import capacity, decisions, leases, trials
from easeml_core.store.tables.decisions import Batch, SuggestedTrial

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from easeml_core.entities import JsonObject, Study, Trial
    from easeml_core.selection.suggestion import Suggestion
    from easeml_core.store.database import Store
    from easeml_core.store.tables.decisions import Look, Menu


@dataclass(frozen=True, slots=True)
class NamedRunnerUp(RunnerUp):
    """The second best, with the names of its study and candidate: an arm means nothing once candidates change."""

    study: str
    candidate: str


class StoredReasons(NamedTuple):
    """The reasons as they are stored.

    Attributes:
        reasons: JSON of the suggestion, its runner-up with names: what the study's tenant reads.
        rival: Runner-up and sentence, where these name a study of another tenant; ``reasons`` has none of it then.
    """

    reasons: JsonObject
    rival: JsonObject | None


def stored_reasons(suggestion: Suggestion, studies: Mapping[int, Study], arms: Mapping[int, Menu]) -> StoredReasons:
    """Return the reasons as they are stored."""
    rival = suggestion.runner_up
    if rival is not None:
        study, candidate = studies[rival.study_id].name, arms[rival.study_id].names[rival.arm]
        named = NamedRunnerUp(**row_of(rival), study=study, candidate=candidate)
        suggestion = replace(suggestion, runner_up=named)
    stored: JsonObject = {
        name: value for name, value in to_stored_json(suggestion).items() if name != "instead_of" or value
    }
    if rival is None or studies[rival.study_id].tenant == studies[suggestion.study_id].tenant:
        return StoredReasons(stored, None)
    apart = {"runner_up": stored["runner_up"], "sentence": stored["sentence"]}
    sentence = suggestion.sentence.partition(RIVAL_WORDS)[0] + RIVAL_WORDS + OF_OTHER_TENANT
    return StoredReasons({**stored, "runner_up": None, "of_other_tenant": True, "sentence": sentence}, apart)


@typed_record
class Suggestions:
    """The trials to run next, with a summary in one sentence."""

    policy: str
    trials: tuple[SuggestedTrial, ...]
    message: str

    @classmethod
    def of(cls, policy: str, found: Sequence[SuggestedTrial]) -> Suggestions:
        """Return the answer with these trials."""
        return cls(policy, tuple(found), counted(len(found), "trial") if found else _NOTHING)


OFFER_EVERY = timedelta(minutes=1)
"""How often a process records that it asks for trials; ``queries/study.py`` counts it for a week."""

TRIES_AHEAD = 2
"""How often a decision gives the lock back to load everything, or to learn anew, without it; either takes seconds, and
every other decision would wait. The last try does both under the lock."""

MOST_SUGGESTED = 1000
"""Trials of one call."""

RESERVE_SECONDS = 3600.0
"""How long a suggested trial is reserved for the caller; if it was not started, it is then suggested again."""

_NOTHING = (
    "nothing to train: every candidate of the active studies has run on the present data, is under way, needs another "
    "kind of device, or a training function or a trainer that the caller lacks, or is beyond a limit (budget, "
    "deadline, target, quota); `easeml status` says what holds each study"
)


def require_askable(count: int, device: str | None, request_key: str) -> None:
    """Check what trials are asked for with."""
    is_count = type(count) is int and 1 <= count <= MOST_SUGGESTED
    require(is_count, "count", count, f"a whole number from 1 to {MOST_SUGGESTED}")
    require(bool(request_key), "request_key", request_key, "not empty: it makes the call repeatable")
    if device is not None:
        check_device_request("device", device)


class LiveScheduler:
    """Suggests trials of one choice of studies under one policy; safe to share between threads.

    Args:
        store: Role ``easeml_worker``.
        policy: One of ``easeml_core.settings.config.POLICIES``; None for that of the installation, see ``policy.py``.
        studies_only: Names of the studies to choose from; None for all active ones.
        functions: Names of the caller's training functions (``@trial``), or these with the hashes of their sources:
            candidates of other functions are not suggested. None stands for a source that is not known.
        trainers: Whether the caller has the trainers of this package too, which every other candidate needs.
        runtimes: Container programs of the caller's machine, of ``docker`` and ``podman``: candidates of others are not
            suggested; None where that is not known, for instance in a task whose trials run in other tasks.

    Raises:
        ConfigError: There is no such policy.
        NotFoundError: It is not installed here.
    """

    def __init__(
        self,
        store: Store,
        *,
        policy: str | None = None,
        studies_only: Sequence[str] | None = None,
        functions: Collection[str] | Mapping[str, str | None] = (),
        trainers: bool = True,
        runtimes: Collection[str] | None = None,
    ) -> None:
        if policy is not None:
            require_policy(policy)
        self._store, self._policy = store, policy
        self._only = None if studies_only is None else tuple(studies_only)
        self.functions, self.trainers = tuple(functions), trainers
        self.runtimes = None if runtimes is None else tuple(runtimes)
        given = functions if isinstance(functions, Mapping) else {}
        self._sources = {name: source for name, source in given.items() if source is not None}
        self._memory: Memory | None = None
        self._mutex = threading.Lock()

    def ask(self, *, count: int = 1, device: str | None = None, request_key: str) -> Suggestions:
        """Suggest up to ``count`` trials, and store them with their reasons; arguments as in ``suggest_trials``."""
        require_askable(count, device, request_key)
        begun = time.monotonic()
        with span("easeml.suggest", count=count), self._mutex, one_thread():
            for left in reversed(range(TRIES_AHEAD + 1)):
                memory, self._memory = self._memory, None  # kept only once everything is committed
                if memory is None and left:
                    memory = self._load_ahead(request_key)
                if memory is not None:
                    memory.scheduler.refit()
                try:
                    with (
                        uncollected() if memory is None else contextlib.nullcontext(),
                        self._store.begin() as tx,
                    ):
                        answer, memory = self._answer(tx, memory, count, device, request_key, is_last_try=not left)
                except _NotReadyError:
                    continue
                self._memory = memory
                if answer is not None:
                    DECISION_SECONDS.note(time.monotonic() - begun)
                    return answer
        raise AssertionError  # the last try decides

    def _load_ahead(self, request_key: str) -> Memory | None:
        """Load the whole state without the lock, so that others decide meanwhile; None where the key has its batch.

        What has changed since is taken in under the lock.
        """
        with uncollected(), self._store.snapshot() as tx:
            seen = decisions.glance(tx, request_key=request_key)
            if seen.batch_id is not None:
                return None
            memory = self.load(tx, seen)
            memory.offered_at = seen.now - 2 * OFFER_EVERY  # nothing is recorded yet, and no failure asked about
            memory.awaits_retry = True
            return memory

    def _answer(
        self,
        tx: Connection,
        memory: Memory | None,
        count: int,
        device: str | None,
        request_key: str,
        *,
        is_last_try: bool = True,
    ) -> tuple[Suggestions | None, Memory | None]:
        """Return the answer, and the state to keep once it is committed.

        No answer where trials have been retried or taken back from lost workers, and it is not the last try: they are
        committed as they are, free for any caller, and everything is loaded without the lock.
        """
        self._memory = memory  # stays, where the lock is not free in time: nothing is taken in yet
        seen = _look(tx, memory, request_key)  # under the lock from here on: one decision at a time
        self._memory = None
        if seen.batch_id is not None:
            return Suggestions.of(*decisions.batch_of_request(tx, request_key)), memory
        if memory is not None and not memory.catch_up(seen):
            if not is_last_try and not any(t.failure_kind is not None for t in seen.trials):
                raise _NotReadyError  # after a failure, trials may be retried: that comes before the load
            memory = None
        if memory is not None and memory.scheduler.needs_refit and not is_last_try:
            # With what has been taken in: it is committed, and the next look has the failures no more.
            memory.awaits_retry |= any(t.failure_kind is not None for t in seen.trials)
            self._memory = memory
            raise _NotReadyError
        offered_at = seen.now if memory is None else memory.offered_at
        is_due = memory is None or seen.now - offered_at > OFFER_EVERY
        if is_due:
            leases.note_offer(tx, functions=self.functions, trainers=self.trainers, studies=self._only)
            offered_at = seen.now
        failed = self._failed_tasks(tx, memory, seen)
        if retry_all(tx, failed):
            memory = None
        left_behind = is_due or memory is None or any(t.is_over for t in seen.trials)
        if left_behind and leases.expire_leases(tx):
            memory = None
        if memory is None and not is_last_try:
            return None, None
        now = _Round(self, tx, seen, memory or self.load(tx, seen), Batch(request_key, "", count), device)
        now.fill(left_behind=left_behind)
        return Suggestions.of(now.batch.policy, now.given), now.kept(awaits_retry=bool(failed), offered_at=offered_at)

    def _failed_tasks(self, tx: Connection, memory: Memory | None, seen: Look) -> list[int]:
        """Return the trials to retry; asks the database only where there can be one that was not there before.

        The sources and the version of this process do not change, and a new state of studies or data is a new memory.
        """
        if memory is None or memory.awaits_retry or any(t.failure_kind is not None for t in seen.trials):
            return changed_tasks(tx, sources=self._sources, trainers=self.trainers, studies_only=self._only)
        return []

    def load(self, tx: Connection, seen: Look) -> Memory:
        """Load the whole state."""
        return Memory.load(
            tx,
            seen,
            policy=self._policy,
            studies_only=self._only,
            functions=self.functions,
            trainers=self.trainers,
            runtimes=self.runtimes,
        )


class _NotReadyError(Exception):
    """The state in memory cannot be brought up to date, or has something to learn that takes long."""


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Suspend garbage collection while hundreds of thousands of lasting objects are made; saves a sixth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _look(tx: Connection, memory: Memory | None, request_key: str) -> Look:
    if memory is None:
        return decisions.look(tx, request_key=request_key)
    return decisions.look(tx, request_key=request_key, last=memory.last_trial, known=list(memory.open))


class _Round:
    """One batch while it is filled: left-over trials first, then new ones.

    First are those of a tenant that has less than its share of the trials under way, by weight. Those of any other
    tenant are given where the policy chooses their study, or nothing else is left: a tenant that hands many trials back
    gets no more of the devices than the policy gives it.
    """

    def __init__(
        self, live: LiveScheduler, tx: Connection, seen: Look, memory: Memory, batch: Batch, device: str | None
    ) -> None:
        self.live, self.tx, self.seen, self.memory, self.device = live, tx, seen, memory, device
        self.batch = batch._replace(policy=memory.config.policy)
        self.given: list[SuggestedTrial] = []
        self._closed: set[int] = set()  # their limits refused a trial: nothing more in this round
        self._waiting: list[Trial] = []  # left over, of tenants that have their share
        self._is_stale = False

    def fill(self, *, left_behind: bool) -> None:
        """Suggest as many trials as requested, or as there are; an empty batch is stored too."""
        if left_behind:
            left = trials.left_over_trials(
                self.tx,
                list(self.memory.active),
                device=self.device,
                functions=self.live.functions,
                trainers=self.live.trainers,
                runtimes=self.live.runtimes,
            )
            shares = _Shares.of(self.tx, self.memory) if left else None
            for trial in left:
                tenant = self.memory.active[trial.study_id].tenant
                if shares is not None and not shares.is_below(tenant):
                    self._waiting.append(trial)
                elif len(self.given) < self.batch.requested and self._again(trial) and shares is not None:
                    shares.under_way[tenant] += 1
        while len(self.given) < self.batch.requested and self._suggest_new():
            pass
        for trial in self._waiting:  # the policy has nothing more to choose
            if len(self.given) < self.batch.requested:
                self._again(trial)
        self.memory.reopen(self.seen.now)
        self._batch_id()

    def kept(self, *, awaits_retry: bool, offered_at: datetime) -> Memory | None:
        """Return the state with these facts of the call, or None where it lacks what this round has written."""
        self.memory.awaits_retry, self.memory.offered_at = awaits_retry, offered_at
        return None if self._is_stale or self.memory.is_used_up else self.memory

    def _batch_id(self) -> int:
        """Return the batch's id, after adding it if needed."""
        if self.batch.id is None:
            key, policy, requested, _ = self.batch
            made = decisions.add_batch(self.tx, request_key=key, policy=policy, requested=requested)
            self.batch = self.batch._replace(id=made)
        assert self.batch.id is not None  # the look, under the lock, has found none
        return self.batch.id

    # -- trials that are left over ------------------------------------------------------------------------------------

    def _again(self, trial: Trial) -> bool:
        """Suggest a left-over trial again, with a reservation for another attempt, or end it; whether it was given."""
        study = self.memory.active[trial.study_id]
        notify_pages(self.tx, trial.study)
        if study.deadline is not None and study.deadline <= self.seen.now:
            trials.request_cancel(self.tx, trial.id)
            notify(self.tx, f"trial:{trial.id}")
            self._is_stale = True
        elif not self._renew(trial, study):
            leases.give_up(self.tx, trial.id, why="its worker was lost, and too little of the compute budget is left")
            notify(self.tx, f"trial:{trial.id}")
            self._is_stale = True
        else:
            if trial.device != self.device:
                trials.set_device(self.tx, trial.id, self.device)
                self._is_stale = True
            reasons = {"policy": self.batch.policy, "sentence": _left_over_sentence(trial)}
            decisions.add_suggestion(
                self.tx,
                batch_id=self._batch_id(),
                position=len(self.given),
                trial_id=trial.id,
                reasons=reasons,
                reserve_seconds=RESERVE_SECONDS,
            )
            self._note(trial.id, trial.study, trial.candidate, reasons["sentence"])
            return True
        return False

    def _renew(self, trial: Trial, study: Study) -> bool:
        """Reserve for another attempt, where anything limits the trial; False when too little is left.

        A savepoint confines the refusal: a study that has spent its budget must not end the decision for other studies.
        """
        if trial.limit_seconds is None:
            return True
        limit = renewal(
            limit=trial.limit_seconds,
            lost=trial.lost_seconds,
            left=capacity.seconds_left(self.tx, trial.study_id) or 0.0,
            time_limit_seconds=_time_limit(study),
            devices=weight_of(self.device),
            before=weight_of(trial.device),
        )
        if limit is None or limit == trial.limit_seconds:
            return limit is not None
        try:
            with savepoint(self.tx):
                capacity.reserve(self.tx, trial.id, limit)
        except BudgetExhaustedError:
            return False
        self._is_stale = True
        return True

    # -- new trials ---------------------------------------------------------------------------------------------------

    def _suggest_new(self) -> bool:
        """Add one new trial, or close the study whose limits refuse it; return whether more may follow."""
        if self._is_stale:
            self.memory, self._is_stale = self.live.load(self.tx, self.seen), False
            for study_id in self._closed & self.memory.menus.keys():
                self.memory.close(study_id)
        suggestion = self.memory.suggest(self.device)
        if suggestion is None:
            return False
        for trial in self._waiting:
            if trial.study_id == suggestion.study_id:
                self._waiting.remove(trial)
                self._again(trial)
                return True
        if not self._add(suggestion):
            self._closed.add(suggestion.study_id)
            self.memory.close(suggestion.study_id)
        return True

    def _add(self, suggestion: Suggestion) -> bool:
        """Add the trial; False when study or tenant has too little left for it."""
        memory, study, limit = self.memory, self.memory.active[suggestion.study_id], None
        owner = memory.owners[study.tenant]
        if study.budget_seconds is not None or owner.quota_seconds is not None:
            limit = reservation(
                left=capacity.seconds_left(self.tx, study.id) or 0.0,
                time_limit_seconds=_time_limit(study),
                predicted_seconds=suggestion.predicted_cost_seconds if memory.costs_known else None,
                devices=weight_of(self.device),
            )
            if limit is None:
                return False
        # Only a limit can refuse the trial, and setting one waits for this decision.
        may_refuse = limit is not None or owner.max_parallel is not None
        menu = memory.menus[study.id]
        stored = stored_reasons(suggestion, memory.active, memory.menus)
        try:
            with savepoint(self.tx) if may_refuse else contextlib.nullcontext():
                batch_id, trial_id = decisions.add_decision(
                    self.tx,
                    batch=self.batch,
                    position=len(self.given),
                    study=study,
                    candidate_id=menu.ids[suggestion.arm],
                    data_version_id=memory.versions[study.id],
                    device=self.device,
                    limit_seconds=limit,
                    reasons=stored.reasons,
                    rival=stored.rival,
                    reserve_seconds=RESERVE_SECONDS,
                )
        except BudgetExhaustedError:
            return False
        self.batch = self.batch._replace(id=batch_id)
        memory.hand_out(trial_id, suggestion, device=self.device, limit=limit)
        self._note(trial_id, study.name, menu.names[suggestion.arm], suggestion.sentence)
        return True

    def _note(self, trial_id: int, study: str, candidate: str, reason: str) -> None:
        self.given.append(SuggestedTrial(trial_id, study, candidate, reason))


@dataclass(frozen=True, slots=True)
class _Shares:
    """What each tenant has of the trials under way.

    Attributes:
        weights: Of the tenants with active studies, > 0.
        under_way: Trials that a worker holds, or was given and has not started yet, by tenant.
    """

    weights: Mapping[str, float]
    under_way: Counter[str]

    @classmethod
    def of(cls, tx: Connection, memory: Memory) -> _Shares | None:
        """Return the shares; None where all studies are one tenant's, which has them all."""
        weights = {study.tenant: memory.owners[study.tenant].weight for study in memory.active.values()}
        if len(weights) < 2:
            return None
        return cls(weights, Counter(trials.under_way_by_tenant(tx, list(memory.active))))

    def is_below(self, tenant: str) -> bool:
        """Whether one more trial leaves the tenant within its share."""
        share = self.weights[tenant] / sum(self.weights.values())
        return self.under_way[tenant] < share * (self.under_way.total() + 1)


def _left_over_sentence(trial: Trial) -> str:
    why = f"its worker was lost in attempt {trial.attempt}" if trial.attempt else "an earlier run left it behind"
    return f"{trial.study}: {trial.candidate} is given again, {why}"


def _time_limit(study: Study) -> float:
    return TrainingConfig.from_json(study.config.get("training") or {}).time_limit_seconds


def suggest_trials(
    store: Store,
    *,
    count: int,
    policy: str | None = None,
    studies_only: Sequence[str] | None = None,
    device: str | None = None,
    functions: Collection[str] | Mapping[str, str] = (),
    trainers: bool = True,
    request_key: str,
) -> Suggestions:
    """Suggest up to ``count`` trials over all active studies, and store them with their reasons.

    Trials that an earlier run left behind come first, while their tenant has less than its share of the trials under
    way by weight; others come where the policy chooses their study. No candidate is suggested twice for the same data,
    also none that failed or was cancelled on it, except after a failure of its task (``retry.py``). Where a budget or a
    quota holds, a trial reserves device seconds: see ``services/studies/limits.py``.

    Args:
        store: Role ``easeml_worker``.
        count: How many at most, 1 to 1000.
        policy: As in ``LiveScheduler``, and so are ``studies_only`` and ``trainers``.
        studies_only: Names of the studies to choose from; None for all active ones.
        device: Kind of the free device, such as ``gpu``; candidates that need another one are left out. None means
            that every candidate can run.
        functions: As in ``LiveScheduler``. With the hashes of their sources (``executors.source_hash``), a trial that
            failed because of an earlier source is retried.
        trainers: Whether the caller has the trainers of this package.
        request_key: Makes the call repeatable: the same key gives the same trials.

    Returns:
        The trials, possibly none.

    Raises:
        ConfigError: Count, policy or device is not allowed.
        NotFoundError: One of the studies does not exist.
    """
    scheduler = LiveScheduler(store, policy=policy, studies_only=studies_only, functions=functions, trainers=trainers)
    return scheduler.ask(count=count, device=device, request_key=request_key)
