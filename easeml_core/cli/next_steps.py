"""``easeml next``: what next, and why."""

from __future__ import annotations

from typing import Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import json_option, plain, print_table, show_json

_MARKS = {"bad": ("!!", "bold red"), "warn": ("! ", "yellow"), "info": ("  ", "dim")}


@click.command("next", epilog="\b\nExamples:\n  easeml next\n  easeml next flowers --json\n  easeml next --needs")
@click.argument("study", required=False)
@click.option("--needs", is_flag=True, help="Only what needs a person.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Steps at most.")
@database_option
@json_option
def next_(study: str | None, needs: bool, limit: int, database: str | None, as_json: bool) -> None:
    """Say what is next for STUDY, or for all studies, and why; worst first.

    "!!" and "!" need a person; the rest comes by itself. Exit status 0, also where something needs a person.
    """
    from easeml_core.services.reports.next_steps import next_steps

    only = None if study is None else [study]
    found = next_steps(open_store(database), studies_only=only, limit=limit, needs_only=needs)
    if as_json:
        show_json(found)
    elif found:
        _show(found)
    else:
        click.echo("nothing needs a person" if needs else "no studies yet; register one with `easeml study register`")


def _show(steps: list[dict[str, Any]]) -> None:
    """Two columns fit into 80 characters: what it is about, then title, reason and remedy below each other."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="What next, and why", title_justify="left", header_style="bold", show_lines=True)
    table.add_column("Study", overflow="fold", max_width=24)
    table.add_column("What, why, and what to do", overflow="fold")
    for step in steps:
        mark, look = _MARKS[step["severity"]]
        words = Text.assemble((plain(f"{mark} {step['title']}"), look), f"\n{plain(step['why'])}\n")
        words.append(plain(f"-> {step['act']}"))
        if step["command"] and step["command"] not in step["act"]:
            words.append(f"\n   {plain(step['command'])}", style="cyan")
        table.add_row(Text(plain(step["study"] or "all studies")), words)
    print_table(table)
