"""The page of a decision: why this trial and not another, what would have changed it, and how it turned out.

The extra link of a trial's task leads here. The name of a runner-up is shown to viewers who may see its study.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

import attrs
from fastapi import APIRouter, Depends, HTTPException, Request

from easeml_airflow.web.components.action_items import visible
from easeml_airflow.web.components.charts import Axis, Band, Dot, Line, Note, Plot, nice_axis
from easeml_airflow.web.pages.study.page import Bar
from easeml_airflow.web.pages.study.trials_table import cost_of, log_of, state_of, why_of
from easeml_airflow.web.server.airflow_runs import run_address
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.formats import (
    chance_text,
    expected_text,
    gain_text,
    number_text,
    percent_text,
    quality_text,
    seconds_text,
    unit_of,
)
from easeml_airflow.web.server.site import moved, path_of_study
from easeml_core.errors import counted
from easeml_core.selection.suggestion import OF_OTHER_TENANT
from easeml_core.selection.surrogate.logit_normal import band, chance_above, density
from easeml_core.services.reports.decision import explain_trial
from easeml_core.services.reports.study import facts_of_decision, guard_of_day, study_of_trial
from easeml_core.services.trials.rungs import sentence_of
from easeml_core.settings.config import SelectionConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.server.formats import Mark
    from easeml_airflow.web.server.site import Site
    from easeml_core.entities import JsonObject, Study
    from easeml_core.services.reports.decision import Chosen, HandedOut, TrialEnding, TrialExplanation
    from easeml_core.services.reports.study import DecisionFacts, GuardReport
    from easeml_core.store.queries.study import KnownThen, StudyTrial


def belief_plot(chosen: Chosen, study: Study, outcome: TrialEnding) -> Plot | None:
    """The density, what of it lies above the best so far, and what was reached; None where there was no doubt."""
    curve = density(chosen.mean, chosen.std)
    if not curve:
        return None
    best, reached = chosen.best, outcome.quality
    ends = [curve[0][0], curve[-1][0], *([best] if best else []), *([reached] if reached is not None else [])]
    x = nice_axis(ends, title=f"{study.metric} on validation data", most=5)
    above = [(place, 0.0, height) for place, height in curve if best and place >= best]
    marks = [(chosen.mean, "ln thin k1"), *([(best, "ln thin dash kf")] if best else [])]
    beside, other = (("end", -8), ("start", 8))[:: 1 if (best or 0.0) > chosen.mean else -1]
    notes = [Note(chosen.mean, 1.0, f"mean {chosen.mean:.4f}", "t", *beside, -4, free=True)]
    if best:
        notes.append(Note(best, 1.2, f"best {best:.4f}", "t", *other, 8, free=True))
    dots = [] if reached is None else [Dot(reached, 0.0, f"it reached {reached:.4f}", "f1")]
    if reached is not None:
        notes.append(Note(reached, 0.0, f"reached {reached:.4f}", "h w", "middle", 0, -10, free=True))
    chance = f", {chance_text(chance_above(best, chosen.mean, chosen.std))} chance to beat it" if best else ""
    sentence = f"Belief before it ran: mean {chosen.mean:.4f}, best so far {quality_text(best or None)}{chance}."
    bands = [Band(above, "a3")] if len(above) > 1 else []
    title = "What was believed about it before it ran"
    y = Axis(0.0, 1.25)
    return Plot(title, sentence, x, y, bands, [Line(curve)], marks, dots, notes, height=190)


def curve_plot(facts: DecisionFacts, chosen: Chosen | None, study: Study) -> Plot | None:
    """Quality over the share of the steps, with the best so far; None where no quality was reported."""
    curve = [(100 * share, quality) for share, quality in facts.trial.learning_curve]
    if not curve:
        return None
    best = (chosen.best if chosen else None) or facts.best_before
    y = nice_axis([q for _, q in curve] + ([best] if best else []), title=study.metric)
    x = nice_axis([0.0, 100.0], title="% of its steps")
    lines = [Line(curve), *([Line([(0.0, best), (100.0, best)], "ln thin dash kf")] if best else [])]
    at, reached = curve[-1]
    title = f"What it told while it trained: {reached:.4f} after {at:.0f} % of its steps"
    note = Note(at, reached, f"{reached:.4f}", "t", "end", -8, 18, free=True)
    sentence = f"Learning curve of trial {facts.trial.trial_id}: {reached:.4f} after {at:.0f} per cent of its steps."
    return Plot(title, sentence, x, y, lines=lines, dots=[Dot(at, reached, f"{reached:.4f}")], notes=[note], height=150)


def guard_of(chosen: Chosen, day: GuardReport) -> list[tuple[str, str]]:
    """The guard's part in this pick, and in the last day; empty where another policy than ``default`` chose."""
    if chosen.policy != "default":
        return []
    came = {"guard": "from the guard", "learning": "from the share for cheap lessons"}
    pairs = [
        ("This pick came", came.get(chosen.chosen_by, "from the rule above")),
        ("Promised to the least served", f"{percent_text(chosen.guard or 0.0)} of compute"),
    ]
    if day.used is None:
        return [*pairs, ("Used in the last 24 h", "nothing ran")]
    pairs.append(("Used in the last 24 h", f"{percent_text(day.used)} of compute"))
    if day.least is not None:
        among = "" if day.is_all else ", of those you see"
        share = f"{day.least}, {100 * (day.of_due or 0.0):.0f} % of its due share"
        pairs.append((f"Least served in the last 24 h{among}", share))
    return pairs


