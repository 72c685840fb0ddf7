"""The next steps of a study: rules over its public facts, worst first. Nothing here reads a database.

A rule takes a row of ``store/queries/overview.py`` and gives one step, or none. The row holds public facts alone: a
rule can say that the gate waits for labels, and not how many.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import quote

from easeml_core.entities import AlertKind, StudyState, Symbol
from easeml_core.formats.display import device_time, span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from easeml_core.store.queries.overview import InstallationTotals, StudySummary


class Severity(StrEnum):
    """Whether a user must act, and how soon; ``info`` is what happens by itself, or is optional."""

    BAD = "bad"
    WARN = "warn"
    INFO = "info"


class StepKind(StrEnum):
    """What a step is about, worst first."""

    REFUSED = "refused"
    REFEREE = "referee"
    NOT_HELD = "not-held"
    NO_SET = "no-set"
    OVERFITTING = "overfitting"
    DRIFT = "drift"
    SET_SERVED = "set-served"
    LOST = "lost"
    LABELS = "labels"
    PROMOTE = "promote"
    SET_NEARLY_SPENT = "set-nearly-spent"
    IMPLEMENTATION = "implementation"
    BUDGET = "budget"
    SEALING = "sealing"
    PAUSED = "paused"
    COMPUTE = "compute"
    HAND_IN = "hand-in"
    VALIDATION = "validation"
    ARCHIVED = "archived"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, or to wait for.

    Attributes:
        kind: What it is about.
        severity: Whether it needs a person.
        title: A few words, without the study's name.
        why: The reason, with its numbers.
        act: What to do.
        page: Path below the pages' own; empty for none.
        command: The same in the command line; empty where there is none.
        since: Since when; None where that is not known.
    """

    kind: StepKind
    severity: Severity
    title: str
    why: str
    act: str
    page: str = ""
    command: str = ""
    since: datetime | None = None

    @property
    def needs_a_person(self) -> bool:
        """Whether a user has to do something."""
        return self.severity is not Severity.INFO


class Standing(StrEnum):
    """The state of a study's search and gate; each study is in one of these."""

    NEEDS = "needs"
    SEARCHING = "searching"
    FINISHED = "finished"
    PAUSED = "paused"


def standing(steps: Sequence[Step]) -> Standing:
    """Return the standing of a study, by its next steps."""
    if any(step.needs_a_person for step in steps):
        return Standing.NEEDS
    by_kind = {step.kind: step for step in steps}
    if StepKind.PAUSED in by_kind or StepKind.ARCHIVED in by_kind:
        return Standing.PAUSED
    search = by_kind.get(StepKind.COMPUTE)
    goes_on = StepKind.SEALING in by_kind or (search is not None and not search.act.startswith("nothing"))
    return Standing.SEARCHING if goes_on else Standing.FINISHED


@dataclass(frozen=True, slots=True)
class Assessment:
    """A study with its next steps, worst first, and its standing."""

    facts: StudySummary
    steps: list[Step]
    standing: Standing

    @property
    def rise(self) -> float | None:
        """Return how much the best quality rose in a day; None where there is nothing to compare."""
        best, before = self.facts.best_quality, self.facts.best_quality_day_ago
        return None if best is None or before is None else best - before

    @property
    def search(self) -> list[Step]:
        """Return the steps about the state of the search."""
        ends = [step for step in self.steps if step.needs_a_person and step.kind in ENDS_THE_SEARCH]
        return ends or [step for step in self.steps if not step.needs_a_person] or self.steps

    def used_share(self, totals: InstallationTotals) -> float:
        """Return the study's share of the device time of the last day, in [0, 1]."""
        return self.facts.device_seconds_day / totals.seconds if totals.seconds > 0 else 0.0

    def due_share(self, totals: InstallationTotals) -> float:
        """Return the share that is due to the study by weight, in [0, 1]; 0 for one that is not active."""
        if self.facts.state != StudyState.ACTIVE or totals.weight <= 0:
            return 0.0
        return self.facts.weight * self.facts.tenant_weight / totals.weight


ENDS_THE_SEARCH = (StepKind.REFUSED, StepKind.BUDGET)
"""Needs of a user that are about the state of the search."""


def page_of(facts: StudySummary, below: str = "") -> str:
    """Return the path of the study's page, or of one below it."""
    return f"/studies/{quote(facts.study, safe='')}{below}"


