"""What a new test set is planned for: the study's settings with changes, and how many examples they need."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from easeml_core.config import GateConfig, MeterConfig, choice
from easeml_core.entities import SealedSetPurpose
from easeml_core.gate.condition import parse_condition
from easeml_core.services.registration import examples_for_gate, plan_for_meter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.entities import Study


def set_settings(
    study: Study, purpose: str, settings: Mapping[str, Any]
) -> tuple[SealedSetPurpose, GateConfig | MeterConfig]:
    """The purpose, and the study's settings for it with the changes; conditions in their canonical form.

    Args:
        study: Whose set it will be.
        purpose: ``gate`` or ``meter``.
        settings: What differs from the study's settings; names of GateConfig or MeterConfig.

    Raises:
        ConfigError: A setting is unknown or out of range.
        ConditionSyntaxError: A condition cannot be read.
    """
    kind: SealedSetPurpose = choice(SealedSetPurpose, "purpose", purpose)
    return kind, settings_of_plan(kind, dict(study.config[str(kind)]) | dict(settings))


def settings_of_plan(purpose: SealedSetPurpose, plan: Mapping[str, Any]) -> GateConfig | MeterConfig:
    """The settings that a set's plan stands for."""
    if purpose == SealedSetPurpose.METER:
        return MeterConfig.from_json(plan)
    config = GateConfig.from_json(plan)
    slices = tuple((name, str(parse_condition(condition))) for name, condition in config.slices)
    return replace(config, condition=str(parse_condition(config.condition)), slices=slices)


def needed_examples(config: GateConfig | MeterConfig) -> int:
    """How many examples a set needs at least, so that each of its slices can have what it needs too."""
    if isinstance(config, MeterConfig):
        return plan_for_meter(config).labels
    slices = sum(needed_of_slice(config, condition) for _, condition in config.slices)
    return max(examples_for_gate(config), slices)


def needed_of_slice(config: GateConfig, condition: str) -> int:
    """How many examples a slice needs at least for its own condition, at its share of the level."""
    return examples_for_gate(replace(config, condition=condition))
