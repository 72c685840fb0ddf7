"""The audit as its page shows it: rows with their symbol, figures of the last 30 days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_airflow.web.server.airflow_runs import page_of_run, task_of
from easeml_airflow.web.server.marks import Mark
from easeml_airflow.web.server.site import path_of_study
from easeml_core.errors import counted
from easeml_core.services.reports.audit import ACTS, AuditEvent, AuditPart, Group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from easeml_airflow.web.server.airflow_runs import Question

GROUPS = {
    "": "All",
    Group.PROMOTIONS: "Promotions",
    Group.SETS: "Sealed sets",
    Group.LIMITS: "Limits",
    Group.STUDIES: "Studies",
    Group.REFUSED: "Refused",
}

_MARKS = {
    "promoted": ("ok", "pass"),
    "forced promotion": ("bad", "bolt"),
    "forced promotion asked": ("bad", "bolt"),
    "rolled back": ("warn", "undo"),
    "rollback asked": ("warn", "undo"),
    "promotion asked": ("busy", "person"),
    "model handed in": ("busy", "swap"),
    "alert cleared": ("ok", "done"),
    "policy changed": ("idle", "done"),
    "study paused": ("idle", "pause"),
    "study resumed": ("busy", "run"),
    "study archived": ("idle", "off"),
    "study restored": ("busy", "undo"),
    "study deleted": ("idle", "off"),
    "study registered": ("busy", "right"),
    "study sealed": ("busy", "lock"),
    "candidate added": ("busy", "queue"),
    "trial cancelled": ("idle", "off"),
    "trial retried": ("busy", "run"),
    "result did not hold": ("bad", "alert"),
    "result acknowledged": ("ok", "done"),
    "pairs fed": ("busy", "tag"),
    "pairs switched": ("busy", "tag"),
    "validation set replaced": ("busy", "swap"),
}
_OF_GROUP = {
    Group.PROMOTIONS: ("busy", "swap"),
    Group.SETS: ("busy", "lock"),
    Group.LIMITS: ("busy", "hour"),
    Group.STUDIES: ("idle", "info"),
    Group.REFUSED: ("bad", "stop"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One act."""

    at: datetime
    mark: Mark
    badge: str
    place: str
    study: str
    path: str
    who: str
    name: str
    run: str
    started: str
    role: str
    door: str
    detail: str
    reason: str
    is_hot: bool


@dataclass(frozen=True, slots=True)
class Page:
    """What the template names."""

    now: tuple[str, str]
    facts: list[tuple[str, str, str, str]]
    chips: list[tuple[str, str, int]]
    rows: list[Row]
    total: int
    asked: Sequence[Question]


@dataclass(frozen=True, slots=True)
class StartedEvent(AuditEvent):
    """An act of the audit; ``started_by`` started the run that it names, None where that is not known."""

    started_by: str | None


def page_of(
    found: AuditPart,
    events: Sequence[StartedEvent],
    figures: Mapping[str, int],
    *,
    is_all: bool,
    asked: Sequence[Question] = (),
) -> Page:
    """The page.

    Args:
        found: What was found.
        events: Its events, with who started their runs.
        figures: As of ``services.reports.audit.recent_figures``.
        is_all: Whether the viewer sees the whole installation.
        asked: Forced promotions that wait for an answer in Airflow; for a referee.
    """
    groups = found.groups
    return Page(
        now=_now(figures, is_all=is_all, asked=len(asked)),
        facts=_facts(figures),
        chips=[(key, word, groups[key] if key else sum(groups.values())) for key, word in GROUPS.items()],
        rows=[_row(event) for event in events],
        total=found.total,
        asked=asked,
    )


def _now(figures: Mapping[str, int], *, is_all: bool, asked: int) -> tuple[str, str]:
    waiting, forced = figures["waiting"], figures.get("forced promotion", 0)
    if waiting:
        made = f"{forced} {'was' if forced == 1 else 'were'} made in the last 30 days"
        first = f"{_waits(waiting)} for the referee, {made}."
    elif forced:
        first = f"{counted(forced, 'forced promotion')} in the last 30 days."
    else:
        first = "No promotion was forced in the last 30 days."
    rest = "Every other promotion stands on a recorded verdict." if is_all else "You see what was done to your studies."
    if asked:
        return f"{_waits(asked)} for an answer of a referee in Airflow.", f"{first} {rest}"
    return first, rest


def _waits(count: int) -> str:
    return f"{counted(count, 'forced promotion')} {'waits' if count == 1 else 'wait'}"


def _facts(figures: Mapping[str, int]) -> list[tuple[str, str, str, str]]:
    n = {act: figures.get(act, 0) for acts in ACTS.values() for act in acts}
    limits = n["study changed"] + n["tenant changed"]
    refused = n["request refused"] + n["study refused"]
    return [
        (
            "Promotions, 30 days",
            str(n["promoted"]),
            "by verdict",
            f"{n['forced promotion']} forced, {n['rolled back']} rolled back",
        ),
        (
            "Sealed sets, 30 days",
            str(n["set live"]),
            "went live",
            f"{n['set sealed']} sealed, {n['set retired']} retired, {n['set released']} released",
        ),
        (
            "Limits changed, 30 days",
            str(limits),
            "times",
            f"{n['study changed']} of studies, {n['tenant changed']} of tenants, {n['policy changed']} of the policy",
        ),
        (
            "Refused, 30 days",
            str(refused),
            "request" if refused == 1 else "requests",
            f"{n['study refused']} of them new studies",
        ),
    ]


_HOT = ("forced promotion", "forced promotion asked")

_REFEREE = "easeml_referee"
_ROLES = {"easeml_worker": "", "easeml_owner": "as owner", _REFEREE: "by the referee", "not recorded": ""}


_STARTED = {
    "scheduled__": "by its schedule",
    "asset_triggered__": "by an asset",
    "backfill__": "by a backfill",
    "manual__": "by hand",
}
"""How a run began, by what Airflow calls it."""


def acting_task(event: AuditEvent) -> tuple[str, str, str] | None:
    """The DAG, run and task that an act names, by itself or through the referee; None for people.

    A worker may name another's run, so this is no proof of where it was done.
    """
    task = task_of(event.who)
    if task is None or event.door == "task":
        return task
    is_asker = event.role == _REFEREE and event.door == "database" and "__" in task[1]
    return task if is_asker else None


def _started(run: str, by: str | None) -> str:
    return f"by {by}" if by else next((word for start, word in _STARTED.items() if run.startswith(start)), "")


def _row(event: StartedEvent) -> Row:
    colour, shape = _MARKS.get(event.act) or _OF_GROUP[event.group]
    tenant, study, task = event.tenant, event.study, acting_task(event)
    return Row(
        at=event.at,
        mark=Mark(colour, shape, event.title),
        badge="waits" if event.is_open else "forced" if event.act == "forced promotion" else "",
        place=" / ".join(filter(None, [tenant, study])) or "the whole installation",
        study=study or "",
        path=path_of_study(study) if study else "",
        who=event.who,
        name=event.who if task is None else f"{task[0]}, task {task[2]}",
        run="" if task is None else page_of_run(*task[:2]),
        started="" if task is None else _started(task[1], event.started_by),
        role=_ROLES.get(event.role, event.role),
        door="referee" if event.role == _REFEREE and event.door == "database" else event.door,
        detail=event.detail,
        reason=event.reason or "",
        is_hot=event.act in _HOT,
    )
