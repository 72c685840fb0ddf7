"""What goes wrong in the database comes out as an error of ours: what it was, what is allowed, what to do."""

from __future__ import annotations

import contextlib
import math
import pickle
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url

from easeml_core.entities import Executor, StudyState, TrialState
from easeml_core.errors import (
    AlreadyExistsError,
    BudgetExhaustedError,
    ConcurrentUpdateError,
    InvalidInputError,
    NotFoundError,
    StateError,
    StoreError,
    StoreExhaustedError,
    StoreUnavailableError,
    WrongRoleError,
)
from easeml_core.store.database import Store, lock, savepoint
from easeml_core.store.listen import BlockingListener
from easeml_core.store.rows import change, scalar
from easeml_core.store.server.cluster import free_port
from easeml_core.store.tables import leases, model_life, models, sealed, studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "open-sesame"


def test_a_database_that_is_not_there_is_named_without_its_password() -> None:
    store = Store(f"postgresql://easeml_worker:{SECRET}@127.0.0.1:{free_port()}/easeml")
    with pytest.raises(StoreUnavailableError, match=r"cannot be reached .*refused.* start it with `make up`") as caught:
        store.begin().__enter__()
    assert "easeml_worker:***@127.0.0.1" in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(store)


@pytest.mark.parametrize("odd", ["a\0b", "\ud800"])
def test_text_that_no_database_keeps_is_refused_and_a_callers_error_stays(store: Store, odd: str) -> None:
    with pytest.raises(InvalidInputError, match="neither the character NUL nor half of one"), store.begin() as tx:
        scalar(tx, "SELECT CAST(:value AS text)", value=odd)
    with pytest.raises(ValueError, match="mine"), store.begin():
        raise ValueError("mine")


def test_a_wrong_password_is_distinguished_from_a_wrong_database(server: Any) -> None:
    right = make_url(server.url("easeml_worker", "easeml"))
    for url, said in (
        (right.set(password=SECRET), "refuses the login .*authentication failed.*correct the password"),
        (right.set(database="nowhere"), "cannot be reached .*correct the address"),
    ):
        with pytest.raises(StoreUnavailableError, match=said):
            Store(url.render_as_string(hide_password=False)).begin().__enter__()


