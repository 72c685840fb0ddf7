"""Make every table and plot of docs/meter.md anew, from the commands that it shows and from seeded simulations.

Each figure is a block of the page between two comments. Commands are run in this process; nothing needs a database.
Figures on published predictions and curves are skipped, and left as they are, where the data is not there (`--data`).
"""

from __future__ import annotations

from pathlib import Path

import click
from figures.meter_answers import MeterRunner
from figures.meter_catalogue import FIGURES, NEED_DATA
from figures.page import DATA, ROOT, workplace, write_figure

PAGE = ROOT / "docs" / "meter.md"
MAKER = "scripts/meter_figures.py"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(sorted(FIGURES)), help="A figure; as often as wanted.")
@click.option("--data", type=click.Path(path_type=Path), default=DATA, show_default=True, help="The published tables.")
@click.option("--repeats", default=30, show_default=True, help="Of every simulation, times a figure's own factor.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep files and plots here.")
def main(only: tuple[str, ...], data: Path, repeats: int, folder: Path | None) -> None:
    """Make the figures of docs/meter.md anew: all of them (some minutes), or --only some."""
    data = data if data.is_absolute() else ROOT / data
    with workplace(folder) as place:
        runner = MeterRunner(place, data, repeats)
        for name in only or FIGURES:
            if name in NEED_DATA and not (data / "meter").is_dir():
                click.echo(f"figure {name}: left as it is, there is no folder {data / 'meter'} (--data names another)")
                continue
            block = FIGURES[name](runner)
            write_figure(PAGE, name, block, place=place, maker=MAKER)


if __name__ == "__main__":
    main()
