"""Make every table and plot of docs/gate.md anew, from the commands that it shows and from seeded simulations.

Each figure is a block of the page between two comments. Commands are run in this process; nothing needs a database.
Needs the published predictions (`--data`), which are read, never copied into the repository.
"""

from __future__ import annotations

from pathlib import Path

import click
from figures.gate_answers import GateRunner
from figures.gate_catalogue import FIGURES
from figures.page import DATA, ROOT, workplace, write_figure

PAGE = ROOT / "docs" / "gate.md"
MAKER = "scripts/gate_figures.py"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(sorted(FIGURES)), help="A figure; as often as wanted.")
@click.option("--data", type=click.Path(path_type=Path), default=DATA, show_default=True, help="The published tables.")
@click.option("--repeats", default=30, show_default=True, help="Of every simulation, times a figure's own factor.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep files and plots here.")
def main(only: tuple[str, ...], data: Path, repeats: int, folder: Path | None) -> None:
    """Make the figures of docs/gate.md anew: all of them (a quarter of an hour), or --only some."""
    data = data if data.is_absolute() else ROOT / data
    if not (data / "meter").is_dir():
        message = f"there is no folder {data / 'meter'}; name the published tables with --data"
        raise click.UsageError(message)
    with workplace(folder) as place:
        runner = GateRunner(place, data, repeats)
        for name in only or FIGURES:
            block = FIGURES[name](runner)
            write_figure(PAGE, name, block, place=place, maker=MAKER)


if __name__ == "__main__":
    main()
