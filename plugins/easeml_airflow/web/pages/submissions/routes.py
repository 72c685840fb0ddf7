"""The developer's page: did mine pass, may I trust my validation data, how many tries are left?

It is read as ``easeml_worker``, which the database itself keeps from everything sealed. Its template is its own and
shares no part with the referee's.
"""

from __future__ import annotations

import shlex
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Form, Query, Request

from easeml_airflow.web.pages.submissions.view import submissions_view
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import Tab, moved, path_of_study
from easeml_core.services.reports.submissions import MOST, submissions_report, submit

if TYPE_CHECKING:
    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.pages.submissions.view import SubmissionsView
    from easeml_airflow.web.server.site import Site

STUDY_TAB = Tab("/submissions", "Submissions")
SHOWN = 8
"""Submissions on the page."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the template reads.

    Attributes:
        view: What the page says.
        entries: Submissions of a page.
        skip: How many of the newest it leaves out.
        may_change: Whether the viewer may submit.
        request_key: Of the form.
        quoted: The study's name for a command line.
        most: Submissions that a page has at most.
    """

    view: SubmissionsView
    entries: int
    skip: int
    may_change: bool
    request_key: str
    quoted: str
    most: int = MOST


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/submissions``: what was handed in, and handing in."""
    router, who = APIRouter(prefix="/studies/{study}/submissions"), Depends(site.viewer)

    @router.get("")
    def show(
        request: Request,
        study: str,
        entries: Annotated[int, Query(ge=1, le=MOST)] = SHOWN,
        skip: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
        viewer: Viewer = who,
    ) -> HTMLResponse:
        found = site.study(viewer, study)
        report = submissions_report(site.open_store(), study=found.name, limit=entries, skip=skip)
        shown = Page(
            view=submissions_view(report),
            entries=entries,
            skip=skip,
            may_change=viewer.changes(found.name, found.tenant),
            request_key=str(uuid.uuid4()),
            quoted=shlex.quote(found.name),
        )
        return site.page(request, viewer, "submissions.html", study=found, shown=shown)

    @router.post("")
    def post(
        request: Request,
        study: str,
        model: Annotated[int, Form()],
        request_key: Annotated[str, Form()],
        gate: Annotated[bool, Form()] = False,
        meter: Annotated[bool, Form()] = False,
        viewer: Viewer = who,
    ) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        key = f"page/{viewer.name}/{found.name}/{request_key[:100]}"
        submit(site.open_store(), study=found.name, model_id=model, gate=gate, meter=meter, request_key=key)
        return moved(request, f"{path_of_study(found.name)}/submissions")

    return router
