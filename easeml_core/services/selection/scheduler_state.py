"""The scheduler's state in memory: loaded once, then updated with what has changed.

The state equals, bit for bit, what a load would give; ``catch_up`` returns False when an update cannot reach that.
Starts are added in the order of the trials' ids and ends in the order of their time, as a load does.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easeml_core.entities import StudyState
from easeml_core.errors import NotFoundError
from easeml_core.selection.suggestion import scheduler_for, suggestion_of
from easeml_core.services.selection.policy import asker_of, current_config
from easeml_core.services.selection.problem import (
    arm_of,
    build_problem,
    past_candidates,
    results_by_version,
    runnable_candidates,
)
from easeml_core.store.tables import decisions, model_life, studies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from easeml_core.entities import Study, Tenant
    from easeml_core.selection.problem import Arms, Problem
    from easeml_core.selection.scheduler_interface import Scheduler
    from easeml_core.selection.suggestion import Suggestion
    from easeml_core.settings.config import SelectionConfig
    from easeml_core.store.tables.decisions import KnownTrial, Look, Menu

    Place = tuple[int, int]
    End = tuple[datetime, int]


LATEST = 1000
"""Ends of which the order is known; one that becomes visible after so many later ones makes the state be loaded."""


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """A trial that had not ended at the last look; ``place`` is None where the scheduler does not see it."""

    study_id: int
    place: Place | None
    device: str | None
    lost_seconds: float
    limit_seconds: float | None


@dataclass(slots=True)
class Memory:
    """Scheduler, studies and trials as of the last look.

    Attributes:
        config: Policy and its settings.
        active: The studies chosen from, by id.
        owners: All tenants, by name.
        menus: Candidates of each study in the order of its arms, by id of the study.
        versions: Newest data version of each study, by id.
        problem: What the scheduler was made from.
        scheduler: All active studies, after all trials that were seen.
        costs_known: Whether anything was ever measured, so that a predicted cost means something.
        stamp: Catalogue and settings that this was loaded under.
        offered_at: When the caller's implementations were recorded last; first, when this was loaded.
        last_trial: Largest id of a trial that was seen.
        latest: The last ends that the scheduler knows, in their order, ``LATEST`` at most.
        open: Trials that have not ended, by id.
        kinds: Kinds of device of the trials seen; None stands for trials without one.
        is_used_up: A limit has changed in a way that only a load can find.
        awaits_retry: A trial that failed because of its task can be retried, once its budget allows it.
    """

    config: SelectionConfig
    active: Mapping[int, Study]
    owners: Mapping[str, Tenant]
    menus: Mapping[int, Menu]
    versions: Mapping[int, int]
    problem: Problem
    scheduler: Scheduler
    costs_known: bool
    stamp: tuple[int, int | None]
    offered_at: datetime
    last_trial: int = 0
    latest: list[End] = field(default_factory=list)
    open: dict[int, OpenTrial] = field(default_factory=dict)
    kinds: set[str | None] = field(default_factory=set)
    is_used_up: bool = False
    awaits_retry: bool = False
    _index: dict[int, int] = field(default_factory=dict)
    _deadlines: list[tuple[int, datetime]] = field(default_factory=list)
    _closed: set[int] = field(default_factory=set)

    @classmethod
    def load(
        cls,
        tx: Connection,
        seen: Look,
        *,
        policy: str | None,
        studies_only: Sequence[str] | None,
        functions: Sequence[str] = (),
        trainers: bool = True,
        runtimes: Sequence[str] | None = None,
    ) -> Memory:
        """Load everything; the caller holds the lock ``suggest``."""
        config, active = current_config(tx, policy), active_studies(tx, studies_only)
        trials, versions = decisions.all_trials(tx), studies.latest_data_versions(tx)
        results = results_by_version(trials)
        menus = decisions.menus(tx, [s.id for s in active], functions=functions, trainers=trainers, runtimes=runtimes)
        names = {number: name for menu in menus.values() for number, name in zip(menu.ids, menu.names, strict=True)}
        names |= decisions.candidate_names(tx, sorted(past_candidates(active, versions, results) - names.keys()))
        parts, lost = studies.training_parts(tx), model_life.lost_candidates(tx)
        menus = runnable_candidates(active, menus, versions, results, training_parts=parts, lost=lost)
        owners = {t.name: t for t in studies.list_tenants(tx)}
        problem = build_problem(
            active,
            menus,
            versions,
            results,
            rows=studies.training_rows(tx),
            tenants=owners.values(),
            names=names,
        )
        memory = cls(
            config=config,
            active={s.id: s for s in active},
            owners=owners,
            menus=menus,
            versions=versions,
            problem=problem,
            scheduler=scheduler_for(problem, config=config, ask=asker_of(config.policy)),
            costs_known=_any_cost(problem),
            stamp=(seen.catalogue, seen.settings_id),
            offered_at=seen.now,
        )
        memory._remember(trials)
        return memory

    def _remember(self, trials: Sequence[KnownTrial]) -> None:
        """Index the loaded trials."""
        self._index = {arms.study_id: i for i, arms in enumerate(self.problem.studies)}
        limits = ((self._index.get(s.id), s.deadline) for s in self.active.values())
        self._deadlines = [(tenant, end) for tenant, end in limits if tenant is not None and end is not None]
        self.kinds = {t.device for t in trials}
        self.last_trial = max((t.id for t in trials), default=0)
        known = (trials[int(pull.order)] for pull in self.problem.in_order()[-LATEST:])
        self.latest = [(t.finished_at, t.id) for t in known if t.finished_at is not None]
        for t in trials:
            if t.finished_at is None:
                self.open[t.id] = self._opened(t)

    @property
    def arms(self) -> tuple[Arms, ...]:
        """The studies as the scheduler sees them."""
        return self.problem.studies

    # -- what has changed ---------------------------------------------------------------------------------------------

    def is_current(self, seen: Look) -> bool:
        """Return whether nothing has changed since the last look; a deadline changes answers as time passes."""
        return (
            not (self.is_used_up or self._deadlines)
            and self.stamp == (seen.catalogue, seen.settings_id)
            and len(seen.trials) == len(self.open)
            and all(t.finished_at is None and t.id in self.open and self._is_as_known(t) for t in seen.trials)
        )

    def _is_as_known(self, trial: KnownTrial) -> bool:
        known = self.open[trial.id]
        return (trial.device, trial.lost_seconds, trial.limit_seconds) == (
            known.device,
            known.lost_seconds,
            known.limit_seconds,
        )

    def catch_up(self, seen: Look) -> bool:
        """Apply what has changed; False when everything must be loaded again and this state discarded."""
        if self.is_used_up or self.stamp != (seen.catalogue, seen.settings_id):
            return False
        known = [t for t in seen.trials if t.id in self.open]
        started = [t for t in seen.trials if t.id not in self.open]
        ended = sorted((t for t in seen.trials if t.finished_at is not None), key=lambda t: (t.finished_at, t.id))
        if len(known) != len(self.open) or not all(self._agrees(t) for t in known):
            return False
        if not (all(self._start(t) for t in started) and all(self._end(t) for t in ended)):
            return False
        for tenant, deadline in self._deadlines:
            self.scheduler.set_seconds_left(tenant, (deadline - seen.now).total_seconds())
        return True

    def _agrees(self, trial: KnownTrial) -> bool:
        """Return whether a known trial is on the same device, and charged as before where that matters."""
        known = self.open[trial.id]
        same = (trial.lost_seconds, trial.limit_seconds) == (known.lost_seconds, known.limit_seconds)
        if not same:
            self.open[trial.id] = self._opened(trial)
        return trial.device == known.device and (same or not self._is_charged(trial.study_id))

    def _start(self, trial: KnownTrial) -> bool:
        """Add a trial that another caller was given; False where it is hidden or charged to a quota."""
        opened = self._opened(trial)
        self.open[trial.id] = opened
        self.last_trial = max(self.last_trial, trial.id)
        if opened.place is None or self._has_quota(trial.study_id):
            return False
        self.scheduler.start(*opened.place, device=trial.device)
        return True

    def _end(self, trial: KnownTrial) -> bool:
        """Add the end of a trial; False where it has no result, is not of the present data, or comes far too late."""
        assert trial.finished_at is not None
        place, end = self.open.pop(trial.id).place, (trial.finished_at, trial.id)
        if place is None or trial.cost_seconds is None or self._has_quota(trial.study_id):
            return False
        later = len(self.latest) - bisect_right(self.latest, end)
        if later and not self._can_insert(trial, later):
            return False
        insort(self.latest, end)
        del self.latest[:-LATEST]
        self.costs_known = True
        self.scheduler.record(*place, trial.quality, trial.cost_seconds, device=trial.device, later=later)
        if trial.start_seconds is not None:
            self.scheduler.charge(place[0], trial.start_seconds)
        return True

    def _can_insert(self, trial: KnownTrial, later: int) -> bool:
        """Return whether an end can be put into its place, which is before ``later`` known ones.

        It must not be one that a load would count before a study came, nor have a further charge: charges are added in
        the order of the ends, and another order could be rounded otherwise.
        """
        assert trial.finished_at is not None
        joined = max((s.joined_at for s in self.active.values() if s.joined_at is not None), default=None)
        is_after = joined is None or joined <= trial.finished_at
        return later < LATEST and is_after and trial.start_seconds is None

    def _opened(self, trial: KnownTrial) -> OpenTrial:
        place = self._place(trial)
        self.kinds.add(trial.device)
        return OpenTrial(trial.study_id, place, trial.device, trial.lost_seconds, trial.limit_seconds)

    def _place(self, trial: KnownTrial) -> Place | None:
        """Return the trial's study and arm; None when it is of other data or of a study not chosen from."""
        tenant = self._index.get(trial.study_id)
        if tenant is None or self.versions[trial.study_id] != trial.data_version_id:
            return None
        arm = arm_of(self.menus[trial.study_id], trial.candidate_id)
        return None if arm is None else (tenant, arm)

    def _is_charged(self, study_id: int) -> bool:
        """Return whether a budget or quota depends on the study's lost seconds."""
        study = self.active.get(study_id)
        return study is None or study.budget_seconds is not None or self._has_quota(study_id)

    def _has_quota(self, study_id: int) -> bool:
        """Return whether the tenant has a quota of seconds, whose rest is computed from all its trials."""
        study = self.active.get(study_id)
        return study is not None and self.owners[study.tenant].quota_seconds is not None

    # -- what runs next -----------------------------------------------------------------------------------------------

    def suggest(self, device: str | None) -> Suggestion | None:
        """Return the next trial; it counts as started once it is handed out."""
        return suggestion_of(self.scheduler, self.arms, config=self.config, device=device)

    def close(self, study_id: int) -> None:
        """Leave a study out whose limits have refused a trial, until ``reopen``."""
        self._closed.add(self._index[study_id])
        self.scheduler.set_seconds_left(self._index[study_id], 0.0)

    def reopen(self, now: datetime) -> None:
        """Let the closed studies have trials again, until their deadlines."""
        deadlines = dict(self._deadlines)
        for tenant in sorted(self._closed):
            left = (deadlines[tenant] - now).total_seconds() if tenant in deadlines else math.inf
            self.scheduler.set_seconds_left(tenant, left)
        self._closed.clear()

    def hand_out(self, trial_id: int, suggestion: Suggestion, *, device: str | None, limit: float | None) -> None:
        """Record the trial that was made from the suggestion."""
        place = self._index[suggestion.study_id], suggestion.arm
        self.scheduler.start(*place, device=device)
        self.open[trial_id] = OpenTrial(suggestion.study_id, place, device, 0.0, limit)
        self.kinds.add(device)
        self.last_trial = max(self.last_trial, trial_id)
        self.is_used_up |= self._has_quota(suggestion.study_id)


def active_studies(tx: Connection, names: Sequence[str] | None) -> list[Study]:
    """The active studies, or those of these names."""
    active = studies.list_studies(tx, state=StudyState.ACTIVE)
    if names is None:
        return active
    known = {s.name for s in studies.list_studies(tx)}
    for name in names:
        if name not in known:
            raise NotFoundError(kind="study", name=name, known=known)
    return [s for s in active if s.name in set(names)]


def _any_cost(problem: Problem) -> bool:
    return bool(problem.pulls) or any(cost is not None for past in problem.history for cost in past.costs)
