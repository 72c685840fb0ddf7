"""Numbers and times as people read them, each with its unit; filters of the templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

MINUS = "\N{MINUS SIGN}"


def seconds_text(seconds: float) -> str:
    """Device time with its unit: seconds, minutes or hours.

    Example:
        >>> seconds_text(4.2), seconds_text(150), seconds_text(9000)
        ('4.2 s', '2.5 min', '2.5 h')
    """
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 3600:,.1f} h"


def quality_text(quality: float | None) -> str:
    """Quality in [0, 1] with four decimals, or that there is none.

    Example:
        >>> quality_text(0.93928), quality_text(None)
        ('0.9393', 'none yet')
    """
    return "none yet" if quality is None else f"{quality:.4f}"


def gain_text(gain: float) -> str:
    """A difference of two qualities with its sign.

    Example:
        >>> gain_text(0.0022), gain_text(-0.01)
        ('+0.0022', '−0.0100')
    """
    return f"{'+' if gain >= 0 else MINUS}{abs(gain):.4f}"


def percent_text(share: float) -> str:
    """A share in [0, 1].

    Example:
        >>> percent_text(0.056)
        '5.6 %'
    """
    return f"{100 * share:.1f} %"


def time_tag(moment: datetime | None, style: str = "minute") -> str:
    """A moment as an element that the page's script shows in the viewer's zone; without it, in UTC.

    Args:
        moment: With its zone; None gives a dash.
        style: ``minute`` (date and minute), ``clock`` (hour and second) or ``day``.
    """
    if moment is None:
        return Markup('<span class="faint">never</span>')
    shown = {"minute": "%Y-%m-%d %H:%M UTC", "clock": "%H:%M:%S UTC", "day": "%Y-%m-%d"}[style]
    return Markup('<time datetime="{}" data-style="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), style, moment.strftime(shown)
    )


def age_text(seconds: float) -> str:
    """How long ago, in the largest unit that gives at least one.

    Example:
        >>> age_text(12), age_text(600), age_text(7300), age_text(200_000)
        ('12 s', '10 min', '2 h', '2 d')
    """
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def source_text(source: str) -> str:
    """Where data come from; of what was uploaded the file's own name and the day, not its hash.

    Example:
        >>> source_text("csv:upload:2026-08-01/0123/flowers.csv"), source_text("sklearn:digits")
        ('flowers.csv, uploaded 2026-08-01', 'sklearn:digits')
    """
    _, is_upload, name = source.partition(":upload:")
    day, _, file = name.partition("/")
    return f"{file.rpartition('/')[2]}, uploaded {day}" if is_upload else source


FILTERS: dict[str, Callable[..., Any]] = {
    "seconds": seconds_text,
    "quality": quality_text,
    "gain": gain_text,
    "percent": percent_text,
    "count_of": counted,
    "time": time_tag,
    "age": age_text,
    "source": source_text,
}
