"""``easeml db backup`` and ``easeml db restore``: the database and the files that belong to it, private and checked."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import (
    HOME,
    artifacts_option,
    database_option,
    embedded_server,
    open_artifacts,
    open_store,
)
from easeml_core.cli.output import example, json_option, show_json, show_warnings
from easeml_core.errors import counted

if TYPE_CHECKING:
    from easeml_core.services.operations.backup import Beside

_OWNER = "easeml_owner"
_FOLDER = click.Path(path_type=Path)


@click.command(
    epilog=example(
        "easeml db backup /safe/easeml-2026-01-31",
        "easeml db backup /safe/tonight --database postgresql+psycopg2://easeml_owner:...@db/easeml",
    )
)
@click.argument("folder", type=_FOLDER)
@click.option("--without-artifacts", is_flag=True, help="Leave the artifacts out: a copy of them is made elsewhere.")
@artifacts_option
@database_option
@json_option
def backup(folder: Path, without_artifacts: bool, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Back the installation up into FOLDER, which is made, while everything runs.

    It holds the database, the artifacts unless they are in a bucket, and of the embedded installation also Airflow's
    database, the tables of tenants, keys and passwords. It holds sealed labels and secrets: only its owner can read it
    (mode 0700). FOLDER appears when it is whole. The address is that of easeml_owner; pg_dump is the one on PATH or
    that of the embedded server, of the server's version or newer.
    """
    from easeml_core.services.operations.backup import NOTHING_BESIDE, back_up

    _end_by_interrupt()
    store = open_store(database, role=_OWNER)
    made = back_up(
        store,
        store.dsn,
        open_artifacts(artifacts, store),
        folder,
        beside=_embedded() if database is None else NOTHING_BESIDE,
        with_artifacts=not without_artifacts,
        tell=_tell,
    )
    if as_json:
        show_json({"folder": str(folder.absolute())} | asdict(made))
        return
    size = sum(kept.bytes for kept in made.files)
    click.echo(f"{folder}: {counted(len(made.files), 'file')}, {size:,} bytes, schema {made.schema}")


@click.command(
    epilog=example(
        "easeml db restore /safe/easeml-2026-01-31 --check",
        "easeml db restore /safe/easeml-2026-01-31 --artifacts /srv/easeml/artifacts",
    )
)
@click.argument("folder", type=_FOLDER)
@click.option("--check", is_flag=True, help="Only read every file again and compare it; needs no database.")
@click.option("--replace", is_flag=True, help="Also where the database has studies: they are lost.")
@click.option("--artifacts", metavar="FOLDER", help="Unpack the artifacts there, and let the installation use them.")
@database_option
@json_option
def restore(
    folder: Path, check: bool, replace: bool, artifacts: str | None, database: str | None, as_json: bool
) -> None:
    """Check the backup in FOLDER and bring its database and artifacts back.

    Referee and Airflow must be stopped. The database must have the roles, and no study unless --replace is given; it is
    restored in one transaction. Airflow's database, tables of tenants and keys stay in FOLDER: docs/operations.md says
    where they go. Afterwards retire sealed sets that have answered since the backup.

    Exit status: 0 done, 2 any error; then the database is as it was.
    """
    from easeml_core.services.operations.backup import check_backup
    from easeml_core.services.operations.backup import restore as bring_back
    from easeml_core.store.artifacts.local import ArtifactStore

    _end_by_interrupt()
    if check:
        made, warnings = check_backup(folder, _tell)
    else:
        store = open_store(database, role=_OWNER)
        place = None if artifacts is None else ArtifactStore(artifacts)
        made, warnings = bring_back(store, store.dsn, folder, artifacts=place, replaces=replace, tell=_tell)
    show_warnings(warnings)
    if as_json:
        show_json({"restored": not check, "warnings": warnings} | asdict(made))
        return
    files = counted(len(made.files), "file")
    click.echo(f"{folder}: {files}, whole and unchanged, of {made.made_at}{'' if check else '; restored'}")


def _embedded() -> Beside:
    """What the embedded installation keeps beside our database."""
    from easeml_core.services.operations.backup import Beside

    server = embedded_server()
    keys = {f"referee-{path.name}": path for path in sorted((HOME / "referee").glob("*.pub"))}
    return Beside(
        databases={"airflow.dump": server.url("airflow", "airflow")},
        files={"keys.json": HOME / "keys.json", "secrets.json": server.home / "secrets.json", **keys},
        folders={"data.tar": HOME / "data"},
    )


def _end_by_interrupt() -> None:
    """Let a service manager's SIGTERM end the command as Ctrl-C does, so that it removes what is unfinished."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _tell(line: str) -> None:
    click.echo(line, err=True)
