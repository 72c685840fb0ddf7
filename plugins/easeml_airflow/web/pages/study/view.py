"""What the page of a study shows, as frozen values: made from the facts of services, nothing is decided here.

What would run next of a study, and why, in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.pages.overview.view import mark_of
from easeml_airflow.web.pages.study.forest_plot import Forest, forest_of
from easeml_airflow.web.pages.study.quality_plot import plot_of
from easeml_airflow.web.pages.study.trials_table import TrialRow, cost_of, curves_text, rows_of
from easeml_airflow.web.server.formats import (
    chance_text,
    expected_text,
    number_text,
    percent_text,
    quality_text,
    seconds_text,
    unit_of,
)
from easeml_airflow.web.server.marks import VERDICTS, Mark
from easeml_core.entities import AlertKind, StudyState, Symbol
from easeml_core.errors import EasemlError, counted
from easeml_core.services.registration.preview import match_of
from easeml_core.services.reports.overview import standing
from easeml_core.services.reports.recommendations import StepKind
from easeml_core.services.reports.study import PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_airflow.web.components.charts import Plot
    from easeml_core.config import SelectionConfig
    from easeml_core.services.selection.beliefs import Beliefs, Expected


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


def next_trial_of(believed: Beliefs | None, study: Any) -> NextTrial | None:
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
    rivals, among = counted(believed.competing, "candidate"), counted(believed.studies, "study", "studies")
    over = f"of {rivals} of {among} that could run now"
    if believed.chosen_by:
        return f"It is the first {over}."
    if believed.position is None:
        return "The policy chooses whose turn it is before it looks at candidates."
    return f"By its worth it is number {believed.position:,} {over}."


ENDS_THE_SEARCH = (StepKind.REFUSED, StepKind.BUDGET)
"""Needs that say where the search stands; every other need stands beside that."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A number with a thin bar under it: what is used and what is due, in per cent of the bar."""

    number: str
    unit: str
    used: float | None = None
    due: float | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class StudyPage:
    """All that the page says.

    Attributes:
        state: Of the study, as the overview tells it.
        alarms: What needs a person beside it, worst first.
        alerts: What open alerts say.
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
    under_way: Mapping[str, Any] | None
    trials: Sequence[TrialRow]
    curves: str
    pages: tuple[int, int, int]
    candidates: Sequence[Any]
    data: Mapping[str, Any] | None
    template: str
    price: str
    limits: Mapping[str, Any]


def page_of(
    facts: Mapping[str, Any],
    believed: Beliefs | None,
    stands: Mapping[str, Any],
    *,
    page: int,
    all_candidates: bool,
    sort: str = "",
) -> StudyPage:
    """The page for the facts of ``services.study_facts`` and ``services.beliefs``.

    Args:
        facts: As of ``facts_of_study``.
        believed: As of ``beliefs``; None where nothing is predicted now.
        stands: As of ``services.overview.standing_of``.
        page: Which page of the trials.
        all_candidates: Whether all candidates are shown, or the dozen that matters.
        sort: One of ``study_forest.SORTS``, by which candidates are sorted; anything else for their turn.
    """
    study, counts, best = facts["study"], facts["counts"], facts["best"]
    ended = sum(counts[kind] for kind in ("succeeded", "failed", "cancelled"))
    chosen = next_trial_of(believed, study)
    state, need = _marks(stands)
    return StudyPage(
        state=state,
        alarms=_alarms(facts, stands, need),
        alerts=[alert["message"] for alert in facts["alerts"]],
        waiting=facts["waiting"],
        now=(_best_sentence(facts), _doing_sentence(facts, chosen)),
        metric=study.metric,
        best=quality_text(best["quality"] if best else None),
        best_of=best["candidate"] if best else "",
        best_trial=best["trial_id"] if best else None,
        budget=_budget(study, counts),
        share=_share(facts),
        tried=(ended, counts["candidates"], _endings(counts)),
        verdict=None if facts["verdict"] is None else Mark(*VERDICTS[Symbol(facts["verdict"])]),
        signal=None if facts["signal"] is None else (facts["signal"], facts["signals"]),
        plot=plot_of(facts),
        next=chosen,
        why_nothing="" if chosen else _why_nothing(facts, believed, ended),
        forest=forest_of(facts, believed, all_candidates=all_candidates, sort=sort),
        under_way=max(facts["open"], key=lambda trial: trial["trial_id"], default=None),
        trials=rows_of(facts),
        curves=curves_text(facts),
        pages=(page, max(1, -(-counts["trials"] // PAGE)), counts["trials"]),
        candidates=facts["candidates"],
        data=facts["data"],
        template=template_of(study.program, str(study.task)) if study.program else "",
        price=_price(facts["settings"]),
        limits=_limits(facts),
    )


def _marks(stands: Mapping[str, Any]) -> tuple[Mark, Mark | None]:
    """The state, and beside it what needs a person: the overview has room for one of both, by the same function."""
    steps = stands["steps"]
    needs = [step for step in steps if step.needs_a_person]
    ends = [step for step in needs if step.kind in ENDS_THE_SEARCH]
    rest = ends or [step for step in steps if not step.needs_a_person]
    state = mark_of({"steps": rest or steps, "standing": standing(rest or steps)})
    return state, None if not needs or needs[0] in (rest or steps) else mark_of(stands)


def _alarms(facts: Mapping[str, Any], stands: Mapping[str, Any], need: Mark | None) -> list[Mark]:
    """What needs a person, worst first; an alert tells it with its number."""
    found = _alarm(facts["alerts"])
    is_told = found is not None and stands["steps"][0].kind in (StepKind.OVERFITTING, StepKind.DRIFT)
    return [mark for mark in (None if is_told else need, found) if mark is not None]


def _alarm(alerts: Sequence[Mapping[str, Any]]) -> Mark | None:
    for alert in alerts:
        if alert["kind"] == AlertKind.OVERFITTING:
            return Mark("bad", "alert", f"Overfitting: signal {alert['signal']} of {alert['signals']}")
        if alert["kind"] == AlertKind.DRIFT:
            return Mark("warn", "alert", "Validation and test data differ")
    return None


def _best_sentence(facts: Mapping[str, Any]) -> str:
    best, before = facts["best"], facts["best_before"]
    if best is None:
        return "No result yet."
    gain = best["quality"] - before["quality"] if before else 0.0
    risen = f", up {gain:.4f} in a day" if gain > 0 else ", as a day ago" if before else ""
    return f"Best so far {best['quality']:.4f} {facts['study'].metric}{risen}."


def _doing_sentence(facts: Mapping[str, Any], chosen: NextTrial | None) -> str:
    running = [trial for trial in facts["open"] if trial["state"] == "RUNNING"]
    parts = []
    if running:
        more = f" and {len(running) - 1} more" if len(running) > 1 else ""
        parts.append(f"Running: {running[0]['candidate']}{more}, {cost_of(running[0])}.")
    if chosen:
        cost = "an unknown cost" if chosen.cost is None else f"{chosen.cost} of a device"
        parts.append(f"Next: {chosen.candidate}, worth {chosen.gain} for {cost}.")
    return " ".join(parts)


def _budget(study: Any, counts: Mapping[str, Any]) -> Bar:
    used, budget = counts["used_seconds"], study.budget_seconds
    number, unit = seconds_text(used).split(" ")
    if budget is None:
        return Bar(number, f"{unit} used, no budget")
    share = 100 * used / budget
    label = f"{share:.0f} % of the budget used"
    return Bar(number, f"{unit} of {seconds_text(budget)}", round(share, 2), label=label)


def _share(facts: Mapping[str, Any]) -> Bar:
    """The bar ends a quarter beyond the larger of both."""
    used, due = facts["shares"]["used"], facts["shares"]["due"]
    number = "none" if used is None else percent_text(used)
    unit = "used, nothing is due" if due is None else f"of {percent_text(due)} due"
    end = 1.25 * max(used or 0.0, due or 0.0) or 1.0
    tick = None if due is None else round(100 * due / end, 2)
    label = f"{number} used" + ("" if due is None else f", {percent_text(due)} due")
    return Bar(number, unit, round(100 * (used or 0.0) / end, 2), tick, label)


def _endings(counts: Mapping[str, Any]) -> str:
    told = [f"{counts[kind]} {kind}" for kind in ("succeeded", "failed", "cancelled") if counts[kind]]
    return ", ".join(told) or "none has ended"


def _why_nothing(facts: Mapping[str, Any], believed: Beliefs | None, ended: int) -> str:
    study, counts, best = facts["study"], facts["counts"], facts["best"]
    under_way = counts["running"] + counts["waiting"]
    reasons = (
        (study.state == StudyState.PAUSED, "The study is paused: it gets no trial until it is resumed."),
        (
            study.state == StudyState.REGISTERED,
            "The referee is splitting and sealing its data; then the search begins.",
        ),
        (study.state == StudyState.REFUSED, "The study was refused; register it again with what its answer says."),
        (believed is None, "What comes next is being worked out; look again in a moment."),
        (
            study.target_quality is not None and best is not None and best["quality"] >= study.target_quality,
            "Its target quality is reached.",
        ),
        (
            study.seconds_left is not None and study.seconds_left <= 0,
            "Its deadline has passed; a later one lets it go on.",
        ),
        (ended >= counts["candidates"], "Every candidate has run on the present data."),
        (ended + under_way >= counts["candidates"], "Every candidate that is left is under way."),
    )
    limit = "A limit holds what is left: the budget, its tenant's quota, or the price of compute."
    return next((text for holds, text in reasons if holds), limit)


@lru_cache(maxsize=256)
def template_of(program: str, task: str) -> str:
    """Which template a program matches today, and what that is for; empty where none does, or that cannot be told."""
    try:
        found = match_of(program, task=task)
    except EasemlError:
        return ""
    work = " or ".join(found["work"])
    return "" if found["template"] is None else f"The program matches template {found['template']}, {work}."


def _price(settings: SelectionConfig) -> str:
    if settings.policy != "default":
        return f"no, the policy is {settings.policy}"
    price = settings.price_per_second
    return f"yes, {number_text(3600 * price)} a device-hour" if price else "no price is set"


def _limits(facts: Mapping[str, Any]) -> dict[str, Any]:
    study = facts["study"]
    return {
        "weight": facts["own_weight"],
        "priority": study.priority,
        "budget_hours": "" if study.budget_seconds is None else repr(study.budget_seconds / 3600),
        "deadline": "" if study.deadline is None else study.deadline.astimezone(UTC).strftime("%Y-%m-%dT%H:%M"),
        "target": "" if study.target_quality is None else repr(study.target_quality),
    }
