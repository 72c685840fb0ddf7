"""The planner of the gate page: a condition checked while it is typed, and the labels that each adaptivity needs.

The text is the truth: moving the tolerance rewrites it. While it cannot be read, the plan is that of the last text
that could.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.gate_check import check_of, read_condition
from easeml_airflow.web.gate_sizes import POWER, baseline_of, changes_of, plan_rows, size_of
from easeml_core.config import GateConfig, parse_adaptivity
from easeml_core.entities import Mode
from easeml_core.errors import ConfigError
from easeml_core.gate.clauses import Condition
from easeml_core.gate.condition import MAX_LENGTH, parse_condition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_airflow.web.gate_check import Check
    from easeml_airflow.web.gate_sizes import PlanRow
    from easeml_core.errors import ConditionSyntaxError
    from easeml_core.gate.planner import GatePlan

RELIABILITIES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99995, 0.99999, 0.999999)
TOLERANCES = (0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
STEPS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 128, 256, 512, 1024)
PASSES = (0, 1, 2, 3, 4, 5)
SECONDS_A_LABEL = 5


@dataclass(frozen=True, slots=True)
class Slider:
    """A slider over stops that are not evenly spaced: its place is the number of the stop."""

    name: str
    label: str
    stops: Sequence[float]
    place: int

    @property
    def value(self) -> float:
        """What the slider stands at."""
        return self.stops[self.place]

    @property
    def percent(self) -> float:
        """How far it is from its left end, in per cent."""
        return round(100 * self.place / max(len(self.stops) - 1, 1), 1)


@dataclass(frozen=True, slots=True)
class Planner:
    """All that the planner says.

    Attributes:
        text: What stands in the field.
        last: The last text that could be read; the plan is its.
        check: Of the text in the field.
        in_force: The condition of the set in force, checked; None before the first.
        sliders: Reliability, tolerance, steps and passes.
        power: ``same`` or ``0.9``.
        mode: ``fp-free`` or ``fn-free``.
        rows: One an adaptivity.
        top: Labels at the right end of the bars.
        chosen: The plan that was asked for; None where it is not possible.
        least: Examples that a planned set asks for at least: those for a verdict before the first pass.
        title: Its finding.
        sentence: What labelling takes.
        baseline: What the plain Hoeffding bound asks: ``(none, full)``; None where it is in the table.
        settings: What a set with this plan is planned with.
        commands: The same on the command line: size, plan, seal.
    """

    text: str
    last: str
    check: Check
    in_force: Check | None
    sliders: Sequence[Slider]
    power: str
    mode: str
    rows: Sequence[PlanRow]
    top: int
    chosen: GatePlan | None
    least: int
    title: str
    sentence: str
    baseline: tuple[int, int] | None
    settings: Mapping[str, Any]
    commands: Mapping[str, str]


def planner_of(plan: GateConfig, asked: Mapping[str, str], *, study: str, has_set: bool) -> Planner:
    """The planner for what somebody has typed and moved.

    Args:
        plan: The settings that it begins with: those of the set in force, else of the study.
        asked: Fields of the form: ``condition``, ``last``, ``reliability``, ``tolerance``, ``steps``, ``passes``
            (places of sliders), ``adaptivity``, ``power``, ``mode``; each may be absent, and hold anything.
        study: For the commands.
        has_set: Whether the plan is that of a set.
    """
    typed, condition, error = _condition(plan, asked)
    mode = asked.get("mode") if asked.get("mode") in list(Mode) else plan.mode
    power = asked.get("power") if asked.get("power") in ("same", f"{POWER:g}") else _power_of(plan)
    sliders = [
        _slider("reliability", "Reliability", RELIABILITIES, plan.reliability, asked),
        _slider("tolerance", "Tolerance", TOLERANCES, _tolerance(condition), {}),
        _slider("steps", "Steps", STEPS, plan.steps, asked),
        _slider("passes", "Passes before it is used", PASSES, 0, asked),
    ]
    wanted: dict[str, Any] = {
        "reliability": sliders[0].value,
        "steps": int(sliders[2].value),
        "adaptivity": _adaptivity(plan, asked),
        "mode": mode,
        "power": None if power == "same" else POWER,
    }
    passes = int(sliders[3].value)
    rows, top = plan_rows(condition, wanted, passes)
    settings = {"condition": str(condition)} | wanted
    chosen = size_of(str(condition), **wanted, changes=changes_of(wanted["adaptivity"], passes))[0]
    before = size_of(str(condition), **wanted)[0]
    return Planner(
        text=typed,
        last=str(condition),
        check=check_of(typed, error, condition),
        in_force=check_of(plan.condition, None, parse_condition(plan.condition)) if has_set else None,
        sliders=sliders,
        power=str(power),
        mode=str(mode),
        rows=rows,
        top=top,
        chosen=chosen,
        least=before.examples if before else 0,
        title=_title(chosen),
        sentence=_sentence(chosen),
        baseline=baseline_of(condition, wanted),
        settings=settings,
        commands=_commands(settings, passes, study),
    )


def _condition(plan: GateConfig, asked: Mapping[str, str]) -> tuple[str, Condition, ConditionSyntaxError | None]:
    """The text to show, the condition to plan for, and what is wrong with the text.

    Where the tolerance was moved, it is that of every clause from now on.
    """
    last = read_condition(asked.get("last", ""))[0] or parse_condition(plan.condition)
    typed = asked.get("condition", str(last))[: MAX_LENGTH + 1]
    found, error = read_condition(typed)
    condition = found or last
    place = _slider("tolerance", "", TOLERANCES, _tolerance(last), {}).place
    moved = _slider("tolerance", "", TOLERANCES, _tolerance(last), asked)
    if moved.place == place:
        return typed, condition, error
    wider = Condition(tuple(replace(clause, tolerance=moved.value) for clause in condition.clauses))
    return str(wider), wider, None


def _tolerance(condition: Condition) -> float:
    return condition.clauses[0].tolerance


def _power_of(plan: GateConfig) -> str:
    return "same" if plan.power is None else f"{POWER:g}"


def _adaptivity(plan: GateConfig, asked: Mapping[str, str]) -> str:
    try:
        parse_adaptivity(asked.get("adaptivity", ""))
    except ConfigError:
        return plan.adaptivity
    return asked["adaptivity"]


def _slider(name: str, label: str, stops: Sequence[float], own: float, asked: Mapping[str, str]) -> Slider:
    """The slider where it was moved to, else at the value in force, which always is one of its stops."""
    placed = tuple(sorted({*stops, own}))
    place = asked.get(name, "")
    moved = int(place) if place.isascii() and place.isdigit() and len(place) < 4 else placed.index(own)
    return Slider(name, label, placed, min(moved, len(placed) - 1))


def _title(plan: GatePlan | None) -> str:
    if plan is None:
        return "This cannot be planned"
    each = "about " if plan.labels_per_submission < plan.labels else ""  # a bound on the average, not on each
    labels = f", {each}{plan.labels_per_submission:,} labels a submission" if plan.labels else ", and no label"
    return f"{plan.examples:,} examples{labels}"


def _sentence(plan: GatePlan | None) -> str:
    if plan is None:
        return "Choose another adaptivity, or more steps."
    hours = plan.labels_per_submission * SECONDS_A_LABEL / 3600
    if not plan.labels:
        return "The models' predictions on them suffice."
    told = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
    return f"About {told} of labelling for one submission, at {SECONDS_A_LABEL} s a label."


def _commands(settings: Mapping[str, Any], passes: int, study: str) -> dict[str, str]:
    names = ("condition", "reliability", "steps", "adaptivity", "mode")
    options = " ".join(f"--{name} {shlex.quote(str(settings[name]))}" for name in names)
    options += " --power same" if settings["power"] is None else f" --power {settings['power']:g}"
    more = f" --passes {passes}" if changes_of(settings["adaptivity"], passes) else ""
    whose = f"--study {shlex.quote(study)} --name NAME"
    return {
        "size": f"easeml gate plan {options}{more}",
        "plan": f"easeml test-set plan {whose} {options}",
        "seal": f"easeml test-set seal {whose} --inputs new.csv",
    }
