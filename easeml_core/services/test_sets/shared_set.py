"""What a live sealed set was planned for, whoever draws on it, and when a set that gate and meter share has ended.

Whoever answers on a shared set, gate or meter, holds the study first (``releases.hold_study``) and then locks the set
(``releases.live_test_set(..., lock=True)``): so one answer follows the other, and neither waits for the other in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.config import GateConfig, JointConfig, MeterConfig
from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import StateError
from easeml_core.services.test_sets.planning import joint_weight_limit
from easeml_core.store.tables import ledger, sealed

if TYPE_CHECKING:
    from sqlalchemy import Connection

SHARED_SET_HAS_ENDED = "the set that gate and meter share has ended"


def is_joint(row: Any) -> bool:
    """Whether gate and meter share the set; ``row`` is one of ``work.test_sets``."""
    return bool(row.purpose == SealedSetPurpose.JOINT)


def joint_config(row: Any) -> JointConfig | None:
    """The plan of a shared set; None for any other."""
    return JointConfig.from_json(row.plan) if is_joint(row) else None


def gate_settings(row: Any) -> GateConfig:
    """The gate's settings on a gate or a shared set, with its own part of delta."""
    joint = joint_config(row)
    return GateConfig.from_json(row.plan) if joint is None else joint.gate


def meter_settings_of(row: Any) -> MeterConfig:
    """The meter's settings on a meter, a direct or a shared set, with its own part of delta."""
    joint = joint_config(row)
    return MeterConfig.from_json(row.plan) if joint is None else joint.meter


def require_joint_goes_on(tx: Connection, row: Any) -> None:
    """Refuse an answer on a shared set that has ended, also while its last answer is still to be published.

    Raises:
        StateError: It has ended, for gate and meter alike.
    """
    why = joint_end(tx, row)
    if why is not None:
        message = f"{SHARED_SET_HAS_ENDED}, for both; the referee must seal a new one"
        raise StateError(message)


def joint_end(tx: Connection, row: Any) -> str | None:
    """Why a shared set gives no further answer, to neither system, by what its ledger says; None while it does.

    It ends when the steps of either system are used, when the meter could not give a signal, or when the level that is
    left would need more examples for the planned condition than the set has. That the last two depend on the sealed
    labels, through the costs of the signals, is no side channel. The end is one more outcome of an answer, after which
    nothing is claimed any more, by neither system: it adds a leaf to the developer's tree and no node at which a
    promise could fail (docs/adr/0014-shared-sets-and-two-meters.md). It would be one if only one system stopped. Nor is
    the time that finding it takes: the log weight, which tells how clear the signals were, is only compared with a
    number.

    Asked before an answer (``require_joint_goes_on``) and after it is in the ledger, for ``retired_why``.

    Args:
        tx: Transaction of the referee's role that has locked the set.
        row: Of ``work.test_sets``, with ``id``, ``purpose``, ``rows`` and ``plan``.

    Returns:
        ``signals``, ``steps``, ``tolerance`` or None; None for a set that only one system draws on.
    """
    joint = joint_config(row)
    if joint is None:
        return None
    limit = _weight_limit(tx, row, joint)  # before anything that depends on answers, and once in a process
    if ledger.meter_has_retired(tx, row.id):
        return "signals"
    for system, steps in ((ledger.GATE, joint.gate.steps), (ledger.METER, joint.meter.steps)):
        if ledger.used(tx, row.id, system)[0] >= steps:
            return "steps"
    return None if ledger.joint_log_weight(tx, row.id) <= limit else "tolerance"


def _weight_limit(tx: Connection, row: Any, config: JointConfig) -> float:
    """Up to which log weight the set is large enough for a verdict of its plan, and each of its slices."""
    codes = sealed.sealed_slices(tx, row.id) if config.gate.slices else None
    limits = [joint_weight_limit(config, config.gate.condition, row.rows)]
    for place, (_, condition) in enumerate(config.gate.slices):
        size = 0 if codes is None else int(np.sum(codes == place))
        limits.append(joint_weight_limit(config, condition, size))
    return min(limits)
