"""Alerts of the overfitting budget: read them, wait for the next one, clear them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.errors import NotFoundError
from easeml_core.store import releases, studies

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.store.database import Store


def open_alerts(store: Store, *, study: str | None) -> list[dict[str, Any]]:
    """Alerts of the study, or of all when None, that nobody has cleared; oldest first, as plain JSON."""
    with store.begin() as tx:
        found = releases.list_alerts(tx, _study_id(tx, study), open_only=True)
    return [_plain(alert) for alert in found]


def next_alert(store: Store, *, study: str | None, after_id: int = 0) -> dict[str, Any] | None:
    """The alert to deal with next, or None: what a sensor looks at, and so loses none.

    Args:
        store: Any role.
        study: The study, or None for all.
        after_id: The last alert that was dealt with: then the next one counts even if somebody was quick to clear
            it. 0 at first: then only an open one counts.
    """
    with store.begin() as tx:
        found = releases.list_alerts(tx, _study_id(tx, study), after_id=after_id, open_only=after_id == 0)
    return _plain(found[0]) if found else None


def _study_id(tx: Connection, study: str | None) -> int | None:
    return None if study is None else studies.get_study(tx, study).id


def clear_alert(store: Store, *, study: str, alert_id: int) -> dict[str, Any]:
    """Mark an alert as dealt with.

    Raises:
        NotFoundError: The study has no open alert with this id.
    """
    with store.begin() as tx:
        open_ids = [a["alert_id"] for a in releases.list_alerts(tx, studies.get_study(tx, study).id, open_only=True)]
        if alert_id not in open_ids:
            raise NotFoundError(kind="open alert of this study", name=alert_id, known=[str(i) for i in open_ids])
        releases.clear_alert(tx, alert_id)
        releases.announce_alert(tx, study)
    return {"alert_id": alert_id, "cleared": True}


def _plain(alert: dict[str, Any]) -> dict[str, Any]:
    times = {k: None if alert[k] is None else alert[k].isoformat() for k in ("created_at", "cleared_at")}
    return alert | times
