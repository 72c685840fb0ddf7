"""The commands that archive, restore and delete studies and tenants, and that withdraw candidates."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from easeml_core.cli.connection import OWNER, STUDY, open_store, store_options
from easeml_core.cli.output import example, plain, show_json, show_table
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.cli.output import Columns
    from easeml_core.services.studies.archive import ChangedStudy, ChangedTenant, WithdrawnCandidate


_WHY = "The reason, of at most 500 characters; the audit has it."
_why_option = click.option("--why", required=True, help=_WHY)
_optional_why_option = click.option("--why", default="", help=_WHY)
_dry_run_option = click.option("--dry-run", is_flag=True, help="Check it and say what would change; change nothing.")
_yes_option = click.option("--yes", is_flag=True, help="Do not ask for a confirmation.")
_withdraw_option = click.option(
    "--withdraw", is_flag=True, help="Also with a model in production, which answers no rows from then on."
)


def confirm(question: str, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Ask before a change where a person can answer; scripts give --yes, --json or --dry-run."""
    if not (yes or dry_run or as_json) and sys.stdin.isatty():
        click.confirm(plain(question), abort=True, err=True)


@click.command("archive", epilog=example("easeml study archive flwoers --why 'a typo in its name' --dry-run"))
@click.argument("name", type=STUDY)
@_why_option
@_withdraw_option
@_dry_run_option
@_yes_option
@store_options
def archive_study(
    name: str, why: str, withdraw: bool, dry_run: bool, yes: bool, database: str | None, as_json: bool
) -> None:
    """Archive a study: its open trials end, its open requests are refused, and it vanishes from the overview.

    Its history stays readable, and its tenant may use the name again. A waiting trial is cancelled at once, a running
    one within two seconds. `easeml study list --archived` lists what is archived.
    """
    from easeml_core.services.studies.archive import archive_study

    confirm(f"archive study {name}?", yes=yes, dry_run=dry_run, as_json=as_json)
    done = archive_study(open_store(database), study=name, why=why, withdraw=withdraw, dry_run=dry_run)
    _show_study(done, "archived", as_json)


@click.command("restore", epilog=example("easeml study restore flowers"))
@click.argument("name", type=STUDY)
@_optional_why_option
@_dry_run_option
@store_options
def restore_study(name: str, why: str, dry_run: bool, database: str | None, as_json: bool) -> None:
    """Restore an archived study to the state that it had; trials that were cancelled stay cancelled.

    NAME@NUMBER means an archived study whose name another one has taken; that one is archived or deleted first.
    """
    from easeml_core.services.studies.archive import restore_study

    done = restore_study(open_store(database), study=name, why=why, dry_run=dry_run)
    _show_study(done, "restored", as_json)


@click.command("delete", epilog=example("easeml study delete flwoers --why 'a typo in its source' --dry-run"))
@click.argument("name", type=STUDY)
@_why_option
@_dry_run_option
@_yes_option
@store_options
def delete_study(name: str, why: str, dry_run: bool, yes: bool, database: str | None, as_json: bool) -> None:
    """Delete a study without sealed data, trials and models: one that was refused, or waits to be sealed.

    All others can be archived: their evidence rests on their rows. The audit keeps that the study was there.
    """
    from easeml_core.services.studies.archive import delete_study

    confirm(f"delete study {name} for good?", yes=yes, dry_run=dry_run, as_json=as_json)
    _show_study(delete_study(open_store(database), study=name, why=why, dry_run=dry_run), "deleted", as_json)


STUDY_COMMANDS = (archive_study, restore_study, delete_study)


def _show_study(done: ChangedStudy, verb: str, as_json: bool) -> None:
    if as_json:
        show_json(done)
        return
    click.echo(_outcome(f"study {done.study}", verb, changed=done.changed, dry_run=done.dry_run))
    for what, numbers in (("trial", done.cancelled), ("request", done.refused)):
        if numbers:
            ends = "cancelled" if what == "trial" else "refused"
            click.echo(f"  {counted(len(numbers), f'open {what}')} {ends}: {', '.join(map(str, numbers[:20]))}")
    if done.production is not None and verb == "archived":
        click.echo(f"  model {done.production} is in production and answers no rows while the study is archived")
    owned = (
        (done.candidates, "candidate"),
        (done.trials, "trial"),
        (done.models, "model"),
        (done.test_sets, "test set"),
    )
    parts = ", ".join(counted(count, what) for count, what in owned if count)
    if parts and verb != "restored":
        click.echo(f"  {'goes with it' if verb == 'deleted' else 'stays readable'}: {parts}")


def _outcome(what: str, verb: str, *, changed: bool, dry_run: bool) -> str:
    if dry_run:
        return f"{what} would be {verb}; nothing was changed"
    return f"{what} is {verb}" if changed else f"{what} is {verb} already"