def guard_bar(chosen: Chosen, day: GuardReport) -> Bar | None:
    """The bar ends a quarter beyond the larger of both."""
    used, promised = day.used, chosen.guard or 0.0
    if chosen.policy != "default" or used is None:
        return None
    end = 1.25 * max(used, promised) or 1.0
    label = f"The guard used {percent_text(used)} of compute in the last 24 h, {percent_text(promised)} promised"
    return Bar(percent_text(used), "of compute", round(100 * used / end, 2), round(100 * promised / end, 2), label)


def cost_pairs(chosen: Chosen | None, trial: StudyTrial, outcome: TrialEnding) -> list[tuple[str, str]]:
    """Predicted and measured cost."""
    known = chosen is not None and chosen.predicted_cost_seconds != 1.0
    pairs = [("Predicted", seconds_text(chosen.predicted_cost_seconds) if chosen and known else "nothing measured yet")]
    if chosen and known and (ends := chosen.predicted_cost_interval_seconds):
        pairs.append(("80 % expected between", " and ".join(seconds_text(end) for end in ends)))
    pairs.append(("Measured" if trial.finished_at else "So far", cost_of(trial, trial.predicted_seconds)))
    if known and outcome.cost_ratio is not None:
        pairs.append(("Measured over predicted", f"{outcome.cost_ratio:.2f}"))
    return pairs


def observed(known: KnownThen | None, chosen: Chosen | None) -> list[tuple[str, str]]:
    """Counts of the trials on which the choice rested, as of the decision."""
    if known is None or chosen is None:
        return []
    failed = f", {known.failed} failed" if known.failed else ""
    at_mean = chosen.policy == "default" and chosen.settings.get("believe")
    return [
        ("Observations of this study", f"{known.succeeded} succeeded{failed}"),
        (f"Under way in this study{', counted at their mean' if at_mean else ''}", counted(known.own_open, "trial")),
        ("Under way in all studies", counted(known.open, "trial")),
        ("Not eligible in this study", f"{counted(known.taken, 'candidate')} run or under way"),
    ]


def settings_of(explained: TrialExplanation, batch: HandedOut | None) -> list[tuple[str, str]]:
    """Policy, place in the batch, and settings that are not the program's own; empty where no batch is stored."""
    if batch is None:
        return []
    place = f"{batch.position + 1} of {counted(batch.requested, 'trial')} asked for"
    times = len(explained.batches)
    pairs = [("Policy", batch.policy), ("Place in its batch", place)]
    pairs.append(("Settings", "the program's own" if batch.settings_id is None else f"number {batch.settings_id}"))
    pairs += [(name, value) for name, value in _other_settings(batch.settings)]
    return pairs + ([("Handed out", f"{times} times")] if times > 1 else [])


def _other_settings(settings: JsonObject) -> list[tuple[str, str]]:
    """What differs from the program's own settings, the policy apart."""
    own = SelectionConfig().to_json()
    names = [f.name for f in attrs.fields(SelectionConfig) if f.name not in ("policy", "order")]
    return [(name, str(settings[name])) for name in names if name in settings and settings[name] != own[name]]


CHOSEN = {
    "acquisition": "because a device-second adds most there",
    "guard": "because it was served least and was owed a trial",
    "learning": "because a cheap trial teaches what the others may bring",
}
"""Why, in the sentence of the default policy."""

UNSEEN = "a study that you may not see"

