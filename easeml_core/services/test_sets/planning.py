"""What a new test set is planned for: the study's settings with changes, and how many examples they need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from easeml_core.config import DirectConfig, GateConfig, JointConfig, MeterConfig, choice
from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import InvalidInputError
from easeml_core.gate.condition import parse_condition
from easeml_core.meter.drift import split_meters
from easeml_core.meter.shared_ledger import joint_plan, planned_gate_log_weight
from easeml_core.services.test_sets.set_sizes import (
    examples_for_gate,
    examples_for_joint_gate,
    gate_set_examples,
    plan_for_meter,
    plan_joint,
)

if TYPE_CHECKING:
    from easeml_core.entities import Study

SetConfig = GateConfig | MeterConfig | JointConfig
"""Settings of a set, by its purpose; a ``direct`` set has those of a meter."""


def set_settings(study: Study, purpose: str, settings: Mapping[str, Any]) -> tuple[SealedSetPurpose, SetConfig]:
    """The purpose, and the study's settings for it with the changes; conditions in their canonical form.

    Args:
        study: Whose set it will be.
        purpose: ``gate``, ``meter``, ``joint`` or ``direct``.
        settings: What differs from the study's settings; names of GateConfig, MeterConfig or JointConfig. The ``gate``
            and the ``meter`` of the latter are what differs, too.

    Raises:
        ConfigError: A setting is unknown or out of range.
        ConditionSyntaxError: A condition cannot be read.
        InvalidInputError: Gate and meter cannot share a set with these settings.
    """
    kind: SealedSetPurpose = choice(SealedSetPurpose, "purpose", purpose)
    plan, changes = study_plan(study.config, kind).to_json(), dict(settings)
    if kind == SealedSetPurpose.JOINT:
        for system in ("gate", "meter"):
            given = changes.get(system, {})
            refuse_own_reliability(system, given)
            changes[system] = plan[system] | (given if isinstance(given, Mapping) else {system: given})
    return kind, settings_of_plan(kind, plan | changes)


def refuse_own_reliability(system: str, settings: Any) -> None:
    """Raise InvalidInputError where a system on a shared set asks for a reliability of its own."""
    if isinstance(settings, Mapping) and "reliability" in settings:
        message = (
            f"the {system} of a shared set has no reliability of its own: leave it out, and give that of both together "
            "as the reliability of the shared set, and gate_share, the gate's part of what may fail"
        )
        raise InvalidInputError(message)


def study_plan(settings: Mapping[str, Any], purpose: SealedSetPurpose) -> SetConfig:
    """What a study's settings plan a set of this purpose for.

    The delta of a study's meter is split where the study has two (``direct``), and what gate and meter have together
    is that of their shared set. Without a second meter in the settings, a ``direct`` set is planned like the meter's.

    Raises:
        InvalidInputError: The settings plan answers about other conditions, which only the referee may do.
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


def set_purposes(settings: Mapping[str, Any]) -> tuple[SealedSetPurpose, ...]:
    """The sealed sets that a study's data is cut into."""
    joint, direct = settings.get("joint") is not None, settings.get("direct") is not None
    first = (SealedSetPurpose.JOINT,) if joint else (SealedSetPurpose.GATE, SealedSetPurpose.METER)
    return (*first, SealedSetPurpose.DIRECT) if direct else first


def settings_of_plan(purpose: SealedSetPurpose, plan: Mapping[str, Any]) -> SetConfig:
    """The settings that a set's plan stands for.

    Raises:
        InvalidInputError: Gate and meter cannot share a set with these settings.
    """
    if purpose in (SealedSetPurpose.METER, SealedSetPurpose.DIRECT):
        return MeterConfig.from_json(plan)
    if purpose == SealedSetPurpose.GATE:
        return _canonical(GateConfig.from_json(plan))
    config = JointConfig.from_json(plan)
    joint_plan(config)
    return replace(config, gate=_canonical(config.gate))


def _canonical(config: GateConfig) -> GateConfig:
    slices = tuple((name, str(parse_condition(condition))) for name, condition in config.slices)
    return replace(config, condition=str(parse_condition(config.condition)), slices=slices)


def gate_of(config: SetConfig) -> GateConfig | None:
    """The gate's settings on a set that serves one."""
    if isinstance(config, JointConfig):
        return config.gate
    return config if isinstance(config, GateConfig) else None


def needed_examples(config: SetConfig) -> int:
    """How many examples a set needs at least, so that each of its slices can have what it needs too."""
    if isinstance(config, JointConfig):
        return plan_joint(config).labels
    return gate_set_examples(config) if isinstance(config, GateConfig) else plan_for_meter(config).labels


def needed_of_slice(config: GateConfig | JointConfig, condition: str) -> int:
    """How many examples a slice needs at least for its own condition, at its share of the level."""
    if isinstance(config, GateConfig):
        return examples_for_gate(replace(config, condition=condition))
    weight = planned_gate_log_weight(joint_plan(config), config.meter.ambiguous)
    return examples_for_joint_gate(replace(config.gate, condition=condition), weight)
