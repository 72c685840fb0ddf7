"""The meter of a study, for referees: how much is overfitted, what it has cost, and what the next set would need."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request

from easeml_airflow.web.components.action_items import accept_alert, meter_alerts
from easeml_airflow.web.components.charts import Axis, Band, Dot, Line, Note, Plot, nice_axis
from easeml_airflow.web.components.gauge import COLOURS, Gauge, gauge_of, short
from easeml_airflow.web.components.test_sets import called, ledger_file, whole_ledger
from easeml_airflow.web.pages.gate.planner import whose
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.formats import MINUS, signed
from easeml_airflow.web.server.site import Reason, Tab, moved, path_of_study
from easeml_core.entities import SealedSetPurpose, SealedSetState
from easeml_core.errors import EasemlError, NotFoundError, counted
from easeml_core.formats.encoding import row_of
from easeml_core.services.meter.results import MOST_ANSWERS, meter_history
from easeml_core.services.test_sets.lifecycle import WHY
from easeml_core.services.test_sets.planning import (
    AMBIGUOUS,
    ERROR_RATE,
    LEAST_TOLERANCE,
    MOST_STEPS,
    MOST_TEAMS,
    MeterPlans,
    meter_plans,
    needed_examples,
    set_settings,
    study_plan,
)
from easeml_core.settings.config import MeterConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi.responses import HTMLResponse, RedirectResponse, Response

    from easeml_airflow.web.components.action_items import AlertLine
    from easeml_airflow.web.server.site import Site
    from easeml_core.entities import Study
    from easeml_core.meter.planner import MeterPlan
    from easeml_core.services.meter.results import MeterAnswer, MeterHistory


TICKS = 9


@dataclass(frozen=True, slots=True)
class MeterPicture:
    """The live state of a meter set.

    Attributes:
        gauge: With a needle.
        signals: Measured gaps over submissions; None before the first.
        tolerances: What each answer was worth; None before the first.
        left: Submissions left; None where there is no last one, or the set has ended.
        last: The last answer with a signal; None before the first.
    """

    gauge: Gauge
    signals: Plot | None
    tolerances: Plot | None
    left: int | None
    last: MeterAnswer | None


def picture_of(history: MeterHistory) -> MeterPicture:
    """The pictures of a meter set."""
    settings, answers = history.settings, history.answers
    measured = [_Measured(answer, answer.signal, answer.gap or 0.0) for answer in answers if answer.signal is not None]
    last = measured[-1].answer if measured else None
    edges = (last.edges if last else None) or settings.ranges
    tolerance = (last.promised if last else None) or settings.tolerance
    gap = None if last is None else last.gap
    gauge = gauge_of(None if last is None else last.signal, edges, tolerance, measured=gap, sides=history.sides)
    used = answers[-1].step if answers else 0
    ends = not settings.open_ended and history.chosen.state == SealedSetState.LIVE
    return MeterPicture(
        gauge=gauge,
        signals=_signals(measured, settings, max(0, settings.steps - used) if ends else None) if measured else None,
        tolerances=_tolerances(measured, settings) if measured else None,
        left=max(0, settings.steps - used) if ends else None,
        last=last,
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """An answer with a signal, and the gap that was measured."""

    answer: MeterAnswer
    signal: int
    gap: float

    @property
    def step(self) -> int:
        return self.answer.step

    @property
    def tolerance(self) -> float:
        """0 where it is not known."""
        return self.answer.tolerance or 0.0

    @property
    def is_ambiguous(self) -> bool:
        """Whether other ranges could have been the answer."""
        return (self.answer.reachable or 1) > 1

    @property
    def title(self) -> str:
        more = f", {self.answer.reachable} answers possible" if self.is_ambiguous else ""
        reach = f" ± {self.tolerance:.4f}" if self.tolerance else ""
        return f"submission {self.step}: {signed(self.gap)}{reach}, signal {self.signal}{more}"


def finding_of(signals: Sequence[int]) -> str:
    """What a row of signals says, oldest first; there is at least one.

    Example:
        >>> finding_of([1] * 9 + [2] * 8 + [3, 3])
        'Overfitting left range 1 after submission 9 and range 2 after 17'
        >>> finding_of([1, 1, 1])
        'All 3 answers lie in range 1'
        >>> finding_of([1, 3, 1])
        'Overfitting is back in range 1; it was 3 at its worst'
    """
    now, worst = signals[-1], max(signals)
    if worst == now == min(signals):
        answers = "The one answer lies" if len(signals) == 1 else f"All {len(signals):,} answers lie"
        return f"{answers} in range {now}"
    if now < worst:
        return f"Overfitting is back in range {now}; it was {worst} at its worst"
    # Of ranges that were left at once, the last one is named.
    left = {
        max(t for t, s in enumerate(signals, start=1) if s <= crossed): crossed for crossed in range(min(signals), now)
    }
    first, *others = sorted(left.items())
    parts = [f"range {first[1]} after submission {first[0]}", *(f"range {r} after {t}" for t, r in others)]
    return "Overfitting left " + " and ".join(parts)


def _signals(measured: Sequence[_Measured], settings: MeterConfig, left: int | None) -> Plot:
    edges, tolerance = settings.ranges, settings.tolerance
    reach = [(a.step, a.gap - a.tolerance, a.gap + a.tolerance) for a in measured]
    low = min(0.0, edges[0] - 2 * tolerance, *(least for _, least, _ in reach))
    above = max(edges[-1] - edges[0], 4 * tolerance) / 3
    high = max(edges[-1] + above, *(most for _, _, most in reach))
    ticks = [(edge, short(edge)) for edge in edges] + ([] if 0.0 in edges else [(0.0, "0")])
    last = measured[-1].step
    x = _steps_axis(last if settings.open_ended else max(last, settings.steps))
    ranges = list(enumerate(pairwise([low, *edges, high]), start=1))
    title = finding_of([answer.signal for answer in measured])
    return Plot(
        title=title,
        sentence=f"Measured overfitting of {counted(len(measured), 'submission')} with tolerance, from "
        f"{signed(measured[0].gap)} to {signed(measured[-1].gap)}. {title}.",
        x=x,
        y=Axis(low, high, ticks, f"test loss {MINUS} validation loss"),
        bands=[_across(x, begin, end, f"z{min(n, COLOURS)}") for n, (begin, end) in ranges]
        + [_across(x, edge - tolerance, edge + tolerance, "tolb") for edge in edges],
        lines=[Line([(x.low, edge), (x.high, edge)], "ln thin dash k6") for edge in edges]
        + [Line([(step, least), (step, most)], "ln thin kf") for step, least, most in reach],
        marks=[(last + 0.5, "ln thin dot kf")] if left else [],
        dots=[Dot(a.step, a.gap, a.title, "hole kf" if a.is_ambiguous else "ff", 4) for a in measured],
        notes=[Note(x.high, sum(ends) / 2, f"signal {n}", "t0", "end", -8, 4) for n, ends in ranges]
        + ([Note(last + 0.5, high, f"{left} left", "h1 w", "start", 6, 14)] if left else []),
        height=226,
    )


def _across(x: Axis, low: float, high: float, look: str) -> Band:
    """A band over the whole width."""
    return Band([(x.low, low, high), (x.high, low, high)], look)


def _steps_axis(steps: int) -> Axis:
    every = max(1, math.ceil(steps / (TICKS - 1)))
    places = sorted({1, *range(every, steps + 1, every)})
    return Axis(0.3, steps + 0.7, [(place, f"{place:,}") for place in places], "submission")


def _tolerances(measured: Sequence[_Measured], settings: MeterConfig) -> Plot | None:
    limit, known = settings.tolerance, [answer for answer in measured if answer.tolerance]
    if not known:
        return None
    first, (last, now) = known[0].tolerance, (known[-1].step, known[-1].tolerance)
    points = [(answer.step, answer.tolerance) for answer in known]
    x = _steps_axis(max(last, settings.steps))
    title = f"The answers hold within {now:.4f}; {limit:g} was promised"
    if settings.method == "path-adaptive":
        ambiguous = sum(answer.is_ambiguous for answer in measured)
        title = f"{ambiguous} of {counted(settings.ambiguous, 'planned ambiguous answer')} used"
    return Plot(
        title=title,
        sentence=f"Tolerance of each answer: {first:.4f} at first, {now:.4f} now, limit {limit:.4f}.",
        x=x,
        y=nice_axis(
            [limit, *(tolerance for _, tolerance in points), 0.6 * limit, 1.15 * limit],
            title="tolerance of the answer",
            most=4,
        ),
        lines=[Line(points, "ln k1"), Line([(x.low, limit), (x.high, limit)], "ln thin dash k2")],
        dots=[Dot(a.step, a.tolerance, a.title, "hole k1", 3.5) for a in known if a.is_ambiguous]
        + [Dot(last, now, f"now {now:.4f}", "f1", 4)],
        notes=[
            Note(x.low, limit, f"retired above {limit:.4f}", "t0", "start", 4, -6),
            Note(last, now, f"now {now:.4f}", "t", "start", 8, 14),
        ],
        height=150,
    )


METHODS = {
    "path-adaptive": ("path-adaptive", "pays for ambiguous answers only"),
    "ratchet": ("ratchet", "signals only rise"),
    "deviations": ("3 deviations, then retired", ""),
    "multitenant": ("teams apart", "one tree each"),
    "pruned": ("pruned tree", "any developer, wide ranges"),
    "dithered": ("dithered edges", "equal ranges"),
    "exact-tree": ("exact tree", "any developer"),
    "full": ("full, m to the power T", "any developer"),
    "fresh": ("fresh set each time", "of all sets together"),
    "score": ("exact score shown", "what a leaderboard does"),
    "first-change": ("until the first change", "retired at the first signal above 1"),
    "non-adaptive": ("no reactions", "unsound once a signal is seen"),
}
"""What the planner calls each way to pay for reactions, and what to know of it."""

CUT = 4.5
"""A bar longer than so many times the median is cut, so that the others can be distinguished."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One way to plan: name, detail, labels, its bar in per cent, whether it is the one to take, and cut."""

    name: str
    detail: str
    labels: int
    share: float
    is_best: bool
    is_cut: bool


