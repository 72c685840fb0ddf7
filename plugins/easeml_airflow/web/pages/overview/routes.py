"""The overview: needs, and shares of the compute. Operators and referees see all studies, other viewers their own.

A request selects studies, an order, and a page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, Request

from easeml_airflow.web.components.action_items import forced_steps, remember, visible
from easeml_airflow.web.pages.overview import charts, view
from easeml_airflow.web.pages.overview.charts import map_of
from easeml_airflow.web.pages.overview.view import Query, kinds_of, lines_of
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.marks import STEPS
from easeml_airflow.web.server.site import Tab
from easeml_core.services.reports.overview import Asked, board
from easeml_core.services.reports.recommendations import Standing, StepKind
from easeml_core.services.studies.archive import archived_studies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi.responses import HTMLResponse

    from easeml_airflow.web.components.action_items import Need
    from easeml_airflow.web.pages.overview.charts import Figures, StudyMap
    from easeml_airflow.web.pages.overview.view import Row
    from easeml_airflow.web.server.site import Site
    from easeml_core.services.reports.overview import Board


TAB = Tab("/", "Overview")

UNASKED = ""
"""The view where the address names none: what needs a person among very many studies, all of few."""

SHOWS = {
    "all": "All",
    Standing.NEEDS: "Needs you",
    Standing.SEARCHING: "Searching",
    Standing.PAUSED: "Paused",
    Standing.FINISHED: "Finished",
}


def routes(site: Site) -> APIRouter:
    """``/``, and the studies that are not in it any more."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/")
    def show(
        request: Request,
        show: str = "",
        q: str = "",
        sort: str = "",
        page: str = "1",
        needs: str = "",
        study: str = "",
        kind: str = "",
        viewer: Viewer = who,
    ) -> HTMLResponse:
        store = site.open_store()
        written = {"show": show, "q": q, "sort": sort, "page": page, "kind": kind}
        query = Query.of(written, shows=SHOWS, sorts=view.SORTS, usual="all" if study else UNASKED)
        asked = _asked(query, marked=study, is_whole=needs == "all")
        found = board(store, asked, names=visible(store, viewer))
        query = replace(query, show=found.standing or "all")
        forced = forced_steps(viewer)
        total = found.needs_total + len(forced)
        remember(store, viewer, total)
        needs_shown = lines_of(found, forced, viewer, is_whole=asked.is_whole)
        links = [tab.path for tab in site.tabs]
        shown = _page(found, query, total=total, needs=needs_shown, is_whole=asked.is_whole, marked=study, links=links)
        return site.page(request, viewer, "overview.html", shown=shown)

    @router.get("/archived")
    def archived(request: Request, viewer: Viewer = who) -> HTMLResponse:
        found = archived_studies(site.open_store())
        seen = [one for one in found if viewer.sees(one.study.partition("@")[0], one.tenant)]
        return site.page(request, viewer, "archived.html", archived=seen)

    return router


def _asked(query: Query, *, marked: str, is_whole: bool) -> Asked:
    return Asked(
        standing=None if query.show == UNASKED else "" if query.show == "all" else query.show,
        kind=query.kind,
        text=query.text,
        order=query.sort,
        first=(query.page - 1) * view.PAGE_SIZE,
        size=view.PAGE_SIZE,
        marked=marked,
        is_whole=is_whole,
    )


@dataclass(frozen=True, slots=True)
class Page:
    """What the template reads.

    Attributes:
        needs: Lines of what needs a person, worst first.
        needs_total: How many things need a person.
        needs_left: How many of them have no line; ``is_whole`` says whether all were asked for.
        marked: The study that a task's link has named; empty for none.
        links: Paths of the pages that exist.
        total: Studies that the viewer may see.
        now: What is going on: the part in bold, then the rest.
        figures: The numbers beside what needs a person.
        chips: Key, word and number of each filter.
        rows: The lines of the table.
        span: How far back the small charts go.
        query: What is asked for.
        sorts: Key and word of each order.
        first: How many studies are before the page.
        found: Studies that the filter and the search let through.
        page_size: Lines of a page.
        elsewhere: Studies that the search finds without the filter, where it finds none with it.
        near: A name that is nearly what was searched for.
        map: The map of very many studies; None where there are few.
        kinds: How many studies need what; empty where there are few.
        held_to: What the table is held to, in words; empty for nothing.
    """

    needs: Sequence[Need]
    needs_total: int
    needs_left: int
    is_whole: bool
    marked: str
    links: Sequence[str]
    total: int
    now: tuple[str, str]
    figures: Figures
    chips: Sequence[tuple[str, str, int]]
    rows: Sequence[Row]
    span: str
    query: Query
    sorts: Mapping[str, str]
    first: int
    found: int
    page_size: int
    elsewhere: int
    near: str
    map: StudyMap | None
    kinds: Sequence[tuple[str, str, str, int]]
    held_to: str


def _page(
    found: Board, query: Query, *, total: int, needs: Sequence[Need], is_whole: bool, marked: str, links: Sequence[str]
) -> Page:
    crowd = found.crowd
    is_large = view.is_large(crowd)
    rows = view.rows_of(found)
    counts = {
        "all": crowd.studies,
        Standing.NEEDS: crowd.needs,
        Standing.SEARCHING: crowd.searching,
        Standing.PAUSED: crowd.paused,
        Standing.FINISHED: crowd.finished,
    }
    return Page(
        needs=needs,
        needs_total=total,
        needs_left=max(total - len(needs), 0),
        is_whole=is_whole,
        marked=marked,
        links=links,
        total=crowd.studies,
        now=view.now_words(crowd),
        figures=charts.figures_of(found),
        chips=[(key, word, counts[key]) for key, word in SHOWS.items()],
        rows=rows,
        span=charts.span_text([row.spark for row in rows]),
        query=query,
        sorts=view.SORTS,
        first=found.first,
        found=found.found,
        page_size=view.PAGE_SIZE,
        elsewhere=found.elsewhere,
        near=view.nearest(found.likely, query.text),
        map=map_of(crowd, found.on_map) if is_large else None,
        kinds=kinds_of(found) if is_large else [],
        held_to=STEPS[StepKind(query.kind)][1] if query.kind else "",
    )
