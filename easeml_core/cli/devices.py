"""``easeml device``: train one trial after the other, list the live devices, announce those of a host."""

from __future__ import annotations

import signal
import threading
import uuid
from dataclasses import replace
from typing import Any

import click

from easeml_core.cli.connection import STUDY, artifacts_option, database_option, open_installation, open_store
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
@click.option(
    "--device", "kind", help="As candidates name it: KIND, KIND:N for N at once, KIND/N for a part; default: any."
)
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
    kind: str | None, studies: tuple[str, ...], poll: float, request_key: str | None, artifacts: str | None,
    database: str | None, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Train one trial after the other until nothing is left; progress goes to standard error.

    SIGINT and SIGTERM end a running training and hand its trial back. Exit status 1: the device failed too often, or
    candidates are left and it could run none of them; they are named with what each needs.
    """
    from easeml_core.services.operations.monitoring import exporting
    from easeml_core.services.trials.worker import Reason, run_device

    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    key = request_key or f"cli/{uuid.uuid4()}"
    _tell(f"request key {key}")
    with exporting("easeml-device"):
        summary = run_device(
            *open_installation(database, artifacts),
            **given,
            device=kind,
            request_key=key,
            studies_only=studies or None,
            log=_tell,
            should_stop=stop.is_set,
            poll_seconds=poll,
        )
    if as_json:
        show_json(summary)
    else:
        columns = {"Trial": "trial_id", "Study": "study", "Candidate": "candidate", "State": "state"}
        columns |= {"Quality": "quality", "Cost s": "cost_seconds", "Failure": "failure"}
        show_table("Trials", columns, [replace(t, failure=short(t.failure)) for t in summary.trials])
        click.echo(summary.message)
    if summary.reason in (Reason.DEVICE_FAILS, Reason.NOTHING_RUNNABLE):
        raise SystemExit(1)


@device.command("list", epilog=example("easeml device list --kind gpu"))
@click.option("--kind", help="Of this kind only, as candidates name it.")
@database_option
@json_option
def list_devices(kind: str | None, database: str | None, as_json: bool) -> None:
    """Show the live devices: host, kind, memory, and how many slots are free.

    A device is listed while a task, a stream or `easeml device announce` on its host announces it, and for 90 seconds
    after the last heartbeat. A tenant's login sees the devices of its tenants.
    """
    from easeml_core.services.trials import devices

    found = devices.list_devices(open_store(database), kind=kind)
    if as_json:
        show_json(found)
        return
    columns = {"Host": "host", "Device": "name", "Kind": "kind", "Model": "model", "Memory MiB": "memory_mb"}
    columns |= {"Driver": "driver", "Slots": "slots", "Held": "held", "Silent s": "silent_seconds"}
    show_table("Devices", columns, found)
    kinds = {one.kind: sum(d.free for d in found if d.kind == one.kind) for one in found}
    free = ", ".join(f"{count} of kind {name}" for name, count in sorted(kinds.items()))
    click.echo(
        f"free slots: {free}" if free else "no device is live: one announces itself when a task or stream starts"
    )


@device.command(epilog=example("easeml device announce --device gpu"))
@click.option("--device", "kind", help="Kind of the devices, or KIND/N where N trials share each; default: gpu or cpu.")
@click.option("--slot", metavar="cpu|cuda|cuda:N", help="Which of this machine; default: its GPUs, else its processor.")
@database_option
@json_option
def announce(kind: str | None, slot: str | None, database: str | None, as_json: bool) -> None:
    """Announce the devices of this host until SIGINT or SIGTERM, so that they are listed also while nothing trains."""
    from easeml_core.services.trials.devices import announce_host

    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    found = announce_host(open_store(database), device=kind, slot=slot, should_stop=stop.wait, log=_tell)
    if as_json:
        show_json(found)
    else:
        click.echo("the announcements have ended; the devices are listed until they were silent for 90 s")


def _tell(line: str) -> None:
    click.echo(line, err=True)
