"""The referee's gate page: verdicts, the life of the sealed set, and the size of the next one.

Sealed facts are read as ``easeml_referee`` and shown to referees only. The services decide on changes: a promotion
needs a recorded pass, and one without goes through the DAG where a referee has to approve.
"""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request

from easeml_airflow import settings
from easeml_airflow.web.components.action_items import accept_alert, gate_alerts
from easeml_airflow.web.components.test_sets import ledger_file, release_set, retire_set, whole_ledger
from easeml_airflow.web.pages.gate.planner import JOINT, joint_settings, joint_view, planner_of
from easeml_airflow.web.pages.gate.sizes import Asked
from easeml_airflow.web.pages.gate.view import gate_view
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Reason, Tab, moved, path_of_study
from easeml_core.config import GateConfig, JointConfig
from easeml_core.services.referee.requests import file_promotion, file_rollback
from easeml_core.services.reports.gate import MOST, gate_ledger, gate_report
from easeml_core.services.test_sets.answers import gate_settings, joint_config
from easeml_core.services.test_sets.lifecycle import plan_test_set
from easeml_core.services.test_sets.planning import set_purposes, study_plan

if TYPE_CHECKING:
    from fastapi.responses import RedirectResponse, Response

    from easeml_airflow.web.server.site import Site
    from easeml_core.entities import Study
    from easeml_core.services.reports.gate import GateReport

STUDY_TAB = Tab("/gate", "Gate", frozenset({Role.REFEREE}))
FORCING_DAG = "easeml_forced_promotion"
SHOWN = 10
"""Entries of the ledger on the page."""