def show_archived(database: str | None, as_json: bool) -> None:
    """Print the archived studies, the newest first."""
    from easeml_core.services.studies.archive import archived_studies

    found = archived_studies(open_store(database))
    columns: Columns = {
        "Study": "study",
        "Tenant": "tenant",
        "Was": "was",
        "Archived (UTC)": lambda one: f"{one.archived_at:%Y-%m-%d %H:%M}",
        "By": "who",
        "Why": "why",
    }
    show_json(found) if as_json else show_table("Archived studies", columns, found)


@click.command("withdraw", epilog=example("easeml candidate withdraw flowers deep-tree --why 'it overfits'"))
@click.argument("study", type=STUDY)
@click.argument("name")
@_why_option
@store_options
def withdraw_candidate(study: str, name: str, why: str, database: str | None, as_json: bool) -> None:
    """Leave a candidate out of all further suggestions and retries; its results and models stay.

    A trial of it that waits is cancelled. One that runs goes on: `easeml trial cancel` ends it.
    """
    from easeml_core.services.studies.archive import withdraw_candidate

    done = withdraw_candidate(open_store(database), study=study, candidate=name, why=why)
    _show_candidate(done, "withdrawn", as_json)


@click.command("restore", epilog=example("easeml candidate restore flowers deep-tree"))
@click.argument("study", type=STUDY)
@click.argument("name")
@_optional_why_option
@store_options
def restore_candidate(study: str, name: str, why: str, database: str | None, as_json: bool) -> None:
    """Let a withdrawn candidate be suggested again, on data for which it has no trial."""
    from easeml_core.services.studies.archive import restore_candidate

    done = restore_candidate(open_store(database), study=study, candidate=name, why=why)
    _show_candidate(done, "restored", as_json)


CANDIDATE_COMMANDS = (withdraw_candidate, restore_candidate)


def _show_candidate(done: WithdrawnCandidate, verb: str, as_json: bool) -> None:
    if as_json:
        show_json(done)
        return
    click.echo(_outcome(f"candidate {done.candidate} of {done.study}", verb, changed=done.changed, dry_run=False))
    for number in done.cancelled:
        click.echo(f"  trial {number} waited and is cancelled")


@click.command("archive", epilog=example("easeml tenant archive garden --why 'the project is over' --dry-run"))
@click.argument("name")
@_why_option
@_withdraw_option
@_dry_run_option
@_yes_option
@store_options
def archive_tenant(
    name: str, why: str, withdraw: bool, dry_run: bool, yes: bool, database: str | None, as_json: bool
) -> None:
    """Archive a tenant: its logins end, its studies are archived, and it registers no further one.

    Where the tenant has logins of the database, the address is that of the role easeml_owner; the embedded server is
    asked as its superuser.
    """
    from easeml_core.services.studies.archive import archive_tenant

    confirm(f"archive tenant {name} with all its studies?", yes=yes, dry_run=dry_run, as_json=as_json)
    store = open_store(database, role="postgres" if database is None else OWNER)
    done = archive_tenant(store, tenant=name, why=why, withdraw=withdraw, dry_run=dry_run)
    _show_tenant(done, "archived", as_json)


@click.command("restore", epilog=example("easeml tenant restore garden"))
@click.argument("name")
@_optional_why_option
@store_options
def restore_tenant(name: str, why: str, database: str | None, as_json: bool) -> None:
    """Let an archived tenant register studies again; its studies are restored one by one, its logins made anew."""
    from easeml_core.services.studies.archive import restore_tenant

    _show_tenant(restore_tenant(open_store(database), tenant=name, why=why), "restored", as_json)


@click.command("delete", epilog=example("easeml tenant delete gardne --why 'a typo'"))
@click.argument("name")
@_why_option
@_dry_run_option
@_yes_option
@store_options
def delete_tenant(name: str, why: str, dry_run: bool, yes: bool, database: str | None, as_json: bool) -> None:
    """Delete a tenant that has no study, not even an archived one, and no login."""
    from easeml_core.services.studies.archive import delete_tenant

    confirm(f"delete tenant {name} for good?", yes=yes, dry_run=dry_run, as_json=as_json)
    _show_tenant(delete_tenant(open_store(database), tenant=name, why=why, dry_run=dry_run), "deleted", as_json)


TENANT_COMMANDS = (archive_tenant, restore_tenant, delete_tenant)


def _show_tenant(done: ChangedTenant, verb: str, as_json: bool) -> None:
    if as_json:
        show_json(done)
        return
    click.echo(_outcome(f"tenant {done.tenant}", verb, changed=done.changed, dry_run=done.dry_run))
    for what, names in (("study", done.studies), ("login", done.logins)):
        _show_names("archived with it" if what == "study" else "ended with it", names)
    for statement in done.sql:
        click.echo(f"  an administrator of the server runs: {statement};")


def _show_names(what: str, names: Sequence[str]) -> None:
    if names:
        click.echo(f"  {what}: {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}")
