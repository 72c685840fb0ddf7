"""Plots of ``easeml simulate --plot``, beside the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from figures.commands import Command, simulate
from figures.markdown import shown

if TYPE_CHECKING:
    from pathlib import Path

    from figures.commands import Runner
    from figures.tables import Source

FOLDER = "pictures"
COLOURS = 256


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
            picture.convert("RGB").quantize(COLOURS).save(target / path.name, optimize=True)
