"""Commands for operators: ``easeml db`` with backup and restore, ``doctor``, ``cache`` and ``mlflow``."""

from __future__ import annotations

import json
import os
import signal
import threading
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import (
    HOME,
    STUDY,
    artifacts_option,
    database_option,
    embedded_server,
    open_artifacts,
    open_installation,
    open_store,
)
from easeml_core.cli.evidence import keys_option
from easeml_core.cli.output import (
    example,
    json_option,
    plain,
    print_table,
    reading,
    show_json,
    show_table,
    show_warnings,
)
from easeml_core.config import require
from easeml_core.encoding import row_of, to_json, typed_record
from easeml_core.errors import EasemlError, InvalidInputError, StateError, counted, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from easeml_core.services.operations.backup import Beside
    from easeml_core.services.operations.checks import Check
    from easeml_core.services.operations.doctor import ApiServer
    from easeml_core.services.operations.mlflow_sync import MirrorReport


_LOOKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "failed": ("FAILED", "bold red")}
_SKIPPED = ("skipped", "dim")


@click.command(
    epilog=example(
        "easeml doctor",
        "easeml doctor --json --database postgresql+psycopg2://easeml_worker:...@db/easeml",
        "easeml doctor --airflow http://localhost:8080 --airflow-user admin --airflow-password-file password.txt",
    )
)
@click.option("--airflow", metavar="URL", help="Airflow's API server, to look at the device pool; default: no look.")
@click.option("--airflow-user", metavar="NAME", default="admin", show_default=True, help="Who may read pools there.")
@click.option(
    "--airflow-password-file",
    "password_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with this user's password.",
)
@click.option("--pool", default="easeml_devices", show_default=True, help="Name of the device pool.")
@click.option(
    "--watch",
    type=click.FloatRange(min=1.0),
    metavar="SECONDS",
    help="Repeat the checks after so many seconds until it is interrupted, and print what has changed.",
)
@keys_option
@artifacts_option
@database_option
@json_option
@click.pass_context
def doctor(
    context: click.Context, airflow: str | None, airflow_user: str, password_file: Path | None, pool: str,
    watch: float | None, keys: Path, artifacts: str | None, database: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Check versions, database, roles, schema, referee, evidence, Airflow, disk, clock and devices; say what to do.

    Nothing is changed. Evidence and sealed rows are checked with the referee's address only: that of the embedded
    server, or --database. Exit status: 0 all well, or warnings only; 1 a check failed; 2 an error. With --watch it is
    that of the last look when the process is asked to end; --json then prints a line for each changed check.
    """
    from easeml_core.services.operations.doctor import Installation, examine
    from easeml_core.services.operations.installation_health import watch_changes

    url, url_from = _address(database)
    place = Installation(
        url=url,
        url_from=url_from,
        home=HOME,
        artifacts=artifacts or _installed_at(url) or str(HOME / "artifacts"),
        environment=os.environ,
        api_server=_api_server(airflow, airflow_user, password_file, pool),
        referee_url=_referee_address(database),
        keys=keys,
    )
    if watch is not None:
        stop = threading.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: stop.set())
        tell = partial(_tell_change, as_json=as_json)
        context.exit(1 if watch_changes(partial(examine, place), tell, stop, seconds=watch) else 0)
    with reading() as on_check:
        found = examine(place, on_check)
    if as_json:
        show_json(found)
    else:
        _show_checks(found)
    context.exit(1 if any(check.state == "failed" for check in found) else 0)


def _tell_change(check: Check, as_json: bool) -> None:
    at = datetime.now(UTC)
    if as_json:
        click.echo(json.dumps({"at": at.isoformat(), **to_json(check)}))
        return
    remedy = f" ({check.remedy})" if check.remedy else ""
    click.echo(plain(f"{at:%Y-%m-%d %H:%M:%S} {check.name}: {check.state}: {check.found}{remedy}"))


def _installed_at(url: str | None) -> str | None:
    """Return the place of artifacts that the database names; None where it cannot be read."""
    from easeml_core.services.operations.artifact_store import installed_place
    from easeml_core.store.database import Store

    try:
        found = installed_place(Store(url, statement_timeout_seconds=10)) if url else None
    except EasemlError:  # the check of the database reports the error
        return None
    return None if found is None else found.place


def _address(given: str | None) -> tuple[str | None, str]:
    """Return the database's address and its origin; None with the reason where there is none."""
    if given is not None:
        return given, "EASEML_DATABASE_URL" if given == os.environ.get("EASEML_DATABASE_URL") else "--database"
    server = embedded_server()
    if not server.home.exists():
        return None, f"no --database, no EASEML_DATABASE_URL, no embedded server in {HOME}"
    try:
        return server.url("easeml_worker", "easeml"), f"embedded server of {HOME}"
    except EasemlError as error:
        return None, str(error)


def _referee_address(given: str | None) -> str | None:
    """Return the address for checks of evidence: the given one, or the embedded server's for the referee."""
    if given is not None:
        return given
    server = embedded_server()
    if not server.home.exists():
        return None
    try:
        return server.url("easeml_referee", "easeml")
    except EasemlError:  # never started, or another account's
        return None


def _api_server(url: str | None, user: str, password_file: Path | None, pool: str) -> ApiServer | None:
    from easeml_core.services.operations.doctor import ApiServer

    if url is None:
        return None
    if password_file is None:
        message = "--airflow needs --airflow-password-file: every user here can see a password on the command line"
        raise click.UsageError(message)
    try:
        password = password_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{password_file} cannot be read: {reason_of(error)}"
        raise InvalidInputError(message) from error
    return ApiServer(url.rstrip("/"), user, password, pool)


def _show_checks(found: Sequence[Check]) -> None:
    """Print one check a row, with the remedy below the observation."""
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for heading in ("Check", "State", "Found, and what to do"):
        table.add_column(heading, overflow="fold")
    for check in found:
        word, look = _LOOKS.get(check.state, _SKIPPED)
        finding = Text(plain(check.found))
        if check.remedy:
            finding.append(f"\n-> {plain(check.remedy)}", style="cyan")
        table.add_row(Text(check.name), Text(word, style=look), finding)
    print_table(table)
    failed, warned = (sum(check.state == state for check in found) for state in ("failed", "warning"))
    click.echo(f"{counted(failed, 'check')} failed, {counted(warned, 'warning')}")


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
    """Show size, limit (EASEML_CACHE_LIMIT_MB) and entries, the longest unused first."""
    from easeml_core.remote.cache import FileCache

    found = FileCache(folder)
    contents = found.report()
    if as_json:
        show_json(contents)
        return
    click.echo(f"{contents.folder}: {contents.megabytes:,.1f} of {contents.limit_megabytes:,.0f} MB")
    columns = {"Entry": "key", "MB": "megabytes", "Used": "used", "State": "state"}
    show_table("Entries", columns, contents.entries)


@cache.command(epilog=example("easeml cache clear --folder /var/cache/easeml"))
@folder_option
@json_option
def clear(folder: Path | None, as_json: bool) -> None:
    """Remove every entry that no process uses; what is needed again is fetched again."""
    from easeml_core.remote.cache import FileCache

    removed = FileCache(folder).clear()
    done = Cleared(len(removed), sum(entry.size for entry in removed) / 1e6)
    text = f"{counted(done.removed, 'entry', 'entries')} removed, {done.megabytes:,.1f} MB"
    show_json(done) if as_json else click.echo(text)


_COLUMNS = {
    "Experiment": "experiment",
    "New runs": "runs",
    "New versions": "versions",
    "In production": "production_version",
}


@click.group(epilog=example("easeml mlflow sync --tracking-uri http://mlflow:5000"))
def mlflow() -> None:
    """Mirror trials and models in MLflow; needs the extra mlflow."""


@mlflow.command(epilog=example("easeml mlflow sync --study flowers --tracking-uri http://127.0.0.1:5000"))
@click.option("--tracking-uri", metavar="URL", help="The MLflow server; default: MLflow's own MLFLOW_TRACKING_URI.")
@click.option("--study", "studies", type=STUDY, multiple=True, help="This study only; may be given several times.")
@click.option(
    "--prefix", default="easeml", show_default=True, help="Experiments are PREFIX/TENANT/STUDY, models PREFIX.STUDY."
)
@click.option("--alias", default="production", show_default=True, help="Alias of the version in production.")
@click.option("--watch", is_flag=True, help="Go on until SIGINT or SIGTERM; one sync is the default.")
@click.option("--poll", default=60.0, show_default=True, help="Seconds between two syncs with --watch.")
@artifacts_option
@database_option
@json_option
def sync(
    tracking_uri: str | None,
    studies: tuple[str, ...],
    prefix: str,
    alias: str,
    watch: bool,
    poll: float,
    artifacts: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Add to MLflow what the database has: runs, model versions, the alias of the version in production.

    Credentials are MLflow's own variables, such as MLFLOW_TRACKING_TOKEN. It may be run again, and killed, at any time.
    """
    from easeml_core.services.operations.mlflow_sync import Mirror
    from easeml_core.services.operations.mlflow_sync import sync as sync_once

    mirrored = Mirror(tracking_uri, prefix, alias)
    store, folder = open_installation(database, artifacts)

    def once() -> None:
        _show_synced(sync_once(store, folder, mirrored, studies_only=studies or None), as_json)

    if not watch:
        once()
        return
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    keep_in_sync(once, stop, poll_seconds=poll, log=lambda line: click.echo(f"easeml: {line}", err=True))


def keep_in_sync(
    once: Callable[[], Any], stop: threading.Event, *, poll_seconds: float, log: Callable[[str], None]
) -> None:
    """Sync repeatedly until ``stop`` is set; an error is logged and the sync repeated, if that can help.

    Args:
        once: One sync.
        stop: Ends it, after the sync that is under way.
        poll_seconds: Pause between two syncs, > 0.
        log: Receives a sentence.

    Raises:
        InvalidInputError: An argument is not allowed.
    """
    require(0 < poll_seconds < 86400, "poll", poll_seconds, "more than 0 seconds and less than a day")
    while not stop.is_set():
        try:
            once()
        except InvalidInputError:
            raise
        except EasemlError as error:
            log(str(error))
        stop.wait(poll_seconds)


def _show_synced(done: list[MirrorReport], as_json: bool) -> None:
    if as_json:
        show_json(done)
    else:
        show_table("Mirrored in MLflow", _COLUMNS, done)


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
    from easeml_core.services.operations.backup import NOTHING_BESIDE, WrittenBackup, back_up

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
    from easeml_core.services.operations.backup import RestoredBackup, check_backup
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
    show_json(Upgraded(revision)) if as_json else click.echo(f"schema {revision}")


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
        show_json(found)
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
        where = ServerAddress("127.0.0.1", server.port)
        text = f"PostgreSQL listens on {where.host}:{where.port}; stop it with Ctrl-C"
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
