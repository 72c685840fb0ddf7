"""Alerts of the overfitting budget, of drift, and for new test sets: list them, wait for the next one, clear them.

An alert that is resolved, by a new validation set or a new sealed set, closes without being cleared. Where several
teams share a meter set, an alert about a signal is shown only to a caller who names the team that received the signal:
no team may learn another one's signals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import AlertKind, SealedSetPurpose, StudyState
from easeml_core.errors import NotFoundError
from easeml_core.formats.encoding import typed_record
from easeml_core.settings.config import choice, require
from easeml_core.store.tables import releases, scheduler_requests, studies

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.tables.releases import Alert


_SERVING = {"gate": ("gate", "joint"), "meter": ("meter", "joint")}
"""Sets that serve gate and meter; any other purpose has separate sets only."""


@typed_record
class ClearedAlert:
    """An alert that was marked as dealt with."""

    alert_id: int
    cleared: bool


@typed_record
class PausedStudy:
    """The effect of an alert on its study.

    Attributes:
        study: Its name.
        alert_id: The alert.
        paused: Whether this call has paused it.
        state: Of the study now.
    """

    study: str
    alert_id: int
    paused: bool
    state: StudyState


def open_alerts(
    store: Store,
    *,
    study: str | None,
    kind: str | Sequence[str] | None = None,
    up_to_id: int | None = None,
    team: int | None = None,
) -> list[Alert]:
    """Return the open alerts of the study, or of all when None, oldest first."""
    with store.begin() as tx:
        found = releases.list_alerts(tx, _study_id(tx, study, team), open_only=True, team=team)
    return _of_kinds([a for a in found if up_to_id is None or a.alert_id <= up_to_id], kind)


def newest_alert(store: Store, *, study: str | None, team: int | None = None) -> int:
    """Return the number of the newest alert of the study, or of all; 0 when there is none: where a wait begins.

    Arguments and errors as of ``open_alerts``.
    """
    with store.begin() as tx:
        return releases.newest_alert(tx, _study_id(tx, study, team), team=team)


def next_alert(
    store: Store,
    *,
    study: str | None,
    after_id: int = 0,
    kind: str | Sequence[str] | None = None,
    cleared_too: bool | None = None,
    purpose: str | None = None,
    team: int | None = None,
) -> Alert | None:
    """Return the alert to handle next, or None; a sensor polls it and so misses none."""
    open_only = after_id == 0 if cleared_too is None else not cleared_too
    with store.begin() as tx:
        study_id = _study_id(tx, study, team)
        found = releases.list_alerts(tx, study_id, after_id=after_id, open_only=open_only, team=team)
    return next(iter(_of_kinds(_of_purpose(found, purpose), kind)), None)


def reported_up_to(
    store: Store,
    *,
    reported: Collection[tuple[int, datetime]],
    study: str | None,
    kind: str | Sequence[str] | None = None,
    purpose: str | None = None,
    team: int | None = None,
) -> int:
    """Return the number after which ``next_alert`` with ``cleared_too`` finds what was not reported.

    An alert is known by its number and its moment: a restored database gives numbers anew. One that is closed counts
    only where it came after the last one that was reported.
    """
    with store.begin() as tx:
        found = releases.list_alerts(tx, _study_id(tx, study, team), team=team)
    known = {a.alert_id for a in found if (a.alert_id, a.created_at) in reported}
    newest = found[-1].alert_id if found else 0
    last = max(known, default=newest)
    asked = _of_kinds(_of_purpose(found, purpose), kind)
    fresh = [a.alert_id for a in asked if a.alert_id not in known and (a.is_open or a.alert_id > last)]
    return min(fresh, default=newest + 1) - 1


def _study_id(tx: Connection, study: str | None, team: int | None) -> int | None:
    known = team is None or (type(team) is int and team >= 1 and study is not None)
    require(known, "team", team, "a whole number >= 1, and given with a study: each study has separate teams")
    return None if study is None else studies.get_study(tx, study).id


def clear_alert(store: Store, *, study: str, alert_id: int, team: int | None = None) -> ClearedAlert:
    """Mark an alert as handled; one that is resolved may be, too."""
    with store.begin() as tx:
        shown = releases.list_alerts(tx, _study_id(tx, study, team), team=team)
        if alert_id not in [a.alert_id for a in shown if a.cleared_at is None]:
            known = [str(a.alert_id) for a in shown if a.is_open]
            raise NotFoundError(kind="open alert", name=alert_id, known=known, owner=f"study {study!r}")
        releases.clear_alert(tx, alert_id)
        releases.announce_alert(tx, study)
    return ClearedAlert(alert_id=alert_id, cleared=True)


def pause_on_alert(store: Store, *, study: str, alert_id: int, team: int | None = None) -> PausedStudy:
    """Pause the study's search when the alert says that its overfitting budget is broken.

    Nothing happens when the alert is closed, or the study is not active; so a repetition is harmless. An alert for one
    of several teams pauses nothing: the others would see the pause, and so the signal.
    """
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        alerts = releases.list_alerts(tx, _study_id(tx, study, team), team=team)
        alert = next((a for a in alerts if a.alert_id == alert_id), None)
        if alert is None:
            raise NotFoundError(kind="alert of this study", name=alert_id, known=[str(a.alert_id) for a in alerts])
        may_pause = bool(alert.over_budget) and alert.is_open and alert.team is None
        pauses = may_pause and found.state == StudyState.ACTIVE
        if pauses:
            studies.set_study_state(tx, found.id, StudyState.PAUSED)
    if pauses:
        scheduler_requests.wait_until_made(store, study_id=found.id)
    state = StudyState.PAUSED if pauses else found.state
    return PausedStudy(study=study, alert_id=alert_id, paused=pauses, state=state)


def _of_purpose(alerts: list[Alert], purpose: str | None) -> list[Alert]:
    """Those about a sealed set that serves for this purpose, or all."""
    if purpose is None:
        return alerts
    serving = _SERVING.get(purpose, (choice(SealedSetPurpose, "purpose", purpose),))
    return [alert for alert in alerts if alert.purpose in serving]


def _of_kinds(alerts: list[Alert], kind: str | Sequence[str] | None) -> list[Alert]:
    """Those of the kinds, or all."""
    kinds = list(AlertKind) if kind is None else [kind] if isinstance(kind, str) else kind
    wanted = [choice(AlertKind, "kind", name) for name in kinds]
    return [alert for alert in alerts if alert.kind in wanted]
