"""Build the scheduler's input from stored trials: present results of each study, and older ones as history."""

from __future__ import annotations

from bisect import bisect_left
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.entities import FailureKind, TrialState
from easeml_core.selection.problem import Arms, Past, Pending, Problem, Pull, Quota
from easeml_core.store.tables.decisions import Menu

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping, Sequence
    from datetime import datetime

    from easeml_core.entities import Study, Tenant
    from easeml_core.store.tables.decisions import KnownTrial

    Version = tuple[int, int]


_STATES = {str(state): state for state in TrialState}


class Result(NamedTuple):
    """Facts of one trial.

    ``order`` is its place in the order of completion, ``limit_seconds`` its reservation, ``lost_seconds`` the time of
    lost attempts, of the process's start and of evaluating its model again. ``of_task``: it failed because of its task,
    which says nothing about the candidate; ``is_replaced``: another trial has replaced it.
    """

    candidate_id: int
    state: TrialState
    quality: float | None
    cost_seconds: float | None
    order: int
    lost_seconds: float = 0.0
    limit_seconds: float | None = None
    device: str | None = None
    finished_at: datetime | None = None
    of_task: bool = False
    is_replaced: bool = False

    @property
    def is_open(self) -> bool:
        """Suggested or running."""
        return self.state in (TrialState.SUGGESTED, TrialState.RUNNING)

    @property
    def is_void(self) -> bool:
        """Ended without anything to learn from: cancelled, lost with its workers, or failed because of its task."""
        return not self.is_open and self.cost_seconds is None

    @property
    def used_seconds(self) -> float:
        """Device seconds taken so far, as far as they are known."""
        return self.lost_seconds + (self.cost_seconds or 0.0)

    @property
    def reserved_seconds(self) -> float:
        """Device seconds that it may still take."""
        return max(0.0, (self.limit_seconds or 0.0) - self.lost_seconds) if self.is_open else 0.0


def results_by_version(trials: Iterable[KnownTrial]) -> dict[Version, list[Result]]:
    """Return results by (study id, data version id), from ``easeml_core.store.tables.decisions.all_trials``.

    A trial whose model was evaluated again, on a new validation part with the same training part, is listed under the
    newest version that evaluated it, with the quality found there, its own order and the cost of its training. It
    therefore counts once, and the cost of evaluation only counts as used.
    """
    trials = list(trials)
    anew: dict[int, list[KnownTrial]] = {}
    for t in trials:
        if t.reevaluates is not None:
            anew.setdefault(t.reevaluates, []).append(t)
    replaced = {t.retries for t in trials if t.retries is not None}
    found: dict[Version, list[Result]] = {}
    for order, t in enumerate(trials):
        if t.reevaluates is not None:
            continue
        last, lost = t, t.lost_seconds + (t.start_seconds or 0.0)
        if t.id in anew:
            measured = anew[t.id]
            last = max(measured, key=lambda m: m.data_version_id)
            lost += sum(m.cost_seconds or 0.0 for m in measured)
        result = Result(
            t.candidate_id,
            _STATES[t.state],
            last.quality,
            t.cost_seconds,
            order,
            lost,
            t.limit_seconds,
            t.device,
            t.finished_at,
            t.failure_kind == FailureKind.TASK,
            t.id in replaced,
        )
        key = (t.study_id, last.data_version_id)
        if key in found:
            found[key].append(result)
        else:
            found[key] = [result]
    return found


def arm_of(menu: Menu, candidate_id: int) -> int | None:
    """Return the arm of a candidate, or None when it is not on the menu; ids grow with the arms."""
    arm = bisect_left(menu.ids, candidate_id)
    return arm if arm < len(menu.ids) and menu.ids[arm] == candidate_id else None


