"""``easeml labels``: which labels are wanted, what labelers give, and where they differ."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import STUDY, database_option, open_store
from easeml_core.cli.output import example, json_option, plain, show_json, show_table
from easeml_core.csv_text import GuardedWriter
from easeml_core.errors import counted

if TYPE_CHECKING:
    from easeml_core.services.labeling.requests import Conflict, WantedLabels

_FILE = click.Path(dir_okay=False, path_type=Path)
_REFEREE = "easeml_referee"
_set_option = click.option("--set", "test_set", metavar="SET", help="Name or number; default: the live gate set.")


@click.group(epilog=example("easeml labels wanted flowers --to wanted.csv"))
def labels() -> None:
    """Labels of sealed examples, requested when a verdict needs them.

    The address is that of the role easeml_referee.
    """


@labels.command(epilog=example("easeml labels wanted flowers --to wanted.csv"))
@click.argument("study", type=STUDY)
@_set_option
@click.option("--labeler", metavar="NAME", help="Leave out what this labeler has given; default: what any has.")
@click.option("--limit", default=200, show_default=True, help="Examples at most.")
@click.option("--to", type=_FILE, help="CSV file to write; default: CSV on standard output.")
@database_option
@json_option
def wanted(to: Path | None, database: str | None, as_json: bool, **given: Any) -> None:
    """Write the examples whose labels are wanted, in the set's fixed order."""
    from easeml_core.services.labeling.requests import wanted_labels

    found = wanted_labels(open_store(database, role=_REFEREE), **given, to=to)
    if as_json:
        show_json(found)
    elif to is not None:
        click.echo(f"{to}: {len(found.examples):,} of {found.wanted:,} examples whose labels are wanted")
    else:
        _show_csv(found)


def _show_csv(found: WantedLabels) -> None:
    text = io.StringIO()
    writer = GuardedWriter(text)
    writer.row(["example", *found.columns])
    for entry in found.examples:
        writer.row([entry.example, *entry.inputs])
    click.echo(plain(text.getvalue()), nl=False)


@labels.command(epilog=example("easeml labels give --study flowers --labeler ann ann.csv"))
@click.option("--study", type=STUDY, required=True, help="Whose test set is labelled.")
@click.option("--labeler", required=True, metavar="NAME", help="Who says so; referee settles conflicts.")
@_set_option
@click.argument("file", type=_FILE)
@database_option
@json_option
def give(study: str, labeler: str, test_set: str | None, file: Path, database: str | None, as_json: bool) -> None:
    """Give the labels of FILE, a CSV example,label with class names or indices; all of them or none."""
    from easeml_core.services.labeling.requests import give_labels

    store = open_store(database, role=_REFEREE)
    found = give_labels(store, study=study, labeler=labeler, labels=file, test_set=test_set)
    if as_json:
        show_json(found)
        return
    click.echo(
        f"labels: {found.new:,} new, {found.replaced:,} replaced, {found.unchanged:,} known; "
        f"{found.wanted:,} still wanted, {found.conflicts:,} in conflict"
    )
    if found.conflicts:
        click.echo("what is in conflict waits for the labeler referee; see `easeml labels conflicts`")


@labels.command(epilog=example("easeml labels conflicts flowers"))
@click.argument("study", type=STUDY)
@_set_option
@database_option
@json_option
def conflicts(study: str, test_set: str | None, database: str | None, as_json: bool) -> None:
    """List the examples on which two labelers differ; the labeler referee decides them."""
    from easeml_core.services.labeling.requests import label_conflicts

    found = label_conflicts(open_store(database, role=_REFEREE), study=study, test_set=test_set)
    if as_json:
        show_json(found)
        return
    show_table("Conflicts", {"Example": "example", "Said": _said}, found.conflicts)


def _said(conflict: Conflict) -> str:
    return ", ".join(f"{who}: {said}" for who, said in conflict.labels.items())


@labels.command(epilog=example("easeml labels unsure flowers", "easeml labels unsure flowers --again"))
@click.argument("study", type=STUDY)
@_set_option
@click.option("--again", is_flag=True, help="Ask about all of them once more, those who could not tell included.")
@database_option
@json_option
def unsure(study: str, test_set: str | None, again: bool, database: str | None, as_json: bool) -> None:
    """List examples that labelers passed and that have no label; the referee adjudicates them."""
    from easeml_core.services.labeling.adjudication import list_unsure

    found = list_unsure(open_store(database, role=_REFEREE), study=study, test_set=test_set, again=again)
    if as_json:
        show_json(found)
        return
    show_table("Unsure", {"Example": "example", "Labelers who passed": lambda e: str(e.passed)}, found.unsure)
    if again:
        click.echo(f"asked again: {counted(found.asked, 'word')} taken back")
