"""Labels that a condition needs under each adaptivity, by the paper and by the exact tests; and those of a set.

Sizes are pure functions of what is asked, so each is counted once a process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from attrs import evolve

from easeml_core.entities import Adaptivity, SealedSetPurpose
from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.formats.encoding import row_of
from easeml_core.gate.condition import DIFFERENCE, Condition, claim_of, parse_condition
from easeml_core.gate.planner import GatePlan, plan_gate
from easeml_core.services.test_sets.planning import plan_for_gate, set_settings
from easeml_core.settings.config import GateConfig, parse_adaptivity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.entities import Study

POWER = 0.9
CAP = 3
BUDGET_SECONDS = 0.7
"""After so long the sizes that are left are not counted in this answer; the next one finds the others counted."""
NOT_COUNTED = "not counted yet: ask again"

_LEARNS = {
    Adaptivity.NONE: "developer learns nothing",
    Adaptivity.FIRST_CHANGE: "set ends at the first pass",
    Adaptivity.RECYCLE: "dearer after each pass",
    Adaptivity.UP_TO: "set ends at pass {cap}",
    Adaptivity.FULL: "one bit each time",
}
_PUBLISHED = (Adaptivity.NONE, Adaptivity.FIRST_CHANGE, Adaptivity.FULL)


@dataclass(frozen=True, slots=True)
class PlanRow:
    """Sizes under one adaptivity; None where a size is not in the paper, not possible, or not counted yet.

    Attributes:
        adaptivity: As the planner takes it.
        learns: What the developer learns.
        paper: Labelled examples by the published bounds.
        is_published: Whether the paper has this adaptivity.
        exact: By the exact tests, with the same promise and power.
        power: By the exact tests, when a real gain may be missed one time in ten.
        labels: Of one submission, with the power that was asked for; the planner says whether that is an average.
        bars: Lengths of paper, exact and power in per cent of the longest bar.
        why_not: Why there is no exact size.
        is_counted: False where the time was up before all of it was counted.
        is_chosen: Whether it is the one that was asked for.
    """

    adaptivity: str
    learns: str
    paper: int | None
    is_published: bool
    exact: int | None
    power: int | None
    labels: int | None
    bars: tuple[float, float, float]
    why_not: str
    is_counted: bool
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What a gate set is planned for; a power of None is the same as the reliability."""

    condition: str
    reliability: float
    steps: int
    adaptivity: str
    mode: str
    power: float | None = None

    def settings(self) -> dict[str, object]:
        """The settings of a set, as ``set_settings`` takes them."""
        return row_of(self)


@lru_cache(maxsize=4096)
def size_of(asked: Asked, *, estimator: str = "exact", changes: int = 0) -> tuple[GatePlan | None, str]:
    """The plan, or why there is none."""
    try:
        found = plan_gate(
            parse_condition(asked.condition),
            reliability=asked.reliability,
            steps=asked.steps,
            adaptivity=asked.adaptivity,
            mode=asked.mode,
            power=asked.power,
            estimator=estimator,
            changes=changes,
        )
    except ConfigError as error:
        return None, str(error)
    return found, ""


def changes_of(adaptivity: str, passes: int) -> int:
    """How many passes the level of the next answer pays for; under the others every level is the same."""
    return passes if parse_adaptivity(adaptivity)[0] is Adaptivity.RECYCLE else 0


@dataclass(frozen=True, slots=True)
class SetPlan:
    """What the study's next gate set needs, by the study's own estimator and with its slices.

    Attributes:
        config: The settings that it is planned with.
        gate: The plan of the condition.
        examples: Of the set, as the planned one asks for: so that each slice can have what it needs, too.
        labels: Of one submission; with slices any example may need its own.
    """

    config: GateConfig
    gate: GatePlan
    examples: int
    labels: int

    @property
    def is_mean(self) -> bool:
        """Whether the labels of one submission are an average; else it needs so many at most."""
        return not self.config.slices and self.labels < self.examples


_planned = lru_cache(maxsize=4096)(plan_for_gate)


def plan_set(study: Study, settings: Mapping[str, object], changes: int = 0) -> tuple[SetPlan | None, str]:
    """Plan the gate set that these settings ask of the study, as ``test_sets.plan_test_set`` does."""
    started = time.monotonic()
    try:
        config = set_settings(study, SealedSetPurpose.GATE, settings)[1]
        assert isinstance(config, GateConfig)  # that is what such a set has
        gate, parts = _planned(config, changes), []
        for _, condition in config.slices:
            if time.monotonic() - started > BUDGET_SECONDS:
                return None, NOT_COUNTED
            parts.append(_planned(evolve(config, condition=condition), changes))
    except InvalidInputError as error:
        return None, str(error)
    examples = max(gate.examples, sum(part.examples for part in parts))
    of_all = examples if any(part.labels for part in (gate, *parts)) else 0
    return SetPlan(config, gate, examples, of_all if parts else gate.labels_per_verdict), ""


