"""Plan a test set: the study's settings with changes, and the examples that they need, for gate, meter and both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import evolve

from easeml_core.entities import JsonObject, SealedSetPurpose
from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import typed_record
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.exact_sizes import labels_in_words
from easeml_core.gate.planner import plan_gate
from easeml_core.meter.alternatives import alternatives_to
from easeml_core.meter.drift import split_meters
from easeml_core.meter.overfitting_budget import parse_budget
from easeml_core.meter.planner import plan_config, validation_minimum
from easeml_core.meter.shared_ledger import (
    gate_log_cost,
    joint_meter_labels,
    joint_plan,
    planned_gate_log_weight,
    planned_meter_log_weight,
)
from easeml_core.settings.config import (
    DirectConfig,
    GateConfig,
    JointConfig,
    MeterConfig,
    SetConfig,
    choice,
    require,
    set_config,
)
from easeml_core.stats.binomial_sizes import first_at_most

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.entities import Study
    from easeml_core.gate.planner import GatePlan
    from easeml_core.meter.planner import MeterPlan


_WEIGHT_STEP = 1e-3
# Nats, too: sums of the same costs in another order are the same weight.
_ROUNDING = 1e-9


def plan_for_gate(config: GateConfig, changes: int = 0, log_weight: float = 0.0) -> GatePlan:
    """Return the plan of a sealed gate set with these settings."""
    return plan_gate(
        parse_condition(config.condition),
        reliability=config.reliability,
        steps=config.steps,
        adaptivity=config.adaptivity,
        mode=config.mode,
        estimator=config.estimator,
        power=config.power if config.estimator == "exact" else None,
        changes=changes,
        slices=1 + len(config.slices),
        other_conditions=config.other_conditions,
        log_weight=log_weight,
    )


def examples_for_gate(config: GateConfig, changes: int = 0) -> int:
    """Return how many examples a sealed gate set needs, labelled or not; arguments as of ``plan_for_gate``."""
    return plan_for_gate(config, changes).examples


def labels_of_submissions(config: GateConfig, examples: int) -> str | None:
    """Say what submissions need where the set's condition does not bound d; None where labels do not depend on that."""
    return labels_in_words(
        parse_condition(config.condition),
        examples,
        log_level=plan_for_gate(config).log_level,
        mode=config.mode,
        power=config.power,
        conditions=1 + len(config.slices),
    )


def examples_for_joint_gate(config: GateConfig, log_weight: float) -> int:
    """Return how many examples the gate needs on a shared set for a verdict after answers of this log weight.

    Each released verdict there is paid for when it is given, as part of the log weight, so that all adaptivities start
    from delta / H.
    """
    return plan_for_gate(evolve(config, adaptivity="none"), log_weight=log_weight).examples


@lru_cache(maxsize=1024)
def joint_weight_limit(config: JointConfig, condition: str, examples: int) -> float:
    """Return the log weight up to which so many examples suffice for a verdict on a condition of a shared set.

    It follows from the plan and the size alone, so that its duration reveals no answer; the need at the weight of the
    answers would. The need rises with the weight but for small steps back (``stats/binomial_sizes.py``): the examples
    suffice at the limit, and do not a thousandth of a nat above; a planned weight at which they do is never beyond it.

    Example:
        >>> from easeml_core.settings.config import JointConfig
        >>> config = JointConfig()
        >>> needed = examples_for_joint_gate(config.gate, 3.0)
        >>> round(joint_weight_limit(config, config.gate.condition, needed), 2)  # 3.12 needs 5 examples more
        3.11
    """
    gate, plan = evolve(config.gate, condition=condition), joint_plan(config)

    def needed(weight: float) -> int:
        return examples_for_joint_gate(gate, weight)

    signals = config.meter.steps * math.log(len(config.meter.ranges) + 1)
    most = signals + config.gate.steps * gate_log_cost(plan)
    if needed(most) <= examples:
        return math.inf
    low = planned_gate_log_weight(plan, config.meter.ambiguous)
    if needed(low) > examples:
        low, most = 0.0, low
        if needed(low) > examples:
            return -math.inf
    return low + _steps_enough(needed, examples, low, most) * _WEIGHT_STEP + _ROUNDING


