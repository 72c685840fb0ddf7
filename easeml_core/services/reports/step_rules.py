"""What next for one study, and why: rules over its public facts, worst first. Nothing here reads a database.

A rule looks at a row of ``store/queries/overview.py`` and says one thing, or nothing. What a developer may not know
is not in such a row, so no rule can tell it: a gate that waits for labels is told, how many it wants is not.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from easeml_core.entities import AlertKind, StudyState, Symbol
from easeml_core.services.reports.recommendations import (
    Severity,
    Step,
    StepKind,
    against_words,
    best_words,
    page_of,
    span,
)
from easeml_core.services.reports.search_rules import SEARCH_RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.services.reports.recommendations import Facts

SILENT = timedelta(minutes=30)
"""So long a request may lie before it is told: sealing a large table takes minutes."""


def steps_of(facts: Facts) -> list[Step]:
    """What is next for a study, worst first; never empty.

    Args:
        facts: A row of ``summary.study_summaries``.
    """
    found = (rule(facts) for rule in RULES)
    return [step for step in found if step is not None]


# -- what is wrong ----------------------------------------------------------------------------------------------------


def _refused(facts: Facts) -> Step | None:
    if facts["state"] != StudyState.REFUSED:
        return None
    act, page = f"register it again: {facts['refusal']}", "/new"
    return Step(
        StepKind.REFUSED,
        Severity.BAD,
        "the study was refused",
        facts["refusal"] or "the referee could not seal its data",
        act,
        page,
        f"easeml study register {facts['study']} --tenant {facts['tenant']} --source SOURCE",
        facts["created_at"],
    )


def _referee(facts: Facts) -> Step | None:
    since = facts["asked_at"]
    if since is None or facts["read_at"] - since < SILENT:
        return None
    return Step(
        StepKind.REFEREE,
        Severity.BAD,
        "the referee does not answer",
        f"a request has waited for {span(facts['read_at'] - since)}; nothing is sealed, promoted or rolled back "
        "until it answers",
        "start the referee",
        page_of(facts, "/lifecycle"),
        "easeml referee",
        since,
    )


def _no_meter_set(facts: Facts) -> Step | None:
    if facts["meter_retired"] is not True:
        return None
    return _no_set(facts, "meter", "the meter gives no signal", "seal a new meter set: the present one is retired")


def _no_gate_set(facts: Facts) -> Step | None:
    if not {"gate", "joint"} & set(facts["sets_wanted"]) or facts["gate_set_live"]:
        return None
    act = "seal a new gate set: none is live, so the gate answers nothing"
    return _no_set(facts, "gate", "nobody's model is judged", act)


def _plan_set(facts: Facts, what: str) -> str:
    """The command that plans a set; as it stands it runs once a day, and then says that the name is taken."""
    purpose = "" if what == "gate" else " --purpose meter"
    return f"easeml test-set plan --study {facts['study']} --name {what}-{facts['read_at']:%Y-%m-%d}{purpose}"


def _no_set(facts: Facts, what: str, why: str, act: str) -> Step:
    return Step(
        StepKind.NO_SET,
        Severity.BAD,
        f"the sealed {what} set is used up",
        f"{why} until a new set is sealed",
        act,
        page_of(facts, f"/{what}"),
        _plan_set(facts, what),
    )


def _overfitting(facts: Facts) -> Step | None:
    if AlertKind.OVERFITTING not in facts["alert_kinds"]:
        return None
    told = f"signal {facts['signal']} of {facts['signals']}; " if facts["signal"] else ""
    return Step(
        StepKind.OVERFITTING,
        Severity.BAD,
        "overfitting above its budget",
        f"{told}replace the validation data, or accept it and clear the alert",
        "read the alert: the overfitting budget is exceeded",
        page_of(facts, "/meter"),
        f"easeml alerts {facts['study']}",
    )


def _drift(facts: Facts) -> Step | None:
    if AlertKind.DRIFT not in facts["alert_kinds"]:
        return None
    command = f"easeml alerts {facts['study']}"
    return Step(
        StepKind.DRIFT,
        Severity.BAD,
        "validation and test data differ",
        f"signal {facts['signal']} on the test data, {facts['direct_signal']} on the second validation sample: "
        f"drift {facts['drift']}",
        "read the alert: validation and test data differ, so more validation data of the old kind do not help "
        f"(`{command}`)",
        page_of(facts, "/meter"),
        command,
    )


def _set_served(facts: Facts) -> Step | None:
    """Of a system that goes on; one that is without any set is told by its own rule."""
    wanted, gate, meter = set(facts["sets_wanted"]), facts["gate_set_live"], facts["meter_retired"] is False
    served = ["gate set"] if gate and wanted & {"gate", "joint"} else []
    served += ["meter set"] if meter and wanted & {"meter", "joint"} else []
    served += ["second validation sample"] if "direct" in wanted else []
    if not served:
        return None
    command = f"easeml alerts {facts['study']}"
    return Step(
        StepKind.SET_SERVED,
        Severity.WARN,
        "a new test set is needed",
        f"a {' and a '.join(served)} has served, and no other one waits",
        f"seal the set after the one that has served, or clear the alert where none is wanted (`{command}`)",
        page_of(facts, "/gate" if served[0] == "gate set" else "/meter"),
        command,
    )


def _lost(facts: Facts) -> Step | None:
    lost = facts["lost"]
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
        f"easeml study show {facts['study']}",
        facts["lost_at"],
    )


# -- what a person may decide -----------------------------------------------------------------------------------------


def _labels(facts: Facts) -> Step | None:
    since = facts["judging_at"]
    if not facts["labels_on_demand"] or since is None or facts["read_at"] - since < SILENT:
        return None
    return Step(
        StepKind.LABELS,
        Severity.WARN,
        "the gate waits",
        f"for {span(facts['read_at'] - since)}, and its set is labelled on demand",
        "label what the gate asks for",
        "/labels",
        f"easeml labels wanted --study {facts['study']}",
        since,
    )


def _promote(facts: Facts) -> Step | None:
    """A person has rolled it back where it was promoted before; then nothing waits."""
    held = facts["best_stands"] or facts["best_was_promoted"] or facts["asked_at"] is not None
    if facts["best_verdict"] != Symbol.PASS or held:
        return None
    return Step(
        StepKind.PROMOTE,
        Severity.WARN,
        "a better model waits for promotion",
        f"{best_words(facts)} passed the gate{against_words(facts)}",
        f"promote model {facts['best_model_id']}, which passed the gate",
        page_of(facts, f"/gate?model={facts['best_model_id']}"),
        f"easeml model promote {facts['study']} {facts['best_model_id']}",
    )


def _set_nearly_spent(facts: Facts) -> Step | None:
    steps, left = facts["gate_steps"], facts["submissions_left"]
    if steps is not None and not facts["gate_set_waits"] and steps - facts["gate_steps_used"] <= max(1, steps // 5):
        what, how_many = "gate", f"{steps - facts['gate_steps_used']} of {steps} steps are left"
    elif left is not None and left <= 1 and not facts["meter_set_waits"] and facts["meter_retired"] is False:
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


RULES: tuple[Callable[[Facts], Step | None], ...] = (
    *(_refused, _referee, _no_meter_set, _no_gate_set, _overfitting, _drift, _set_served, _lost, _labels, _promote),
    _set_nearly_spent,
    *SEARCH_RULES,
)
