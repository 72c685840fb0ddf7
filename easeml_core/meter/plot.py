"""The plot of a replay: measured gaps with their tolerance over coloured ranges. Needs matplotlib, and no display.

It shows gaps, which depend on the sealed set: it is the referee's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.config import MeterConfig
    from easeml_core.meter.replay import Replay

SUFFIXES = (".png", ".svg", ".pdf")
GREEN, YELLOW, RED = "#009e73", "#e69f00", "#d55e00"
"""Of Okabe and Ito's palette, which colour-blind people can tell apart."""


def check_plot(path: Path) -> None:
    """See that a plot can be written there.

    Raises:
        InvalidInputError: If matplotlib is not installed, the kind of file is unknown, or its folder is not there.
    """
    if path.suffix.lower() not in SUFFIXES:
        message = f"a plot's name must end in one of {', '.join(SUFFIXES)}, got {path.name!r}"
        raise InvalidInputError(message)
    if not path.parent.is_dir():
        message = f"a plot cannot be written to {path}: there is no folder {path.parent}; make it first"
        raise InvalidInputError(message)
    _figure()


def plot_replay(found: Replay, config: MeterConfig, path: Path) -> None:
    """Draw the measured gaps of the answered submissions, each with its tolerance, and the ranges behind them.

    Raises:
        InvalidInputError: If matplotlib is missing, or the file cannot be written.
    """
    figure, axes = _figure()
    gaps = [reading.gap for _, reading in found.readings]
    tolerances = [reading.tolerance_now for _, reading in found.readings]
    reach = [g + s * t for g, t in zip(gaps, tolerances, strict=True) for s in (-1, 1)] or [0.0]
    low, high = min(*reach, 0.0) - 0.02, max(*reach, config.ranges[-1]) + 0.05
    edges = (low, *(b for b in config.ranges if low < b < high), high)
    first = sum(b <= low for b in config.ranges)
    for i, (bottom, top) in enumerate(pairwise(edges), start=first):
        colour = GREEN if i == 0 else RED if i == len(config.ranges) else YELLOW
        axes.axhspan(bottom, top, color=colour, alpha=0.12, linewidth=0)
        if bottom > low:
            axes.axhline(bottom, color=colour, linewidth=0.8)
    positions = range(1, len(gaps) + 1)
    axes.errorbar(positions, gaps, yerr=tolerances, fmt="o", color="black", markersize=3, linewidth=0.8)
    if found.retired_at is not None:
        axes.axvline(len(gaps) + 0.5, color="black", linestyle=":", linewidth=1)
        axes.text(len(gaps) + 0.5, high, "retired ", va="top", ha="right", fontsize=9)
    axes.set_ylim(low, high)
    axes.set_xlabel("answered submission")
    axes.xaxis.get_major_locator().set_params(integer=True)  # there is no half submission
    axes.set_ylabel("gap: loss on the sealed set minus validation loss")
    axes.set_title(f"{config.method}, {config.tail}: measured gap +/- tolerance, ranges by colour", fontsize=10)
    try:
        figure.savefig(path)
    except OSError as error:
        message = f"the plot cannot be written to {path}: {error.strerror or error}; give another --plot"
        raise InvalidInputError(message) from error


def _figure() -> tuple[Any, Any]:
    """An empty figure and its axes, without any window."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = f"a plot needs matplotlib ({error}); install it with: pip install 'easeml-airflow[plot]'"
        raise InvalidInputError(message) from error
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
