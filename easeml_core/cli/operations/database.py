"""``easeml db``: the embedded server, the schema, the place of artifacts, backup and restore."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from easeml_core.cli.connection import (
    HOME,
    OWNER,
    asked_to_end,
    embedded_server,
    installation_options,
    open_artifacts,
    open_store,
    store_options,
)
from easeml_core.cli.output import example, json_option, show_json, show_warnings
from easeml_core.cli.referee import configuration_folder
from easeml_core.errors import EasemlError, StateError, counted
from easeml_core.formats.encoding import row_of, typed_record

if TYPE_CHECKING:
    from easeml_core.services.operations.backup import Beside
    from easeml_core.services.operations.creation import CreatedInstallation

_FOLDER = click.Path(path_type=Path)


@click.command(
    epilog=example(
        "easeml db backup /safe/easeml-2026-01-31",
        "easeml db backup /safe/tonight --database postgresql+psycopg2://easeml_owner:...@db/easeml",
    )
)
@click.argument("folder", type=_FOLDER)
@click.option("--without-artifacts", is_flag=True, help="Leave the artifacts out: a copy of them is made elsewhere.")
@installation_options
def backup(folder: Path, without_artifacts: bool, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Back the installation up into FOLDER, which is made, while everything runs.

    It holds the database, the artifacts unless they are in a bucket, and of the embedded installation also Airflow's
    database, the tables of tenants, keys and passwords. It holds sealed labels and secrets: only its owner can read it
    (mode 0700). FOLDER appears when it is whole. The address is that of easeml_owner; pg_dump is the one on PATH or
    that of the embedded server, of the server's version or newer.
    """
    from easeml_core.services.operations.backup import NOTHING_BESIDE, WrittenBackup, back_up

    _end_by_interrupt()
    store = open_store(database, role=OWNER)
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
        show_json(WrittenBackup(**row_of(made), folder=str(folder.absolute())))
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
@store_options
def restore(
    folder: Path, check: bool, replace: bool, artifacts: str | None, database: str | None, as_json: bool
) -> None:
    """Check the backup in FOLDER and bring its database and artifacts back.

    Referee and Airflow must be stopped. The database must have the roles, and no study unless --replace is given; it is
    restored in one transaction. Airflow's database, tables of tenants and keys stay in FOLDER: docs/operations.md says
    where they go. Afterwards retire sealed sets that have answered since the backup.

    Exit status: 0 done, 2 any error; then the database is as it was.
    """
    from easeml_core.services.operations.backup import RestoredBackup, check_backup
    from easeml_core.services.operations.backup import restore as bring_back
    from easeml_core.store.artifacts.local import ArtifactStore

    _end_by_interrupt()
    if check:
        made, warnings = check_backup(folder, _tell)
    else:
        store = open_store(database, role=OWNER)
        place = None if artifacts is None else ArtifactStore(artifacts)
        made, warnings = bring_back(store, store.dsn, folder, artifacts=place, replaces=replace, tell=_tell)
    show_warnings(warnings)
    if as_json:
        show_json(RestoredBackup(**row_of(made), restored=not check, warnings=list(warnings)))
        return
    files = counted(len(made.files), "file")
    click.echo(f"{folder}: {files}, whole and unchanged, of {made.made_at}{'' if check else '; restored'}")


def _embedded() -> Beside:
    """Return what the embedded installation holds beside the database."""
    from easeml_core.services.operations.backup import Beside

    server = embedded_server()
    keys = {f"referee-{path.name}": path for path in sorted((HOME / "referee").glob("*.pub"))}
    return Beside(
        databases={"airflow.dump": server.url("airflow", "airflow")},
        files={"keys.json": HOME / "keys.json", "secrets.json": server.home / "secrets.json", **keys},
        folders={"data.tar": HOME / "data"},
    )


