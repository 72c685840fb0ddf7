"""Tenants beside each other: nothing of one in the rows of another, no wait for one another, bounds, one lease a login.

The attacks of ``test_store_tenants.py`` are on rows of others; these are on what is shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import DBAPIError
from test_store_tenants import DEVICE, KEY, STUDY, TENANT, Doors, claimed, done, doors

from easeml_core.entities import Executor
from easeml_core.errors import NotFoundError, StateError, StoreUnavailableError
from easeml_core.services.studies.logins import end_login, make_login
from easeml_core.store import change_requests, logins
from easeml_core.store.database import Store
from easeml_core.store.rows import change, rows, scalar
from easeml_core.store.tables import decisions, leases, trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[..., list[tuple[Any, ...]]]

__all__ = ["doors"]
pytestmark = pytest.mark.own_database

OTHER = "easeml_d_mallory"
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'work' ORDER BY 1"


@pytest.fixture
def devices(doors: Doors, database: Any, ask: Ask) -> Iterator[tuple[Store, Store]]:
    """Two logins of workers that train for all tenants."""
    administrator = Store(database.url("postgres"))
    stores = []
    for name in ("gpu-1", "mallory"):
        ask(f'DROP ROLE IF EXISTS "{logins.login_of(name, device=True)}"')
        made = make_login(administrator, name=name, device=True)
        stores.append(Store(database.owner.address_of(made.login.login, made.password)))
    yield stores[0], stores[1]
    for store in (*stores, administrator):
        store.close()


# -- reasons -------------------------------------------------------------------------------------------------------


def test_a_tenant_reads_nothing_of_a_runner_up_of_another_tenant(doors: Doors, database: Any, ask: Ask) -> None:
    rival = {"runner_up": {"study_id": 1, "study": "cancer", "candidate": "candidate-0"}, "sentence": "as cancer is"}
    with database.worker.begin() as tx:
        batch = decisions.add_batch(tx, request_key="night/2", policy="default", requested=1)
        change(
            tx,
            "INSERT INTO work.suggestions VALUES (:batch, 0, :trial, '{\"of_other_tenant\": true}', CAST(:r AS jsonb))",
            batch=batch,
            trial=doors.own_trial,
            r=str(rival).replace("'", '"'),
        )
    read = {}
    for name, store in (("tenant", doors.tenant), ("worker", database.worker)):
        with store.begin() as tx:
            (found,) = decisions.suggestions_of_trial(tx, doors.own_trial)
            read[name] = found.reasons
    assert read == {"tenant": {"of_other_tenant": True}, "worker": rival}
    with doors.device.begin() as tx:
        assert scalar(tx, "SELECT count(work.rival_of(batch_id, position)) FROM work.suggestions") == 0
    ask(f"INSERT INTO work.tenant_logins (login, tenant_id) VALUES ('{TENANT}', 1)")  # a login of both
    with doors.tenant.begin() as tx:
        assert decisions.suggestions_of_trial(tx, doors.own_trial)[0].reasons == rival


def test_no_text_of_any_row_that_a_tenant_reads_names_a_rival(doors: Doors, ask: Ask) -> None:
    ask("UPDATE work.candidates SET name = 'secret-' || id WHERE study_id = 1")
    for (table,) in ask(_TABLES):
        columns = [
            c
            for (c,) in ask(
                "SELECT attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped AND "
                "attrelid = %s::regclass AND has_column_privilege(%s, attrelid, attname, 'SELECT')",
                f"work.{table}",
                TENANT,
            )
        ]
        if not columns:
            continue
        shown = ", ".join(f'"{c}"' for c in columns)
        with doors.tenant.begin() as tx:
            texts = [str(tuple(r)) for r in rows(tx, f"SELECT {shown} FROM work.{table}")]
        assert [text for text in texts if "secret-" in text or "cancer" in text] == [], table


# -- nothing waits for a tenant ------------------------------------------------------------------------------------


def test_what_a_tenant_wants_changed_the_scheduler_changes(doors: Doors, ask: Ask) -> None:
    ask("DELETE FROM work.change_requests")
    with doors.tenant.begin() as tx:
        assert scalar(tx, "SELECT work.set_study_paused(:id, true)", id=doors.own.study_id)
        assert scalar(tx, "SELECT work.cancel_trial(:id)", id=doors.own_trial)
    assert ask("SELECT state FROM work.studies WHERE name = 'mallory'") == [("ACTIVE",)]
    with doors.scheduler.begin() as tx:
        assert change_requests.apply_changes(tx) == 2
        assert not change_requests.is_any_open(tx)
    assert ask("SELECT state FROM work.studies WHERE name = 'mallory'") == [("PAUSED",)]
    assert ask("SELECT state FROM work.trials WHERE id = %s", doors.own_trial) == [("CANCELLED",)]
    acts = "SELECT DISTINCT who FROM work.audit WHERE act IN ('study paused', 'trial cancelled')"
    assert ask(acts) == [(TENANT,)]


def test_changes_are_made_in_the_order_of_asking_and_a_held_row_delays_its_own_alone(doors: Doors, ask: Ask) -> None:
    ask("DELETE FROM work.change_requests")
    with doors.tenant.begin() as tx:
        for paused in (True, False, True):
            scalar(tx, "SELECT work.set_study_paused(:id, :paused)", id=doors.own.study_id, paused=paused)
        scalar(tx, "SELECT work.cancel_trial(:id)", id=doors.own_trial)
    with doors.tenant.begin() as held:
        leases.show(held, claimed(held, doors.own_trial))
        with doors.scheduler.begin() as tx:
            tx.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
            assert change_requests.apply_changes(tx) == 3
            assert change_requests.is_any_open(tx)
    assert ask("SELECT state FROM work.studies WHERE name = 'mallory'") == [("PAUSED",)]
    with doors.scheduler.begin() as tx:
        assert change_requests.apply_changes(tx) == 1
    assert ask("SELECT state, cancel_requested FROM work.trials WHERE id = %s", doors.own_trial) == [("RUNNING", True)]


def test_no_name_is_held_while_a_study_is_sealed(doors: Doors, ask: Ask) -> None:
    """The referee adds candidates to a registered study: a tenant adds them with the study, or once it is sealed."""
    new = (
        "INSERT INTO work.studies (name, tenant_id, data_set_id, metric, config, request_key) SELECT 'more', "
        f"tenant_id, data_set_id, metric, config, '{KEY}' FROM work.studies WHERE name = 'mallory'"
    )
    named = "INSERT INTO work.candidates (study_id, name, kind) SELECT id, :name, 'tree' FROM work.studies "
    named += "WHERE name = 'more'"
    with doors.tenant.begin() as tx:
        change(tx, new)
        assert change(tx, named, name="first") == 1
    assert done(doors.tenant, named, name="second") == -1
    ask("UPDATE work.studies SET state = 'ACTIVE' WHERE name = 'more'")
    assert done(doors.tenant, named, name="second") == 1


# -- bounds --------------------------------------------------------------------------------------------------------

BOUNDED = (
    (1000, "of a tenant", "data_sets (tenant_id, source) SELECT tenant_id, 'csv:' || k"),
    (
        1000,
        "of a tenant",
        "studies (name, tenant_id, data_set_id, metric, config, request_key) SELECT 'm' || k, tenant_id, data_set_id, "
        f"metric, config, k || '@{TENANT}'",
    ),
    (
        1000,
        "of a study without an answer",
        f"requests (request_key, kind, study_id) SELECT k || '@{TENANT}', 'refresh', s.id",
    ),
    (
        1000,
        "of a study that wait",
        "feeds (study_id, request_key, artifact, rows, origin, fed_by) SELECT s.id, "
        f"k || '@{TENANT}', 'sha256:' || repeat('0', 64), 1, 'x', 'x'",
    ),
    (
        1000,
        "handed in for a study within a day",
        "models (study_id, data_version_id, format, artifact, validation_loss, submitted) SELECT s.id, (SELECT v.id "
        "FROM work.data_versions v WHERE v.study_id = s.id), 'skops', 'sha256:' || lpad(k::text, 64, '0'), 0, true",
    ),
)


@pytest.mark.parametrize(("most", "which", "sql"), BOUNDED)
def test_what_a_tenant_adds_is_bounded_and_the_error_says_how_much_is_allowed(
    doors: Doors, most: int, which: str, sql: str
) -> None:
    added = f"INSERT INTO work.{sql} FROM work.studies s, generate_series(1, :n) k WHERE s.name = 'mallory'"
    assert done(doors.tenant, added, n=most - 10) == most - 10
    with pytest.raises(StateError, match=f"of at most {most} {which}"), doors.tenant.begin() as tx:
        change(tx, added, n=most + 1)


def test_changes_that_were_not_made_are_bounded(doors: Doors) -> None:
    many = "SELECT work.set_study_paused(:id, k % 2 = 0) FROM generate_series(1, :n) k"
    with pytest.raises(StateError, match="of at most 1000"), doors.tenant.begin() as tx:
        change(tx, many, id=doors.own.study_id, n=1001)


# -- one lease, one login ------------------------------------------------------------------------------------------


def test_a_device_takes_over_no_living_lease_of_another_login(
    doors: Doors, devices: tuple[Store, Store], ask: Ask
) -> None:
    """The key is no secret: a device reads it, and who knows the task can guess it."""
    first, mallory = devices
    with first.begin() as tx:
        token = claimed(tx, doors.own_trial, "dag/run/task/-1")
    for store in (mallory, doors.device, doors.tenant):
        with store.begin() as tx:
            by = Executor(trials.get_trial(tx, doors.own_trial).implementation, "test")
            given = {"trial_id": doors.own_trial, "executor": by}
            assert leases.claim_by_token(tx, lease_key="dag/run/task/-1", **given).outcome == "held"
    with first.begin() as tx:
        leases.show(tx, token)
        assert change(tx, "UPDATE work.trials SET beat_at = now()") == 1
        claimed(tx, doors.own_trial, "dag/run/task/-1")  # a retry of the same task
    ask("UPDATE work.trials SET lease_until = now() - interval '1 s' WHERE id = %s", doors.own_trial)
    with mallory.begin() as tx:
        claimed(tx, doors.own_trial, "another")
    assert ask("SELECT lease_login FROM work.trials WHERE id = %s", doors.own_trial) == [(OTHER,)]


def test_a_device_changes_the_settings_of_its_own_login_alone(devices: tuple[Store, Store]) -> None:
    for sql in (
        "ALTER ROLE easeml_device SET search_path = 'x'",
        "ALTER ROLE \"easeml_d_gpu-1\" SET search_path = 'x'",
    ):
        assert done(devices[1], sql) == -1
    key = "INSERT INTO work.suggestion_requests (request_key, requested, trainers) VALUES (:key, 1, true)"
    assert done(devices[1], key, key="dag/run/task/-1") == -1
    assert done(devices[1], key, key="dag/run/task/-1@easeml_d_gpu-1") == -1
    assert done(devices[1], key, key=f"dag/run/task/-1@{OTHER}") == 1


@pytest.mark.parametrize("group", ["easeml_tenant", DEVICE])
def test_the_name_of_a_group_is_no_other_login(doors: Doors, devices: tuple[Store, Store], group: str) -> None:
    """PostgreSQL 16 refuses it; before, a member can take the group's name, and stays who it is."""
    own, store = (OTHER, devices[1]) if group == DEVICE else (TENANT, doors.tenant)
    with store.begin() as tx:
        try:
            tx.exec_driver_sql(f"SET LOCAL ROLE {group}")
        except DBAPIError:
            return
        assert scalar(tx, "SELECT work.caller()") == own
        many = (
            f"INSERT INTO work.candidates (study_id, name, kind) SELECT {STUDY}, 'c' || k, 'tree' FROM generate_series"
        )
        if group != DEVICE:
            with pytest.raises(DBAPIError, match="at most 1000 candidates"):
                change(tx, f"{many}(1, 1001) k")


@pytest.mark.parametrize("device", [False, True])
def test_the_sessions_of_a_login_end_with_it(
    doors: Doors, devices: tuple[Store, Store], database: Any, device: bool
) -> None:
    administrator, store = Store(database.url("postgres")), devices[1] if device else doors.tenant

    def used_after_its_end() -> None:
        with store.begin() as tx:
            scalar(tx, "SELECT 1")
            end_login(administrator, name="mallory", device=device)
            scalar(tx, "SELECT 1")

    for _ in range(2):  # the session that was open, and a new one
        with pytest.raises((StoreUnavailableError, NotFoundError)):
            used_after_its_end()
    administrator.close()
