"""The tab "Ease.ml" on a run of any DAG, and on a task of it: what did it do here?

A run's tab is a list of its trials and of what it asked for. A task's leads to what the task was about, and is such a
list where that is not one thing. What the tabs are asked with is what a browser says: whoever looks sees only what is
of studies that they may see, and of all else the same as of a run that did nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from easeml_airflow.web.components.action_items import visible
from easeml_airflow.web.pages.dag_run.of_run_view import Page, Place, page_of
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import moved
from easeml_core.store.queries import submissions
from easeml_core.store.queries.dag_runs import asked_of, trials_of

if TYPE_CHECKING:
    from fastapi.responses import HTMLResponse, Response

    from easeml_airflow.web.server.site import Site

Name = Annotated[str, Query(max_length=250)]
"""Airflow's own limit of its names."""


def routes(site: Site) -> APIRouter:
    """``/of-run`` and ``/of-task``; names are in the query, where a slash in one of them is no folder."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/of-run")
    def of_run(request: Request, dag: Name, run: Name, viewer: Viewer = who) -> HTMLResponse:
        return site.page(request, viewer, "of_run.html", shown=_found(site, viewer, Place.of(dag, run)))

    @router.get("/of-task")
    def of_task(request: Request, dag: Name, run: Name, task: Name, index: Name = "", viewer: Viewer = who) -> Response:
        shown = _found(site, viewer, Place.of(dag, run, task, index))
        if len(shown.paths) == 1:
            return moved(request, shown.paths.pop())
        return site.page(request, viewer, "of_run.html", shown=shown)

    return router


def _found(site: Site, viewer: Viewer, place: Place) -> Page:
    """What was done there, of what this person may see."""
    if not place.is_named:
        raise HTTPException(status_code=404, detail=f"Airflow has no {place.word} of this name")
    store = site.open_store()
    studies = visible(store, viewer)
    with store.begin() as tx:
        trials = trials_of(tx, run=place.run_key, key=place.key, studies=studies)
        asked = asked_of(tx, key=place.key, studies=studies)
        names = submissions.names_of(tx, sorted({a["model_id"] for a in asked if a["model_id"] is not None}))
    return page_of(place, trials, asked, names, viewer)