@dataclass(frozen=True, slots=True)
class PlanPicture:
    """The planner's answer: a finding, the bars, and where they are cut (0: nowhere)."""

    title: str
    bars: Sequence[Bar]
    cut_at: int


def plan_picture(plans: MeterPlans, *, steps: int) -> PlanPicture:
    """The planner's bars, cheapest first among those that are sound, the recommended one on top."""
    sound = [plan for plan in plans.others if plan.method != "non-adaptive"]
    sizes = sorted([plans.best.labels, *(plan.labels for plan in sound)])
    most, cut = sizes[-1], CUT * sizes[len(sizes) // 2]
    scale = most if most <= cut else max(size for size in sizes if size <= cut) * 1.15
    detail = f"recommended; error rate {ERROR_RATE:g}, {counted(AMBIGUOUS, 'ambiguous answer')}"
    first = _bar("path-adaptive, exact tails", detail, plans.best, scale, is_best=True)
    bars = [first, *(_bar(*METHODS[plan.method], plan, scale) for plan in sound)]
    dearest = max(sound, key=lambda plan: plan.labels)
    title = f"{counted(plans.best.labels, 'label serves', 'labels serve')} {counted(steps, 'submission')}"
    title += f"; {METHODS[dearest.method][0]} would need {dearest.labels:,}"
    return PlanPicture(title, bars, round(scale) if most > scale else 0)


def _bar(name: str, detail: str, plan: MeterPlan, scale: float, *, is_best: bool = False) -> Bar:
    share = round(min(100.0, 100 * plan.labels / scale), 2)
    return Bar(name, detail, plan.labels, share, is_best, plan.labels > scale)


_METER = SealedSetPurpose.METER
_ALERTS = ("budget", "overfitting_budget")
"""Settings that stay the study's: they raise alerts, and no set is larger by them."""

_needed = lru_cache(maxsize=256)(needed_examples)


@dataclass(frozen=True, slots=True)
class MeterCommands:
    """The plan on the command line.

    Attributes:
        size: Command that gives the planner's number.
        plan: Command that plans the set, with the settings in which it differs from the study's.
        seal: Command that seals examples under its name.
        examples: That a set so planned asks for: whatever the error rate of the models, so more than the planner's.
    """

    size: str
    plan: str
    seal: str
    examples: int


def meter_commands(
    study: Study, *, ranges: tuple[float, ...], tolerance: float, reliability: float, steps: int, teams: int
) -> MeterCommands:
    """The commands for a set like the one that the planner recommends: path-adaptive with exact tails."""
    wanted = MeterConfig(
        ranges=ranges, tolerance=tolerance, reliability=reliability, steps=steps, teams=teams, ambiguous=AMBIGUOUS
    ).to_json()
    own = study_plan(study.config, _METER).to_json()
    changes = {name: value for name, value in wanted.items() if name not in _ALERTS and value != own[name]}
    sized = f"--tolerance {tolerance:.12g} --reliability {reliability:.12g} --steps {steps} --teams {teams}"
    exact = f"--ambiguous {AMBIGUOUS} --tail {wanted['tail']} --error-rate {ERROR_RATE:g}"
    named = f"{whose(study.name)} --purpose meter"
    return MeterCommands(
        size=f"easeml meter plan --ranges={','.join(f'{edge:.12g}' for edge in ranges)} {sized} {exact}",
        plan=f"easeml test-set plan {named}{_meter(changes)}",
        seal=f"easeml test-set seal {named} --inputs new.csv --labels truth.csv",
        examples=_needed(set_settings(study, _METER, changes)[1]),
    )


def _meter(changes: dict[str, Any]) -> str:
    return f" --meter {shlex.quote(json.dumps(changes))}" if changes else ""


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
