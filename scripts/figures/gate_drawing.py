"""Plots of docs/gate.md: one look for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.canvas import COLOURS
from figures.pictures import FOLDER, embedded

if TYPE_CHECKING:
    from figures.gate_answers import GateRunner

__all__ = ["COLOURS", "canvas", "saved"]


def canvas(panels: int = 1) -> tuple[Any, list[Any]]:
    """An empty figure and its axes beside each other, without any window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * panels if panels > 1 else 7.2, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, panels, k + 1) for k in range(panels)]
    for each in axes:
        each.grid(visible=True, which="major", alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def saved(runner: GateRunner, figure: Any, name: str, title: str) -> str:
    """Save a plot where the page finds it, and embed it."""
    figure.savefig(runner.folder / FOLDER / name)
    return embedded(name, title)
