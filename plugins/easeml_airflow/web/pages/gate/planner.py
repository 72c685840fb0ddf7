"""The planner of the gate page: a condition checked while it is typed, and the labels that each adaptivity needs.

The text is the truth: moving the tolerance rewrites it. While it cannot be read, the plan is that of the last text
that could.

A set that gate and meter share is planned beside a set for each. What is planned is shown as commands, too:
size, plan and seal a set.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import evolve

from easeml_airflow.web.components.condition_field import check_of, read_condition
from easeml_airflow.web.pages.gate.sizes import NOT_COUNTED, POWER, Asked, baseline_of, changes_of, plan_rows, plan_set
from easeml_airflow.web.server.formats import sentence_text
from easeml_core.entities import Mode, SealedSetPurpose
from easeml_core.errors import ConfigError, EasemlError, counted
from easeml_core.formats.encoding import row_of
from easeml_core.gate.condition import MAX_LENGTH, Condition, disagreement_bound, parse_condition
from easeml_core.gate.planner import on_average
from easeml_core.services.test_sets.planning import plan_joint, set_settings
from easeml_core.settings.config import GateConfig, JointConfig, MeterConfig, parse_adaptivity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_airflow.web.components.condition_field import Check
    from easeml_airflow.web.pages.gate.sizes import PlanRow, SetPlan
    from easeml_core.entities import Study
    from easeml_core.errors import ConditionSyntaxError


_NAMES = ("condition", "reliability", "steps", "adaptivity", "mode")


def gate_commands(study: str, settings: Asked, passes: int, estimator: str) -> dict[str, str]:
    """The commands for a set of the gate's own."""
    more = f" --passes {passes}" if changes_of(settings.adaptivity, passes) else ""
    return {
        "size": f"easeml gate plan {_sized(settings, estimator)}{more}",
        "plan": f"easeml test-set plan {whose(study)} {_options(settings)}{_power(settings)}",
        "seal": f"easeml test-set seal {whose(study)} --inputs new.csv",
    }


def joint_commands(study: str, settings: Asked, config: JointConfig) -> dict[str, str]:
    """The commands for a set that gate and meter share; of the meter's settings those that are not a new study's."""
    usual = row_of(evolve(MeterConfig(), reliability=config.meter.reliability))
    own = {name: value for name, value in row_of(config.meter).items() if value != usual[name]}
    meter = f" --meter {shlex.quote(json.dumps(own))}" if own else ""
    sized = _sized(settings, config.gate.estimator)
    return {
        "size": f"easeml gate plan --joint --gate-share {config.gate_share:.6g} {sized}{meter}",
        "plan": f"easeml test-set plan {whose(study)} --purpose joint {_options(settings)}{_power(settings)}"
        " --sampling fixed",
        "seal": f"easeml test-set seal {whose(study)} --inputs new.csv --labels truth.csv",
    }


def selftest_command(plan: GateConfig, examples: int) -> str:
    """The A/A test of a set's plan, on sets as large as it that are made up."""
    return f"easeml gate selftest {_options(plan)} --examples {examples}"


def whose(study: str) -> str:
    """Options that say whose set it is and what it is called; the user replaces NAME."""
    return f"--study {shlex.quote(study)} --name NAME"


def _options(settings: Asked | GateConfig) -> str:
    return " ".join(f"--{name} {shlex.quote(str(getattr(settings, name)))}" for name in _NAMES)


def _sized(settings: Asked, estimator: str) -> str:
    """The options of a size; the published ones have no power."""
    return _options(settings) + (" --estimator paper" if estimator == "paper" else _power(settings))


