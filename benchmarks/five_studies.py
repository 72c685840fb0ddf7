"""Five kinds of studies: the product's default policy against a plain baseline, random search and FLAML.

    .venv/bin/python benchmarks/five_studies.py [--seconds 60] [--study NAME] [--out FILE] [--json]

Each method has the same train and validation part, processor seconds and one thread, and runs once. A model is chosen
by its validation score and judged on a test part that none has seen. The product runs as it is: referee, PostgreSQL, a
child process for each trial, no past. Random search has its candidates and its child processes, but draws the order.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import sys
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click
from five_data import KINDS, cut
from five_product import product, register
from five_race import POINT, Race
from five_rivals import baseline, flaml, random_search
from installation import installation
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from five_race import Contest
    from installation import Installation

    from easeml_core.data.parts import Part

RESULTS = Path(__file__).with_suffix(".csv")
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Line:
    """What one method did in one study.

    Attributes:
        study: A key of ``KINDS``.
        method: ``baseline``, ``random``, ``flaml`` or ``product``.
        seconds: Processor seconds that each method had.
        test: Accuracy, or R2, of the chosen model on the test part; None if there was no model in time.
        validation: Of the same model on the validation part.
        tried: Models, or epochs of a network, that were scored in time.
        wall_seconds: What it took on the wall clock.
        seconds_to_point: Until the validation score was within a point of the best one of all methods; None for never.
    """

    study: str
    method: str
    seconds: float
    test: float | None
    validation: float | None
    tried: int
    wall_seconds: float
    seconds_to_point: float | None


def run_study(name: str, seconds: float) -> list[Line]:
    """All methods on one study, in a fresh installation."""
    kind = KINDS[name]
    raw = kind.load()
    given, test = cut(raw)
    with installation() as bench:
        contest = register(bench, name, kind, raw, given, seconds)
        races = {method: _race(method, work, contest, seconds) for method, work in _methods(bench).items()}
    goal = max(race.top for race in races.values()) - POINT
    return [_line(contest, method, race, test, goal) for method, race in races.items()]


def _methods(bench: Installation) -> Mapping[str, Callable[[Contest, Race], None]]:
    return {
        "baseline": baseline,
        "random": random_search,
        "flaml": flaml,
        "product": lambda contest, race: product(bench, contest, race),
    }


def _race(method: str, work: Callable[[Contest, Race], None], contest: Contest, seconds: float) -> Race:
    race = Race(seconds)
    work(contest, race)
    race.end()
    click.echo(f"{contest.name:12} {method:10} validation {race.top:.4f}, {race.tried} tried", err=True)
    return race


def _line(contest: Contest, method: str, race: Race, test: Part, goal: float) -> Line:
    score = None if race.best is None else round(contest.score(race.best, test), 4)
    reached = race.seconds_to(goal)
    return Line(
        contest.name,
        method,
        race.seconds,
        score,
        None if race.best is None else round(race.top, 4),
        race.tried,
        round(race.wall_seconds, 1),
        None if reached is None else round(reached, 1),
    )


def keep(path: Path, lines: Iterable[Line]) -> None:
    """Put the lines into the file in place of those of the same studies, in the order of ``KINDS``."""
    fresh = [{k: "" if v is None else str(v) for k, v in asdict(line).items()} for line in lines]
    replaced, old = {row["study"] for row in fresh}, []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            old = [row for row in csv.DictReader(file) if row["study"] not in replaced]
    order = list(KINDS)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Line)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*old, *fresh], key=lambda row: order.index(row["study"])))


def warm() -> None:
    """Import what the methods use, so that no clock counts it.

    Raises:
        UsageError: If a package is not installed.
    """
    try:
        for name in ("flaml.automl", "flaml.tune", "lightgbm", "sklearn.ensemble", "xgboost"):
            importlib.import_module(name)
        importlib.import_module("torch").set_num_threads(1)
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed; `pip install easeml-airflow[benchmarks,boosting,torch]` brings it"
        raise click.UsageError(message) from error


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="Processor seconds of each method and study.",
)
@click.option("--study", "studies", multiple=True, type=click.Choice(list(KINDS)), help="This one; as often as wanted.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Default: the file beside this script.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def main(seconds: float, studies: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Run and print."""
    warnings.simplefilter("ignore")  # of the rivals: what they find odd about their own settings
    lines: list[Line] = []
    warm()
    with threadpool_limits(1):  # of the libraries that are loaded by now
        for name in studies or KINDS:
            try:
                found = run_study(name, seconds)
            except KeyboardInterrupt:
                click.echo(f"stopped in {name}; {out.name} has the studies before it", err=True)
                sys.exit(INTERRUPTED)
            keep(out, found)
            lines += found
    if as_json:
        click.echo(json.dumps({"load": os.getloadavg()[0], "lines": [asdict(line) for line in lines]}))
        return
    click.echo("study        method         test  validation   tried  wall s  s to within a point")
    for line in lines:
        scores = "  ".join("none".rjust(8) if v is None else f"{v:8.4f}" for v in (line.test, line.validation))
        reached = "never" if line.seconds_to_point is None else f"{line.seconds_to_point:.1f}"
        click.echo(f"{line.study:12} {line.method:10} {scores}  {line.tried:8} {line.wall_seconds:6.1f} {reached:>8}")


if __name__ == "__main__":
    main()
