"""Blocks of a page: tables, commands and plots as Markdown, and their places in the page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from figures.commands import Command, Runner, SessionRunner, simulate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from figures.selection.tables import Source


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


FOLDER = "pictures"
PALETTE = 256


@dataclass(frozen=True, slots=True)
class Picture:
    """Loss over cost.

    Attributes:
        name: Of the file.
        source: The table.
        policies: One line each.
    """

    name: str
    source: Source
    policies: tuple[str, ...]

    def __call__(self, runner: Runner) -> str:
        """The picture as Markdown."""
        command = with_plot(simulate(self.source, self.policies, repeats=runner.repeats), self.name)
        runner.answer(command)
        return f"{embedded(self.name, f'Loss over cost, {self.source.title}')}\n\n{shown([command])}"


def with_plot(command: Command, name: str) -> Command:
    """The command that draws as well."""
    return Command((*command.words[:-1], "--plot", f"{FOLDER}/{name}", command.words[-1]))


def embedded(name: str, title: str) -> str:
    """The picture in a page of ``docs``."""
    return f"![{title}]({FOLDER}/{name})"


def take_pictures(drawn: Path, target: Path) -> None:
    """Copy what was drawn beside the page, with a palette of 256 colours: a third of the bytes."""
    from PIL import Image  # comes with matplotlib, without which there are no pictures

    target.mkdir(exist_ok=True)
    for path in drawn.glob("*.png"):
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(PALETTE).save(target / path.name, optimize=True)


def canvas(panels: int = 1) -> tuple[Any, list[Any]]:
    """An empty figure and its axes beside each other, without any window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * panels if panels > 1 else 7.2, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, panels, k + 1) for k in range(panels)]
    for each in axes:
        each.grid(visible=True, which="major", alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def saved(runner: SessionRunner, figure: Any, name: str, title: str) -> str:
    """Save a plot where the page finds it, and embed it."""
    figure.savefig(runner.folder / FOLDER / name)
    return embedded(name, title)
