"""Numbers, times and states as people read them, each with its unit or its symbol; filters of the templates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from easeml_core.entities import Symbol
from easeml_core.errors import counted
from easeml_core.formats.display import span, with_unit
from easeml_core.services.reports.recommendations import Severity, Standing, StepKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from easeml_core.services.reports.recommendations import Step
    from easeml_core.store.tables.datasets import RefreshEntry


@dataclass(frozen=True, slots=True)
class Mark:
    """A state as a shape, a colour and a word.

    Example:
        >>> Mark(*VERDICTS[Symbol.PASS])
        Mark(colour='ok', shape='pass', word='Pass')
    """

    colour: str
    shape: str
    word: str


VERDICTS = {
    Symbol.PASS: ("ok", "pass", "Pass"),
    Symbol.FAIL: ("bad", "fail", "Fail"),
    Symbol.WITHHELD: ("idle", "lock", "Withheld"),
}

WAITS = Mark("idle", "wait", "Waits for the answer")
REFUSED = Mark("warn", "alert", "Refused")
"""How far a request is that has no answer to tell of."""

STANDINGS = {
    Standing.SEARCHING: ("busy", "run", "Searching"),
    Standing.FINISHED: ("ok", "done", "Finished"),
    Standing.PAUSED: ("idle", "pause", "Paused"),
}

STEPS = {
    StepKind.REFUSED: ("alert", "Refused"),
    StepKind.REFEREE: ("hour", "No answer"),
    StepKind.NOT_HELD: ("alert", "Did not hold"),
    StepKind.NO_SET: ("lock", "Set used up"),
    StepKind.OVERFITTING: ("alert", "Overfitting"),
    StepKind.DRIFT: ("alert", "Drift"),
    StepKind.SET_SERVED: ("lock", "New set wanted"),
    StepKind.LOST: ("chip", "Worker lost"),
    StepKind.LABELS: ("tag", "Labels wanted"),
    StepKind.PROMOTE: ("person", "Promotion"),
    StepKind.SET_NEARLY_SPENT: ("lock", "Set nearly spent"),
    StepKind.IMPLEMENTATION: ("chip", "No executor"),
    StepKind.BUDGET: ("hour", "Budget spent"),
    StepKind.SEALING: ("wait", "Being sealed"),
    StepKind.PAUSED: ("pause", "Paused"),
    StepKind.COMPUTE: ("bolt", "Compute"),
    StepKind.HAND_IN: ("right", "Hand in"),
    StepKind.VALIDATION: ("hour", "Validation data"),
    StepKind.ARCHIVED: ("off", "Archived"),
}
"""What a step is about: its symbol, and the word for it in the place of a study's state."""

ACTS = {
    StepKind.REFUSED: "Register again",
    StepKind.REFEREE: "Look",
    StepKind.NOT_HELD: "Open trial",
    StepKind.NO_SET: "Seal a new set",
    StepKind.OVERFITTING: "Open meter",
    StepKind.DRIFT: "Open meter",
    StepKind.SET_SERVED: "Seal a set",
    StepKind.LOST: "Open compute",
    StepKind.LABELS: "Open desk",
    StepKind.PROMOTE: "Review",
    StepKind.SET_NEARLY_SPENT: "Plan a set",
    StepKind.BUDGET: "Raise or finish",
    StepKind.VALIDATION: "Open data",
    StepKind.HAND_IN: "Submissions",
}
"""The word of the button; others say "Open"."""


def mark_of(steps: Sequence[Step], standing: Standing) -> Mark:
    """Return the state of a study; where it needs a person, what for."""
    step = steps[0]
    if standing is Standing.NEEDS:
        return Mark("bad" if step.severity is Severity.BAD else "warn", *STEPS[step.kind])
    if step.kind is StepKind.SEALING:
        return Mark("busy", *STEPS[step.kind])
    if step.kind is StepKind.ARCHIVED:
        return Mark("idle", *STEPS[step.kind])
    return Mark(*STANDINGS[standing])


FEEDS = {
    "waiting": Mark("busy", "wait", "waits for a refresh"),
    "taken": Mark("ok", "pass", "taken"),
    "refused": Mark("bad", "fail", "refused"),
}
"""By the state of a feed."""


def refresh_mark(refresh: RefreshEntry) -> Mark:
    """Return the state of a refresh."""
    if refresh.answered_at is None:
        return Mark("busy", "wait", "waits for the referee")
    if refresh.refused:
        return Mark("bad", "fail", "refused")
    if refresh.version:
        return Mark("ok", "pass", f"version {refresh.version}")
    return Mark("idle", "done", "nothing new")


MINUS = "\N{MINUS SIGN}"

