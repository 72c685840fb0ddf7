"""The plan of a sealed set with its alternatives, as one value: for notebooks, and for ``easeml gate plan``."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from easeml_core.config import number_of, parse_adaptivity, whole_of
from easeml_core.display.tables import data_frame, html_page, html_table
from easeml_core.encoding import row_of
from easeml_core.entities import Adaptivity
from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.gate.alternatives import GatePlanReport, alternatives_to
from easeml_core.gate.clauses import Condition
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.offline import DecisionPlan
from easeml_core.gate.on_demand import labels_in_words
from easeml_core.gate.planner import PlannedFor, on_average, plan_gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easeml_core.gate.alternatives import Alternative
    from easeml_core.gate.planner import GatePlan


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
        from easeml_core.gate.plot import draw_gate_plan

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
    """Plan a set; the function behind ``plan`` and ``easeml gate plan``.

    Raises:
        ConfigError: As of ``plan_gate``, with ``changes`` under the name ``passes``.
        InvalidInputError: Passes are given under an adaptivity that does not count them.
    """
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
    """Call the number of changes ``passes`` in errors about it.

    Raises:
        InvalidInputError: A number is given under an adaptivity that does not use it.
    """
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
