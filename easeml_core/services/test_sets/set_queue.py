"""Sealed sets that wait: for which live ones, what becomes of them, and how that is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import SealedSetState
from easeml_core.errors import StateError
from easeml_core.services.test_sets.display_names import CALLED
from easeml_core.store.tables import test_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import SealedSetPurpose, Study
    from easeml_core.store.tables.test_sets import SealedSet

HAS_NO_LIVE_SET = "has no live {} set"
"""What a refusal says of a study; the purpose of the set that is asked for stands in it."""


def when_live(tx: Connection, found: SealedSet) -> str | None:
    """When a set that waits becomes live, in words, with the commands; None for one that does not wait.

    Args:
        tx: Transaction of the referee's role.
        found: The set.
    """
    if found.state != SealedSetState.SEALED:
        return None
    before = test_sets.waiting_before(tx, found)
    longer = f"; {_names(before)} {'waits' if len(before) == 1 else 'wait'} longer" if before else ""
    return _after([*_in_its_way(tx, found), *before]) + longer


def _after(sets: Sequence[SealedSet]) -> str:
    commands = ", ".join(f"`easeml test-set retire {other.id}`" for other in sets)
    return f"it becomes live when {_names(sets)} {'is' if len(sets) == 1 else 'are'} retired ({commands})"


def _names(sets: Sequence[SealedSet]) -> str:
    return " and ".join(f"{CALLED[found.purpose]} {found.called}" for found in sets)


def no_live_set(tx: Connection, study: Study, purpose: SealedSetPurpose) -> StateError:
    """The refusal of a system that has no live set, with the set that waits for another system's to end, if any.

    Only a set for gate and meter together can wait then. The message is public: it has nothing of the schema
    ``sealed``, such as which of two sets was sealed first.

    Args:
        tx: Transaction of the referee's role.
        study: The study.
        purpose: ``gate`` or ``meter``.
    """
    message = f"study {study.name!r} {HAS_NO_LIVE_SET.format(purpose)}"
    for found in reversed(test_sets.list_sets(tx, study.id)):
        waits = found.state == SealedSetState.SEALED and purpose in test_sets.serves(found.purpose)
        live = _in_its_way(tx, found) if waits else []
        if live:
            return StateError(f"{message}; set {found.called} of gate and meter waits: {_after(live)}")
    return StateError(f"{message}; the referee must seal a new one")


def _in_its_way(tx: Connection, found: SealedSet) -> list[SealedSet]:
    """The live sets of the study beside which this one cannot be live, the oldest first."""
    sets, serves = reversed(test_sets.list_sets(tx, found.study_id)), test_sets.serves(found.purpose)
    return [other for other in sets if other.state == SealedSetState.LIVE and test_sets.serves(other.purpose) & serves]
