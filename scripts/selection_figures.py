"""Make every table and plot of docs/selection.md anew from the commands that it shows.

Each figure is a block of the page between two comments. A command is printed, then run; its JSON becomes the block.
Needs the published tables (`--data`), which are read, never copied into the repository.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import click
from figures.catalogue import FIGURES
from figures.commands import Runner
from figures.markdown import splice
from figures.pictures import FOLDER, take_pictures
from figures.tables import prepare

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "selection.md"
DATA = Path("../shared/data")


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
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="easeml-figures-")))
        (place / FOLDER).mkdir(parents=True, exist_ok=True)
        prepare(data, place)
        runner = Runner(place.resolve(), repeats=repeats, batches=batches, processes=processes, reuse=reuse)
        for name in only or FIGURES:
            block = FIGURES[name](runner)
            PAGE.write_text(splice(PAGE.read_text(encoding="utf-8"), {name: block}), encoding="utf-8")
            take_pictures(place / FOLDER, PAGE.parent / FOLDER)
            click.echo(f"figure {name}: written into {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
