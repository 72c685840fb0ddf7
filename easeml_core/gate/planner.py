r"""How many sealed examples a condition needs before it is judged, and at which level one answer is given.

Two estimators: ``exact`` sizes the exact tests that ``decision`` judges with (``exact_sizes``), ``paper`` gives the
published sizes of Ease.ml/ci (``paper_sizes``). Sizes only decide how often an answer is UNKNOWN; what is promised
rests on the level. All levels are logarithms: delta / 2^5000 has no double.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.entities import Mode
from easeml_core.errors import ConditionSyntaxError, counted
from easeml_core.gate.condition import DIFFERENCE, LINEAR, claim_of, disagreement_bound, out_of_reach
from easeml_core.gate.exact_sizes import TARGETS, exact_sizes
from easeml_core.gate.paper_sizes import DIFFERENCES, paper_sizes
from easeml_core.settings.config import ESTIMATORS, choice, require
from easeml_core.stats.adaptivity import level_of_test, other_conditions_log_cost

if TYPE_CHECKING:
    from easeml_core.gate.condition import Condition


@dataclass(frozen=True, slots=True)
class GatePlan:
    """What one sealed set needs to serve a condition.

    Attributes:
        labels: Labelled examples; 0 when every clause is about d alone.
        unlabelled: Examples for the clauses about d, whose labels are not needed; may be the same examples.
        labels_per_submission: Labels that one submission needs on average, when only the examples are labelled on which
            the models differ; whose average that is, ``on_average`` tells. Equals ``labels`` where every example needs
            its label.
        log_level: ln alpha of one answer, ln(delta) - ln M.
        log_multiplicity: ln M.
        estimator: ``exact`` or ``paper``.
        method: Name of the test or inequality that gave ``labels`` (or ``unlabelled``, if labels is 0).
        reasons: Plain sentences: which formula, which inputs.
    """

    labels: int
    unlabelled: int
    labels_per_submission: int
    log_level: float
    log_multiplicity: float
    estimator: str
    method: str
    reasons: tuple[str, ...]

    @property
    def examples(self) -> int:
        """Rows that the sealed set must have: labelled examples serve for d too."""
        return max(self.labels, self.unlabelled)

    @property
    def labels_per_verdict(self) -> int:
        """Labels that a verdict on a set of ``examples`` rows asks for, averaged as ``labels_per_submission`` is.

        A verdict compares the models on every example of its set. So where d needs more examples than are labelled, the
        share on which they differ is one of all of them: the answer is no less sharp, and it costs more labels.
        """
        return -(-self.examples * self.labels_per_submission // self.labels) if self.labels else 0

    @property
    def level(self) -> float:
        """Alpha of one answer; 0 where it is below the smallest double, ``log_level`` then tells."""
        return math.exp(self.log_level)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON."""
        sizes = {"examples": self.examples, "labels_per_verdict": self.labels_per_verdict}
        return asdict(self) | sizes | {"level": self.level, "reasons": list(self.reasons)}


@dataclass(frozen=True, slots=True)
class PlannedFor:
    """What a set is planned for beside its condition: the arguments of ``plan_gate``, with their meaning and ranges."""

    reliability: float
    steps: int
    adaptivity: str
    mode: str
    estimator: str = "exact"
    target: str = "test"
    power: float | None = None
    difference: str = "split"
    assume_disagreement: float | None = None
    changes: int = 0
    slices: int = 1
    other_conditions: int = 0
    log_weight: float = 0.0


