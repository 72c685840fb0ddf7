"""Tenants beside each other: nothing of one in the rows of another, no wait for one another, bounds, one lease a login.

The attacks of ``test_store_tenants.py`` are on rows of others; these are on what is shared.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError
from test_store_tenants import DEVICE, KEY, STUDY, TENANT, Doors, claimed, done, doors

from easeml_core.entities import Executor
from easeml_core.errors import NotFoundError, StateError, StoreError, StoreUnavailableError
from easeml_core.services.selection import scheduler_process
from easeml_core.services.selection.scheduler_process import SchedulerProcess
from easeml_core.services.studies.logins import end_login, make_login
from easeml_core.store import logins
from easeml_core.store.database import Store
from easeml_core.store.roles import FIRST_WITH_OPTIONS
from easeml_core.store.rows import change, rows, scalar
from easeml_core.store.tables import decisions, leases, scheduler_requests, trials

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


def test_no_function_gives_a_tenant_what_is_of_another(doors: Doors, ask: Ask) -> None:
    """Every function of the schema that a tenant may call, over all ids; a rival is the tenant's own candidate."""
    ask("UPDATE work.candidates SET name = 'secret-' || id WHERE study_id = 1")
    rival = "jsonb_build_object('runner_up', jsonb_build_object('study_id', {}), 'sentence', 'secret-9 of cancer')"
    ask(f"UPDATE work.suggestions SET rival = {rival.format(doors.own.study_id)}")
    ask(
        f"INSERT INTO work.suggestions VALUES (%s, 9, %s, '{{}}', {rival.format(1)})",
        doors.victim.batch_id,
        doors.own_trial,
    )
    found = ask(
        "SELECT oid::regproc::text, proargtypes::regtype[]::text[] FROM pg_proc WHERE pronamespace = "
        "'work'::regnamespace AND prorettype <> 'trigger'::regtype AND has_function_privilege(%s, oid, 'EXECUTE')",
        TENANT,
    )
    assert "work.rival_of" in {name for name, _ in found}
    values = {"bigint": "b", "integer": "i", "text": "'x'", "jsonb": "'{}'", "boolean": "true"}
    for name, types in found:
        given = ", ".join(values.get(kind, f"NULL::{kind}") for kind in types)
        crossed = "".join(
            f" CROSS JOIN generate_series({first}, {last}::{kind}) {values[kind]}"
            for kind, first, last in (("bigint", 1, 30), ("integer", 0, 11))
            if kind in types
        )
        with doors.tenant.begin() as tx:
            begun = tx.begin_nested()
            try:
                texts = [str(tuple(r)) for r in rows(tx, f"SELECT {name}({given})::text FROM (SELECT) z{crossed}")]
            except DBAPIError as error:
                texts = [str(error.orig)]
            begun.rollback()
        assert [text for text in texts if "secret-" in text or "cancer" in text] == [], name


# -- who asked -----------------------------------------------------------------------------------------------------


def test_the_audit_names_the_login_whatever_it_says_of_itself(doors: Doors, ask: Ask) -> None:
    said = (
        f"INSERT INTO work.requests (request_key, kind, study_id, model_id, arguments) SELECT '{KEY}', 'promote', "
        's.id, m.id, \'{"who": "ann"}\' FROM work.studies s JOIN work.models m ON m.study_id = s.id',
        "INSERT INTO work.feeds (study_id, request_key, artifact, rows, origin, fed_by) "
        f"VALUES ({STUDY}, '{KEY}', 'sha256:' || repeat('0', 64), 1, 'x', 'ann')",
        f"INSERT INTO work.switches (study_id, hash, is_on, reason, switched_by, request_key) "
        f"VALUES ({STUDY}, repeat('h', 32)::bytea, false, 'x', 'ann', '{KEY}')",
        f"INSERT INTO work.candidates (study_id, name, kind) VALUES ({STUDY}, 'mine', 'tree')",
        f"SELECT work.set_study_paused({STUDY}, true)",
    )
    last = ask("SELECT max(id) FROM work.audit")[0][0]
    with doors.tenant.begin() as tx:
        tx.exec_driver_sql("SET LOCAL easeml.actor = 'ann'; SET LOCAL easeml.door = 'page'")
        for sql in said:
            change(tx, sql)
    with doors.scheduler.begin() as tx:
        assert scheduler_requests.apply_changes(tx) == 1
    found = ask("SELECT act, who, door, after ->> 'approved_by' FROM work.audit WHERE id > %s ORDER BY id", last)
    assert len(found) == len(said)
    asker = f"{TENANT} (ann)"
    assert {(who, door) for _, who, door, _ in found} == {(asker, "database")}
    assert {by for *_, by in found} == {None, asker}


