"""Delete a test set that never served: its rows, labels and predictions go, and its chain states that (ADR 0035).

The registry of rows keeps them as sealed: deleting a set opens none of them, and no set takes them again, so a deletion
tells nothing and gives no answer back. Rows that shall be public are released instead (``test_sets/release.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.encoding import typed_record
from easeml_core.services.studies.limits import MOST_REASON
from easeml_core.services.test_sets.lifecycle import find_set
from easeml_core.store.database import notify
from easeml_core.store.tables import labels, releases, sealed, test_sets
from easeml_core.store.tables.chained_rows import of_set

if TYPE_CHECKING:
    from easeml_core.services.evidence.notary import Notary
    from easeml_core.store.tables.test_sets import SealedSet


@typed_record
class DeletedSet:
    """A test set that was deleted, or would be.

    Attributes:
        test_set_id: Its number, which stays.
        study: Whose it was.
        name: Its name, which may be used again; None where it had none.
        rows: Examples that go; of a planned set, that it would have needed.
        changed: Whether this call has deleted it; False in a dry run.
        dry_run: Whether nothing was to be changed.
    """

    test_set_id: int
    study: str
    name: str | None
    rows: int
    changed: bool
    dry_run: bool


class _DryRunError(Exception):
    """Takes back what a dry run has tried."""


def delete_test_set(
    notary: Notary, *, test_set: str | int, study: str | None = None, who: str, why: str, dry_run: bool = False
) -> DeletedSet:
    """Delete a planned, waiting or retired set that has answered nothing, in one transaction; its name is free again.

    A set that was deleted is found by its number alone, and stays as it is.

    Args:
        notary: Of the referee's role; the host's keys sign what the set's chain states.
        test_set: Name or number.
        study: Its study, where several have a set of this name.
        who: The user who takes responsibility; its chain keeps it.
        why: The reason, 1 to 500 characters; audit and chain keep it.
        dry_run: Check it, and change nothing.

    Raises:
        ConfigError: The reason is empty or too long.
        NotFoundError: There is no such set.
        StateError: It has served, it is live or released, or the evidence of its chain is broken.
    """
    reason = why.strip()
    require(1 <= len(reason) <= MOST_REASON, "why", reason, f"a reason of 1 to {MOST_REASON} characters")
    found: SealedSet | None = None
    changed = False
    try:
        with notary.begin() as tx:
            gone = test_sets.deleted_set(tx, test_set)
            found = gone or find_set(tx, test_set, study)
            if gone is None:
                releases.hold_study(tx, found.study_id)
                labels.hold_set(tx, found.id)
                is_sealed = sealed.is_sealed(tx, found.id)
                before = notary.unexplained(tx, of_set(found.id)) if is_sealed else []
                changed = test_sets.delete(tx, found.id, reason)
                if is_sealed:
                    notary.explain(tx, of_set(found.id), known=before, who=who, reason=f"the set was deleted: {reason}")
                notify(tx, f"study:{found.study}")
            if dry_run:
                raise _DryRunError
    except _DryRunError:
        changed = False
    assert found is not None  # else find_set has raised
    return DeletedSet(found.id, found.study, found.name, found.rows, changed, dry_run)
