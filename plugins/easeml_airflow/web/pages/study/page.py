"""The page of one study: its quality, its next trials and their value. For every user who may read the study.

What it shows are frozen values, made from the facts of services: nothing is decided here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request

from easeml_airflow.web.pages.study.plots import Forest, forest_of, plot_of
from easeml_airflow.web.pages.study.trials_table import TrialRow, cost_of, curves_text, rows_of
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.formats import (
    VERDICTS,
    Mark,
    chance_text,
    expected_text,
    mark_of,
    number_text,
    percent_text,
    quality_text,
    seconds_text,
    sentence_case,
    unit_of,
)
from easeml_airflow.web.server.site import Reason, Tab, moved, no_study, path_of_study
from easeml_core.entities import AlertKind, StudyState, TrialState
from easeml_core.errors import EasemlError, InvalidInputError, NotFoundError, counted
from easeml_core.services.registration.preview import match_of
from easeml_core.services.registration.register import pause_study
from easeml_core.services.reports.recommendations import StepKind, standing, why_nothing_runs
from easeml_core.services.reports.study import PAGE, study_of_trial, study_report
from easeml_core.services.studies.archive import archive_study, delete_study, restore_study, withdraw_candidate
from easeml_core.services.studies.candidates import add_candidates
from easeml_core.services.studies.limits import MOST_REASON, set_study
from easeml_core.services.trials.execution import cancel_trial
from easeml_core.store.callers import because

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.components.charts import Plot
    from easeml_airflow.web.server.site import Site
    from easeml_core.entities import Candidate, Parameters, Study, Task
    from easeml_core.services.reports.recommendations import Assessment
    from easeml_core.services.reports.study import StudyReport
    from easeml_core.services.selection.beliefs import Beliefs, Expected
    from easeml_core.store.queries.overview import StudySummary
    from easeml_core.store.queries.study import DataFacts, ListedTrial
    from easeml_core.store.tables.releases import Alert


TIMES = "\N{MULTIPLICATION SIGN}"

WHY = {
    "acquisition": "adds the most per device-second of everything that any study could run.",
    "guard": "is next: the study was served least, and is owed a trial.",
    "learning": "is next: it is the cheapest trial there is, and teaches what the others may bring.",
}


@dataclass(frozen=True, slots=True)
class NextTrial:
    """What would run next of the study, in words.

    Attributes:
        candidate: Its name.
        state: Whether it is the next of all, or waits for its turn.
        why: The rest of the sentence that begins with its name.
        pairs: Label, number and whether the number matters most.
        cost: Predicted device time; None where nothing was ever measured.
        gain: Expected gain, with its sign.
        price: Whether the search is worth it, and where it stands in the queue.
    """

    candidate: str
    state: Mark
    why: str
    pairs: Sequence[tuple[str, str, bool]]
    cost: str | None
    gain: str
    price: str


def next_trial_of(believed: Beliefs | None, study: Study) -> NextTrial | None:
    """What would run next, or None."""
    chosen = believed.next if believed else None
    if believed is None or chosen is None:
        return None
    first = believed.best <= 0
    cost = seconds_text(chosen.predicted_cost_seconds) if believed.costs_known else None
    gain = f"an expected {study.metric} of {chosen.mean:.4f}" if first else expected_text(chosen.expected_improvement)
    return NextTrial(
        candidate=chosen.candidate,
        state=Mark("busy", "queue", "Next of all") if believed.chosen_by else Mark("idle", "wait", "Waits its turn"),
        why=_why(believed),
        pairs=_pairs(believed, chosen, cost),
        cost=cost,
        gain=gain,
        price=f"{_price_text(believed, chosen)} {_place(believed)}".strip(),
    )


def _why(believed: Beliefs) -> str:
    if believed.chosen_by == "acquisition" and believed.policy != "default":
        return f"is what the policy {believed.policy} would run first."
    if believed.chosen_by == "acquisition" and not (believed.cost_aware and believed.costs_known):
        return "promises most of everything that any study could run."
    return WHY.get(believed.chosen_by or "", "is what the study would run in its turn.")


def _pairs(believed: Beliefs, chosen: Expected, cost: str | None) -> list[tuple[str, str, bool]]:
    size, per = unit_of(chosen.predicted_cost_seconds)
    pairs = [
        ("Expected quality, 80 %", f"{chosen.low:.4f} to {chosen.high:.4f}", False),
        ("Chance to beat the best", chance_text(chosen.chance) if believed.best > 0 else "no result yet", False),
        ("Expected gain", expected_text(chosen.expected_improvement), False),
        ("Predicted cost", cost or "nothing measured yet", False),
    ]
    if cost and believed.policy == "default":
        worth = number_text((size if believed.cost_aware else 1.0) * (chosen.acquisition or 0.0))
        gain = f"Gain per {per}" if believed.cost_aware else "Gain"
        pairs.append((f"{gain} {TIMES} weight {believed.weight:g}", worth, True))
        price = number_text(size * believed.price_per_second) if believed.price_per_second else "none set"
        pairs.append((f"Price of a {per}, in gain without weight", price, False))
    elif believed.policy != "default":
        pairs.append((f"Worth to the policy {believed.policy}", number_text(chosen.acquisition or 0.0), True))
    return pairs


def _price_text(believed: Beliefs, chosen: Expected) -> str:
    if believed.policy != "default":
        return ""
    if not believed.price_per_second:
        return "Compute has no price here, so the search goes on while anything may gain."
    times = chosen.expected_improvement / (believed.price_per_second * chosen.predicted_cost_seconds)
    if times < 1:
        return "With what it brings to studies that share it, it is worth the price, so the search goes on."
    return f"Without weight its gain is {times:.1f} times the price, so the search goes on."


def _place(believed: Beliefs) -> str:
    if believed.chosen_by and believed.competing == 1:
        return "It is the only candidate that could run now."
    rivals, among = counted(believed.competing, "candidate"), counted(believed.studies, "study", "studies")
    over = f"of {rivals} of {among} that could run now"
    if believed.chosen_by:
        return f"It is the first {over}."
    if believed.position is None:
        return "The policy chooses whose turn it is before it looks at candidates."
    return f"By its worth it is number {believed.position:,} {over}."


@dataclass(frozen=True, slots=True)
class Bar:
    """A number with a thin bar under it: what is used and what is due, in per cent of the bar."""

    number: str
    unit: str
    used: float | None = None
    due: float | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a form begins with: numbers and times as fields take them, empty for no limit."""

    weight: float
    priority: int
    budget_hours: str
    deadline: str
    target: str


