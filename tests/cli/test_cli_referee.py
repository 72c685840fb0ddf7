"""``easeml referee`` as a process: it answers, tells its log nothing that was sealed, and ends when it is told to."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from easeml_core.services.registration import register_study
from easeml_core.services.requests import answer_of


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_the_process_works_until_it_is_told_to_end(ending: signal.Signals, database: Any, artifacts: Any) -> None:
    address = database.url("easeml_referee")
    command = [sys.executable, "-m", "easeml_core.cli", "referee", "--artifacts", str(artifacts.root)]
    referee = subprocess.Popen([*command, "--database", address], stderr=subprocess.PIPE, text=True)
    try:
        given = {"tenant": "lab", "study": "iris", "source": "sklearn:iris", "request_key": "k"}
        asked = register_study(database.worker, **given)["request_id"]
        deadline = time.monotonic() + 60
        while answer_of(database.worker, asked) is None:
            assert referee.poll() is None
            assert time.monotonic() < deadline, "no answer came"
            time.sleep(0.05)
        referee.send_signal(ending)
        _, log = referee.communicate(timeout=30)
    finally:
        referee.kill()
    assert referee.returncode == 0
    assert f"INFO request {asked} (seal): refused" in log
    assert "Traceback" not in log
    assert database.server.secrets["easeml_referee"] not in log
