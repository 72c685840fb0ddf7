"""``easeml validation``: how far the validation set of a study is used up, and how another takes its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from easeml_core.cli.connection import artifacts_option, database_option, open_artifacts, open_installation, open_store
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import example, json_option, plain, show_json, show_table
from easeml_core.errors import counted

_FILE = click.Path(dir_okay=False, path_type=Path)
_REFEREE = "easeml_referee"
_REPLACE_EXAMPLES = """\b
Examples:
  easeml validation replace digits --inputs new.csv --labels truth.csv
  easeml validation replace digits --from-set spring --add
"""


@click.group(epilog=example("easeml validation show flowers"))
def validation() -> None:
    """Validation sets: fresh, used, worn, replaced.

    The address of replace and remeasure is that of the role easeml_referee.
    """


@validation.command(epilog=example("easeml validation show digits"))
@click.argument("study", type=STUDY)
@click.option("--team", type=int, help="Whose signals count, where the meter serves several teams.")
@artifacts_option
@database_option
@json_option
def show(study: str, team: int | None, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Say how often the validation set was looked at, what that means, and what to do."""
    from easeml_core.services.datasets.validation_sets import validation_report

    found = validation_report(*open_installation(database, artifacts), study, team=team)
    if as_json:
        show_json(found)
        return
    click.echo(plain(f"validation set {found['version']} of {study} is {found['state']}: {found['advice']}"))
    click.echo(_looks_line(found["looks"]) + _signals_line(found["signals"]))
    if found["inherits_from"]:
        versions = ", ".join(map(str, found["inherits_from"]))
        click.echo(
            f"most of its rows are from version {versions}, and count with what was seen there: "
            + _looks_line(found["inherited_looks"])
            + _signals_line(found["inherited_signals"])
        )
    click.echo(_size_line(found))
    if found["split"]:
        click.echo(plain(f"split: {found['split']}"))
    if found["to_measure"] or found["under_way"]:
        click.echo(
            f"trained models that wait to be measured on it: {found['to_measure']:,} (`easeml validation remeasure "
            f"{study}`, or the referee does it in time); {_under_way(found)}"
        )
    if found["given_up"]:
        click.echo(
            f"{found['given_up']:,} could not be measured and count as failed on it; the referee's log says why "
            f"(`easeml validation remeasure {study}` tries again)"
        )
    columns = {"Version": "version", "Rows": "rows", "Since": "since", "State": "state"}
    columns |= {"Trials": "trials", "Submissions": "submissions", "Nights": "nights"}
    show_table("Validation sets", columns, [entry | entry["looks"] for entry in found["history"]])


def _looks_line(looks: dict[str, int]) -> str:
    counts = ", ".join(f"{kind} {count:,}" for kind, count in looks.items())
    total = sum(looks.values())
    return f"looked at {counted(total, 'time')}: {counts}"


def _under_way(found: dict[str, Any]) -> str:
    return f"{counted(found['under_way'], 'trial')} on earlier data under way"


def _signals_line(signals: list[int]) -> str:
    return f"; signals of the meter: {', '.join(map(str, signals[-10:]))}" if signals else "; no signal of the meter"


def _size_line(found: dict[str, Any]) -> str:
    if found["minimum"] is None:
        return f"{counted(found['rows'], 'row')}; no number keeps their noise in range 1, since it ends at 0 or below"
    return (
        f"{counted(found['rows'], 'row')}; {found['minimum']:,} keep their own noise in range 1, "
        f"{found['rows_for_looks']:,} do for so many looks"
    )


@validation.command(epilog=_REPLACE_EXAMPLES)
@click.argument("study", type=STUDY)
@click.option("--inputs", type=_FILE, help="CSV: a column example, and the study's columns; with --labels.")
@click.option("--labels", type=_FILE, help="CSV: example,label.")
@click.option("--from-set", metavar="SET", help="A released test set of the study, instead of files.")
@click.option("--add", is_flag=True, help="Keep the rows that are there, and add these.")
@artifacts_option
@database_option
@json_option
def replace(
    study: str,
    inputs: Path | None,
    labels: Path | None,
    from_set: str | None,
    add: bool,
    artifacts: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Give a study another validation set; its training part and what was trained on it stay."""
    from easeml_core.services.datasets.validation_sets import replace_validation

    found = replace_validation(
        *open_installation(database, artifacts, role=_REFEREE),
        study=study,
        inputs=inputs,
        labels=labels,
        from_set=from_set,
        add=add,
    )
    if as_json:
        show_json(found)
        return
    for warning in found["warnings"]:
        click.echo(f"easeml: {plain(warning)}", err=True)
    again = "has it already: " if found["replaced_before"] else ""
    click.echo(
        f"{again}validation set {found['version']} of {study}: {counted(found['rows'], 'row')}, "
        f"{found['added']:,} of them new; {counted(found['to_measure'], 'model')} to measure"
    )
    _show_left_out(found, add=add)


def _show_left_out(found: dict[str, Any], *, add: bool) -> None:
    why = {"duplicates": "repeat another row", "unlabelled": "have no label"}
    why |= {"already": "are there already"} if add else {}
    counts = [f"{found[name]:,} {words}" for name, words in why.items() if found[name]]
    if counts:
        click.echo("left out: " + ", ".join(counts))


@validation.command(epilog=example("easeml validation remeasure digits"))
@click.argument("study", type=STUDY)
@artifacts_option
@database_option
@json_option
def remeasure(study: str, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Measure trained models on the new validation set now, instead of when the referee has time.

    May be interrupted and repeated. Exit status 1: a model could not be measured.
    """
    from easeml_core.services.evaluation.reevaluation import remeasure as measure

    store = open_store(database, role=_REFEREE)
    found = measure(store, open_artifacts(artifacts, store), study, log=lambda line: click.echo(plain(line), err=True))
    if as_json:
        show_json(found)
    else:
        click.echo(
            f"validation set {found['version']} of {study}: {counted(len(found['measured']), 'model')} measured, "
            + (f"{found['by_referee']:,} measured by the referee meanwhile, " if found["by_referee"] else "")
            + f"{len(found['failed']):,} failed, {found['left']:,} left; {_under_way(found)}"
        )
    if found["failed"]:
        click.get_current_context().exit(1)