def best_words(facts: StudySummary) -> str:
    """Describe the best result, with its candidate."""
    if facts.best_quality is None:
        return "no result yet"
    return f"best {facts.best_quality:.4f} ({facts.best_candidate})"


def against_words(facts: StudySummary) -> str:
    """Describe the model that it would replace."""
    if facts.production_quality is None:
        return ", nothing is in production"
    return f", in production {facts.production_quality:.4f}"


def _budget(facts: StudySummary) -> Step | None:
    """Need a user where a limit ends a search short of its target; at the target the end is as intended."""
    target, best = facts.target_quality, facts.best_quality or 0.0
    limit = _limit(facts)
    if facts.state != StudyState.ACTIVE or target is None or best >= target or limit is None or to_run(facts) <= 0:
        return None
    title, used, act = limit
    return Step(
        StepKind.BUDGET,
        Severity.WARN,
        f"{title} before its target",
        f"{used}; best {best:.4f}, target {target:.4f}; {_candidates(to_run(facts))} not run",
        act,
        page_of(facts),
        f"easeml study set {facts.study}",
    )


def _sealing(facts: StudySummary) -> Step | None:
    if facts.state != StudyState.REGISTERED:
        return None
    act = "wait: the referee is splitting and sealing its data"
    why = "trials begin when its sealed sets exist"
    return Step(StepKind.SEALING, Severity.INFO, "its data are being sealed", why, act, page_of(facts))


def _paused(facts: StudySummary) -> Step | None:
    if facts.state != StudyState.PAUSED:
        return None
    left = to_run(facts)
    why = f"{_candidates(left)} not run" if left > 0 else "every candidate has run"
    act, command = "resume it when it shall get trials again", f"easeml study resume {facts.study}"
    return Step(StepKind.PAUSED, Severity.INFO, "the search is paused", why, act, page_of(facts), command)


def _compute(facts: StudySummary) -> Step | None:
    """Say whether more compute is worth it; the last rule of the search."""
    if facts.state != StudyState.ACTIVE:
        return None
    left, limit, command = to_run(facts), _limit(facts), f"easeml study show {facts.study}"
    if facts.running + facts.waiting > 0:
        title = f"{facts.running} running, {facts.waiting} queued"
        why = f"{_candidates(left)} not run yet" if left > 0 else "no other candidate is left"
        act = "wait: trials are under way"
    elif left > 0 and has_reached_target(facts):
        title, why, act = "more compute is not worth it", f"{best_words(facts)}", _target_sentence(facts)
    elif left > 0 and limit is not None:
        title, why, act = limit[0], f"{limit[1]}; {_candidates(left)} not run", limit[2]
    elif left > 0 and is_full(facts):
        title, why = "it waits for its tenant's other trials", f"at most {facts.tenant_max_parallel} at once"
        act = "wait: its tenant has as many open trials as it may have at once"
    elif left > 0:
        title, why = "more compute may be worth it", f"{_candidates(left)} not run; {best_words(facts)}"
        act = f"train: {_candidates(left)} not run on the present data{_budget_left(facts)}"
        command = f"easeml device run --study {facts.study} --max-trials 1"
    elif facts.best_verdict is None and _is_better(facts):
        return None  # the next step is to submit the best model
    else:
        title, why = "more compute is not worth it", f"no candidate is left; {best_words(facts)}"
        act = "nothing: every candidate has run on the present data"
        if facts.best_verdict == Symbol.FAIL:
            act = "nothing: the best model did not pass the gate"
    return Step(StepKind.COMPUTE, Severity.INFO, title, why, act, page_of(facts), command)


def _hand_in(facts: StudySummary) -> Step | None:
    if facts.best_verdict is not None or not _is_better(facts):
        return None
    model, page = facts.best_model_id, page_of(facts, "/submissions")
    if facts.best_is_judged:
        act = f"wait: the gate judges model {model}"
        return Step(StepKind.HAND_IN, Severity.INFO, "a better model is at the gate", _why_better(facts), act, page)
    return Step(
        StepKind.HAND_IN,
        Severity.INFO,
        "a better model waits for the gate",
        _why_better(facts),
        f"ask the gate for a verdict on model {model}",
        page,
        f"easeml gate ask {facts.study} {model}",
    )


