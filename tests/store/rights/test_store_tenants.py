"""What a tenant's login, a device and the scheduler can do with the rows of others: by the catalogue, and by attack."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import DBAPIError

from easeml_core.entities import Executor
from easeml_core.services.selection.retry import retry_all
from easeml_core.services.trials.lease import claim
from easeml_core.store import archive, callers, logins
from easeml_core.store.database import Store
from easeml_core.store.grants import KINDS
from easeml_core.store.rows import change, row, scalar
from easeml_core.store.tables import leases, models, scheduler_requests, trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[..., list[tuple[Any, ...]]]

pytestmark = pytest.mark.own_database  # its settings and locks end with it

TENANT, DEVICE, SCHEDULER = "easeml_t_mallory", "easeml_device", "easeml_scheduler"
KEY = f"dag/run/task/-1@{TENANT}"


@dataclass
class Doors:
    """A database with a victim, whose rows are in every table, and a tenant who has an active study."""

    victim: Any
    own: Any
    own_trial: int
    tenant: Store
    device: Store
    scheduler: Store

    def of(self, login: str) -> Store:
        return {TENANT: self.tenant, DEVICE: self.device, SCHEDULER: self.scheduler}[login]


@pytest.fixture
def doors(database: Any, beside_a_world: Any, ask: Ask) -> Iterator[Doors]:
    ask("UPDATE work.trials SET lease_until = now() + interval '60 s', beat_at = now() WHERE state = 'RUNNING'")
    ask(f"DROP ROLE IF EXISTS {TENANT}")
    administrator = Store(database.url("postgres"))
    with administrator.begin() as tx:
        logins.run(tx, logins.statements(tx, TENANT, "secret"))
        logins.map_login(tx, TENANT, [scalar(tx, "SELECT id FROM work.tenants WHERE name = 'mallory'")])
    stores = [
        Store(database.owner.address_of(TENANT, "secret")),
        *(Store(database.url(role)) for role in (DEVICE, SCHEDULER)),
    ]
    rows = beside_a_world
    yield Doors(rows.victim, rows.own, rows.own_trial, *stores)
    for store in (*stores, administrator):
        store.close()


def done(store: Store, sql: str, **values: Any) -> int:
    """Rows that a statement has touched, or -1 where the role may not do it; what it did is undone."""
    with contextlib.suppress(_Undo), store.begin() as tx:
        try:
            count = change(tx, sql, **values)
        except Exception as error:
            if getattr(getattr(error, "orig", None), "pgcode", "") == "42501":
                return -1
            raise
        raise _Undo(count) from None
    return _last[0]


_last = [0]


class _Undo(Exception):
    def __init__(self, count: int) -> None:
        super().__init__()
        _last[0] = count


# -- by the catalogue ----------------------------------------------------------------------------------------------

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'work' ORDER BY 1"
_HOLDERS = """
SELECT count(*) FROM pg_policies p WHERE p.schemaname = 'work' AND p.tablename = %s AND 'easeml_tenant' = ANY (p.roles)
"""
OPEN = {"alembic_version", "artifact_store", "heartbeats", "restarts", "scheduler_beats", "selection_settings"}
"""Tables of the installation, in which no row is a tenant's."""


def test_every_table_has_row_security_and_is_closed_unless_it_is_named(doors: Doors, ask: Ask) -> None:
    secured = "SELECT relname FROM pg_class WHERE relnamespace = 'work'::regnamespace AND relkind = 'r' "
    assert ask(secured + "AND NOT relrowsecurity") == []
    tables = {table for (table,) in ask(_TABLES)}
    for role, access in KINDS.items():
        assert set(access) <= tables
        for table in tables:
            for verb in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"):
                asked = "SELECT has_table_privilege(%s, %s, %s)"
                if verb in ("SELECT", "INSERT", "UPDATE", "REFERENCES"):
                    asked = "SELECT has_any_column_privilege(%s, %s, %s)"
                known = access.get(table)
                may = known is not None and {
                    "SELECT": True,
                    "INSERT": known.adds,
                    "UPDATE": known.changes,
                    "DELETE": known.deletes,
                }.get(verb)
                assert ask(asked, role, f"work.{table}", verb) == [(bool(may),)], (role, table, verb)
            assert ask("SELECT count(*) FROM pg_policies WHERE tablename = %s AND %s = ANY (roles)", table, role) == [
                (0 if known is None else 1 + bool(known.adds) + bool(known.changes) + known.deletes,)
            ]