HOUR_FROM_SECONDS = 600.0
"""Gains are shown per device-hour where trials take this long, else per device-minute."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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


def expected_text(gain: float) -> str:
    """A gain that is expected, with its sign; never rounded to none.

    Example:
        >>> expected_text(0.0022), expected_text(1.4e-6), expected_text(0.0)
        ('+0.0022', 'under +0.0001', '+0.0000')
    """
    return "under +0.0001" if 0 < gain < 0.00005 else gain_text(gain)


def signed(value: float) -> str:
    """Four decimals with a real minus sign.

    Example:
        >>> signed(-0.01)
        '−0.0100'
    """
    return f"{value:.4f}".replace("-", MINUS)


def number_text(number: float) -> str:
    """A number of any size, four digits behind the point or two that count.

    Example:
        >>> number_text(0.00304), number_text(0.000012), number_text(17.8)
        ('0.0030', '0.000012', '17.8000')
        >>> number_text(2.5e-9), number_text(-2.6e-29)
        ('2.5·10⁻⁹', '−2.6·10⁻²⁹')
    """
    if abs(number) >= 0.00095 or number == 0:
        return f"{number:.4f}"
    if abs(number) >= 1e-6:
        return f"{Decimal(f'{number:.2g}'):f}"
    return ("\N{MINUS SIGN}" if number < 0 else "") + power_text(math.log(abs(number)))


def power_text(log_value: float) -> str:
    """A positive number given by its natural logarithm, however small or large.

    Example:
        >>> power_text(math.log(3.1e-6)), power_text(-1000.0), power_text(math.log(12.5))
        ('3.1·10⁻⁶', '5.1·10⁻⁴³⁵', '12.5')
        >>> power_text(math.log(0.05)), power_text(math.log(9.96e-6))
        ('0.05', '1.0·10⁻⁵')
    """
    if abs(log_value) < math.log(1000):
        return f"{math.exp(log_value):.3g}"
    exponent = math.floor(log_value / math.log(10))
    mantissa = f"{math.exp(log_value - exponent * math.log(10)):.1f}"
    if mantissa == "10.0":
        mantissa, exponent = "1.0", exponent + 1
    return f"{mantissa}·10{str(exponent).translate(_SUPERSCRIPTS)}"


def percent_text(share: float) -> str:
    """A share in [0, 1].

    Example:
        >>> percent_text(0.056)
        '5.6 %'
    """
    return f"{100 * share:.1f} %"


def chance_text(chance: float) -> str:
    """A probability in per cent; never rounded to certainty.

    Example:
        >>> chance_text(0.3127), chance_text(0.99999), chance_text(1e-9), chance_text(0.0)
        ('31.3 %', 'over 99.9 %', 'under 0.1 %', '0.0 %')
    """
    if 0.999 < chance < 1:
        return "over 99.9 %"
    return "under 0.1 %" if 0 < chance < 0.001 else percent_text(chance)


def unit_of(seconds: float) -> tuple[float, str]:
    """Return the unit of time of gains, in seconds, and its name."""
    return (3600.0, "device-hour") if seconds >= HOUR_FROM_SECONDS else (60.0, "device-minute")


def time_tag(moment: datetime | None, style: str = "minute") -> str:
    """A moment as an element that the page's script shows in the viewer's zone; without it, in UTC."""
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
    return span(timedelta(seconds=max(seconds, 0)))


def sentence_case(text: str) -> str:
    """The text with a large first letter; the rest of it stays as it is.

    Example:
        >>> sentence_case("the set is sealed by Ada"), sentence_case("")
        ('The set is sealed by Ada', '')
    """
    return text[:1].upper() + text[1:]


def sentence_text(text: str) -> str:
    """The text as a sentence: with a large first letter and a full stop.

    Example:
        >>> sentence_text("it needs a condition"), sentence_text("It waits.")
        ('It needs a condition.', 'It waits.')
    """
    return sentence_case(text) + ("" if text.endswith(".") else ".")


def code_text(text: str) -> Markup:
    """The text with what stands between two backticks as code.

    Example:
        >>> str(code_text("run `easeml referee` <now>"))
        'run <code>easeml referee</code> &lt;now&gt;'
    """
    parts = text.split("`")
    pairs = zip(parts[::2], parts[1::2], strict=False)
    marked = Markup("").join(Markup("{}<code>{}</code>").format(plain, code) for plain, code in pairs)
    return marked + (parts[-1] if len(parts) % 2 else "")


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
    "code": code_text,
    "seconds": seconds_text,
    "quality": quality_text,
    "gain": gain_text,
    "percent": percent_text,
    "power": power_text,
    "sentence_case": sentence_case,
    "sentence": sentence_text,
    "count_of": counted,
    "with_unit": with_unit,
    "time": time_tag,
    "age": age_text,
    "source": source_text,
    "feed_mark": FEEDS.__getitem__,
    "refresh_mark": refresh_mark,
}
