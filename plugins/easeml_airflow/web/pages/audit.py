"""The audit: who did what, when, and why. Operators and referees see all studies, other viewers their own.

A request selects acts, users, a time, and a page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse

from easeml_airflow.web.components.action_items import visible
from easeml_airflow.web.server.airflow_runs import page_of_run, questions, starters, task_of
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.formats import Mark
from easeml_airflow.web.server.site import HEADERS, Tab, path_of_study
from easeml_core.errors import counted
from easeml_core.formats.encoding import row_of
from easeml_core.services.reports.audit import (
    ACTS,
    MOST_ROWS,
    AuditEvent,
    AuditPart,
    Group,
    as_csv,
    audit,
    recent_figures,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from fastapi.responses import HTMLResponse

    from easeml_airflow.web.server.airflow_runs import Question
    from easeml_airflow.web.server.site import Site
    from easeml_core.store.database import Store


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
    """The page."""
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
    limits = sum(n[act] for act in ACTS[Group.LIMITS])
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


PAGE_SIZE = 50
LONGEST_TEXT = 200
USUAL = "30d"

SPANS: dict[str, tuple[str, int | None]] = {
    USUAL: ("Last 30 days", 30),
    "7d": ("Last 7 days", 7),
    "1d": ("Last 24 hours", 1),
    "all": ("All time", None),
}
"""How far back: the word for it, and days; None for all."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One view of the audit; it is in the address, so that it can be kept, passed on and taken away as a table.

    Attributes:
        show: A group, or empty for all.
        text: What a row must hold.
        who: Of this person only.
        study: Of this study only.
        since: A key of ``SPANS``.
        page: From 1.
    """

    show: str = ""
    text: str = ""
    who: str = ""
    study: str = ""
    since: str = USUAL
    page: int = 1

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> Wanted:
        """From an address; what is none of the allowed values is taken for the usual one."""
        page, since = asked["page"], asked["since"]
        return cls(
            asked["show"] if asked["show"] in ACTS else "",
            _plain(asked["q"]),
            _plain(asked["who"]),
            _plain(asked["study"]),
            since if since in SPANS else USUAL,
            max(1, int(page[:7])) if page.isascii() and page.isdigit() else 1,
        )

    @property
    def offset(self) -> int:
        """Newer rows that are left out."""
        return (self.page - 1) * PAGE_SIZE

    def find(self, store: Store, names: Collection[str] | None, *, limit: int, offset: int) -> AuditPart:
        """Return the acts that are wanted; arguments as of ``services.reports.audit.audit``."""
        days = SPANS[self.since][1]
        return audit(
            store,
            studies=names,
            group=self.show or None,
            text=self.text,
            who=self.who or None,
            study=self.study or None,
            since=None if days is None else datetime.now(UTC) - timedelta(days=days),
            limit=limit,
            offset=offset,
        )

    def link(self, **changes: Any) -> str:
        """The query of another view; another choice begins at its first page.

        Example:
            >>> Wanted(text="a b").link(page=2), Wanted(page=3).link(show="sets"), Wanted().link()
            ('?q=a+b&page=2', '?show=sets', '?')
        """
        other = replace(self, **{"page": 1} | changes)
        fields = {"show": other.show, "q": other.text, "who": other.who, "study": other.study}
        fields |= {
            "since": "" if other.since == USUAL else other.since,
            "page": str(other.page) if other.page > 1 else "",
        }
        return "?" + urlencode({name: value for name, value in fields.items() if value})

    @property
    def is_narrow(self) -> bool:
        """Whether anything is filtered but the time."""
        return bool(self.show or self.text or self.who or self.study)


def _plain(text: str) -> str:
    """Text for a query: the database has no NUL, and no half a character."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode().strip()[:LONGEST_TEXT]


TAB = Tab("/audit", "Audit")

Word = Annotated[str, Query(max_length=LONGEST_TEXT)]


def routes(site: Site) -> APIRouter:
    """``/audit`` and ``/audit.csv``."""
    router, who = APIRouter(), Depends(site.viewer)
    wanted = Depends(_asked)

    @router.get("/audit")
    def show(request: Request, view_: Wanted = wanted, viewer: Viewer = who) -> HTMLResponse:
        store = site.open_store()
        names = visible(store, viewer)
        found = view_.find(store, names, limit=PAGE_SIZE, offset=view_.offset)
        figures = recent_figures(store, studies=names)
        asked = questions() if viewer.is_referee else []
        shown = page_of(found, with_starters(found.events, viewer), figures, is_all=names is None, asked=asked)
        return site.page(request, viewer, "audit.html", wanted=view_, spans=SPANS, shown=shown)

    @router.get("/audit.csv")
    def table(view_: Wanted = wanted, viewer: Viewer = who) -> Response:
        parts = _parts(site.open_store(), viewer, view_)
        first = next(parts)  # what can be refused is refused before the answer begins
        headers = HEADERS | {"Content-Disposition": 'attachment; filename="easeml-audit.csv"'}
        return StreamingResponse(chain((first,), parts), media_type="text/csv; charset=utf-8", headers=headers)

    return router


def _parts(store: Store, viewer: Viewer, wanted: Wanted) -> Iterator[str]:
    """The whole table, newest first, so many rows at a time.

    What is done meanwhile comes first and moves the rows on: those that were there already are left out.
    """
    names, heading, oldest = visible(store, viewer), as_csv(()), math.inf
    for offset in count(0, MOST_ROWS):
        found = wanted.find(store, names, limit=MOST_ROWS, offset=offset).events
        new = [event for event in found if event.id < oldest]
        oldest = new[-1].id if new else oldest
        table = as_csv(with_starters(new, viewer))
        yield table.removeprefix(heading) if offset else table
        if len(found) < MOST_ROWS:
            return


def with_starters(events: Sequence[AuditEvent], viewer: Viewer) -> list[StartedEvent]:
    """The events with ``started_by``: who started the run that an act names, if known.

    For operators only: a worker can name any run, also of a DAG that the viewer may not see.
    """
    tasks = [acting_task(event) for event in events]
    known = starters(task[:2] for task in tasks if task is not None) if viewer.is_operator else {}
    return [
        StartedEvent(**row_of(event), started_by=None if task is None else known.get(task[:2]))
        for event, task in zip(events, tasks, strict=True)
    ]


def _asked(show: str = "", q: Word = "", who: Word = "", study: Word = "", since: str = "", page: str = "1") -> Wanted:
    return Wanted.of({"show": show, "q": q, "who": who, "study": study, "since": since, "page": page})
