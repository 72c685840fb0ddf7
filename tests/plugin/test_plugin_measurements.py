"""What our processes measure reaches Airflow's own StatsD."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

CODE = """
from airflow.sdk._shared.observability.metrics import stats
from airflow.sdk.observability.metrics import stats_utils
from easeml_airflow.hooks import easeml
from easeml_core.services.telemetry import TRIAL_SECONDS, TRIALS_ENDED, WAITS_PENDING

stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)  # as a task's process does
easeml.connect_metrics()
easeml.connect_metrics()
TRIALS_ENDED.note(1, state="SUCCEEDED")
TRIAL_SECONDS.note(1.5)
for change in (1, 1, -1):
    WAITS_PENDING.note(change, question="answer")
"""


def test_measurements_reach_the_statsd_that_airflow_has_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        metrics = {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(server.getsockname()[1])}
        given = {f"AIRFLOW__METRICS__{name}": value for name, value in metrics.items()}
        subprocess.run([sys.executable, "-c", CODE], env=os.environ | given, check=True, timeout=120)
        server.sendto(b"the end", server.getsockname())
        got = list(iter(lambda: server.recv(4096).decode(), "the end"))
    assert sorted(line for line in got if "easeml" in line) == [
        "airflow.easeml.trial.duration:1500.000000|ms",
        "airflow.easeml.trials.ended:1|c",
        *(f"airflow.easeml.waits.pending:{level:.1f}|g" for level in (1, 1, 2)),
    ]
