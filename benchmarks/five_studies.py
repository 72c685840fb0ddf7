"""Five kinds of studies: the product's default policy against a plain baseline, random search and FLAML.

    .venv/bin/python benchmarks/five_studies.py [--seconds 60] [--study NAME] [--out FILE] [--json]

Each method has the same train and validation part, processor seconds and one thread, and runs once. A model is chosen
by its validation score and judged on a test part that none has seen. The product runs as it is: referee, PostgreSQL, a
child process for each trial, no past. Random search has its candidates and its child processes, but draws the order.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from five_data import KINDS, METRICS, POINT, Contest, Race, cut, write_source
from five_rivals import PATIENCE, baseline, flaml, random_search
from installation import GATE, TENANT, installation
from result_files import FOLDER, read_rows, write_rows
from threadpoolctl import threadpool_limits

from easeml_core.data.parts import load_open_parts
from easeml_core.models.formats import load_predictor
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.register import register_study
from easeml_core.services.selection.scheduler import LiveScheduler
from easeml_core.services.studies.candidates import files_of
from easeml_core.services.trials.attempts import run_function_trial
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.tables import models, studies
from easeml_core.training.trainers import default_candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from five_data import Kind
    from installation import Installation

    from easeml_core.data.parts import Part
    from easeml_core.data.table import RawTable

RESULTS = FOLDER / "five_studies.csv"
INTERRUPTED = 130
METER = {"ranges": (0.5,), "tolerance": 0.3, "reliability": 0.5, "steps": 1, "ambiguous": 0}
"""Small sealed sets: a fifth and a tenth of the rows are sealed anyway."""


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


def register(bench: Installation, name: str, kind: Kind, raw: RawTable, part: Part, seconds: float) -> Contest:
    """Register a study on a part of the data, and give what the product made of it to all methods.

    Raises:
        RuntimeError: If the referee refused the data.
    """
    more: dict[str, Any] = {}
    if kind.within is not None:
        more = {"task": str(raw.task), "metric": METRICS[raw.task], "hit": f"within:{kind.within:g}"}
    filed = register_study(
        bench.worker,
        tenant=TENANT,
        study=name,
        source=write_source(bench.folder / "data" / TENANT / name, part, raw.layout),
        gate=GATE,
        meter=METER,
        training={"time_limit_seconds": PATIENCE * seconds},
        candidates=kind.candidates,
        request_key=bench.key(),
        **more,
    )
    bench.judge.answer_one()
    answer = answer_of(bench.worker, filed.request_id)
    if answer is None or answer.refused:
        message = f"the study {name} was not sealed: {answer}"
        raise RuntimeError(message)
    with bench.worker.begin() as tx:
        version = studies.latest_data_version(tx, filed.study_id)
        artifact = studies.data_artifact(tx, version.id)
    parts = load_open_parts(files_of(bench.worker, bench.artifacts, study=name).path(artifact))
    candidates = kind.candidates or default_candidates(parts.layout, parts.task)
    return Contest(name, parts, candidates, kind.function)


def product(bench: Installation, contest: Contest, race: Race) -> None:
    """Ask the default policy for a trial and train it, again and again, as a device does."""
    functions = [] if contest.function is None else [contest.function.__name__]
    scheduler = LiveScheduler(bench.worker, studies_only=[contest.name], functions=functions)
    while race.left > 0:
        key = bench.key()
        found = scheduler.ask(request_key=key).trials
        if not found:
            return
        asked: dict[str, Any] = {"trial_id": found[0].trial_id, "request_key": key}
        report = (
            run_trial(bench.worker, bench.artifacts, **asked)
            if contest.function is None
            else run_function_trial(bench.worker, bench.artifacts, function=contest.function, **asked)
        )
        if report.model_id is None or report.quality is None:
            continue
        with bench.worker.begin() as tx:
            model = models.get_model(tx, studies.get_study(tx, contest.name).id, report.model_id)
        file = files_of(bench.worker, bench.artifacts, study=contest.name).path(model.artifact)
        predictor = load_predictor(file, model.format)
        race.note(contest.score_of(report.quality), predictor.predict)


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
    replaced, order = {row["study"] for row in fresh}, list(KINDS)
    old = [row for row in read_rows(path) if row["study"] not in replaced]
    rows = sorted([*old, *fresh], key=lambda row: order.index(row["study"]))
    write_rows(path, rows, [field.name for field in fields(Line)])


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
@click.option("--study", "names", multiple=True, type=click.Choice(list(KINDS)), help="This one; as often as wanted.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Default: the file in results.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def main(seconds: float, names: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Run and print."""
    warnings.simplefilter("ignore")  # of the rivals: what they find odd about their own settings
    lines: list[Line] = []
    warm()
    with threadpool_limits(1):  # of the libraries that are loaded by now
        for name in names or KINDS:
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