def _steps_enough(needed: Callable[[float], int], examples: int, low: float, most: float) -> int:
    """Count the steps above a weight at which the examples suffice up to which they still do."""
    steps = math.ceil((most - low) / _WEIGHT_STEP)
    slope = (needed(most) - needed(low)) / steps
    first_too_many = first_at_most(
        lambda step: -needed(low + step * _WEIGHT_STEP),
        -examples - 0.5,
        guess=(examples - needed(low)) / slope,
        slope=slope,
        low=1,
        high=steps,
    )
    return first_too_many - 1


def plan_for_meter(config: MeterConfig) -> MeterPlan:
    """Return the plan of a sealed meter set with these settings, at the error rate that needs most."""
    parse_budget(config)
    return plan_config(config)


@dataclass(frozen=True, slots=True)
class JointSizes:
    """The labels of one set that gate and meter share, and of two separate sets.

    Attributes:
        labels: n >= 1, labelled examples: the larger of the next two.
        gate_labels: For the last planned verdict.
        meter_labels: For the last planned signal.
        gate_log_weight: Nats that other answers have cost before the last planned verdict.
        meter_log_weight: Likewise before the last planned signal.
        validation_minimum: Least size of the validation set; None when the first boundary is not above 0.
        separate_gate: Labels of a set for the gate alone, at its part of delta.
        separate_meter: Likewise for the meter.
    """

    labels: int
    gate_labels: int
    meter_labels: int
    gate_log_weight: float
    meter_log_weight: float
    validation_minimum: int | None
    separate_gate: int
    separate_meter: int


@typed_record
class SetsAlternative:
    """Whether gate and meter share a set (``joint``) or have one each (``separate``), and the labels that it takes."""

    sets: str
    labels: int


@typed_record
class JointPlanReport(JointSizes):
    """A plan for one set of gate and meter with its settings, compared with two sets.

    Attributes:
        condition: The gate's, in canonical form.
        reliability: 1 - delta of both together.
        gate_share: The gate's part of delta.
        meter: Settings of the meter.
        alternatives: One set, and two.
        cheaper: ``one set``, ``two sets`` or ``neither``.
    """

    condition: str
    reliability: float
    gate_share: float
    meter: JsonObject
    alternatives: list[SetsAlternative]
    cheaper: str


def plan_joint(config: JointConfig) -> JointSizes:
    """Return the labels for all planned verdicts and signals, at the log weight planned for the last of each.

    Example:
        >>> from easeml_core.settings.config import JointConfig
        >>> found = plan_joint(JointConfig())
        >>> found.labels == max(found.gate_labels, found.meter_labels)
        True
    """
    plan, ambiguous = joint_plan(config), config.meter.ambiguous
    gate_weight = planned_gate_log_weight(plan, ambiguous)
    gate, meter = joint_gate_examples(config.gate, gate_weight), joint_meter_labels(config)
    return JointSizes(
        labels=max(gate, meter),
        gate_labels=gate,
        meter_labels=meter,
        gate_log_weight=gate_weight,
        meter_log_weight=planned_meter_log_weight(plan, ambiguous),
        validation_minimum=validation_minimum(ranges=config.meter.ranges, reliability=config.meter.reliability),
        separate_gate=gate_set_examples(config.gate),
        separate_meter=plan_for_meter(config.meter).labels,
    )


def gate_set_examples(config: GateConfig) -> int:
    """Examples of a gate set, so that each of its slices can have what it needs too."""
    slices = sum(examples_for_gate(evolve(config, condition=condition)) for _, condition in config.slices)
    return max(examples_for_gate(config), slices)


