"""The audit: who did what, when, and with which reason? Operators and referees see all, others their own studies."""

from __future__ import annotations

import math
from itertools import chain, count
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse

from easeml_airflow.web.components.action_items import visible
from easeml_airflow.web.pages.audit import view
from easeml_airflow.web.pages.audit.audit_query import LONGEST_TEXT, PAGE_SIZE, SPANS, Wanted
from easeml_airflow.web.server.airflow_runs import questions, starters
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import HEADERS, Tab
from easeml_core.services.operations.audit import MOST_ROWS, as_csv, audit, recent_figures

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fastapi.responses import HTMLResponse

    from easeml_airflow.web.server.site import Site
    from easeml_core.store.database import Store

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
        found = audit(store, studies=names, limit=PAGE_SIZE, offset=view_.offset, **view_.filters())
        figures = recent_figures(store, studies=names)
        found |= {"events": with_starters(found["events"], viewer)}
        asked = questions() if viewer.is_referee else []
        shown = view.page_of(found, figures, is_all=names is None, asked=asked)
        return site.page(request, viewer, "audit.html", wanted=view_, spans=SPANS, shown=shown)

    @router.get("/audit.csv")
    def table(view_: Wanted = wanted, viewer: Viewer = who) -> Response:
        parts = _parts(site.open_store(), viewer, view_)
        first = next(parts)  # what can be refused is refused before the answer begins
        told = HEADERS | {"Content-Disposition": 'attachment; filename="easeml-audit.csv"'}
        return StreamingResponse(chain((first,), parts), media_type="text/csv; charset=utf-8", headers=told)

    return router


def _parts(store: Store, viewer: Viewer, wanted: Wanted) -> Iterator[str]:
    """The whole table, newest first, so many rows at a time.

    What is done meanwhile comes first and moves the rows on: those that were there already are left out.
    """
    names, heading, oldest = visible(store, viewer), as_csv(()), math.inf
    for offset in count(0, MOST_ROWS):
        found = audit(store, studies=names, limit=MOST_ROWS, offset=offset, **wanted.filters())["events"]
        new = [event for event in found if event["id"] < oldest]
        oldest = new[-1]["id"] if new else oldest
        table = as_csv(with_starters(new, viewer))
        yield table.removeprefix(heading) if offset else table
        if len(found) < MOST_ROWS:
            return


def with_starters(events: Sequence[Mapping[str, Any]], viewer: Viewer) -> list[dict[str, Any]]:
    """The events with ``started_by``: who has started the run that an act names; None where nobody is known.

    Told to operators alone: whoever has a worker's address can name any run, of a DAG that the viewer may not see too.
    """
    tasks = [view.acting_task(event) for event in events]
    known = starters(task[:2] for task in tasks if task is not None) if viewer.is_operator else {}
    return [
        {**event, "started_by": None if task is None else known.get(task[:2])}
        for event, task in zip(events, tasks, strict=True)
    ]


def _asked(show: str = "", q: Word = "", who: Word = "", study: Word = "", since: str = "", page: str = "1") -> Wanted:
    return Wanted.of({"show": show, "q": q, "who": who, "study": study, "since": since, "page": page})
