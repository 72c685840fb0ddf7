"""A study's lifecycle: what next, and why; and one line of time, the same for everybody who may see the study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, Request

from easeml_airflow.web.components.action_items import need_of
from easeml_airflow.web.pages.timeline.lifecycle_view import shape_of, time_line
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import Tab
from easeml_core.services.reports.next_steps import next_steps
from easeml_core.services.reports.recommendations import Severity
from easeml_core.services.reports.timeline import MOST_DRAWN, lifecycle

if TYPE_CHECKING:
    from fastapi.responses import HTMLResponse

    from easeml_airflow.web.server.site import Site

STUDY_TAB = Tab("/lifecycle", "Lifecycle")

PAGE_SIZE = 50


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/lifecycle``."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/studies/{study}/lifecycle")
    def show(request: Request, study: str, page: str = "1", viewer: Viewer = who) -> HTMLResponse:
        found, store = site.study(viewer, study), site.open_store()
        number = max(1, int(page[:6])) if page.isascii() and page.isdigit() else 1
        facts = lifecycle(store, study=found.name, limit=PAGE_SIZE, offset=(number - 1) * PAGE_SIZE)
        steps = next_steps(store, studies_only=[found.name])
        return site.page(
            request,
            viewer,
            "lifecycle.html",
            study=found,
            steps=[(need_of(step, viewer, named=False), step["act"]) for step in steps],
            is_calm=all(step["severity"] == Severity.INFO for step in steps),
            line=time_line(facts["line"]),
            is_cut=facts["total"] > MOST_DRAWN,
            drawn=len(facts["line"]),
            events=[(event, *shape_of(event)) for event in facts["events"]],
            total=facts["total"],
            first=(number - 1) * PAGE_SIZE,
            number=number,
        )

    return router
