"""The price of compute as its panel shows it: how many studies go on at which price, and what another would change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_airflow.web.components.charts import Axis, Dot, Line, Note, Plot, nice_axis
from easeml_airflow.web.server.formats import seconds_text
from easeml_airflow.web.server.site import path_of_study
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.services.selection.beliefs import StoppingPrice, StoppingPrices

STEPS = 200
"""Places of the slider."""

NOTHING = 1e-6
"""Of quality for an hour of a device: less counts as 0."""

NAMED = 5
ROWS = 25
_EXAMPLE = 0.1
"""Share of the studies that an example of another price stops."""


@dataclass(frozen=True, slots=True)
class Slider:
    """The price that is tried out, for an hour of a device."""

    value: str
    step: str
    high: str
    percent: float
    shown: str


@dataclass(frozen=True, slots=True)
class Row:
    """A study with the price above which it stops."""

    study: str
    path: str
    stops_above: str
    used: str
    goes_on: bool


@dataclass(frozen=True, slots=True)
class Pricing:
    """What the panel shows; without a plot the title says why there is none."""

    title: str
    plot: Plot | None = None
    slider: Slider | None = None
    effect: str = ""
    named: Sequence[tuple[str, str]] = ()
    more: int = 0
    rows: Sequence[Row] = ()
    total: int = 0
    command: str = ""
    note: str = ""


def pricing_of(prices: StoppingPrices | None, asked: float | None) -> Pricing:
    """The panel."""
    if prices is None:
        return Pricing("Another request uses the scheduler at this moment: reload in a while")
    studies, price = prices.studies, prices.price_per_hour
    if not prices.is_heeded:
        return Pricing(
            f"The policy in force, {prices.policy}, asks for no price: a study goes on while it has candidates"
        )
    if not studies:
        return Pricing("No study has anything left to run, at any price")
    if not prices.costs_known:
        return Pricing("Nothing has been measured yet, so the value of an hour of a device is unknown")
    tried = price if asked is None else asked
    axis = _axis([s.stops_above for s in studies], price)
    other = _example(studies, price) if asked is None else asked
    named = _between(studies, price, other)
    return Pricing(
        title=_title(studies, price),
        plot=_plot(studies, price, tried, axis),
        slider=_slider(tried, axis.high),
        effect=_effect(studies, price, other),
        named=[(s.study, path_of_study(s.study)) for s in named[:NAMED]],
        more=max(0, len(named) - NAMED),
        rows=[_row(s, tried) for s in reversed(studies[-ROWS:])],
        total=len(studies),
        command="" if tried == price else f"easeml policy set --price-per-second {tried / 3600:.6g} --reason",
        note=_without(prices.without),
    )


def _without(count: int) -> str:
    return f"{counted(count, 'more study has', 'more studies have')} nothing left to run." if count else ""


def _go_on(studies: Sequence[StoppingPrice], price: float) -> int:
    return sum(s.stops_above >= price for s in studies)


def _between(studies: Sequence[StoppingPrice], price: float, other: float) -> list[StoppingPrice]:
    """Those that go on at one of two prices alone, the nearest to the present price first."""
    low, high = sorted((price, other))
    found = [s for s in studies if low <= s.stops_above < high]
    return found[::-1] if other > price else found


def _example(studies: Sequence[StoppingPrice], price: float) -> float:
    """A price at which about a tenth of those that go on now would stop; where none does, one at which one would."""
    limits = sorted(s.stops_above for s in studies if s.stops_above >= price)
    if not limits:
        return _rounded(max(s.stops_above for s in studies), 0)
    return _rounded(limits[math.ceil(_EXAMPLE * len(limits)) - 1], 1)


def _rounded(price: float, up: int) -> float:
    """The next number of two figures below a price, or above it; 0 for next to nothing."""
    if price <= NOTHING:
        return 0.0
    power = 10.0 ** (math.floor(math.log10(price)) - 1)
    return float(f"{(math.floor(price / power + 1e-9) + up) * power:.3g}")


def _title(studies: Sequence[StoppingPrice], price: float) -> str:
    total, now = len(studies), _go_on(studies, price)
    if price == 0:
        return f"No price of compute is set: {'the one study goes' if total == 1 else f'all {total} studies go'} on"
    return f"At today\u2019s price of compute {now} of {counted(total, 'study goes', 'studies go')} on"


def _effect(studies: Sequence[StoppingPrice], price: float, other: float) -> str:
    """What the other price would change, in studies and in device time; their names come after it."""
    if other == price:
        return ""
    changed = _between(studies, price, other)
    if not changed:
        return f"At {price_text(other)}, the same {counted(_go_on(studies, price), 'study', 'studies')} would go on."
    count = counted(len(changed), "more study", "more studies")
    if other < price:
        return f"At {price_text(other)}, {count} would go on:"
    used = seconds_text(sum(s.seconds_day for s in changed))
    return f"At {price_text(other)}, {count} would stop; theirs were {used} of device time in the last 24 h:"


def _axis(limits: Sequence[float], price: float) -> Axis:
    """From 0 to where a third goes on, and beyond the present price: a few that promise much would press the others."""
    third = sorted(limits, reverse=True)[len(limits) // 3]
    high = max(1.2 * third if third > NOTHING else max(limits), 1.5 * price, NOTHING)
    return nice_axis([0, high], title="price, quality per device-hour", most=5)


def _plot(studies: Sequence[StoppingPrice], price: float, tried: float, x: Axis) -> Plot:
    total, limits = len(studies), sorted(s.stops_above for s in studies)
    points = [(0.0, float(total))]
    points += [(limit, float(total - k)) for k, limit in enumerate(limits, start=1) if limit <= x.high]
    points.append((x.high, points[-1][1]))
    middle = [(total // 2, str(total // 2))] if total > 3 else []
    y = Axis(0, total / 0.95, [(0, "0"), *middle, (total, str(total))], "studies that go on")
    now, then = _go_on(studies, price), _go_on(studies, tried)
    at = min(price, x.high)
    notes = [_note(at, now, f"now {price_text(price) if price else 'no price'}: {now} go on", x)]
    dots, marks = [Dot(at, now, f"now {price_text(price)}: {now} go on", "f1", 5)], [(at, "ln thin dash kf")]
    if tried != price:
        there = min(tried, x.high)
        marks.append((there, "ln thin k1"))
        dots.append(Dot(there, then, f"at {price_text(tried)}: {then} go on", "hole k1", 5))
        notes = [_note(there, then, f"{price_text(tried)}: {then} go on", x)]
    return Plot(
        title=_title(studies, price),
        sentence=f"Studies that go on, of {total}: {now} at the present price, {price_text(price)} of quality an hour "
        f"of a device; {then} at {price_text(tried)}, {int(points[-1][1])} at {price_text(x.high)}.",
        x=x,
        y=y,
        lines=[Line(points, "ln k1", step=True)],
        marks=marks,
        dots=dots,
        notes=notes,
        height=170,
    )


def _note(at: float, count: int, text: str, x: Axis) -> Note:
    """Beside its dot, on the side where there is room."""
    is_right = x.share(at) > 55
    return Note(at, count, text, "t", "end" if is_right else "start", -10 if is_right else 10, -6 if is_right else -4)


def _slider(value: float, high: float) -> Slider:
    shown = min(value, high)
    return Slider(f"{shown:.6g}", f"{high / STEPS:.6g}", f"{high:.6g}", round(100 * shown / high, 1), price_text(value))


def _row(study: StoppingPrice, price: float) -> Row:
    limit = study.stops_above
    used = seconds_text(study.seconds_day)
    return Row(study.study, path_of_study(study.study), price_text(limit), used, limit >= price)


def price_text(price: float) -> str:
    """A price with two or three figures.

    Example:
        >>> price_text(0.0006), price_text(13.9642), price_text(0), price_text(2514.2)
        ('0.0006', '14', '0', '2,514')
    """
    return f"{price:,.0f}" if price >= 100 else f"{price:.3g}"
