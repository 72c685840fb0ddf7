"""``easeml scheduler``: the process that decides requests for suggestions, for roles that may not suggest."""

from __future__ import annotations

import signal
import threading

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import example, json_option, process_options, show_json
from easeml_core.encoding import typed_record


@typed_record
class DecidedRequests:
    """The answer of ``easeml scheduler --once``: the number of requests that were decided."""

    decided: int


@click.command(epilog=example("easeml scheduler", "easeml scheduler --once --json"))
@click.option("--once", is_flag=True, help="Decide the requests there are, then stop.")
@click.option("--policy", help="How to choose, as in `easeml policy set`; default: the installation's policy.")
@click.option("--poll", default=10.0, show_default=True, help="Seconds between two looks when nothing is notified.")
@process_options("writes that it lives")
@database_option
@json_option
def scheduler(
    once: bool,
    policy: str | None,
    poll: float,
    health_port: int | None,
    metrics_port: int | None,
    log_format: str,
    database: str | None,
    as_json: bool,
) -> None:
    """Decide which trials run next, for tasks and devices whose role may not.

    An installation of one team needs no such process: its role easeml_worker suggests by itself. The address is that of
    the role easeml_scheduler; give it to no component of Airflow.
    """
    from easeml_core.services.operations.monitoring import exporting
    from easeml_core.services.referee.health_endpoint import answering, health_of, metrics_of
    from easeml_core.services.selection.scheduler_process import SchedulerProcess, require_scheduler
    from easeml_core.services.telemetry import start_log

    start_log(as_json=log_format == "json")
    store = open_store(database, role="easeml_scheduler", lock_timeout_seconds=60)
    process = SchedulerProcess(store, policy=policy, poll_seconds=poll)
    if once:
        require_scheduler(store)
        decided = 0
        while found := process.decide_open():
            decided += found
        show_json(DecidedRequests(decided)) if as_json else click.echo(f"{decided} requests decided")
        return
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    require_scheduler(store)
    with (
        exporting("easeml-scheduler", for_prometheus=metrics_port is not None) as metrics,
        answering("health-port", health_port, health_of(lambda: process.is_alive)),
        answering("metrics-port", metrics_port, metrics_of(metrics)),
    ):
        process.run(stop)
