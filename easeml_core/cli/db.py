"""``easeml db``: the schema, and the embedded server."""

from __future__ import annotations

import signal
import threading

import click

from easeml_core.cli.connection import database_option, embedded_server, open_store
from easeml_core.cli.output import example, json_option, show_json
from easeml_core.errors import StateError


@click.group(epilog=example("easeml db start"))
def db() -> None:
    """Start the embedded database, upgrade the schema."""


@db.command(epilog=example("easeml db upgrade"))
@database_option
@json_option
def upgrade(database: str | None, as_json: bool) -> None:
    """Bring the schema to the version of this program; harmless when it is there already.

    The address must be that of the role that owns the schemas (easeml_owner).
    """
    from easeml_core.store.schema import upgrade as upgrade_schema

    revision = upgrade_schema(open_store(database, role="easeml_owner"))
    show_json({"schema": revision}) if as_json else click.echo(f"schema {revision}")


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


@db.command(epilog=example("easeml db url --role easeml_referee"))
@click.option("--role", default="easeml_worker", show_default=True, help="Role to connect as.")
@json_option
def url(role: str, as_json: bool) -> None:
    """Print the embedded server's address, password included."""
    address = embedded_server().url(role, "easeml")
    show_json({"url": address}) if as_json else click.echo(address)
