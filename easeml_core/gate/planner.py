r"""How many sealed examples a condition needs before it is judged: the published sizes of Ease.ml/ci.

Source: Renggli et al., "Continuous Integration of Machine Learning Models with ease.ml/ci", MLSys 2019: the baseline
of Hoeffding sizes (section 3) and the optimisation for ``d < A +/- B /\ n - o > C +/- D`` with Bennett's inequality
(section 4). These are sizes only: ``decision`` judges with exact tests at the level given here. On a set of the
planned size they decide whenever the estimate lies beyond the threshold by the tolerance, and often earlier. All
levels are logarithms: delta / 2^5000 has no double.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.config import choice, require
from easeml_core.entities import Mode
from easeml_core.gate.claims import DIFFERENCE, claim_of
from easeml_core.stats.bennett import bennett_disagreement_labels, bennett_sample_size
from easeml_core.stats.hoeffding import hoeffding_sample_size
from easeml_core.stats.multiplicity import log_multiplicity

if TYPE_CHECKING:
    from easeml_core.gate.claims import Claim
    from easeml_core.gate.clauses import Clause, Condition

ESTIMATORS = ("paper",)
DIFFERENCES = ("split", "paired")


@dataclass(frozen=True, slots=True)
class GatePlan:
    """What one sealed set needs to serve a condition.

    Attributes:
        labels: Labelled examples; 0 when every clause is about d alone.
        unlabelled: Examples for the clauses about d, whose labels are not needed; may be the same examples.
        log_level: ln alpha of one single test, ln(delta) - ln M.
        log_multiplicity: ln M.
        estimator: ``paper``.
        method: ``hoeffding`` or ``bennett``: which inequality gave ``labels`` (or ``unlabelled``, if labels is 0).
        reasons: Plain sentences: which formula, which inputs.
    """

    labels: int
    unlabelled: int
    log_level: float
    log_multiplicity: float
    estimator: str
    method: str
    reasons: tuple[str, ...]

    @property
    def examples(self) -> int:
        """Rows that the sealed set must have: labelled examples serve for d too."""
        return max(self.labels, self.unlabelled)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON."""
        return asdict(self) | {"examples": self.examples, "reasons": list(self.reasons)}


def plan_gate(
    condition: Condition,
    *,
    reliability: float,
    steps: int,
    adaptivity: str,
    mode: str,
    estimator: str = "paper",
    difference: str = "split",
) -> GatePlan:
    """Plan the sealed set of a condition.

        one clause of m variables, k clauses, M = 1, H or 2^H tests:
        N = ceil( (sum_i |a_i|)^2 ln(m k M / delta) / (2 eps^2) ),   the largest over the clauses

    That is the paper's baseline with tolerance and delta split at best: delta evenly over clauses and variables, eps
    in proportion to the weights. For ``d < A`` together with ``n - o > C +/- D``, Bennett's inequality with p = A
    replaces it where it is smaller: N = ceil( ln(4 M / delta) / (p h(D / p)) ).

    Args:
        condition: The parsed condition.
        reliability: 1 - delta, in (0, 1), for all verdicts on the set together.
        steps: H >= 1, verdicts that the set must serve.
        adaptivity: ``none``, ``full`` or ``firstChange``.
        mode: ``fp-free`` or ``fn-free``. Both have the same published size; each promises one side.
        estimator: ``paper``.
        difference: ``split`` estimates every variable of a clause by itself, as the paper does. ``paired`` takes the
            left side as one number per example whose range r is taken over what one example can show, one-sided:
            N = ceil( r^2 ln(k M / delta) / (2 eps^2) ). (Its two-sided form for n - o is the split size again.)

    Returns:
        The plan.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> condition = parse_condition("n > 0.8 +/- 0.05")
        >>> plan_gate(condition, reliability=0.9999, steps=32, adaptivity="full", mode="fp-free").labels
        6279
    """
    require(0 < reliability < 1, "reliability", reliability, "> 0 and < 1")
    choice(Mode, "mode", mode)
    require(estimator in ESTIMATORS, "estimator", estimator, "one of " + ", ".join(ESTIMATORS))
    require(difference in DIFFERENCES, "difference", difference, "one of " + ", ".join(DIFFERENCES))
    log_tests = log_multiplicity(adaptivity, steps)
    log_level = math.log1p(-reliability) - log_tests
    labels, unlabelled, reasons = _baseline(condition, log_level, paired=difference == "paired")
    method = "hoeffding"
    pattern = _small_change(condition)
    if pattern is not None:
        bennett, sentence = _bennett(*pattern, log_level)
        reasons.append(sentence)
        if bennett < labels:
            labels, method = bennett, "bennett"
    level = (
        f"{steps} step(s) under adaptivity {adaptivity}: ln M = {log_tests:.4g}, "
        f"delta = {1 - reliability:.6g}, so ln(delta / M) = {log_level:.4g}"
    )
    return GatePlan(labels, unlabelled, log_level, log_tests, estimator, method, (level, *reasons))


def _baseline(condition: Condition, log_level: float, *, paired: bool) -> tuple[int, int, list[str]]:
    """Give labels, unlabelled examples and reasons of the Hoeffding sizes: the largest clause decides."""
    needs = {True: 0, False: 0}
    reasons = []
    clause_level = log_level - math.log(len(condition.clauses))
    for clause in condition.clauses:
        size, how = _clause_size(clause, clause_level, paired=paired)
        needs[clause.needs_labels] = max(needs[clause.needs_labels], size)
        kind = "labelled" if clause.needs_labels else "unlabelled"
        reasons.append(f"'{clause}': {size:,} {kind} examples by Hoeffding's inequality, {how}")
    return needs[True], needs[False], reasons


def _clause_size(clause: Clause, log_level: float, *, paired: bool) -> tuple[int, str]:
    """Give the Hoeffding size of one clause, and in words what it was computed from."""
    variables = len(clause.weights)
    if paired and variables > 1:
        low, high = clause.reach()
        width, how = high - low, "the left side taken as one number"
    else:
        width = sum(abs(weight) for _, weight in clause.weights)
        how = "one variable" if variables == 1 else f"{variables} variables estimated apart"
        log_level -= math.log(variables)
    size = hoeffding_sample_size(tolerance=clause.tolerance, log_level=log_level, value_range=width)
    return size, f"{how}: range {width:g}, tolerance {clause.tolerance:g}, ln level {log_level:.4g}"


def _small_change(condition: Condition) -> tuple[Claim, Claim] | None:
    """Give the claims (d < A, n - o > C) if these two are the whole condition and A can bound a second moment."""
    if len(condition.clauses) != 2:
        return None
    claims = sorted((claim_of(clause) for clause in condition.clauses), key=lambda claim: claim.quantity)
    change, gain = claims
    small = change.quantity == "d" and not change.above and change.threshold > 0
    return (change, gain) if small and gain.quantity == DIFFERENCE and gain.above else None


def _bennett(change: Claim, gain: Claim, log_level: float) -> tuple[int, str]:
    """Give the size of the test of n - o once d < A is known, at half of delta (the other half tests d)."""
    p, half = min(change.threshold, 1.0), log_level - math.log(2)
    size = bennett_sample_size(tolerance=gain.tolerance, log_level=half, second_moment=p)
    each = bennett_disagreement_labels(tolerance=gain.tolerance, log_level=half, second_moment=p)
    return size, (
        f"since d < {p:g} is tested too: {size:,} labelled examples for n - o by Bennett's inequality, two-sided, "
        f"tolerance {gain.tolerance:g}, ln level {half:.4g}; only about {each:,} of them show a disagreement"
    )
