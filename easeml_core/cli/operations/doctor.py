"""``easeml doctor``: checks of an installation, once or until it is interrupted."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from easeml_core.cli.connection import (
    HOME,
    asked_to_end,
    embedded_server,
    installation_options,
    read_text,
)
from easeml_core.cli.operations.evidence import keys_option
from easeml_core.cli.output import example, plain, print_table, reading, show_json
from easeml_core.errors import EasemlError, counted
from easeml_core.formats.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.services.operations.checks import Check
    from easeml_core.services.operations.doctor import ApiServer

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
@installation_options
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
    from easeml_core.services.operations.checks import watch_changes
    from easeml_core.services.operations.doctor import Installation, examine

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
        stop = asked_to_end()
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
    return ApiServer(url.rstrip("/"), user, read_text(password_file).strip(), pool)


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
