"""Figures as Markdown, and their places in a page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from figures.commands import Command

NEVER = 100.0
"""What ``easeml simulate`` reports for a loss that was not reached."""
_BLOCK = "<!-- figure {name}: made by {maker}, do not edit -->\n{body}\n<!-- end of {name} -->"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, with its columns in the order of the header."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def three(value: float) -> str:
    """Three figures, without an exponent.

    Example:
        >>> [three(value) for value in (0.02634, 2.5, 12345.6, 0.0)]
        ['0.0263', '2.5', '12,300', '0']
    """
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    text = f"{value:.3g}"
    return f"{value:.7f}".rstrip("0") if "e" in text and value < 1 else text


def spread(values: Sequence[float]) -> str:
    """The first of several medians, and in brackets the least and the greatest of all."""
    if values[0] >= NEVER:
        return "not reached"
    low, high = (three(bound) if bound < NEVER else "not reached" for bound in (min(values), max(values)))
    return three(values[0]) if len(values) == 1 else f"{three(values[0])} ({low}-{high})"


def shown(commands: Sequence[Command], note: str = "") -> str:
    """Commands as a block of code, with a note below."""
    code = "```sh\n" + "\n".join(command.shown() for command in commands) + "\n```"
    return f"{code}\n\n{note}" if note else code


def seeds_note(seeds: int) -> str:
    """How the brackets came about."""
    if seeds == 1:
        return ""
    others = {2: "1", 3: "1 and 2"}.get(seeds, f"1 to {seeds - 1}")
    return f"Brackets: least and greatest of {seeds} batches, the same command with `--seed` {others}."


def splice(page: str, blocks: Mapping[str, str], *, maker: str) -> str:
    """The page with the bodies of its blocks replaced.

    Args:
        page: Its text.
        blocks: Name and new body of each.
        maker: The script that makes them.

    Raises:
        ValueError: If the page has no place for a block.
    """
    for name, body in blocks.items():
        places = list(re.finditer(rf"<!-- figure {name}:.*?<!-- end of {name} -->", page, re.DOTALL))
        if len(places) != 1:
            place = _BLOCK.format(name=name, maker=maker, body="")
            message = f"the page must have one place for the figure {name!r}: {place}"
            raise ValueError(message)
        page = page[: places[0].start()] + _BLOCK.format(name=name, maker=maker, body=body) + page[places[0].end() :]
    return page
