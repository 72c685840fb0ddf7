"""The page of a decision: why this trial and not another, what would have changed it, and how it turned out.

The extra link of a trial's task leads here. The name of a runner-up is shown to viewers who may see its study.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, HTTPException, Request

from easeml_airflow.web.components.action_items import visible
from easeml_airflow.web.pages.decision.view import page_of
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import moved, path_of_study
from easeml_core.services.reports.decision import explain_trial
from easeml_core.services.reports.study import facts_of_decision, guard_of_day, study_of_trial

if TYPE_CHECKING:
    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.server.site import Site


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/decisions/{trial_id}``, and ``/trials/{trial_id}`` for who knows no more than the trial."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/studies/{study}/decisions/{trial_id}")
    def show(request: Request, study: str, trial_id: int, viewer: Viewer = who) -> HTMLResponse:
        found = site.study(viewer, study)
        if study_of_trial(site.open_store(), trial_id=trial_id) != found.name:
            raise HTTPException(status_code=404, detail=f"study {found.name!r} has no trial {trial_id}")
        explained = explain_trial(site.open_store(), trial_id=trial_id)
        facts = facts_of_decision(site.open_store(), trial_id=trial_id)
        guard = guard_of_day(site.open_store(), studies_seen=visible(site.open_store(), viewer))
        shown = page_of(explained, facts, guard, study=found, sees=cache(lambda name: _sees(site, viewer, name)))
        return site.page(request, viewer, "decision.html", study=found, shown=shown)

    @router.get("/trials/{trial_id}")
    def find(request: Request, trial_id: int, viewer: Viewer = who) -> RedirectResponse:
        name = study_of_trial(site.open_store(), trial_id=trial_id)
        if name is None or not _sees(site, viewer, name):
            raise HTTPException(status_code=404, detail=f"there is no trial {trial_id} that you may see")
        return moved(request, f"{path_of_study(name)}/decisions/{trial_id}")

    return router


def _sees(site: Site, viewer: Viewer, study: str) -> bool:
    try:
        site.study(viewer, study)
    except HTTPException:
        return False
    return True