def test_a_role_that_was_taken_signs_its_requests(doors: Doors, database: Any, ask: Ask) -> None:
    ((tenant,),) = ask("SELECT tenant_id FROM work.studies WHERE name = 'mallory'")
    own = f"SET LOCAL easeml.person_tenants = '{{{tenant}}}'; SET LOCAL easeml.viewer_tenants = '{{{tenant}}}'; "
    own += "SET LOCAL ROLE easeml_person"
    with database.worker.begin() as tx:
        tx.exec_driver_sql(own)
        signed = scalar(
            tx,
            "INSERT INTO work.requests (request_key, kind, study_id) VALUES ('k@easeml_person', 'refresh', :id) "
            "RETURNING requested_by",
            id=doors.own.study_id,
        )
    assert signed == "easeml_person"


def test_the_next_tenant_of_a_login_finds_nothing_of_the_last(doors: Doors, database: Any, ask: Ask) -> None:
    ask("DELETE FROM work.change_requests")
    filed = "INSERT INTO work.suggestion_requests (request_key, requested, trainers) VALUES (:key, 1, true)"
    with doors.tenant.begin() as tx:
        change(tx, filed, key=KEY)
        scalar(tx, "SELECT work.set_study_paused(:id, true)", id=doors.own.study_id)
    counted = (
        f"SELECT (SELECT count(*) FROM work.change_requests WHERE login = '{TENANT}'), "
        f"(SELECT count(*) FROM work.suggestion_requests WHERE login = '{TENANT}')"
    )
    ((own,),) = ask("SELECT tenant_id FROM work.studies WHERE name = 'mallory'")
    with database.owner.begin() as tx:
        for tenants, left in (([own], (1, 1)), ([1], (0, 0))):
            logins.map_login(tx, TENANT, tenants)
            assert tuple(rows(tx, counted)[0]) == left
    ask(
        f"INSERT INTO work.change_requests (login, study_id, change) VALUES ('{TENANT}', %s, 'pause')",
        doors.own.study_id,
    )
    assert done(doors.tenant, "SELECT 1 FROM work.change_requests") == 0


def test_a_tenant_reads_that_devices_ask_for_all_studies_and_hears_no_names(doors: Doors, database: Any) -> None:
    with database.worker.begin() as tx:
        change(
            tx,
            "INSERT INTO work.offers (implementation, study) SELECT implementation, '' FROM work.candidates "
            "WHERE study_id = :id LIMIT 1",
            id=doors.own.study_id,
        )
    assert done(doors.tenant, "SELECT 1 FROM work.offers WHERE study = ''") == 1
    with contextlib.closing(psycopg2.connect(doors.tenant.dsn)) as listener:
        listener.autocommit = True
        listener.cursor().execute("LISTEN easeml_scheduler")
        with doors.tenant.begin() as tx:
            scalar(tx, "SELECT work.set_study_paused(:id, true)", id=doors.own.study_id)
            scalar(tx, "SELECT work.cancel_trial(:id)", id=doors.own_trial)
        listener.cursor().execute("SELECT 1")
        assert {n.payload for n in listener.notifies} == {""}


# -- nothing waits for a tenant ------------------------------------------------------------------------------------


def test_what_a_tenant_wants_changed_the_scheduler_changes(doors: Doors, ask: Ask) -> None:
    ask("DELETE FROM work.change_requests")
    with doors.tenant.begin() as tx:
        assert scalar(tx, "SELECT work.set_study_paused(:id, true)", id=doors.own.study_id)
        assert scalar(tx, "SELECT work.cancel_trial(:id)", id=doors.own_trial)
    assert ask("SELECT state FROM work.studies WHERE name = 'mallory'") == [("ACTIVE",)]
    with doors.scheduler.begin() as tx:
        assert scheduler_requests.apply_changes(tx) == 2
        assert not scheduler_requests.is_any_open(tx)
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
            assert scheduler_requests.apply_changes(tx) == 1  # of a study's changes the newest alone
            assert scheduler_requests.is_any_open(tx)
    assert ask("SELECT state FROM work.studies WHERE name = 'mallory'") == [("PAUSED",)]
    with doors.scheduler.begin() as tx:
        assert scheduler_requests.apply_changes(tx) == 1
    assert ask("SELECT state, cancel_requested FROM work.trials WHERE id = %s", doors.own_trial) == [("RUNNING", True)]


