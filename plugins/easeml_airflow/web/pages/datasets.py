"""The data of a study: versions, validation set, sealed sets, and what was fed. A referee has a separate page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Form, Request

from easeml_airflow.web.components.test_sets import acts_of, called, release_set, retire_set, track_of
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.formats import Mark
from easeml_airflow.web.server.site import Reason, Tab, moved, path_of_study
from easeml_core.entities import SealedSetState
from easeml_core.errors import StoreUnavailableError, counted
from easeml_core.meter.validation_set import ValidationState
from easeml_core.services.datasets.report import sealed_sets, study_data
from easeml_core.services.datasets.validation_sets import replace_validation
from easeml_core.services.test_sets.lifecycle import WHY
from easeml_core.settings.config import JointConfig, MeterConfig
from easeml_core.store.callers import because

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.server.site import Site
    from easeml_core.entities import Study
    from easeml_core.services.datasets.report import StudyData
    from easeml_core.services.test_sets.lifecycle import ShownSet
    from easeml_core.settings.config import SetConfig


VALIDATION = {
    ValidationState.FRESH: Mark("ok", "pass", "fresh"),
    ValidationState.USED: Mark("busy", "hour", "used"),
    ValidationState.WORN: Mark("bad", "alert", "worn"),
    ValidationState.REPLACED: Mark("idle", "swap", "replaced"),
}
"""How far a validation set is used up, as a shape, a colour and a word."""


@dataclass(frozen=True, slots=True)
class Life:
    """One sealed set.

    Attributes:
        id: Its number.
        name: What people call it.
        purpose: Who draws on it.
        state: Where in its life it is.
        track: All states with whether each was, is, or comes later.
        rows: Examples.
        answers: Answers it can give, by system: name, used, all; ``used`` is None where teams share it, since none may
            learn of another.
        why: Why it has ended; empty while it has not.
        acts: What a referee can do with it, as of ``acts_of``.
        facts: Of the services; the referee's have more.
    """

    id: int
    name: str
    purpose: str
    state: str
    track: Sequence[tuple[str, str]]
    rows: int
    answers: Sequence[tuple[str, int | None, int]]
    why: str
    acts: Sequence[tuple[str, str]]
    facts: ShownSet


def lives(sets: Iterable[ShownSet]) -> list[Life]:
    """The sets as the pages show them."""
    return [_life(one) for one in sets]


def _life(one: ShownSet) -> Life:
    teams = _teams(one.plan)
    answers = [
        (name, None if teams > 1 and name != "gate" else system.steps_used, system.steps)
        for name, system in one.systems.items()
    ]
    return Life(
        id=one.test_set_id,
        name=called(one.name, one.test_set_id),
        purpose="gate and meter" if one.purpose == "joint" else str(one.purpose),
        state=one.state,
        track=track_of(one.state),
        rows=one.rows,
        answers=answers,
        why=WHY.get(one.retired_why or "", ""),
        acts=acts_of(one.state, rows=one.rows, systems=one.systems),
        facts=one,
    )


def _teams(plan: SetConfig) -> int:
    """Teams that share the set's meter."""
    meter = plan.meter if isinstance(plan, JointConfig) else plan
    return meter.teams if isinstance(meter, MeterConfig) else 1


def split_of(split: str) -> str:
    """How the first version was split: rows of each part, and what was left out; empty while that is not known.

    Example:
        >>> split_of("study a is active; rows: train 300, gate 100; 2 rows repeat")
        'rows: train 300, gate 100; 2 rows repeat'
    """
    return split.partition("; ")[2] or split


def now_of(data: StudyData) -> tuple[str, str]:
    """What is going on with the data: the part in bold, then the rest."""
    if data.validation is None:
        return "No data yet.", "The referee splits and seals it, and this page tells of it then."
    live = sum(one.state == SealedSetState.LIVE for one in data.sets)
    waiting = sum(fed.rows for fed in data.feeds if fed.state == "waiting")
    rest = f"{counted(live, 'sealed set is', 'sealed sets are')} live."
    if waiting:
        rest += f" {counted(waiting, 'row that was fed waits', 'rows that were fed wait')} for the next refresh."
    return f"The validation set is {data.validation.state}.", rest


STUDY_TAB = Tab("/data", "Data")

Number = Annotated[int, Form()]


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/data``, and what a referee may do there."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/studies/{study}/data")
    def show(request: Request, study: str, viewer: Viewer = who) -> HTMLResponse:
        found = site.study(viewer, study)
        facts = study_data(site.open_store(), site.open_artifacts(), study=found.name)
        page = partial(
            site.page,
            request,
            viewer,
            study=found,
            data=facts,
            now=now_of(facts),
            problem=facts.problem,
            marks=VALIDATION,
            split=split_of((facts.validation and facts.validation.split) or ""),
        )
        if not viewer.is_referee:
            return page("data.html", sets=lives(facts.sets))
        try:
            sets = lives(sealed_sets(site.open_sealed(), study=found.name))
        except StoreUnavailableError as error:  # the public facts hold nevertheless
            problem = f"{error}; the facts below are public"
            return page("data.html", sets=lives(facts.sets), problem=problem)
        return page("data_referee.html", sets=sets)

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
