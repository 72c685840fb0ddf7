"""The overview: is anything stuck, and who gets what? All studies to operators and referees, to others their own.

What somebody asks of the overview's table: which studies, in which order, which page of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request

from easeml_airflow.web.components.action_items import remember, visible
from easeml_airflow.web.pages.overview import charts, view
from easeml_airflow.web.pages.overview.charts import map_of
from easeml_airflow.web.pages.overview.view import kinds_of, lines_of, with_forced
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.marks import STEPS
from easeml_airflow.web.server.site import Tab
from easeml_core.services.reports.overview import Standing, board
from easeml_core.services.reports.recommendations import StepKind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fastapi.responses import HTMLResponse

    from easeml_airflow.web.server.site import Site


LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True)
class Query:
    """One view of the table; it is in the address, so that it can be kept and passed on.

    Attributes:
        show: ``all``, or a standing.
        text: What a tenant or a study must hold.
        sort: A key of ``SORTS``.
        page: From 1.
        kind: Only studies that need a person for this, a ``StepKind``; empty for all.
    """

    show: str
    text: str = ""
    sort: str = "needs"
    page: int = 1
    kind: str = ""

    @classmethod
    def of(cls, asked: dict[str, str], *, shows: Collection[str], sorts: Collection[str], usual: str) -> Query:
        """From an address; what is none of the allowed values is taken for the usual one."""
        show, sort, page = asked["show"], asked["sort"], asked["page"]
        return cls(
            show if show in shows else usual,
            asked["q"].strip()[:LONGEST_TEXT],
            sort if sort in sorts else "needs",
            max(1, int(page[:9])) if page.isascii() and page.isdigit() else 1,
            asked["kind"] if asked["kind"] in list(StepKind) else "",
        )

    def link(self, **changes: Any) -> str:
        """The address of another view; another choice begins at its first page.

        Example:
            >>> Query("all", "x-ray").link(page=2), Query("all", page=3).link(show="needs")
            ('?show=all&q=x-ray&sort=needs&page=2', '?show=needs&sort=needs')
        """
        other = replace(self, **{"page": 1} | changes)
        told = {"show": other.show, "kind": other.kind, "q": other.text, "sort": other.sort}
        told["page"] = str(other.page) if other.page > 1 else ""
        return "?" + urlencode({name: value for name, value in told.items() if value})


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
        facts = board(store, names=visible(store, viewer))
        facts |= {"steps": with_forced(facts["steps"], viewer)}
        remember(store, viewer, len(facts["steps"]))
        usual = Standing.NEEDS if view.is_large(facts["tenants"]) and not study else "all"
        asked = {"show": show, "q": q, "sort": sort, "page": page, "kind": kind}
        query = Query.of(asked, shows=SHOWS, sorts=view.SORTS, usual=str(usual))
        shown = _shown(facts, query, marked=study)
        lines = lines_of(facts["steps"], viewer, is_whole=needs == "all")
        return site.page(
            request,
            viewer,
            "overview.html",
            needs=lines,
            needs_total=len(facts["steps"]),
            needs_left=len(facts["steps"]) > len(lines),
            marked=study,
            links=[tab.path for tab in site.tabs],
            **shown,
        )

    return router


def _shown(facts: Mapping[str, Any], query: Query, *, marked: str) -> dict[str, Any]:
    """What the template names, but for what depends on who looks."""
    entries: Sequence[Mapping[str, Any]] = facts["tenants"]
    shares, is_large = view.Shares(**facts["totals"]), view.is_large(entries)
    found = view.chosen(entries, query, shares)
    first = _first(found, query, marked)
    part = found[first : first + view.PAGE_SIZE]
    rows = view.rows_of(part, shares, facts["improvements"])
    return {
        "total": len(entries),
        "now": view.now_words(entries),
        "figures": charts.figures_of(facts),
        "chips": [(key, word, _count(entries, key)) for key, word in SHOWS.items()],
        "rows": rows,
        "span": charts.span_text([row.spark for row in rows]),
        "query": query,
        "sorts": view.SORTS,
        "first": first,
        "found": len(found),
        "page_size": view.PAGE_SIZE,
        "elsewhere": len(view.chosen(entries, replace(query, show="all"), shares)) if query.text and not found else 0,
        "near": "" if found or not query.text else view.nearest(entries, query.text),
        "map": map_of(entries) if is_large else None,
        "kinds": kinds_of(facts["steps"]) if is_large else [],
        "held_to": STEPS[StepKind(query.kind)][1] if query.kind else "",
    }


def _first(found: Sequence[Mapping[str, Any]], query: Query, marked: str) -> int:
    """Where the page begins; a study that a task's link has named is on it."""
    names = [e["study"] for e in found]
    place = names.index(marked) if marked in names else (query.page - 1) * view.PAGE_SIZE
    last = max(0, (len(found) - 1) // view.PAGE_SIZE)
    return min(place // view.PAGE_SIZE, last) * view.PAGE_SIZE


def _count(entries: Sequence[Mapping[str, Any]], key: str) -> int:
    return len(entries) if key == "all" else sum(e["standing"] == key for e in entries)
