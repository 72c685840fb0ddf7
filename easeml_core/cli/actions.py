"""Options of commands that carry out an action, made from the action's request."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.actions.action import options_of, read
from easeml_core.cli.connection import json_of, read_program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from easeml_core.actions.action import Option

_TYPES: dict[str, Any] = {"integer": int, "number": float}


def action_options(
    action: type[Any], *, arguments: Sequence[str] = (), files: Sequence[str] = (), leaves: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of an action to a command, which gets the request as ``request``.

    Args:
        action: The class of the request.
        arguments: Options that are arguments of the command, by their place.
        files: Options whose value is the text of a file.
        leaves: Options that the command does not have.
    """
    options = [one for one in options_of(action) if one.name not in leaves]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_request(**given: Any) -> Any:
            values = {one.name: _value(one, given.pop(one.name), one.name in files) for one in options}
            return command(request=read(action, values), **given)

        made: Callable[..., Any] = with_request
        for one in reversed(options):
            made = _parameter(one, one.name in arguments, one.name in files)(made)
        return made

    return decorate


def _parameter(one: Option, is_argument: bool, is_file: bool) -> Callable[..., Any]:
    if is_argument:
        return click.argument(one.name, metavar="NAME")
    flag = f"--{one.name.replace('_', '-')}"
    if one.kind == "boolean":
        return click.option(flag, is_flag=True, help=one.help)
    kind = click.Choice(one.words) if one.words else _TYPES.get(one.kind)
    metavar = one.metavar or ("JSON" if one.kind in ("array", "object") else None)
    return click.option(
        flag,
        type=click.Path(exists=True, dir_okay=False) if is_file else kind,
        required=one.is_required,
        default=one.default,
        show_default=one.default is not None,
        metavar=metavar,
        help=one.help.replace("`", ""),
    )


def _value(one: Option, value: Any, is_file: bool) -> Any:
    if is_file and value is not None:
        return read_program(Path(value))
    return json_of(one.name, value) if one.kind in ("array", "object") else value
