"""The trigger of an asset watcher: one event for each move of what is in production, by whatever way it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_airflow.triggers.watcher import WatcherTrigger
from easeml_core.encoding import to_json

if TYPE_CHECKING:
    from easeml_airflow.triggers.watcher import Waiting
    from easeml_core.store.database import Store


class ProductionTrigger(WatcherTrigger):
    """Gives one event ``{"promotion_id", "study", "model_id", "request_id", "kind"}`` a move.

    What stands is what waits: of several moves between two looks the last alone is told, and the present one is told
    again when the triggerer starts anew.
    """

    key, topic = "promotion_id", "production"

    @staticmethod
    def waiting(store: Store, study: str | None) -> list[Waiting]:
        """What is in production."""
        from easeml_core.services.models.promotion import in_production

        found: list[Waiting] = to_json(in_production(store, study=study))
        return found