CALLED = {
    "my_tenants": {TENANT, DEVICE, "easeml_viewer", "easeml_person"},
    "my_changes": {"easeml_person"},
    "rival_of": {TENANT, DEVICE, SCHEDULER, "easeml_worker", "easeml_referee", "easeml_viewer", "easeml_person"},
    "apply_changes": {SCHEDULER},
    "end_sessions": {SCHEDULER},
    "claim_trial": {TENANT, DEVICE},
    "cancel_trial": {TENANT, "easeml_person"},
    "announce_device": {TENANT, DEVICE, "easeml_worker"},
    "set_study_paused": {TENANT, "easeml_person"},
    "change_study": {TENANT, "easeml_worker", "easeml_referee", "easeml_person"},
    "set_candidate_withdrawn": {TENANT, "easeml_worker", "easeml_referee", "easeml_person"},
    "change_tenant": {"easeml_worker"},
    "forget_curves": {"easeml_referee"},
    **{name: set[str]() for name in ("await_turn", "file_change", "may_change", "note", "require_audit_room")},
    **{name: set[str]() for name in ("archive_now", "delete_now", "delete_tenant_now")},
}
"""Functions with their owner's rights, and ``note``, which those call: who else may call them."""


def test_a_function_with_its_owners_rights_is_called_by_those_who_need_it_alone(doors: Doors, ask: Ask) -> None:
    """A trigger's function cannot be called."""
    found = ask(
        "SELECT p.proname, ARRAY (SELECT rolname::text FROM pg_roles r WHERE has_function_privilege(r.oid, p.oid, "
        "'EXECUTE') AND NOT r.rolsuper AND NOT pg_has_role(r.oid, 'easeml_owner', 'USAGE') AND starts_with(r.rolname, "
        "'easeml_') AND r.rolname NOT IN ('easeml_tenant') AND NOT starts_with(r.rolname, 'easeml_d_')) FROM pg_proc p "
        "WHERE p.pronamespace = 'work'::regnamespace AND (p.prosecdef OR p.proname = 'note') "
        "AND p.prorettype <> 'trigger'::regtype"
    )
    logins = {TENANT, DEVICE, SCHEDULER, "easeml_worker", "easeml_referee", "easeml_viewer", "easeml_person"}
    assert {name: logins.intersection(roles) for name, roles in found} == CALLED


def test_the_pages_add_nothing_while_they_look_and_change_what_the_person_may(
    doors: Doors, database: Any, ask: Ask
) -> None:
    """A person may see more than they may change."""
    ((own,),) = ask("SELECT tenant_id FROM work.studies WHERE name = 'mallory'")

    def done_for(reach: callers.Reach, sql: str, study: int) -> int:
        with callers.reaching(reach):
            return done(database.worker, sql, id=study)

    key = "'k@easeml_person'"
    filed = (
        "INSERT INTO work.candidates (study_id, name, kind) VALUES (:id, 'mine', 'tree')",
        f"INSERT INTO work.requests (request_key, kind, study_id) VALUES ({key}, 'refresh', :id)",
        f"INSERT INTO work.switches (study_id, hash, is_on, reason, switched_by, request_key) VALUES (:id, "
        f"repeat('h', 32)::bytea, false, 'x', 'ann', {key})",
    )
    paused = "SELECT 1 WHERE work.set_study_paused(:id, true)"
    looks, changes = callers.Reach((1, own)), callers.Reach((1, own), (own,))
    for sql in filed:
        assert done_for(looks, sql.replace("easeml_person", "easeml_viewer"), doors.own.study_id) == -1
        assert done_for(changes, sql, doors.own.study_id) == 1, sql
        assert done_for(changes, sql, doors.victim.study.study_id) == -1
        assert done_for(changes, "SELECT 1 FROM work.studies WHERE id = :id", doors.victim.study.study_id) == 1
    assert done_for(looks, paused, doors.own.study_id) == -1
    assert done_for(changes, paused, doors.victim.study.study_id) == 0
    assert done_for(changes, paused, doors.own.study_id) == 1
    for sql in ("UPDATE work.studies SET weight = 9", "SELECT 1 FROM work.trials FOR UPDATE"):
        assert done_for(changes, sql, doors.own.study_id) == -1