def test_a_change_that_fails_is_refused_and_the_others_are_made(doors: Doors, ask: Ask) -> None:
    ask("DELETE FROM work.change_requests")
    ask("ALTER TABLE work.studies ADD CONSTRAINT x CHECK (name <> 'mallory' OR state <> 'PAUSED')")
    with doors.tenant.begin() as tx:
        scalar(tx, "SELECT work.set_study_paused(:id, true)", id=doors.own.study_id)
        scalar(tx, "SELECT work.cancel_trial(:id)", id=doors.own_trial)
    with doors.scheduler.begin() as tx:
        tx.exec_driver_sql("SET LOCAL easeml.actor = 'the scheduler'")
        assert scheduler_requests.apply_changes(tx) == 1
        assert not scheduler_requests.is_any_open(tx)
        assert scalar(tx, "SELECT current_setting('easeml.actor')") == "the scheduler"
    scheduler_requests.wait_until_made(doors.tenant, study_id=doors.own.study_id, trial_id=doors.own_trial)
    with pytest.raises(StateError, match="was not made"):
        scheduler_requests.wait_until_made(doors.tenant, study_id=doors.own.study_id)


def test_a_change_whose_row_stays_held_is_given_up_after_an_hour_and_its_caller_learns_it(
    doors: Doors, ask: Ask
) -> None:
    ask("DELETE FROM work.change_requests")
    with doors.tenant.begin() as tx:
        scalar(tx, "SELECT work.cancel_trial(:id)", id=doors.own_trial)
    ask("UPDATE work.change_requests SET filed_at = filed_at - interval '2 hours'")
    with doors.device.begin() as held:
        leases.show(held, claimed(held, doors.own_trial))
        with doors.scheduler.begin() as tx:
            assert scheduler_requests.apply_changes(tx) == 0
    assert ask("SELECT state FROM work.trials WHERE id = %s", doors.own_trial) == [("RUNNING",)]
    with pytest.raises(StateError, match="held its row for an hour"):
        scheduler_requests.wait_until_made(doors.tenant, study_id=doors.own.study_id, trial_id=doors.own_trial)


def test_a_study_is_paused_and_resumed_once_a_second_at_most(doors: Doors, ask: Ask) -> None:
    ask("DELETE FROM work.change_requests")
    for paused, made in ((True, 1), (False, 0)):
        with doors.tenant.begin() as tx:
            scalar(tx, "SELECT work.set_study_paused(:id, :paused)", id=doors.own.study_id, paused=paused)
        ask("UPDATE work.change_requests SET ended_at = ended_at + interval '1 hour'")
        with doors.scheduler.begin() as tx:
            assert scheduler_requests.apply_changes(tx) == made
    ask("UPDATE work.change_requests SET ended_at = ended_at - interval '2 hours'")
    with doors.scheduler.begin() as tx:
        assert scheduler_requests.apply_changes(tx) == 1


def test_no_transaction_of_a_tenant_holds_the_row_of_the_catalogue(doors: Doors, ask: Ask) -> None:
    ask(
        "INSERT INTO work.catalogue_changes SELECT k::text::xid8 FROM generate_series(1, 1200) k ON CONFLICT DO NOTHING"
    )
    with doors.tenant.begin() as held:
        held.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        change(held, f"INSERT INTO work.candidates (study_id, name, kind) VALUES ({STUDY}, 'mine', 'tree')")
        assert ask("SELECT count(*) FROM (SELECT FROM work.catalogue FOR UPDATE SKIP LOCKED) c") == [(1,)]