SEARCH_RULES: tuple[Callable[[StudySummary], Step | None], ...] = (_budget, _sealing, _paused, _compute, _hand_in)


def to_run(facts: StudySummary) -> int:
    """Return the number of candidates without a trial on the present data."""
    return facts.candidates - (facts.trials + facts.failed + facts.cancelled + facts.running + facts.waiting)


def has_reached_target(facts: StudySummary) -> bool:
    """Return whether the best quality has reached the target."""
    target, best = facts.target_quality, facts.best_quality
    return target is not None and best is not None and best >= target


def _limit(facts: StudySummary) -> tuple[str, str, str] | None:
    """Return the limit that stops the search: its name, its use, and the sentence."""
    budget, quota = facts.budget_seconds, facts.tenant_quota_seconds
    if facts.seconds_left is not None and facts.seconds_left <= 0:
        late = span(timedelta(seconds=-facts.seconds_left))
        sentence = "nothing: its deadline has passed; set a later one to go on"
        return "its deadline has passed", f"its deadline was {late} ago", sentence
    if budget is not None and facts.device_seconds >= budget:
        used = f"{device_time(facts.device_seconds, of=budget)} are used"
        return "budget spent", used, "nothing: its compute budget is used up before its candidates"
    if quota is not None and has_spent_quota(facts):
        used = f"{device_time(facts.tenant_charged_seconds, of=quota)} of its tenant's quota are used"
        return "quota spent", used, "nothing: its tenant's quota is used up"
    return None


def has_spent_quota(facts: StudySummary) -> bool:
    """Return whether the studies of its tenant have used and reserved the tenant's quota."""
    return facts.tenant_quota_seconds is not None and facts.tenant_charged_seconds >= facts.tenant_quota_seconds


def is_full(facts: StudySummary) -> bool:
    """Return whether its tenant has as many open trials as it may have."""
    most = facts.tenant_max_parallel
    return most is not None and facts.tenant_open_trials >= most


def _budget_left(facts: StudySummary) -> str:
    """Describe the rest of the compute budget: candidates that need more do not run."""
    if facts.budget_seconds is None:
        return ""
    left = facts.budget_seconds - facts.device_seconds - facts.reserved_seconds
    return f"; {device_time(max(left, 0.0))} of its compute budget are left"


def _target_sentence(facts: StudySummary) -> str:
    sentence = f"nothing: its target quality of {facts.target_quality} is reached"
    return sentence + ("; the best model did not pass the gate" if facts.best_verdict == Symbol.FAIL else "")


def _is_better(facts: StudySummary) -> bool:
    """Return whether the best model is not in production and is better than that by the validation data."""
    if facts.best_model_id is None or facts.best_stands or not facts.gate_set_live:
        return False
    return facts.production_quality is None or (facts.best_quality or 0.0) > facts.production_quality


def _why_better(facts: StudySummary) -> str:
    return f"{best_words(facts)}{against_words(facts)}"


def _candidates(number: int) -> str:
    return f"{number} {'candidate has' if number == 1 else 'candidates have'}"


def assess(facts: StudySummary) -> Assessment:
    """Return the study with its next steps and its standing."""
    steps = steps_of(facts)
    return Assessment(facts, steps, standing(steps))


def why_nothing_runs(facts: StudySummary) -> str:
    """Return why no candidate of a study would run next, in a sentence."""
    left = to_run(facts)
    reasons = (
        (facts.state == StudyState.PAUSED, "The study is paused: it gets no trial until it is resumed."),
        (facts.state == StudyState.ARCHIVED, "The study is archived: it gets no trial until it is restored."),
        (
            facts.state == StudyState.REGISTERED,
            "The referee is splitting and sealing its data; then the search begins.",
        ),
        (facts.state == StudyState.REFUSED, "The study was refused; register it again with what its answer says."),
        (has_reached_target(facts), "Its target quality is reached."),
        (
            facts.seconds_left is not None and facts.seconds_left <= 0,
            "Its deadline has passed; a later one lets it go on.",
        ),
        (left + facts.running + facts.waiting <= 0, "Every candidate has run on the present data."),
        (left <= 0, "Every candidate that is left is under way."),
    )
    limit = "A limit holds what is left: the budget, its tenant's quota, or the price of compute."
    return next((text for holds, text in reasons if holds), limit)


