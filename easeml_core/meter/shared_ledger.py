"""One ledger for gate and meter on the same sealed set: every answer of either makes the later levels of both smaller.

A gate's verdict is a signal with two answers about another statistic of the same set, so both walk down one tree. Each
released verdict adds ln 2 to the log weight, each meter signal the ln of how many ranges could have been answered:

    next meter level = delta_meter / T exp(-log_weight),   next gate level = delta_gate / H exp(-log_weight)

In each level of the tree the weights of the nodes that can be reached add up to at most 1, and there are at most T
meter readings and H verdicts on each path, so all failures add up to at most delta_gate + delta_meter. A gate whose
verdicts are hidden adds no branch, yet must pay for the signals: its models react to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.entities import Adaptivity
from easeml_core.errors import InvalidInputError
from easeml_core.meter.reading import interval_size
from easeml_core.settings.config import MeterConfig, parse_adaptivity, require

if TYPE_CHECKING:
    from easeml_core.settings.config import JointConfig

_LN2 = math.log(2)

_NOT_COVERED = {
    Adaptivity.FIRST_CHANGE: "it counts histories without a pass only, and signals branch there too",
    Adaptivity.UP_TO: "it counts histories with few passes only, and signals branch there too",
    Adaptivity.RECYCLE: "it reuses the level of a pass for what follows, and the meter's claims are two-sided",
}


@dataclass(frozen=True, slots=True)
class JointPlan:
    """What one set was planned for when gate and meter share it; fixed before its first answer.

    Attributes:
        reliability: 1 - delta, in (0, 1), for all verdicts and all signals together.
        gate_steps: H >= 1, verdicts.
        meter_steps: T >= 1, signals.
        gate_share: Part of delta for the gate, in (0, 1).
        adaptivity: ``none`` or ``full``: whether verdicts are released.

    Raises:
        ConfigError: If a value is outside its range.
        InvalidInputError: If the proof does not cover the adaptivity.
    """

    reliability: float
    gate_steps: int
    meter_steps: int
    gate_share: float = 0.5
    adaptivity: str = "full"

    def __post_init__(self) -> None:
        require(0 < self.reliability < 1, "reliability", self.reliability, "> 0 and < 1")
        require(0 < self.gate_share < 1, "gate_share", self.gate_share, "> 0 and < 1")
        for name in ("gate_steps", "meter_steps"):
            whole = type(getattr(self, name)) is int and getattr(self, name) >= 1
            require(whole, name, getattr(self, name), "a whole number >= 1")
        kind, _ = parse_adaptivity(self.adaptivity)
        if kind in _NOT_COVERED:
            message = (
                f"adaptivity {self.adaptivity!r} cannot share a sealed set with a meter: {_NOT_COVERED[kind]}; "
                "take 'full' or 'none', or give the gate a separate set"
            )
            raise InvalidInputError(message)

    @property
    def releases(self) -> bool:
        """Whether developers see verdicts."""
        return parse_adaptivity(self.adaptivity)[0] is Adaptivity.FULL


def joint_plan(config: JointConfig) -> JointPlan:
    """The plan of a shared set, once its settings are such that the proof covers them.

    Example:
        >>> from easeml_core.settings.config import JointConfig
        >>> joint_plan(JointConfig(reliability=0.9)).meter_steps
        8
    """
    if config.gate.sampling != "fixed":
        message = (
            f"sampling {config.gate.sampling!r} cannot share a sealed set with a meter: where looking gives up depends "
            "on the level, so a verdict at a lower level need not be one at a higher level; take 'fixed' (a shared set "
            "has all its labels, there are none to save)"
        )
        raise InvalidInputError(message)
    if config.gate.other_conditions:
        message = (
            "a sealed set that gate and meter share gives no answers about other conditions, got other_conditions "
            f"{config.gate.other_conditions}; leave it out, or plan two sets"
        )
        raise InvalidInputError(message)
    check_joint_meter(config.meter)
    return JointPlan(
        reliability=config.reliability,
        gate_steps=config.gate.steps,
        meter_steps=config.meter.steps,
        gate_share=config.gate_share,
        adaptivity=config.gate.adaptivity,
    )


def planned_gate_log_weight(plan: JointPlan, ambiguous: int) -> float:
    """The log weight before the last verdict: H - 1 verdicts, and the ambiguous signals planned for.

        (H - 1) ln 2 [verdicts are released]  +  min(b, T) ln 2

    Args:
        plan: What the set is planned for.
        ambiguous: b >= 0, signals that could as well have been the neighbouring one.

    Example:
        >>> plan = JointPlan(reliability=0.9, gate_steps=3, meter_steps=9, adaptivity="full")
        >>> round(planned_gate_log_weight(plan, 2) / math.log(2), 9)
        4.0
    """
    return (plan.gate_steps - 1) * gate_log_cost(plan) + min(ambiguous, plan.meter_steps) * _LN2


def planned_meter_log_weight(plan: JointPlan, ambiguous: int) -> float:
    """The log weight before the last signal: H ln 2 [verdicts are released] + min(b, T - 1) ln 2; arguments as above.

    Example:
        >>> plan = JointPlan(reliability=0.9, gate_steps=3, meter_steps=9, adaptivity="none")
        >>> round(planned_meter_log_weight(plan, 2) / math.log(2), 9)
        2.0
    """
    return plan.gate_steps * gate_log_cost(plan) + min(ambiguous, plan.meter_steps - 1) * _LN2


def joint_meter_labels(config: JointConfig) -> int:
    """The labels with which the meter can still give the last planned signal of a shared set.

        n = ceil( (ln(2 T / delta_meter) + planned log weight) / (2 epsilon^2) )     hoeffding
        n by the intervals at that level                                             clopper-pearson

    Example:
        >>> from easeml_core.settings.config import GateConfig, JointConfig
        >>> meter = MeterConfig(tolerance=0.05, steps=32, ambiguous=5, tail="hoeffding")
        >>> gate = GateConfig(adaptivity="none")
        >>> joint_meter_labels(JointConfig(gate=gate, meter=meter, reliability=0.98))  # delta_meter = .01
        2446
    """
    plan = joint_plan(config)
    log_level = _log_level(plan, plan.meter_steps, 1 - plan.gate_share)
    return interval_size(
        tail=config.meter.tail,
        log_side=log_level - planned_meter_log_weight(plan, config.meter.ambiguous) - _LN2,
        tolerance=config.meter.tolerance,
    )


def gate_log_level(plan: JointPlan, log_weight: float) -> float:
    """Ln of the level of a verdict after answers of this log weight: ln delta_gate - ln H - log weight.

    Example:
        >>> plan = JointPlan(reliability=0.9, gate_steps=10, meter_steps=10)
        >>> round(math.exp(gate_log_level(plan, math.log(2))), 9)
        0.0025
    """
    return _log_level(plan, plan.gate_steps, plan.gate_share) - log_weight


def check_joint_meter(config: MeterConfig) -> None:
    """Raise InvalidInputError unless the proof covers the meter's settings: path-adaptive, one team, planned steps."""
    plain = (config.teams, config.open_ended, config.developer) == (1, False, "any")
    if config.method != "path-adaptive" or not plain:
        message = (
            f"a meter with the method {config.method!r}, {config.teams} team(s), open_ended {config.open_ended} and "
            f"developer {config.developer!r} cannot share a sealed set with a gate: its levels are made for its own "
            "answers and would not pay for verdicts; take path-adaptive with one team and planned steps, or give the "
            "meter a separate set"
        )
        raise InvalidInputError(message)


def gate_log_cost(plan: JointPlan) -> float:
    """What one verdict adds to the log weight: ln 2 when it is released, 0 when it is hidden."""
    return _LN2 if plan.releases else 0.0


def _log_level(plan: JointPlan, steps: int, share: float) -> float:
    """Ln of the level of a system's first answer."""
    return math.log1p(-plan.reliability) + math.log(share) - math.log(steps)
