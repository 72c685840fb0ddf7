"""Plots of the documentation: those of ``easeml simulate --plot``, and those drawn here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from figures.commands import Command, simulate
from figures.markdown import shown

if TYPE_CHECKING:
    from pathlib import Path

    from figures.commands import Runner
    from figures.selection.tables import Source
    from figures.sessions import SessionRunner

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
