"""``easeml refine``: the rows that a study learns from, switched off and on; and those whose labels look wrong."""

from __future__ import annotations

import click

from easeml_core.cli.connection import artifacts_option, database_option, open_installation, open_store
from easeml_core.cli.datasets import key_option, new_key, refreshed, whoever
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import example, json_option, plain, show_json, show_table
from easeml_core.errors import counted


@click.group(epilog=example("easeml refine list flowers --suspicious"))
def refine() -> None:
    """Training rows: list, rank by doubt, switch off and on, apply.

    A row is named by the first 8 digits or more of the hash of its inputs. What is switched counts from the next
    refresh on, which makes a new data version; what was observed on the old one stays with it.
    """


@refine.command("list", epilog=example("easeml refine list flowers --off"))
@click.argument("study", type=STUDY)
@click.option("--off", is_flag=True, help="Only rows that are switched off, or will be.")
@click.option("--suspicious", is_flag=True, help="The rows whose labels look wrong, as `easeml refine rank`.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many rows, the last first.")
@artifacts_option
@database_option
@json_option
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
        f"version {found['version']} of {study}: {counted(found['on'], 'training row')}, "
        f"{found['off']:,} switched off; "
        f"{counted(found['waiting_pairs'], 'fed pair waits', 'fed pairs wait')} for the next refresh"
    )
    columns = {"Row": "hash", "Label": "label", "Origin": "origin", "State": "state", "Reason": "reason"}
    show_table(f"Rows of {study}", columns, found["pairs"])


@refine.command(epilog=example("easeml refine rank flowers --limit 20"))
@click.argument("study", type=STUDY)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many rows.")
@artifacts_option
@database_option
@json_option
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
    click.echo(f"version {found['version']} of {study}: {found['suspected']:,} of {found['rows']:,} labels look wrong")
    columns = {"Row": "hash", "Label": "label", "Expected": "expected", "Doubt": "doubt", "Suspected": "suspected"}
    show_table(f"Doubtful labels of {study}", columns, found["pairs"])


@refine.command(epilog=example('easeml refine off flowers 3fa40c1b9e77 --reason "the label is wrong"'))
@click.argument("study", type=STUDY)
@click.argument("hashes", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; kept with the rows.")
@key_option
@artifacts_option
@database_option
@json_option
def off(
    study: str,
    hashes: tuple[str, ...],
    reason: str,
    request_key: str | None,
    artifacts: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Switch the rows HASHES of STUDY off; the same pairs fed with another label then take their places."""
    _switch(study, hashes, reason, request_key, artifacts, database, as_json, on=False)


@refine.command(epilog=example('easeml refine on flowers 3fa40c1b9e77 --reason "it was right"'))
@click.argument("study", type=STUDY)
@click.argument("hashes", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; kept with the rows.")
@key_option
@artifacts_option
@database_option
@json_option
def on(
    study: str,
    hashes: tuple[str, ...],
    reason: str,
    request_key: str | None,
    artifacts: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Switch the rows HASHES of STUDY on again."""
    _switch(study, hashes, reason, request_key, artifacts, database, as_json, on=True)


def _switch(
    study: str,
    hashes: tuple[str, ...],
    reason: str,
    request_key: str | None,
    artifacts: str | None,
    database: str | None,
    as_json: bool,
    *,
    on: bool,
) -> None:
    from easeml_core.services.datasets.refine import switch_pairs

    done = switch_pairs(
        *open_installation(database, artifacts),
        study=study,
        hashes=hashes,
        on=on,
        reason=reason,
        switched_by=whoever(),
        request_key=new_key(request_key),
    )
    if as_json:
        show_json(done)
    else:
        side = "on" if on else "off"
        click.echo(
            f"{counted(done['switched'], 'row is', 'rows are')} switched {side} with the next refresh "
            f"(`easeml refine apply {study}`)"
        )


@refine.command(epilog=example("easeml refine feeds flowers"))
@click.argument("study", type=STUDY)
@database_option
@json_option
def feeds(study: str, database: str | None, as_json: bool) -> None:
    """List what was fed to STUDY, by whom, and what became of it."""
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
@database_option
@json_option
def apply(study: str, timeout: float, request_key: str | None, database: str | None, as_json: bool) -> None:
    """Make a new data version of all that was fed to STUDY and switched in it, if anything of it is new.

    Exit status 1: the referee refused.
    """
    answer = refreshed(open_store(database), study, new_key(request_key), timeout)
    if as_json:
        show_json(answer)
    else:
        click.echo(plain(answer["message"]))
    if answer["refused"]:
        click.get_current_context().exit(1)
