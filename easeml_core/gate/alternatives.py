"""What else a person could ask for, and how many labels that would take.

Every alternative changes one thing of the request and keeps the promise, but for what it says itself. Those that are
the request already, or that are not allowed with it, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from easeml_core.config import parse_adaptivity
from easeml_core.encoding import row_of, typed_record
from easeml_core.entities import Adaptivity
from easeml_core.errors import ConfigError, counted
from easeml_core.gate.clauses import number
from easeml_core.gate.planner import PlannedFor, on_average, plan_gate

if TYPE_CHECKING:
    from easeml_core.gate.clauses import Condition
    from easeml_core.gate.planner import GatePlan

POWER = 0.9
WIDER = Decimal("1.5")
CAP = 3


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another request.

    Attributes:
        change: What is different and what it needs, in plain words.
        labels: Labelled examples of its plan; with fresh labels for every submission, the labels of one submission.
        unlabelled: Examples for the clauses about d, whose labels are not needed; may be the same examples.
        examples: Rows of the set.
        labels_per_submission: Labels of one submission, as of ``GatePlan``.
        steps: Submissions that one set serves: 1 where every submission has fresh examples.
    """

    change: str
    labels: int
    unlabelled: int
    examples: int
    labels_per_submission: int
    steps: int


@typed_record
class GatePlanReport:
    """A plan for a condition, and what might be chosen instead; fields as of ``GatePlan``."""

    condition: str
    labels: int
    unlabelled: int
    labels_per_submission: int
    log_level: float
    log_multiplicity: float
    estimator: str
    method: str
    reasons: list[str]
    examples: int
    labels_per_verdict: int
    level: float
    alternatives: list[Alternative]


def alternatives_to(condition: Condition, asked: PlannedFor) -> tuple[Alternative, ...]:
    """Plan what a person might choose instead.

    Args:
        condition: The parsed condition.
        asked: What else the request says.

    Returns:
        The alternatives that differ from the request and are allowed.

    Raises:
        ConfigError: If the request itself is not allowed.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> condition = parse_condition("n > 0.9 +/- 0.01")
        >>> asked = PlannedFor(reliability=0.9999, steps=32, adaptivity="full", mode="fp-free")
        >>> print(alternatives_to(condition, asked)[0].change)
        with recycling, for the set until its first pass: 16,669 labels
    """
    requested = plan_gate(condition, **row_of(asked))
    found = [
        *_other_adaptivities(condition, asked),
        *_wider(condition, asked),
        *_less_power(condition, asked),
        *_fresh(condition, asked),
        *_other_estimator(condition, asked, requested),
    ]
    return tuple(found)


def _other_adaptivities(condition: Condition, asked: PlannedFor) -> list[Alternative]:
    """Other ways to tell the developer, each for a new set; changes so far belong to the old one."""
    change = "pass" if asked.mode == "fp-free" else "fail"
    capped = f"{Adaptivity.UP_TO.value}:{CAP}"
    words = {
        Adaptivity.RECYCLE.value: f"with recycling, for the set until its first {change}",
        capped: f"with {capped}, for a set that is retired at {change} number {CAP}",
        Adaptivity.FIRST_CHANGE.value: "with firstChange, for a set that is retired at its first pass",
    }
    current = parse_adaptivity(asked.adaptivity)
    found = []
    for adaptivity, text in words.items():
        if parse_adaptivity(adaptivity) != current:
            plan = _plan(condition, asked, adaptivity=adaptivity, changes=0)
            found += [_of_plan(text, plan, asked)] if plan is not None else []
    return found


def _wider(condition: Condition, asked: PlannedFor) -> list[Alternative]:
    """The same with tolerances half as wide again."""
    clauses = tuple(
        replace(clause, tolerance=float(Decimal(repr(clause.tolerance)) * WIDER)) for clause in condition.clauses
    )
    tolerances = ", ".join(number(clause.tolerance) for clause in clauses)
    plan = _plan(replace(condition, clauses=clauses), asked)
    word = "tolerance" if len(clauses) == 1 else "tolerances"
    return [_of_plan(f"with {word} {tolerances}", plan, asked)] if plan is not None else []


def _less_power(condition: Condition, asked: PlannedFor) -> list[Alternative]:
    """The same promise, but a truth beyond the threshold by twice the tolerance may be missed one time in ten."""
    plan = _plan(condition, asked, power=POWER) if asked.power != POWER else None
    return [_of_plan(f"with power {POWER:g}", plan, asked)] if plan is not None else []


def _fresh(condition: Condition, asked: PlannedFor) -> list[Alternative]:
    """New examples for every submission: whatever the developer learns, each has the level delta / H."""
    found = []
    for power in dict.fromkeys((asked.power, POWER)):
        plan = _plan(condition, asked, adaptivity=Adaptivity.NONE.value, changes=0, power=power)
        if plan is None:
            continue
        text = "with fresh labels for every submission, whatever the developer learns"
        text += f", and power {POWER:g}" if power != asked.power else ""
        each = plan.labels_per_submission
        assumed = asked.assume_disagreement
        words = on_average(condition, mode=asked.mode, assume_disagreement=assumed)
        mean = f" {words}" if each < plan.labels else ""
        text += f": {counted(plan.examples, 'new example')} each time, {each:,} of them labelled{mean}"
        found.append(Alternative(text, each, plan.unlabelled, plan.examples, each, steps=1))
    return found


def _other_estimator(condition: Condition, asked: PlannedFor, requested: GatePlan) -> list[Alternative]:
    """The published sizes beside the exact ones, and the other way round."""
    if requested.estimator == "paper":
        plan = _plan(condition, asked, estimator="exact", difference="split")
        return [_of_plan("with exact tests, for the same promise", plan, asked)] if plan is not None else []
    plan = _plan(condition, asked, estimator="paper", power=None, target="test")
    return [_of_plan("with the paper's published sizes", plan, asked)] if plan is not None else []


def _plan(condition: Condition, asked: PlannedFor, **changed: Any) -> GatePlan | None:
    """Give the changed plan, or None where the change is not allowed."""
    try:
        return plan_gate(condition, **row_of(asked) | changed)
    except ConfigError:
        return None


def _of_plan(text: str, plan: GatePlan, asked: PlannedFor) -> Alternative:
    unlabelled = counted(plan.unlabelled, "unlabelled example")
    needs = counted(plan.labels, "label") if plan.labels else f"no labels, {unlabelled}"
    each, steps = plan.labels_per_submission, asked.steps
    return Alternative(f"{text}: {needs}", plan.labels, plan.unlabelled, plan.examples, each, steps)
