"""``easeml referee`` as a process: it answers, logs nothing sealed, and ends on a signal."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from property_sizes import at_night
from registering import register_study

from easeml_core.services.referee.requests import answer_of


@pytest.mark.parametrize("ending", [signal.SIGTERM, at_night(signal.SIGINT)], ids=lambda s: s.name)
def test_the_process_works_until_it_is_asked_to_end(ending: signal.Signals, database: Any, artifacts: Any) -> None:
    address = database.url("easeml_referee")
    command = [sys.executable, "-m", "easeml_core.cli", "referee", "--artifacts", str(artifacts.root)]
    referee = subprocess.Popen([*command, "--database", address], stderr=subprocess.PIPE, text=True)
    try:
        given = {"tenant": "lab", "study": "iris", "source": "sklearn:iris", "request_key": "k"}
        asked = register_study(database.worker, **given).request_id
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


@pytest.mark.parametrize("delay", [None, "3600"], ids=["by default", "asked for"])
def test_answers_have_a_fixed_time(delay: str | None, run: Any, database: Any, artifacts: Any, make_study: Any) -> None:
    from easeml_core.services.referee.requests import file_meter_request
    from easeml_core.store.tables import models, studies

    study = make_study()
    with database.worker.begin() as tx:
        model = models.baseline_model(tx, studies.get_study(tx, study).id)
    asked = file_meter_request(database.worker, study=study, model_id=model.id, request_key="m")
    command = ("referee", "--once", "--artifacts", str(artifacts.root), "--database", database.url("easeml_referee"))
    given = () if delay is None else ("--answer-delay", delay)
    assert run(*command, *given).text == "1 request answered"  # decided, that is
    assert answer_of(database.worker, asked) is None
    with database.referee.begin() as tx:
        left = tx.exec_driver_sql(
            "SELECT extract(epoch FROM leaves_at - requested_at)::int FROM sealed.outbox o "
            f"JOIN work.requests r ON r.id = o.request_id WHERE r.id = {asked}"
        ).scalar()
    assert left == int(delay or 60)
    assert run(*command).text == "0 requests answered"  # decided answers leave at their time


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--answer-delay", "-1"), "got -1.0"),
        (("--answer-hour", "25:00"), "got '25:00'"),
        (("--answer-hour", "06:00", "--answer-delay", "60"), "answer-delay must be 0"),
        (("--smtp", "mail", "--mail-from", "nobody"), "mail-from must be"),
        (("--bundle", "dags=/nope"), "/nope is no"),
        (("--bundle", "dags=."), "may read"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(given: tuple[str, ...], words: str, run: Any, database: Any) -> None:
    answer = run("referee", "--once", *given, "--database", database.url("easeml_referee"))
    assert answer.status == 2
    assert words in answer.err
