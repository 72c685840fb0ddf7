"""``easeml infer``: ask a model of a study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import artifacts_option, database_option, open_installation
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import json_option, plain, show_json
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from typing import TextIO

_EXAMPLES = """\b
Examples:
  easeml infer flowers new.csv --output answers.csv
  easeml infer flowers --row "5.1,3.5,1.4,0.2" --model best
  easeml infer digits photo.png --probabilities
  head -1 values.csv | easeml infer flowers
"""


@click.command(epilog=_EXAMPLES)
@click.argument("study", type=STUDY)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option(
    "--row", "rows", multiple=True, help="Numbers of one row, by commas; empty for a missing one. Repeatable."
)
@click.option("--model", default="production", show_default=True, help="production, best, or the id of a model.")
@click.option("--probabilities", is_flag=True, help="The probability of each class too.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="CSV file for the answers.")
@artifacts_option
@database_option
@json_option
def infer(
    study: str,
    path: Path | None,
    rows: tuple[str, ...],
    model: str,
    probabilities: bool,
    output: Path | None,
    artifacts: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Answer the rows of PATH (CSV, .npy, an image, or a folder), those of --row, or those on standard input.

    Columns of a CSV file that are no inputs of the study are kept beside the answers. The last line on standard error
    says which model has answered, and how long it took.
    """
    from easeml_core.services.models.inference import infer as ask
    from easeml_core.services.models.inference import write_answers, write_answers_to

    if path is not None and rows:
        message = "give a PATH or --row, not both"
        raise InvalidInputError(message)
    given = None if path is not None else [_numbers(row) for row in (rows or _lines(sys.stdin))]
    told = ask(
        *open_installation(database, artifacts),
        study=study,
        inputs=given,
        path=path,
        model=model,
        probabilities=probabilities,
    )
    if output is not None:
        write_answers(output, told)
    if as_json:
        show_json({name: value for name, value in told.items() if name != "columns"})
        return
    if output is None:
        write_answers_to(sys.stdout, told)
    click.echo(plain(_by_whom(told)), err=True)


def _by_whom(told: dict[str, Any]) -> str:
    latency, count = told["latency"], len(told["labels"])
    who = f"{told['model']}, {told['candidate'] or 'handed in'}, data version {told['data_version']}"
    took = f"{latency['total_ms']:,.0f} ms, {latency['ms_per_row']:,.2f} ms a row, the start of the model included"
    return f"answered by model {told['model_id']} ({who}): {counted(count, 'row')} in {took}"


def _lines(stream: TextIO) -> list[str]:
    if stream.isatty():
        message = "give a PATH, --row, or rows of numbers on standard input"
        raise InvalidInputError(message)
    return [line for line in stream.read(64 * 1024 * 1024).splitlines() if line.strip()]


def _numbers(row: str) -> list[float | None]:
    try:
        return [float(cell) if cell.strip() else None for cell in row.split(",")]
    except ValueError as error:
        message = (
            f"a row must be numbers by commas, in the order of the columns of `easeml study show`, such as "
            f"5.1,3.5,,0.2; {error}. Words and a line of names go into a CSV file: easeml infer STUDY FILE"
        )
        raise InvalidInputError(message) from error