@dataclass(frozen=True, slots=True)
class StudyPage:
    """All that the page says.

    Attributes:
        state: Of the study, as the overview tells it.
        alarms: What needs a person beside it, worst first.
        alerts: What open alerts say, results that did not hold first.
        waiting: What candidates wait for that no device can give them.
        now: What is going on: the part in bold, then the rest.
        metric: By which candidates are compared.
        best: Best quality, in words.
        best_of: Its candidate and trial; empty before the first.
        budget: Device time used, of the budget.
        share: Of the compute of the last day, against what is due.
        tried: Candidates that have ended, how many there are, and how they ended.
        verdict: The last one.
        signal: The last one, of how many; None before the first.
        plot: Quality over cost.
        next: What would run next; None where nothing would.
        why_nothing: Why nothing would.
        forest: What is believed of every candidate.
        under_way: The trial of the study that was chosen last and has not ended; None without one.
        trials: One page of them.
        curves: Ends of the scale of their learning curves; empty without any.
        pages: This page, the last one, and how many trials there are.
        candidates: All of them.
        data: The newest data; None before they are sealed.
        template: Which row of the table of templates the program matches, in words; empty where none is known.
        price: Whether a gain below the price of compute ends the search.
        limits: Weight, priority, budget, deadline, target: as they are set now.
    """

    state: Mark
    alarms: Sequence[Mark]
    alerts: Sequence[str]
    waiting: Sequence[str]
    now: tuple[str, str]
    metric: str
    best: str
    best_of: str
    best_trial: int | None
    budget: Bar
    share: Bar
    tried: tuple[int, int, str]
    verdict: Mark | None
    signal: tuple[int, int] | None
    plot: Plot
    next: NextTrial | None
    why_nothing: str
    forest: Forest
    under_way: ListedTrial | None
    trials: Sequence[TrialRow]
    curves: str
    pages: tuple[int, int, int]
    candidates: Sequence[Candidate]
    data: DataFacts | None
    template: str
    price: str
    limits: Limits


