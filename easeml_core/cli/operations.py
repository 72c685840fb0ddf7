"""``easeml db``: the schema, and the embedded server."""

from __future__ import annotations

import signal
import threading
from dataclasses import asdict

import click

from easeml_core.cli.backup import backup, restore
from easeml_core.cli.connection import database_option, embedded_server, open_artifacts, open_store
from easeml_core.cli.output import example, json_option, show_json
from easeml_core.errors import StateError


@click.group(epilog=example("easeml db start"))
def db() -> None:
    """Start the embedded database, upgrade the schema, set the place of artifacts, back up and restore."""


@db.command(epilog=example("easeml db upgrade", "easeml db upgrade --artifacts /srv/easeml/artifacts"))
@click.option("--artifacts", metavar="PLACE", help="Make it the installation's artifact store if it has none yet.")
@database_option
@json_option
def upgrade(artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Bring the schema to the version of this program; harmless when it is there already.

    The address must be that of the role that owns the schemas (easeml_owner).
    """
    from easeml_core.store.schema import upgrade as upgrade_schema

    store = open_store(database, role="easeml_owner")
    revision = upgrade_schema(store)
    if artifacts is not None:
        open_artifacts(artifacts, store)
    show_json({"schema": revision}) if as_json else click.echo(f"schema {revision}")


@db.command(epilog=example("easeml db artifacts", "easeml db artifacts /srv/easeml/artifacts"))
@click.argument("place", required=False)
@click.option("--unchecked", is_flag=True, help="Also where PLACE lacks the newest data of the installation.")
@database_option
@json_option
def artifacts(place: str | None, unchecked: bool, database: str | None, as_json: bool) -> None:
    """Show where the installation keeps models and data, or make PLACE its artifact store.

    All commands, tasks, pages and the referee use this store and refuse another one. It is known by the identity in its
    marker file, so other machines may reach the same storage under other paths. The first command that uses a place
    sets it; only easeml_owner changes it. Copy the files to PLACE first, and restart what runs afterwards.

    Exit status: 0 there is one, 1 none was used yet, 2 any error.
    """
    from easeml_core.services.operations.artifact_store import installed_place, set_artifacts
    from easeml_core.store.artifacts.remote import artifact_store

    store = open_store(database, role="easeml_worker" if place is None else "easeml_owner")
    if place is None:
        found = installed_place(store)
    else:
        found = set_artifacts(store, artifact_store(place), unchecked=unchecked)
    if as_json:
        show_json(None if found is None else asdict(found))
    elif found is None:
        click.echo("the installation has no artifact store yet; the first command that uses one sets it")
    else:
        click.echo(f"{found.place} (set by {found.set_by} on {found.set_at:%Y-%m-%d %H:%M} UTC, id {found.store_id})")
    if found is None:
        raise SystemExit(1)


@db.command(epilog=example("easeml db start"))
@json_option
def start(as_json: bool) -> None:
    """Run the embedded server of ./.easeml in the foreground until interrupted."""
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    with embedded_server().owned() as server:
        server.ensure_installation()
        where = {"host": "127.0.0.1", "port": server.port}
        text = f"PostgreSQL listens on {where['host']}:{where['port']}; stop it with Ctrl-C"
        show_json(where) if as_json else click.echo(text)
        while not stop.wait(1.0):
            if not server.alive():
                message = f"the server died; see its log in {server.data}"
                raise StateError(message)


@db.command(epilog=example('easeml db note-restart --reason "node gpu-3 drained"'))
@click.option("--reason", required=True, help="Why, 1 to 200 characters; kept for good.")
@database_option
@json_option
def note_restart(reason: str, database: str | None, as_json: bool) -> None:
    """Record that workers were restarted or taken away: attempts lost to that do not count against their trials.

    A start of the database server and an upgrade of the schema count without it. The address must be that of the role
    that owns the schemas (easeml_owner).
    """
    from easeml_core.store.tables.retries import state_restart

    with open_store(database, role="easeml_owner").begin() as tx:
        state_restart(tx, reason=reason)
    show_json({"reason": reason}) if as_json else click.echo("recorded")


@db.command(epilog=example("easeml db url --role easeml_referee"))
@click.option("--role", default="easeml_worker", show_default=True, help="Role to connect as.")
@json_option
def url(role: str, as_json: bool) -> None:
    """Print the embedded server's address, password included."""
    address = embedded_server().url(role, "easeml")
    show_json({"url": address}) if as_json else click.echo(address)


db.add_command(backup)
db.add_command(restore)