def test_a_tenant_reads_no_row_of_another_in_any_table(doors: Doors, ask: Ask) -> None:
    """All rows but those of the tenant itself are the victim's: so that no table is empty, and each count is exact."""
    foreign = {}
    for (table,) in ask(_TABLES):
        (everything,) = ask(f"SELECT count(*) FROM work.{table}")[0]
        assert everything > 0, f"no row in {table} to look for"
        seen = done(doors.tenant, f"SELECT 1 FROM work.{table}")
        if table not in OPEN and seen > 0:
            foreign[table] = everything - seen
    own = {"audit", "candidates", "data_parts", "data_sets", "data_versions", "models", "studies", "tenants", "trials"}
    own.add("study_changes")
    assert set(foreign) == own
    assert min(foreign.values()) > 0
    assert done(doors.tenant, "SELECT 1 FROM work.studies") == 1
    assert done(doors.tenant, "SELECT 1 FROM work.trials") == 1


def test_no_login_changes_or_locks_a_row_that_it_was_not_granted(doors: Doors, ask: Ask) -> None:
    columns = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'work' AND table_name = %s"
    for (table,) in ask(_TABLES):
        names = [name for (name,) in ask(columns + " AND is_generated = 'NEVER' AND is_identity = 'NO'", table)]
        for login in (TENANT, DEVICE):
            store = doors.of(login)
            assert done(store, f"DELETE FROM work.{table}") == -1
            for strength in ("UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"):
                held = done(store, f"SELECT 1 FROM work.{table} FOR {strength}")
                assert held == (0 if table == "trials" else -1), (login, table, strength)
            for name in names:
                changed = done(store, f'UPDATE work.{table} SET "{name}" = "{name}"')
                assert changed <= 0, (login, table, name)


# -- by attack -----------------------------------------------------------------------------------------------------

