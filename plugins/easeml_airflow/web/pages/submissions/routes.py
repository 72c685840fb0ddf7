"""The developer's page: did mine pass, may I trust my validation data, how many tries are left?

It is read as ``easeml_worker``, which the database itself keeps from everything sealed. Its template is its own and
shares no part with the referee's.
"""

from __future__ import annotations

import shlex
import uuid
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Form, Query, Request

from easeml_airflow.web.pages.submissions.view import submissions_view
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import Tab, moved, path_of_study
from easeml_core.services.reports.submissions import MOST, hand_in, handed_in_report

if TYPE_CHECKING:
    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.server.site import Site

STUDY_TAB = Tab("/submissions", "Submissions")
SHOWN = 8
"""Submissions on the page."""


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
        facts = handed_in_report(site.open_store(), study=found.name, limit=entries, skip=skip)
        return site.page(
            request,
            viewer,
            "submissions.html",
            study=found,
            view=submissions_view(facts),
            entries=entries,
            skip=skip,
            most=MOST,
            referee=viewer.is_referee,
            may_change=viewer.changes(found.name, found.tenant),
            request_key=str(uuid.uuid4()),
            quoted=shlex.quote(found.name),
        )

    @router.post("")
    def submit(
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
        hand_in(site.open_store(), study=found.name, model_id=model, gate=gate, meter=meter, request_key=key)
        return moved(request, f"{path_of_study(found.name)}/submissions")

    return router
