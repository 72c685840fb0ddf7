"""Processes of an installation: a device that asks and trains without end, and a referee with a short lease.

    python tests/faults/fault_parts.py device URL ARTIFACTS STATE
    python tests/faults/fault_parts.py referee URL ARTIFACTS KEYS DATA DELAY

The device is ``run_device`` in a loop: a stream that ends because nothing is left is followed by one under the next
key, and a process that was killed goes on under its own (STATE holds the number). The referee is that of ``easeml
referee``, whose lease of 20 seconds would make each round as long.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path

from easeml_core.files.local import write_durably
from easeml_core.sandbox.child_start import own_fork_server
from easeml_core.services.referee.process import Duties, Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.trials.worker import run_device
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store

LEASE_SECONDS = 3.0
POLL_SECONDS = 0.5


def main() -> None:
    """Be the part that the first argument names, until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    part, *arguments = sys.argv[1:]
    if part == "device":
        _device(stop, *arguments)
    else:
        _referee(stop, *arguments)


def _device(stop: threading.Event, url: str, artifacts: str, state: str) -> None:
    store, place, file = Store(url), ArtifactStore(artifacts), Path(state)
    number = int(file.read_text()) if file.exists() else 1
    while not stop.is_set():
        write_durably(file, f"{number}\n")
        summary = run_device(
            store,
            place,
            device=None,
            slot="cpu",
            request_key=f"{file.stem}/{number}",
            should_stop=stop.is_set,
            poll_seconds=POLL_SECONDS,
            log=lambda line: print(line, file=sys.stderr, flush=True),
        )
        print(f"{summary.reason}: {summary.message}", file=sys.stderr, flush=True)
        number += 1
        stop.wait(POLL_SECONDS)


def _referee(stop: threading.Event, url: str, artifacts: str, keys: str, data: str, delay: str) -> None:
    store = Store(url, lock_timeout_seconds=5, connections=10)
    duties = Duties(
        data=Path(data),
        timetable=Timetable(float(delay)),
        keys=Path(keys),
        workers=2,
        lease_seconds=LEASE_SECONDS,
        poll_seconds=POLL_SECONDS,
        grid_seconds=(0.5, 1.0, 2.0, 4.0, 8.0),
        decision_grid_seconds=(0.2, 1.0, 5.0),
    )
    with own_fork_server():
        print(f"referee {os.getpid()}", file=sys.stderr, flush=True)
        Referee(store, ArtifactStore(artifacts), duties).run(stop)


if __name__ == "__main__":
    main()
