"""The meter of a study, for referees: how much is overfitted, what it has cost, and what the next set would need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Form, Query, Request

from easeml_airflow.web.frame import Tab, moved, path_of_study
from easeml_airflow.web.meter_planner import PlanPicture, plan_picture
from easeml_airflow.web.meter_view import picture_of, power_text
from easeml_airflow.web.people import Role, Viewer
from easeml_core.entities import AlertKind, SealedSetPurpose
from easeml_core.errors import EasemlError
from easeml_core.services.alerts import clear_alert, open_alerts
from easeml_core.services.meter_history import meter_history
from easeml_core.services.meter_plans import MOST_STEPS, MOST_TEAMS, MeterPlans, meter_plans

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.frame import Site

STUDY_TAB = Tab("/meter", "Meter", frozenset({Role.REFEREE}))

PAGE_SIZE = 20
MOST_PAGES = 100_000
RELIABILITIES = (0.9, 0.95, 0.99, 0.999, 0.9999)
PLANNED = {"tolerance": 0.02, "reliability": 0.99, "steps": 32, "teams": 1, "edges": "0.05, 0.13, 0.25"}
"""What the planner shows for a study without a meter set."""

Edges = Annotated[str, Query(max_length=200)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the planner is asked, and its answer or why there is none."""

    tolerance: float
    reliability: float
    steps: int
    teams: int
    edges: str
    plans: MeterPlans | None = None
    picture: PlanPicture | None = None
    problem: str = ""


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/meter``."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/studies/{study}/meter")
    def show(
        request: Request,
        study: str,
        set_id: Annotated[int | None, Query(alias="set")] = None,
        page: Annotated[int, Query(ge=1, le=MOST_PAGES)] = 1,
        tolerance: float | None = None,
        reliability: float | None = None,
        steps: int | None = None,
        teams: int | None = None,
        edges: Edges = "",
        viewer: Viewer = who,
    ) -> HTMLResponse:
        viewer.require(Role.REFEREE)
        found = site.study(viewer, study)
        history = meter_history(site.open_sealed(), study=found.name, test_set_id=set_id, page=page, size=PAGE_SIZE)
        alerts = [alert for alert in open_alerts(site.open_store(), study=found.name) if _is_ours(alert)]
        asked = {"tolerance": tolerance, "reliability": reliability, "steps": steps, "teams": teams, "edges": edges}
        shown = {
            "study": found,
            "history": history,
            "picture": picture_of(history) if history["set"] else None,
            "alerts": alerts,
            "planned": _planned(_defaults(history) | {k: v for k, v in asked.items() if v not in (None, "")}),
            "page": page,
            "pages": max(1, -(-history["entry_count"] // PAGE_SIZE)),
            "reliabilities": RELIABILITIES,
            "most": {"steps": MOST_STEPS, "teams": MOST_TEAMS},
            "power": power_text,
        }
        return site.page(request, viewer, "meter.html", **shown)

    @router.post("/studies/{study}/meter/accept")
    def accept(
        request: Request, study: str, alert_id: Annotated[int, Form()], viewer: Viewer = who
    ) -> RedirectResponse:
        viewer.require(Role.REFEREE)
        found = site.study(viewer, study)
        store = site.open_store()
        if any(alert["alert_id"] == alert_id for alert in open_alerts(store, study=found.name)):  # else: done before
            clear_alert(store, study=found.name, alert_id=alert_id)
        return moved(request, f"{path_of_study(found.name)}/meter")

    return router


def _is_ours(alert: Mapping[str, Any]) -> bool:
    """Whether it is about the meter; one for a new gate set is the gate's."""
    return bool(alert["kind"] != AlertKind.NEW_TEST_SET or alert["purpose"] != SealedSetPurpose.GATE)


def _defaults(history: Mapping[str, Any]) -> dict[str, Any]:
    """What the study's meter set was planned for, within what the planner can be asked."""
    settings = history.get("settings")
    if settings is None:
        return dict(PLANNED)
    return {
        "tolerance": max(settings["tolerance"], 0.005),
        "reliability": settings["reliability"],
        "steps": min(settings["steps"], MOST_STEPS),
        "teams": min(settings["teams"], MOST_TEAMS),
        "edges": ", ".join(f"{edge:g}" for edge in settings["ranges"]),
    }


def _planned(asked: Mapping[str, Any]) -> Wanted:
    """The plan, or what is wrong with what was asked."""
    wanted = Wanted(**asked)
    try:
        ranges = tuple(float(part) for part in wanted.edges.split(","))
    except ValueError:
        return Wanted(**asked, problem="edges are numbers from -1 to 1 that rise, such as 0.05, 0.13, 0.25")
    try:
        plans = meter_plans(
            ranges=ranges,
            tolerance=wanted.tolerance,
            reliability=wanted.reliability,
            steps=wanted.steps,
            teams=wanted.teams,
        )
    except EasemlError as error:
        return Wanted(**asked, problem=str(error))
    return Wanted(**asked, plans=plans, picture=plan_picture(plans, steps=wanted.steps))
