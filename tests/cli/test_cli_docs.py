"""docs/command-line.md lists every command with the first line of its help; this module prints the table, too.

python tests/cli/test_cli_docs.py >> docs/command-line.md
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from easeml_core.cli.app import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"


def lines(group: click.Group = cli, before: str = "easeml") -> Iterator[str]:
    """One row of the table for each command that does something."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from lines(command, f"{before} {name}")
        else:
            yield f"| `{before} {name}` | {' '.join((command.help or '').split(chr(10) * 2)[0].split())} |"


def test_the_table_is_what_help_says() -> None:
    listed = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `easeml ")]
    assert listed == list(lines())


def test_every_check_is_named(run: object) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for check in run("doctor", "--json").json:
        name = "disk: ..." if check["name"].startswith("disk: ") else check["name"]
        assert f"`{name}`" in text


if __name__ == "__main__":
    print("| command | what it does |\n| --- | --- |", *lines(), sep="\n")
