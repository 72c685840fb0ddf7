"""The new-testset alarm: a sealed set has served, so the next one goes live, and somebody must seal the one after.

Every end of a live set raises it, once: of a gate set, a meter set, one that both share, or the second validation
sample; by its last step, by a rule, because its promise would not hold any more, or by hand. The alarm is a row of the
kind ``new-test-set``, that a sensor or a notifier waits for, and a mail where the plan names an address. It says why
the set has ended, which is no more than the answers so far tell. Whether the end breaks the overfitting budget is
another matter, and an alert of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import AlertKind, SealedSetPurpose
from easeml_core.services.test_sets.display_names import CALLED, WHY, WITHOUT
from easeml_core.services.test_sets.lifecycle import go_live, steps_by_system
from easeml_core.services.test_sets.shared_set import gate_settings
from easeml_core.store.tables import mails, releases, test_sets

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.entities import Study
    from easeml_core.store.tables.test_sets import SealedSet

_GATE, _METER, _JOINT, _DIRECT = (
    SealedSetPurpose.GATE,
    SealedSetPurpose.METER,
    SealedSetPurpose.JOINT,
    SealedSetPurpose.DIRECT,
)
_SERVED = {_GATE: (_GATE,), _METER: (_METER,), _JOINT: (_GATE, _METER), _DIRECT: (_DIRECT,)}
"""Whose answers come from a set of this purpose."""

_FOLLOWING = {_GATE: (_GATE, _JOINT), _METER: (_METER, _JOINT), _JOINT: (_JOINT, _GATE, _METER), _DIRECT: (_DIRECT,)}
"""Sets of which purpose may take its place, in this order; one that serves a system with a live set stays sealed."""


def end_set(tx: Connection, study: Study, test_set_id: int, why: str) -> None:
    """Retire a live set, let the next sealed one go live, and raise the alarm for a new one.

    Args:
        tx: Transaction of the referee's role, which holds the study's sets.
        study: Whose set it is.
        test_set_id: The set; nothing happens if it is not live.
        why: A key of ``set_words.WHY``.
    """
    if not releases.retire_test_set(tx, test_set_id, why):
        return
    ended = test_sets.get_set(tx, test_set_id)
    for purpose in _FOLLOWING[ended.purpose]:
        go_live(tx, study.id, purpose)
    message = _message(tx, study, ended, why)
    releases.add_alert(
        tx,
        study_id=study.id,
        study=study.name,
        test_set_id=test_set_id,
        kind=AlertKind.NEW_TEST_SET,
        message=message,
    )
    recipient = gate_settings(ended).mail if _GATE in _SERVED[ended.purpose] else ""
    if recipient:
        mails.add_mail(tx, recipient=recipient, subject=f"easeml: {study.name} needs a new test set", body=message)


def _message(tx: Connection, study: Study, ended: SealedSet, why: str) -> str:
    purpose = ended.purpose
    following, without = list[int](), list[str]()
    for system in _SERVED[purpose]:
        live = releases.live_test_set(tx, study.id, system)
        if live is None:
            without.append(WITHOUT[system])
        elif live.id not in following:
            following.append(live.id)
    words = [f"{study.name}: {CALLED[purpose]} {ended.id} is retired, {_why(ended, why)}"]
    if without:
        words.append(f"{' and '.join(without)} until a new set is sealed {_how(purpose)}")
    words += [f"set {set_id} is live now" for set_id in following]
    if not without:
        words.append(f"seal another one in time {_how(purpose)}")
    return "; ".join(words)


def _why(ended: SealedSet, why: str) -> str:
    """As of ``set_words.WHY``; of a set that two systems share, whose steps are used."""
    if why == "steps" and ended.purpose == _JOINT:
        for system, count in steps_by_system(ended).items():
            if count["steps_used"] >= count["steps"]:
                return f"the {system}'s {count['steps']} steps are used"
    return WHY[why]


def _how(purpose: SealedSetPurpose) -> str:
    """The commands that seal the next one."""
    option = "" if purpose == _GATE else f", both with --purpose {purpose}"
    return f"(`easeml test-set plan`, `easeml test-set seal`{option})"
