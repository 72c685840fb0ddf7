r"""The published sizes of Ease.ml/ci, to the last digit.

Source: Renggli et al., "Continuous Integration of Machine Learning Models with ease.ml/ci", MLSys 2019: the baseline
of Hoeffding sizes (section 3) and the optimisation for ``d < A +/- B /\ n - o > C +/- D`` with Bennett's inequality
(section 4).

    one clause of m variables, k clauses, M tests:  N = ceil( (sum_i |a_i|)^2 ln(m k M / delta) / (2 eps^2) )

is the baseline with tolerance and delta split at best: delta evenly over clauses and variables, eps in proportion to
the weights. Where Bennett's inequality applies and gives less, it replaces the baseline:

    d < A and n - o > C +/- D:   N = ceil( ln(4 M / delta) / (p h(D / p)) ),  p = A
    n - o alone, d < p assumed:  N = ceil( ln(2 M / delta) / (p h(D / p)) )

Both modes have the same published size. ``decision`` judges with exact tests whatever the set was planned with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from easeml_core.gate.condition import DIFFERENCE, claim_of, disagreement_bound
from easeml_core.stats.concentration import bennett_disagreement_labels, bennett_sample_size, hoeffding_sample_size

if TYPE_CHECKING:
    from easeml_core.gate.condition import Claim, Clause, Condition


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many examples a condition needs.

    Attributes:
        labels: Labelled examples; 0 when every clause is about d alone.
        unlabelled: Examples for the clauses about d.
        labels_per_submission: Labels that one submission needs, about, when only disagreements are labelled.
        method: Name of the test or inequality that gave ``labels`` (or ``unlabelled``, if labels is 0).
        reasons: Plain sentences: which formula, which inputs.
    """

    labels: int
    unlabelled: int
    labels_per_submission: int
    method: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClauseSize:
    """How many examples one clause needs.

    Attributes:
        examples: N.
        method: Name of the test or inequality.
        how: What it was computed from, in words.
        needs_labels: Whether these examples need labels.
    """

    examples: int
    method: str
    how: str
    needs_labels: bool


def largest(sizes: list[ClauseSize]) -> tuple[int, int, str]:
    """Give labels, unlabelled examples and the method behind the first of them that is not 0."""
    labelled = [size for size in sizes if size.needs_labels]
    unlabelled = [size for size in sizes if not size.needs_labels]
    deciding = max(labelled or unlabelled, key=lambda size: size.examples)
    return (
        max((size.examples for size in labelled), default=0),
        max((size.examples for size in unlabelled), default=0),
        deciding.method,
    )


def labels_on_disagreements(condition: Condition, labels: int, disagreement: float) -> tuple[int, str]:
    """Give the labels of one submission, on average at most, and the reason in words.

    Where only disagreements can matter (``Condition.needs_agreements``) they are a share p of the labelled examples at
    most: p N, rounded up. A condition about the accuracy of one model by itself needs every label.
    """
    if labels == 0:
        return 0, "no clause needs a label"
    if condition.needs_agreements:
        return labels, "every example needs its label: a clause is about more than the difference n - o"
    each = math.ceil(labels * Fraction(repr(disagreement)))
    return each, (
        f"only examples on which the models differ need a label: with d at most {disagreement:g}, {each:,} of the "
        f"{labels:,} on average for one submission; labels stay, so all submissions together never need more than "
        f"{labels:,}"
    )


DIFFERENCES = ("split", "paired")


