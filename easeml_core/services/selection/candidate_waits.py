"""What candidates wait for that no device can give them: an implementation that nothing that asks has, a task to mend.

Whatever asks for trials states what it can execute (``store.retries.note_offer``). A candidate that none of it executes
would wait for ever, and a trial that failed because of its task waits for a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import implementation_text
from easeml_core.errors import counted
from easeml_core.store.tables import retries

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection


def waiting_sentences(tx: Connection, names: Collection[str]) -> dict[str, list[str]]:
    """Say of each study, in one sentence each, what its candidates wait for that no device can give them.

    Args:
        tx: Any role.
        names: Of these studies; those whose candidates wait for nothing are left out.
    """
    found: dict[str, list[str]] = {}
    for waiting in retries.waiting_for_implementation(tx, names=names):
        count, named = counted(waiting["candidates"], "candidate"), implementation_text(waiting["implementation"])
        verb = "waits" if waiting["candidates"] == 1 else "wait"
        found.setdefault(waiting["study"], []).append(
            f"{count} {verb} for an implementation: no DAG or device that asks has {named}"
        )
    for failed in retries.task_failures(tx, names=names):
        count = counted(len(failed["trials"]), "candidate")
        verb = "waits" if len(failed["trials"]) == 1 else "wait"
        found.setdefault(failed["study"], []).append(
            f"{count} {verb} since their task failed: mend it, then `easeml trial retry {failed['trials'][0]}`"
        )
    return found