TIE = 0.999
"""A runner-up of more than this share of the worth was worth about as much: pages tell no finer numbers."""


@dataclass(frozen=True, slots=True)
class Rival:
    """The runner-up, as it was stored.

    Attributes:
        study: Its study; ``UNSEEN`` where the viewer may not see it.
        candidate: Its candidate; empty where the viewer may not see its study.
        worth: Its worth to the policy, as text.
        share: The same in per cent of the worth of what was chosen.
        is_better: Whether its worth is above that of what was chosen.
    """

    study: str
    candidate: str
    worth: str
    share: float
    is_better: bool


@dataclass(frozen=True, slots=True)
class DecisionPage:
    """All that the page says.

    Attributes:
        trial_id: Number of the trial.
        candidate: Which one it trains.
        state: As a shape, a colour and a word.
        now: Why, in one sentence: the part in bold, then the rest.
        why_none: Why no numbers are stored; empty where they are.
        formula: Weight, gain, cost and their result: label, number; empty where costs were not known.
        belief: What was believed of its quality; None without numbers.
        believed: The same in words.
        compared: Its worth to the policy, and the runner-up's.
        guard: The guard and this pick, and the guard in the last day.
        guard_bar: What it used of all compute in that day, against what is promised; None where nothing ran.
        cost: Predicted and measured cost.
        changed: What would have changed the choice.
        outcome: How it turned out.
        curve: Its learning curve; None without one.
        rungs: What was decided at its rungs.
        known: What had been observed, policy, settings and batch.
        log: Address and word of its log; None where it is not known.
        run: Address of the run that asked for it.
    """

    trial_id: int
    candidate: str
    state: Mark
    now: tuple[str, str]
    why_none: str
    formula: Sequence[tuple[str, str]]
    belief: Plot | None
    believed: Sequence[tuple[str, str]]
    compared: Sequence[tuple[str, str]]
    guard: Sequence[tuple[str, str]]
    guard_bar: Bar | None
    cost: Sequence[tuple[str, str]]
    changed: Sequence[tuple[str, str]]
    outcome: Sequence[tuple[str, str]]
    curve: Plot | None
    rungs: Sequence[str]
    known: Sequence[tuple[str, str]]
    asked_at: datetime | None
    log: tuple[str, str] | None
    run: str | None


def page_of(
    explained: TrialExplanation,
    facts: DecisionFacts,
    guard: GuardReport,
    *,
    study: Study,
    sees: Callable[[str], bool],
) -> DecisionPage:
    """The page."""
    trial, outcome = facts.trial, explained.outcome
    chosen = explained.chosen
    batch = chosen or next(reversed(explained.batches), None)
    rival = None if chosen is None else rival_of(chosen, sees)
    log = log_of(trial)
    return DecisionPage(
        trial_id=explained.trial_id,
        candidate=explained.candidate,
        state=state_of(trial),
        now=_now(chosen, study, explained, rival),
        why_none="" if chosen else _why_none(trial),
        formula=_formula(chosen, study) if chosen else (),
        belief=belief_plot(chosen, study, outcome) if chosen else None,
        believed=_believed(chosen) if chosen else (),
        compared=_compared(chosen, rival) if chosen else (),
        guard=guard_of(chosen, guard) if chosen else (),
        guard_bar=guard_bar(chosen, guard) if chosen else None,
        cost=cost_pairs(chosen, trial, outcome),
        changed=_changed(chosen, rival) if chosen else (),
        outcome=_outcome(outcome, trial),
        curve=curve_plot(facts, chosen, study),
        rungs=[f"It {sentence_of(decided)}." for decided in explained.rungs],
        known=[*observed(facts.known, chosen), *settings_of(explained, batch)],
        asked_at=None if batch is None else datetime.fromisoformat(batch.suggested_at),
        log=None if log[0] is None or log[1] != "Log" else (log[0], log[1]),
        run=run_address(trial.batch_key),
    )


def is_priced(chosen: Chosen) -> bool:
    """Whether a cost was predicted; 1 stands for all while no cost was ever measured."""
    return bool(chosen.policy == "default" and chosen.predicted_cost_seconds != 1.0)


def is_rate(chosen: Chosen) -> bool:
    """Whether the policy's worth is a gain per second: a cost was predicted, and the settings are cost-aware."""
    return is_priced(chosen) and bool(chosen.settings["cost_aware"])


