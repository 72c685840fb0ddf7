"""What commands share: their database and artifacts, values of options, and the wait for the referee's answers."""

from __future__ import annotations

import getpass
import json
import os
import signal
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from easeml_core.cli.output import json_option, reading, with_options
from easeml_core.client.installation import ADDRESS, WORKER, open_database
from easeml_core.client.installation import HOME as HOME
from easeml_core.client.installation import open_artifacts as open_artifacts
from easeml_core.entities import Symbol
from easeml_core.errors import (
    EasemlError,
    InvalidInputError,
    StateError,
    WrongRoleError,
    reason_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.entities import GivenAnswer, JsonObject
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.server.server import Server


OWNER, REFEREE = "easeml_owner", "easeml_referee"

CREDENTIAL = "database-url"
"""Name of the credential of a service of systemd (LoadCredential=) that holds the address of the database."""


def role_remedy(error: BaseException) -> str:
    """Return what to do about a database whose role lacks a right that a command needs; empty for other errors."""
    needed = error.needed if isinstance(error, WrongRoleError) else None
    if needed is None:
        return ""
    return (
        f"\nthis command needs the address of the role {needed}; that of the embedded server is given with "
        f'--database "$(easeml db url --role {needed})"'
    )


def database_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--database``, with the environment variable and the credential of a service of systemd behind it."""
    return click.option(
        "--database",
        metavar="URL",
        envvar=ADDRESS,
        show_envvar=True,
        default=credential_address,
        help="postgresql+psycopg2://role:password@host:port/database; default: the embedded server of ./.easeml",
    )(command)


def credential_address() -> str | None:
    """Return the address that systemd hands a service as its credential; None for other processes."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder or not (path := Path(folder) / CREDENTIAL).exists():
        return None
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError as error:
        message = f"the credential {path} cannot be read: {error.strerror}"
        raise StateError(message) from error


def artifacts_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--artifacts``: the place of models and data."""
    return click.option(
        "--artifacts",
        metavar="PLACE",
        help="Folder or address (s3://BUCKET/PATH) of models and data, where this machine reaches it; default: the "
        "installation's, see `easeml db artifacts`.",
    )(command)


store_options = with_options(database_option, json_option)
"""Adds ``--database`` and ``--json``."""

installation_options = with_options(artifacts_option, database_option, json_option)
"""Adds ``--artifacts``, ``--database`` and ``--json``."""


def embedded_server() -> Server:
    """Return the embedded server of the current folder; not started here."""
    from easeml_core.store.server.server import Server, default_home

    return Server(default_home())


def open_store(
    url: str | None, *, role: str = WORKER, lock_timeout_seconds: float | None = None, connections: int = 2
) -> Store:
    """Open the store at the address, or the embedded server's as this role; as of ``client.installation``."""
    source = "" if url is None else _source_of_address()
    limits: dict[str, Any] = {"lock_timeout_seconds": lock_timeout_seconds, "connections": connections}
    return open_database(url, source=source, role=role, **limits)


def _source_of_address() -> str:
    """Name the option or variable that gave the present command its database."""
    context = click.get_current_context(silent=True)
    found = None if context is None else context.get_parameter_source("database")
    named = {click.core.ParameterSource.ENVIRONMENT: ADDRESS}
    named[click.core.ParameterSource.DEFAULT] = f"the credential {CREDENTIAL}"
    return "--database" if found is None else named.get(found, "--database")


def open_installation(
    url: str | None, place: str | None, *, role: str = "easeml_worker"
) -> tuple[Store, ArtifactStore]:
    """Open the store and the artifacts of one installation; as of ``open_store`` and ``open_artifacts``."""
    store = open_store(url, role=role)
    return store, open_artifacts(place, store)


key_option = click.option("--request-key", help="Makes the call repeatable; default: a new one.")


def new_key(given: str | None) -> str:
    """Return the given request key, else a new one."""
    return given or f"cli/{uuid.uuid4()}"


def account_name() -> str:
    """Return the user of the operating system; one without a name by number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def asked_to_end() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set from now on, instead of what they did."""
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    return stop


PATIENCE_SECONDS = 1.5
"""Time limit of completion; after it no name is offered."""
MOST_NAMES = 1000


class StudyName(click.types.StringParamType):
    """The name of a study, with completion in the shell."""

    name = "study"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return names that begin with what is typed; never an error, and never a long wait."""
        url = ctx.params.get("database")
        names = _in_time(lambda: _study_names(url))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)][:MOST_NAMES]


STUDY = StudyName()


def _study_names(url: str | None) -> list[str]:
    from easeml_core.store.tables.studies import names_and_tenants

    store = open_store(url)
    with store.begin() as tx:
        return [name for name, _ in names_and_tenants(tx)]


def _in_time(work: Callable[[], list[str]]) -> list[str]:
    """Return the result of the work; nothing where it fails or takes longer than the limit."""
    found: list[str] = []

    def attempt() -> None:
        try:
            found.extend(work())
        except (EasemlError, OSError):  # no store, or not accessible: the shell offers nothing
            return

    worker = threading.Thread(target=attempt, daemon=True)
    worker.start()
    worker.join(PATIENCE_SECONDS)
    return found if not worker.is_alive() else []


GATE_MAY_WAIT = "labels may be missing, or answers leave at an hour of the day"
"""Why the gate has not answered yet, beside the queue; which reason holds is not public."""


def wait_for_answer(store: Store, request_id: int, timeout: float, hint: str = "") -> GivenAnswer:
    """Wait for the answer to a request, as of ``services.referee.requests``, and show its place meanwhile."""
    from easeml_core.services.referee.requests import wait_for_answer as wait

    with reading() as report:
        return wait(store, request_id, timeout=timeout, hint=hint, report=report)


def gate_passes(answer: GivenAnswer) -> bool:
    """Return whether the exit status is 0: a withheld verdict is no failure, so the command ends alike for all."""
    from easeml_core.services.referee.answers import VerdictAnswer

    return isinstance(answer, VerdictAnswer) and answer.symbol in (Symbol.PASS, Symbol.WITHHELD)


def tell_gate_answer(answer: GivenAnswer) -> None:
    """Print the gate's answer, with what to do after a pass; one on another condition is advice only."""
    from easeml_core.services.referee.answers import VerdictAnswer

    click.echo(answer.message)
    if isinstance(answer, VerdictAnswer) and answer.symbol == Symbol.PASS and answer.planned:
        click.echo(f"promote it with `easeml model promote {answer.study} {answer.model_id}`")


def numbers(option: str, text: str, allowed: str = "numbers separated by commas, such as 0.1,0.3") -> tuple[float, ...]:
    """Return ``"0.1,0.3"`` as numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        message = f"{option} must be {allowed}; got {text!r}"
        raise InvalidInputError(message) from error


def mapping_of(option: str, value: str) -> JsonObject:
    """Return the JSON object of an option; InvalidInputError if it is none."""
    found = json_of(option, value)
    if not isinstance(found, dict):
        message = f"--{option} must be a JSON object, got {value[:60]!r}"
        raise InvalidInputError(message)
    return found


def json_of(option: str, value: str | None) -> Any:
    """Return an option's JSON value, None where it was left out; InvalidInputError if it is invalid."""
    if value is None:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:  # also too many digits, or levels
        message = f"--{option} must be JSON, got {value[:60]!r}: {error}"
        raise InvalidInputError(message) from error


def read_program(path: Path) -> str:
    """Return the text of a program's file; InvalidInputError if it cannot be read."""
    from easeml_core.programs.schema import MAX_LENGTH

    return read_text(path, MAX_LENGTH)


def read_text(path: Path, most: int | None = None) -> str:
    """Return the text of a file; of a longer one than ``most`` characters one more, so that its reader refuses it."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(-1 if most is None else most + 1)
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {reason_of(error)}"
        raise InvalidInputError(message) from error
