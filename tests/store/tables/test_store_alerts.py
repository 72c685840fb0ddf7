"""Alerts become visible in the order of their numbers, with any writers, and those of a team to that team alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command

from easeml_core.store import schema
from easeml_core.store.database import Store
from easeml_core.store.rows import change, rows, scalar
from easeml_core.store.tables import releases

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@pytest.fixture
def earlier(server: Any) -> Iterator[Store]:
    """An installation's database before alerts knew of teams, as its owner sees it."""
    server.create_database_from_template("earlier", "template0")
    owner = Store(server.url("easeml_owner", "earlier"))
    with owner.begin(check_schema=False) as tx:
        change(tx, "CREATE SCHEMA work")
        change(tx, "CREATE SCHEMA sealed")
        config = schema.alembic_config()
        config.attributes["connection"] = tx
        command.upgrade(config, "0005")
    yield owner
    owner.close()
    server.drop_database("earlier")


# Set 1 serves two teams, set 2 one; requests 1 and 2 are readings of them, both of team 2.
READ = """
INSERT INTO work.tenants (name) VALUES ('lab');
INSERT INTO work.data_sets (tenant_id, source) VALUES (1, 'csv:a');
INSERT INTO work.studies (name, tenant_id, data_set_id, state, metric, config, request_key)
VALUES ('cancer', 1, 1, 'ACTIVE', 'accuracy', '{}', 'k');
INSERT INTO work.data_versions (study_id, data_set_id, version, content_hash, artifact, features, class_names)
VALUES (1, 1, 1, 'a', 'sha256' || chr(58) || repeat('0', 64), 4, '[]');
INSERT INTO work.models (study_id, data_version_id, format, artifact, validation_loss)
SELECT 1, 1, 'constant', artifact, 0.5 FROM work.data_versions;
INSERT INTO work.test_sets (study_id, data_version_id, purpose, rows, steps, plan, state, retired_at)
VALUES (1, 1, 'meter', 9, 4, jsonb_build_object('teams', 2), 'retired', now()),
(1, 1, 'meter', 9, 4, '{}', 'live', NULL);
INSERT INTO work.requests (request_key, kind, study_id, model_id) VALUES ('a', 'meter', 1, 1), ('b', 'meter', 1, 1);
INSERT INTO work.meter_readings (request_id, study_id, model_id, test_set_id, step, signal, signals, cached, team)
SELECT n, 1, 1, n, 1, 3, 3, false, 2 FROM generate_series(1, 2) n;
INSERT INTO work.alerts (study_id, kind, request_id, message)
SELECT 1, 'overfitting', n, 'm' FROM generate_series(1, 2) n;
INSERT INTO work.alerts (study_id, kind, test_set_id, message) VALUES (1, 'new-test-set', 1, 'm');
"""


def test_alerts_of_an_earlier_schema_become_those_of_their_team(earlier: Store) -> None:
    with earlier.begin(check_schema=False) as tx:
        change(tx, READ)
    schema.upgrade(earlier)
    with earlier.begin() as tx:
        assert [a.team for a in rows(tx, "SELECT team FROM work.alerts ORDER BY id")] == [2, None, None]
        assert [a.alert_id for a in releases.list_alerts(tx, 1)] == [2, 3]
