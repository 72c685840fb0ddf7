"""Make every table of docs/benchmarks.md anew from what benchmarks/*.csv say; nothing is trained here.

Each figure is a block of the page between two comments. The files themselves are made by `benchmarks/binary_tables.py`
and `benchmarks/five_studies.py`.
"""

from __future__ import annotations

from pathlib import Path

import click
from figures.benchmark_catalogue import FIGURES, prepare
from figures.commands import Runner
from figures.page import ROOT, workplace, write_figure

PAGE = ROOT / "docs" / "benchmarks.md"
MAKER = "scripts/benchmark_figures.py"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(sorted(FIGURES)), help="A figure; as often as wanted.")
@click.option("--repeats", default=30, show_default=True, help="Repeats of every simulation.")
@click.option("--processes", type=click.IntRange(min=1), help="Of a simulation. Default: one for each core.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep tables and answers here.")
@click.option("--reuse", is_flag=True, help="Take answers that are in the folder instead of running again.")
def main(only: tuple[str, ...], repeats: int, processes: int | None, folder: Path | None, reuse: bool) -> None:
    """Make the figures of docs/benchmarks.md anew: all of them (a minute), or --only some."""
    with workplace(folder) as place:
        prepare(place)
        runner = Runner(place, repeats=repeats, processes=processes, reuse=reuse)
        for name in only or FIGURES:
            write_figure(PAGE, name, FIGURES[name](runner), place=place, maker=MAKER)


if __name__ == "__main__":
    main()
