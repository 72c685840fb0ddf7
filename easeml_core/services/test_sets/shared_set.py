"""Plans of live sealed sets, and the end of a set that gate and meter share.

A decision about a shared set, of gate or meter, locks all sets of the study at once (``releases.hold_study``), so that
answers follow each other without a deadlock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from easeml_core.config import GateConfig, JointConfig, MeterConfig
from easeml_core.errors import StateError
from easeml_core.services.test_sets.planning import gate_of, joint_weight_limit
from easeml_core.store.tables import ledger, sealed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.config import SetConfig
    from easeml_core.store.tables.test_sets import PlannedSet

SHARED_SET_HAS_ENDED = "the set that gate and meter share has ended"


class HasPlan(Protocol):
    """A row of a sealed set, or of an answer of one, with the plan of the set."""

    @property
    def plan(self) -> SetConfig:
        """The plan of the set."""


def is_joint(found: HasPlan) -> bool:
    """Return whether gate and meter share the set."""
    return isinstance(found.plan, JointConfig)


def joint_config(found: HasPlan) -> JointConfig | None:
    """Return the plan of a shared set; None for any other."""
    return found.plan if isinstance(found.plan, JointConfig) else None


def gate_settings(found: HasPlan) -> GateConfig:
    """Return the gate's settings on a gate or a shared set, with its own part of delta."""
    gate = gate_of(found.plan)
    assert gate is not None  # callers ask for a gate only where there is one
    return gate


def meter_settings_of(found: HasPlan) -> MeterConfig:
    """Return the meter's settings on a meter, a direct or a shared set, with its own part of delta."""
    plan = found.plan.meter if isinstance(found.plan, JointConfig) else found.plan
    assert isinstance(plan, MeterConfig)  # callers ask for a meter only where there is one
    return plan


def require_joint_goes_on(tx: Connection, found: PlannedSet) -> None:
    """Refuse an answer on a shared set that has ended, also while its last answer is still to be published.

    Raises:
        StateError: It has ended, for gate and meter alike.
    """
    why = joint_end(tx, found)
    if why is not None:
        message = f"{SHARED_SET_HAS_ENDED}, for both; the referee must seal a new one"
        raise StateError(message)


def joint_end(tx: Connection, found: PlannedSet) -> str | None:
    """Return why a shared set gives no further answer, to neither system; None while it does.

    It ends when the steps of either system are used, when the meter could not give a signal, or when the remaining
    level would need more examples for the planned condition than the set has. The last two depend on sealed labels,
    through the costs of the signals, which is no side channel: the end is one more outcome of an answer, after which
    neither system claims anything. It adds a leaf to the developer's tree and no node at which a promise could fail
    (docs/adr/0014-shared-sets-and-two-meters.md). It would be one if only one system stopped. Nor is the duration: the
    log weight, which shows how clear the signals were, is only compared with a number.

    Called before an answer (``require_joint_goes_on``) and after it is in the ledger, for ``retired_why``.

    Args:
        tx: Transaction of the referee's role that has locked the set.
        found: The set.

    Returns:
        ``signals``, ``steps``, ``tolerance`` or None; None for a set that only one system draws on.
    """
    joint = joint_config(found)
    if joint is None:
        return None
    limit = _weight_limit(tx, found, joint)  # before anything that depends on answers, and once in a process
    if ledger.meter_has_retired(tx, found.id):
        return "signals"
    for system, steps in ((ledger.GATE, joint.gate.steps), (ledger.METER, joint.meter.steps)):
        if ledger.used(tx, found.id, system)[0] >= steps:
            return "steps"
    return None if ledger.joint_log_weight(tx, found.id) <= limit else "tolerance"


def _weight_limit(tx: Connection, found: PlannedSet, config: JointConfig) -> float:
    """Return the log weight up to which the set is large enough for a verdict of its plan, and each of its slices."""
    codes = sealed.sealed_slices(tx, found.id) if config.gate.slices else None
    limits = [joint_weight_limit(config, config.gate.condition, found.rows)]
    for place, (_, condition) in enumerate(config.gate.slices):
        size = 0 if codes is None else int(np.sum(codes == place))
        limits.append(joint_weight_limit(config, condition, size))
    return min(limits)
