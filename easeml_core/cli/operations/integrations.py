"""``easeml dags`` and ``mlflow``: the DAGs for a folder of Airflow, and trials and models mirrored in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import (
    STUDY,
    asked_to_end,
    installation_options,
    open_installation,
)
from easeml_core.cli.output import example, json_option, show_json, show_table
from easeml_core.errors import EasemlError, InvalidInputError, counted
from easeml_core.settings.config import require

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from easeml_core.services.operations.example_dags import CopiedDags
    from easeml_core.services.operations.mlflow_sync import MirrorReport


NEXT = """\
Next: `airflow pools set easeml_devices 2 "training devices" --include-deferred`, with a slot for each device, unless
there is such a pool. Airflow reads the folder within [dag_processor] refresh_interval (300 s by default); new DAGs are
paused: unpause and trigger easeml_register_study first. From Airflow 3.3 on, [core] load_examples = True loads the DAGs
of the package as well: set it to False, otherwise each of them is there twice."""


@click.group(epilog=example("easeml dags copy /opt/airflow/dags"))
def dags() -> None:
    """The DAGs that come with the plugin."""


@dags.command(
    epilog=example(
        "easeml dags copy /opt/airflow/dags",
        "easeml dags copy /opt/airflow/dags easeml_register_study easeml_nightly_retraining",
    )
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, metavar="[DAG_ID]...")
@click.option("--force", is_flag=True, help="Replace files that were changed after they were copied.")
@json_option
def copy(folder: Path, names: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Copy the DAGs into FOLDER, from which Airflow reads DAGs: all of them, or those named.

    Run it again after an upgrade: unchanged copies are replaced by the new version. All files are written
    or none. Needs no database and no Airflow. FOLDER/.easeml-dags.json records what was written.
    """
    from easeml_core.services.operations.example_dags import copy_dags

    done = copy_dags(folder, names, force=force)
    if as_json:
        show_json(done)
        return
    _show_copied(done)


def _show_copied(done: CopiedDags) -> None:
    columns = {"DAG": "dag_id", "Runs": "schedule", "File": "state"}
    show_table(f"{done.folder}{' (made)' if done.made else ''}", columns, done.dags)
    written = sum(dag.state != "unchanged" for dag in done.dags)
    click.echo(f"{counted(written, 'file')} written, {len(done.dags) - written} unchanged")
    for name in done.obsolete:
        click.echo(f"{name} is of an earlier version, and this one has no such DAG: remove it")
    click.echo(NEXT)


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
@installation_options
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
    stop = asked_to_end()
    keep_in_sync(once, stop, poll_seconds=poll, log=lambda line: click.echo(f"easeml: {line}", err=True))


def keep_in_sync(
    once: Callable[[], Any], stop: threading.Event, *, poll_seconds: float, log: Callable[[str], None]
) -> None:
    """Sync repeatedly until ``stop`` is set; an error is logged and the sync repeated, if that can help."""
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