def test_a_session_that_takes_very_many_locks_or_stays_open_for_long_is_ended(
    doors: Doors, devices: Any, database: Any
) -> None:
    many = "".join(
        f"SAVEPOINT s; INSERT INTO work.candidates (study_id, name, kind) VALUES ({STUDY}, 'c{k}', 'tree'); "
        for k in range(300)
    )
    limits = {"most_locks": 250, "longest_seconds": 600.0}

    def left_open(sql: str, **limits: Any) -> int | None:
        with doors.tenant.begin() as held:
            held.exec_driver_sql(sql)
            with doors.scheduler.begin() as tx:
                ended = logins.end_sessions(tx, **limits)
            scalar(held, "SELECT 1")
        return ended

    assert left_open("SELECT count(*) FROM work.trials", **limits) == 0
    for sql, given in ((many, limits), ("SELECT 1", limits | {"longest_seconds": 0.0})):
        with pytest.raises(StoreUnavailableError):
            left_open(sql, **given)
    assert done(doors.tenant, "SELECT 1") == 1
    assert done(devices[0], "SELECT work.end_sessions(1, 1)") == -1
    elsewhere = Store(doors.device.address_of(DEVICE, database.server.secrets[DEVICE]).replace(database.name, "easeml"))
    with elsewhere.begin(check_schema=False) as held:  # another database of the server: another installation's
        scalar(held, "SELECT 1")
        with doors.scheduler.begin() as tx:
            assert logins.end_sessions(tx, most_locks=0, longest_seconds=0.0) == 0
        assert scalar(held, "SELECT 1") == 1
    elsewhere.close()


