"""``easeml feed``, ``refine`` and ``validation``: feed pairs, switch training rows, replace validation sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import (
    REFEREE,
    STUDY,
    account_name,
    installation_options,
    key_option,
    new_key,
    open_artifacts,
    open_installation,
    open_store,
    store_options,
    wait_for_answer,
)
from easeml_core.cli.output import example, plain, show_json, show_table
from easeml_core.errors import InvalidInputError, counted
from easeml_core.formats.encoding import row_of

if TYPE_CHECKING:
    from easeml_core.cli.output import Columns
    from easeml_core.entities import GivenAnswer
    from easeml_core.services.datasets.validation_sets import ReplacedValidation, ValidationSetReport
    from easeml_core.store.database import Store


_EXAMPLES = """\b
Examples:
  easeml feed flowers new.csv --refresh
  easeml feed flowers inputs.csv --labels truth.csv
  easeml feed digits more-images/
  easeml feed digits unsorted-images/ --labels truth.csv
  easeml feed flowers --pair '{"inputs": {"length": 5.1, "width": 3.5}, "label": "setosa"}'
"""


def refreshed(store: Store, study: str, request_key: str, timeout: float) -> GivenAnswer:
    """Return the referee's answer to a request to refresh the study."""
    from easeml_core.services.datasets.feed import file_refresh

    filed = file_refresh(store, study=study, request_key=request_key)
    return wait_for_answer(store, filed.request_id, timeout)


@click.command(epilog=_EXAMPLES)
@click.argument("study", type=STUDY)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--label", "label_column", default="label", show_default=True, help="Column of the labels in PATH.")
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV: example,label; then PATH has rows without labels, in a table with a column example.",
)
@click.option("--pair", "pairs", multiple=True, metavar="JSON", help="One pair; may be given more than once.")
@click.option("--refresh", is_flag=True, help="Make a new data version of it now, and wait for the referee's answer.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for that answer.")
@key_option
@installation_options
def feed(
    study: str, pairs: tuple[str, ...], refresh: bool, timeout: float, request_key: str | None, artifacts: str | None,
    database: str | None, as_json: bool, **files: Any,
) -> None:  # fmt: skip
    """Feed labelled pairs to STUDY: a CSV or Parquet file, a folder of arrays or of images by class, or single pairs.

    They wait for the study's next refresh: at night, with --refresh, or by `easeml refine apply`. Rows that the study
    knows already are left out then. Exit status 1: the referee refused.
    """
    from easeml_core.services.datasets.feed import feed as bring

    store, key = open_store(database), new_key(request_key)
    fed = bring(
        store,
        open_artifacts(artifacts, store),
        **files,
        study=study,
        pairs=[_pair(text) for text in pairs] if pairs else None,
        fed_by=account_name(),
        request_key=key,
    )
    answer = refreshed(store, study, f"{key}/refresh", timeout) if refresh else None
    if as_json:
        from easeml_core.services.referee.requests import FedPairs

        show_json(FedPairs(**row_of(fed), refresh=answer))
    else:
        click.echo(f"feed {fed.feed_id} of study {study}: {counted(fed.rows, 'pair')}")
        ask = f"they wait for the next refresh: at night, or with `easeml refine apply {study}`"
        click.echo(ask if answer is None else plain(answer.message))
    if answer is not None and answer.refused:
        click.get_current_context().exit(1)