STUDY, VICTIM = "(SELECT id FROM work.studies WHERE name = 'mallory')", "1"
NEW_STUDY = (
    "INSERT INTO work.studies (name, tenant_id, data_set_id, metric, config, request_key{more}) "
    "SELECT 'more', tenant_id, data_set_id, metric, config, '{key}'{values} FROM work.studies WHERE name = 'mallory'"
)
ATTACKS = (
    # What the issue names.
    "INSERT INTO work.observations (trial_id, quality, cost_seconds) SELECT id, .999, 1 FROM generate_series(1, 9) id",
    "INSERT INTO work.trials (study_id, candidate_id, data_version_id) VALUES (1, 1, 1)",
    "INSERT INTO work.trials (study_id, candidate_id, data_version_id) "
    "SELECT study_id, candidate_id + 1, data_version_id FROM work.trials",
    "UPDATE work.studies SET weight = 1e6",
    "UPDATE work.studies SET state = 'PAUSED'",
    "UPDATE work.studies SET deadline = now()",
    "UPDATE work.tenants SET weight = 1e6",
    "UPDATE work.tenants SET quota_seconds = NULL",
    "UPDATE work.tenants SET max_parallel = 1000",
    "SELECT 1 FROM work.studies FOR UPDATE",
    "SELECT 1 FROM work.tenants FOR KEY SHARE",
    # Devices are shared out by the provider.
    NEW_STUDY.format(key=KEY, more=", weight", values=", 1e6"),
    NEW_STUDY.format(key=KEY, more=", priority", values=", 1"),
    NEW_STUDY.format(key=KEY, more=", deadline", values=", now()"),
    "INSERT INTO work.tenants (name) VALUES ('mallory-2')",
    "INSERT INTO work.data_sets (tenant_id, source) VALUES (1, 'csv:stolen.csv')",
    f"INSERT INTO work.studies (name, tenant_id, data_set_id, metric, config, request_key) "
    f"VALUES ('theirs', 1, 1, 'accuracy', '{{}}', '{KEY}')",
    # Rows of the victim's study.
    "INSERT INTO work.candidates (study_id, name, kind) VALUES (1, 'mine', 'tree')",
    f"INSERT INTO work.requests (request_key, kind, study_id, model_id) VALUES ('{KEY}', 'gate', 1, 1)",
    f"INSERT INTO work.requests (request_key, kind, study_id, model_id) VALUES ('{KEY}', 'rollback', 1, 1)",
    f"INSERT INTO work.feeds (study_id, request_key, artifact, rows, origin, fed_by) "
    f"VALUES (1, '{KEY}', 'sha256:' || repeat('0', 64), 1, 'x', 'x')",
    f"INSERT INTO work.switches (study_id, hash, is_on, reason, switched_by, request_key) "
    f"VALUES (1, repeat('h', 32)::bytea, false, 'x', 'ann', '{KEY}')",
    "INSERT INTO work.models (study_id, data_version_id, format, artifact, validation_loss, submitted) "
    "VALUES (1, 1, 'skops', 'sha256:' || repeat('0', 64), 0, true)",
    f"INSERT INTO work.submissions (study_id, model_id, kind, message, request_key) "
    f"VALUES (1, 1, 'artifact', 'x', '{KEY}')",
    "INSERT INTO work.curves (trial_id, step, quality, seconds) SELECT id, 9999, 1, 1 FROM generate_series(1, 9) id",
    'INSERT INTO work.rungs (trial_id, rung, step, "of", quality, known, rule, goes_on) '
    "SELECT id, 9, 1, 9, 1, 0, 'median', true FROM generate_series(1, 9) id",
    "INSERT INTO work.predictions (model_id, part, labels) SELECT id, 'validation', 'x' FROM generate_series(1, 9) id",
    # Rows of its studies that only the scheduler, the referee or a lease gives.
    "INSERT INTO work.models (study_id, data_version_id, format, artifact, validation_loss) SELECT study_id, id, "
    "'constant', 'sha256:' || repeat('0', 64), 0 FROM work.data_versions",
    "INSERT INTO work.models (study_id, data_version_id, trial_id, format, artifact, validation_loss) SELECT study_id, "
    "data_version_id, id, 'skops', 'sha256:' || repeat('0', 64), 0 FROM work.trials",
    "INSERT INTO work.observations (trial_id, quality, cost_seconds) SELECT id, 1, 1 FROM work.trials",
    "INSERT INTO work.curves (trial_id, step, quality, seconds) SELECT id, 1, 1, 1 FROM work.trials",
    "INSERT INTO work.suggestion_batches (request_key, policy, requested) VALUES ('k', 'default', 1)",
    "INSERT INTO work.suggestions (batch_id, position, trial_id, reasons) SELECT 1, 9, id, '{}' FROM work.trials",
    "INSERT INTO work.data_versions (study_id, data_set_id, version, content_hash, artifact, features, class_names) "
    "SELECT id, data_set_id, 9, 'x', 'sha256:' || repeat('0', 64), 1, '[]' FROM work.studies",
    "INSERT INTO work.answers (request_id, refused, message) VALUES (1, false, 'pass')",
    "INSERT INTO work.assessments SELECT * FROM work.assessments",
    "INSERT INTO work.audit (who, door, act) VALUES ('ann', 'page', 'promoted')",
    "INSERT INTO work.offers (implementation, study) VALUES ('x', 'cancer')",
    "INSERT INTO work.artifact_store (store_id, place) VALUES (repeat('0', 32), '/tmp')",
    # Keys that another login's task will use.
    f"INSERT INTO work.requests (request_key, kind, study_id) VALUES ('dag/run/task/-1', 'refresh', {STUDY})",
    f"INSERT INTO work.requests (request_key, kind, study_id) VALUES ('dag@easeml_t_victim', 'refresh', {STUDY})",
    f"INSERT INTO work.requests (request_key, kind, study_id) VALUES ('dag@easeml-t-mallory', 'refresh', {STUDY})",
    NEW_STUDY.format(key="dag/run/task/-1", more="", values=""),
    "INSERT INTO work.suggestion_requests (request_key, requested, trainers) VALUES ('dag/run/task/-1', 1, true)",
    f"INSERT INTO work.suggestion_requests (request_key, login, requested, trainers) VALUES ('{KEY}', 'x', 1, true)",
    "INSERT INTO work.change_requests (study_id, change) VALUES (1, 'pause')",
    "DELETE FROM work.change_requests",
    "SELECT work.apply_changes()",
    "SELECT work.file_change(1, NULL, 'pause')",
    # What another tenant's candidate was compared with.
    "SELECT rival FROM work.suggestions",
    "SELECT g FROM work.suggestions g",
    "UPDATE work.suggestion_requests SET decided_at = now()",
    # Tables and functions of the installation.
    "SELECT 1 FROM work.tenant_logins",
    "INSERT INTO work.tenant_logins (login, tenant_id) VALUES ('easeml_t_mallory', 1)",
    "SELECT 1 FROM work.locks FOR UPDATE",
    "UPDATE work.study_changes SET taken = true",
    "UPDATE work.quality_checks SET acknowledged_at = now(), acknowledged_why = 'mine'",
    "SELECT reason, report FROM work.selection_settings",
    "SELECT 1 FROM work.catalogue FOR UPDATE",
    "SELECT work.note('promoted', 1, 1, '{}', '{}')",
    "SELECT work.may_change(1, true)",
    "LOCK TABLE work.trials IN ROW SHARE MODE",
    "LOCK TABLE work.locks IN ACCESS SHARE MODE",
    "ALTER TABLE work.trials DISABLE ROW LEVEL SECURITY",
    "DROP POLICY tenant_reads ON work.trials",
    "CREATE POLICY mine ON work.trials USING (true)",
    "CREATE FUNCTION public.my_tenants() RETURNS bigint[] LANGUAGE sql AS 'SELECT ARRAY[1::bigint]'",
    "CREATE TEMP TABLE studies (id bigint)",
    "SET ROLE easeml_worker",
    "SET ROLE easeml_scheduler",
    "SET SESSION AUTHORIZATION easeml_owner",
    "SELECT * FROM sealed.ledger",
    "SELECT count(pg_advisory_lock(g)) FROM generate_series(1, 1000) g",
    "SELECT pg_try_advisory_xact_lock_shared(1)",
)