Number = Annotated[int, Form()]


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/gate`` and what it changes."""
    router, known = APIRouter(prefix="/studies/{study}/gate"), Depends(site.viewer)

    def referee(viewer: Viewer = known) -> Viewer:
        viewer.require(Role.REFEREE)
        return viewer

    who = Depends(referee)

    @router.get("")
    def show(
        request: Request,
        study: str,
        submission: int | None = None,
        model: int | None = None,
        test_set: Annotated[int | None, Query(alias="set")] = None,
        entries: Annotated[int, Query(ge=1, le=MOST)] = SHOWN,
        viewer: Viewer = known,
    ) -> Response:
        if model is not None and not viewer.is_referee:  # `easeml next` links here for every user
            return moved(request, f"{path_of_study(site.study(viewer, study).name)}/submissions")
        viewer.require(Role.REFEREE)
        found = site.study(viewer, study)
        facts = gate_report(
            site.open_sealed(), study=study, limit=entries, test_set=test_set, submission=submission, model_id=model
        )
        path, asked = f"{path_of_study(study)}/gate", request.query_params
        begun, shared = _in_force(found, facts)
        plan = planner_of(begun, asked, study=found, has_set=bool(facts.sets), shared=shared)
        return site.page(
            request,
            viewer,
            "gate.html",
            study=found,
            gate=gate_view(facts, study=study, path=path),
            alerts=gate_alerts(site.open_store(), study=found.name),
            plan=plan,
            joint=joint_view(found, plan.settings) if plan.purpose == JOINT else None,
            act=path,
            request_key=str(uuid.uuid4()),
            forcing=f"{settings.base_path()}/dags/{FORCING_DAG}",
        )

    @router.get("/ledger.csv")
    def ledger(study: str, test_set: Annotated[int, Query(alias="set")], viewer: Viewer = who) -> Response:
        name = site.study(viewer, study).name
        read = partial(gate_ledger, site.open_sealed(), study=name, test_set=test_set)
        entries = whole_ledger(lambda page: read(skip=page * MOST), size=MOST)
        return ledger_file(entries, {column: column for column in _COLUMNS}, test_set=test_set)

    _changes(site, router, who)
    return router


def _changes(site: Site, router: APIRouter, who: Any) -> None:
    """The POSTs: each is one call of a service."""

    def here(request: Request, study: str) -> RedirectResponse:
        return moved(request, f"{path_of_study(study)}/gate")

    @router.post("/promote")
    def promote(
        request: Request,
        study: str,
        model: Annotated[int, Form()],
        gate_request: Annotated[int, Form()],
        request_key: Annotated[str, Form()],
        viewer: Viewer = who,
    ) -> RedirectResponse:
        name = site.study(viewer, study).name
        file_promotion(
            site.open_sealed(),
            study=name,
            model_id=model,
            gate_request_id=gate_request,
            request_key=_key(viewer, request_key),
            directly=True,
        )
        return here(request, study)

    @router.post("/rollback")
    def roll_back(
        request: Request,
        study: str,
        model: Number,
        why: Annotated[str, Form()],
        request_key: Annotated[str, Form()],
        viewer: Viewer = who,
    ) -> RedirectResponse:
        name = site.study(viewer, study).name
        key = _key(viewer, request_key)
        file_rollback(site.open_sealed(), study=name, model_id=model, why=why, request_key=key, directly=True)
        return here(request, study)

    @router.post("/plan")
    def plan(
        request: Request,
        study: str,
        name: Annotated[str, Form()],
        condition: Annotated[str, Form()],
        reliability: Annotated[float, Form()],
        steps: Annotated[int, Form()],
        adaptivity: Annotated[str, Form()],
        mode: Annotated[str, Form()],
        power: Annotated[float | None, Form()] = None,
        purpose: Annotated[str, Form()] = "gate",
        viewer: Viewer = who,
    ) -> RedirectResponse:
        whose = site.study(viewer, study).name
        given = Asked(condition, reliability, steps, adaptivity, mode, power)
        settings = joint_settings(given) if purpose == JOINT else given.settings()
        plan_test_set(site.open_sealed(), study=whose, name=name, purpose=purpose, settings=settings)
        return here(request, study)

    @router.post("/retire")
    def retire(
        request: Request, study: str, test_set: Number, reason: Reason = "", viewer: Viewer = who
    ) -> RedirectResponse:
        whose = site.study(viewer, study).name
        retire_set(site, study=whose, test_set=test_set, reason=reason)
        return here(request, study)

    @router.post("/release")
    def release(
        request: Request, study: str, test_set: Number, reason: Reason = "", viewer: Viewer = who
    ) -> RedirectResponse:
        whose = site.study(viewer, study).name
        release_set(site, study=whose, test_set=test_set, reason=reason)
        return here(request, study)

    @router.post("/accept")
    def accept(
        request: Request, study: str, alert_id: Number, reason: Reason = "", viewer: Viewer = who
    ) -> RedirectResponse:
        whose = site.study(viewer, study).name
        accept_alert(site.open_store(), study=whose, alert_id=alert_id, reason=reason)
        return here(request, study)


def _key(viewer: Viewer, key: str) -> str:
    """The request key of a form: who pressed, and the form's own, so that a second press changes nothing."""
    return f"page/{viewer.name}/{key[:100]}"


def _in_force(study: Study, facts: GateReport) -> tuple[GateConfig, float | None]:
    """What the planner begins with: the plan of the set that is looked at, else the study's settings.

    Returns:
        The gate's, whose reliability is its part on a shared set; and the reliability of such a set, else None.
    """
    if facts.chosen is not None:
        joint = joint_config(facts.chosen)
        return gate_settings(facts.chosen), None if joint is None else joint.reliability
    plan = study_plan(study.config, set_purposes(study.config)[0])
    if isinstance(plan, JointConfig):
        return plan.gate, plan.reliability
    return GateConfig.from_json(study.config["gate"]), None


_COLUMNS = (
    *("step", "system", "number", "model_id", "incumbent_id", "condition", "verdict", "released", "is_change"),
    *("level", "log_level", "log_cost", "request_id", "decided_at", "answered_at"),
)
"""Of the ledger as a file; headings and keys of the entries are the same."""