def _pair(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        message = f'--pair must be JSON such as {{"inputs": [5.1, 3.5], "label": "setosa"}}: {error}'
        raise InvalidInputError(message) from error


@click.group(epilog=example("easeml refine list flowers --suspicious"))
def refine() -> None:
    """Training rows: list, rank by doubt, switch off and on, apply.

    A row is named by the first 8 digits or more of the hash of its inputs. Switches take effect at the next refresh,
    which makes a new data version; observations stay with the old one.
    """


@refine.command("list", epilog=example("easeml refine list flowers --off"))
@click.argument("study", type=STUDY)
@click.option("--off", is_flag=True, help="Only rows that are switched off, or will be.")
@click.option("--suspicious", is_flag=True, help="The rows whose labels look wrong, as `easeml refine rank`.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many rows, the last first.")
@installation_options
def list_(
    study: str, off: bool, suspicious: bool, limit: int, artifacts: str | None, database: str | None, as_json: bool
) -> None:
    """List the rows of STUDY's training part, and those that are switched off."""
    from easeml_core.services.datasets.refine import list_pairs

    if suspicious:
        _show_ranking(study, limit, artifacts, database, as_json)
        return
    found = list_pairs(*open_installation(database, artifacts), study=study, off=off, limit=limit)
    if as_json:
        show_json(found)
        return
    click.echo(
        f"version {found.version} of {study}: {counted(found.on, 'training row')}, "
        f"{found.off:,} switched off; "
        f"{counted(found.waiting_pairs, 'fed pair waits', 'fed pairs wait')} for the next refresh"
    )
    columns = {"Row": "hash", "Label": "label", "Origin": "origin", "State": "state", "Reason": "reason"}
    show_table(f"Rows of {study}", columns, found.pairs)


@refine.command(epilog=example("easeml refine rank flowers --limit 20"))
@click.argument("study", type=STUDY)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many rows.")
@installation_options
def rank(study: str, limit: int, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Rank the training rows of STUDY by doubt in their labels, from models that have not seen them.

    Trains some models for it, on this machine and on open data only; may take minutes. Nothing is switched.
    """
    _show_ranking(study, limit, artifacts, database, as_json)


def _show_ranking(study: str, limit: int, artifacts: str | None, database: str | None, as_json: bool) -> None:
    from easeml_core.services.datasets.refine import rank_pairs

    found = rank_pairs(*open_installation(database, artifacts), study=study, limit=limit)
    if as_json:
        show_json(found)
        return
    click.echo(f"version {found.version} of {study}: {found.suspected:,} of {found.rows:,} labels look wrong")
    columns = {"Row": "hash", "Label": "label", "Expected": "expected", "Doubt": "doubt", "Suspected": "suspected"}
    show_table(f"Doubtful labels of {study}", columns, found.pairs)


@refine.command(epilog=example('easeml refine off flowers 3fa40c1b9e77 --reason "the label is wrong"'))
@click.argument("study", type=STUDY)
@click.argument("hashes", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; kept with the rows.")
@key_option
@installation_options
def off(**given: Any) -> None:
    """Switch the rows HASHES of STUDY off; the same pairs fed with another label then replace them."""
    _switch(**given, on=False)


@refine.command(epilog=example('easeml refine on flowers 3fa40c1b9e77 --reason "it was right"'))
@click.argument("study", type=STUDY)
@click.argument("hashes", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; kept with the rows.")
@key_option
@installation_options
def on(**given: Any) -> None:
    """Switch the rows HASHES of STUDY on again."""
    _switch(**given, on=True)


def _switch(
    *, request_key: str | None, artifacts: str | None, database: str | None, as_json: bool, **given: Any
) -> None:
    from easeml_core.services.datasets.refine import switch_pairs

    place = open_installation(database, artifacts)
    done = switch_pairs(*place, **given, switched_by=account_name(), request_key=new_key(request_key))
    if as_json:
        show_json(done)
    else:
        side = "on" if given["on"] else "off"
        click.echo(
            f"{counted(done.switched, 'row is', 'rows are')} switched {side} with the next refresh "
            f"(`easeml refine apply {given['study']}`)"
        )


@refine.command(epilog=example("easeml refine feeds flowers"))
@click.argument("study", type=STUDY)
@store_options
def feeds(study: str, database: str | None, as_json: bool) -> None:
    """List what was fed to STUDY, by whom, and with which result."""
    from easeml_core.services.datasets.feed import list_feeds

    found = list_feeds(open_store(database), study=study)
    if as_json:
        show_json(found)
        return
    columns = {"Feed": "feed_id", "Pairs": "rows", "From": "origin", "By": "fed_by", "At": "fed_at"}
    show_table(f"Feeds of {study}", columns | {"State": "state", "Reason": "reason"}, found)


@refine.command(epilog=example("easeml refine apply flowers"))
@click.argument("study", type=STUDY)
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the referee's answer.")
@key_option
@store_options
def apply(study: str, timeout: float, request_key: str | None, database: str | None, as_json: bool) -> None:
    """Make a new data version of all that was fed to STUDY and switched in it, if anything of it is new.

    Exit status 1: the referee refused.
    """
    answer = refreshed(open_store(database), study, new_key(request_key), timeout)
    if as_json:
        show_json(answer)
    else:
        click.echo(plain(answer.message))
    if answer.refused:
        click.get_current_context().exit(1)


_FILE = click.Path(dir_okay=False, path_type=Path)
NEW_ROWS = (
    "CSV or Parquet with a column example and the study's columns; .npy; or a folder or zip file of images or arrays, "
    "with labels as at registration or without."
)
_REPLACE_EXAMPLES = """\b
Examples:
  easeml validation replace flowers --inputs new.csv --labels truth.csv
  easeml validation replace digits --inputs images-by-class/
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
@installation_options
def show(study: str, team: int | None, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Show how often the validation set was used, what that means, and what to do."""
    from easeml_core.services.datasets.validation_sets import validation_report

    found = validation_report(*open_installation(database, artifacts), study, team=team)
    if as_json:
        show_json(found)
        return
    click.echo(plain(f"validation set {found.version} of {study} is {found.state}: {found.advice}"))
    click.echo(_looks_line(found.looks) + _signals_line(found.signals))
    if found.inherits_from:
        versions = ", ".join(map(str, found.inherits_from))
        click.echo(
            f"most of its rows are from version {versions}, and count with what was seen there: "
            + _looks_line(found.inherited_looks)
            + _signals_line(found.inherited_signals)
        )
    click.echo(_size_line(found))
    if found.split:
        click.echo(plain(f"split: {found.split}"))
    if found.to_measure or found.under_way:
        click.echo(
            f"trained models that wait to be measured on it: {found.to_measure:,} (`easeml validation remeasure "
            f"{study}`, or the referee does it in time); {_under_way(found.under_way)}"
        )
    if found.given_up:
        click.echo(
            f"{found.given_up:,} could not be measured and count as failed on it; the referee's log says why "
            f"(`easeml validation remeasure {study}` tries again)"
        )
    columns: Columns = {
        "Version": "version",
        "Rows": "rows",
        "Since": lambda entry: entry.since.isoformat(),
        "State": "state",
        "Trials": lambda entry: entry.looks["trials"],
        "Submissions": lambda entry: entry.looks["submissions"],
        "Nights": lambda entry: entry.looks["nights"],
    }
    show_table("Validation sets", columns, found.history)


def _looks_line(looks: dict[str, int]) -> str:
    counts = ", ".join(f"{kind} {count:,}" for kind, count in looks.items())
    total = sum(looks.values())
    return f"looked at {counted(total, 'time')}: {counts}"


def _under_way(trials: int) -> str:
    return f"{counted(trials, 'trial')} on earlier data under way"


def _signals_line(signals: list[int]) -> str:
    return f"; signals of the meter: {', '.join(map(str, signals[-10:]))}" if signals else "; no signal of the meter"


def _size_line(found: ValidationSetReport) -> str:
    if found.minimum is None:
        return f"{counted(found.rows, 'row')}; no number keeps their noise in range 1, since it ends at 0 or below"
    return (
        f"{counted(found.rows, 'row')}; {found.minimum:,} keep their own noise in range 1, "
        f"{found.rows_for_looks:,} do for so many looks"
    )


@validation.command(epilog=_REPLACE_EXAMPLES)
@click.argument("study", type=STUDY)
@click.option("--inputs", type=click.Path(path_type=Path), help=NEW_ROWS)
@click.option("--labels", type=_FILE, help="CSV: example,label. Default: the labels that the inputs have.")
@click.option(
    "--from-set", metavar="SET", help="A released test set of the study that has all labels, instead of files."
)
@click.option("--add", is_flag=True, help="Keep the rows that are there, and add these.")
@installation_options
def replace(artifacts: str | None, database: str | None, as_json: bool, **given: Any) -> None:
    """Give a study another validation set; its training part and its models stay."""
    from easeml_core.services.datasets.validation_sets import replace_validation

    found = replace_validation(*open_installation(database, artifacts, role=REFEREE), **given)
    if as_json:
        show_json(found)
        return
    for warning in found.warnings:
        click.echo(f"easeml: {plain(warning)}", err=True)
    again = "has it already: " if found.replaced_before else ""
    click.echo(
        f"{again}validation set {found.version} of {given['study']}: {counted(found.rows, 'row')}, "
        f"{found.added:,} of them new; {counted(found.to_measure, 'model')} to measure"
    )
    _show_left_out(found, add=given["add"])


def _show_left_out(found: ReplacedValidation, *, add: bool) -> None:
    repeated, known = found.duplicates, found.already if add else 0
    counts = [counted(repeated, "repeats another row", "repeat another row")] if repeated else []
    counts += [counted(known, "is there already", "are there already")] if known else []
    if counts:
        click.echo("left out: " + ", ".join(counts))


@validation.command(epilog=example("easeml validation remeasure digits"))
@click.argument("study", type=STUDY)
@installation_options
def remeasure(study: str, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Evaluate trained models on the new validation set now, instead of when the referee has time.

    May be interrupted and repeated. Exit status 1: a model could not be measured.
    """
    from easeml_core.services.evaluation.reevaluation import remeasure as measure

    store = open_store(database, role=REFEREE)
    found = measure(store, open_artifacts(artifacts, store), study, log=lambda line: click.echo(plain(line), err=True))
    if as_json:
        show_json(found)
    else:
        click.echo(
            f"validation set {found.version} of {study}: {counted(len(found.measured), 'model')} measured, "
            + (f"{found.by_referee:,} measured by the referee meanwhile, " if found.by_referee else "")
            + f"{len(found.failed):,} failed, {found.left:,} left; {_under_way(found.under_way)}"
        )
    if found.failed:
        click.get_current_context().exit(1)
