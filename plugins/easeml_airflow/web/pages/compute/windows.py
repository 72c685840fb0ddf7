"""The times that the compute page looks back: each in words, and as an axis."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from easeml_core.services.reports.compute import WINDOWS

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """How far back a look goes.

    Attributes:
        span: So far.
        unit: What its axes count, ``HOUR`` or ``DAY``.
        marks: Into how many parts an axis is cut.
        step: Time from one round moment of the lanes to the next.

    Example:
        >>> SHOWN["6h"].word, SHOWN["7d"].word, SHOWN["7d"].length
        ('6 hours', '7 days', 7)
    """

    span: timedelta
    unit: timedelta
    marks: int
    step: timedelta

    @property
    def length(self) -> int:
        """Of the span, in units."""
        return self.span // self.unit

    @property
    def is_by_day(self) -> bool:
        """Whether days are counted, not hours."""
        return self.unit == DAY

    @property
    def word(self) -> str:
        """The span in words."""
        return f"{self.length} {'days' if self.is_by_day else 'hours'}"


_LOOKS = {"6h": (HOUR, 6, HOUR), "24h": (HOUR, 6, 4 * HOUR), "7d": (DAY, 7, DAY)}

SHOWN = {key: Window(span, *_LOOKS[key]) for key, (span, _) in WINDOWS.items()}
"""By the keys of ``services.compute.WINDOWS``."""