def worth_text(chosen: Chosen, acquisition: float) -> str:
    """A worth to the policy; a rate is per the unit in which the predicted cost is shown."""
    if not is_rate(chosen):
        return number_text(acquisition)
    return number_text(unit_of(chosen.predicted_cost_seconds)[0] * acquisition)


def rival_of(chosen: Chosen, sees: Callable[[str], bool]) -> Rival | None:
    """The runner-up; None where no other candidate was left."""
    found = chosen.runner_up
    if found is None:
        return None
    may = sees(found.study or "")
    worth, own = found.acquisition, chosen.acquisition
    return Rival(
        study=found.study or "" if may else UNSEEN,
        candidate=found.candidate or "" if may else "",
        worth=worth_text(chosen, worth),
        share=100 * worth / own if own > 0 else 100.0,
        is_better=worth > own,
    )


def _compared(chosen: Chosen, rival: Rival | None) -> list[tuple[str, str]]:
    per = f" per {unit_of(chosen.predicted_cost_seconds)[1]}" if is_rate(chosen) else ""
    what = f"Weighted gain{per}" if chosen.policy == "default" else "Worth to the policy"
    pairs = [(what, worth_text(chosen, chosen.acquisition))]
    if rival is not None:
        pairs.append((f"Runner-up, {rival.study} {rival.candidate}".strip(), rival.worth))
    return pairs


def _now(chosen: Chosen | None, study: Study, explained: TrialExplanation, rival: Rival | None) -> tuple[str, str]:
    subject = f"{study.tenant} trains {explained.candidate}"
    if chosen is None:
        return f"{subject}.", ""
    if chosen.instead_of:
        why = f"because the default policy chose it, since {chosen.instead_of}"
    elif chosen.policy != "default":
        why = f"because the policy {chosen.policy} chose it"
    elif chosen.chosen_by == "acquisition" and not is_rate(chosen):
        why = "because nothing else promises more" + ("" if is_priced(chosen) else ", while no cost is known")
    else:
        why = CHOSEN[chosen.chosen_by]
    best = chosen.best
    gain = expected_text(chosen.expected_improvement) if best else f"a first {study.metric} of {chosen.mean:.4f}"
    cost = f" for {seconds_text(chosen.predicted_cost_seconds)} of a device" if is_priced(chosen) else ""
    return f"{subject} {why}.", f"Expected {gain}{cost}; {_against(chosen, rival)}."


def _against(chosen: Chosen, rival: Rival | None) -> str:
    if rival is None:
        if chosen.of_other_tenant is True:
            return f"the next best was {OF_OTHER_TENANT}"
        return "the policy names no runner-up" if chosen.has_no_ranking else "nothing else was left to run"
    name = f"{rival.study} {rival.candidate}".strip()
    if rival.is_better:
        return f"by its worth alone, {name} would have come first"
    about = "as much" if _are_equal(chosen) else "about as much"
    less = about if rival.share > 100 * TIE else f"{round(100 - rival.share, 1):g} % less"
    return f"the next best, {name}, was worth {less}"


def _are_equal(chosen: Chosen) -> bool:
    """Whether choice and runner-up have the very same worth, so that their order alone decided."""
    return chosen.runner_up is not None and chosen.runner_up.acquisition == chosen.acquisition


def _why_none(trial: StudyTrial) -> str:
    if trial.reevaluates:
        return f"It trains nothing: it measured the model of trial #{trial.reevaluates} on other data."
    return "It was started without the scheduler, so no reasons are stored."


def _formula(chosen: Chosen, study: Study) -> list[tuple[str, str]]:
    gain, cost = chosen.expected_improvement, chosen.predicted_cost_seconds
    if not is_rate(chosen) or gain <= 0:
        return []
    size, per = unit_of(cost)
    weight = chosen.acquisition * cost / gain
    price = chosen.settings["price_per_second"]
    return [
        (f"effective weight of {study.tenant}", f"{weight:.4g}"),
        (f"expected gain, {study.metric}", number_text(gain)),
        (f"predicted cost, {per}s", f"{cost / size:.3g}"),
        (f"weighted gain per {per}", worth_text(chosen, chosen.acquisition)),
        (f"price of a {per}, in gain without weight", number_text(size * price) if price else "none set"),
    ]


def _believed(chosen: Chosen) -> list[tuple[str, str]]:
    low, high = band(chosen.mean, chosen.std)
    pairs = [("Mean", quality_text(chosen.mean)), ("80 % band", f"{low:.4f} to {high:.4f}")]
    if chosen.best:
        chance = chance_above(chosen.best, chosen.mean, chosen.std)
        pairs.append((f"Chance to beat {chosen.best:.4f}", chance_text(chance)))
    return [*pairs, ("Expected gain", expected_text(chosen.expected_improvement))]


