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
from easeml_airflow.web.pages.audit import view
from easeml_airflow.web.server.airflow_runs import questions, starters
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import HEADERS, Tab
from easeml_core.encoding import row_of
from easeml_core.services.reports.audit import ACTS, MOST_ROWS, as_csv, audit, recent_figures

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from fastapi.responses import HTMLResponse

    from easeml_airflow.web.server.site import Site
    from easeml_core.services.reports.audit import AuditEvent, AuditPart
    from easeml_core.store.database import Store


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
        shown = view.page_of(found, with_starters(found.events, viewer), figures, is_all=names is None, asked=asked)
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


def with_starters(events: Sequence[AuditEvent], viewer: Viewer) -> list[view.StartedEvent]:
    """The events with ``started_by``: who started the run that an act names, if known.

    For operators only: a worker can name any run, also of a DAG that the viewer may not see.
    """
    tasks = [view.acting_task(event) for event in events]
    known = starters(task[:2] for task in tasks if task is not None) if viewer.is_operator else {}
    return [
        view.StartedEvent(**row_of(event), started_by=None if task is None else known.get(task[:2]))
        for event, task in zip(events, tasks, strict=True)
    ]


def _asked(show: str = "", q: Word = "", who: Word = "", study: Word = "", since: str = "", page: str = "1") -> Wanted:
    return Wanted.of({"show": show, "q": q, "who": who, "study": study, "since": since, "page": page})
