"""The data of a study: versions, validation set, sealed sets, and what was fed. A referee has a separate page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, Request

from easeml_airflow.web.components.test_sets import release_set, retire_set
from easeml_airflow.web.pages.datasets.view import VALIDATION, lives, now_of, split_of
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Reason, Tab, moved, path_of_study
from easeml_core.errors import StoreUnavailableError
from easeml_core.services.datasets.report import sealed_sets, study_data
from easeml_core.services.datasets.validation_sets import replace_validation
from easeml_core.store.actors import because

if TYPE_CHECKING:
    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.server.site import Site
    from easeml_core.entities import Study

STUDY_TAB = Tab("/data", "Data")

Number = Annotated[int, Form()]


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/data``, and what a referee may do there."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/studies/{study}/data")
    def show(request: Request, study: str, viewer: Viewer = who) -> HTMLResponse:
        found = site.study(viewer, study)
        facts = study_data(site.open_store(), site.open_artifacts(), study=found.name)
        shown: dict[str, Any] = {"study": found, "data": facts, "now": now_of(facts)}
        shown |= {"problem": facts["problem"], "marks": VALIDATION, "split": split_of(facts)}
        if not viewer.is_referee:
            return site.page(request, viewer, "data.html", sets=lives(facts["sets"]), **shown)
        try:
            sets = lives(sealed_sets(site.open_sealed(), study=found.name))
        except StoreUnavailableError as error:  # the public facts hold nevertheless
            shown["problem"] = f"{error}; the facts below are public"
            return site.page(request, viewer, "data.html", sets=lives(facts["sets"]), **shown)
        return site.page(request, viewer, "data_referee.html", sets=sets, **shown)

    def referees(viewer: Viewer, study: str) -> Study:
        viewer.require(Role.REFEREE)
        return site.study(viewer, study)

    @router.post("/studies/{study}/data/retire")
    def retire(
        request: Request, study: str, test_set: Number, reason: Reason = "", viewer: Viewer = who
    ) -> RedirectResponse:
        found = referees(viewer, study)
        retire_set(site, study=found.name, test_set=test_set, reason=reason)
        return moved(request, f"{path_of_study(found.name)}/data")

    @router.post("/studies/{study}/data/release")
    def release(
        request: Request, study: str, test_set: Number, reason: Reason = "", viewer: Viewer = who
    ) -> RedirectResponse:
        found = referees(viewer, study)
        release_set(site, study=found.name, test_set=test_set, reason=reason)
        return moved(request, f"{path_of_study(found.name)}/data")

    @router.post("/studies/{study}/data/validate")
    def validate(
        request: Request,
        study: str,
        test_set: Number,
        add: Annotated[bool, Form()] = False,
        reason: Reason = "",
        viewer: Viewer = who,
    ) -> RedirectResponse:
        found = referees(viewer, study)
        with because(reason):
            replace_validation(site.open_sealed(), site.open_artifacts(), study=found.name, from_set=test_set, add=add)
        return moved(request, f"{path_of_study(found.name)}/data")

    return router