def test_the_scheduler_watches_the_sessions_of_logins(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_process, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(scheduler_process, "LONGEST_SECONDS", 0.0)
    stop = threading.Event()
    process = threading.Thread(target=SchedulerProcess(doors.scheduler).run, args=(stop,))
    process.start()
    try:
        with pytest.raises(StoreUnavailableError), doors.tenant.begin() as held:
            scalar(held, "SELECT pg_sleep(60)")
    finally:
        stop.set()
        process.join()


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


def test_what_all_tenants_wait_for_is_bounded(doors: Doors, ask: Ask) -> None:
    many = f"INSERT INTO work.candidates (study_id, name, kind) SELECT {STUDY}, 'c' || k, 'tree' FROM generate_series"
    assert done(doors.tenant, f"{many}(1, 900) k") == 900
    with pytest.raises(StoreError, match="at most 1000 candidates"), doors.tenant.begin() as tx:
        change(tx, f"{many}(1, 1000) k")
    with doors.tenant.begin() as tx:
        leases.show(tx, claimed(tx, doors.own_trial))
        change(tx, "UPDATE work.trials SET progress = jsonb_build_object('note', repeat('x', 1000000))")
    assert ask("SELECT progress FROM work.trials WHERE id = %s", doors.own_trial) == [(None,)]


def test_what_a_tenant_adds_is_bounded_and_the_error_says_how_much_is_allowed(doors: Doors) -> None:
    for most, which, sql in BOUNDED:
        added = f"INSERT INTO work.{sql} FROM work.studies s, generate_series(1, :n) k WHERE s.name = 'mallory'"
        assert done(doors.tenant, added, n=most - 10) == most - 10, sql
        with pytest.raises(StateError, match=f"of at most {most} {which}"), doors.tenant.begin() as tx:
            change(tx, added, n=most + 1)


def test_changes_that_were_not_made_are_bounded(doors: Doors, ask: Ask) -> None:
    ask(
        f"INSERT INTO work.change_requests (login, study_id, trial_id, change) SELECT '{TENANT}', %s, -k, 'cancel' "
        "FROM generate_series(1, 1000) k",
        doors.own.study_id,
    )
    with pytest.raises(StateError, match="of at most 1000"), doors.tenant.begin() as tx:
        scalar(tx, "SELECT work.set_study_paused(:id, true)", id=doors.own.study_id)


def test_the_audit_grows_by_so_many_acts_of_a_login_within_an_hour(doors: Doors, database: Any, ask: Ask) -> None:
    """Refusals that the referee writes count as well, older ones and those of a user of the same name do not."""
    added = "INSERT INTO work.audit (who, door, act, at) SELECT %s, %s, 'candidate added', now() - %s::interval FROM "
    added += "generate_series(1, %s)"
    for who, door, age, many in (
        (f"{TENANT} (ann)", "database", "10 minutes", 9997),
        (TENANT, "database", "2 hours", 10_000),
        (TENANT, "page", "0", 10_000),
    ):
        ask(added, who, door, age, many)
    with doors.tenant.begin() as tx:
        change(tx, f"INSERT INTO work.requests (request_key, kind, study_id) VALUES ('{KEY}', 'refresh', {STUDY})")
    ask("INSERT INTO work.answers (request_id, refused, message) SELECT max(id), true, 'no' FROM work.requests")
    named = f"INSERT INTO work.candidates (study_id, name, kind) VALUES ({STUDY}, :name, 'tree')"
    for name in ("first", "second"):
        with doors.tenant.begin() as tx:
            change(tx, named, name=name)
    for sql in (named, f"SELECT work.set_study_paused({STUDY}, :name = '')", NEW_REQUEST):
        with pytest.raises(StateError, match="of at most 10000 within an hour"), doors.tenant.begin() as tx:
            change(tx, sql, name="third")
    assert done(database.worker, named, name="third") == 1


NEW_REQUEST = f"INSERT INTO work.requests (request_key, kind, study_id) VALUES (:name || '{KEY}', 'refresh', {STUDY})"


def test_bounds_hold_for_all_open_transactions_of_a_login_together(doors: Doors, devices: Any) -> None:
    """The second one waits for the first, and what it counts holds the rows of the first; other logins do not wait."""
    for sql in (
        "INSERT INTO work.data_sets (tenant_id, source) SELECT id, 'csv:' || 'x' FROM work.tenants",
        f"INSERT INTO work.candidates (study_id, name, kind) VALUES ({STUDY}, 'x', 'tree')",
        f"INSERT INTO work.suggestion_requests (request_key, requested, trainers) VALUES ('{KEY}', 1, true)",
        f"SELECT work.set_study_paused({STUDY}, true)",
    ):
        with doors.tenant.begin() as held:
            change(held, sql)
            with pytest.raises(StoreError), doors.tenant.begin() as tx:
                change(tx, "SET LOCAL lock_timeout = '200ms'; " + sql.replace("'x'", "'y'").replace(KEY, f"y{KEY}"))
            filed = "INSERT INTO work.suggestion_requests (request_key, requested, trainers) VALUES (:key, 1, true)"
            for store, key in ((devices[1], f"k@{OTHER}"), (doors.device, "k")):
                assert done(store, f"SET LOCAL lock_timeout = '200ms'; {filed}", key=key) == 1, sql
            held.get_transaction().rollback()


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


def test_a_lease_without_a_login_is_another_ones_while_it_lives(doors: Doors, database: Any) -> None:
    """Of the time before leases had a login: its key can be read."""
    with doors.device.begin() as tx:
        claimed(tx, doors.own_trial, "old")
    with database.owner.begin() as tx:
        change(tx, "UPDATE work.trials SET lease_login = NULL WHERE id = :id", id=doors.own_trial)
    with doors.tenant.begin() as tx:
        by = Executor(trials.get_trial(tx, doors.own_trial).implementation, "test")
        claim = leases.claim_by_token(tx, lease_key="old", trial_id=doors.own_trial, executor=by)
    assert claim.outcome == "held"


def test_a_result_comes_in_the_transaction_that_ends_its_attempt(doors: Doors) -> None:
    """Not in one that began before the end: its now() is earlier."""
    with doors.tenant.begin() as tx:
        token = claimed(tx, doors.own_trial)
    added = "INSERT INTO work.observations (trial_id, quality, cost_seconds) VALUES (:id, 1, 1)"
    ended = "UPDATE work.trials SET state = 'SUCCEEDED', cost_seconds = 1, finished_at = now() WHERE id = :id"
    with doors.tenant.begin() as older:
        leases.show(older, token)
        scalar(older, "SELECT now()")
        with doors.tenant.begin() as tx:
            leases.show(tx, token)
            assert change(tx, ended, id=doors.own_trial) == 1
            with tx.begin_nested():
                change(tx, added.replace("1, 1", ".5, 1"), id=doors.own_trial)
        with pytest.raises(DBAPIError, match="row-level security"), older.begin_nested():
            change(older, added, id=doors.own_trial)


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
def test_the_name_of_a_group_is_no_other_login(
    doors: Doors, devices: tuple[Store, Store], ask: Ask, group: str
) -> None:
    """PostgreSQL 16 refuses it; before, a member can take the group's name, and stays who it is."""
    own, store = (OTHER, devices[1]) if group == DEVICE else (TENANT, doors.tenant)
    options = "SELECT inherit_option, set_option, admin_option FROM pg_auth_members WHERE member = %s::regrole"
    if int(ask("SHOW server_version_num")[0][0]) >= FIRST_WITH_OPTIONS:
        assert done(store, f"SET LOCAL ROLE {group}") == -1
        assert ask(options, own) == [(True, False, False)]
        assert ask(options, "easeml_worker") == [(False, True, False)] * 2
        return
    with store.begin() as tx:
        tx.exec_driver_sql(f"SET LOCAL ROLE {group}")
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
