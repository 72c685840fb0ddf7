"""What the sensors that wait for alerts share: where a wait without a number begins."""

from __future__ import annotations

from easeml_airflow.hooks.easeml import EasemlHook
from easeml_airflow.sensors.base import EasemlSensor


class AlertSensor(EasemlSensor):
    """Base of the sensors that wait for alerts.

    A wait that is given no number begins with its first look: then open alerts count, and all that come after the
    newest one of that moment, even if they are cleared immediately.
    """

    _newest: int | None = None
    """Number of the newest alert just before the first look, where none was handed in."""

    def since(self, study: str, team: int | None = None) -> int | None:
        """Number of the alert after which everything counts; None at the first look, at which open ones count.

        Asked before the first look: what comes between the two is found by the later ones, cleared or not.
        """
        if self._newest is not None:
            return self._newest
        from easeml_core.services.meter.alerts import newest_alert

        self._newest = newest_alert(EasemlHook(self.easeml_conn_id).get_store(), study=study or None, team=team)
        return None
