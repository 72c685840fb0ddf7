"""The trigger of an asset watcher: one event for each model that was handed in and that no gate was asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_airflow.triggers.watcher import WatcherTrigger
from easeml_core.formats.encoding import to_json

if TYPE_CHECKING:
    from easeml_airflow.triggers.watcher import Waiting
    from easeml_core.store.database import Store


class SubmissionsTrigger(WatcherTrigger):
    """Gives one event ``{"submission_id", "study", "model_id"}`` a submission."""

    key, topic = "submission_id", "submission"

    @staticmethod
    def waiting(store: Store, study: str | None) -> list[Waiting]:
        """The submissions that no gate was asked about."""
        from easeml_core.services.models.submission import waiting_submissions

        found: list[Waiting] = to_json(waiting_submissions(store, study=study))
        return found
