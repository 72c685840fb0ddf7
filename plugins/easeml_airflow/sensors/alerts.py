"""What the sensors that wait for alerts share: where a wait without a number begins."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.arguments import optional_plain, whole
from easeml_airflow.hooks.easeml import EasemlHook
from easeml_airflow.sensors.base import EasemlSensor
from easeml_core.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence


class AlertSensor(EasemlSensor):
    """Base of the sensors that wait for alerts.

    A wait that is given neither a number nor what was reported begins with its first look: then open alerts count, and
    all that come after the newest one of that moment, even if they are cleared immediately.
    """

    reported: Sequence[Any] | str | None
    _begins: int | None = None
    """Number of the alert after which everything counts, once it is known."""

    def since(self, study: str, team: int | None = None, **asked: Any) -> int | None:
        """Number of the alert after which everything counts; None at the first look, at which open ones count.

        Asked before the first look: what comes between the two is found by the later ones, cleared or not.

        Args:
            study: The study; empty for any.
            team: The caller's team.
            asked: Kind and purpose of the alerts, for those that were not reported.
        """
        from easeml_core.services.meter.alerts import newest_alert, reported_up_to

        if self._begins is not None:
            return self._begins
        store = EasemlHook(self.easeml_conn_id).get_store()
        about: dict[str, Any] = {"study": study or None, "team": team}
        reported = optional_plain(self.reported, "reported")
        if reported is None:
            self._begins = newest_alert(store, **about)
            return None
        self._begins = reported_up_to(store, reported=set(map(_identity, reported)), **about, **asked)
        return self._begins


def _identity(alert: Any) -> tuple[int, datetime]:
    """Number and moment of an alert."""
    try:
        return whole(alert["alert_id"], "alert_id"), datetime.fromisoformat(alert["created_at"])
    except (KeyError, TypeError, ValueError):
        require(False, "reported", alert, "alerts as this sensor returns them, with alert_id and created_at")
        raise