def runnable_candidates(
    active: Sequence[Study],
    menus: Mapping[int, Menu],
    versions: Mapping[int, int],
    results: Mapping[Version, Sequence[Result]],
    *,
    training_parts: Mapping[int, int] = MappingProxyType({}),
    lost: Mapping[int, Collection[int]] = MappingProxyType({}),
) -> dict[int, Menu]:
    """Return the candidates of each active study that the scheduler sees, in their order: arm k is the k-th of them.

    A candidate whose trial is void is left out on the present data, so that it is not repeated blindly; a retry after a
    failure of the task brings it back (``retry.py``). A candidate that ran, or runs, on an earlier version with the
    same training part is left out until its model is evaluated again: otherwise it would be trained twice. One whose
    model has lost its file is trained again.
    """
    alike: dict[int, list[int]] = {}
    for version, part in training_parts.items():
        alike.setdefault(part, []).append(version)
    arms = {}
    for study in active:
        menu = menus.get(study.id)
        if menu is not None and study.id in versions:
            version = versions[study.id]
            gone = {r.candidate_id for r in results.get((study.id, version), ()) if r.is_void and not r.is_replaced}
            if version in training_parts:
                part = training_parts[version]
                gone |= _trained_before(study.id, version, results, alike[part]).difference(lost.get(part, ()))
            left = _without(menu, gone)
            if left.ids:
                arms[study.id] = left
    return arms


def _trained_before(
    study_id: int, version: int, results: Mapping[Version, Sequence[Result]], alike: Iterable[int]
) -> set[int]:
    """Return the candidates that ran on one of these versions, of one training part, and have no result on this one."""
    others = (other for other in alike if other != version)
    before = {r.candidate_id for other in others for r in results.get((study_id, other), ()) if not r.of_task}
    return before - {r.candidate_id for r in results.get((study_id, version), ())}


def _without(menu: Menu, left_out: Container[int]) -> Menu:
    kept = [arm for arm, candidate_id in enumerate(menu.ids) if candidate_id not in left_out]
    if len(kept) == len(menu.ids):
        return menu
    devices = tuple(menu.devices[arm] for arm in kept) if menu.devices else ()
    return Menu(tuple(menu.ids[arm] for arm in kept), tuple(menu.names[arm] for arm in kept), devices)


def build_problem(
    active: Sequence[Study],
    arms: Mapping[int, Menu],
    versions: Mapping[int, int],
    results: Mapping[Version, Sequence[Result]],
    *,
    rows: Mapping[int, int] | None = None,
    tenants: Iterable[Tenant] = (),
    names: Mapping[int, str] | None = None,
) -> Problem:
    """Return the scheduler's input: arms with their limits, pulls in order of completion, open trials, and the past."""
    present = [
        (s.id, arm, r)
        for s in active
        if s.id in arms
        for r in results.get((s.id, versions[s.id]), ())
        if (arm := arm_of(arms[s.id], r.candidate_id)) is not None
    ]
    present.sort(key=lambda found: found[2].order)
    owner = {s.id: s.tenant for s in active}
    pulls = [found for found in present if found[2].cost_seconds is not None and not found[2].is_open]
    ends = [r.finished_at for _, _, r in pulls if r.finished_at is not None]
    quotas, full = _quotas(tenants, [(owner[study_id], r) for study_id, _, r in present])
    hidden = _hidden_seconds({s.id for s in active if s.budget_seconds is not None}, versions, results)
    return Problem(
        studies=tuple(
            _arms(
                s,
                arms[s.id],
                budget=0.0 if s.tenant in full else _budget(s, hidden),
                rows=(rows or {}).get(versions[s.id]),
                joined=0 if s.joined_at is None else bisect_left(ends, s.joined_at),
            )
            for s in active
            if s.id in arms
        ),
        pulls=tuple(
            Pull(study_id, arm, r.quality, r.cost_seconds, r.order, r.device)
            for study_id, arm, r in pulls
            if r.cost_seconds is not None
        ),
        pending=tuple(Pending(study_id, arm, r.device) for study_id, arm, r in present if r.is_open),
        history=_history(_past({s.id for s in active}, versions, results), names or {}),
        quotas=quotas,
    )


