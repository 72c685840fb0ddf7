"""Make the tables and plots of one page of the documentation again: ``python benchmarks/make_figures.py gate``.

Each figure is a block of the page between two comments. The commands that a page shows are run here, and what they
print becomes the block. Tables of published results (``--data``) are read, never copied into the repository.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from figures import benchmarks
from figures.blocks import FOLDER, splice, take_pictures
from figures.commands import ROOT, Runner, SessionRunner
from figures.gate import catalogue as gate_page
from figures.meter import catalogue as meter_page
from figures.selection import catalogue as selection_page
from figures.selection.tables import prepare

from easeml_core.cli.gate import gate as gate_group
from easeml_core.cli.meter import meter as meter_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

DATA = Path("../shared/data")
"""Where the published tables are, from the repository's root."""

_DATA = click.option(
    "--data", type=click.Path(path_type=Path), default=DATA, show_default=True, help="Published tables."
)
_REPEATS = click.option("--repeats", default=30, show_default=True, help="Repeats of every simulation.")
_FOLDER = click.option("--folder", type=click.Path(path_type=Path), help="Keep tables, answers and plots here.")
_PROCESSES = click.option("--processes", type=click.IntRange(min=1), help="Of a simulation. Default: one a core.")
_REUSE = click.option("--reuse", is_flag=True, help="Take answers that are in the folder instead of running again.")


def _only(figures: Mapping[str, Any]) -> Callable[[Any], Any]:
    return click.option("--only", multiple=True, type=click.Choice(sorted(figures)), help="A figure; repeatable.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
def main() -> None:
    """Make the figures of a page."""


@main.command()
@_only(selection_page.FIGURES)
@_DATA
@_REPEATS
@click.option("--batches", type=click.IntRange(min=1), help="At most this many seeds. Default: those of the figure.")
@_PROCESSES
@_FOLDER
@_REUSE
def selection(
    only: tuple[str, ...],
    data: Path,
    repeats: int,
    batches: int | None,
    processes: int | None,
    folder: Path | None,
    reuse: bool,
) -> None:
    """Make the figures of docs/selection.md: an hour or more on two cores."""
    with _workplace(folder) as place:
        prepare(_published(data, "selection"), place)
        runner = Runner(place, repeats=repeats, batches=batches, processes=processes, reuse=reuse)
        _write("selection", selection_page.FIGURES, only, runner)


@main.command()
@_only(gate_page.FIGURES)
@_DATA
@_REPEATS
@_FOLDER
def gate(only: tuple[str, ...], data: Path, repeats: int, folder: Path | None) -> None:
    """Make the figures of docs/gate.md: a quarter of an hour."""
    with _workplace(folder) as place:
        runner = SessionRunner(gate_group, place, _published(data, "meter"), repeats, statuses=(0, 1))
        _write("gate", gate_page.FIGURES, only, runner)


@main.command()
@_only(meter_page.FIGURES)
@_DATA
@_REPEATS
@_FOLDER
def meter(only: tuple[str, ...], data: Path, repeats: int, folder: Path | None) -> None:
    """Make the figures of docs/meter.md: some minutes. Without --data, figures on published data stay as they are."""
    data, names = ROOT / data, only or tuple(meter_page.FIGURES)
    if not (data / "meter").is_dir():
        for name in meter_page.NEED_DATA.intersection(names):
            click.echo(f"figure {name}: left as it is, there is no folder {data / 'meter'} (--data names another)")
        names = tuple(name for name in names if name not in meter_page.NEED_DATA)
    with _workplace(folder) as place:
        runner = SessionRunner(meter_group, place, data, repeats, shows_warnings=True)
        _write("meter", meter_page.FIGURES, names, runner)


@main.command("benchmarks")
@_only(benchmarks.FIGURES)
@_REPEATS
@_PROCESSES
@_FOLDER
@_REUSE
def benchmarks_(only: tuple[str, ...], repeats: int, processes: int | None, folder: Path | None, reuse: bool) -> None:
    """Make the tables of docs/benchmarks.md from benchmarks/results, a minute; nothing is trained."""
    with _workplace(folder) as place:
        benchmarks.prepare(place)
        runner = Runner(place, repeats=repeats, processes=processes, reuse=reuse)
        _write("benchmarks", benchmarks.FIGURES, only, runner)


def _published(data: Path, part: str) -> Path:
    """Return the folder of published tables.

    Raises:
        UsageError: If it has no folder with this part.
    """
    if not (ROOT / data / part).is_dir():
        message = f"there is no folder {ROOT / data / part}; name the published tables with --data"
        raise click.UsageError(message)
    return ROOT / data


@contextlib.contextmanager
def _workplace(folder: Path | None) -> Iterator[Path]:
    """Yield the folder for files and plots: the given one, or a temporary one."""
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="easeml-figures-")))
        (place / FOLDER).mkdir(parents=True, exist_ok=True)
        yield place.resolve()


def _write(chapter: str, figures: Mapping[str, Callable[[Any], str]], only: tuple[str, ...], runner: Any) -> None:
    """Put each figure's block into the page, and its plots beside the page."""
    page = ROOT / "docs" / f"{chapter}.md"
    for name in only or figures:
        block = figures[name](runner)
        text = page.read_text(encoding="utf-8")
        page.write_text(splice(text, {name: block}, maker=f"benchmarks/make_figures.py {chapter}"), encoding="utf-8")
        take_pictures(runner.folder / FOLDER, page.parent / FOLDER)
        click.echo(f"figure {name}: written into {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
