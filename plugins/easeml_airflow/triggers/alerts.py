"""The trigger of an asset watcher: one event for each alert that nobody has cleared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_airflow.triggers.watcher import WatcherTrigger

if TYPE_CHECKING:
    from easeml_airflow.triggers.watcher import Waiting
    from easeml_core.store.database import Store

_TOLD = ("alert_id", "study", "kind", "over_budget", "message")


class AlertsTrigger(WatcherTrigger):
    """Gives one event ``{"alert_id", "study", "kind", "over_budget", "message"}`` an alert.

    Alerts of one team of a set that teams share are told to nobody here: who runs on the event may be another team.
    """

    key, topic = "alert_id", "alert"

    @staticmethod
    def waiting(store: Store, study: str | None) -> list[Waiting]:
        """The open alerts."""
        from easeml_core.services.meter.alerts import open_alerts

        return [{name: getattr(alert, name) for name in _TOLD} for alert in open_alerts(store, study=study)]
