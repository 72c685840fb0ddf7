"""The trigger of an asset watcher: one event for each head of a sealed set's hash chain that leaves with an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_airflow.triggers.watcher import WatcherTrigger
from easeml_core.formats.encoding import to_json

if TYPE_CHECKING:
    from easeml_airflow.triggers.watcher import Waiting
    from easeml_core.store.database import Store


class EvidenceTrigger(WatcherTrigger):
    """Gives one event ``{"evidence_id", "study", "test_set_id", "head", "audit_head"}`` an answer.

    Of several answers of one set between two looks the last head alone is given: it vouches for those before it.
    """

    key, topic = "evidence_id", "evidence"

    @staticmethod
    def waiting(store: Store, study: str | None) -> list[Waiting]:
        """Of each set the head that left last."""
        from easeml_core.services.evidence.bundle import newest_heads

        found: list[Waiting] = to_json(newest_heads(store, study=study))
        return found
