"""``easeml feed``: bring labelled pairs to a study."""

from __future__ import annotations

import getpass
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.answers import wait_for_answer
from easeml_core.cli.connection import artifacts_option, database_option, open_artifacts, open_store
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import json_option, plain, show_json
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.store.database import Store

NO_REFEREE = "is the referee running? The request stays filed"
_EXAMPLES = """\b
Examples:
  easeml feed flowers new.csv --refresh
  easeml feed flowers inputs.csv --labels truth.csv
  easeml feed digits more-images/
  easeml feed flowers --pair '{"inputs": {"length": 5.1, "width": 3.5}, "label": "setosa"}'
"""


def key_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--request-key``."""
    return click.option("--request-key", help="Makes the call repeatable; default: a new one.")(command)


def whoever() -> str:
    """Name of the account that runs the command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name
        return "unknown"


def new_key(given: str | None) -> str:
    """The request key that was given, else a new one."""
    return given or f"cli/{uuid.uuid4()}"


def refreshed(store: Store, study: str, request_key: str, timeout: float) -> dict[str, Any]:
    """The referee's answer to a request to refresh the study."""
    from easeml_core.services.datasets.feed import file_refresh

    filed = file_refresh(store, study=study, request_key=request_key)
    return wait_for_answer(store, filed["request_id"], timeout, NO_REFEREE)


@click.command(epilog=_EXAMPLES)
@click.argument("study", type=STUDY)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--label", "label_column", default="label", show_default=True, help="Column of the labels in PATH.")
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV: example,label; then PATH has a column example.",
)
@click.option("--pair", "pairs", multiple=True, metavar="JSON", help="One pair; may be given more than once.")
@click.option("--refresh", is_flag=True, help="Make a new data version of it now, and wait for the referee's answer.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for that answer.")
@key_option
@artifacts_option
@database_option
@json_option
def feed(
    study: str,
    path: Path | None,
    label_column: str,
    labels: Path | None,
    pairs: tuple[str, ...],
    refresh: bool,
    timeout: float,
    request_key: str | None,
    artifacts: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Bring labelled pairs to STUDY: a CSV file, a folder of arrays or of images by class, or single pairs.

    They wait for the study's next refresh: at night, with --refresh, or by `easeml refine apply`. Rows that the study
    knows already are left out then. Exit status 1: the referee refused.
    """
    from easeml_core.services.datasets.feed import feed as bring

    store, key = open_store(database), new_key(request_key)
    fed = bring(
        store,
        open_artifacts(artifacts, store),
        study=study,
        path=path,
        labels=labels,
        label_column=label_column,
        pairs=[_pair(text) for text in pairs] if pairs else None,
        fed_by=whoever(),
        request_key=key,
    )
    answer = refreshed(store, study, f"{key}/refresh", timeout) if refresh else None
    if as_json:
        show_json(fed | {"refresh": answer})
    else:
        click.echo(f"feed {fed['feed_id']} of study {study}: {counted(fed['rows'], 'pair')}")
        ask = f"they wait for the next refresh: at night, or with `easeml refine apply {study}`"
        click.echo(ask if answer is None else plain(answer["message"]))
    if answer is not None and answer["refused"]:
        click.get_current_context().exit(1)


def _pair(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        message = f'--pair must be JSON such as {{"inputs": [5.1, 3.5], "label": "setosa"}}: {error}'
        raise InvalidInputError(message) from error