def test_a_tenant_is_refused(doors: Doors) -> None:
    assert [sql for sql in ATTACKS if done(doors.tenant, sql) != -1] == []


def test_row_security_cannot_be_switched_off(doors: Doors) -> None:
    with doors.tenant.begin() as tx:
        tx.exec_driver_sql("SET SESSION row_security = off")
    assert done(doors.tenant, "SELECT * FROM work.studies") == -1


def test_the_functions_do_nothing_to_another_tenant(doors: Doors, ask: Ask) -> None:
    before = ask(
        "SELECT s.id, s.state, t.id, t.state, t.attempt, t.cancel_requested FROM work.studies s JOIN "
        "work.trials t ON t.study_id = s.id WHERE s.name <> 'mallory' ORDER BY t.id"
    )
    for trial in (doors.victim.waiting, doors.victim.running, doors.victim.done, 10**9):
        with doors.tenant.begin() as tx:
            assert not scalar(tx, "SELECT work.cancel_trial(:id)", id=trial)
            claimed = row(tx, "SELECT * FROM work.claim_trial(:id, 'k', 'trainer:tree', '{}')", id=trial)
            assert claimed is not None
            assert tuple(claimed) == (None, None)
    with doors.tenant.begin() as tx:
        for paused in (True, False):
            assert not scalar(tx, "SELECT work.set_study_paused(1, :paused)", paused=paused)
        for wanted in ("archive", "withdraw", "restore", "delete"):
            assert not scalar(tx, "SELECT work.change_study(1, :wanted, 'x')", wanted=wanted)
        assert not scalar(tx, "SELECT work.set_candidate_withdrawn(1, 'candidate-0', true, 'x')")
    assert before == ask(
        "SELECT s.id, s.state, t.id, t.state, t.attempt, t.cancel_requested FROM work.studies s JOIN "
        "work.trials t ON t.study_id = s.id WHERE s.name <> 'mallory' ORDER BY t.id"
    )


