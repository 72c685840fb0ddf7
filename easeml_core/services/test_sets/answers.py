"""Answers of a study's live sets: what a decision holds and gives, the end of a shared set, the referee's ledger.

A decision about a shared set, of gate or meter, locks all sets of the study at once (``releases.hold_study``), so that
answers follow each other without a deadlock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import numpy as np

from easeml_core.entities import JsonObject, SealedSetPurpose, SealedSetState
from easeml_core.errors import StateError
from easeml_core.formats.encoding import typed_record
from easeml_core.sandbox.isolation import Isolation
from easeml_core.services.test_sets.planning import gate_of, joint_weight_limit
from easeml_core.settings.config import GateConfig, JointConfig, MeterConfig
from easeml_core.store.tables import ledger, sealed, studies
from easeml_core.store.tables.test_sets import serves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import Study
    from easeml_core.settings.config import SetConfig
    from easeml_core.store.database import Store
    from easeml_core.store.tables.ledger import LedgerEntry
    from easeml_core.store.tables.outbox import Facts
    from easeml_core.store.tables.requests import Request
    from easeml_core.store.tables.test_sets import PlannedSet


BLOCKING_REFUSED = (
    "study {study!r} withholds its verdicts (adaptivity none): a task that fails or is skipped by the verdict would "
    "show it; ask without on_fail"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision on a request that is not published yet.

    Attributes:
        message: The public sentence of the answer.
        facts: What is published together with it; None for nothing.
    """

    message: str
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to gate or meter, with the rows that its deciding transaction holds.

    Attributes:
        request: The request.
        study: Its study.
        live: The study's live sets (``releases.hold_study``).
    """

    request: Request
    study: Study
    live: Sequence[PlannedSet]

    def set_for(self, purpose: SealedSetPurpose) -> PlannedSet | None:
        """Return the live set that serves this purpose, or None."""
        return next((found for found in self.live if purpose in serves(found.purpose)), None)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a request cannot be decided yet; it keeps its place."""

    why: str


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
    """Refuse an answer on a shared set that has ended, also while its last answer is still to be published."""
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


@typed_record
class ShownEntry:
    """One answer of a sealed set, for the referee.

    Attributes:
        test_set_id: The set.
        test_set: Its name, or None.
        purpose: Which systems draw on it.
        set_state: Where in its life it is now.
        system: ``gate``, ``meter`` or ``other``.
        step: Which answer of the set it was, of all systems together.
        steps: Answers that the set can give.
        system_step: Which answer of ``system`` it was.
        system_steps: Answers that the system can give on the set.
        request_id: The request.
        model_id: The new model.
        incumbent_id: The model that it was compared with; None for a reading.
        condition: Of the request; None for a reading.
        verdict: By the evidence; of a reading the signal.
        released: The published answer.
        is_change: Whether it was a change (``stats/adaptivity.py``).
        level: The error probability that the test was allowed.
        log_level: Its logarithm.
        log_cost: In nats, by which the answer lowers the logarithm of all later levels.
        decided_at: When it was decided.
        answered_at: When the answer left; None while it waits for its time.
        isolation: How the model's process was isolated; None where it was not run.
        report: The whole report, as the ledger keeps it.
    """

    test_set_id: int
    test_set: str | None
    purpose: SealedSetPurpose
    set_state: SealedSetState
    system: str
    step: int
    steps: int
    system_step: int
    system_steps: int
    request_id: int
    model_id: int | None
    incumbent_id: int | None
    condition: str | None
    verdict: str | None
    released: str
    is_change: bool
    level: float
    log_level: float
    log_cost: float
    decided_at: datetime
    answered_at: datetime | None
    isolation: Isolation | None
    report: JsonObject


def study_ledger(store: Store, *, study: str) -> list[ShownEntry]:
    """Return every answer of the study's sealed sets, oldest first."""
    with store.begin() as tx:
        found = ledger.study_ledger(tx, studies.get_study(tx, study).id)
    return [shown_entry(entry) for entry in found]


def shown_entry(entry: LedgerEntry) -> ShownEntry:
    """Return an entry of the ledger with the models and verdict of its report."""
    report = entry.verdict
    return ShownEntry(
        test_set_id=entry.test_set_id,
        test_set=entry.test_set,
        purpose=entry.purpose,
        set_state=entry.state,
        system=entry.system,
        step=entry.step,
        steps=entry.steps,
        system_step=entry.system_step,
        system_steps=entry.system_steps,
        request_id=entry.request_id,
        model_id=report.model_id,
        incumbent_id=report.incumbent_id,
        condition=report.condition,
        verdict=report.verdict if entry.system == ledger.GATE else entry.answer,
        released=entry.answer,
        is_change=entry.is_change,
        level=math.exp(entry.log_level),
        log_level=entry.log_level,
        log_cost=entry.log_cost,
        decided_at=entry.decided_at,
        answered_at=entry.answered_at,
        isolation=None if entry.isolation is None else Isolation.from_json(entry.isolation),
        report=entry.report,
    )