SILENT = timedelta(minutes=30)
"""Age at which an unanswered request is reported: sealing a large table takes minutes."""


def steps_of(facts: StudySummary) -> list[Step]:
    """Return the next steps of a study, worst first; never empty."""
    if facts.state == StudyState.ARCHIVED:
        why, act = "it gets no trial, and takes no request", "nothing, or restore it where it shall go on"
        command = f"easeml study restore {facts.study}"
        return [Step(StepKind.ARCHIVED, Severity.INFO, "the study is archived", why, act, page_of(facts), command)]
    found = (rule(facts) for rule in RULES)
    return [step for step in found if step is not None]


# -- faults ------------------------------------------------------------------------------------------------------------


def _refused(facts: StudySummary) -> Step | None:
    if facts.state != StudyState.REFUSED:
        return None
    act, page = f"register it again: {facts.refusal}", "/new"
    return Step(
        StepKind.REFUSED,
        Severity.BAD,
        "the study was refused",
        facts.refusal or "the referee could not seal its data",
        act,
        page,
        f"easeml study register {facts.study} --tenant {facts.tenant} --source SOURCE",
        facts.created_at,
    )


def _referee(facts: StudySummary) -> Step | None:
    since = facts.asked_at
    if since is None or facts.read_at - since < SILENT:
        return None
    return Step(
        StepKind.REFEREE,
        Severity.BAD,
        "the referee does not answer",
        f"a request has waited for {span(facts.read_at - since)}; nothing is sealed, promoted or rolled back "
        "until it answers",
        "start the referee",
        page_of(facts, "/lifecycle"),
        "easeml referee",
        since,
    )


def _not_held(facts: StudySummary) -> Step | None:
    """Report results that the referee has found false, until an operator has acknowledged them."""
    many = facts.not_held
    if not many:
        return None
    first = f"trial {facts.not_held_trial}" if many == 1 else f"the first is trial {facts.not_held_trial}"
    return Step(
        StepKind.NOT_HELD,
        Severity.BAD,
        "a result did not hold" if many == 1 else f"{many} results did not hold",
        f"the referee measured another quality than was stated ({first}); they count as failed"
        if many > 1
        else f"the referee measured another quality than was stated ({first}); it counts as failed",
        "find out what states results for this tenant, then acknowledge it",
        page_of(facts, f"/decisions/{facts.not_held_trial}"),
        f"easeml tenant acknowledge {facts.tenant} --why REASON",
        facts.not_held_at,
    )


def _no_meter_set(facts: StudySummary) -> Step | None:
    if facts.meter_retired is not True:
        return None
    return _no_set(facts, "meter", "the meter gives no signal", "seal a new meter set: the present one is retired")


def _no_gate_set(facts: StudySummary) -> Step | None:
    if not {"gate", "joint"} & set(facts.sets_wanted) or facts.gate_set_live:
        return None
    act = "seal a new gate set: none is live, so the gate answers nothing"
    return _no_set(facts, "gate", "nobody's model is judged", act)


def _plan_set(facts: StudySummary, what: str) -> str:
    """Return the command that plans a set; with its name and date it runs once a day."""
    purpose = "" if what == "gate" else " --purpose meter"
    return f"easeml test-set plan --study {facts.study} --name {what}-{facts.read_at:%Y-%m-%d}{purpose}"


def _no_set(facts: StudySummary, what: str, why: str, act: str) -> Step:
    return Step(
        StepKind.NO_SET,
        Severity.BAD,
        f"the sealed {what} set is used up",
        f"{why} until a new set is sealed",
        act,
        page_of(facts, f"/{what}"),
        _plan_set(facts, what),
    )


def _overfitting(facts: StudySummary) -> Step | None:
    if AlertKind.OVERFITTING not in facts.alert_kinds:
        return None
    reading = f"signal {facts.signal} of {facts.signals}; " if facts.signal else ""
    return Step(
        StepKind.OVERFITTING,
        Severity.BAD,
        "overfitting above its budget",
        f"{reading}replace the validation data, or accept it and clear the alert",
        "read the alert: the overfitting budget is exceeded",
        page_of(facts, "/meter"),
        f"easeml alerts {facts.study}",
    )


