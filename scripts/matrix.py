"""Try our wheel beside an Airflow that is there already, on a Python, as a user does; record what came of it.

    python scripts/matrix.py 3.1 3.13
    python scripts/matrix.py all            (every cell of the table)
    python scripts/matrix.py --table        (the table of what was tried, printed and in docs/install.md)

A cell: Airflow is installed as of its time, then our wheel with the constraints of that Airflow; the DAGs are imported;
a study is registered and a night run over REST; triggers of each kind are pending in a live triggerer; a gate waits for
labels and gets them; the pages answer.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from cells.environments import RELEASES, REPOSITORY, CellError, build_wheel, make_environment, release_of, run
from cells.stock_airflow import stock_airflow
from cells.walk import models_of_each_kind, steps
from stack.failures import StackError

RESULTS = REPOSITORY / "benchmarks" / "results" / "matrix.jsonl"
PAGE, BEGIN, END = REPOSITORY / "docs" / "install.md", "<!-- matrix -->", "<!-- /matrix -->"
CELLS = tuple((release.minor, python) for release in RELEASES for python in ("3.11", "3.12", "3.13"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cell gave.

    Attributes:
        airflow: Version.
        python: Version.
        day: Of the trial, UTC.
        commit: Of our code.
        lowest: Whether our other requirements had the oldest versions that we allow.
        steps: What each step found, in order.
        failure: Of the step after these; None where all went well.
    """

    airflow: str
    python: str
    day: str
    commit: str
    lowest: bool
    steps: dict[str, str]
    failure: str | None


def try_cell(airflow: str, python: str, wheel: Path, *, lowest: bool, keep: bool) -> Outcome:
    """Try one cell from an empty folder to its end."""
    release, found, failure, version = release_of(airflow), dict[str, str](), None, python
    home = Path(tempfile.mkdtemp(prefix="easeml-cell-"))
    step = "installation"
    try:
        environment = make_environment(home / "venv", release, python, wheel, lowest)
        version = environment.python_version()
        found[step] = f"{len(environment.versions)} packages"
        step = "models of each kind"
        found[step] = models_of_each_kind(environment)
        step = "start"
        with stock_airflow(environment, home / "airflow") as cell:
            for step, do in steps(cell):
                began = time.monotonic()
                found[step] = do()
                click.echo(f"  {step}: {found[step]} ({time.monotonic() - began:.0f} s)")
    except (CellError, StackError) as error:  # the latter: Airflow refuses a request, or does not answer
        failure = f"{step}: {error}"
        click.echo(f"  {failure}", err=True)
    finally:
        if keep or failure:
            click.echo(f"  kept: {home}")
        else:
            shutil.rmtree(home)
    return Outcome(
        release.version, version, datetime.now(UTC).date().isoformat(), commit(), lowest, found, _brief(failure)
    )


def commit() -> str:
    """Return the commit of our code."""
    return run(["git", "-C", str(REPOSITORY), "rev-parse", "--short=8", "HEAD"]).strip()


def table_of(outcomes: list[Outcome]) -> str:
    """Return the latest outcome of each cell as a Markdown table."""
    latest = {(o.airflow, o.python, o.lowest): o for o in outcomes}
    lines = ["| Airflow | Python | our other requirements | day | outcome |", "| --- | --- | --- | --- | --- |"]
    for (airflow, python, lowest), outcome in sorted(latest.items(), key=lambda item: _order(item[0])):
        said = "works" if outcome.failure is None else f"fails: {outcome.failure}"
        which = "the oldest allowed" if lowest else "`constraints/`"
        lines.append(f"| {airflow} | {python} | {which} | {outcome.day} | {said} |")
    return "\n".join(lines) + "\n"


def read_outcomes() -> list[Outcome]:
    """Return what is recorded, oldest first."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return [Outcome(**json.loads(line)) for line in lines]


def write_table() -> None:
    """Write the table of what is recorded into the page."""
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    PAGE.write_text(f"{before}{begin}\n{table_of(read_outcomes())}{end}{after}", encoding="utf-8")


def _order(cell: tuple[str, str, bool]) -> tuple[list[int], list[int], bool]:
    airflow, python, lowest = cell
    return [int(part) for part in airflow.split(".")], [int(part) for part in python.split(".")], lowest


def _brief(failure: str | None) -> str | None:
    return failure.strip().splitlines()[0][:200] if failure else None


@click.command(help=__doc__)
@click.argument("airflow", default="all")
@click.argument("python", required=False)
@click.option("--lowest", is_flag=True, help="Take the oldest version that we allow of each package that we name.")
@click.option("--save", is_flag=True, help="Add the outcome to the record and to the table of docs/install.md.")
@click.option("--keep", is_flag=True, help="Keep the folder of a cell that works, too.")
@click.option("--table", is_flag=True, help="Write the table of what is recorded, and try nothing.")
def main(airflow: str, python: str | None, lowest: bool, save: bool, keep: bool, table: bool) -> None:
    """Try cells; end with 1 where one fails."""
    if table:
        write_table()
        click.echo(table_of(read_outcomes()), nl=False)
        return
    if python is None and airflow != "all":
        message = "name a Python, too, such as 3.13"
        raise click.UsageError(message)
    cells = CELLS if python is None else ((airflow, python),)
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for of_airflow, of_python in cells:
            click.echo(f"Airflow {of_airflow}, Python {of_python}")
            outcome = try_cell(of_airflow, of_python, wheel, lowest=lowest, keep=keep)
            outcomes.append(outcome)
            if save:
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
                write_table()
    click.echo(table_of(outcomes), nl=False)
    sys.exit(0 if all(outcome.failure is None for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
