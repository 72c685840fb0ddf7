"""Make every table and plot of docs/selection.md anew from the commands that it shows.

Each figure is a block of the page between two comments. A command is printed, then run; its JSON becomes the block.
Needs the published tables (`--data`), which are read, never copied into the repository.
"""

from __future__ import annotations

from pathlib import Path

import click
from figures.catalogue import FIGURES
from figures.commands import Runner
from figures.page import DATA, ROOT, workplace, write_figure
from figures.tables import prepare

PAGE = ROOT / "docs" / "selection.md"
MAKER = "scripts/selection_figures.py"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(sorted(FIGURES)), help="A figure; as often as wanted.")
@click.option("--data", type=click.Path(path_type=Path), default=DATA, show_default=True, help="The published tables.")
@click.option("--repeats", default=30, show_default=True, help="Repeats of every simulation.")
@click.option("--batches", type=click.IntRange(min=1), help="At most so many seeds. Default: as many as a figure has.")
@click.option("--processes", type=click.IntRange(min=1), help="Of a simulation. Default: one for each core.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep tables, answers and plots here.")
@click.option("--reuse", is_flag=True, help="Take answers that are in the folder instead of running again.")
def main(
    only: tuple[str, ...],
    data: Path,
    repeats: int,
    batches: int | None,
    processes: int | None,
    folder: Path | None,
    reuse: bool,
) -> None:
    """Make the figures of docs/selection.md anew: all of them (an hour or more on two cores), or --only some."""
    data = data if data.is_absolute() else ROOT / data
    if not (data / "selection").is_dir():
        message = f"there is no folder {data / 'selection'}; name the published tables with --data"
        raise click.UsageError(message)
    with workplace(folder) as place:
        prepare(data, place)
        runner = Runner(place, repeats=repeats, batches=batches, processes=processes, reuse=reuse)
        for name in only or FIGURES:
            block = FIGURES[name](runner)
            write_figure(PAGE, name, block, place=place, maker=MAKER)


if __name__ == "__main__":
    main()
