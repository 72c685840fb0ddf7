"""The plan of a sealed set with its alternatives, as one value: for notebooks, and for ``easeml gate plan``.

An alternative is what else a person could ask for. Every one changes one thing of the request and keeps the promise,
but for what it says itself. Those that are the request already, or that are not allowed with it, are left out. The plot
of both needs matplotlib.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from easeml_core.entities import Adaptivity
from easeml_core.errors import ConfigError, InvalidInputError, counted
from easeml_core.formats.display import Bar, data_frame, draw_bars, html_page, html_table
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.gate.condition import Condition, number, parse_condition
from easeml_core.gate.exact_sizes import labels_in_words
from easeml_core.gate.offline import DecisionPlan
from easeml_core.gate.planner import PlannedFor, on_average, plan_gate
from easeml_core.settings.config import number_of, parse_adaptivity, whole_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


_USUAL = DecisionPlan()
GATE_DEFAULTS = PlannedFor(
    reliability=_USUAL.reliability, steps=_USUAL.steps, adaptivity=_USUAL.adaptivity, mode=_USUAL.mode
)
"""What a set is planned for where nothing is said."""


@dataclass(frozen=True, slots=True, repr=False)
class PlannedGate:
    """The plan of a sealed set for a condition, and what might be chosen instead.

    Attributes:
        condition: In canonical form.
        asked: What the set is planned for beside the condition.
        found: The sizes of the set, the level of one answer, and the reasons.
        alternatives: Requests that differ in one thing, each with its sizes; those that are not allowed are left out.
    """

    condition: str
    asked: PlannedFor
    found: GatePlan
    alternatives: tuple[Alternative, ...]

    @property
    def labels(self) -> int:
        """Labelled examples that the set needs; 0 where every clause is about d alone."""
        return self.found.labels

    @property
    def unlabelled(self) -> int:
        """Examples for the clauses about d, whose labels are not needed."""
        return self.found.unlabelled

    @property
    def examples(self) -> int:
        """Rows of the set."""
        return self.found.examples

    @property
    def labels_per_submission(self) -> int:
        """Labels of one submission on average, where only disagreements are labelled."""
        return self.found.labels_per_submission

    @property
    def steps(self) -> int:
        """Verdicts that the set must serve."""
        return self.asked.steps

    @property
    def reasons(self) -> tuple[str, ...]:
        """Which formula gave the sizes, and from which inputs."""
        return self.found.reasons

    def plot(self) -> Any:
        """Return a matplotlib Figure of the labels that the plan and its alternatives need.

        Raises:
            InvalidInputError: matplotlib is not installed.
        """
        return draw_gate_plan(self.condition, self.found, self.alternatives, self.asked)

    def report(self) -> GatePlanReport:
        """Return plan and alternatives as ``easeml gate plan --json`` prints them."""
        return GatePlanReport(condition=self.condition, **self.found.to_json(), alternatives=list(self.alternatives))

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: the plan in the first row, an alternative in each other.

        Raises:
            InvalidInputError: pandas is not installed.
        """
        return data_frame(self._rows())

    def _rows(self) -> list[dict[str, object]]:
        found = self.found
        own: dict[str, object] = {
            "change": "as asked",
            "labels": found.labels,
            "unlabelled": found.unlabelled,
            "examples": found.examples,
            "labels_per_submission": found.labels_per_submission,
            "steps": self.asked.steps,
        }
        return [own, *(row_of(other) for other in self.alternatives)]

    def __str__(self) -> str:
        asked = self.asked
        return (
            f"{self.condition}: {self.labels:,} labelled examples of {self.examples:,}, for {asked.steps:,} steps at "
            f"reliability {asked.reliability:g}, adaptivity {asked.adaptivity}, {asked.mode}"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def _repr_html_(self) -> str:
        columns = {
            "Request": "change",
            "Labels": "labels",
            "Without labels": "unlabelled",
            "Labels of one submission": "labels_per_submission",
            "Submissions of one set": "steps",
        }
        return html_page(html_table(str(self), columns, self._rows()), notes=self.reasons)


def plan(
    condition: str | Condition,
    *,
    reliability: float = GATE_DEFAULTS.reliability,
    steps: int = GATE_DEFAULTS.steps,
    adaptivity: str = GATE_DEFAULTS.adaptivity,
    mode: str = GATE_DEFAULTS.mode,
    estimator: str = GATE_DEFAULTS.estimator,
    target: str = GATE_DEFAULTS.target,
    power: float | None = None,
    difference: str = GATE_DEFAULTS.difference,
    assume_disagreement: float | None = None,
    passes: int = 0,
) -> PlannedGate:
    r"""Plan how many examples a sealed set needs for a condition, and the alternatives.

    Args:
        condition: Such as ``n - o > 0.02 +/- 0.01 /\ d < 0.1 +/- 0.01``: n and o are the accuracies of the new and the
            old model, d is the share of examples on which they differ.
        reliability: 1 - delta, in (0, 1), for all verdicts on the set together.
        steps: Verdicts that the set must serve, >= 1.
        adaptivity: ``none``, ``full``, ``firstChange``, ``upTo:K`` or ``recycle``: what the developer learns.
        mode: ``fp-free`` or ``fn-free``: which error is promised not to happen.
        estimator: ``exact``, or ``paper`` for the published sizes.
        target: With ``exact``: ``test`` sizes the test, ``estimate`` the interval.
        power: With ``exact``: the chance, in (0, 1), that a model twice the tolerance beyond the threshold passes; None
            for 1 - alpha.
        difference: With ``paper``: ``split`` or ``paired``.
        assume_disagreement: A bound on d in (0, 1] that nothing tests.
        passes: With ``upTo`` and ``recycle``: plan the next set, after so many passes (fails under ``fn-free``).

    Returns:
        The plan; a table in Jupyter.

    Raises:
        ConditionSyntaxError: The condition cannot be read, or no two models can meet it.
        ConfigError: An argument is outside its range.

    Example:
        >>> import easeml_core as easeml
        >>> plan = easeml.gate.plan("n - o > 0.02 +/- 0.01", reliability=0.9999, steps=32, adaptivity="full")
        >>> plan.labels, len(plan.alternatives)
        (555694, 8)
        >>> print(plan.alternatives[0].change)
        with recycling, for the set until its first pass: 205,052 labels
    """
    asked = PlannedFor(
        reliability=number_of("reliability", reliability),
        steps=whole_of("steps", steps),
        adaptivity=adaptivity,
        mode=mode,
        estimator=estimator,
        target=target,
        power=None if power is None else number_of("power", power),
        difference=difference,
        assume_disagreement=_bound(assume_disagreement),
        changes=whole_of("passes", passes),
    )
    return plan_with_alternatives(_condition_of(condition), asked)


def _bound(assumed: float | None) -> float | None:
    return None if assumed is None else number_of("assume_disagreement", assumed)


def _condition_of(condition: object) -> Condition:
    if isinstance(condition, Condition):
        return condition
    if not isinstance(condition, str):
        message = f"condition must be a text such as 'n - o > 0.02 +/- 0.01', got {type(condition).__name__}"
        raise InvalidInputError(message)
    return parse_condition(condition)


def plan_with_alternatives(condition: Condition, asked: PlannedFor) -> PlannedGate:
    """Plan a set; the function behind ``plan`` and ``easeml gate plan``."""
    with passes_named(asked.adaptivity, asked.changes):
        found, others = plan_gate(condition, **row_of(asked)), alternatives_to(condition, asked)
    return PlannedGate(str(condition), asked, _with_words(found, condition, asked), others)


def _with_words(found: GatePlan, condition: Condition, asked: PlannedFor) -> GatePlan:
    """Add what the plan reckons with where d is unknown."""
    if found.estimator != "exact" or asked.target != "test" or asked.assume_disagreement is not None:
        return found
    words = labels_in_words(condition, found.examples, log_level=found.log_level, mode=asked.mode, power=asked.power)
    return found if words is None else replace(found, reasons=(*found.reasons, words))


def mean_in_words(planned: PlannedGate) -> str:
    """Return the average that ``labels_per_submission`` is, as of ``planner.on_average``."""
    asked = planned.asked
    condition = parse_condition(planned.condition)
    return on_average(condition, mode=asked.mode, assume_disagreement=asked.assume_disagreement)


@contextmanager
def passes_named(adaptivity: str, passes: int) -> Iterator[None]:
    """Call the number of changes ``passes`` in errors about it."""
    if passes and parse_adaptivity(adaptivity)[0] in (Adaptivity.NONE, Adaptivity.FULL):
        message = f"passes says nothing under adaptivity {adaptivity}: every level is the same there; leave it out"
        raise InvalidInputError(message)
    try:
        yield
    except ConfigError as error:
        if error.field != "changes":
            raise
        name = "passes"
        raise ConfigError(name, error.value, error.allowed) from error


def draw_gate_plan(condition: str, found: GatePlan, others: Sequence[Alternative], asked: PlannedFor) -> Any:
    """Bars of the labels that the plan and its alternatives need over all submissions."""
    steps, kind = asked.steps, "labelled example" if found.labels else "example without a label"
    need = found.labels or found.unlabelled
    bars = [Bar("as asked", need, chosen=True)]
    for other in others:
        is_fresh = other.steps < steps
        total = (other.labels or other.unlabelled) * (steps if is_fresh else 1)
        bars.append(Bar(_change(other), total, note="in all" if is_fresh else ""))
    how = (
        f"reliability {asked.reliability:g}, adaptivity {asked.adaptivity}, {asked.mode}, {found.estimator} "
        f"({found.method}); blue: as asked, grey: one thing changed"
    )
    plural = f"{kind.replace('example', 'examples')}"
    clauses = condition.replace("+/-", "\u00b1").split(" /\\ ")
    shown = " /\\ ".join(clause.replace(" ", "\u00a0") for clause in clauses)  # no line ends within one
    finding = f"{counted(need, kind, plural)} let the gate judge {shown} for {counted(steps, 'submission')}"
    return draw_bars(bars, unit=f"{plural}, for all submissions together", finding=finding, how=how)


def _change(other: Alternative) -> str:
    """What is different, without the figures behind it."""
    return (other.change.rpartition(": ")[0] or other.change).removeprefix("with ")
