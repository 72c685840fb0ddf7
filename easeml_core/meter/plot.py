"""Plots of the meter: a replayed history, and what a set needs by each method. Needs matplotlib, and no display.

A replay shows gaps, which depend on the sealed set: it is the referee's.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from easeml_core.display import COLOURS, Bar, draw_bars, empty_figure, entitle
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.config import MeterConfig
    from easeml_core.entities import JsonObject
    from easeml_core.meter.history import Replay
    from easeml_core.meter.planner import MeterPlan

GREEN, YELLOW, RED = COLOURS[2], COLOURS[4], COLOURS[1]
_WHY = {"tolerance": "one more answer would be too vague", "steps": "all submissions are used"}


def draw_replay(found: Replay, config: MeterConfig) -> Any:
    """The measured gaps of the answered submissions, each with its tolerance, and the ranges behind them.

    Returns:
        The figure, for ``display.figures.save_figure``.

    Raises:
        InvalidInputError: If matplotlib is missing.
    """
    figure, axes = empty_figure(height=4.8, grid=False)
    gaps = [reading.gap for _, reading in found.readings]
    tolerances = [reading.tolerance_now for _, reading in found.readings]
    reach = [g + s * t for g, t in zip(gaps, tolerances, strict=True) for s in (-1, 1)] or [0.0]
    low, high = min(*reach, 0.0) - 0.02, max(*reach, config.ranges[0]) + 0.05
    _draw_ranges(axes, config.ranges, low, high)
    positions = range(1, len(gaps) + 1)
    axes.errorbar(positions, gaps, yerr=tolerances, fmt="o", color="black", markersize=4, linewidth=1, capsize=2)
    if found.retired_at is not None:
        axes.axvline(len(gaps) + 0.5, color="black", linestyle=":", linewidth=1)
        why = _WHY.get(found.why, f"the method {config.method} ends it")
        text = f"set retired:\n{why}"
        axes.text(len(gaps) + 0.45, high, text, va="top", ha="right", fontsize=9, linespacing=1.2)
    axes.set_ylim(low, high)
    axes.set_xlim(0.4, len(gaps) + 0.9)
    axes.set_xlabel("submission, in the order of the history")
    axes.xaxis.get_major_locator().set_params(integer=True)  # there is no half submission
    axes.set_ylabel("gap: share wrong on the sealed set\nminus validation loss")
    how = f"dots: measured gap, whiskers: tolerance; {config.method}, {config.tail}, reliability {config.reliability:g}"
    entitle(figure, _summary(found), how)
    return figure


def _draw_ranges(axes: Any, ranges: Sequence[float], low: float, high: float) -> None:
    """A coloured band for each range that is in sight, with its signal at the right edge."""
    edges = (low, *(b for b in ranges if low < b < high), high)
    first = sum(b <= low for b in ranges)
    for i, (bottom, top) in enumerate(pairwise(edges), start=first):
        colour = GREEN if i == 0 else RED if i == len(ranges) else YELLOW
        axes.axhspan(bottom, top, color=colour, alpha=0.14, linewidth=0)
        if bottom > low:
            axes.axhline(bottom, color=colour, linewidth=0.8)
        place = axes.get_yaxis_transform()
        axes.text(1.01, (bottom + top) / 2, f"signal {i + 1}", transform=place, va="center", fontsize=9)


def _summary(found: Replay) -> str:
    """The answers in one sentence, and what ended them."""
    counts = Counter(reading.signal for _, reading in found.readings)
    signals = ", ".join(f"{many} x signal {signal}" for signal, many in sorted(counts.items()))
    answered = f"{counted(len(found.readings), 'submission')} answered" + (f": {signals}" if signals else "")
    if found.retired_at is None:
        return f"{answered}; the set can go on"
    return f"{answered}; submission {found.retired_at} got no answer: the set is used up"


def draw_meter_plan(found: MeterPlan, others: Sequence[MeterPlan], settings: JsonObject) -> Any:
    """Bars of the labels that each method needs for the same promise.

    Args:
        found: The plan that was asked for.
        others: The same by all other methods.
        settings: Ranges, tolerance, reliability and steps.

    Returns:
        The figure, for ``display.figures.save_figure``.

    Raises:
        InvalidInputError: If matplotlib is missing.
    """
    bars = [Bar(plan.method, plan.labels, chosen=plan is found) for plan in (found, *others)]
    least = min(others, key=lambda plan: plan.labels, default=found)
    finding = (
        f"{found.method} needs {counted(found.labels, 'labelled example')} for "
        f"{counted(settings['steps'], 'submission')}"
    )
    if least.labels < found.labels:
        finding += f"; the fewest are {least.labels:,} by {least.method}, on other terms"
    ranges = ", ".join(f"{boundary:g}" for boundary in settings["ranges"])
    how = (
        f"boundaries {ranges}; tolerance {settings['tolerance']:g}, reliability {settings['reliability']:g}, "
        f"{found.tail}; blue: as asked; grey: other methods, whose promises differ (docs/meter.md)"
    )
    return draw_bars(bars, unit="labelled examples of the sealed set", finding=finding, how=how)
