"""Open alerts on the pages of gate and meter: what to do about each one, and accepting one that stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.server.site import path_of_study
from easeml_core.entities import AlertKind, SealedSetPurpose
from easeml_core.services.meter.alerts import clear_alert, open_alerts
from easeml_core.services.test_sets.display_names import CALLED
from easeml_core.store.actors import because

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.store.database import Store

_OF_THE_GATE = (SealedSetPurpose.GATE, SealedSetPurpose.JOINT)


@dataclass(frozen=True, slots=True)
class AlertLine:
    """One alert.

    Attributes:
        alert_id: Its number.
        title: What to do about it.
        why: Its own message.
        href: Where, below the pages' own path.
        act: The word of the button that leads there.
        accept: The word of the button that accepts it.
        over_budget: Whether it says that the overfitting budget is exceeded.
    """

    alert_id: int
    title: str
    why: str
    href: str
    act: str
    accept: str
    over_budget: bool


def gate_alerts(store: Store, *, study: str) -> list[AlertLine]:
    """The open alerts for new sets that the gate draws on, alone or with the meter."""
    asked = open_alerts(store, study=study, kind=AlertKind.NEW_TEST_SET)
    return [_line(alert, study) for alert in asked if alert["purpose"] in _OF_THE_GATE]


def meter_alerts(store: Store, *, study: str) -> list[AlertLine]:
    """The open alerts about the meter: all but those for sets of the gate alone."""
    found = open_alerts(store, study=study)
    return [_line(a, study) for a in found if a["kind"] != AlertKind.NEW_TEST_SET or a["purpose"] != _OF_THE_GATE[0]]


def accept_alert(store: Store, *, study: str, alert_id: int, reason: str) -> None:
    """Clear an alert for this reason; nothing happens where it is open no more: somebody was quicker."""
    if any(alert["alert_id"] == alert_id for alert in open_alerts(store, study=study)):
        with because(reason):
            clear_alert(store, study=study, alert_id=alert_id)


def _line(alert: Mapping[str, Any], study: str) -> AlertLine:
    title, below, act = _what_to_do(alert, study)
    return AlertLine(
        alert_id=alert["alert_id"],
        title=title,
        why=alert["message"],
        href=f"{path_of_study(study)}{below}",
        act=act,
        accept=f"Accept signal {alert['signal']}" if alert["signal"] else "Accept",
        over_budget=bool(alert["over_budget"]),
    )


def _what_to_do(alert: Mapping[str, Any], study: str) -> tuple[str, str, str]:
    """In words, where below the study's page, and the word of the button."""
    if alert["kind"] == AlertKind.OVERFITTING:
        return f"Replace the validation data of {study}", "/data#validation", "Replace data"
    if alert["kind"] == AlertKind.DRIFT:
        return f"Validation and test data of {study} differ", "/data#validation", "See data"
    purpose = SealedSetPurpose(alert["purpose"])
    planner = "/gate#plan" if purpose in _OF_THE_GATE else "/meter#pl"
    return f"Seal a new {CALLED[purpose]} for {study}", planner, "Plan it"
