"""The reservation of one trial: enough to finish in most cases, small enough to let others run beside it.

A budget is spent in leases of a device. A trial of a study with a budget, or of a tenant with a quota, reserves

    limit = min(left, min(n * time_limit, max(4 * predicted, left / 8, n * 10 s)) + n * grace)

device seconds for all its attempts together, where it holds n devices, or a part n of one; what it does not take is
returned when it ends. Where nothing was ever measured there is no prediction, and the trial reserves its full time
limit. The grace is for the start, checks and stop of the process. No lease outlasts the reservation, so a worker that
freezes, or is stopped too late, loses the trial; a lost attempt is charged with the time its lease held the device.
"""

from __future__ import annotations

import math

GRACE_SECONDS = 1.0
"""Wall seconds beside the training itself."""

_FACTOR = 4.0  # a prediction of the log-linear cost model is rarely off by more
_SHARE = 1 / 8
_LEAST_SECONDS = 10.0  # starting Python and loading its libraries alone may take that on a busy machine
_MILLISECOND = 1e-3
_MICROSECOND = 1e-6


def reservation(
    *, left: float, time_limit_seconds: float, predicted_seconds: float | None, devices: float = 1.0
) -> float | None:
    """Return the device seconds to reserve for a trial, or None when the rest is too little to finish it.

    Args:
        left: Device seconds that are neither used nor reserved.
        time_limit_seconds: The study's limit for one trial, wall seconds > 0.
        predicted_seconds: Predicted cost of the trial, device seconds; None when nothing was ever measured.
        devices: How many devices the trial holds, > 0.

    Returns:
        At most ``left``, rounded down to milliseconds, so that rounding never makes a sum exceed a budget.

    Example:
        >>> reservation(left=3600.0, time_limit_seconds=600.0, predicted_seconds=30.0)
        451.0
        >>> reservation(left=100.0, time_limit_seconds=600.0, predicted_seconds=5.0)
        21.0
        >>> reservation(left=3.0, time_limit_seconds=600.0, predicted_seconds=5.0) is None
        True
        >>> reservation(left=3600.0, time_limit_seconds=600.0, predicted_seconds=None, devices=4.0)
        2404.0
    """
    longest, least = devices * time_limit_seconds, devices * _LEAST_SECONDS
    expected = 0.0 if predicted_seconds is None else min(predicted_seconds, longest)
    generous = max(_FACTOR * expected, _SHARE * left, least) if predicted_seconds is not None else math.inf
    wanted = min(longest, generous) + devices * GRACE_SECONDS
    limit = wanted if wanted < left else math.floor(1000 * (left - _MILLISECOND)) / 1000
    is_enough = limit >= 2 * _MILLISECOND and devices * training_seconds(limit / devices) >= expected - _MICROSECOND
    return limit if is_enough else None


def renewal(
    *,
    limit: float,
    lost: float,
    left: float,
    time_limit_seconds: float,
    devices: float = 1.0,
    before: float | None = None,
) -> float | None:
    """Return the reservation of a trial that is suggested again, lost attempts included; None when it is not worth it.

    Another attempt gets as much as the trial had from the beginning, as far as that is left.

    Args:
        limit: Seconds that are reserved for it now.
        lost: Seconds of them that lost attempts took.
        left: Seconds >= 0 that are neither used nor reserved, of any trial.
        time_limit_seconds: The study's limit for one trial, wall seconds.
        devices: How many devices the trial holds, > 0.
        before: How many it was to hold when the limit was set; None for as many.

    Returns:
        Exactly ``limit`` where it differs by rounding alone; more only where more is left.

    Example:
        >>> renewal(limit=100.0, lost=40.0, left=1000.0, time_limit_seconds=600.0)
        140.0
        >>> renewal(limit=100.0, lost=40.0, left=10.0, time_limit_seconds=600.0)
        109.999
        >>> renewal(limit=100.0, lost=99.0, left=0.0, time_limit_seconds=600.0) is None
        True
        >>> renewal(limit=100.0000004, lost=40.0, left=0.0, time_limit_seconds=600.0)
        100.0000004
        >>> renewal(limit=601.0, lost=0.0, left=1000.0, time_limit_seconds=600.0, devices=2.0, before=1.0)
        1202.0
    """
    scale = 1.0 if before is None else devices / before
    if lost == 0 and scale == 1:
        return limit
    wanted = min(limit * scale, devices * (time_limit_seconds + GRACE_SECONDS))
    attempt = min(wanted, limit - lost if left <= _MILLISECOND else limit - lost + left - _MILLISECOND)
    if attempt < min(wanted, 2 * devices * GRACE_SECONDS):
        return None
    renewed = round(lost + attempt, 6)
    return limit if abs(renewed - limit) <= _MICROSECOND else renewed


def training_seconds(limit_seconds: float) -> float:
    """Return the longest training within a reservation: all but the grace, and at least half of a short one.

    Both are wall seconds.
    """
    return max(limit_seconds - GRACE_SECONDS, limit_seconds / 2)
