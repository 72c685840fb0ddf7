"""``easeml device``: let this machine train one trial after the other, without Airflow."""

from __future__ import annotations

import signal
import threading
import uuid

import click

from easeml_core.cli.connection import artifacts_option, database_option, open_installation
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import example, json_option, short, show_json, show_table


@click.group(epilog=example("easeml device run --study flowers"))
def device() -> None:
    """Devices: what trains, one trial at a time."""


_EXAMPLE = """\b
Examples:
  easeml device run
  easeml device run --study flowers --max-trials 5
"""


@device.command(epilog=_EXAMPLE)
@click.option("--device", "kind", help="Kind of this device, as candidates name it; default: all are alike.")
@click.option("--slot", metavar="cpu|cuda|cuda:N", help="What it is on this machine; default: a GPU if there is one.")
@click.option("--policy", help="How the next trial is chosen; default: the installation's, see `easeml policy`.")
@click.option("--study", "studies", type=STUDY, multiple=True, help="Of this study only; may be given several times.")
@click.option("--until", type=float, metavar="SECONDS", help="Begin no further trial after so many seconds.")
@click.option("--max-trials", type=int, help="End after so many trials; default: no limit.")
@click.option("--poll", default=60.0, show_default=True, help="Seconds between two asks while there is nothing to do.")
@click.option("--request-key", help="Give it again to go on after a crash; default: a new one, which is logged.")
@artifacts_option
@database_option
@json_option
def run(
    kind: str | None,
    slot: str | None,
    policy: str | None,
    studies: tuple[str, ...],
    until: float | None,
    max_trials: int | None,
    poll: float,
    request_key: str | None,
    artifacts: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Train one trial after the other until nothing is left; the news goes to standard error.

    SIGINT and SIGTERM end a running training and hand its trial back. Exit status 1: the device failed too often, or
    candidates are left and it could run none of them; they are named with what each needs.
    """
    from easeml_core.services.trials.worker import Reason, run_device

    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    key = request_key or f"cli/{uuid.uuid4()}"
    _tell(f"request key {key}")
    summary = run_device(
        *open_installation(database, artifacts),
        device=kind,
        request_key=key,
        policy=policy,
        studies_only=studies or None,
        until=until,
        max_trials=max_trials,
        log=_tell,
        should_stop=stop.is_set,
        poll_seconds=poll,
        slot=slot,
    )
    if as_json:
        show_json(summary)
    else:
        columns = {"Trial": "trial_id", "Study": "study", "Candidate": "candidate", "State": "state"}
        columns |= {"Quality": "quality", "Cost s": "cost_seconds", "Failure": "failure"}
        show_table("Trials", columns, [t | {"failure": short(t["failure"])} for t in summary["trials"]])
        click.echo(summary["message"])
    if summary["reason"] in (Reason.DEVICE_FAILS, Reason.NOTHING_RUNNABLE):
        raise SystemExit(1)


def _tell(line: str) -> None:
    click.echo(line, err=True)