def joint_gate_examples(config: GateConfig, log_weight: float) -> int:
    """Likewise of a shared set, for a verdict after answers of this log weight."""
    asked = [evolve(config, condition=condition) for _, condition in config.slices]
    slices = sum(examples_for_joint_gate(part, log_weight) for part in asked)
    return max(examples_for_joint_gate(config, log_weight), slices)


def set_settings(study: Study, purpose: str, settings: Mapping[str, object]) -> tuple[SealedSetPurpose, SetConfig]:
    """Return the purpose, and the study's settings for it with the changes; conditions in their canonical form."""
    kind: SealedSetPurpose = choice(SealedSetPurpose, "purpose", purpose)
    plan, changes = study_plan(study.config, kind).to_json(), dict(settings)
    if kind == SealedSetPurpose.JOINT:
        for system in ("gate", "meter"):
            given = changes.get(system, {})
            refuse_own_reliability(system, given)
            changes[system] = plan[system] | (given if isinstance(given, Mapping) else {system: given})
    return kind, canonical(set_config(kind, plan | changes))


def refuse_own_reliability(system: str, settings: object) -> None:
    """Raise InvalidInputError where a system on a shared set has a separate reliability."""
    if isinstance(settings, Mapping) and "reliability" in settings:
        message = (
            f"the {system} of a shared set has no separate reliability: leave it out, and give that of both together "
            "as the reliability of the shared set, and gate_share, the gate's part of what may fail"
        )
        raise InvalidInputError(message)


def study_plan(settings: JsonObject, purpose: SealedSetPurpose) -> SetConfig:
    """Return the plan that a study's settings give a set of this purpose.

    The delta of a study's meter is split where the study has two (``direct``), and gate and meter together have that of
    their shared set. Without a second meter in the settings, a ``direct`` set is planned like the meter's.
    """
    gate, meter = GateConfig.from_json(settings["gate"]), MeterConfig.from_json(settings["meter"])
    if gate.other_conditions:
        message = (
            "a study's gate plans no answers about other conditions, got other_conditions "
            f"{gate.other_conditions}; leave it out, and let the referee plan a set with --other-conditions"
        )
        raise InvalidInputError(message)
    direct = settings.get("direct")
    if direct is not None:
        total, second = split_meters(meter, direct_share=DirectConfig.from_json(direct).share)
        meter = second if purpose == SealedSetPurpose.DIRECT else total
    if purpose != SealedSetPurpose.JOINT:
        return gate if purpose == SealedSetPurpose.GATE else meter
    if settings.get("joint") is not None and direct is None:
        return JointConfig.from_json({"gate": gate, "meter": meter} | dict(settings["joint"]))
    parts = 1 - gate.reliability, 1 - meter.reliability
    together = math.nextafter(1 - math.fsum(parts), 1.0)
    return JointConfig(gate, meter, reliability=together, gate_share=parts[0] / math.fsum(parts))


def set_purposes(settings: JsonObject) -> tuple[SealedSetPurpose, ...]:
    """Return the sealed sets that a study's data is cut into."""
    joint, direct = settings.get("joint") is not None, settings.get("direct") is not None
    first = (SealedSetPurpose.JOINT,) if joint else (SealedSetPurpose.GATE, SealedSetPurpose.METER)
    return (*first, SealedSetPurpose.DIRECT) if direct else first


def canonical(config: SetConfig) -> SetConfig:
    """Return the settings with their conditions in canonical form."""
    if isinstance(config, MeterConfig):
        return config
    if isinstance(config, GateConfig):
        return _canonical_gate(config)
    joint_plan(config)
    return evolve(config, gate=_canonical_gate(config.gate))


def _canonical_gate(config: GateConfig) -> GateConfig:
    slices = tuple((name, str(parse_condition(condition))) for name, condition in config.slices)
    return evolve(config, condition=str(parse_condition(config.condition)), slices=slices)


