"""Parse commands that texts show to users: each must exist, with its arguments."""

from __future__ import annotations

import shlex

import click

from easeml_core.cli.app import cli


def parse(line: str) -> click.Context:
    """The command as click understands it; raises where an option or a value is wrong."""
    program, *words = shlex.split(line)
    assert program == "easeml"
    command: click.Command | None = cli
    context = click.Context(cli, info_name=program, **cli.context_settings)
    while isinstance(command, click.Group):
        command, words = command.get_command(context, words[0]), words[1:]
        assert command is not None, line
    assert command is not None
    return command.make_context(command.name, words, parent=context)
