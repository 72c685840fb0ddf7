"""What the counts say for and against one clause: exact p-values, an interval, and how they were found.

Evidence *for* a clause is a small p-value against "the clause does not hold", evidence *against* it a small p-value
against "the clause holds"; both hypotheses include the threshold itself. Putting clauses together is in ``decision``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.gate.condition import DIFFERENCE, DIFFERING, LINEAR, claim_of, values_of
from easeml_core.stats.binomial_bounds import (
    LOG_REST,
    LOG_SHARE,
    log_lower_tail,
    log_upper_tail,
    lower_bound,
    upper_bound,
)
from easeml_core.stats.paired import log_paired_p_value, log_sign_test, paired_lower_bound
from easeml_core.stats.paired_differing import Differing, differing_lower_bound, log_differing_p_value
from easeml_core.stats.weighted import AtMost, log_weighted_p_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.gate.condition import Claim, Clause
    from easeml_core.gate.outcomes import Outcomes

_RESOLUTION = 1e-6


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
    condition or, failing that, by an upper confidence bound that a tenth of the level pays for; where the labels of
    some disagreements were asked for, their mean against what bounds on d leave of the threshold. Any other left side:
    a bound on the mean of its value per example that holds for every law (``stats.weighted``).

    Args:
        clause: The clause.
        outcomes: The counts, N >= 1.
        log_level_for: ln of the level at which the clause is to be shown to hold.
        log_level_against: ln of the level at which it is to be shown not to hold.
        disagreement_bound: A in (0, 1], where the condition itself claims d < A; None where it does not.
    """
    claim = claim_of(clause)
    levels = (log_level_for, log_level_against) if claim.above else (log_level_against, log_level_for)
    if claim.quantity == DIFFERENCE:
        evidence = _difference(outcomes, claim.threshold, levels, disagreement_bound)
    elif claim.quantity == LINEAR:
        evidence = _linear(clause, outcomes, levels, disagreement_bound)
    else:
        evidence = _proportion(outcomes.count_of(claim.quantity), outcomes.examples, claim.threshold, levels)
    return settle_the_certain(claim, reach(clause), evidence)


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
    wins, losses = outcomes.won_and_lost
    n, decided = outcomes.examples, wins + losses
    if outcomes.judged is not None:
        return _difference_of_some(outcomes, outcomes.judged, threshold, levels)
    above = _paired_side(wins - losses, decided, n, threshold, levels[0], disagreement_bound)
    mirrored = _paired_side(losses - wins, decided, n, -threshold, levels[1], disagreement_bound)
    below = replace(mirrored, bound=-mirrored.bound)
    method = "trinomial, d by a clause" if disagreement_bound is not None else "trinomial, d by its upper bound"
    if threshold == 0:
        above = replace(above, log_p=log_sign_test(wins, losses))
        below = replace(below, log_p=log_sign_test(losses, wins))
        method = "sign test"
    return Evidence((wins - losses) / n, above, below, method)


def _difference_of_some(outcomes: Outcomes, judged: int, threshold: float, levels: tuple[float, float]) -> Evidence:
    """Test n - o where the labels of some disagreements were asked for; both sides as in ``_difference``."""
    wins, losses = outcomes.won_and_lost
    shown = Differing(outcomes.disagreements, outcomes.examples)
    counts = ((wins, losses, judged, shown), (losses, wins, judged, shown))
    above, below = (
        Side(
            log_differing_p_value(*each, threshold=sign * threshold, log_level=level),
            sign * differing_lower_bound(*each, log_level=level),
        )
        for each, sign, level in zip(counts, (1.0, -1.0), levels, strict=True)
    )
    mean = (wins - losses) / judged if judged else 0.0
    return Evidence(mean * shown.count / shown.examples, above, below, "some disagreements, d by its bound")


def _paired_side(
    score: int, decided: int, examples: int, threshold: float, log_level: float, disagreement_bound: float | None
) -> Side:
    """Test "n - o is at most c" with a bound on the share of decided examples, given or from the same examples.

    Without a bound (Berger and Boos 1994): U is the upper confidence bound, at a tenth of the level, of q, the chance
    that exactly one model is right. P(reject) <= P(q > U) + P(reject and q <= U) <= level / 10 + 9 level / 10. Since q
    <= d, and wins + losses <= disagreements, this U is never above that of d and is valid for the same reason. Where
    U < c, a mean of c is beyond reach: then "at most c" cannot be rejected, and "at least c" is.
    """
    if disagreement_bound is not None:
        log_p = log_paired_p_value(score, examples, threshold=threshold, decided_bound=disagreement_bound)
        return Side(log_p, paired_lower_bound(score, examples, decided_bound=disagreement_bound, log_level=log_level))
    share = log_level + LOG_SHARE
    bound = upper_bound(decided, examples, log_level=share)
    log_p = log_paired_p_value(score, examples, threshold=threshold, decided_bound=bound)
    rest = log_level + LOG_REST
    low = paired_lower_bound(score, examples, decided_bound=bound, log_level=rest)
    return Side(min(0.0, float(np.logaddexp(log_p, share))), low)


def _linear(
    clause: Clause, outcomes: Outcomes, levels: tuple[float, float], disagreement_bound: float | None
) -> Evidence:
    """Test any left side by its value per example, of which there are five."""
    values = np.array(values_of(clause))
    cells = outcomes.cells(with_agreements=clause.needs_agreements)
    estimate = float(cells @ values) / outcomes.examples
    above = _weighted_side(cells, values, clause.threshold, levels[0], disagreement_bound)
    mirrored = _weighted_side(cells, -values, -clause.threshold, levels[1], disagreement_bound)
    method = "weighted" if disagreement_bound is None else "weighted, d by a clause"
    return Evidence(estimate, above, replace(mirrored, bound=-mirrored.bound), method)


def _weighted_side(
    cells: NDArray[np.int64],
    values: NDArray[np.float64],
    threshold: float,
    log_level: float,
    disagreement_bound: float | None,
) -> Side:
    """Test "the mean of the values is at most c", for every law."""
    low, high = float(values.min()), float(values.max())

    def log_p(c: float) -> float:
        return log_weighted_p_value(cells, AtMost(values, c, DIFFERING, disagreement_bound), log_level=log_level)

    rejected, kept = low, high
    while kept - rejected > _RESOLUTION * (high - low):
        middle = (rejected + kept) / 2
        rejected, kept = (middle, kept) if log_p(middle) <= log_level else (rejected, middle)
    return Side(log_p(threshold), rejected)


def reach(clause: Clause) -> tuple[float, float]:
    """Give the lowest and highest value that the quantity of the clause's claim can have."""
    values = values_of(clause)
    return min(values), max(values)


def settle_the_certain(claim: Claim, within: tuple[float, float], evidence: Evidence) -> Evidence:
    """Where the threshold lies outside of what the quantity can be, arithmetic decides and no test is needed."""
    low, high = within
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