@pytest.mark.parametrize("word", ["SAVEPOINT", "ROLLBACK TO SAVEPOINT", "RELEASE SAVEPOINT"])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [("40P01", ConcurrentUpdateError), ("53100", StoreExhaustedError), ("gone", StoreUnavailableError)],
)
def test_a_fault_at_a_savepoint_is_an_error_of_ours(database: Any, word: str, fault: str, expected: type) -> None:
    store = Store(database.url("easeml_worker"))

    def inject(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:
        if not statement.startswith(word):
            return statement, parameters
        if fault == "gone":
            return "SELECT pg_terminate_backend(pg_backend_pid())", {}
        return f"DO $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = '{fault}'; END $$", {}

    seen: list[type] = []  # where callers decide what becomes of the work
    left: list[Any] = []

    def work() -> None:
        with store.begin() as tx:
            try:
                with savepoint(tx):
                    if word.startswith("ROLLBACK"):
                        message = "what is undone"
                        raise ValueError(message)
            except Exception as error:
                seen.append(type(error))
                left.append(tx.get_nested_transaction())
                raise

    event.listen(store._engine, "before_cursor_execute", inject, retval=True)
    with contextlib.closing(store), pytest.raises(expected):
        work()
    assert (seen, left) == ([expected], [None])


@pytest.mark.parametrize(
    ("role", "needs", "words"),
    [
        (
            "easeml_referee",
            "easeml_worker",
            "selection_settings; Airflow's connection 'x' .*the role easeml_worker is",
        ),
        ("easeml_referee", None, "for table selection_settings; .*docs/security.md lists the rights"),
        ("airflow", "easeml_worker", "for database \"test_.* logs in as 'airflow'; the role easeml_worker is needed"),
    ],
)
def test_a_wrong_role_is_named_with_its_source_and_the_role_that_is_needed(
    database: Any, role: str, needs: str | None, words: str
) -> None:
    store = Store(database.url(role), needs=needs, source="Airflow's connection 'x'")
    for place in (contextlib.nullcontext, savepoint):
        with (
            pytest.raises(WrongRoleError, match=words) as caught,
            store.begin(check_schema=False) as tx,
            place(tx) if place is savepoint else contextlib.nullcontext(),
        ):
            scalar(tx, "SELECT count(*) FROM work.selection_settings")
        error = caught.value
        assert (error.role, error.needed, error.source) == (role, needs, "Airflow's connection 'x'")
        assert database.server.secrets[role] not in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    store.close()


def test_a_role_that_may_not_connect_does_not_wait_for_news(database: Any) -> None:
    dsn = Store(database.url("airflow")).dsn
    with pytest.raises(WrongRoleError, match="permission denied for database"):
        BlockingListener(dsn, "easeml").__enter__()


def test_the_right_role_without_its_rights_is_sent_to_the_upgrade(database: Any, ask: Any) -> None:
    with database.owner.begin() as tx:
        change(tx, "REVOKE SELECT ON work.selection_settings FROM easeml_worker")
    store = Store(database.url("easeml_worker"), needs="easeml_worker")
    lacking = pytest.raises(WrongRoleError, match="lacks a right that this version expects: run `easeml db upgrade`")
    with lacking, store.begin() as tx:
        scalar(tx, "SELECT count(*) FROM work.selection_settings")
    store.close()


@pytest.mark.parametrize("address", ["", "easeml", "postgresql//x", "http:/"])
def test_an_address_must_be_one(address: str) -> None:
    with pytest.raises(InvalidInputError, match=r"must look like postgresql\+psycopg2://role:password@host"):
        Store(address)


def test_the_listener_gets_the_same_address_whatever_is_in_the_password(database: Any) -> None:
    with closing(psycopg2.connect(database.worker.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_database()")
        assert cursor.fetchone() == ("easeml_worker", database.name)
    odd = "postgresql://role:p%40ss%2F%3Aw%25rd@127.0.0.1:1/easeml"
    assert psycopg2.extensions.parse_dsn(Store(odd).dsn)["password"] == "p@ss/:w%rd"


def add_trial(tx: Any, world: Any) -> None:
    ids = {"study_id": world.study.study_id, "data_version_id": world.study.version_id}
    trials.add_trial(tx, candidate_id=world.study.candidates[0], **ids)


def finish(tx: Any, world: Any, cost: float | None) -> None:
    ended = {"trial_id": world.running, "attempt": 1, "state": TrialState.SUCCEEDED}
    leases.finish_trial(tx, cost_seconds=cost, **ended)


def finish_and_observe(tx: Any, world: Any, quality: float, cost: float = 1.0) -> None:
    finish(tx, world, 1.0)
    models.add_observation(tx, trial_id=world.running, quality=quality, cost_seconds=cost)


def start_again(tx: Any, world: Any) -> None:
    leases.start_trial(
        tx, trial_id=world.done, lease_key="again", lease_seconds=60, executor=Executor("trainer:tree", "test")
    )


def add_candidate(tx: Any, world: Any, value: object) -> None:
    studies.add_candidates(tx, world.study.study_id, [{"name": "odd", "kind": "tree", "parameters": {"c": value}}])


def new_study(tx: Any, world: Any, **changes: Any) -> None:
    row = {"name": "new", "metric": "accuracy", "weight": 1.0, "budget_seconds": None, "request_key": "new"}
    tenant_id = studies.add_tenant(tx, name="lab")
    data_set_id = studies.add_data_set(tx, tenant_id=tenant_id, source="csv:cancer", target="label")
    studies.add_study(tx, tenant_id=tenant_id, data_set_id=data_set_id, config={}, **row | changes)


NAME_RULE = "must be 1 to 63 of a-z, 0-9, '_', '.' and '-', the first a letter or digit, got "
WORKERS_FAULTS = [
    (lambda tx, w: new_study(tx, w, name="cancer"), AlreadyExistsError, "study 'cancer' already exists; choose"),
    (lambda tx, w: new_study(tx, w, name="My Study"), InvalidInputError, f"a study's name {NAME_RULE}'My Study'"),
    (lambda tx, w: new_study(tx, w, weight=-2.0), InvalidInputError, "weight must be >= 1e-6 and <= 1e6, got"),
    (lambda tx, w: new_study(tx, w, weight=1e308), InvalidInputError, r"weight must be >= 1e-6 .* got 1e\+308"),
    (lambda tx, w: studies.add_tenant(tx, name="b", weight=1e308), InvalidInputError, r"1e-6 and <= 1e6, got 1e\+308"),
    (lambda tx, w: studies.add_tenant(tx, name="A b"), InvalidInputError, f"a tenant's name {NAME_RULE}'A b'"),
    (lambda tx, w: studies.add_tenant(tx, name="b", weight=math.nan), InvalidInputError, "weight .* 1e6, got nan"),
    (lambda tx, w: studies.get_study(tx, "cancr"), NotFoundError, "there is no study 'cancr'; known: 'cancer'; regis"),
    (add_trial, AlreadyExistsError, "no candidate runs twice"),
    (lambda tx, w: trials.get_trial(tx, 99), NotFoundError, "there is no trial 99; list them with `easeml study show"),
    (lambda tx, w: finish_and_observe(tx, w, math.nan), InvalidInputError, r"a number in \[0, 1\], .* got nan"),
    (lambda tx, w: finish_and_observe(tx, w, 1.5), InvalidInputError, r"a number in \[0, 1\], .* got 1.5"),
    (lambda tx, w: finish_and_observe(tx, w, 1, -3.0), InvalidInputError, "cost_seconds must be > 0 and .* got -3.0"),
    (lambda tx, w: finish(tx, w, -3.0), InvalidInputError, "cost_seconds must be > 0 and <= 1e9, got -3.0"),
    (lambda tx, w: finish(tx, w, 1e308), InvalidInputError, r"cost_seconds must be > 0 and <= 1e9, got 1e\+308"),
    (lambda tx, w: finish_and_observe(tx, w, 1, 1e308), InvalidInputError, r"<= 1e9, got 1e\+308"),
    (lambda tx, w: finish(tx, w, math.inf), InvalidInputError, "cost_seconds must be > 0 and <= 1e9, got inf"),
    (start_again, StateError, r"trial 1 cannot go from SUCCEEDED .* to RUNNING .*; states only move forward, start"),
    (lambda tx, w: add_candidate(tx, w, 10**4200), InvalidInputError, "of candidate 'odd' must be a mapping of at"),
    (lambda tx, w: models.get_model(tx, 1, 77), NotFoundError, "no model of this study with id 77; known: '1', '2'"),
]  # fmt: skip


def test_every_fault_of_the_worker_is_explained(world: Any, store: Any) -> None:
    for fault, kind, words in WORKERS_FAULTS:
        with pytest.raises(kind, match=words), store.begin() as tx:
            fault(tx, world)


def spend(tx: Any, world: Any, step: int) -> None:
    values = {"answer": "pass", "log_level": -1.0, "log_cost": 0.0, "tolerance": None, "report": {}, "system": "gate"}
    request_id = world.requests["promote"]
    sealed.add_entry(
        tx, test_set_id=world.gate_set, step=step, steps=3, request_id=request_id, cache_key="other", **values
    )


def test_a_set_that_has_served_says_how_often(world: Any, database: Any) -> None:
    served = pytest.raises(BudgetExhaustedError, match="steps of the sealed set: 3 of 3 used; the referee must seal")
    with served as caught, database.referee.begin() as tx:
        spend(tx, world, 4)
    assert (caught.value.used, caught.value.allowed) == (3, 3)


def test_a_system_that_has_used_its_part_of_a_shared_set_says_how_often(world: Any, database: Any) -> None:
    values = {"answer": "pass", "log_level": -1.0, "log_cost": 0.0, "tolerance": None, "report": {}, "steps": 3}
    counted = {"step": 2, "system": "gate", "system_step": 2, "system_steps": 1}
    asked = {"test_set_id": world.gate_set, "request_id": world.requests["promote"], "cache_key": "other"}
    served = pytest.raises(BudgetExhaustedError, match="gate steps of the sealed set: 1 of 1 used; the referee must")
    with served, database.referee.begin() as tx:
        sealed.add_entry(tx, **values, **counted, **asked)


@pytest.mark.parametrize(
    ("first", "second", "system"),
    [("joint", "gate", "gate"), ("joint", "meter", "meter"), ("gate", "joint", "gate"), ("meter", "joint", "meter")],
)
def test_one_live_set_serves_a_system(
    make_rows: Any, seal: Callable[..., int], first: str, second: str, system: str
) -> None:
    study = make_rows()
    seal(study, first)
    seal(study, "direct", start=900)  # the second meter's set blocks no other set
    with pytest.raises(AlreadyExistsError, match=f"live sealed set of this study for the {system} 1 already exists"):
        seal(study, second, start=500)


def test_there_is_one_live_set_for_the_second_meter(make_rows: Any, seal: Callable[..., int]) -> None:
    study = make_rows()
    seal(study, "direct")
    with pytest.raises(AlreadyExistsError, match="live sealed set of this study for the second meter 1 already exists"):
        seal(study, "direct", start=500)


def test_a_promotion_without_a_recorded_pass_is_refused(world: Any, database: Any, file: Callable[..., int]) -> None:
    gate, promote = (file(world.study, kind, world.model_id, key=f"{kind}2") for kind in ("gate", "promote"))
    of_model = {"study_id": world.study.study_id, "model_id": world.model_id}
    unjudged = pytest.raises(StateError, match=f"no recorded pass of this model, got {world.model_id}; ask the gate")
    with unjudged, database.referee.begin() as tx:
        model_life.add_promotion(tx, request_id=promote, gate_request_id=gate, **of_model)


@pytest.mark.parametrize(
    ("purpose", "start", "words"),
    [
        ("gate", 500, "live sealed set of this study for the gate 1 already exists; retire it before"),
        ("meter", 0, "gate and meter need disjoint sets"),
    ],
)
def test_a_second_seal_says_what_is_in_the_way(
    database: Any, make_rows: Any, seal: Callable[..., int], purpose: str, start: float, words: str
) -> None:
    study = make_rows()
    seal(study, "gate")
    with pytest.raises(AlreadyExistsError, match=words):
        seal(study, purpose, start=start)


def test_sets_of_a_study_may_not_share_a_single_example(make_rows: Any, seal: Callable[..., int]) -> None:
    study = make_rows()
    seal(study, "gate", examples=5)
    with pytest.raises(AlreadyExistsError, match="'with some of these examples' already exists; gate and meter need"):
        seal(study, "meter", start=8, examples=5)  # its first example is the fifth of the other
    assert seal(study, "meter", start=10, examples=5)


def test_an_unforeseen_refusal_shows_the_rule_and_no_values(store: Any) -> None:
    refused = pytest.raises(StoreError, match=r"refuses this, and nothing was written: insert or update on .*fkey")
    with refused as caught, store.begin() as tx:
        studies.add_candidates(tx, 4711, [{"name": SECRET, "kind": "tree"}])
    assert type(caught.value) is StoreError
    assert SECRET not in str(caught.value) + str(caught.value.__cause__)


def test_a_missing_value_names_its_column(store: Any) -> None:
    missing = pytest.raises(StoreError, match='null value in column "source" of relation "data_sets"')
    with missing, store.begin() as tx:
        change(tx, "INSERT INTO work.data_sets (tenant_id, source) VALUES (1, NULL)")


def fail_after_a_good_one(tx: Any) -> None:
    studies.add_tenant(tx, name="good")
    studies.add_tenant(tx, name="Bad")


def stumble_after_a_good_one(tx: Any) -> None:
    studies.add_tenant(tx, name="good")
    message = "any error of the caller"
    raise ZeroDivisionError(message)


FAILURES = [(fail_after_a_good_one, InvalidInputError), (stumble_after_a_good_one, ZeroDivisionError)]


@pytest.mark.parametrize(("fail", "kind"), FAILURES)
def test_nothing_of_a_failed_transaction_stays(store: Any, fail: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind), store.begin() as tx:
        fail(tx)
    with store.begin() as tx:
        assert scalar(tx, "SELECT count(*) FROM work.tenants") == 0


@pytest.mark.parametrize(("fail", "kind"), FAILURES)
def test_a_savepoint_is_undone_alone(store: Any, fail: Any, kind: type[Exception]) -> None:
    with store.begin() as tx:
        studies.add_tenant(tx, name="before")
        with pytest.raises(kind), savepoint(tx):
            fail(tx)
        with savepoint(tx):
            studies.add_tenant(tx, name="kept")
    with store.begin() as tx:
        assert scalar(tx, "SELECT string_agg(name, ' ' ORDER BY name) FROM work.tenants") == "before kept"


def test_an_error_that_ends_the_transaction_is_not_undone_alone_before(store: Any) -> None:
    undone: list[int] = []

    def note(*_: Any) -> None:
        undone.append(1)

    event.listen(store._engine, "rollback_savepoint", note)
    try:
        for ending in ((ZeroDivisionError,), ()):
            with pytest.raises(ZeroDivisionError), store.begin() as tx, savepoint(tx, ending=ending):
                stumble_after_a_good_one(tx)
            assert len(undone) == (not ending)
    finally:
        event.remove(store._engine, "rollback_savepoint", note)


def test_transactions_that_wait_for_each_other_may_try_again(database: Any) -> None:
    meet = Barrier(2)

    def cross(names: tuple[str, str]) -> str:
        try:
            with database.worker.begin() as tx:
                lock(tx, names[0])
                meet.wait()
                lock(tx, names[1])
        except ConcurrentUpdateError as error:
            return str(error)
        return "done"

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(cross, [("a", "b"), ("b", "a")]))
    assert said == ["another transaction was in the way; try again", "done"]


def test_a_lock_that_is_not_given_in_time_may_be_tried_again(database: Any, world: Any) -> None:
    with database.worker.begin() as holder:
        trials.get_trial(holder, world.waiting, lock=True)
        again = pytest.raises(ConcurrentUpdateError, match="try again")
        with again, database.worker.begin() as tx:
            change(tx, "SET LOCAL lock_timeout = '20ms'")
            trials.get_trial(tx, world.waiting, lock=True)


def test_waiting_for_a_lock_ends_at_the_stores_limit(database: Any, world: Any) -> None:
    """A role that may lock a row of a study must not make the referee wait for ever."""
    impatient = Store(database.url("easeml_referee"), lock_timeout_seconds=0.05, statement_timeout_seconds=5)
    with database.worker.begin() as holder:
        change(holder, "SELECT 1 FROM work.studies FOR UPDATE")
        again = pytest.raises(ConcurrentUpdateError, match="another transaction was in the way; try again")
        with again, impatient.begin() as tx:
            studies.set_study_state(tx, world.study.study_id, StudyState.PAUSED)
    with impatient.begin() as tx:
        assert scalar(tx, "SHOW lock_timeout") == "50ms"
        studies.set_study_state(tx, world.study.study_id, StudyState.PAUSED)
    impatient.close()


def test_a_slow_statement_ends_at_the_stores_limit(database: Any) -> None:
    store = Store(database.url("easeml_worker"), statement_timeout_seconds=0.05)
    slow = pytest.raises(
        StoreExhaustedError, match=r"cannot do this now \(canceling statement due to statement timeout\)"
    )
    with slow, store.begin() as tx:
        scalar(tx, "SELECT pg_sleep(5)")
    store.close()


def lose_connection(tx: Any, ask: Any) -> None:
    ask("SELECT pg_terminate_backend(%s)", scalar(tx, "SELECT pg_backend_pid()"))
    scalar(tx, "SELECT 1")


def test_a_killed_connection_is_unavailable_once_and_replaced(database: Any, ask: Any) -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be reached"), database.worker.begin() as tx:
        lose_connection(tx, ask)
    with database.worker.begin() as tx:
        assert scalar(tx, "SELECT 1") == 1
    ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'easeml_worker' AND state = 'idle'")
    with database.worker.begin() as tx:
        assert scalar(tx, "SELECT 1") == 1


def test_a_connection_killed_inside_a_savepoint_is_unavailable_too(database: Any, ask: Any) -> None:
    unavailable = pytest.raises(StoreUnavailableError, match="cannot be reached")
    with unavailable, database.worker.begin() as tx, savepoint(tx):
        lose_connection(tx, ask)


def test_too_many_at_once_in_one_process_may_try_again(database: Any) -> None:
    store = Store(database.url("easeml_worker"))
    store._engine.pool._timeout = 0.05
    open_ones = [store.begin() for _ in range(10)]
    for transaction in open_ones:
        transaction.__enter__()
    with pytest.raises(StoreUnavailableError, match=r"every connection of this process .* is in use; try again"):
        store.begin().__enter__()
    for transaction in open_ones:
        transaction.__exit__(None, None, None)
    store.close()


@pytest.mark.own_database  # a role's settings apply to a new connection
def test_times_come_in_utc(store: Any, ask: Any) -> None:
    ask("ALTER ROLE easeml_worker SET timezone = 'America/New_York'")
    with store.begin() as tx:
        assert scalar(tx, "SELECT now()").utcoffset().total_seconds() == 0
    ask("ALTER ROLE easeml_worker RESET timezone")


FAULTS = {
    StoreExhaustedError: ("53100", "53200", "57014", "58030", "25006"),
    StoreUnavailableError: ("57P03", "53300", "08006"),
    ConcurrentUpdateError: ("40001", "55P03"),
    StoreError: ("XX000",),
}


def test_what_the_server_lacks_is_distinguished_from_what_it_refuses(store: Any) -> None:
    for kind, sqlstate in ((kind, sqlstate) for kind, states in FAULTS.items() for sqlstate in states):
        said = f"DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '{sqlstate}'; END $$"
        with pytest.raises(StoreError) as caught, store.begin() as tx:
            tx.execute(text(said))
        assert type(caught.value) is kind, sqlstate
        if kind is StoreExhaustedError:
            assert "cannot do this now (no room)" in str(caught.value)
            assert "easeml_worker:***@" in str(caught.value)
