"""``--plot``: the option, and how a finished drawing gets into its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable


def plot_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--plot``; refused before any work where it cannot be written, or matplotlib is missing."""
    return click.option(
        "--plot",
        type=click.Path(path_type=Path),
        callback=_checked,
        metavar="FILE",
        help="Write a plot: .png, .svg or .pdf. Needs the extra `plot`.",
    )(command)


def _checked(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None:
        from easeml_core.canvas import check_plot

        check_plot(path)
    return path


def write_plot(figure: Any, path: Path) -> None:
    """Write the drawing, and say so on standard error."""
    from easeml_core.canvas import save_figure

    save_figure(figure, path)
    click.echo(f"plot: {path}", err=True)
