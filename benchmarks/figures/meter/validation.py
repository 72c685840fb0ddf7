"""How large a validation set must be, so that a signal above 1 does not come from its own noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.config import require
from easeml_core.meter.planner import validation_minimum
from easeml_core.meter.validation_set import rows_for_looks
from easeml_core.stats.binomial_bounds import log_lower_tail, log_upper_tail
from easeml_core.stats.binomial_sizes import log_largest_deviation
from figures.markdown import shown, table
from figures.meter.plans import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from figures.sessions import SessionRunner

BOUNDARIES, RELIABILITY = (0.02, 0.05, 0.1), 0.99
LOOKS = 500


def validation(runner: SessionRunner) -> str:
    """Rows by the first boundary: by the rule, by exact tails, and for many looks."""
    rows = []
    for b in BOUNDARIES:
        sizes = (
            validation_minimum(ranges=(b,), reliability=RELIABILITY),
            exact_validation_minimum(ranges=(b,), reliability=RELIABILITY),
            exact_validation_minimum(ranges=(b,), reliability=RELIABILITY, error_rate=0.1),
            rows_for_looks(LOOKS, ranges=(b,), reliability=RELIABILITY),
        )
        rows.append([f"{b:g}", *(f"{size:,}" for size in sizes)])
    command = plan(tolerance=0.02, steps=32, ranges="0.05,0.13,0.25")
    if runner.answer(command)["validation_minimum"] != validation_minimum(ranges=(0.05,), reliability=RELIABILITY):
        message = "the plan and the rule disagree on the size of the validation set"
        raise RuntimeError(message)
    header = ["first boundary", "rule", "exact, any error rate", "exact, error rate .1", f"rule for {LOOKS} models"]
    return f"{table(header, rows)}\n\n{shown([command], '`validation_minimum` of the answer is the rule.')}"


def exact_validation_minimum(
    *, ranges: Sequence[float], reliability: float, error_rate: float | None = None
) -> int | None:
    """The size of ``planner.validation_minimum`` by exact binomial tails, which is smaller.

        n_val = least n so that P(|X / m - p| >= b_1) <= delta for every m >= n,   X ~ Bin(m, p)

    The tails rise and fall with m, since counts are whole: a smaller number may meet the level while a larger one does
    not. From ``validation_minimum`` on all do, by Hoeffding's inequality; below it the largest one that does not is
    looked for.

    Args:
        ranges: Inner boundaries; only the first counts.
        reliability: 1 - delta, in (0, 1).
        error_rate: p in [0, 1], true error rate of a model; None for the worst one.

    Returns:
        n_val >= 1, or None when b_1 <= 0.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> exact_validation_minimum(ranges=(0.05,), reliability=0.99, error_rate=0.1)
        247
    """
    most = validation_minimum(ranges=ranges, reliability=reliability)
    if most is None:
        return None
    b_1, log_delta = ranges[0], math.log1p(-reliability)
    if error_rate is None:
        return _last_above(log_delta, lambda few, many: _log_worst_deviation(few, many, b_1), 1, most - 1) + 1
    require(0 <= error_rate <= 1, "error_rate", error_rate, "in [0, 1], or None for the worst")
    return _last_above(log_delta, lambda few, many: _log_deviation(few, many, error_rate, b_1), 1, most - 1) + 1


def _last_above(log_level: float, log_bound: Callable[[int, int], float], few: int, many: int) -> int:
    """The largest n in few..many whose chance is above the level; few - 1 where there is none.

    ``log_bound(few, many)`` is no smaller than ln of the chance of any n in between, and it is that where both are
    the same n. So whole stretches are passed over, and what remains is exact.
    """
    if few > many or log_bound(few, many) <= log_level:
        return few - 1
    if few == many:
        return few
    middle = (few + many) // 2
    found = _last_above(log_level, log_bound, middle + 1, many)
    return found if found > middle else _last_above(log_level, log_bound, few, middle)


def _log_deviation(few: int, many: int, p: float, b: float) -> float:
    """An upper bound of ln P(|X / n - p| >= b) for all n in few..many, and its value where these are the same.

    More draws have more successes: no n has a larger upper tail than ``many`` draws above the threshold of ``few``, nor
    a larger lower tail than ``few`` draws below that of ``many``. Counts at the edge are taken to be outside.
    """
    low, high = math.floor(many * (p - b) + 1e-9), math.ceil(few * (p + b) - 1e-9)
    lower = -math.inf if low < 0 else log_lower_tail(min(low, few), few, p)
    upper = -math.inf if high > many else log_upper_tail(high, many, p)
    return min(0.0, float(np.logaddexp(lower, upper)))


def _log_worst_deviation(few: int, many: int, b: float) -> float:
    """The same for the worst p.

    With n <= many examples of which n (p + b) are wrong, at least few (p + b) of ``many`` are: a share that is off by
    b - (1 + b) (many - few) / many or more, to either side alike.
    """
    if few == many:
        return log_largest_deviation(many, b, sides=2)
    tolerance = b - (1 + b) * (many - few) / many - 1e-12
    return log_largest_deviation(many, tolerance, sides=2) if tolerance > 0 else 0.0
