"""``easeml dags``: the DAGs that come with the plugin, copied into a folder of Airflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from easeml_core.cli.output import example, json_option, show_json, show_table
from easeml_core.errors import counted

if TYPE_CHECKING:
    from easeml_core.services.operations.example_dags import CopiedDags

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
