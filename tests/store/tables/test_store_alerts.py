"""Alerts become visible in the order of their numbers, with any writers, and those of a team to that team alone."""

from __future__ import annotations

import threading
from typing import Any

from easeml_core.store.rows import scalar
from easeml_core.store.tables import releases


def test_no_alert_overtakes_an_earlier_one(database: Any, world: Any) -> None:
    """Else who has seen the later number would never look for the earlier one."""
    with database.referee.begin() as tx:
        before = releases.newest_alert(tx, None)
        reading = scalar(tx, "SELECT request_id FROM work.meter_readings ORDER BY request_id LIMIT 1")
        sets = [scalar(tx, f"SELECT id FROM work.test_sets ORDER BY id LIMIT 1 OFFSET {place}") for place in (0, 1)]
    assert reading is not None
    begun, written = threading.Event(), threading.Event()

    def alert(tx: Any, test_set_id: int) -> None:
        releases.add_alert(
            tx,
            study_id=world.study.study_id,
            study=world.study.name,
            test_set_id=test_set_id,
            kind=releases.AlertKind.NEW_TEST_SET,
            message="m",
        )

    def second() -> None:
        with database.referee.begin() as tx:
            begun.set()
            alert(tx, sets[1])
            written.set()

    with database.referee.begin() as tx:
        alert(tx, sets[0])
        thread = threading.Thread(target=second)
        thread.start()
        assert begun.wait(30)
        assert not written.wait(0.3)  # it waits until the first one can be seen
        with database.worker.begin() as look:
            assert releases.newest_alert(look, None) == before
    thread.join(30)
    assert written.is_set()
    with database.worker.begin() as look:
        seen = releases.list_alerts(look, None, after_id=before)
    assert [a.test_set_id for a in seen] == sets
    assert [a.over_budget for a in seen] == [None, None]