def _end_by_interrupt() -> None:
    """Let a service manager's SIGTERM end the command as Ctrl-C does, so that unfinished files are removed."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _tell(line: str) -> None:
    click.echo(line, err=True)


@click.group(epilog=example("easeml db start"))
def db() -> None:
    """Start the embedded database, upgrade the schema, set the place of artifacts, back up and restore."""


@typed_record
class Upgraded:
    """The answer of ``easeml db upgrade``: the revision that the schema has now."""

    schema: str


@typed_record
class ServerAddress:
    """The answer of ``easeml db start``: where the embedded server listens."""

    host: str
    port: int


@typed_record
class NotedRestart:
    """The answer of ``easeml db note-restart``."""

    reason: str


@typed_record
class RoleAddress:
    """The answer of ``easeml db url``: the address with the role's password."""

    url: str


@db.command(
    epilog=example(
        "easeml db create --artifacts /var/lib/easeml/artifacts",
        "easeml db create --print --host db --artifacts /var/lib/easeml/artifacts > easeml.sql",
    )
)
@click.option(
    "--admin",
    metavar="URL",
    envvar="EASEML_ADMIN_URL",
    show_envvar=True,
    help="Address of a superuser, or of a role with CREATEROLE and CREATEDB; with a password, give the variable.",
)
@click.option(
    "--artifacts", metavar="PLACE", required=True, help="Folder or address (s3://BUCKET/PATH) of models and data."
)
@click.option(
    "--secrets",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the addresses of the roles; default: ~/.config/easeml.",
)
@click.option("--host", default="", help="By which Airflow's machines reach the server; default: that of --admin.")
@click.option("--port", type=click.IntRange(1, 65535), help="Of the server there; default: that of --admin, else 5432.")
@click.option("--print", "only_print", is_flag=True, help="Print the SQL for an administrator; needs --host.")
@json_option
def create(
    admin: str | None,
    artifacts: str,
    secrets: Path | None,
    host: str,
    port: int | None,
    only_print: bool,
    as_json: bool,
) -> None:
    """Make an installation on a PostgreSQL server of yours: roles, database, schema and the place of artifacts.

    Other databases stay as they are. The passwords are new and go into --secrets: NAME.url with the address of each
    role, and connection.json for `airflow connections import`. Repeating the command with this folder changes nothing
    that is as it should be. It does not need ./.easeml.
    """
    from easeml_core.services.operations.creation import create_installation, print_installation
    from easeml_core.store.server.creation import ServerAddress

    folder = (secrets or configuration_folder(is_user=True) / "easeml").absolute()
    if only_print:
        if not host:
            message = "--print needs --host: the name by which Airflow's machines reach the server"
            raise click.UsageError(message)
        made = print_installation(artifacts, folder, ServerAddress(host, port or 5432, {}))
    elif admin is None:
        message = "give --admin, or EASEML_ADMIN_URL, or --print for SQL that an administrator runs"
        raise click.UsageError(message)
    else:
        kept = _embedded_passwords(admin)
        made = create_installation(admin, artifacts, folder, host=host, port=port or 0, kept=kept)
    if as_json:
        show_json(made)
    elif made.sql is not None:
        click.echo(made.sql, nl=False)
        click.echo(f"the passwords are in {folder}; after the SQL: {_upgrade_line(folder, made.artifacts)}", err=True)
    else:
        _tell_created(made, folder)


def _embedded_passwords(admin: str) -> dict[str, str]:
    """Return the passwords of this folder's embedded server, by role, where the address is its; else none."""
    from easeml_core.store.server.cluster import SUPERUSER

    server = embedded_server()
    try:
        known = dict(server.secrets) if server.home.exists() else {}
        is_its = known.get(SUPERUSER) == urlsplit(admin).password and server.port == urlsplit(admin).port
    except (EasemlError, ValueError):  # never started, or another account's; a wrong address is refused later
        return {}
    return known if is_its else {}


def _upgrade_line(folder: Path, artifacts: str) -> str:
    return f'EASEML_DATABASE_URL="$(cat {folder}/owner.url)" easeml db upgrade --artifacts {artifacts}'


def _tell_created(made: CreatedInstallation, folder: Path) -> None:
    click.echo(f"{made.database}: roles and database, schema {made.schema}; artifacts in {made.artifacts}")
    click.echo(f"{folder}: addresses of the roles, with passwords; owner.url is for upgrades and backups only")
    click.echo(f"next: airflow connections import --overwrite {folder / 'connection.json'}")
    if made.left:
        show_warnings(["\n".join(("a superuser still has to run, in the database easeml:", *made.left))])


