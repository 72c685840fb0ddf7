"""Device time, and other spans of time, as text in the largest unit that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

_UNITS = ((7200.0, 3600.0, "hour"), (120.0, 60.0, "minute"))
"""From so many seconds on, the unit and its seconds; below, a second."""


def device_time(seconds: float, *, of: float | None = None) -> str:
    """Device time, >= 0, with its unit; where it is a part of something, both in the unit of the larger.

    Args:
        seconds: Of device time.
        of: Of which it is a part, such as a budget; None for nothing.

    Example:
        >>> device_time(5220), device_time(86_400, of=86_400), device_time(2.5, of=2.5), device_time(1)
        ('87 device-minutes', '24 of 24 device-hours', '2.5 of 2.5 device-seconds', '1 device-second')
        >>> device_time(30, of=86_400)
        'under 0.1 of 24 device-hours'
    """
    largest = max(seconds, of or 0.0)
    size, unit = next(((size, unit) for least, size, unit in _UNITS if largest >= least), (1.0, "second"))
    numbers = [_number(seconds / size), *([] if of is None else [_number(of / size)])]
    return f"{' of '.join(numbers)} device-{unit}{'' if numbers[-1] == '1' else 's'}"


def _number(amount: float) -> str:
    """One digit behind the point where it counts; some is never told as none."""
    return "under 0.1" if 0 < amount < 0.05 else f"{amount:,.1f}".removesuffix(".0")


def span(time: timedelta) -> str:
    """Return a span of time in its largest unit."""
    seconds = time.total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
