"""The database goes away and comes back: referee and workers wait for it, and lose nothing."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from registering import register_study

from easeml_core.errors import StoreUnavailableError
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.reports.overview import overview
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import claim, record_failure, trial_state
from easeml_core.store import schema
from easeml_core.store.database import Store
from easeml_core.store.server.server import throwaway_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easeml_core.store.server.server import Server

SMALL = {
    "tenant": "lab",
    "source": "sklearn:breast_cancer",
    "gate": {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3},
    "meter": {"tolerance": 0.2, "reliability": 0.9, "steps": 4},
    "candidates": [{"name": "tree", "kind": "decision_tree"}],
}


@pytest.fixture
def lonely() -> Iterator[Server]:
    """A server of this test alone, so that it may be stopped."""
    with throwaway_server() as running:
        running.ensure_installation()
        owner = Store(running.url("easeml_owner", "easeml"))
        schema.upgrade(owner)
        owner.close()
        yield running


def test_a_restart_of_the_database_is_survived(lonely: Server, artifacts: Any, wait_for: Any, caplog: Any) -> None:
    worker, eyes = (Store(lonely.url(f"easeml_{r}", "easeml")) for r in ("worker", "referee"))
    stop = threading.Event()
    referee = threading.Thread(target=Referee(eyes, artifacts, poll_seconds=3600).run, args=(stop,))
    referee.start()
    try:
        asked = register_study(worker, study="before", request_key="k1", **SMALL).request_id
        wait_for(lambda: answer_of(worker, asked))
        (trial,) = suggest_trials(worker, count=1, request_key="s").trials
        news: list[str] = []
        lease = claim(worker, trial_id=trial.trial_id, request_key="w", log=news.append)

        with caplog.at_level(logging.WARNING, logger="easeml_core"):
            lonely.stop()
            wait_for(lambda: "waiting for the database" in caplog.text)
        lease.beat()
        assert not lease.should_stop()  # training goes on
        assert len(news) == 1
        assert "heartbeat not stored, training goes on" in news[0]
        with pytest.raises(StoreUnavailableError) as caught:
            overview(worker)
        message = str(caught.value)
        assert f"127.0.0.1:{lonely.port}" in message
        assert "`make up` or `easeml db start`" in message
        assert lonely.secrets["easeml_worker"] not in message + caplog.text

        lonely.start()
        lease.beat()
        assert not lease.should_stop()
        record_failure(worker, lease, "it was only a test")
        assert trial_state(worker, trial_id=trial.trial_id).state == "FAILED"
        asked = register_study(worker, study="after", request_key="k2", **SMALL).request_id
        assert not wait_for(lambda: answer_of(worker, asked)).refused
        assert referee.is_alive()
    finally:
        stop.set()
        referee.join(30)
        worker.close()
        eyes.close()
    assert not referee.is_alive()
