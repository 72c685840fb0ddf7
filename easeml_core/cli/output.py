"""The output of commands: tables and lines for people, JSON for programs, plots, and progress on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.formats.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.table import Table

    Columns = Mapping[str, str | Callable[[Any], object]]
    """Headings of a table to the fields of its entries, or to functions that compute a cell from an entry."""


def example(*lines: str) -> str:
    r"""Return the end of a command's help: example calls, which a test parses.

    Example:
        >>> example("easeml status")
        '\x08\nExample:\n  easeml status'
    """
    return "\b\n" + "\n  ".join(("Example:" if len(lines) == 1 else "Examples:", *lines))


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def with_options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the options to a command, in the order that its help shows."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def process_options(alive: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of a long-running process: ``--health-port``, ``--metrics-port`` and ``--log-format``."""
    options = (
        click.option(
            "--health-port",
            type=click.IntRange(1, 65535),
            help=f"Answer GET /health on this port of 127.0.0.1: 200 while it {alive}, else 503; default: none.",
        ),
        click.option(
            "--metrics-port",
            type=click.IntRange(1, 65535),
            help="Answer GET /metrics on this port of 127.0.0.1, in Prometheus' text format; any process of this host "
            "may ask. Needs the extra metrics; default: none.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="Form of the log's lines on standard error; json has the numbers of requests as fields.",
        ),
    )
    return with_options(*options)


def show_json(value: Any) -> None:
    """Write one JSON document to standard output; ``value`` is of any type that ``to_json`` takes."""
    click.echo(json.dumps(to_json(value), indent=2))


def show_warnings(warnings: Sequence[str]) -> None:
    """Print one line on standard error for each, so that standard output holds the answer alone."""
    for warning in warnings:
        click.echo(f"easeml: warning: {plain(warning)}", err=True)


def show_table(title: str, columns: Columns, entries: Sequence[Any]) -> None:
    """Print a table, one line for each entry; on a terminal too narrow for it, a block for each, as psql does."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    values = [[_value_of(entry, what) for what in columns.values()] for entry in entries]
    for place, heading in enumerate(columns):
        numeric = any(isinstance(v[place], int | float) and not isinstance(v[place], bool) for v in values)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for line in values:
        table.add_row(*map(cell, line))
    if _fits(table):
        print_table(table)
    else:
        print_table(_blocks(title, [plain(heading) for heading in columns], values))


def _fits(table: Table) -> bool:
    """Whether the table fits without breaking a word."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(markup=False, emoji=False, width=_width())
    return Measurement.get(console, console.options.update(width=_PIPED), table).minimum <= console.width


def _blocks(title: str, headings: list[str], values: list[list[object]]) -> Table:
    """The entries one below the other: a line for each field, and a rule between two of them."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for line in values:
        for heading, value in zip(headings, line, strict=True):
            table.add_row(heading, cell(value))
        table.add_section()
    return table


def _value_of(entry: Any, what: str | Callable[[Any], object]) -> object:
    if callable(what):
        return what(entry)
    return entry.get(what) if isinstance(entry, dict) else getattr(entry, what)


def print_table(table: Table) -> None:
    """Print a table on standard output; what is piped is not wrapped, so that each entry stays on its line."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich itself would end with status 1, which is an answer

    # Names are users': a bracket or a colon in one is no markup.
    Output(markup=False, emoji=False, width=_width()).print(table, crop=False)


def _width() -> int | None:
    """Columns of the terminal; None for rich to find them."""
    is_piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return _PIPED if is_piped else None


_PIPED = 10_000
"""Columns of what is no terminal."""


def cell(value: Any) -> str:
    """Format a value for people: four decimals for a quality, a dash for nothing."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) <= 1 else f"{value:,.1f}"
    return plain(str(value))


def short(text: str | None, most: int = 60) -> str | None:
    """Return the beginning of a long text, for a table.

    Example:
        >>> short("out of memory", 10)
        'out of me…'
    """
    return text if text is None or len(text) <= most else f"{text[: most - 1]}…"


def plain(text: str) -> str:
    r"""Escape control characters, but for line ends and tabs, in text of users for a terminal.

    Example:
        >>> plain("\x1b[2Jgone")
        '\\x1b[2Jgone'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def plot_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--plot``; refused before any work where it cannot be written, or matplotlib is missing."""
    return click.option(
        "--plot",
        type=click.Path(path_type=Path),
        callback=_checked,
        metavar="FILE",
        help="Write a plot: .png, .svg or .pdf. Needs the extra `plot`.",
    )(command)


def _checked(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None:
        from easeml_core.formats.display import check_plot

        check_plot(path)
    return path


def write_plot(figure: Any, path: Path) -> None:
    """Write the drawing, and report it on standard error."""
    from easeml_core.formats.display import save_figure

    save_figure(figure, path)
    click.echo(f"plot: {path}", err=True)


@contextlib.contextmanager
def reading() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a line of progress on standard error; it does nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as line:
        task = line.add_task("reading", total=None)
        yield lambda text: line.update(task, description=text)


@contextlib.contextmanager
def progress(what: str = "repeats") -> Iterator[Callable[[int, int], None]]:
    """Yield a function that moves a progress bar on standard error; it does nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
