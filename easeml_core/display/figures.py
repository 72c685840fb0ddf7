"""What plots of different systems share: one look, no display, and errors before the work begins. Needs matplotlib.

A plot reads without a caption: its title is what was found, a small line at the foot says how, and lines and bars carry
their names and figures themselves.
"""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUFFIXES = (".png", ".svg", ".pdf")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's palette, which colour-blind people can tell apart; dashes tell further lines apart."""
CHOSEN, OTHER = COLOURS[0], "#b8c4cc"
_TITLE_WIDTH, _NOTE_WIDTH, _NAME_WIDTH = 78, 120, 44
_BAR_INCHES, _EDGE_INCHES = 0.42, 1.6


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        name: What it stands for; long ones are broken into lines.
        value: Its length, >= 0.
        chosen: Whether it is the one that was asked about.
        note: Behind the figure, such as ``in all``.
    """

    name: str
    value: int
    chosen: bool = False
    note: str = ""


def check_plot(path: Path) -> None:
    """See that a plot can be written there, before long work begins.

    Raises:
        InvalidInputError: If matplotlib is not installed, the kind of file is unknown, or its folder is not there.
    """
    if path.suffix.lower() not in SUFFIXES:
        message = f"a plot's name must end in one of {', '.join(SUFFIXES)}, got {path.name!r}"
        raise InvalidInputError(message)
    if not path.parent.is_dir():
        message = f"a plot cannot be written to {path}: there is no folder {path.parent}; make it first"
        raise InvalidInputError(message)
    empty_figure()


def empty_figure(*, height: float = 5.0, grid: bool = True) -> tuple[Any, Any]:
    """An empty figure, 8 by ``height`` inches, and its axes, without any window.

    Raises:
        InvalidInputError: If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = f"a plot needs matplotlib ({error}); install it with: pip install 'easeml-airflow[plot]'"
        raise InvalidInputError(message) from error

    class ShownFigure(Figure):
        """A figure that a notebook shows without pyplot, whose formatters IPython knows only once it is imported."""

        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png", dpi=100)
            return picture.getvalue()

    figure = ShownFigure(figsize=(8, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if grid:
        axes.grid(visible=True, which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """Write the figure.

    Raises:
        InvalidInputError: If the file cannot be written.
    """
    try:
        figure.savefig(path)
    except OSError as error:
        message = f"the plot cannot be written to {path}: {error.strerror or error}; give another --plot"
        raise InvalidInputError(message) from error


def entitle(figure: Any, finding: str, how: str) -> None:
    """Write what was found as the title, and how in small letters at the foot.

    Args:
        figure: As of ``empty_figure``.
        finding: A sentence that holds without the plot.
        how: Numbers of the protocol, what bands and marks are.
    """
    figure.suptitle(textwrap.fill(finding, _TITLE_WIDTH), x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel(textwrap.fill(how, _NOTE_WIDTH), x=0.01, ha="left", fontsize=9, color="#555555")


def draw_bars(bars: Sequence[Bar], *, unit: str, finding: str, how: str) -> Any:
    """Horizontal bars, shortest first, each with its name on the left and its figure behind it.

    Args:
        bars: At least one.
        unit: What the bars count, for the axis.
        finding: As of ``entitle``.
        how: As of ``entitle``.

    Returns:
        The figure, for ``save_figure``.

    Raises:
        InvalidInputError: If matplotlib is not installed.
    """
    shown = sorted(bars, key=lambda bar: bar.value)
    lines = sum(_named(bar).count("\n") for bar in shown)
    figure, axes = empty_figure(height=_EDGE_INCHES + _BAR_INCHES * len(shown) + 0.14 * lines, grid=False)
    places = range(len(shown))
    colours = [CHOSEN if bar.chosen else OTHER for bar in shown]
    axes.barh(places, [bar.value for bar in shown], color=colours, height=0.7)
    for place, bar in zip(places, shown, strict=True):
        weight = "bold" if bar.chosen else "normal"
        text = f"{bar.value:,}" + (f" {bar.note}" if bar.note else "")
        behind = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (bar.value, place), fontweight=weight, **behind)
    axes.set_yticks(places, [_named(bar) for bar in shown])
    for label, bar in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if bar.chosen else "normal")
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(unit)
    entitle(figure, finding, how)
    return figure


def _named(bar: Bar) -> str:
    return textwrap.fill(bar.name, _NAME_WIDTH)