@db.command(epilog=example("easeml db upgrade", "easeml db upgrade --artifacts /srv/easeml/artifacts"))
@click.option("--artifacts", metavar="PLACE", help="Make it the installation's artifact store if it has none yet.")
@store_options
def upgrade(artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Bring the schema to the version of this program; harmless when it is there already.

    The address must be that of the role that owns the schemas (easeml_owner).
    """
    from easeml_core.store.schema import upgrade as upgrade_schema

    store = open_store(database, role=OWNER)
    revision = upgrade_schema(store)
    if artifacts is not None:
        open_artifacts(artifacts, store)
    show_json(Upgraded(revision)) if as_json else click.echo(f"schema {revision}")


@db.command(epilog=example("easeml db artifacts", "easeml db artifacts /srv/easeml/artifacts"))
@click.argument("place", required=False)
@click.option("--unchecked", is_flag=True, help="Also where PLACE lacks the newest data of the installation.")
@store_options
def artifacts(place: str | None, unchecked: bool, database: str | None, as_json: bool) -> None:
    """Show where the installation keeps models and data, or make PLACE its artifact store.

    All commands, tasks, pages and the referee use this store and refuse another one. It is known by the identity in its
    marker file, so other machines may reach the same storage under other paths. The first command that uses a place
    sets it; only easeml_owner changes it. Stop what runs and copy the files to PLACE first. The store that was copied
    is refused afterwards: name PLACE in Airflow's connection and in services, and start what ran.

    Exit status: 0 there is one, 1 none was used yet, 2 any error.
    """
    from easeml_core.services.operations.artifact_store import installed_place, set_artifacts
    from easeml_core.store.artifacts.remote import artifact_store

    store = open_store(database, role="easeml_worker" if place is None else OWNER)
    found = before = installed_place(store)
    if place is not None:
        found = set_artifacts(store, artifact_store(place), unchecked=unchecked)
    if as_json:
        show_json(found)
    elif found is None:
        click.echo("the installation has no artifact store yet; the first command that uses one sets it")
    else:
        click.echo(f"{found.place} (set by {found.set_by} on {found.set_at:%Y-%m-%d %H:%M} UTC, id {found.store_id})")
        if before is not None and before.place != found.place:
            click.echo(f"next: name it where Airflow's connection or a service names {before.place}, and restart those")
    if found is None:
        raise SystemExit(1)


@db.command(epilog=example("easeml db start"))
@json_option
def start(as_json: bool) -> None:
    """Run the embedded server of ./.easeml in the foreground until interrupted."""
    stop = asked_to_end()
    with embedded_server().owned() as server:
        server.ensure_installation()
        where = ServerAddress("127.0.0.1", server.port)
        text = f"PostgreSQL listens on {where.host}:{where.port}; stop it with Ctrl-C"
        show_json(where) if as_json else click.echo(text)
        while not stop.wait(1.0):
            if not server.alive():
                message = f"the server died; see its log in {server.data}"
                raise StateError(message)


@db.command(epilog=example('easeml db note-restart --reason "node gpu-3 drained"'))
@click.option("--reason", required=True, help="Why, 1 to 200 characters; kept for good.")
@store_options
def note_restart(reason: str, database: str | None, as_json: bool) -> None:
    """Record that workers were restarted or taken away: attempts lost to that do not count against their trials.

    A start of the database server and an upgrade of the schema count without it. The address must be that of the role
    that owns the schemas (easeml_owner).
    """
    from easeml_core.store.tables.leases import state_restart

    with open_store(database, role=OWNER).begin() as tx:
        state_restart(tx, reason=reason)
    show_json(NotedRestart(reason)) if as_json else click.echo("recorded")


@db.command(epilog=example("easeml db url --role easeml_referee"))
@click.option("--role", default="easeml_worker", show_default=True, help="Role to connect as.")
@json_option
def url(role: str, as_json: bool) -> None:
    """Print the embedded server's address, password included."""
    address = embedded_server().url(role, "easeml")
    show_json(RoleAddress(address)) if as_json else click.echo(address)


db.add_command(backup)
db.add_command(restore)
