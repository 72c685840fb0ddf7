"""``easeml referee``: the process that alone may read sealed sets."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

import click

from easeml_core.cli.connection import HOME, artifacts_option, database_option, open_artifacts, open_store
from easeml_core.cli.output import json_option, show_json


@click.command()
@click.option("--once", is_flag=True, help="Answer the requests there are, then stop.")
@click.option("--poll", default=10.0, show_default=True, help="Seconds between two looks when nothing is notified.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=HOME / "data",
    show_default=True,
    help="Folder whose subfolder TENANT holds that tenant's csv: files; no other file is read.",
)
@artifacts_option
@database_option
@json_option
def referee(once: bool, poll: float, data: Path, artifacts: Path, database: str | None, as_json: bool) -> None:
    """Answer requests: seal data, judge submissions, read the meter, move the production pointer.

    The address is that of the role easeml_referee; give it to no component of Airflow.
    """
    from easeml_core.services.referee import Referee

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    store = open_store(database, role="easeml_referee", lock_timeout_seconds=5)
    worker = Referee(store, open_artifacts(artifacts), data=data, poll_seconds=poll)
    answered = 0
    if once:
        while worker.answer_one() is not None:
            answered += 1
        show_json({"answered": answered}) if as_json else click.echo(f"{answered} requests answered")
        return
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    worker.run(stop)
