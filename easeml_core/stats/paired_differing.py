r"""Test of n - o from the labels of some of the examples on which two models differ.

Of N examples the models differ on D, which predictions alone show. Let v be 1, -1 or 0 where the new model alone, the
old one alone or neither is right. Given *where* the models differ, the values of those D examples are independent draws
with the mean (n - o) / d, so that any number m of them that predictions alone choose, taken in the set's order, is a
sample of it. "n - o is at most c" says that this mean is at most c / d. With a bound on d at a tenth of the level
(Clopper and Pearson on D of N) that is at most mu, which is c / L with the lower bound L for c > 0, c / U with the
upper bound U for c < 0, and 0 for c = 0, where no bound is needed. So (Berger and Boos 1994)

    P(reject) <= P(d beyond its bound) + P(p-value of the m values against mu <= 9 alpha / 10) <= alpha,

whatever m is. That is what a test at a fixed number of examples does not allow: there D counts as evidence, and m may
not follow from it. Every example that is left out would have needed a label; those on which the models agree need none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from easeml_core.errors import InvalidInputError
from easeml_core.stats.binomial_bounds import LOG_REST, LOG_SHARE, lower_bound, upper_bound
from easeml_core.stats.paired import (
    MOST_EXAMPLES,
    log_paired_p_value,
    log_sign_test,
    paired_lower_bound,
    paired_test_size,
)
from easeml_core.stats.sign_test_sizes import MOST_EXAMPLES as MOST_OF_SIGN_TEST
from easeml_core.stats.sign_test_sizes import sign_test_size


@dataclass(frozen=True, slots=True)
class Differing:
    """What predictions alone show of two models.

    Attributes:
        count: D, examples on which they differ, 0 <= D <= N.
        examples: N >= 1.
    """

    count: int
    examples: int

    def __post_init__(self) -> None:
        if self.examples < 1 or not 0 <= self.count <= self.examples:
            message = f"need examples >= 1 and count from 0 to that, got {self!r}"
            raise InvalidInputError(message)

    def mean_of(self, difference: float, *, log_level: float, largest: bool = True) -> float:
        """Give the largest (or smallest) mean among the differing examples that a value of n - o can stand for.

        Args:
            difference: n - o, finite.
            log_level: Ln of the level of the bound on d, finite and < 0. No bound is used for n - o = 0.
            largest: Which end.

        Returns:
            ``difference / d`` at the bound of d that makes it largest; infinite where that bound is 0.
        """
        if difference == 0:
            return 0.0
        bound = lower_bound if (difference > 0) == largest else upper_bound
        share = bound(self.count, self.examples, log_level=log_level)
        return difference / share if share > 0 else math.copysign(math.inf, difference)


def log_differing_p_value(
    wins: int, losses: int, judged: int, differing: Differing, *, threshold: float, log_level: float
) -> float:
    """Give ln of a p-value against "n - o is at most c", for the level that it is to be compared with.

    Args:
        wins: Among the m examples whose labels count, those that only the new model has right.
        losses: Likewise of the old model.
        judged: m, at most D and at least wins + losses: chosen by predictions alone.
        differing: D and N.
        threshold: c, finite.
        log_level: Ln alpha, finite and < 0: the bound on d is at a tenth of it.

    Returns:
        A number <= 0. At most ``log_level`` with a chance of at most alpha if n - o is at most c. At threshold 0 the
        sign test, for any level.

    Raises:
        InvalidInputError: If the counts do not fit.

    Example:
        >>> shown = Differing(4_239, 84_779)
        >>> round(log_differing_p_value(204, 33, 237, shown, threshold=0.02, log_level=-12.7), 1)
        -14.7
    """
    _check(wins, losses, judged, differing)
    if threshold == 0:
        return log_sign_test(wins, losses)
    mean = differing.mean_of(threshold, log_level=log_level + LOG_SHARE)
    if judged:
        log_p = log_paired_p_value(wins - losses, judged, threshold=mean, decided_bound=1.0)
    else:
        log_p = -math.inf if mean < -1 else 0.0
    return min(0.0, float(np.logaddexp(log_p, log_level + LOG_SHARE)))


def differing_lower_bound(wins: int, losses: int, judged: int, differing: Differing, *, log_level: float) -> float:
    """Give a lower bound on n - o that holds with a chance of at least 1 - alpha; arguments as above.

    Where the mean of the differing examples is positive the lower bound of d turns it into n - o, else the upper one:
    whatever n - o is, only one of the two can make the bound wrong, so a tenth of the level pays for it.
    """
    _check(wins, losses, judged, differing)
    mean = -1.0
    if judged:
        mean = paired_lower_bound(wins - losses, judged, decided_bound=1.0, log_level=log_level + LOG_REST)
    bound = lower_bound if mean > 0 else upper_bound
    return mean * bound(differing.count, differing.examples, log_level=log_level + LOG_SHARE)


def differing_labels(
    differing: Differing, *, threshold: float, alternative: float, log_level: float, log_miss: float
) -> int:
    """Give m, how many differing examples need their labels so that the test misses a truth rarely enough.

    Reckoned with the d, up to its upper confidence bound at a tenth of the level, at which the test misses most; the
    share seen is never plugged in.

    Args:
        differing: D and N.
        threshold: c, as the test has it.
        alternative: The n - o that must not be missed, above c.
        log_level: Ln alpha, finite and < 0.
        log_miss: Ln of the chance of a miss, finite and < 0.

    Returns:
        0 where no label can change the answer, D where all are needed.

    Example:
        >>> asked = {"threshold": 0.02, "alternative": 0.04, "log_level": -12.68, "log_miss": -2.3}
        >>> [differing_labels(Differing(d, 84_779), **asked) for d in (1_700, 4_239, 12_717)]
        [0, 237, 2395]
    """
    share = log_level + LOG_SHARE
    null = differing.mean_of(threshold, log_level=share)
    if null >= 1 or null < -1:
        return 0
    mean = min(1.0, differing.mean_of(alternative, log_level=share, largest=False))
    if mean <= null:
        return differing.count
    if threshold == 0:
        size = sign_test_size(alternative=mean, decided_bound=1.0, log_level=log_level, log_miss=log_miss)
        return differing.count if size > MOST_OF_SIGN_TEST else min(size, differing.count)
    size = paired_test_size(
        threshold=null, alternative=mean, decided_bound=1.0, log_level=log_level + LOG_REST, log_miss=log_miss
    )
    return differing.count if size > MOST_EXAMPLES else min(size, differing.count)


def _check(wins: int, losses: int, judged: int, differing: Differing) -> None:
    if min(wins, losses) < 0 or not wins + losses <= judged <= differing.count:
        message = (
            f"need wins and losses >= 0 and wins + losses <= judged <= {differing.count}, got {wins}, {losses} and "
            f"{judged}"
        )
        raise InvalidInputError(message)
