"""Limits of studies for all policies: budgets, deadlines, targets, quotas, devices, priorities.

``Limits`` receives every start and end of a trial. It returns which arms of a study are allowed now (``allowed``), None
for a study without limits, and which studies have priority (``first_class``).

Costs are charged in advance: a trial under way counts with its predicted cost until its measured one is known. So a
budget is exceeded only by as much as trials take longer than predicted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from easeml_core.selection.problem import Quota
from easeml_core.settings.device_requests import fits as device_fits
from easeml_core.settings.device_requests import is_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from easeml_core.selection.problem import Arms, Pull
    from easeml_core.selection.surrogate.posterior import Array

Mask: TypeAlias = NDArray[np.bool_]


class Limits:
    """What every study has used, against what it may use; a study is its index.

    Attributes:
        charges: Predicted seconds of each arm of each study, shape ``(n_arms,)`` each; zeros while costs are unknown,
            so that a budget stops such a study only once it is used up. May be replaced when costs are learnt anew.
        by_priority: Whether the studies have different priorities.
    """

    def __init__(
        self,
        studies: Sequence[Arms],
        *,
        charges: Sequence[Array],
        quotas: Mapping[str, Quota] | None = None,
        pulls: Iterable[Pull] = (),
    ) -> None:
        """Start with nothing spent."""
        self.charges = list(charges)
        named = {kind for arms in studies for kinds in arms.devices for kind in kinds or ()}
        self._by_device, self._by_count = bool(named), not all(map(is_plain, named))
        self._studies = tuple(studies)
        self._quotas = {name: quota for name, quota in (quotas or {}).items() if quota != Quota()}
        self._group: dict[str, tuple[int, ...]] = {name: () for name in self._quotas}
        for i, arms in enumerate(studies):
            if arms.tenant in self._group:
                self._group[arms.tenant] += (i,)
        self._allowance = self._allowances(pulls)
        self._limited = [_is_limited(arms) or arms.tenant in self._quotas for arms in studies]
        self._seconds_left = [math.inf if arms.seconds_left is None else arms.seconds_left for arms in studies]
        self._spent, self._best = [0.0] * len(studies), [0.0] * len(studies)
        self._under_way: list[list[int]] = [[] for _ in studies]
        ranks = np.array([arms.priority for arms in studies], dtype=np.int64)
        self._priority = ranks if len(np.unique(ranks)) > 1 else None
        self.by_priority = self._priority is not None

    def _allowances(self, pulls: Iterable[Pull]) -> dict[str, float]:
        """Seconds of each tenant from the first trial on: what is left, and what its finished trials took."""
        owner = {arms.study_id: arms.tenant for arms in self._studies}
        past: dict[str, float] = defaultdict(float)
        for pull in pulls:
            past[owner[pull.study_id]] += pull.cost_seconds
        return {
            name: quota.seconds_left + past[name]
            for name, quota in self._quotas.items()
            if quota.seconds_left is not None
        }

    def is_limited(self, study: int) -> bool:
        """Whether anything but the kind of device can forbid an arm of the study, so that its charges matter."""
        return self._limited[study]

    def touched(self, study: int) -> tuple[int, ...]:
        """The studies whose ``allowed`` may change when a trial of this one starts or ends."""
        return self._group.get(self._studies[study].tenant, (study,))

    def start(self, study: int, arm: int) -> None:
        """Take in that a trial is under way."""
        self._under_way[study].append(arm)

    def finish(self, study: int, arm: int, quality: float | None, cost_seconds: float) -> None:
        """Take in a finished trial, started before or not; quality None when it failed."""
        if arm in self._under_way[study]:
            self._under_way[study].remove(arm)
        self._spent[study] += cost_seconds
        self.found(study, quality)

    def set_seconds_left(self, study: int, seconds: float) -> None:
        """Take in how long it is now to the deadline of a study that has one."""
        self._seconds_left[study] = seconds

    def charge(self, study: int, seconds: float) -> None:
        """Take in what a study has used beside the costs of its trials, such as the starts of their processes."""
        self._spent[study] += seconds

    def found(self, study: int, quality: float | None) -> None:
        """Take in a quality that cost this study nothing: another one paid for the trial."""
        self._best[study] = max(self._best[study], quality or 0.0)

    def narrows(self, device: str | None) -> bool:
        """Whether what is offered decides which arms may run; None is one whole device of whatever kind."""
        if device is None:
            return self._by_count
        return self._by_device or not is_plain(device)

    def allowed(
        self, study: int, *, device: str | None = None, once_free: bool = False, anywhere: bool = False
    ) -> Mask | None:
        """Which arms the limits allow now, shape ``(n_arms,)``; None when they allow all.

        Whether an arm has run already is not asked here. A trial may start if its predicted cost, on top of what is
        spent and committed, stays within the budget of the study and the quota of its tenant, and if it would end
        before the deadline.
        """
        arms = self._studies[study]
        restricted = not anywhere and self.narrows(device)
        if not (self._limited[study] or restricted):
            return None
        charges = self.charges[study]
        seconds = self._seconds(study)
        is_full = self._is_full(study) and not once_free
        if is_full or self._has_reached_target(study) or seconds <= 0:
            return np.zeros(len(charges), dtype=bool)
        fits = np.asarray(charges <= seconds)
        if not restricted:
            return fits
        kinds = arms.devices or (None,) * len(charges)
        return np.asarray(fits & [device_fits(each, device) for each in kinds])

    def settled(self, study: int) -> Mask | None:
        """The arms that target and budget leave when only finished trials are counted; None for all.

        A function of the finished trials alone, which ``allowed`` is not.
        """
        budget = self._studies[study].budget_seconds
        if self._has_reached_target(study):
            return np.zeros(len(self.charges[study]), dtype=bool)
        if budget is None:
            return None
        left = budget - self._spent[study]
        return np.asarray((left > 0) & (self.charges[study] <= left))

    def first_class(self, waiting: Mask) -> Mask:
        """Of the studies that have something left, those of the highest priority; both shapes ``(n_studies,)``."""
        if self._priority is None or not waiting.any():
            return waiting
        return np.asarray(waiting & (self._priority == self._priority[waiting].max()))

    def _committed(self, study: int) -> float:
        """Seconds spent, and predicted for what is under way."""
        return self._spent[study] + math.fsum(float(self.charges[study][k]) for k in self._under_way[study])

    def _seconds(self, study: int) -> float:
        """How long one further trial may take."""
        arms = self._studies[study]
        seconds = self._seconds_left[study]
        if arms.budget_seconds is not None:
            seconds = min(seconds, arms.budget_seconds - self._committed(study))
        if arms.tenant in self._allowance:
            used = math.fsum(self._committed(i) for i in self._group[arms.tenant])
            seconds = min(seconds, self._allowance[arms.tenant] - used)
        return seconds

    def _is_full(self, study: int) -> bool:
        """Whether the study, or its tenant, has as many trials under way as it may."""
        arms = self._studies[study]
        if arms.max_parallel is not None and len(self._under_way[study]) >= arms.max_parallel:
            return True
        quota = self._quotas.get(arms.tenant)
        if quota is None or quota.max_parallel is None:
            return False
        return sum(len(self._under_way[i]) for i in self._group[arms.tenant]) >= quota.max_parallel

    def _has_reached_target(self, study: int) -> bool:
        target = self._studies[study].target_quality
        return target is not None and self._best[study] >= target


def _is_limited(arms: Arms) -> bool:
    """Whether anything but the kind of device can forbid an arm of the study."""
    limits = (arms.budget_seconds, arms.seconds_left, arms.target_quality, arms.max_parallel)
    return any(limit is not None for limit in limits)
