"""``easeml artifacts`` and ``cache``: files of models, programs and open data, kept in one place and cached here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import (
    OWNER,
    REFEREE,
    installation_options,
    open_installation,
    open_store,
    store_options,
)
from easeml_core.cli.output import example, json_option, plain, show_json, show_table
from easeml_core.errors import InvalidInputError, counted
from easeml_core.formats.encoding import typed_record

if TYPE_CHECKING:
    from collections.abc import Callable


@click.group("artifacts", epilog=example("easeml artifacts move --dry-run"))
def artifacts_group() -> None:
    """Files of models, programs and open data: counted, checked, removed, and moved to their tenants' folders."""


@artifacts_group.command("status", epilog=example("easeml artifacts status", "easeml artifacts status --json"))
@installation_options
def show_files(artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Show what lies in the artifact store, and what this machine has fetched from it and sent to it.

    No file is read. Files that no row names are young, or left by a process that was killed: `easeml artifacts sweep`.
    Of an address the last line has this machine's cache hits and bandwidth.

    Exit status: 0 fine, 1 a file that a row names is missing, 2 any error.
    """
    from easeml_core.services.operations.artifact_store import artifact_status

    found = artifact_status(*open_installation(database, artifacts))
    if as_json:
        show_json(found)
    else:
        click.echo(f"{found.place}: {counted(found.files, 'file')}, {found.megabytes:,.1f} MB")
        show_table("Tenants", {"Tenant": "tenant", "Files": "files", "MB": "megabytes"}, found.tenants)
        click.echo(
            f"no row names {counted(found.unnamed, 'file')} ({found.unnamed_megabytes:,.1f} MB); put aside: "
            f"{found.put_aside:,}; unfinished uploads: {found.unfinished_uploads:,}; missing: {found.missing:,}"
        )
        if found.cache is not None:
            click.echo(f"this machine: {found.cache}")
    if found.missing:
        raise SystemExit(1)


@artifacts_group.command(
    "verify", epilog=example("easeml artifacts verify", "easeml artifacts verify --tenant garden --json")
)
@click.option("--tenant", help="Only the files of this tenant.")
@installation_options
def check_files(tenant: str | None, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Read every file that a row names, where it is kept, and compare its content with its hash.

    Reports files that are missing, truncated or corrupted. It reads all bytes: of a bucket, over the network.

    Exit status: 0 all are whole, 1 some are not, 2 any error.
    """
    from easeml_core.services.operations.artifact_store import verify_files

    store, place = open_installation(database, artifacts)
    found = verify_files(store, place, tenant=tenant, tell=lambda line: click.echo(line, err=True))
    if as_json:
        show_json(found)
    else:
        for one in found.faulty:
            click.echo(f"{one.reference} of tenant {one.tenant}: {one.fault}")
        click.echo(f"{counted(found.files, 'file')} read in {found.seconds:,.1f} s, {len(found.faulty):,} faulty")
        if found.faulty:
            click.echo("restore them from a backup (docs/operations.md), or train those models again")
    if found.faulty:
        raise SystemExit(1)


@artifacts_group.command(epilog=example("easeml artifacts move --dry-run"))
@click.option("--dry-run", is_flag=True, help="Count the files; move none.")
@installation_options
def move(dry_run: bool, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Move the files that an earlier version has kept in one place into the folders of their tenants.

    Until then they are read where they are, afterwards in the folders alone. Upgrade all processes first: those of an
    earlier version do not look into the folders. May be repeated. Needs the address of easeml_owner or easeml_referee.

    Exit status: 0 done, 1 a file that a row names is missing or was not copied, 2 any error.
    """
    from easeml_core.services.operations.tenant_files import move_files

    store, place = open_installation(database, artifacts, role=OWNER)
    done = move_files(store, place, dry_run=dry_run, tell=lambda line: None if as_json else click.echo(line))
    if as_json:
        show_json(done)
    else:
        verb = "would be moved" if dry_run else "moved"
        click.echo(f"{counted(done.moved, 'file')} {verb}, {counted(done.copies, 'copy', 'copies')} for their tenants")
        for line in done.missing:
            click.echo(f"missing: {line}", err=True)
        for line in done.claimed:
            click.echo(f"not copied, since another tenant names it too: {line}; hand it in again", err=True)
    if done.missing or done.claimed:
        raise SystemExit(1)


@artifacts_group.command(epilog=example("easeml artifacts sweep --dry-run"))
@click.option("--days", type=float, default=30.0, show_default=True, help="Only what nothing has written for so long.")
@click.option("--dry-run", is_flag=True, help="List the files; remove none.")
@installation_options
def sweep(days: float, dry_run: bool, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Remove files that no row names: what was left by processes that were killed between a file and its row.

    Models, data, feeds, programs of candidates, released sets and checkpoints of trials that have not ended are named.
    A program that was packed and that no candidate names for so long is removed, too; pack it again, its reference
    stays the same. In an object store a file is put aside first, and goes with a sweep a day later, unless a row names
    it by then; uploads that were interrupted for so long are given up.
    """
    from easeml_core.services.operations.tenant_files import sweep_files

    store, place = open_installation(database, artifacts)
    done = sweep_files(store, place, days=days, dry_run=dry_run)
    if as_json:
        show_json(done)
        return
    for one in done.orphans:
        click.echo(f"{one.path}: {counted(one.bytes, 'byte')}, {one.days:,.1f} days old")
    click.echo(f"{counted(len(done.orphans), 'file')} that no row names, {done.removed:,} removed")
    if done.trashed or done.restored or done.uploads:
        click.echo(
            f"put aside earlier: {done.trashed:,} to remove, {done.restored:,} to restore; interrupted uploads: "
            f"{done.uploads:,}"
        )


@artifacts_group.command(epilog=example("easeml artifacts prune --keep 5 --days 30 --dry-run"))
@click.option("--keep", type=int, metavar="K", help="Keep the files of the best K models of each study; default: all.")
@click.option("--days", type=float, default=30.0, show_default=True, help="Only of models that are older.")
@click.option("--curve-days", type=float, default=0.0, show_default=True, help="Remove old curves, too; 0: none.")
@click.option("--dry-run", is_flag=True, help="Check it and say what would change; change nothing.")
@store_options
def prune(keep: int | None, days: float, curve_days: float, dry_run: bool, database: str | None, as_json: bool) -> None:
    """Let models that nothing needs lose their files; `easeml artifacts sweep` then removes them.

    A model keeps its file that is or was in production, that a request or a verdict names, that was submitted, or that
    waits to be measured on new validation data. Results stay in any case. Curves go of archived studies, and of trials
    on earlier training data. The address is that of the role easeml_referee.
    """
    from easeml_core.services.studies.archive import prune

    if keep is None and not curve_days:
        message = "nothing is named to be removed: give --keep K for files of models, --curve-days DAYS for curves"
        raise InvalidInputError(message)
    store = open_store(database, role=REFEREE)
    done = prune(store, keep=keep, days=days, curve_days=curve_days, dry_run=dry_run)
    if as_json:
        show_json(done)
        return
    for one in done.models:
        click.echo(plain(f"model {one.model_id} of {one.study}, {one.candidate}, of {one.created_at:%Y-%m-%d}"))
    verb = "would lose" if dry_run else "lose"
    click.echo(
        f"{counted(len(done.models), 'model')} {verb} their files; {done.curve_points:,} points of curves removed"
    )


def folder_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--folder``."""
    return click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="EASEML_CACHE",
        show_envvar=True,
        help="Folder of the cache; default: easeml in the account's folder for caches.",
    )(command)


@click.group(epilog=example("easeml cache show"))
def cache() -> None:
    """The cache of this machine: remote artifacts and url: sources, fetched once."""


@typed_record
class Cleared:
    """The answer of ``easeml cache clear``: number and size of the entries that were removed."""

    removed: int
    megabytes: float


@cache.command(epilog=example("easeml cache show --json"))
@folder_option
@json_option
def show(folder: Path | None, as_json: bool) -> None:
    """Show size, limit (EASEML_CACHE_LIMIT_MB), entries, the longest unused first, hits and bandwidth."""
    from easeml_core.files.cache import FileCache

    found = FileCache(folder)
    contents = found.report()
    if as_json:
        show_json(contents)
        return
    click.echo(f"{contents.folder}: {contents.megabytes:,.1f} of {contents.limit_megabytes:,.0f} MB")
    columns = {"Entry": "key", "MB": "megabytes", "Used": "used", "State": "state"}
    show_table("Entries", columns, contents.entries)
    click.echo(str(contents.traffic))


@cache.command(epilog=example("easeml cache clear --folder /var/cache/easeml"))
@folder_option
@json_option
def clear(folder: Path | None, as_json: bool) -> None:
    """Remove every entry that no process uses; what is needed again is fetched again."""
    from easeml_core.files.cache import FileCache

    removed = FileCache(folder).clear()
    done = Cleared(len(removed), sum(entry.size for entry in removed) / 1e6)
    text = f"{counted(done.removed, 'entry', 'entries')} removed, {done.megabytes:,.1f} MB"
    show_json(done) if as_json else click.echo(text)
