"""What next for the search of one study: whether more compute is worth it, what holds it, who waits for its result."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from easeml_core.durations import device_time
from easeml_core.entities import StudyState, Symbol
from easeml_core.services.reports.recommendations import (
    Severity,
    Step,
    StepKind,
    against_words,
    best_words,
    page_of,
    span,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.services.reports.recommendations import Facts


def _budget(facts: Facts) -> Step | None:
    """A limit that ends a search is as somebody wanted it; one that ends it short of its target is not."""
    target, best = facts["target_quality"], facts["best_quality"] or 0.0
    limit = _limit(facts)
    if facts["state"] != StudyState.ACTIVE or target is None or best >= target or limit is None or to_run(facts) <= 0:
        return None
    title, used, act = limit
    return Step(
        StepKind.BUDGET,
        Severity.WARN,
        f"{title} before its target",
        f"{used}; best {best:.4f}, target {target:.4f}; {_candidates(to_run(facts))} not run",
        act,
        page_of(facts),
        f"easeml study set {facts['study']}",
    )


def _sealing(facts: Facts) -> Step | None:
    if facts["state"] != StudyState.REGISTERED:
        return None
    act = "wait: the referee is splitting and sealing its data"
    why = "trials begin when its sealed sets exist"
    return Step(StepKind.SEALING, Severity.INFO, "its data are being sealed", why, act, page_of(facts))


def _paused(facts: Facts) -> Step | None:
    if facts["state"] != StudyState.PAUSED:
        return None
    left = to_run(facts)
    why = f"{_candidates(left)} not run" if left > 0 else "every candidate has run"
    act, command = "resume it when it shall get trials again", f"easeml study resume {facts['study']}"
    return Step(StepKind.PAUSED, Severity.INFO, "the search is paused", why, act, page_of(facts), command)


def _compute(facts: Facts) -> Step | None:
    """Whether more compute is worth it; the last word of the search."""
    if facts["state"] != StudyState.ACTIVE:
        return None
    left, limit, command = to_run(facts), _limit(facts), f"easeml study show {facts['study']}"
    if facts["running"] + facts["waiting"] > 0:
        title = f"{facts['running']} running, {facts['waiting']} queued"
        why, act = f"{_candidates(max(left, 0))} not run yet", "wait: trials are under way"
    elif left > 0 and has_reached_target(facts):
        title, why, act = "more compute is not worth it", f"{best_words(facts)}", _target_sentence(facts)
    elif left > 0 and limit is not None:
        title, why, act = limit[0], f"{limit[1]}; {_candidates(left)} not run", limit[2]
    elif left > 0 and _is_full(facts):
        title, why = "it waits for its tenant's other trials", f"at most {facts['tenant_max_parallel']} at once"
        act = "wait: its tenant has as many open trials as it may have at once"
    elif left > 0:
        title, why = "more compute may be worth it", f"{_candidates(left)} not run; {best_words(facts)}"
        act = f"train: {_candidates(left)} not run on the present data{_budget_left(facts)}"
        command = f"easeml device run --study {facts['study']} --max-trials 1"
    elif facts["best_verdict"] is None and _is_better(facts):
        return None  # the next step is to hand the best model in
    else:
        title, why = "more compute is not worth it", f"no candidate is left; {best_words(facts)}"
        act = "nothing: every candidate has run on the present data"
        if facts["best_verdict"] == Symbol.FAIL:
            act = "nothing: the best model did not pass the gate"
    return Step(StepKind.COMPUTE, Severity.INFO, title, why, act, page_of(facts), command)


def _hand_in(facts: Facts) -> Step | None:
    if facts["best_verdict"] is not None or not _is_better(facts):
        return None
    model, page = facts["best_model_id"], page_of(facts, "/submissions")
    if facts["best_is_judged"]:
        act = f"wait: the gate judges model {model}"
        return Step(StepKind.HAND_IN, Severity.INFO, "a better model is at the gate", _why_better(facts), act, page)
    return Step(
        StepKind.HAND_IN,
        Severity.INFO,
        "a better model waits for the gate",
        _why_better(facts),
        f"ask the gate for a verdict on model {model}",
        page,
        f"easeml gate ask {facts['study']} {model}",
    )


SEARCH_RULES: tuple[Callable[[Facts], Step | None], ...] = (_budget, _sealing, _paused, _compute, _hand_in)


def to_run(facts: Facts) -> int:
    """Candidates without a trial on the present data."""
    done = ("trials", "failed", "cancelled", "running", "waiting")
    return int(facts["candidates"]) - sum(int(facts[k]) for k in done)


def has_reached_target(facts: Facts) -> bool:
    """Whether its best quality is as good as was wanted."""
    target, best = facts["target_quality"], facts["best_quality"]
    return target is not None and best is not None and best >= target


def _limit(facts: Facts) -> tuple[str, str, str] | None:
    """Which limit holds the search: its name, what is used of it, and the sentence."""
    budget, quota = facts["budget_seconds"], facts["tenant_quota_seconds"]
    if facts["seconds_left"] is not None and facts["seconds_left"] <= 0:
        late = span(timedelta(seconds=-facts["seconds_left"]))
        sentence = "nothing: its deadline has passed; set a later one to go on"
        return "its deadline has passed", f"its deadline was {late} ago", sentence
    if budget is not None and facts["device_seconds"] >= budget:
        used = f"{device_time(facts['device_seconds'], of=budget)} are used"
        return "budget spent", used, "nothing: its compute budget is used up before its candidates"
    if quota is not None and facts["tenant_charged_seconds"] >= quota:
        used = f"{device_time(facts['tenant_charged_seconds'], of=quota)} of its tenant's quota are used"
        return "quota spent", used, "nothing: its tenant's quota is used up"
    return None


def _is_full(facts: Facts) -> bool:
    most = facts["tenant_max_parallel"]
    return most is not None and facts["tenant_open_trials"] >= most


def _budget_left(facts: Facts) -> str:
    """What is left of the compute budget: a candidate that needs more stays where it is."""
    if facts["budget_seconds"] is None:
        return ""
    left = facts["budget_seconds"] - facts["device_seconds"] - facts["reserved_seconds"]
    return f"; {device_time(max(left, 0.0))} of its compute budget are left"


def _target_sentence(facts: Facts) -> str:
    sentence = f"nothing: its target quality of {facts['target_quality']} is reached"
    return sentence + ("; the best model did not pass the gate" if facts["best_verdict"] == Symbol.FAIL else "")


def _is_better(facts: Facts) -> bool:
    """Whether the best model is another one than what stands, and better by the validation data."""
    if facts["best_model_id"] is None or facts["best_stands"] or not facts["gate_set_live"]:
        return False
    return facts["production_quality"] is None or facts["best_quality"] > facts["production_quality"]


def _why_better(facts: Facts) -> str:
    return f"{best_words(facts)}{against_words(facts)}"


def _candidates(number: int) -> str:
    return f"{number} {'candidate has' if number == 1 else 'candidates have'}"