def paper_sizes(
    condition: Condition, *, log_level: float, difference: str = "split", assume_disagreement: float | None = None
) -> Sizes:
    """Size a condition as published.

    Args:
        condition: The parsed condition.
        log_level: ln(delta / M).
        difference: ``split`` estimates every variable of a clause by itself, as the paper does. ``paired`` takes the
            left side as one number per example: n - o has range 2 and is two-sided, N = r^2 ln(2 k M / delta) /
            (2 eps^2), which is the split size again; any other side has the range r that one example can show and is
            one-sided, N = r^2 ln(k M / delta) / (2 eps^2).
        assume_disagreement: A bound on d in (0, 1] that nothing tests; used where ``n - o`` is the whole condition.
    """
    clause_level = log_level - math.log(len(condition.clauses))
    baseline = [_clause_size(clause, clause_level, paired=difference == "paired") for clause in condition.clauses]
    reasons = [_baseline_reason(clause, size) for clause, size in zip(condition.clauses, baseline, strict=True)]
    labels, unlabelled, method = largest(baseline)
    tested = disagreement_bound(condition)
    share = min(tested if tested is not None and tested > 0 else assume_disagreement or 1.0, 1.0)
    each, why = labels_on_disagreements(condition, labels, share)
    pattern = _bennett_pattern(condition, assume_disagreement)
    if pattern is not None:
        second_moment, gain, nats = pattern
        inputs = {"tolerance": gain.tolerance, "log_level": log_level - nats, "second_moment": second_moment}
        size = bennett_sample_size(**inputs)
        disagreements = bennett_disagreement_labels(**inputs)
        reasons.append(_bennett_reason(size, disagreements, inputs, tested=len(condition.clauses) == 2))
        if size < labels:
            labels, method, each = size, "bennett", disagreements
            why = "labels stay, so all submissions together never need more than the plan's"
    return Sizes(labels, unlabelled, each, method, (*reasons, why))


def _clause_size(clause: Clause, log_level: float, *, paired: bool) -> ClauseSize:
    """Give the Hoeffding size of one clause, and in words what it was computed from."""
    variables = len(clause.weights)
    if paired and variables > 1:
        low, high = clause.reach()
        width, sides, how = high - low, 1, "the left side taken as one number"
        if claim_of(clause).quantity == DIFFERENCE:
            sides, how = 2, f"{how}, two-sided"
    else:
        width, sides = sum(abs(weight) for _, weight in clause.weights), variables
        how = "one variable" if variables == 1 else f"{variables} variables estimated apart"
    log_level -= math.log(sides)
    size = hoeffding_sample_size(tolerance=clause.tolerance, log_level=log_level, value_range=width)
    inputs = f"{how}: range {width:g}, tolerance {clause.tolerance:g}, ln level {log_level:.4g}"
    return ClauseSize(size, "hoeffding", inputs, clause.needs_labels)


def _baseline_reason(clause: Clause, size: ClauseSize) -> str:
    kind = "labelled" if size.needs_labels else "unlabelled"
    return f"'{clause}': {size.examples:,} {kind} examples by Hoeffding's inequality, {size.how}"


def _bennett_pattern(condition: Condition, assumed: float | None) -> tuple[float, Claim, float] | None:
    """Give p, the claim about n - o and what delta is divided by, as a logarithm; None where Bennett has no part."""
    claims = sorted((claim_of(clause) for clause in condition.clauses), key=lambda claim: claim.quantity)
    if len(claims) == 1 and claims[0].quantity == DIFFERENCE and assumed is not None:
        return assumed, claims[0], 0.0
    if len(claims) != 2:
        return None
    change, gain = claims
    small = change.quantity == "d" and not change.above and change.threshold > 0
    # The clause on d has half of delta, and Bennett's inequality, two-sided, the other half.
    return (min(change.threshold, 1.0), gain, math.log(2)) if small and _is_gain(gain) else None


def _is_gain(claim: Claim) -> bool:
    return claim.quantity == DIFFERENCE and claim.above


def _bennett_reason(size: int, disagreements: int, inputs: dict[str, float], *, tested: bool) -> str:
    p = inputs["second_moment"]
    since = f"since d < {p:g} is tested too" if tested else f"with d < {p:g} assumed, which nothing tests"
    return (
        f"{since}: {size:,} labelled examples for n - o by Bennett's inequality, two-sided, tolerance "
        f"{inputs['tolerance']:g}, ln level {inputs['log_level']:.4g}; only about {disagreements:,} of them show a "
        "disagreement and need a label for one submission"
    )
