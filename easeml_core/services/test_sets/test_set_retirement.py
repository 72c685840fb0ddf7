"""Ending a test set by hand: the next one becomes live, and the alarm tells of it as of any other end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.entities import SealedSetState
from easeml_core.services.test_sets.lifecycle import find_set, shown
from easeml_core.services.test_sets.new_set_alarm import end_set
from easeml_core.services.test_sets.row_registry import Overlap, overlapping_sets
from easeml_core.store.database import notify
from easeml_core.store.tables import releases, studies, test_sets

if TYPE_CHECKING:
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

BY_HAND = "by hand"
OVERLAP = "overlap"


def retire_test_set(
    store: Store, *, test_set: str | int, study: str | None = None, why: str = BY_HAND
) -> dict[str, Any]:
    """End the life of a set by hand; the oldest one that waits becomes live. May be repeated.

    Args:
        store: Role ``easeml_referee``.
        test_set: Name or number.
        study: Its study, where several have a set of this name.
        why: ``steps``, ``changes``, ``tolerance``, ``signals``, ``overlap`` or ``by hand``.

    Returns:
        As ``shown``, and ``live``: the number of the set that is live now, or None.

    Raises:
        NotFoundError: There is no such set.
    """
    with store.begin() as tx:
        found = find_set(tx, test_set, study)
        releases.hold_study(tx, found.study_id)
        found = test_sets.get_set(tx, found.id)
        if found.state == SealedSetState.LIVE:
            end_set(tx, studies.study_by_id(tx, found.study_id), found.id, why)
        else:
            test_sets.retire(tx, found.id, why)  # planned or sealed: nothing else changes
        notify(tx, f"study:{found.study}")
        live = releases.live_test_set(tx, found.study_id, found.purpose)
        return shown(test_sets.get_set(tx, found.id)) | {"live": None if live is None else live.id}


def retire_overlapping(store: Store, artifacts: ArtifactStore, *, retire: bool) -> list[Overlap]:
    """List the sets in use whose rows are open in another study, and retire them where that is asked for.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where the open parts of the studies are.
        retire: End the life of each that is listed.
    """
    with store.begin() as tx:
        found = overlapping_sets(tx, artifacts)
    if retire:
        for one in found:
            retire_test_set(store, test_set=one.test_set_id, why=OVERLAP)
    return found