def _changed(chosen: Chosen, rival: Rival | None) -> list[tuple[str, str]]:
    """One change at a time: where both are rates, gain, cost and weight act in proportion."""
    if rival is None or rival.is_better or chosen.chosen_by != "acquisition":
        return []
    ratio = rival.share / 100
    if _are_equal(chosen):
        return [("anything about it were worse", "the runner-up is worth as much; the first of equals was taken")]
    if ratio > TIE:
        return [("anything about it were a little worse", "the runner-up is worth about as much")]
    if not is_rate(chosen):
        return [
            ("the runner-up were worth more than", worth_text(chosen, chosen.acquisition)),
            ("Its worth was", rival.worth),
        ]
    cost, gain = chosen.predicted_cost_seconds, chosen.expected_improvement
    more = f"{share_text(100 / ratio - 100)} more" if ratio > 0.01 else "over 100 times more"
    return [
        ("its cost were above", _beyond(seconds_text(cost / ratio), seconds_text(cost), 100 / ratio - 100)),
        ("its expected gain were below", _beyond(number_text(gain * ratio), number_text(gain), 100 * ratio - 100)),
        ("the runner-up promised", f"{more} for its cost"),
        ("or cost", f"{share_text(100 - 100 * ratio)} less for its gain"),
    ]


def _beyond(limit: str, was: str, change: float) -> str:
    """A limit beside what it was; where both read alike, by how many per cent it is off."""
    if limit != was:
        return f"{limit} (was {was})"
    return f"{share_text(abs(change))} {'more' if change > 0 else 'less'} than {was}"


def share_text(percent: float) -> str:
    """Per cent as people say them: whole ones, of less than two a digit behind the point.

    Example:
        >>> share_text(24.9), share_text(0.21)
        ('25 %', '0.2 %')
    """
    return f"{percent:.0f} %" if percent >= 2 else f"{percent:.1f} %"


def _outcome(outcome: TrialEnding, trial: StudyTrial) -> list[tuple[str, str]]:
    if outcome.quality is None or trial.measured is not None:
        why = why_of(trial)
        return [("State", state_of(trial).word), *([("Why", why)] if why else [])]
    best = outcome.best_before
    pairs = [
        ("Reached", quality_text(outcome.quality)),
        ("Best before", quality_text(best)),
        ("Change of the best", _change(outcome)),
    ]
    if outcome.surprise is not None:
        side = "above" if outcome.surprise >= 0 else "below"
        pairs.append(("Against what was expected", f"{abs(outcome.surprise):.1f} deviations {side}"))
    return pairs


def _change(outcome: TrialEnding) -> str:
    if outcome.best_before is None:
        return "the first result"
    return gain_text(outcome.improvement) if outcome.improvement and outcome.improved else "none"


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/decisions/{trial_id}``, and ``/trials/{trial_id}`` for who knows no more than the trial."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/studies/{study}/decisions/{trial_id}")
    def show(request: Request, study: str, trial_id: int, viewer: Viewer = who) -> HTMLResponse:
        found = site.study(viewer, study)
        if study_of_trial(site.open_store(), trial_id=trial_id) != found.name:
            raise HTTPException(status_code=404, detail=f"study {found.name!r} has no trial {trial_id}")
        explained = explain_trial(site.open_store(), trial_id=trial_id)
        facts = facts_of_decision(site.open_store(), trial_id=trial_id)
        guard = guard_of_day(site.open_store(), studies_seen=visible(site.open_store(), viewer))
        shown = page_of(explained, facts, guard, study=found, sees=cache(lambda name: _sees(site, viewer, name)))
        return site.page(request, viewer, "decision.html", study=found, shown=shown)

    @router.get("/trials/{trial_id}")
    def find(request: Request, trial_id: int, viewer: Viewer = who) -> RedirectResponse:
        name = study_of_trial(site.open_store(), trial_id=trial_id)
        if name is None or not _sees(site, viewer, name):
            raise HTTPException(status_code=404, detail=f"there is no trial {trial_id} that you may see")
        return moved(request, f"{path_of_study(name)}/decisions/{trial_id}")

    return router


def _sees(site: Site, viewer: Viewer, study: str) -> bool:
    try:
        site.study(viewer, study)
    except HTTPException:
        return False
    return True
