"""The planner of the meter's page: labels that a next set would need, by method, as bars on one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.errors import counted
from easeml_core.services.meter.planning import AMBIGUOUS, ERROR_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.meter.planner import MeterPlan
    from easeml_core.services.meter.planning import MeterPlans

METHODS = {
    "path-adaptive": ("path-adaptive", "pays for ambiguous answers only"),
    "ratchet": ("ratchet", "signals only rise"),
    "deviations": ("3 deviations, then retired", ""),
    "multitenant": ("teams apart", "one tree each"),
    "pruned": ("pruned tree", "any developer, wide ranges"),
    "dithered": ("dithered edges", "equal ranges"),
    "exact-tree": ("exact tree", "any developer"),
    "full": ("full, m to the power T", "any developer"),
    "fresh": ("fresh set each time", "of all sets together"),
    "score": ("exact score shown", "what a leaderboard does"),
    "first-change": ("until the first change", "retired at the first signal above 1"),
    "non-adaptive": ("nobody reacts", "unsound once a signal is seen"),
}
"""What the planner calls each way to pay for reactions, and what to know of it."""

CUT = 4.5
"""A bar longer than so many times the median is cut, so that the others can be told apart."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One way to plan: name, detail, labels, its bar in per cent, whether it is the one to take, and cut."""

    name: str
    detail: str
    labels: int
    share: float
    is_best: bool
    is_cut: bool


@dataclass(frozen=True, slots=True)
class PlanPicture:
    """The planner's answer: a finding, the bars, and where they are cut (0: nowhere)."""

    title: str
    bars: Sequence[Bar]
    cut_at: int


def plan_picture(plans: MeterPlans, *, steps: int) -> PlanPicture:
    """The planner's bars, cheapest first among those that are sound, the recommended one on top."""
    sound = [plan for plan in plans.others if plan.method != "non-adaptive"]
    sizes = sorted([plans.best.labels, *(plan.labels for plan in sound)])
    most, cut = sizes[-1], CUT * sizes[len(sizes) // 2]
    scale = most if most <= cut else max(size for size in sizes if size <= cut) * 1.15
    detail = f"recommended; error rate {ERROR_RATE:g}, {counted(AMBIGUOUS, 'ambiguous answer')}"
    first = _bar("path-adaptive, exact tails", detail, plans.best, scale, is_best=True)
    bars = [first, *(_bar(*METHODS[plan.method], plan, scale) for plan in sound)]
    dearest = max(sound, key=lambda plan: plan.labels)
    title = f"{counted(plans.best.labels, 'label serves', 'labels serve')} {counted(steps, 'submission')}"
    title += f"; {METHODS[dearest.method][0]} would need {dearest.labels:,}"
    return PlanPicture(title, bars, round(scale) if most > scale else 0)


def _bar(name: str, detail: str, plan: MeterPlan, scale: float, *, is_best: bool = False) -> Bar:
    share = round(min(100.0, 100 * plan.labels / scale), 2)
    return Bar(name, detail, plan.labels, share, is_best, plan.labels > scale)