def gate_of(config: SetConfig) -> GateConfig | None:
    """Return the gate's settings on a set that serves one."""
    if isinstance(config, JointConfig):
        return config.gate
    return config if isinstance(config, GateConfig) else None


def needed_examples(config: SetConfig) -> int:
    """Return how many examples a set needs at least, enough for each of its slices."""
    if isinstance(config, JointConfig):
        return plan_joint(config).labels
    return gate_set_examples(config) if isinstance(config, GateConfig) else plan_for_meter(config).labels


def needed_of_slice(config: GateConfig | JointConfig, condition: str) -> int:
    """Return how many examples a slice needs at least for its condition, at its share of the level."""
    if isinstance(config, GateConfig):
        return examples_for_gate(evolve(config, condition=condition))
    weight = planned_gate_log_weight(joint_plan(config), config.meter.ambiguous)
    return examples_for_joint_gate(evolve(config.gate, condition=condition), weight)


MOST_STEPS = 1024
MOST_RANGES = 12
MOST_TEAMS = 32
LEAST_TOLERANCE = 0.005
"""Within these limits a plan takes under a second; `easeml meter plan` has none."""

ERROR_RATE = 0.2
"""Error rate that exact tails are planned with; a wrong guess costs answers, never the guarantee."""

AMBIGUOUS = 5
"""Ambiguous answers that are planned for."""


@dataclass(frozen=True, slots=True)
class MeterPlans:
    """The plans for the same ranges, tolerance, reliability and submissions.

    Attributes:
        best: Path-adaptive with exact tails: what a new set is planned with.
        others: All other methods by Hoeffding's inequality, cheapest first.
        validation_minimum: Validation rows with which sampling noise stays in range 1; None where no number is enough.
        warnings: About the ranges.
    """

    best: MeterPlan
    others: tuple[MeterPlan, ...]
    validation_minimum: int | None
    warnings: tuple[str, ...]


@lru_cache(maxsize=256)
def meter_plans(
    *,
    ranges: tuple[float, ...],
    tolerance: float,
    reliability: float,
    steps: int,
    teams: int = 1,
    ambiguous: int = AMBIGUOUS,
    error_rate: float = ERROR_RATE,
) -> MeterPlans:
    """Return plans by every method; cached, since a page requests the same ones repeatedly.

    Example:
        >>> plans = meter_plans(ranges=(0.05, 0.13, 0.25), tolerance=0.02, reliability=0.99, steps=32)
        >>> plans.best.labels < min(plan.labels for plan in plans.others if plan.method == "path-adaptive")
        True
    """
    require(1 <= len(ranges) <= MOST_RANGES, "ranges", ranges, f"1 to {MOST_RANGES} boundaries")
    require(tolerance >= LEAST_TOLERANCE, "tolerance", tolerance, f"at least {LEAST_TOLERANCE}")
    require(0.5 <= reliability <= 0.999_999, "reliability", reliability, "from 0.5 to 0.999999")
    require(1 <= steps <= MOST_STEPS, "steps", steps, f"from 1 to {MOST_STEPS:,}")
    require(1 <= teams <= MOST_TEAMS, "teams", teams, f"from 1 to {MOST_TEAMS}")
    require(0 <= ambiguous <= 100, "ambiguous", ambiguous, "from 0 to 100")
    rough = MeterConfig(
        ranges=ranges,
        tolerance=tolerance,
        reliability=reliability,
        steps=steps,
        teams=teams,
        ambiguous=ambiguous,
        tail="hoeffding",
    )
    best = plan_config(evolve(rough, tail="clopper-pearson"), error_rate=error_rate)
    others = (plan_config(rough), *alternatives_to(rough))
    return MeterPlans(best, tuple(sorted(others, key=_size)), best.validation_minimum, best.warnings)


def _size(plan: MeterPlan) -> tuple[int, str]:
    return plan.labels, plan.method
