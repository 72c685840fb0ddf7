"""The installation as a scheduler has it in memory: loaded once, then brought up to date with what has changed.

Whatever is kept here equals, bit for bit, what would be loaded anew; ``catch_up`` says when that cannot be had by
adding to it. Starts are added in the order of the trials' ids, ends in the order of their time, as a loaded scheduler
takes them in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easeml_core.entities import StudyState
from easeml_core.errors import NotFoundError
from easeml_core.selection.suggestion import scheduler_for, suggestion_of
from easeml_core.services.selection.policy import current_config
from easeml_core.services.selection.problem import (
    arm_of,
    build_problem,
    past_candidates,
    results_by_version,
    runnable_candidates,
)
from easeml_core.store.tables import decisions, studies

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from easeml_core.config import SelectionConfig
    from easeml_core.entities import Study, Tenant
    from easeml_core.selection.problem import Arms, Problem
    from easeml_core.selection.scheduler import Scheduler
    from easeml_core.selection.suggestion import Suggestion
    from easeml_core.store.tables.decisions import Look, Menu, Told

    Place = tuple[int, int]
    End = tuple[datetime, int]


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """A trial that had not ended when it was last looked at; ``place`` is None where the scheduler does not see it."""

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
        last_trial: Largest id of a trial that was seen.
        last_end: End of the trial that was taken in last; None before the first.
        open: Trials that have not ended, by id.
        kinds: Kinds of device that trials were seen on; None among them for one that nobody named.
        is_used_up: A limit has changed in a way that only loading can tell.
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
    last_trial: int = 0
    last_end: End | None = None
    open: dict[int, OpenTrial] = field(default_factory=dict)
    kinds: set[str | None] = field(default_factory=set)
    is_used_up: bool = False
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
        """Everything anew; the caller holds the lock ``suggest``.

        Args:
            tx: Role ``easeml_worker``.
            seen: A look of the same transaction, taken before.
            policy: One of ``easeml_core.config.POLICIES``; None for that of the installation.
            studies_only: Names of the studies to choose from; None for all active ones.
            functions: Names of the training functions that whoever asks has.
            trainers: Whether it has the trainers of this package.
            runtimes: Programs for containers that its machine has; None where that is not known.

        Raises:
            NotFoundError: One of the studies does not exist.
        """
        config, active = current_config(tx, policy), active_studies(tx, studies_only)
        told, versions = decisions.all_trials(tx), studies.latest_data_versions(tx)
        results = results_by_version(told)
        menus = decisions.menus(tx, [s.id for s in active], functions=functions, trainers=trainers, runtimes=runtimes)
        menus = runnable_candidates(active, menus, versions, results, training_parts=studies.training_parts(tx))
        owners = {t.name: t for t in studies.list_tenants(tx)}
        problem = build_problem(
            active,
            menus,
            versions,
            results,
            rows=studies.training_rows(tx),
            tenants=owners.values(),
            names=decisions.candidate_names(tx, past_candidates(active, versions, results)),
        )
        memory = cls(
            config=config,
            active={s.id: s for s in active},
            owners=owners,
            menus=menus,
            versions=versions,
            problem=problem,
            scheduler=scheduler_for(problem, config=config),
            costs_known=_any_cost(problem),
            stamp=(seen.catalogue, seen.settings_id),
        )
        memory._remember(told)
        return memory

    def _remember(self, told: Sequence[Told]) -> None:
        """Note where the loaded trials stand, and where the scheduler has them."""
        self._index = {arms.study_id: i for i, arms in enumerate(self.problem.studies)}
        limits = ((self._index.get(s.id), s.deadline) for s in self.active.values())
        self._deadlines = [(tenant, end) for tenant, end in limits if tenant is not None and end is not None]
        self.kinds = {t.device for t in told}
        self.last_trial = max((t.id for t in told), default=0)
        self.last_end = max(_ends(told), default=None)
        for t in told:
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

    def _is_as_known(self, told: Told) -> bool:
        known = self.open[told.id]
        return (told.device, told.lost_seconds, told.limit_seconds) == (
            known.device,
            known.lost_seconds,
            known.limit_seconds,
        )

    def catch_up(self, seen: Look) -> bool:
        """Take in what has changed; False when everything must be loaded anew, and this must be thrown away."""
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

    def _agrees(self, told: Told) -> bool:
        """Whether a known trial is still where the scheduler has it, and charged as it was."""
        known = self.open[told.id]
        same = (told.lost_seconds, told.limit_seconds) == (known.lost_seconds, known.limit_seconds)
        if not same:
            self.open[told.id] = self._opened(told)
        return told.device == known.device and (same or not self._is_charged(told.study_id))

    def _start(self, told: Told) -> bool:
        """Take in a trial that somebody else was given; False where it is out of sight, as a model measured anew is."""
        opened = self._opened(told)
        self.open[told.id] = opened
        self.last_trial = max(self.last_trial, told.id)
        if opened.place is None or self._has_quota(told.study_id):
            return False
        self.scheduler.start(*opened.place, device=told.device)
        return True

    def _end(self, told: Told) -> bool:
        """Take in an end; False where it came out of turn, taught nothing, or belongs to the past."""
        assert told.finished_at is not None
        place, end = self.open.pop(told.id).place, (told.finished_at, told.id)
        in_turn = self.last_end is None or end > self.last_end
        if not in_turn or place is None or told.cost_seconds is None or self._has_quota(told.study_id):
            return False
        self.last_end, self.costs_known = end, True
        self.scheduler.record(*place, told.quality, told.cost_seconds, device=told.device)
        return True

    def _opened(self, told: Told) -> OpenTrial:
        place = self._place(told)
        self.kinds.add(told.device)
        return OpenTrial(told.study_id, place, told.device, told.lost_seconds, told.limit_seconds)

    def _place(self, told: Told) -> Place | None:
        """Where the scheduler has the trial: not at all, when it is of other data or of a study not chosen from."""
        tenant = self._index.get(told.study_id)
        if tenant is None or self.versions[told.study_id] != told.data_version_id:
            return None
        arm = arm_of(self.menus[told.study_id], told.candidate_id)
        return None if arm is None else (tenant, arm)

    def _is_charged(self, study_id: int) -> bool:
        """Whether the budget of a study, or what a tenant has left, depends on what its trials have lost."""
        study = self.active.get(study_id)
        return study is None or study.budget_seconds is not None or self._has_quota(study_id)

    def _has_quota(self, study_id: int) -> bool:
        """Whether the tenant has a quota of seconds; what is left of it is computed anew from all its trials."""
        study = self.active.get(study_id)
        return study is not None and self.owners[study.tenant].quota_seconds is not None

    # -- what runs next -----------------------------------------------------------------------------------------------

    def suggest(self, device: str | None) -> Suggestion | None:
        """The next trial; it is under way once it is handed out."""
        return suggestion_of(self.scheduler, self.arms, config=self.config, device=device)

    def close(self, study_id: int) -> None:
        """Leave a study out whose limits have refused a trial, until ``reopen``."""
        self._closed.add(self._index[study_id])
        self.scheduler.set_seconds_left(self._index[study_id], 0.0)

    def reopen(self, now: datetime) -> None:
        """Let the studies that were closed have trials again, as far as their deadlines go."""
        deadlines = dict(self._deadlines)
        for tenant in sorted(self._closed):
            left = (deadlines[tenant] - now).total_seconds() if tenant in deadlines else math.inf
            self.scheduler.set_seconds_left(tenant, left)
        self._closed.clear()

    def hand_out(self, trial_id: int, suggestion: Suggestion, *, device: str | None, limit: float | None) -> None:
        """Note the trial that the suggestion has become."""
        place = self._index[suggestion.study_id], suggestion.arm
        self.scheduler.start(*place, device=device)
        self.open[trial_id] = OpenTrial(suggestion.study_id, place, device, 0.0, limit)
        self.kinds.add(device)
        self.last_trial = max(self.last_trial, trial_id)
        self.is_used_up |= self._has_quota(suggestion.study_id)


def active_studies(tx: Connection, names: Sequence[str] | None) -> list[Study]:
    """The active studies, or those of these names.

    Raises:
        NotFoundError: One of the studies does not exist.
    """
    active = studies.list_studies(tx, state=StudyState.ACTIVE)
    if names is None:
        return active
    known = {s.name for s in studies.list_studies(tx)}
    for name in names:
        if name not in known:
            raise NotFoundError(kind="study", name=name, known=known)
    return [s for s in active if s.name in set(names)]


def _ends(told: Iterable[Told]) -> Iterable[End]:
    return ((t.finished_at, t.id) for t in told if t.finished_at is not None)


def _any_cost(problem: Problem) -> bool:
    return bool(problem.pulls) or any(cost is not None for past in problem.history for cost in past.costs)