def _drift(facts: StudySummary) -> Step | None:
    if AlertKind.DRIFT not in facts.alert_kinds:
        return None
    command = f"easeml alerts {facts.study}"
    return Step(
        StepKind.DRIFT,
        Severity.BAD,
        "validation and test data differ",
        f"signal {facts.signal} on the test data, {facts.direct_signal} on the second validation sample: "
        f"drift {facts.drift}",
        "read the alert: validation and test data differ, so more validation data of the old kind do not help "
        f"(`{command}`)",
        page_of(facts, "/meter"),
        command,
    )


def _set_served(facts: StudySummary) -> Step | None:
    """Replace the set of a system that continues; a system without any set has a separate rule."""
    wanted, gate, meter = set(facts.sets_wanted), facts.gate_set_live, facts.meter_retired is False
    served = ["gate set"] if gate and wanted & {"gate", "joint"} else []
    served += ["meter set"] if meter and wanted & {"meter", "joint"} else []
    served += ["second validation sample"] if "direct" in wanted else []
    if not served:
        return None
    command = f"easeml alerts {facts.study}"
    return Step(
        StepKind.SET_SERVED,
        Severity.WARN,
        "a new test set is needed",
        f"a {' and a '.join(served)} {'has' if len(served) == 1 else 'have'} served, and no other one waits",
        f"seal the set after the one that has served, or clear the alert where none is wanted (`{command}`)",
        page_of(facts, "/gate" if served[0] == "gate set" else "/meter"),
        command,
    )


def _lost(facts: StudySummary) -> Step | None:
    lost = facts.lost
    if not lost:
        return None
    who = "a worker does not answer" if lost == 1 else f"{lost} workers do not answer"
    return Step(
        StepKind.LOST,
        Severity.WARN,
        who,
        f"{'its trial goes' if lost == 1 else 'their trials go'} back to the queue with the next suggestion",
        "look after the device",
        "/compute",
        f"easeml study show {facts.study}",
        facts.lost_at,
    )


# -- decisions of users ------------------------------------------------------------------------------------------------


def _labels(facts: StudySummary) -> Step | None:
    since = facts.judging_at
    if not facts.labels_on_demand or since is None or facts.read_at - since < SILENT:
        return None
    return Step(
        StepKind.LABELS,
        Severity.WARN,
        "the gate waits",
        f"for {span(facts.read_at - since)}, and its set is labelled on demand",
        "label what the gate asks for",
        "/labels",
        f"easeml labels wanted {facts.study}",
        since,
    )


def _promote(facts: StudySummary) -> Step | None:
    """Offer a promotion, unless the model was promoted before and rolled back."""
    held = facts.best_stands or facts.best_was_promoted or facts.asked_at is not None
    if facts.best_verdict != Symbol.PASS or held:
        return None
    return Step(
        StepKind.PROMOTE,
        Severity.WARN,
        "a better model waits for promotion",
        f"{best_words(facts)} passed the gate{against_words(facts)}",
        f"promote model {facts.best_model_id}, which passed the gate",
        page_of(facts, f"/gate?model={facts.best_model_id}"),
        f"easeml model promote {facts.study} {facts.best_model_id}",
    )


def _set_nearly_spent(facts: StudySummary) -> Step | None:
    steps, left = facts.gate_steps, facts.submissions_left
    if steps is not None and not facts.gate_set_waits and steps - facts.gate_steps_used <= max(1, steps // 5):
        what, how_many = "gate", f"{steps - facts.gate_steps_used} of {steps} steps are left"
    elif left is not None and left <= 1 and not facts.meter_set_waits and facts.meter_retired is False:
        what, how_many = "meter", f"{left} more {'submission' if left == 1 else 'submissions'}"
    else:
        return None
    return Step(
        StepKind.SET_NEARLY_SPENT,
        Severity.WARN,
        f"the sealed {what} set is nearly spent",
        f"{how_many}, and no other set waits",
        f"seal the next {what} set in time",
        page_of(facts, f"/{what}"),
        _plan_set(facts, what),
    )


RULES: tuple[Callable[[StudySummary], Step | None], ...] = (
    *(_refused, _referee, _not_held, _no_meter_set, _no_gate_set, _overfitting, _drift, _set_served, _lost, _labels),
    *(_promote, _set_nearly_spent),
    *SEARCH_RULES,
)
