"""Two plots of devices: how many trained over time, and what an hour of one was worth."""

from __future__ import annotations

from statistics import median, quantiles
from typing import TYPE_CHECKING

from easeml_airflow.web.components.charts import Axis, Band, Dot, Line, Note, Plot, nice_axis
from easeml_airflow.web.pages.compute.lanes import SHOWN
from easeml_airflow.web.server.formats import MINUS
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from easeml_airflow.web.pages.compute.lanes import Window
    from easeml_core.services.reports.compute import ComputeReport
    from easeml_core.store.queries.compute import BusyDevices

HUNDRED = 100
LAST = 20
"""Choices whose worth the title tells."""


def _time_axis(window: Window) -> Axis:
    """Hours, or days, before now: the same in every zone."""
    span, marks, unit = window.length, window.marks, "d" if window.is_by_day else "h"
    ticks = [(-k * span / marks, f"{MINUS}{k * span // marks} {unit}" if k else "now") for k in range(marks, -1, -1)]
    return Axis(-span, 0, ticks, "")


def _few(number: float) -> str:
    """A mean of devices, with two figures where it is below one.

    Example:
        >>> _few(7.84), _few(0.0), _few(0.0213)
        ('7.8', '0', '0.021')
    """
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def _figures(number: float) -> str:
    """A worth of compute with three figures: it may be a thousand an hour, or a thousandth.

    Example:
        >>> _figures(13.9642), _figures(0.0021377), _figures(1834.2), _figures(0.0)
        ('14', '0.00214', '1,834', '0')
    """
    return f"{number:,.0f}" if abs(number) >= HUNDRED else f"{number:.3g}"


def busy_plot(parts: Sequence[BusyDevices], window: Window, *, is_all: bool) -> tuple[Plot, list[tuple[str, str]]]:
    """Return devices that trained over time: of all tenants, and of the viewer where that is less.

    Args:
        parts: As of ``store.queries.compute.busy``.
        window: Over which they were read.
        is_all: Whether the viewer sees all tenants.

    Returns:
        The plot, and the same in figures.
    """
    x = _time_axis(window)
    width = -x.low / max(1, len(parts))
    places = [x.low + (k + 0.5) * width for k in range(len(parts))]
    every, own = [p.devices for p in parts], [p.own for p in parts]
    shown = every if is_all else own
    mean = sum(shown) / len(shown) if shown else 0.0
    whose = "" if is_all else " for you"
    title = f"On average {_few(mean)} devices trained{whose} over the last {window.word}"
    axis = nice_axis([0, 1, *every], title="devices training")
    lines = [Line(list(zip(places, shown, strict=True)), "ln k3")]
    if not is_all:
        lines.insert(0, Line(list(zip(places, every, strict=True)), "ln kf thin dash"))
    plot = Plot(
        title=title,
        sentence=f"{title}; most at once {_few(max(shown, default=0))}, least {_few(min(shown, default=0))}.",
        x=x,
        y=axis,
        bands=[Band([(place, 0, value) for place, value in zip(places, shown, strict=True)], "a3")],
        lines=lines,
        height=196,
        key=() if is_all else (("line", "ln k3", "yours"), ("line", "ln kf thin dash", "of all tenants")),
    )
    pairs = [("Mean", _few(mean)), ("Most", _few(max(shown, default=0))), ("Least", _few(min(shown, default=0)))]
    return plot, [(f"{word} of devices training", value) for word, value in pairs]


def gains_plot(report: ComputeReport) -> Plot | None:
    """What each choice promised for an hour of a device, against the price of one; None without any choice."""
    gains, now, since = report.gains, report.now, report.since
    if not gains:
        return None
    window = SHOWN[report.window]
    x = _time_axis(window)

    def place(moment: datetime) -> float:
        return max(x.low, float((moment - now) / window.unit))

    values = [g.gain_per_hour for g in gains]
    top = min(max(values), 1.5 * quantiles(values, n=5)[-1]) if len(values) >= LAST else max(values)
    prices = report.prices
    price = prices[-1].per_hour
    y = nice_axis([0, top, price], title="gain of quality per device-hour")
    usual = median(values[:LAST])
    steps = [(place(p.at), min(p.per_hour, y.high)) for p in prices if p.at > since]
    before = [p.per_hour for p in prices if p.at <= since]
    line = [(x.low, before[-1] if before else 0.0), *steps]
    latest = "The last choice" if len(values) == 1 else f"The last {min(LAST, len(values))} choices"
    worth = f"{latest} promised {_figures(usual)} of quality per device-hour"
    title = f"{worth}; the price is {_figures(price)}" if price else worth
    return Plot(
        title=title,
        sentence=f"{title}. {counted(len(values), 'choice')}, from {_figures(min(values))} to {_figures(max(values))}; "
        f"{sum(v > y.high for v in values)} stand at the upper edge and are worth more.",
        x=x,
        y=y,
        lines=[Line(line, "ln thin dash kf", step=True)] if price else (),
        dots=[
            Dot(
                place(g.at),
                min(g.gain_per_hour, y.high),
                f"{g.study}, {g.candidate}: {_figures(g.gain_per_hour)} per device-hour"
                + (", by the guard" if g.guarded else ""),
                "f3" if g.guarded else "f1",
                3,
            )
            for g in gains
        ],
        notes=[Note(0, price, f"price {_figures(price)}", "t", "end", -4, -6)] if price else (),
        height=196,
        key=(("dot", "f1", "a choice by worth"), ("dot", "f3", "by the guard")),
    )