def test_an_open_transaction_of_a_tenant_stops_nobody(doors: Doors, database: Any, make_rows: Any, ask: Ask) -> None:
    """All that it may write is written, checked at once, and left open; then the others work."""
    with doors.tenant.begin() as held:
        held.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        change(held, NEW_STUDY.format(key=KEY, more="", values=""))
        change(held, f"INSERT INTO work.candidates (study_id, name, kind) SELECT {STUDY}, 'mine', 'tree'")
        change(held, f"INSERT INTO work.requests (request_key, kind, study_id) VALUES ('{KEY}', 'refresh', {STUDY})")
        assert scalar(held, "SELECT work.set_study_paused(:id, true)", id=doors.own.study_id)
        assert scalar(held, "SELECT work.cancel_trial(:id)", id=doors.own_trial)
        assert scalar(held, f"SELECT work.set_candidate_withdrawn({STUDY}, 'candidate-1', true, 'x')")
        token = claimed(held, doors.own_trial)
        leases.show(held, token)
        change(held, "UPDATE work.trials SET beat_at = now()")
        ask("SET lock_timeout = '1s'")
        make_rows("others", tenant="others")  # registers and activates
        with database.worker.begin() as tx:
            change(tx, "SET LOCAL lock_timeout = '1s'")
            change(tx, "SELECT FROM work.locks FOR UPDATE")
            assert leases.expire_leases(tx) == []
            change(tx, "UPDATE work.tenants SET weight = 2")
            change(tx, "UPDATE work.studies SET priority = 1")
            trials.add_trial(
                tx,
                study_id=doors.own.study_id,
                candidate_id=doors.own.candidates[1],
                data_version_id=doors.own.version_id,
            )
        with database.referee.begin() as tx:
            change(tx, "SET LOCAL lock_timeout = '1s'")
            change(tx, "UPDATE work.studies SET program = 'x'")
            change(tx, "SELECT FROM work.requests FOR UPDATE")
        with doors.scheduler.begin() as tx:
            change(tx, "SET LOCAL lock_timeout = '1s'")
            scheduler_requests.apply_changes(tx)
        with database.worker.begin() as tx:
            change(tx, "SET LOCAL lock_timeout = '1s'")
            assert archive.apply_study_change(tx, doors.own.study_id, "mallory", "archive", "it is over")


# -- leases by token -----------------------------------------------------------------------------------------------


def claimed(tx: Any, trial: int, key: str = "key") -> str:
    implementation = trials.get_trial(tx, trial).implementation
    claim = leases.claim_by_token(tx, trial_id=trial, lease_key=key, executor=Executor(implementation, "test"))
    assert claim.outcome == "claimed"
    return str(claim.token)


REPORTS = (
    "UPDATE work.trials SET beat_at = now()",
    "UPDATE work.trials SET progress = '{}'",
    "UPDATE work.trials SET state = 'SUCCEEDED', cost_seconds = 1, lease_key = NULL, lease_until = NULL, "
    "finished_at = now()",
    "UPDATE work.trials SET lease_until = now() + interval '900 years'",
    "SELECT 1 FROM work.trials FOR UPDATE",
)


@pytest.mark.parametrize("login", [TENANT, DEVICE])
def test_only_who_shows_the_token_reports_and_only_of_that_trial(doors: Doors, ask: Ask, login: str) -> None:
    store = doors.of(login)
    with store.begin() as tx:
        token = claimed(tx, doors.own_trial)
    assert ask("SELECT count(*) FROM work.trials WHERE lease_hash = %s", token) == [(0,)]  # the hash alone is kept
    assert [sql for sql in REPORTS if done(store, sql) > 0] == []
    for wrong in (
        "",
        "x",
        token.upper(),
        token[:-1],
        ask("SELECT lease_hash FROM work.trials WHERE id = %s", doors.own_trial)[0][0],
    ):
        with store.begin() as tx:
            leases.show(tx, wrong)
            assert [sql for sql in REPORTS if change(tx, sql) > 0] == []
    with store.begin() as tx:
        leases.show(tx, token)
        assert [change(tx, sql) for sql in REPORTS[:2]] == [1, 1]


def ended(store: Store, trial: int, token: str, *, cost: float, quality: float = 0.9) -> int:
    """End a trial with a result as ``services/trials/execution.py`` does; id of its model."""
    with store.begin() as tx:
        leases.show(tx, token)
        of = trials.get_trial(tx, trial)
        assert leases.finish_trial(tx, trial_id=trial, attempt=of.attempt, state="SUCCEEDED", cost_seconds=cost)  # type: ignore[arg-type]
        models.add_observation(tx, trial_id=trial, quality=quality, cost_seconds=cost)
        return models.add_model(
            tx,
            study_id=of.study_id,
            data_version_id=of.data_version_id,
            trial_id=trial,
            format="skops",
            artifact="sha256:" + "0" * 64,
            validation_loss=0.1,
        )


