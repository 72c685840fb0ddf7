"""What plots of different systems share: one look, no display, and errors before the work begins. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = (".png", ".svg", ".pdf")


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
    figure = Figure(figsize=(8, height), dpi=150, layout="constrained")
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
