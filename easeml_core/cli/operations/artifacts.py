"""``easeml artifacts status`` and ``easeml artifacts verify``: the artifact store as a whole."""

from __future__ import annotations

import click

from easeml_core.cli.connection import artifacts_option, database_option, open_installation
from easeml_core.cli.output import example, json_option, show_json, show_table
from easeml_core.errors import counted


@click.command("status", epilog=example("easeml artifacts status", "easeml artifacts status --json"))
@artifacts_option
@database_option
@json_option
def show_files(artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Show what lies in the artifact store, and what this machine has fetched from it and sent to it.

    No file is read. Files that no row names are young, or left by a process that was killed: `easeml artifacts sweep`.
    Of an address the last line has this machine's cache hits and bandwidth.

    Exit status: 0 fine, 1 a file that a row names is missing, 2 any error.
    """
    from easeml_core.services.operations.artifact_checks import artifact_status

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


@click.command("verify", epilog=example("easeml artifacts verify", "easeml artifacts verify --tenant garden --json"))
@click.option("--tenant", help="Only the files of this tenant.")
@artifacts_option
@database_option
@json_option
def check_files(tenant: str | None, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Read every file that a row names, where it is kept, and compare its content with its hash.

    Reports files that are missing, truncated or corrupted. It reads all bytes: of a bucket, over the network.

    Exit status: 0 all are whole, 1 some are not, 2 any error.
    """
    from easeml_core.services.operations.artifact_checks import verify_files

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


FILE_COMMANDS = (show_files, check_files)
