"""The referee's view of the answers of a study's sealed sets and their costs. Not for developers."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.entities import JsonObject, SealedSetPurpose, SealedSetState
from easeml_core.sandbox.isolation import Isolation
from easeml_core.store.tables import ledger, studies

if TYPE_CHECKING:
    from easeml_core.store.database import Store
    from easeml_core.store.tables.ledger import LedgerEntry


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
    """Return every answer of the study's sealed sets, oldest first.

    Args:
        store: Role ``easeml_referee``.
        study: The study.

    Raises:
        NotFoundError: There is no such study.
    """
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
