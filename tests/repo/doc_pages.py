"""A page of ``docs`` whose figures and commands are checked: its blocks, its commands, and what they parse to."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click

from easeml_core.cli.app import cli

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 100_000
"""Of a picture."""


class Page:
    """The text of a page, the bodies of its figures by name, and its ``easeml`` commands, one a line.

    Args:
        name: Of the file in ``docs``.
        section: A heading of the second level: only its section is read, as if it were a page of its own.
        without: Headings of the second level whose sections are left out.
    """

    def __init__(self, name: str, section: str | None = None, *, without: tuple[str, ...] = ()) -> None:
        self.path = ROOT / "docs" / name
        self.text = self.path.read_text(encoding="utf-8")
        if section is not None:
            self.text = _raised(section_of(self.text, section))
        for heading in without:
            self.text = self.text.replace(section_of(self.text, heading), "")
        figure = r"<!-- figure ([a-z-]+):[^>]*-->\n(.*?)<!-- end of \1 -->"
        self.blocks: dict[str, str] = dict(re.findall(figure, self.text, re.DOTALL))
        self.commands = [
            line
            for block in re.findall(r"```sh\n(.*?)```", self.text, re.DOTALL)
            for line in block.replace("\\\n", " ").splitlines()
            if line.startswith("easeml ")
        ]


def section_of(text: str, heading: str) -> str:
    """The section below a heading of the second level, with the heading."""
    (found,) = re.findall(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return str(found)


def _raised(section: str) -> str:
    """The section with each heading one level higher."""
    return re.sub(r"^#(#+ )", r"\1", section, flags=re.MULTILINE)


def parse(command: str) -> dict[str, Any]:
    """The parameters of the command that the words reach, as click reads them; nothing is run."""
    words = shlex.split(command)[1:]
    group: click.Command | None = cli
    context = click.Context(cli, info_name="easeml", help_option_names=["-h", "--help"])
    while isinstance(group, click.Group):
        _, group, words = group.resolve_command(context, words)
        assert group is not None, command
        if not isinstance(group, click.Group):
            context = group.make_context(group.name, words, parent=context)
    return context.params