def plan_rows(asked: Asked, passes: int) -> tuple[list[PlanRow], int]:
    """One row an adaptivity; sizes are counted until the time is up, those of the chosen one first."""
    kind, cap = parse_adaptivity(asked.adaptivity)
    capped = f"{Adaptivity.UP_TO.value}:{cap if kind is Adaptivity.UP_TO else CAP}"
    names = [capped if k is Adaptivity.UP_TO else str(k) for k in _LEARNS]
    size, sizes = _sizing(), dict[str, _Sizes]()
    for name in sorted(names, key=lambda n: n != asked.adaptivity):
        sizes[name] = _sizes(size, replace(asked, adaptivity=name), changes_of(name, passes))
    top = _round_up(max((n for row in sizes.values() for n in row.found if n), default=1))
    return [_row(name, sizes[name], top, is_chosen=name == asked.adaptivity) for name in names], top


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Labelled examples by paper, exact and with power; labels of one submission; why there are none."""

    found: tuple[int | None, int | None, int | None]
    labels: int | None
    why_not: str
    is_counted: bool


class _Size(Protocol):
    """``size_of`` until the time is up."""

    def __call__(self, asked: Asked, *, estimator: str = "exact", changes: int = 0) -> tuple[GatePlan | None, str]: ...


def _sizing() -> _Size:
    started = time.monotonic()

    def size(asked: Asked, *, estimator: str = "exact", changes: int = 0) -> tuple[GatePlan | None, str]:
        if time.monotonic() - started > BUDGET_SECONDS:
            return None, NOT_COUNTED
        return size_of(asked, estimator=estimator, changes=changes)

    return size


def _sizes(size: _Size, asked: Asked, changes: int) -> _Sizes:
    plain = replace(asked, power=None)
    exact, powered = size(plain, changes=changes), size(replace(asked, power=POWER), changes=changes)
    is_published = parse_adaptivity(asked.adaptivity)[0] in _PUBLISHED
    paper = size(plain, changes=changes, estimator="paper") if is_published else (None, "")
    found = [None if plan is None else plan.labels or plan.unlabelled for plan, _ in (paper, exact, powered)]
    asked_for = exact[0] if asked.power is None else powered[0]
    return _Sizes(
        found=(found[0], found[1], found[2]),
        labels=None if asked_for is None else asked_for.labels_per_verdict,
        why_not=exact[1],
        is_counted=NOT_COUNTED not in (paper[1], exact[1], powered[1]),
    )


def _row(name: str, sizes: _Sizes, top: int, *, is_chosen: bool) -> PlanRow:
    kind, cap = parse_adaptivity(name)
    paper, exact, power = sizes.found
    bars = [round(100 * (size or 0) / top, 2) for size in sizes.found]
    return PlanRow(
        adaptivity=name,
        learns=_LEARNS[kind].format(cap=cap),
        paper=paper,
        is_published=kind in _PUBLISHED,
        exact=exact,
        power=power,
        labels=sizes.labels,
        bars=(bars[0], bars[1], bars[2]),
        why_not=sizes.why_not,
        is_counted=sizes.is_counted,
        is_chosen=is_chosen,
    )


def _round_up(number: int) -> int:
    """The next number with two digits that are not 0.

    Example:
        >>> _round_up(67_706), _round_up(9)
        (68000, 9)
    """
    step = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // step) * step


def baseline_of(asked: Asked) -> tuple[int, int] | None:
    """What the plain bound on n - o asks, without the clause on d that makes Bennett's possible."""
    condition = parse_condition(asked.condition)
    kinds = {claim_of(clause).quantity for clause in condition.clauses}
    if not {"d", DIFFERENCE} <= kinds:
        return None
    plain = Condition(tuple(c for c in condition.clauses if claim_of(c).quantity != "d"))
    wanted = replace(asked, condition=str(plain), power=None)
    found = [size_of(replace(wanted, adaptivity=name), estimator="paper")[0] for name in ("none", "full")]
    return (found[0].labels, found[1].labels) if found[0] and found[1] else None
