"""The plot of a replay: measured gaps with their tolerance over coloured ranges. Needs matplotlib, and no display.

It shows gaps, which depend on the sealed set: it is the referee's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from easeml_core.canvas import empty_figure, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.config import MeterConfig
    from easeml_core.meter.replay import Replay

GREEN, YELLOW, RED = "#009e73", "#e69f00", "#d55e00"
"""Of Okabe and Ito's palette, which colour-blind people can tell apart."""


def plot_replay(found: Replay, config: MeterConfig, path: Path) -> None:
    """Draw the measured gaps of the answered submissions, each with its tolerance, and the ranges behind them.

    Raises:
        InvalidInputError: If matplotlib is missing, or the file cannot be written.
    """
    figure, axes = empty_figure(height=4.5, grid=False)
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
    save_figure(figure, path)
