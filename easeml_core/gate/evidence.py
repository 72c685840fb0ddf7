"""What the counts say for and against one clause: exact p-values, an interval, and how they were found.

Evidence *for* a clause is a small p-value against "the clause does not hold", evidence *against* it a small p-value
against "the clause holds"; both hypotheses include the threshold itself. Putting clauses together is in ``decision``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.gate.claims import DIFFERENCE, LINEAR, claim_of
from easeml_core.stats.clopper_pearson import log_lower_tail, log_upper_tail, lower_bound, upper_bound
from easeml_core.stats.hoeffding import hoeffding_half_width, hoeffding_log_tail
from easeml_core.stats.paired import log_paired_p_value, log_sign_test, paired_lower_bound

if TYPE_CHECKING:
    from easeml_core.gate.claims import Claim
    from easeml_core.gate.clauses import Clause
    from easeml_core.gate.outcomes import Outcomes

# Share of a test's level that pays for the bound on d where no clause gives one (Berger and Boos 1994).
_LOG_BOUND_SHARE = math.log(0.1)


@dataclass(frozen=True, slots=True)
class Side:
    """Evidence that a quantity lies on one side of the threshold.

    Attributes:
        log_p: ln of the p-value against the other side, minus infinity where the other side is impossible.
        bound: The end of the interval that the same test gives: the quantity lies on this side of it.
    """

    log_p: float
    bound: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """Both sides of one clause.

    Attributes:
        estimate: The quantity as observed.
        above: Evidence that the quantity is above the threshold; its bound is the interval's low end.
        below: Evidence that it is below; its bound is the interval's high end.
        method: Name of the test.
    """

    estimate: float
    above: Side
    below: Side
    method: str


def gather_evidence(
    clause: Clause,
    outcomes: Outcomes,
    *,
    log_level_for: float,
    log_level_against: float,
    disagreement_bound: float | None = None,
) -> Evidence:
    """Test one clause from both sides.

    One proportion (n, o or d): binomial tails, the bounds of Clopper and Pearson. n - o: the exact sign test at
    threshold 0, else the exact trinomial test with the share of disagreements bounded by a clause of the same
    condition or, failing that, by an upper confidence bound that a tenth of the level pays for. Any other left side:
    Hoeffding's inequality on its value per example.

    Args:
        clause: The clause.
        outcomes: The counts, N >= 1.
        log_level_for: ln of the level at which the clause is to be shown to hold.
        log_level_against: ln of the level at which it is to be shown not to hold.
        disagreement_bound: A in (0, 1], where the condition itself claims d < A; None where it does not.

    Returns:
        The evidence, in the unit of the clause's quantity (``claims``).
    """
    claim = claim_of(clause)
    levels = (log_level_for, log_level_against) if claim.above else (log_level_against, log_level_for)
    if claim.quantity == DIFFERENCE:
        evidence = _difference(outcomes, claim.threshold, levels, disagreement_bound)
    elif claim.quantity == LINEAR:
        evidence = _linear(clause, outcomes, levels)
    else:
        evidence = _proportion(outcomes.count_of(claim.quantity), outcomes.examples, claim.threshold, levels)
    return _settle_the_certain(claim, _reach(clause, claim), evidence)


def _proportion(count: int, examples: int, threshold: float, levels: tuple[float, float]) -> Evidence:
    """Test a proportion: K of N against threshold c, which is moved into [0, 1] (beyond, nothing is left to test)."""
    c = min(max(threshold, 0.0), 1.0)
    above = Side(log_upper_tail(count, examples, c), lower_bound(count, examples, log_level=levels[0]))
    below = Side(log_lower_tail(count, examples, c), upper_bound(count, examples, log_level=levels[1]))
    return Evidence(count / examples, above, below, "binomial")


def _difference(
    outcomes: Outcomes, threshold: float, levels: tuple[float, float], disagreement_bound: float | None
) -> Evidence:
    """Test n - o: the side above as it is, the side below with wins and losses exchanged."""
    score = outcomes.wins - outcomes.losses
    above = _paired_side(score, outcomes, threshold, levels[0], disagreement_bound)
    mirrored = _paired_side(-score, outcomes, -threshold, levels[1], disagreement_bound)
    below = replace(mirrored, bound=-mirrored.bound)
    method = "trinomial, d by a clause" if disagreement_bound is not None else "trinomial, d by its upper bound"
    if threshold == 0:
        above = replace(above, log_p=log_sign_test(outcomes.wins, outcomes.losses))
        below = replace(below, log_p=log_sign_test(outcomes.losses, outcomes.wins))
        method = "sign test"
    return Evidence(score / outcomes.examples, above, below, method)


def _paired_side(
    score: int, outcomes: Outcomes, threshold: float, log_level: float, disagreement_bound: float | None
) -> Side:
    """Test "n - o is at most c" with a bound on d that is given, or that the same examples give."""
    n = outcomes.examples
    if disagreement_bound is not None:
        log_p = log_paired_p_value(score, n, threshold=threshold, decided_bound=disagreement_bound)
        return Side(log_p, paired_lower_bound(score, n, decided_bound=disagreement_bound, log_level=log_level))
    # P(reject) <= P(d above its bound) + P(reject, d below it): a tenth of the level, and the other nine.
    share = log_level + _LOG_BOUND_SHARE
    bound = upper_bound(outcomes.disagreements, n, log_level=share)
    log_p = log_paired_p_value(score, n, threshold=threshold, decided_bound=bound)
    rest = log_level + math.log1p(-math.exp(_LOG_BOUND_SHARE))
    low = paired_lower_bound(score, n, decided_bound=bound, log_level=rest)
    return Side(min(0.0, float(np.logaddexp(log_p, share))), low)


def _linear(clause: Clause, outcomes: Outcomes, levels: tuple[float, float]) -> Evidence:
    """Test any left side by Hoeffding's inequality on its value per example, whose range is known."""
    n = outcomes.examples
    low, high = clause.reach()
    estimate = clause.value_of((outcomes.new_correct / n, outcomes.old_correct / n, outcomes.disagreements / n))
    gap, width = estimate - clause.threshold, high - low
    above = Side(
        hoeffding_log_tail(gap, n, value_range=width),
        max(low, estimate - hoeffding_half_width(n, log_level=levels[0], value_range=width)),
    )
    below = Side(
        hoeffding_log_tail(-gap, n, value_range=width),
        min(high, estimate + hoeffding_half_width(n, log_level=levels[1], value_range=width)),
    )
    return Evidence(estimate, above, below, "hoeffding")


def _reach(clause: Clause, claim: Claim) -> tuple[float, float]:
    """Give the lowest and highest value that the claim's quantity can have."""
    if claim.quantity == LINEAR:
        return clause.reach()
    return (-1.0, 1.0) if claim.quantity == DIFFERENCE else (0.0, 1.0)


def _settle_the_certain(claim: Claim, reach: tuple[float, float], evidence: Evidence) -> Evidence:
    """Where the threshold lies outside of what the quantity can be, arithmetic decides and no test is needed."""
    low, high = reach
    impossible = claim.threshold >= high if claim.above else claim.threshold <= low
    certain = claim.threshold < low if claim.above else claim.threshold > high
    if not (impossible or certain):
        return evidence
    truly_above = claim.above == certain
    return replace(
        evidence,
        above=replace(evidence.above, log_p=-math.inf if truly_above else 0.0),
        below=replace(evidence.below, log_p=0.0 if truly_above else -math.inf),
        method="arithmetic",
    )
