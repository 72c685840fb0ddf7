"""The gate page's planner for one set that gate and meter share: what it needs, beside a set for each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.pages.gate.commands import joint_commands
from easeml_core.config import JointConfig
from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import EasemlError
from easeml_core.services.test_sets.planning import plan_joint, set_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.entities import Study

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


def joint_settings(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The planner's settings as those of a shared set: the reliability is that of both systems together.

    It has all its labels, so that there are none to save by stopping early.
    """
    gate = {name: value for name, value in wanted.items() if name != "reliability"}
    return {"gate": gate | {"sampling": "fixed"}, "reliability": wanted["reliability"]}


def joint_view(study: Study, wanted: Mapping[str, Any]) -> JointView:
    """What the planner says of one set for both.

    Args:
        study: Whose set it is; its meter's settings are taken.
        wanted: ``condition``, ``reliability``, ``steps``, ``adaptivity``, ``mode`` and ``power``.
    """
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
