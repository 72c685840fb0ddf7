"""The new-testset alarm: a gate set has served, so the next one goes live, and if there is none, somebody must be told.

The alarm is a row that a sensor or a notifier waits for, and a mail where the plan names an address. It says why the
set has ended, which is no more than the symbols so far tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import AlertKind, SealedSetPurpose
from easeml_core.services.test_sets import go_live
from easeml_core.store import mails, releases

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.entities import Study

WHY = {
    "steps": "all its steps are used",
    "changes": "as many answers as its adaptivity allows were of the kind that ends it",
    "tolerance": "it has too few examples for another test at the level that is left",
    "by hand": "the referee has retired it",
    "signals": "its promise would not hold for another answer",
    "regulation": "its rule allows no further answer",
}
"""What ``retired_why`` means, as part of a sentence."""


def end_gate_set(tx: Connection, study: Study, test_set_id: int, why: str) -> None:
    """Retire a live gate set, let the next sealed one go live, and raise the alarm for a new one.

    Args:
        tx: Transaction of the referee's role, which holds the study's sets.
        study: Whose set it is.
        test_set_id: The set; nothing happens if it is not live.
        why: A key of ``WHY``.
    """
    plan = releases.live_test_set(tx, study.id, SealedSetPurpose.GATE)
    if plan is None or plan.id != test_set_id or not releases.retire_test_set(tx, test_set_id, why):
        return
    following = go_live(tx, study.id, SealedSetPurpose.GATE)
    message = _message(study.name, test_set_id, why, following)
    releases.add_alert(
        tx,
        study_id=study.id,
        study=study.name,
        test_set_id=test_set_id,
        kind=AlertKind.NEW_TEST_SET,
        message=message,
    )
    recipient = plan.plan.get("mail") or ""
    if recipient:
        mails.add_mail(tx, recipient=recipient, subject=f"easeml: {study.name} needs a new test set", body=message)


def end_meter_set(tx: Connection, study: Study, test_set_id: int, why: str) -> None:
    """Retire a live meter set; the alert of its last reading tells whoever watches the study."""
    if releases.retire_test_set(tx, test_set_id, why):
        go_live(tx, study.id, SealedSetPurpose.METER)


def _message(study: str, test_set_id: int, why: str, following: int | None) -> str:
    ended = f"{study}: gate set {test_set_id} is retired, {WHY[why]}; "
    how = "(`easeml test-set plan`, `easeml test-set seal`)"
    if following is None:
        return ended + f"the gate gives no verdict until a new set is sealed {how}"
    return ended + f"set {following} is live now; seal another one in time {how}"
