"""How many examples make the interval of a reading reach no further than the tolerance, at a given level of a side."""

from __future__ import annotations

from easeml_core.stats.binomial_bounds import log_lower_tail, log_upper_tail
from easeml_core.stats.hoeffding import hoeffding_sample_size


def interval_size(
    *, tail: str, log_side: float, tolerance: float, error_rate: float | None = None, one_sided: bool = False
) -> int:
    """The n whose interval lies within the tolerance of k / n, to the promised sides.

        n = ceil( -ln side / (2 epsilon^2) )                                               hoeffding
        n whose interval of round(n p) errors is narrow enough, while n - 1 is not         clopper-pearson

    Numerics: log tails are exact far below e^-745, where those of scipy end; see ``stats/binomial_bounds.py``.

    Args:
        tail: ``hoeffding`` or ``clopper-pearson``.
        log_side: Ln of the failure probability of one side, finite and < 0.
        tolerance: epsilon, in (0, 1).
        error_rate: p in [0, 1] that ``clopper-pearson`` plans with; None for the one that needs most.
        one_sided: Whether only the upper end is promised.

    Returns:
        n >= 1.

    Example:
        >>> import math
        >>> interval_size(tail="hoeffding", log_side=math.log(0.01 / 2 / 32), tolerance=0.05)
        1753
    """
    enough = hoeffding_sample_size(tolerance=tolerance, log_level=log_side)
    if tail == "hoeffding":
        return enough
    return _clopper_pearson_size(
        log_side, tolerance, worst_rate(tolerance) if error_rate is None else error_rate, enough, one_sided=one_sided
    )


def worst_rate(tolerance: float) -> float:
    """The error rate whose interval reaches furthest: not 1/2, but 2 epsilon / 3 beside it.

    How far the upper end lies off is ruled by the variances between p and p + epsilon, of which the one at
    p + 2 epsilon / 3 counts as the mean (third-order expansion of the divergence), and a variance is largest at 1/2.
    """
    return max(0.0, 0.5 - 2 * tolerance / 3)


def _clopper_pearson_size(log_side: float, tolerance: float, error_rate: float, enough: int, *, one_sided: bool) -> int:
    """An n whose interval is narrow enough at the planned errors, while that of n - 1 is not.

    Rounding n p makes the condition ripple in n with a period of 1 / p, so there can be several edges within a per cent
    (n is enough, n - 1 is not); each is a right answer. Bisection from 10 to twice Hoeffding's size finds one of them,
    the same one for the same question.
    """

    def narrow(n: int) -> bool:
        return _within(round(n * error_rate), n, tolerance, log_side, one_sided=one_sided)

    few, enough = (0, 10) if narrow(10) else (10, 2 * enough)
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if narrow(middle) else (middle, enough)
    return enough


def _within(errors: int, examples: int, tolerance: float, log_side: float, *, one_sided: bool) -> bool:
    """Whether the ends of the interval lie within the tolerance of k / n, without solving for them.

    The lower end lies above k / n - epsilon just when so many errors are too unlikely there; likewise the upper end.
    """
    rate = errors / examples
    low_end = one_sided or rate <= tolerance or log_upper_tail(errors, examples, rate - tolerance) <= log_side
    return low_end and (rate + tolerance >= 1 or log_lower_tail(errors, examples, rate + tolerance) <= log_side)
