"""The overview: needs, and shares of the compute. Operators and referees see all studies, other viewers their own.

A request selects studies, an order, and a page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, Request

from easeml_airflow.web.components.action_items import remember, visible
from easeml_airflow.web.pages.overview import charts, view
from easeml_airflow.web.pages.overview.charts import map_of
from easeml_airflow.web.pages.overview.view import Query, kinds_of, lines_of, with_forced
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.marks import STEPS
from easeml_airflow.web.server.site import Tab
from easeml_core.services.reports.overview import board
from easeml_core.services.reports.recommendations import Standing, StepKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi.responses import HTMLResponse

    from easeml_airflow.web.components.action_items import Need
    from easeml_airflow.web.pages.overview.charts import Figures, StudyMap
    from easeml_airflow.web.pages.overview.view import Row
    from easeml_airflow.web.server.site import Site
    from easeml_core.services.reports.next_steps import NextStep
    from easeml_core.services.reports.overview import Board
    from easeml_core.services.reports.recommendations import Assessment


TAB = Tab("/", "Overview")

SHOWS = {
    "all": "All",
    Standing.NEEDS: "Needs you",
    Standing.SEARCHING: "Searching",
    Standing.PAUSED: "Paused",
    Standing.FINISHED: "Finished",
}


def routes(site: Site) -> APIRouter:
    """``/``."""
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
        found = board(store, names=visible(store, viewer))
        steps = with_forced(found.steps, viewer)
        remember(store, viewer, len(steps))
        usual = Standing.NEEDS if view.is_large(found.tenants) and not study else "all"
        asked = {"show": show, "q": q, "sort": sort, "page": page, "kind": kind}
        query = Query.of(asked, shows=SHOWS, sorts=view.SORTS, usual=str(usual))
        needs_shown = lines_of(steps, viewer, is_whole=needs == "all")
        links = [tab.path for tab in site.tabs]
        shown = _page(found, steps, query, needs=needs_shown, marked=study, links=links)
        return site.page(request, viewer, "overview.html", shown=shown)

    return router


@dataclass(frozen=True, slots=True)
class Page:
    """What the template reads.

    Attributes:
        needs: Lines of what needs a person, worst first.
        needs_total: How many things need a person.
        needs_left: Whether some of them have no line.
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
    needs_left: bool
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
    facts: Board, steps: Sequence[NextStep], query: Query, *, needs: Sequence[Need], marked: str, links: Sequence[str]
) -> Page:
    entries, totals = facts.tenants, facts.totals
    is_large = view.is_large(entries)
    found = view.chosen(entries, query, totals)
    first = _first(found, query, marked)
    rows = view.rows_of(found[first : first + view.PAGE_SIZE], totals, facts.improvements)
    is_lost = bool(query.text) and not found
    return Page(
        needs=needs,
        needs_total=len(steps),
        needs_left=len(steps) > len(needs),
        marked=marked,
        links=links,
        total=len(entries),
        now=view.now_words(entries),
        figures=charts.figures_of(facts),
        chips=[(key, word, _count(entries, key)) for key, word in SHOWS.items()],
        rows=rows,
        span=charts.span_text([row.spark for row in rows]),
        query=query,
        sorts=view.SORTS,
        first=first,
        found=len(found),
        page_size=view.PAGE_SIZE,
        elsewhere=len(view.chosen(entries, replace(query, show="all"), totals)) if is_lost else 0,
        near=view.nearest(entries, query.text) if is_lost else "",
        map=map_of(entries) if is_large else None,
        kinds=kinds_of(steps) if is_large else [],
        held_to=STEPS[StepKind(query.kind)][1] if query.kind else "",
    )


def _first(found: Sequence[Assessment], query: Query, marked: str) -> int:
    """Return how many studies are before the page; a study that a task's link has named is on it."""
    names = [e.facts.study for e in found]
    place = names.index(marked) if marked in names else (query.page - 1) * view.PAGE_SIZE
    last = max(0, (len(found) - 1) // view.PAGE_SIZE)
    return min(place // view.PAGE_SIZE, last) * view.PAGE_SIZE


def _count(entries: Sequence[Assessment], key: str) -> int:
    return len(entries) if key == "all" else sum(e.standing == key for e in entries)
