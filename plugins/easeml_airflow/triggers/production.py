"""The trigger of an asset watcher: one event for each move of what is in production, by whatever way it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_airflow.triggers.watcher import WatcherTrigger
from easeml_core.formats.encoding import to_json

if TYPE_CHECKING:
    from easeml_airflow.triggers.watcher import Waiting
    from easeml_core.store.database import Store


class ProductionTrigger(WatcherTrigger):
    """Gives one event ``{"promotion_id", "study", "model_id", "request_id", "kind"}`` a move.

    Of several moves between two looks only the last gives an event, and the present model gives one again when the
    triggerer restarts.
    """

    key, topic = "promotion_id", "production"

    @staticmethod
    def waiting(store: Store, study: str | None) -> list[Waiting]:
        """What is in production."""
        from easeml_core.services.models.promotion import in_production

        found: list[Waiting] = to_json(in_production(store, study=study))
        return found
