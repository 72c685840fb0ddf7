"""How commands answer: a table or lines for people, JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.table import Table


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
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, sort_keys=False, default=str))


def show_warnings(warnings: Sequence[str]) -> None:
    """One line on standard error for each, so that what is piped on stays the answer alone."""
    for warning in warnings:
        click.echo(f"easeml: warning: {plain(warning)}", err=True)


def show_table(title: str, columns: Mapping[str, str], entries: Sequence[Mapping[str, Any]]) -> None:
    """A table: column title to the entry's key."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for heading, key in columns.items():
        numeric = any(isinstance(e.get(key), int | float) and not isinstance(e.get(key), bool) for e in entries)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for entry in entries:
        table.add_row(*(cell(entry.get(key)) for key in columns.values()))
    print_table(table)


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