@pytest.mark.parametrize("login", [TENANT, DEVICE])
def test_a_result_counts_once_and_costs_no_more_than_the_time_since_the_claim(
    doors: Doors, ask: Ask, login: str
) -> None:
    store = doors.of(login)
    with store.begin() as tx:
        token = claimed(tx, doors.own_trial)
    ask("UPDATE work.trials SET attempt_started_at = now() - interval '10 s' WHERE id = %s", doors.own_trial)
    ended(store, doors.own_trial, token, cost=1e8)
    found = ask(
        "SELECT t.cost_seconds, o.cost_seconds, o.quality FROM work.trials t JOIN work.observations o "
        "ON o.trial_id = t.id WHERE t.id = %s",
        doors.own_trial,
    )
    assert found[0][0] == found[0][1]
    assert 10 <= found[0][0] < 100
    again = "INSERT INTO work.observations (trial_id, quality, cost_seconds) VALUES (:id, 1, 1)"
    with store.begin() as tx:
        leases.show(tx, token)
        with pytest.raises(DBAPIError, match="row-level security"), tx.begin_nested():
            change(tx, again, id=doors.own_trial)
    with store.begin() as tx:  # nor does it change what has ended
        leases.show(tx, token)
        assert [sql for sql in REPORTS if change(tx, sql) > 0] == []
    assert (
        done(
            store,
            "INSERT INTO work.curves (trial_id, step, quality, seconds) SELECT id, 1, 1, 1 FROM work.trials "
            "WHERE finished_at IS NOT NULL LIMIT 1",
        )
        == -1
    )


def test_time_that_an_attempt_leaves_out_is_charged(doors: Doors, ask: Ask) -> None:
    with doors.tenant.begin() as tx:
        token = claimed(tx, doors.own_trial)
    ask("UPDATE work.trials SET attempt_started_at = now() - interval '1000 s' WHERE id = %s", doors.own_trial)
    ended(doors.tenant, doors.own_trial, token, cost=0.001)
    ((charged,),) = ask("SELECT charged_seconds FROM work.trials WHERE id = %s", doors.own_trial)
    assert 860 < charged < 1000


def test_time_without_a_heartbeat_is_charged_when_the_trial_is_claimed_again(doors: Doors, ask: Ask) -> None:
    with doors.tenant.begin() as tx:
        claimed(tx, doors.own_trial)
    an_hour = "attempt_started_at = attempt_started_at - interval '3000 s', beat_at = beat_at - interval '3000 s'"
    owner = (
        "SET session_replication_role = replica; UPDATE work.trials SET started_at = started_at - interval '3000 s', "
    )
    ask(f"{owner}{an_hour} WHERE id = {doors.own_trial}")
    with doors.tenant.begin() as tx:
        claimed(tx, doors.own_trial)
    ((lost,),) = ask("SELECT lost_seconds FROM work.trials WHERE id = %s", doors.own_trial)
    assert lost >= 3000


def test_a_trial_whose_row_a_tenant_holds_delays_no_decision(doors: Doors, database: Any, ask: Ask) -> None:
    """A claim of a trial that has ended, left open: what refers to the trial, or claims it, does not wait."""
    with doors.tenant.begin() as tx:
        leases.show(tx, claimed(tx, doors.own_trial))
        change(
            tx,
            "UPDATE work.trials SET state = 'FAILED', failure = 'x', failure_kind = 'task', finished_at = now() "
            "WHERE id = :id",
            id=doors.own_trial,
        )
    again = "SELECT * FROM work.claim_trial(:id, 'k', 'trainer:tree', '{}')"
    with doors.tenant.begin() as held:
        found = row(held, again, id=doors.own_trial)
        assert found is not None
        assert found.outcome == "ended"
        with database.worker.begin() as tx:
            tx.exec_driver_sql("SET LOCAL lock_timeout = 500")
            assert retry_all(tx, [doors.own_trial])
        with doors.device.begin() as tx:
            other = row(tx, again, id=doors.own_trial)
            assert other is not None
            assert other.outcome in ("held", "ended")