def _power(settings: Asked) -> str:
    return " --power same" if settings.power is None else f" --power {settings.power:g}"


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
        purpose: ``gate``, or ``joint`` for a set that the meter draws on too.
        rows: One an adaptivity, of the condition by itself.
        top: Labels at the right end of the bars.
        of_labels: Whether the labels of a submission are a bound, or of what they are an average.
        has_slices: Whether the study has conditions on slices, which the command that sizes does not know.
        own: What of the study's settings its sets have and the rows have not; empty where there is nothing.
        chosen: The set that was asked for, as the study plans it; None where it is not possible.
        least: Examples that a planned set asks for at least: those for a verdict before the first pass.
        is_counted: False where the time was up before all of it was counted.
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
    purpose: str
    rows: Sequence[PlanRow]
    top: int
    of_labels: str
    has_slices: bool
    own: str
    chosen: SetPlan | None
    least: int
    is_counted: bool
    title: str
    sentence: str
    baseline: tuple[int, int] | None
    settings: Asked
    commands: Mapping[str, str]


def planner_of(
    plan: GateConfig, asked: Mapping[str, str], *, study: Study, has_set: bool, shared: float | None = None
) -> Planner:
    """Return the planner for the form's values."""
    typed, condition, error = _condition(plan, asked)
    purpose = _purpose(shared, asked.get("purpose"))
    mode = asked.get("mode") if asked.get("mode") in list(Mode) else plan.mode
    power = asked.get("power") if asked.get("power") in ("same", f"{POWER:g}") else _power_of(plan)
    sliders = [
        _reliability(plan.reliability, shared, purpose, asked),
        _slider("tolerance", "Tolerance", TOLERANCES, _tolerance(condition), {}),
        _slider("steps", "Steps", STEPS, plan.steps, asked),
        _slider("passes", "Passes before it is used", PASSES, 0, asked),
    ]
    wanted = Asked(
        condition=str(condition),
        reliability=sliders[0].value,
        steps=int(sliders[2].value),
        adaptivity=_adaptivity(plan, asked),
        mode=str(mode),
        power=None if power == "same" else POWER,
    )
    passes = int(sliders[3].value)
    rows, top = plan_rows(wanted, passes)
    chosen, why = plan_set(study, wanted.settings(), changes_of(wanted.adaptivity, passes))
    before, why_not = plan_set(study, wanted.settings())
    own, of_labels = GateConfig.from_json(study.config["gate"]), _of_labels(condition, str(mode))
    return Planner(
        text=typed,
        last=str(condition),
        check=check_of(typed, error, condition),
        in_force=check_of(plan.condition, None, parse_condition(plan.condition)) if has_set else None,
        sliders=sliders,
        power=str(power),
        mode=str(mode),
        purpose=purpose,
        rows=rows,
        top=top,
        of_labels=of_labels,
        has_slices=bool(own.slices),
        own=_own(own),
        chosen=chosen,
        least=before.examples if before else 0,
        is_counted=NOT_COUNTED not in (why, why_not) and all(row.is_counted for row in rows),
        title=_title(chosen, why),
        sentence=_sentence(chosen, why, of_labels),
        baseline=baseline_of(wanted),
        settings=wanted,
        commands=gate_commands(study.name, wanted, passes, own.estimator),
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


def _purpose(shared: float | None, asked: str | None) -> str:
    if asked in (SealedSetPurpose.GATE, SealedSetPurpose.JOINT):
        return str(asked)
    return str(SealedSetPurpose.GATE if shared is None else SealedSetPurpose.JOINT)


def _reliability(own: float, shared: float | None, purpose: str, asked: Mapping[str, str]) -> Slider:
    """The gate's, or that of both together on a shared set: one that was not moved follows the purpose."""
    begins = {str(SealedSetPurpose.GATE): own, str(SealedSetPurpose.JOINT): own if shared is None else shared}
    stops = (*RELIABILITIES, *begins.values())
    was = begins.get(asked.get("drawn", ""))
    place = asked.get("reliability", "")
    if was is not None and place == str(sorted(set(stops)).index(was)):
        asked = {}
    return _slider("reliability", "Reliability", stops, begins[purpose], asked)


def _slider(name: str, label: str, stops: Sequence[float], own: float, asked: Mapping[str, str]) -> Slider:
    """The slider where it was moved to, else at the value in force, which always is one of its stops."""
    placed = tuple(sorted({*stops, own}))
    place = asked.get(name, "")
    moved = int(place) if place.isascii() and place.isdigit() and len(place) < 4 else placed.index(own)
    return Slider(name, label, placed, min(moved, len(placed) - 1))


def _title(plan: SetPlan | None, why: str) -> str:
    if plan is None:
        return "Not counted yet" if why == NOT_COUNTED else "This cannot be planned"
    each = "at most " if plan.config.slices else "about " if plan.is_mean else ""
    labels = f", {each}{plan.labels:,} labels a submission" if plan.labels else ", and no label"
    return f"{plan.examples:,} examples{labels}"


def _sentence(plan: SetPlan | None, why: str, of_labels: str) -> str:
    if plan is None:
        return sentence_text(why)
    hours = plan.labels * SECONDS_A_LABEL / 3600
    if not plan.labels:
        return "The models' predictions on them suffice."
    took = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
    words = of_labels if plan.is_mean else "at most"
    return f"Labelling for one submission takes {took} {words}, at {SECONDS_A_LABEL} s a label."


def _of_labels(condition: Condition, mode: str) -> str:
    bound = disagreement_bound(condition)
    if condition.needs_agreements or bound is None or bound >= 1:
        return "at most"
    return on_average(condition, mode=mode)


def _own(gate: GateConfig) -> str:
    """What the study's sets have and the table has not."""
    said = []
    if gate.estimator == "paper":
        said.append("The study plans its sets by the paper's sizes (estimator paper), in which power has no part.")
    if gate.slices:
        said.append(
            f"The study's conditions on {counted(len(gate.slices), 'slice')} share the level and need examples of "
            "their own: a set has room for them, the table and the command that sizes are without them."
        )
    return " ".join(said)


JOINT = str(SealedSetPurpose.JOINT)
_sizes = lru_cache(maxsize=256)(plan_joint)


@dataclass(frozen=True, slots=True)
class JointView:
    """One set for gate and meter.

    Attributes:
        title: How many examples it needs; or that there is none.
        sentence: What two sets would need, and which is cheaper.
        problem: Why gate and meter cannot share a set with these settings; else empty.
        examples: Of the set; 0 where there is none.
        meter: The meter's settings, which are the study's: name and value.
        commands: The same on the command line: size, plan, seal.
    """

    title: str
    sentence: str
    problem: str
    examples: int
    meter: tuple[tuple[str, str], ...]
    commands: Mapping[str, str]


def joint_settings(wanted: Asked) -> dict[str, object]:
    """The planner's settings as those of a shared set: the reliability is that of both systems together.

    It has all its labels, so that there are none to save by stopping early.
    """
    gate = {name: value for name, value in wanted.settings().items() if name != "reliability"}
    return {"gate": gate | {"sampling": "fixed"}, "reliability": wanted.reliability}


def joint_view(study: Study, wanted: Asked) -> JointView:
    """What the planner says of one set for both."""
    try:
        config = set_settings(study, JOINT, joint_settings(wanted))[1]
        assert isinstance(config, JointConfig)  # that is what such a set has
        sizes = _sizes(config)
    except EasemlError as error:
        return JointView("No set for both", "", str(error), 0, (), {})
    two = sizes.separate_gate + sizes.separate_meter
    cheaper = "one set is cheaper" if sizes.labels < two else "two sets are cheaper" if two < sizes.labels else "alike"
    meter = config.meter
    return JointView(
        title=f"{sizes.labels:,} examples, all with labels, for gate and meter",
        sentence=f"Two sets: {sizes.separate_gate:,} (gate) and {sizes.separate_meter:,} (meter); {cheaper}.",
        problem="",
        examples=sizes.labels,
        meter=(
            ("Meter, ranges end at", ", ".join(f"{edge:g}" for edge in meter.ranges)),
            ("Meter, tolerance", f"{meter.tolerance:g}"),
            ("Meter, submissions", f"{meter.steps:,}"),
            ("The gate's part of what may fail", f"{100 * config.gate_share:.3g} %"),
        ),
        commands=joint_commands(study.name, wanted, config),
    )