def _arms(study: Study, menu: Menu, *, budget: float | None, rows: int | None, joined: int) -> Arms:
    """The study as the scheduler sees it."""
    return Arms(
        study_id=study.id,
        weight=study.weight,
        names=menu.names,
        budget_seconds=budget,
        study=study.name,
        tenant=study.tenant,
        priority=study.priority,
        target_quality=study.target_quality,
        seconds_left=study.seconds_left,
        devices=menu.devices,
        rows=rows,
        joined=joined,
    )


def _budget(study: Study, hidden: Mapping[int, float]) -> float | None:
    """Return the study's budget less what the scheduler does not see."""
    if study.budget_seconds is None:
        return None
    return max(0.0, study.budget_seconds - hidden.get(study.id, 0.0))


def _hidden_seconds(
    limited: Container[int], versions: Mapping[int, int], results: Mapping[Version, Sequence[Result]]
) -> dict[int, float]:
    """Return the seconds of other data versions and of lost attempts, by id of the studies that have a budget."""
    hidden: dict[int, float] = {}
    for (study_id, version), found in results.items():
        if study_id in limited:
            is_present = versions.get(study_id) == version
            seconds = sum(r.lost_seconds if is_present else r.used_seconds + r.reserved_seconds for r in found)
            hidden[study_id] = hidden.get(study_id, 0.0) + seconds
    return hidden


def _quotas(
    tenants: Iterable[Tenant], present: Sequence[tuple[str, Result]]
) -> tuple[dict[str, Quota], frozenset[str]]:
    """Return what each tenant may use, by name, and the tenants with nothing left.

    Open trials that the scheduler does not see (of paused studies, or of studies that were not asked for) take their
    place and their reservation from the quota.
    """
    seen: dict[str, list[Result]] = {}
    for name, result in present:
        if result.is_open:
            seen.setdefault(name, []).append(result)
    quotas, full = {}, set()
    for tenant in tenants:
        mine = seen.get(tenant.name, [])
        parallel, seconds = tenant.max_parallel, tenant.quota_seconds
        if parallel is not None:
            parallel -= tenant.open_trials - len(mine)
        if seconds is not None:
            seconds -= tenant.used_seconds + tenant.reserved_seconds - sum(r.reserved_seconds for r in mine)
        if (parallel is not None and parallel < 1) or (seconds is not None and seconds <= 0):
            full.add(tenant.name)
        elif parallel is not None or seconds is not None:
            quotas[tenant.name] = Quota(max_parallel=parallel, seconds_left=seconds)
    return quotas, frozenset(full)


def past_candidates(
    active: Iterable[Study], versions: Mapping[int, int], results: Mapping[Version, Sequence[Result]]
) -> set[int]:
    """Return the candidates with trials on earlier data versions, or of studies that are not active now."""
    present = {(s.id, versions[s.id]) for s in active if s.id in versions}
    return {r.candidate_id for key, found in results.items() if key not in present for r in found}


def _past(
    active: Container[int], versions: Mapping[int, int], results: Mapping[Version, Sequence[Result]]
) -> list[tuple[int, list[Result]]]:
    """Finished trials of earlier data versions and of studies that are not active now, by study and version."""
    past = []
    for (study_id, version), found in results.items():
        if study_id not in active or versions.get(study_id) != version:
            # Neither open nor void, with each property looked up once: most trials of an installation are past.
            finished = [r for r in found if r.cost_seconds is not None and not r.is_open]
            if finished:
                past.append((study_id, finished))
    return past


def _history(past: Iterable[tuple[int, Sequence[Result]]], names: Mapping[int, str]) -> tuple[Past, ...]:
    return tuple(
        Past(
            study_id=study_id,
            names=tuple([names[r.candidate_id] for r in finished]),
            qualities=tuple([r.quality for r in finished]),
            costs=tuple([r.cost_seconds for r in finished]),
        )
        for study_id, finished in past
    )