def test_the_next_attempt_makes_the_token_worthless(doors: Doors, database: Any, ask: Ask) -> None:
    with doors.tenant.begin() as tx:
        first = claimed(tx, doors.own_trial)
    with doors.device.begin() as tx:
        implementation = trials.get_trial(tx, doors.own_trial).implementation
        by = Executor(implementation, "test")
        other = {"trial_id": doors.own_trial, "executor": by}
        assert leases.claim_by_token(tx, lease_key="other", **other).outcome == "held"
    with doors.tenant.begin() as tx:  # a retry of the same task
        second = claimed(tx, doors.own_trial)
    ask("UPDATE work.trials SET lease_until = now() - interval '1 s' WHERE id = %s", doors.own_trial)
    with database.worker.begin() as tx:  # the role of an installation of one team
        leases.release_lease(tx, doors.own_trial)
        assert leases.start_trial(tx, lease_key="third", lease_seconds=60, **other) == 3
    for token in (first, second):
        with doors.tenant.begin() as tx:
            leases.show(tx, token)
            assert [sql for sql in REPORTS if change(tx, sql) > 0] == []


def test_a_trial_that_ends_when_a_login_claims_it_is_worked_on_by_nobody(doors: Doors, ask: Ask) -> None:
    ask("UPDATE work.trials SET cancel_requested = true WHERE id = %s", doors.own_trial)
    assert claim(doors.tenant, trial_id=doors.own_trial, request_key="w") is None
    assert ask("SELECT state, attempt FROM work.trials WHERE id = %s", doors.own_trial) == [("CANCELLED", 0)]


def test_a_lease_is_no_longer_than_the_study_says_and_the_key_stays(doors: Doors, ask: Ask) -> None:
    with doors.tenant.begin() as tx:
        leases.show(tx, claimed(tx, doors.own_trial))
        change(tx, "UPDATE work.trials SET lease_until = now() + interval '900 years', lease_key = 'forged'")
        early = "INSERT INTO work.models (study_id, data_version_id, trial_id, format, artifact, validation_loss) "
        early += "SELECT study_id, data_version_id, id, 'skops', 'sha256:' || repeat('0', 64), 0 FROM work.trials"
        with pytest.raises(DBAPIError, match="row-level security"), tx.begin_nested():
            change(tx, early)  # a model comes with the end of its attempt
    ((left, key),) = ask(
        "SELECT extract(epoch FROM lease_until - now())::float, lease_key FROM work.trials WHERE id = %s",
        doors.own_trial,
    )
    assert 0 < left <= 60
    assert key == "key"


def test_a_trial_that_is_handed_back_is_free_at_once(doors: Doors, ask: Ask) -> None:
    with doors.tenant.begin() as tx:
        leases.show(tx, claimed(tx, doors.own_trial))
        forged = (
            "UPDATE work.trials SET state = 'SUGGESTED', lease_key = NULL, lease_until = now() + interval '9 years'"
        )
        assert change(tx, forged) == 1
    assert ask("SELECT state, lease_until FROM work.trials WHERE id = %s", doors.own_trial) == [("SUGGESTED", None)]


def test_a_device_cannot_suggest_and_the_scheduler_cannot_report(doors: Doors) -> None:
    suggests = (
        ATTACKS[1],
        ATTACKS[2],
        *(sql for sql in ATTACKS if "work.suggestions" in sql or "suggestion_batches" in sql),
    )
    assert [sql for sql in suggests if done(doors.device, sql) != -1] == []
    reports = [sql for sql in ATTACKS if sql.startswith(("INSERT INTO work.observations", "INSERT INTO work.models"))]
    assert len(reports) > 3
    assert [sql for sql in reports if done(doors.scheduler, sql) != -1] == []


def test_a_list_of_own_trials_finds_them_by_the_index_of_studies(doors: Doors) -> None:
    with doors.tenant.begin() as tx:
        change(tx, "SET LOCAL enable_seqscan = off")  # as with very many trials of others
        plan = [str(line) for (line,) in tx.exec_driver_sql("EXPLAIN SELECT id FROM work.trials")]
    assert any("Index Cond: (study_id = ANY" in line for line in plan), plan
