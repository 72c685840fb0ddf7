"""The trigger of an asset watcher: one event for each open alert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_airflow.triggers.watcher import WatcherTrigger

if TYPE_CHECKING:
    from easeml_airflow.triggers.watcher import Waiting
    from easeml_core.store.database import Store

_FIELDS = ("alert_id", "study", "kind", "over_budget", "message")


class AlertsTrigger(WatcherTrigger):
    """Gives one event ``{"alert_id", "study", "kind", "over_budget", "message"}`` an alert.

    Alerts of one team on a shared set give no event: the DAG that runs on it may belong to another team.
    """

    key, topic = "alert_id", "alert"

    @staticmethod
    def waiting(store: Store, study: str | None) -> list[Waiting]:
        """The open alerts."""
        from easeml_core.services.meter.alerts import open_alerts

        return [{name: getattr(alert, name) for name in _FIELDS} for alert in open_alerts(store, study=study)]
