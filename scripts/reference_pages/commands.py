"""The help of every command, as ``easeml COMMAND --help`` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 100


def page() -> str:
    """The page of commands."""
    from easeml_core.cli.app import cli

    parts = [
        "# Commands",
        "What each command prints with `--help`. How they are used: [the command line](../command-line.md).",
    ]
    for words, text in helps(cli, ("easeml",), None):
        title = " ".join(words)
        parts.append(f"{'#' * min(len(words) + 1, 3)} {title}\n\n```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def helps(
    command: click.Command, words: tuple[str, ...], parent: click.Context | None
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The words that reach each command, and its help; a group before its commands."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=words[-1], parent=parent, **settings)
    yield words, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from helps(below, (*words, name), context)
