"""How commands answer: a table or lines for people, JSON for programs.

``--plot``: the option, and how a finished drawing gets into its file.

How a command shows how far a long reading is.

How ``easeml simulate`` shows its progress and its figures.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.table import Table

    Columns = Mapping[str, str | Callable[[Any], object]]
    """Headings of a table to the fields of its entries, or to functions that compute a cell from an entry."""


def example(*lines: str) -> str:
    r"""The end of a command's help: calls that parse, as a test sees.

    Example:
        >>> example("easeml status")
        '\x08\nExample:\n  easeml status'
    """
    return "\b\n" + "\n  ".join(("Example:" if len(lines) == 1 else "Examples:", *lines))


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def show_json(value: Any) -> None:
    """Write one JSON document to standard output; ``value`` is of any type that ``to_json`` takes."""
    click.echo(json.dumps(to_json(value), indent=2))


def show_warnings(warnings: Sequence[str]) -> None:
    """One line on standard error for each, so that what is piped on stays the answer alone."""
    for warning in warnings:
        click.echo(f"easeml: warning: {plain(warning)}", err=True)


def show_table(title: str, columns: Columns, entries: Sequence[Any]) -> None:
    """Print a table, one line for each entry.

    Args:
        title: Above the table.
        columns: Heading to the field of the entry, or to a function that computes the cell from the entry.
        entries: Dataclasses, or mappings.
    """
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    values = [[_value_of(entry, what) for what in columns.values()] for entry in entries]
    for place, heading in enumerate(columns):
        numeric = any(isinstance(v[place], int | float) and not isinstance(v[place], bool) for v in values)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for line in values:
        table.add_row(*map(cell, line))
    print_table(table)


def _value_of(entry: Any, what: str | Callable[[Any], object]) -> object:
    if callable(what):
        return what(entry)
    return entry.get(what) if isinstance(entry, dict) else getattr(entry, what)


def print_table(table: Table) -> None:
    """A table on standard output."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich itself would end with status 1, which is an answer

    # Names are other people's: a bracket or a colon in one is no markup.
    Output(markup=False, emoji=False).print(table)


def cell(value: Any) -> str:
    """A value as people read it: four decimals for a quality, a dash for nothing."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) <= 1 else f"{value:,.1f}"
    return plain(str(value))


def short(text: str | None, most: int = 60) -> str | None:
    """The beginning of a long text, for a table: the whole of it is elsewhere.

    Example:
        >>> short("out of memory", 10)
        'out of me…'
    """
    return text if text is None or len(text) <= most else f"{text[: most - 1]}…"


def plain(text: str) -> str:
    r"""Text that others wrote, for a terminal: control characters but for line ends and tabs are escaped.

    Example:
        >>> plain("\x1b[2Jgone")
        '\\x1b[2Jgone'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


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


@contextlib.contextmanager
def reading() -> Iterator[Callable[[str], None]]:
    """A line on standard error that says what it is told; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as line:
        task = line.add_task("reading", total=None)
        yield lambda told: line.update(task, description=told)


@contextlib.contextmanager
def progress(what: str = "repeats") -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while repeats, or whatever it is, are done; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def show_report(answer: Mapping[str, Any]) -> None:
    """The report as tables for people; ``answer`` is its JSON."""
    protocol, policies = answer["protocol"], answer["policies"]
    devices = "1 device" if protocol["devices"] == 1 else f"{protocol['devices']} devices"
    click.echo(
        f"{protocol['repeats']} repeats, {protocol['served']} of {protocol['tenants']} tenants served, "
        f"{protocol['candidates']} candidates, {devices}, costs {protocol['cost_mode']}\n"
    )
    if "curve" in answer:
        _show_curve(answer["curve"])
    else:
        _show_policies(policies)


def _show_policies(policies: Mapping[str, Any]) -> None:
    """Prices of losses, then how the tenants fared."""
    losses = next(iter(policies.values()))["percent_to_loss"]
    show_table(
        "Percent of the cost to an average loss of ...: median (10th to 90th percentile)",
        {"Policy": "policy", **{loss: loss for loss in losses}, "Worst": "worst"},
        [_prices(name, figures) for name, figures in policies.items()],
    )
    if any(n["reached"] < 1 for figures in policies.values() for n in figures["percent_to_loss"].values()):
        click.echo("[share of the repeats that got there; the others count as 100]")
    click.echo("Worst: largest loss of a repeat when 10 % are spent.\n")
    show_table(
        "Fairness",
        {"Policy": "policy", "Regret": "total", "Worst": "worst", "First %": "first", "Least": "least", "us": "us"},
        [_fairness(name, figures) for name, figures in policies.items()],
    )
    click.echo(
        "Regret: loss x cost, of all tenants; Worst: of the worst-off one. First %: cost at which the last tenant of\n"
        "all repeats got its first model. Least: compute of the least-served tenant over its due when 10 % are spent.\n"
        "us: microseconds of a decision. Medians over the repeats, but for First %."
    )


def _prices(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What losses cost under one policy."""
    prices = {loss: _price(needed) for loss, needed in figures["percent_to_loss"].items()}
    return {"policy": name, **prices, "worst": figures["worst_loss"]["10"]}


def _fairness(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """How the tenants fared under one policy."""
    share = figures["compute_share"]["10"]
    return {
        "policy": name,
        "total": _three(figures["regret"]["total"]),
        "worst": _three(figures["regret"]["worst_tenant"]),
        "first": _three(figures["first_model_percent"]["worst"]),
        "least": None if share is None else f"{share['least']:.2f}",
        "us": f"{figures['decision_microseconds']:.0f}",
    }


def _price(needed: Mapping[str, float]) -> str:
    """Median and range of a price, and how many repeats paid it where not all did."""
    text = f"{_three(needed['median'])} ({needed['p10']:.2g}-{needed['p90']:.2g})"
    return text if needed["reached"] == 1 else f"{text} [{100 * needed['reached']:.0f} %]"


def _three(value: float) -> str:
    """Three figures, without an exponent where that can be read.

    Example:
        >>> [_three(value) for value in (0.02634, 2.5, 12345.6, 1.5e9)]
        ['0.0263', '2.5', '12,346', '1.5e+09']
    """
    return f"{value:,.0f}" if 100 <= value < 1e8 else f"{value:.3g}"


def _show_curve(curve: Mapping[str, Any]) -> None:
    """Efficiency against fairness."""
    losses = curve["points"][0]["percent_to_loss"]
    columns = {"Policy": "policy", "Value": "value", **{f"to {loss}": loss for loss in losses}}
    columns |= {"Regret": "total", "Worst": "worst", "p10": "p10", "First %": "first"}
    entries = [
        {
            "policy": point["policy"],
            "value": None if point["value"] is None else f"{point['value']:g}",
            **{loss: _three(needed) for loss, needed in point["percent_to_loss"].items()},
            "total": _three(point["total_regret"]),
            "worst": _three(point["worst_tenant_regret"]),
            "p10": _three(point["p10_tenant_regret"]),
            "first": _three(point["first_model_worst_percent"]),
        }
        for point in curve["points"]
    ]
    show_table(f"Efficiency against fairness over the {curve['knob']}, medians over the repeats", columns, entries)
    click.echo(
        "to LOSS: percent of the cost. Regret: loss x cost, of all tenants; Worst: of the worst-off one; p10: a tenth\n"
        "of the tenants fare worse. First %: cost at which the last tenant of all repeats got its first model."
    )