def page_of(report: StudyReport, *, page: int, all_candidates: bool, sort: str = "") -> StudyPage:
    """Return the page for a report of ``services.reports.study``."""
    study, facts, believed = report.study, report.facts, report.believed
    chosen = next_trial_of(believed, study)
    return StudyPage(
        state=_state(report.assessment),
        alarms=_alarms(report),
        alerts=[*_false_results(report), *(alert.message for alert in report.alerts)],
        waiting=report.waiting,
        now=(_best_sentence(report), _doing_sentence(report, chosen)),
        metric=study.metric,
        best=quality_text(facts.best_quality),
        best_of=facts.best_candidate or "",
        best_trial=facts.best_trial_id,
        budget=_budget(facts),
        share=_share(report),
        tried=(facts.trials + facts.failed + facts.cancelled, facts.candidates, _endings(facts)),
        verdict=None if facts.verdict is None else Mark(*VERDICTS[facts.verdict]),
        signal=None if facts.signal is None else (facts.signal, facts.signals or 0),
        plot=plot_of(report),
        next=chosen,
        why_nothing="" if chosen else _why_nothing(report),
        forest=forest_of(report, all_candidates=all_candidates, sort=sort),
        under_way=max(report.open, key=lambda trial: trial.trial_id, default=None),
        trials=rows_of(report.trials, best=facts.best_trial_id),
        curves=curves_text(report.trials),
        pages=(page, max(1, -(-facts.all_trials // PAGE)), facts.all_trials),
        candidates=report.candidates,
        data=report.data,
        template=template_of(study.program, study.task) if study.program else "",
        price=_price(report.policy, report.price_per_second),
        limits=_limits(study, facts.weight),
    )


def _state(found: Assessment) -> Mark:
    """Return where the search stands; what needs a person beside that is an alarm."""
    return mark_of(found.search, standing(found.search))


def _alarms(report: StudyReport) -> list[Mark]:
    """Return what needs a person beside the state, worst first; an alert with its number."""
    found, assessment = _alarm(report.alerts), report.assessment
    first = assessment.steps[0]
    is_beside = first.needs_a_person and first not in assessment.search
    is_named = found is not None and first.kind in (StepKind.OVERFITTING, StepKind.DRIFT)
    need = mark_of(assessment.steps, assessment.standing) if is_beside and not is_named else None
    return [mark for mark in (need, found) if mark is not None]


def _false_results(report: StudyReport) -> list[str]:
    """Return a sentence on results that did not hold and that no operator has acknowledged, if there are any."""
    found = (step for step in report.assessment.steps if step.kind is StepKind.NOT_HELD)
    return [f"{sentence_case(step.title)}: {step.why}. To acknowledge: `{step.command}`" for step in found]


def _alarm(alerts: Sequence[Alert]) -> Mark | None:
    for alert in alerts:
        if alert.kind == AlertKind.OVERFITTING:
            return Mark("bad", "alert", f"Overfitting: signal {alert.signal} of {alert.signals}")
        if alert.kind == AlertKind.DRIFT:
            return Mark("warn", "alert", "Validation and test data differ")
    return None


def _best_sentence(report: StudyReport) -> str:
    best, before = report.facts.best_quality, report.facts.best_quality_day_ago
    if best is None:
        return "No result yet."
    gain = report.assessment.rise or 0.0
    risen = f", up {gain:.4f} in a day" if gain > 0 else "" if before is None else ", as a day ago"
    return f"Best so far {best:.4f} {report.study.metric}{risen}."


def _doing_sentence(report: StudyReport, chosen: NextTrial | None) -> str:
    running = [trial for trial in report.open if trial.state == TrialState.RUNNING]
    parts = []
    if running:
        more = f" and {len(running) - 1} more" if len(running) > 1 else ""
        cost = cost_of(running[0], running[0].predicted_seconds)
        parts.append(f"Running: {running[0].candidate}{more}, {cost}.")
    if chosen:
        cost = "an unknown cost" if chosen.cost is None else f"{chosen.cost} of a device"
        parts.append(f"Next: {chosen.candidate}, worth {chosen.gain} for {cost}.")
    return " ".join(parts)


def _budget(facts: StudySummary) -> Bar:
    used, budget = facts.device_seconds, facts.budget_seconds
    number, unit = seconds_text(used).split(" ")
    if budget is None:
        return Bar(number, f"{unit} used, no budget")
    share = 100 * used / budget
    label = f"{share:.0f} % of the budget used"
    return Bar(number, f"{unit} of {seconds_text(budget)}", round(share, 2), label=label)


def _share(report: StudyReport) -> Bar:
    """Return the bar of the compute; it ends a quarter beyond the larger of both."""
    used, due = report.used_share, report.due_share
    number = "none" if used is None else percent_text(used)
    unit = "used, nothing is due" if due is None else f"of {percent_text(due)} due"
    end = 1.25 * max(used or 0.0, due or 0.0) or 1.0
    tick = None if due is None else round(100 * due / end, 2)
    label = f"{number} used" + ("" if due is None else f", {percent_text(due)} due")
    return Bar(number, unit, round(100 * (used or 0.0) / end, 2), tick, label)


def _endings(facts: StudySummary) -> str:
    counts = {"succeeded": facts.trials, "failed": facts.failed, "cancelled": facts.cancelled}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "none has ended"


def _why_nothing(report: StudyReport) -> str:
    if report.believed is None and report.study.state == StudyState.ACTIVE:
        return "What comes next is being worked out; look again in a moment."
    return why_nothing_runs(report.facts)


@lru_cache(maxsize=256)
def template_of(program: str, task: Task) -> str:
    """Return which template a program matches today, and what that is for; empty where none does."""
    try:
        found = match_of(program, task=str(task))
    except EasemlError:
        return ""
    work = " or ".join(found.work)
    return "" if found.template is None else f"The program matches template {found.template}, {work}."


def _price(policy: str, per_second: float) -> str:
    if policy != "default":
        return f"no, the policy is {policy}"
    return f"yes, {number_text(3600 * per_second)} a device-hour" if per_second else "no price is set"


def _limits(study: Study, weight: float) -> Limits:
    return Limits(
        weight=weight,
        priority=study.priority,
        budget_hours="" if study.budget_seconds is None else repr(study.budget_seconds / 3600),
        deadline="" if study.deadline is None else study.deadline.astimezone(UTC).strftime("%Y-%m-%dT%H:%M"),
        target="" if study.target_quality is None else repr(study.target_quality),
    )


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
    """Return the parameters of a candidate from a form; empty for none."""
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
