"""The page of one study: its quality, its next trials and their value. For every user who may read the study."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request

from easeml_airflow.web.pages.study.view import page_of
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Reason, Tab, moved, no_study, path_of_study
from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.services.registration.register import pause_study
from easeml_core.services.reports.study import study_of_trial, study_report
from easeml_core.services.studies.archive import archive_study, delete_study, restore_study, withdraw_candidate
from easeml_core.services.studies.candidates import add_candidates
from easeml_core.services.studies.limits import MOST_REASON, set_study
from easeml_core.services.trials.execution import cancel_trial
from easeml_core.store.callers import because

if TYPE_CHECKING:
    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.server.site import Site
    from easeml_core.entities import Parameters, Study

STUDY_TAB = Tab("", "Study")

Why = Annotated[str, Form(min_length=1, max_length=MOST_REASON)]
"""Of a form: why a study is archived or deleted, or a candidate withdrawn."""

MOST_PARAMETERS = 4000
"""Characters of one candidate's parameters."""


def routes(site: Site) -> APIRouter:
    """``/studies/{study}`` and what may be changed there."""
    router, who = APIRouter(prefix="/studies/{study}"), Depends(site.viewer)
    _looks(router, site, who)
    _tenants_changes(router, site, who)
    _ends(router, site, who)
    _operators_changes(router, site, who)
    return router


def _looks(router: APIRouter, site: Site, who: Any) -> None:
    @router.get("")
    def show(
        request: Request,
        study: str,
        page: Annotated[int, Query(ge=1, le=100_000)] = 1,
        all: bool = False,
        sort: Annotated[str, Query(max_length=20)] = "",
        viewer: Viewer = who,
    ) -> HTMLResponse:
        try:
            report = study_report(
                site.open_store(), study=study, page=page, sees=lambda found: viewer.sees(found.name, found.tenant)
            )
        except NotFoundError as error:
            raise no_study(study) from error
        found = report.study
        shown = page_of(report, page=page, all_candidates=all, sort=sort)
        may = viewer.changes(found.name, found.tenant)
        more: dict[str, Any] = {
            "may_change": may,
            "kinds": _kinds(found),
            "production": report.facts.production_model_id,
        }
        return site.page(request, viewer, "study.html", study=found, shown=shown, **more)


def _tenants_changes(router: APIRouter, site: Site, who: Any) -> None:
    @router.post("/pause")
    def pause(request: Request, study: str, reason: Reason = "", viewer: Viewer = who) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        with because(reason):
            pause_study(site.open_store(), study=found.name, paused=True)
        return moved(request, path_of_study(found.name))

    @router.post("/resume")
    def resume(request: Request, study: str, reason: Reason = "", viewer: Viewer = who) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        with because(reason):
            pause_study(site.open_store(), study=found.name, paused=False)
        return moved(request, path_of_study(found.name))

    @router.post("/candidates")
    def add(
        request: Request,
        study: str,
        name: Annotated[str, Form()],
        kind: Annotated[str, Form()],
        parameters: Annotated[str, Form()] = "",
        devices: Annotated[str, Form()] = "",
        reason: Reason = "",
        viewer: Viewer = who,
    ) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        wanted = {"name": name, "kind": kind, "parameters": parameters_of(parameters)}
        named = [device.strip() for device in devices.split(",") if device.strip()]
        wanted |= {"devices": named} if named else {}
        with because(reason):
            add_candidates(site.open_store(), study=found.name, candidates=[wanted])
        return moved(request, path_of_study(found.name))

    @router.post("/candidates/withdraw")
    def withdraw(
        request: Request, study: str, name: Annotated[str, Form()], why: Why, viewer: Viewer = who
    ) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        withdraw_candidate(site.open_store(), study=handle_of(found), candidate=name, why=why)
        return moved(request, path_of_study(found.name))

    @router.post("/trials/{trial_id}/cancel")
    def cancel(
        request: Request, study: str, trial_id: int, reason: Reason = "", viewer: Viewer = who
    ) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        if study_of_trial(site.open_store(), trial_id=trial_id) != found.name:
            raise HTTPException(status_code=404, detail=f"study {found.name!r} has no trial {trial_id}")
        with because(reason):
            cancel_trial(site.open_store(), trial_id=trial_id)
        return moved(request, path_of_study(found.name))


def _ends(router: APIRouter, site: Site, who: Any) -> None:
    @router.post("/archive")
    def archive(
        request: Request,
        study: str,
        why: Why,
        withdraw: Annotated[bool, Form()] = False,
        viewer: Viewer = who,
    ) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        archive_study(site.open_store(), study=handle_of(found), why=why, withdraw=withdraw)
        return moved(request, "/archived")

    @router.post("/restore")
    def restore(request: Request, study: str, reason: Reason = "", viewer: Viewer = who) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        restore_study(site.open_store(), study=handle_of(found), why=reason)
        return moved(request, path_of_study(found.name))

    @router.post("/delete")
    def delete(request: Request, study: str, why: Why, viewer: Viewer = who) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        delete_study(site.open_store(), study=handle_of(found), why=why)
        return moved(request, "/")


def handle_of(study: Study) -> str:
    """Return what means this study and no other one, also where another study takes its name meanwhile."""
    return f"{study.name}@{study.id}"


def _operators_changes(router: APIRouter, site: Site, who: Any) -> None:
    @router.post("/weight")
    def weigh(
        request: Request,
        study: str,
        weight: Annotated[float, Form()],
        priority: Annotated[int, Form()],
        reason: Reason = "",
        viewer: Viewer = who,
    ) -> RedirectResponse:
        found = site.study(viewer, study)
        viewer.require(Role.OPERATOR)
        with because(reason):
            set_study(site.open_store(), study=found.name, weight=weight, priority=priority)
        return moved(request, path_of_study(found.name))

    @router.post("/stops")
    def stop(
        request: Request,
        study: str,
        budget_hours: Annotated[float | None, Form()] = None,
        deadline: Annotated[str | None, Form()] = None,
        target_quality: Annotated[float | None, Form()] = None,
        reason: Reason = "",
        viewer: Viewer = who,
    ) -> RedirectResponse:
        """What is left empty is taken away."""
        found = site.study(viewer, study)
        viewer.require(Role.OPERATOR)
        budget = None if budget_hours is None else 3600 * budget_hours
        limits = {"budget_seconds": budget, "deadline": deadline, "target_quality": target_quality}
        with because(reason):
            set_study(site.open_store(), study=found.name, **limits)
        return moved(request, path_of_study(found.name))


def parameters_of(text: str) -> Parameters:
    """Return the parameters of a candidate from a form; empty for none.

    Raises:
        InvalidInputError: It is no JSON object, or too long.
    """
    if not text.strip():
        return {}
    try:
        found = json.loads(text[: MOST_PARAMETERS + 1])
    except (ValueError, RecursionError) as error:
        message = f"parameters must be a JSON object of at most {MOST_PARAMETERS} characters such as {{}}: {error}"
        raise InvalidInputError(message) from error
    if not isinstance(found, dict):
        message = f'parameters must be a JSON object such as {{"n_estimators": 200}}, got a {type(found).__name__}'
        raise InvalidInputError(message)
    return found


def _kinds(study: Study) -> list[tuple[str, str]]:
    """Kinds of candidates for the study's task that need nothing but parameters, with what each is."""
    from easeml_core.training.trainers import TRAINERS

    return [(t.kind, t.summary) for t in TRAINERS.values() if study.task in t.tasks and not t.files]
