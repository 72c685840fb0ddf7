"""The meter of a study, for referees: how much is overfitted, what it has cost, and what the next set would need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Form, Query, Request

from easeml_airflow.web.components.action_items import accept_alert, meter_alerts
from easeml_airflow.web.components.test_sets import called, ledger_file, whole_ledger
from easeml_airflow.web.pages.meter.planner import MeterCommands, PlanPicture, meter_commands, plan_picture
from easeml_airflow.web.pages.meter.view import picture_of
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Reason, Tab, moved, path_of_study
from easeml_core.encoding import row_of
from easeml_core.errors import EasemlError, NotFoundError
from easeml_core.services.meter.results import MOST_ANSWERS, meter_history
from easeml_core.services.test_sets.lifecycle import WHY
from easeml_core.services.test_sets.planning import (
    ERROR_RATE,
    LEAST_TOLERANCE,
    MOST_STEPS,
    MOST_TEAMS,
    MeterPlans,
    meter_plans,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi.responses import HTMLResponse, RedirectResponse, Response

    from easeml_airflow.web.components.action_items import AlertLine
    from easeml_airflow.web.pages.meter.view import MeterPicture
    from easeml_airflow.web.server.site import Site
    from easeml_core.entities import Study
    from easeml_core.services.meter.results import MeterAnswer, MeterHistory

STUDY_TAB = Tab("/meter", "Meter", frozenset({Role.REFEREE}))

PAGE_SIZE = 20
MOST_PAGES = 100_000
RELIABILITIES = (0.9, 0.95, 0.99, 0.999, 0.9999)

Edges = Annotated[str, Query(max_length=200)]


@dataclass(frozen=True, slots=True)
class PlanAsked:
    """What the planner is asked; ``edges`` as they were typed."""

    tolerance: float
    reliability: float
    steps: int
    teams: int
    edges: str


PLANNED = PlanAsked(tolerance=0.02, reliability=0.99, steps=32, teams=1, edges="0.05, 0.13, 0.25")
"""What the planner shows for a study without a meter set."""


@dataclass(frozen=True, slots=True)
class Wanted(PlanAsked):
    """What the planner is asked, and its answer or why there is none."""

    plans: MeterPlans | None = None
    picture: PlanPicture | None = None
    commands: MeterCommands | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows of a study; ``page`` and ``pages`` are those of the ledger."""

    study: Study
    history: MeterHistory | None
    picture: MeterPicture | None
    alerts: Sequence[AlertLine]
    planned: Wanted
    page: int
    pages: int


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
        begun = _defaults(history)
        asked = PlanAsked(
            tolerance=begun.tolerance if tolerance is None else tolerance,
            reliability=begun.reliability if reliability is None else reliability,
            steps=begun.steps if steps is None else steps,
            teams=begun.teams if teams is None else teams,
            edges=edges or begun.edges,
        )
        shown = Page(
            study=found,
            history=history,
            picture=None if history is None else picture_of(history),
            alerts=meter_alerts(site.open_store(), study=found.name),
            planned=_planned(asked, found),
            page=page,
            pages=1 if history is None else max(1, -(-history.entry_count // PAGE_SIZE)),
        )
        return site.page(
            request,
            viewer,
            "meter.html",
            **row_of(shown),
            reliabilities=RELIABILITIES,
            most_steps=MOST_STEPS,
            most_teams=MOST_TEAMS,
            error_rate=ERROR_RATE,
            ended=WHY,
            called=called,
        )

    @router.get("/studies/{study}/meter/ledger.csv")
    def ledger(study: str, set_id: Annotated[int, Query(alias="set")], viewer: Viewer = who) -> Response:
        viewer.require(Role.REFEREE)
        name = site.study(viewer, study).name

        def read(page: int) -> Sequence[MeterAnswer]:
            sealed = site.open_sealed()
            history = meter_history(sealed, study=name, test_set_id=set_id, page=page + 1, size=MOST_ANSWERS)
            if history is None or history.chosen.test_set_id != set_id:
                raise NotFoundError(kind="meter set", name=set_id, owner=f"study {name!r}")
            return history.entries

        return ledger_file(whole_ledger(read, size=MOST_ANSWERS), _COLUMNS, test_set=set_id)

    @router.post("/studies/{study}/meter/accept")
    def accept(
        request: Request, study: str, alert_id: Annotated[int, Form()], reason: Reason = "", viewer: Viewer = who
    ) -> RedirectResponse:
        viewer.require(Role.REFEREE)
        found = site.study(viewer, study)
        accept_alert(site.open_store(), study=found.name, alert_id=alert_id, reason=reason)
        return moved(request, f"{path_of_study(found.name)}/meter")

    return router


_SAME = ("system", "team", "model_id", "signal", "is_retired", "why", "gap", "tolerance", "reachable", "level")
_COLUMNS = {"step": "step"} | {name: name for name in _SAME}
_COLUMNS |= {"log_cost": "cost", "decided_at": "decided_at", "answered_at": "answered_at"}
"""Of the ledger as a file: headings, and the keys of the entries; what the gate's file has too is called alike."""


def _defaults(history: MeterHistory | None) -> PlanAsked:
    """What the study's meter set was planned for, within what the planner can be asked."""
    if history is None:
        return PLANNED
    settings = history.settings
    return PlanAsked(
        tolerance=max(settings.tolerance, LEAST_TOLERANCE),
        reliability=settings.reliability,
        steps=min(settings.steps, MOST_STEPS),
        teams=min(settings.teams, MOST_TEAMS),
        edges=", ".join(f"{edge:g}" for edge in settings.ranges),
    )


def _planned(asked: PlanAsked, study: Study) -> Wanted:
    """The plan, or what is wrong with what was asked."""
    given = row_of(asked)
    try:
        ranges = tuple(float(part) for part in asked.edges.split(","))
    except ValueError:
        return Wanted(**given, problem="edges are numbers from -1 to 1 that rise, such as 0.05, 0.13, 0.25")
    try:
        plans = meter_plans(
            ranges=ranges,
            tolerance=asked.tolerance,
            reliability=asked.reliability,
            steps=asked.steps,
            teams=asked.teams,
        )
        commands = meter_commands(
            study,
            ranges=ranges,
            tolerance=asked.tolerance,
            reliability=asked.reliability,
            steps=asked.steps,
            teams=asked.teams,
        )
    except EasemlError as error:
        return Wanted(**given, problem=str(error))
    return Wanted(**given, plans=plans, picture=plan_picture(plans, steps=asked.steps), commands=commands)
