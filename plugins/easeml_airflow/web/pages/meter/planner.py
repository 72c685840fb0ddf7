"""The planner of the meter's page: labels that a next set would need, by method, as bars on one scale.

What the meter page's planner plans, on the command line: size, plan and seal a set of the meter's own.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.pages.gate.commands import whose
from easeml_core.config import MeterConfig
from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import counted
from easeml_core.services.test_sets.planning import AMBIGUOUS, ERROR_RATE, needed_examples, set_settings, study_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.entities import Study
    from easeml_core.meter.planner import MeterPlan
    from easeml_core.services.test_sets.planning import MeterPlans


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
    "non-adaptive": ("no reactions", "unsound once a signal is seen"),
}
"""What the planner calls each way to pay for reactions, and what to know of it."""

CUT = 4.5
"""A bar longer than so many times the median is cut, so that the others can be distinguished."""


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


_METER = SealedSetPurpose.METER
_ALERTS = ("budget", "overfitting_budget")
"""Settings that stay the study's: they raise alerts, and no set is larger by them."""

_needed = lru_cache(maxsize=256)(needed_examples)


@dataclass(frozen=True, slots=True)
class MeterCommands:
    """The plan on the command line.

    Attributes:
        size: Command that gives the planner's number.
        plan: Command that plans the set, with the settings in which it differs from the study's.
        seal: Command that seals examples under its name.
        examples: That a set so planned asks for: whatever the error rate of the models, so more than the planner's.
    """

    size: str
    plan: str
    seal: str
    examples: int


def meter_commands(
    study: Study, *, ranges: tuple[float, ...], tolerance: float, reliability: float, steps: int, teams: int
) -> MeterCommands:
    """The commands for a set like the one that the planner recommends: path-adaptive with exact tails.

    Args:
        study: Whose set it will be; of its other settings only those about alerts are taken.
        ranges: Inner boundaries.
        tolerance: epsilon.
        reliability: 1 - delta.
        steps: Submissions.
        teams: That share nothing.

    Raises:
        ConfigError: The settings cannot be a meter's.
        InvalidInputError: A rule of the study's overfitting budget does not suit the ranges.
    """
    wanted = MeterConfig(
        ranges=ranges, tolerance=tolerance, reliability=reliability, steps=steps, teams=teams, ambiguous=AMBIGUOUS
    ).to_json()
    own = study_plan(study.config, _METER).to_json()
    changes = {name: value for name, value in wanted.items() if name not in _ALERTS and value != own[name]}
    sized = f"--tolerance {tolerance:.12g} --reliability {reliability:.12g} --steps {steps} --teams {teams}"
    exact = f"--ambiguous {AMBIGUOUS} --tail {wanted['tail']} --error-rate {ERROR_RATE:g}"
    named = f"{whose(study.name)} --purpose meter"
    return MeterCommands(
        size=f"easeml meter plan --ranges={','.join(f'{edge:.12g}' for edge in ranges)} {sized} {exact}",
        plan=f"easeml test-set plan {named}{_meter(changes)}",
        seal=f"easeml test-set seal {named} --inputs new.csv --labels truth.csv",
        examples=_needed(set_settings(study, _METER, changes)[1]),
    )


def _meter(changes: dict[str, Any]) -> str:
    return f" --meter {shlex.quote(json.dumps(changes))}" if changes else ""