def plan_gate(
    condition: Condition,
    *,
    reliability: float,
    steps: int,
    adaptivity: str,
    mode: str,
    estimator: str = "exact",
    target: str = "test",
    power: float | None = None,
    difference: str = "split",
    assume_disagreement: float | None = None,
    changes: int = 0,
    slices: int = 1,
    other_conditions: int = 0,
    log_weight: float = 0.0,
) -> GatePlan:
    """Plan the sealed set of a condition.

    Args:
        condition: The parsed condition.
        reliability: 1 - delta, in (0, 1), for all answers on the set together.
        steps: H >= 1, answers that the set must serve.
        adaptivity: ``none``, ``full``, ``firstChange``, ``upTo:K`` or ``recycle``.
        mode: ``fp-free`` or ``fn-free``: which error is promised not to happen.
        estimator: ``exact`` or ``paper``.
        target: With ``exact``: ``test``, so that a truth beyond the threshold by twice the tolerance gets the promised
            answer; or ``estimate``, so that the value seen is off by at most the tolerance.
        power: With ``exact`` and ``test``: how likely that answer is then, in (0, 1); None for 1 - alpha.
        difference: With ``paper``: ``split`` or ``paired`` (``paper_sizes``); the exact tests are paired anyway.
        assume_disagreement: A bound on d in (0, 1] for a condition about n - o or a weighted side that has no clause
            ``d < A``. Nothing tests it. Without any bound ``exact`` sizes for d = 1.
        changes: Changes so far (passes; fails under fn-free), for the next set of ``recycle`` or ``upTo:K``.
        slices: How many conditions one answer rests on: 1, and 1 more for each slice. With ``exact`` under fp-free each
            has the whole level, else they share it.
        other_conditions: F >= 0, answers about other conditions that the set may give beside its steps.
        log_weight: Nats >= 0 by which other answers have lowered the level: those of a meter on the same set.

    Returns:
        The plan.

    Raises:
        ConfigError: If an argument is outside its range.
        ConditionSyntaxError: If no two models can meet a clause, so that there is nothing to plan for.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> condition = parse_condition("n > 0.8 +/- 0.05")
        >>> asked = {"reliability": 0.9999, "steps": 32, "adaptivity": "full", "mode": "fp-free"}
        >>> plan_gate(condition, estimator="paper", **asked).labels, plan_gate(condition, **asked).labels
        (6279, 2756)
    """
    require(0 < reliability < 1, "reliability", reliability, "> 0 and < 1")
    choice(Mode, "mode", mode)
    _check_estimator(estimator, target, power, difference)
    _check_assumption(condition, assume_disagreement)
    _check_reach(condition)
    require(type(slices) is int and slices >= 1, "slices", slices, "a whole number >= 1")
    found = level_of_test(
        reliability=reliability,
        adaptivity=adaptivity,
        steps=steps,
        mode=mode,
        estimator=estimator,
        changes=changes,
        other_conditions=other_conditions,
        log_weight=log_weight,
    )
    log_tests, log_level = found.log_tests, found.log_level
    if estimator == "paper":
        shared = log_level - math.log(slices)
        sizes = paper_sizes(condition, log_level=shared, difference=difference, assume_disagreement=assume_disagreement)
    else:
        sizes = exact_sizes(
            condition,
            log_level=log_level,
            mode=mode,
            conditions=slices,
            target=target,
            power=power,
            assume_disagreement=assume_disagreement,
        )
    others = log_weight + other_conditions_log_cost(other_conditions, mode=mode)
    level = (
        f"{counted(steps, 'step')} under adaptivity {adaptivity}{f', {changes} so far were changes' if changes else ''}"
        f"{f', {others:.4g} for other answers' if others else ''}: "
        f"ln M = {log_tests:.4g}, delta = {1 - reliability:.6g}, so ln(delta / M) = {log_level:.4g}"
        f"{_shared(slices, mode, estimator)}"
    )
    return GatePlan(
        labels=sizes.labels,
        unlabelled=sizes.unlabelled,
        labels_per_submission=sizes.labels_per_submission,
        log_level=log_level,
        log_multiplicity=log_tests,
        estimator=estimator,
        method=sizes.method,
        reasons=(level, *sizes.reasons),
    )


def _shared(conditions: int, mode: str, estimator: str) -> str:
    if conditions == 1:
        return ""
    if estimator == "exact" and mode == Mode.FP_FREE:
        return f", all of it for each of {conditions} conditions: a wrong pass needs one false one to pass by itself"
    return f", shared by {conditions} conditions"


def on_average(condition: Condition, *, mode: str, assume_disagreement: float | None = None) -> str:
    r"""Return which models ``labels_per_submission`` is an average of, where it is less than ``labels``.

    Under fp-free, models that differ on more than the clause on d allows FAIL before any label is requested: no models
    need more. Under fn-free they may need more, and so they may where the bound on d is only assumed.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> condition = parse_condition("n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01")
        >>> on_average(condition, mode="fp-free")
        'on average at most'
        >>> on_average(condition, mode="fn-free")
        'on average where the models differ on at most 10 %'
    """
    tested = disagreement_bound(condition)
    if tested is not None and mode == Mode.FP_FREE:
        return "on average at most"
    bound = tested or assume_disagreement or 1.0
    return f"on average where the models differ on at most {100 * min(bound, 1.0):.6g} %"


def _check_estimator(estimator: str, target: str, power: float | None, difference: str) -> None:
    require(estimator in ESTIMATORS, "estimator", estimator, "one of " + ", ".join(ESTIMATORS))
    require(target in TARGETS, "target", target, "one of " + ", ".join(TARGETS))
    require(difference in DIFFERENCES, "difference", difference, "one of " + ", ".join(DIFFERENCES))
    exact_split = estimator == "paper" or difference == "split"
    require(exact_split, "difference", difference, "absent: the exact tests are paired anyway, only paper splits")
    require(power is None or 0 < power < 1, "power", power, "> 0 and < 1, or nothing")
    tests = estimator == "exact" and target == "test"
    require(power is None or tests, "power", power, "absent: only estimator exact with target test has a power")
    require(target == "test" or estimator == "exact", "target", target, "absent: the paper's sizes have one target")


def _check_reach(condition: Condition) -> None:
    """Refuse a condition that can never hold: the caret stands under its clause in the canonical form."""
    found = out_of_reach(condition)
    if found is not None:
        clause, reason = found
        source, text = str(condition), str(clause)
        start = source.index(text)
        raise ConditionSyntaxError(reason, source, start, start + len(text))


def _check_assumption(condition: Condition, assumed: float | None) -> None:
    if assumed is None:
        return
    name, tested = "assume_disagreement", disagreement_bound(condition)
    require(0 < assumed <= 1, name, assumed, "> 0 and <= 1")
    require(tested is None, name, assumed, f"absent: a clause of the condition tests d < {tested}")
    claims = [claim for claim in map(claim_of, condition.clauses) if claim.quantity in (DIFFERENCE, LINEAR)]
    require(bool(claims), name, assumed, "absent: no clause is about n - o or a weighted side")
    farthest = max((abs(claim.threshold) for claim in claims if claim.quantity == DIFFERENCE), default=0.0)
    require(assumed > farthest, name, assumed, f"> {farthest:g}, since n - o is at most d")
