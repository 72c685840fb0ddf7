"""What waits for a person: the list on top of a page, and how many they are in the bar of every page.

Open alerts on the pages of gate and meter: what to do about each one, and accepting one that stays.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from easeml_airflow.web.server.airflow_runs import questions
from easeml_airflow.web.server.formats import ACTS, STEPS, age_text, sentence_case
from easeml_airflow.web.server.site import path_of_study
from easeml_core.entities import AlertKind, SealedSetPurpose
from easeml_core.services.meter.alerts import clear_alert, open_alerts
from easeml_core.services.reports.next_steps import NextStep
from easeml_core.services.reports.next_steps import count_needs as count_of_steps
from easeml_core.services.reports.recommendations import Severity, StepKind
from easeml_core.services.test_sets.lifecycle import CALLED
from easeml_core.store.callers import because
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from easeml_airflow.web.server.airflow_runs import Question
    from easeml_airflow.web.server.auth import Viewer
    from easeml_core.store.database import Store
    from easeml_core.store.tables.releases import Alert


KEPT_SECONDS = 15.0
"""So long the number in the bar may lag behind; the overview itself never does."""

_lock = threading.Lock()
_counts: WeakKeyDictionary[Store, dict[tuple[Any, ...], tuple[float, int]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Need:
    """One line of ``needs_list`` in ``_parts.html``, and of the list of what is next."""

    title: str
    why: str
    colour: str
    shape: str
    age: str
    href: str
    act: str
    command: str = ""


def need_of(step: NextStep, viewer: Viewer, *, named: bool = True) -> Need:
    """Return a step of ``next_steps`` with a link to a page that the viewer may see."""
    names = dict.fromkeys(filter(None, (step.tenant, step.study)))  # once, where a tenant and its study have one name
    name = f"{', '.join(names)}: " if named and step.study else ""
    title = f"{name}{step.title}"
    return Need(
        title=title if name else sentence_case(title),
        why=step.why,
        colour="busy" if step.severity == Severity.INFO else str(step.severity),
        shape=STEPS[step.kind][0],
        age="" if step.since is None else age_text((datetime.now(UTC) - step.since).total_seconds()),
        href=allowed(step.page, viewer),
        act=ACTS.get(step.kind, "Open"),
        command=step.command,
    )


def allowed(page: str, viewer: Viewer) -> str:
    """Return the page, or the page for every viewer of the study in its place."""
    path = page.partition("?")[0]
    if path.endswith(("/gate", "/meter")) and not viewer.is_referee:
        return path.rpartition("/")[0] + "/submissions"
    if page == "/labels" and not viewer.is_labeler:
        return ""
    return page


def forced_steps(viewer: Viewer) -> list[NextStep]:
    """Return a step for each forced promotion that waits for a referee in Airflow; for other viewers none.

    Airflow's database knows of them, and only referees see them: a worker wrote which task asks.
    """
    return [_forced(asked) for asked in questions()] if viewer.is_referee else []


def _forced(asked: Question) -> NextStep:
    whose = asked.study or "a study that the task does not name"
    model = f"model {asked.model} of {whose}" if asked.model else f"a model of {whose}"
    return NextStep(
        study=asked.study or None,
        tenant=asked.study or None,
        kind=StepKind.PROMOTE,
        severity=Severity.WARN,
        title="a promotion without the gate waits for a referee",
        why=f"{asked.asked_by or 'A program'} asks for {model}; the question is in Airflow",
        act="answer it in Airflow",
        page="/audit#forced",
        command="",
        since=asked.since,
    )


def visible(store: Store, viewer: Viewer) -> list[str] | None:
    """Names of the studies that they may see; None for all, where they see whatever there is."""
    if viewer.is_operator or viewer.is_referee:
        return None
    with store.begin() as tx:
        known = studies.names_and_tenants(tx)
    return [study for study, tenant in known if viewer.sees(study, tenant)]


def remember(store: Store, viewer: Viewer, count: int) -> None:
    """Keep the number for a while, from a page that has just counted."""
    with _lock:
        _counts.setdefault(store, {})[_key(viewer)] = (time.monotonic() + KEPT_SECONDS, count)


def count_needs(store: Store, viewer: Viewer) -> int:
    """How many things wait for a person, of those that they may see; looked up once in a while."""
    if not viewer.name:
        return 0
    with _lock:
        until, count = _counts.get(store, {}).get(_key(viewer), (0.0, 0))
    if time.monotonic() < until:
        return count
    names = visible(store, viewer)
    count = len(forced_steps(viewer)) + (count_of_steps(store, names) if names is None or names else 0)
    remember(store, viewer, count)
    return count


def _key(viewer: Viewer) -> tuple[Any, ...]:
    return viewer.name, viewer.roles


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
    return [_line(alert, study) for alert in asked if alert.purpose in _OF_THE_GATE]


def meter_alerts(store: Store, *, study: str) -> list[AlertLine]:
    """The open alerts about the meter: all but those for sets of the gate alone."""
    found = open_alerts(store, study=study)
    return [_line(a, study) for a in found if a.kind != AlertKind.NEW_TEST_SET or a.purpose != _OF_THE_GATE[0]]


def accept_alert(store: Store, *, study: str, alert_id: int, reason: str) -> None:
    """Clear an alert for this reason; nothing happens if another user has cleared it."""
    if any(alert.alert_id == alert_id for alert in open_alerts(store, study=study)):
        with because(reason):
            clear_alert(store, study=study, alert_id=alert_id)


def _line(alert: Alert, study: str) -> AlertLine:
    title, below, act = _what_to_do(alert, study)
    return AlertLine(
        alert_id=alert.alert_id,
        title=title,
        why=alert.message,
        href=f"{path_of_study(study)}{below}",
        act=act,
        accept=f"Accept signal {alert.signal}" if alert.signal else "Accept",
        over_budget=bool(alert.over_budget),
    )


def _what_to_do(alert: Alert, study: str) -> tuple[str, str, str]:
    """In words, where below the study's page, and the word of the button."""
    if alert.kind == AlertKind.OVERFITTING:
        return f"Replace the validation data of {study}", "/data#validation", "Replace data"
    if alert.kind == AlertKind.DRIFT:
        return f"Validation and test data of {study} differ", "/data#validation", "See data"
    purpose = alert.purpose or SealedSetPurpose.GATE
    planner = "/gate#plan" if purpose in _OF_THE_GATE else "/meter#pl"
    return f"Seal a new {CALLED[purpose]} for {study}", planner, "Plan it"
