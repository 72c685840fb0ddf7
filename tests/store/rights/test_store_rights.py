"""Who may do what, held against the catalogue of a real server: a new table or column cannot be forgotten."""

from __future__ import annotations

import contextlib
import itertools
import re
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from easeml_core.errors import InvalidInputError, StoreError
from easeml_core.store.database import CHANNEL, REFEREE_CHANNEL, notify
from easeml_core.store.rows import change
from easeml_core.store.tables import releases, requests

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., list[tuple[Any, ...]]]

ALL = "*"
TRIAL_UPDATES = (
    "attempt attempt_started_at beat_at cancel_requested checkpoint checkpoint_progress checkpoint_seconds "
    "cost_seconds device executor executor_details failure failure_kind finished_at last_key last_try lease_key "
    "lease_until limit_seconds lost_seconds progress resumed_seconds start_seconds started_at state"
)
# Table -> columns that may be inserted, columns that may be updated; the specification's table of rights.
WORKER = {
    "work.tenants": ("name weight", "max_parallel quota_seconds weight"),
    "work.data_sets": ("source target tenant_id", ""),
    "work.studies": (
        "budget_seconds config data_set_id deadline hit metric name priority program request_key target_quality task "
        "tenant_id weight",
        "budget_seconds deadline priority state target_quality weight",
    ),
    "work.data_versions": ("", ""),
    "work.data_parts": ("", ""),
    "work.candidates": ("devices kind name parameters study_id", ""),
    "work.trials": ("candidate_id data_version_id device lease_until limit_seconds retries study_id", TRIAL_UPDATES),
    "work.curves": (ALL, ""),
    "work.rungs": ("goes_on hoped known needed of quality rule rung step trial_id", ""),
    "work.suggestion_batches": ("policy request_key requested settings_id", ""),
    "work.suggestion_requests": (
        "device functions request_key requested runtimes sources studies traceparent trainers",
        "",
    ),
    "work.suggestions": (ALL, ""),
    "work.offers": ("implementation study", "asked_at"),
    "work.observations": ("cost_seconds quality score trial_id", ""),
    "work.models": ("artifact data_version_id format study_id submitted trial_id validation_loss", ""),
    "work.submissions": ("bundle bundle_version kind message model_id request_key study_id", ""),
    "work.predictions": (ALL, ""),
    "work.remeasure_failures": ("", ""),
    "work.quality_checks": ("", "acknowledged_at acknowledged_why"),
    "work.feeds": ("artifact fed_by origin request_key rows study_id", ""),
    "work.fed_examples": ("", ""),
    "work.switches": ("hash is_on reason request_key study_id switched_by", ""),
    "work.refreshes": ("", ""),
    "work.test_sets": ("", ""),
    "work.requests": ("arguments kind model_id request_key study_id", ""),
    "work.answers": ("", ""),
    "work.gate_verdicts": ("", ""),
    "work.meter_readings": ("", ""),
    "work.promotions": ("", ""),
    "work.production": ("", ""),
    "work.alerts": ("", "cleared_at"),
    "work.catalogue": ("", ""),  # its triggers write it with their owner's rights
    "work.catalogue_changes": ("", ""),
    "work.locks": ("", "held"),  # what nothing changes, so that it can lock the rows
    "work.audit": ("", ""),  # likewise
    "work.artifact_store": ("place store_id", ""),  # the first adds the row, the owner alone changes it
    "work.selection_settings": ("", ""),  # the owner alone chooses for all tenants
    "work.evidence": ("", ""),
    "work.assessments": (ALL, ALL),  # what it shows is made of rows that the role reads anyway
    "work.study_changes": ("", "taken"),  # triggers write it with their owner's rights, and delete what is taken
    "work.heartbeats": ("", ""),
    "work.scheduler_beats": ("", ""),
    "work.devices": ("", ""),  # work.announce_device writes it, with the caller's login and the database's time
    "work.restarts": ("", ""),
    "work.change_requests": ("", ""),
    "work.tenant_logins": ("", ""),  # the owner alone says whose rows a login has
    "work.alembic_version": ("", ""),
}
REFEREE = {
    "work.tenants": ("", ""),
    "work.data_sets": ("", ""),
    "work.studies": ("", "program state"),
    "work.data_versions": (ALL, ""),
    "work.data_parts": (ALL, ""),
    "work.candidates": (ALL, ""),
    # A model measured anew on another validation part is a trial of that part, which has ended as it begins.
    "work.trials": (
        "candidate_id cost_seconds data_version_id device finished_at limit_seconds reevaluates started_at state "
        "study_id",
        "",
    ),
    "work.curves": ("", ""),
    "work.rungs": ("", ""),
    "work.suggestion_batches": ("", ""),
    "work.suggestion_requests": ("", ""),
    "work.suggestions": ("", ""),
    "work.offers": ("", ""),
    "work.observations": (ALL, ""),
    "work.models": (ALL, "removed_at removed_why"),
    "work.submissions": ("", ""),
    "work.predictions": ("", ""),
    "work.remeasure_failures": ("data_version_id model_id reason study_id", "reason tried_at tries"),
    "work.quality_checks": ("claimed measured model_id reason study_id tolerance trial_id", ""),
    # It takes what others have fed and switched, and refuses it; it adds nothing.
    "work.feeds": ("", "reason state"),
    "work.fed_examples": (ALL, "feed_id"),
    "work.switches": ("", "refreshed_by"),
    "work.refreshes": (ALL, ""),
    "work.test_sets": (ALL, "artifact data_version_id labels_on_demand retired_at retired_why rows state"),
    # It asks in its own name on the command line; and may change what nothing changes, so that it can lock the row.
    "work.requests": ("arguments kind model_id request_key study_id", "arguments"),
    "work.answers": (ALL, ""),
    "work.gate_verdicts": (ALL, ""),
    "work.meter_readings": (ALL, ""),
    "work.promotions": (ALL, ""),
    "work.production": (ALL, "model_id promotion_id"),
    "work.alerts": (ALL, ""),
    "work.catalogue": ("", ""),  # its triggers write it with their owner's rights
    "work.audit": ("", ""),  # likewise
    "work.artifact_store": ("place store_id", ""),  # the first adds the row, the owner alone changes it
    "work.selection_settings": ("", ""),  # the owner alone chooses for all tenants
    "work.assessments": (ALL, ALL),
    "work.study_changes": ("", "taken"),
    "work.heartbeats": (ALL, "beat_at until"),
    "work.scheduler_beats": ("", ""),
    "work.devices": ("", ""),
    "work.restarts": ("at what", ""),
    "work.tenant_logins": ("", ""),
    "work.change_requests": ("", ""),
    "work.catalogue_changes": ("", ""),
    "work.locks": ("", "held"),
    "work.alembic_version": ("", ""),
    "sealed.installation": ("", "singleton"),  # what nothing changes, so that alerts come one after the other
    "sealed.test_sets": (ALL, "cell_names"),
    "sealed.examples": (ALL, ""),
    "sealed.predictions": (ALL, ""),
    "sealed.attempts": (ALL, "survived"),
    "sealed.put_offs": (ALL, ""),
    "sealed.referees": (ALL, "beat_at until"),
    "sealed.claims": (ALL, "claimed_at referee_id"),
    "sealed.turns": (ALL, "taken_at"),
    "sealed.ledger": (ALL, ""),
    "sealed.labels": (ALL, "labels"),
    "sealed.cells": (ALL, ""),
    "sealed.wanted": (ALL, "asked examples is_open"),
    "sealed.outbox": (ALL, "left_at"),
    "sealed.mails": (ALL, "sent_at"),
    "work.evidence": (ALL, ""),
    "sealed.chains": (ALL, "opened_at"),  # what nothing changes, so that one referee after the other appends
    "sealed.chain": (ALL, ""),
    "sealed.row_sources": (ALL, ""),
    "sealed.registry": (ALL, "state tokens"),
    "sealed.row_holds": (ALL, ""),
    "sealed.row_parts": ("", ""),  # triggers of the registry write both with their owner's rights
    "sealed.row_values": ("", ""),
}
_COLUMNS = """
SELECT format('%%s.%%s', n.nspname, c.relname), a.attname,
       has_column_privilege(%s, c.oid, a.attnum, 'INSERT'), has_column_privilege(%s, c.oid, a.attnum, 'UPDATE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_RELATIONS = """
SELECT c.oid, c.relkind, format('%%I.%%I', n.nspname, c.relname) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind NOT IN ('i', 't')
"""


def granted(ask: Ask, role: str, schemas: list[str]) -> dict[str, tuple[str, str]]:
    """What the role may insert and update, by table, in the form of the tables above."""
    found: dict[str, list[tuple[str, bool, bool]]] = {}
    for table, *column in ask(_COLUMNS, role, role, schemas):
        found.setdefault(table, []).append(tuple(column))

    def names(columns: list[tuple[str, bool, bool]], which: int) -> str:
        allowed = sorted(c[0] for c in columns if c[which])
        return ALL if len(allowed) == len(columns) else " ".join(allowed)

    return {table: (names(columns, 1), names(columns, 2)) for table, columns in found.items()}


def test_the_worker_may_write_exactly_this(database: Any, ask: Ask) -> None:
    assert granted(ask, "easeml_worker", ["work"]) == WORKER


def test_the_referee_may_write_exactly_this(database: Any, ask: Ask) -> None:
    assert granted(ask, "easeml_referee", ["work", "sealed"]) == REFEREE


@pytest.mark.parametrize("role", ["easeml_worker", "easeml_referee", "airflow"])
@pytest.mark.parametrize("right", ["DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"])
def test_nobody_but_the_owner_may_take_rows_or_attach_to_tables(ask: Ask, role: str, right: str) -> None:
    tables = [oid for schema in ("work", "sealed") for oid, kind, _ in ask(_RELATIONS, schema) if kind != "S"]
    assert len(tables) == len(REFEREE)
    assert [t for t in tables if ask("SELECT has_table_privilege(%s, %s, %s)", role, t, right)[0][0]] == []


def test_the_worker_reads_nothing_that_is_sealed(database: Any, world: Any, ask: Ask) -> None:
    relations = ask(_RELATIONS, "sealed")
    assert {name for _, kind, name in relations if kind == "r"} == {t for t in REFEREE if t.startswith("sealed")}
    for oid, kind, name in relations:
        rights = "SELECT, USAGE, UPDATE" if kind == "S" else "SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER"
        check = "has_sequence_privilege" if kind == "S" else "has_table_privilege"
        assert ask(f"SELECT {check}('easeml_worker', %s::oid, %s)", oid, rights) == [(False,)], name
        if kind != "S":
            columns = "SELECT, INSERT, UPDATE, REFERENCES"
            assert ask("SELECT has_any_column_privilege('easeml_worker', %s::oid, %s)", oid, columns) == [(False,)]
        said = outcome(database.worker, f"SELECT * FROM {name}")
        assert said.startswith("this role may not do that: permission denied for schema sealed"), name


REFUSED = (
    *(
        f"{what} work.{table} {how}"
        for table in ("answers", "gate_verdicts", "meter_readings", "promotions", "production", "test_sets")
        for what, how in (("INSERT INTO", "DEFAULT VALUES"), ("DELETE FROM", ""), ("TRUNCATE", ""))
    ),
    "UPDATE work.answers SET refused = false",
    "UPDATE work.gate_verdicts SET symbol = 'pass'",
    "UPDATE work.meter_readings SET signal = 1",
    "UPDATE work.promotions SET model_id = 1",
    "UPDATE work.production SET model_id = 1",
    "UPDATE work.test_sets SET state = 'live'",
    "UPDATE work.alerts SET message = 'all is well'",
    "UPDATE work.requests SET arguments = '{}'",
    "UPDATE work.requests SET request_key = 'mine'",
    "INSERT INTO work.requests (request_key, kind, study_id, requested_by) VALUES ('k', 'seal', 1, 'somebody')",
    "INSERT INTO work.trials (study_id, candidate_id, data_version_id, state) VALUES (1, 1, 1, 'RUNNING')",
    "UPDATE work.trials SET candidate_id = 1",
    "DELETE FROM work.trials",
    "UPDATE work.observations SET quality = 1",
    "INSERT INTO work.selection_settings (config, reason) VALUES ('{}', 'mine first')",
    "UPDATE work.selection_settings SET config = '{}'",
    "DELETE FROM work.selection_settings",
    "UPDATE work.artifact_store SET place = '/tmp/mine'",
    "DELETE FROM work.artifact_store",
    "TRUNCATE work.artifact_store",
    "UPDATE work.suggestion_batches SET settings_id = NULL",
    *(
        f"SELECT * FROM work.{table} FOR {strength}"
        for table in ("requests", "test_sets", "production", "models", "gate_verdicts", "data_versions")
        for strength in ("UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE")
    ),
    *(
        f"LOCK TABLE work.{table} IN {mode} MODE"
        for table in ("requests", "test_sets", "models", "studies", "trials")
        for mode in ("SHARE", "EXCLUSIVE", "ACCESS EXCLUSIVE")
    ),
    "UPDATE work.studies SET name = 'mine'",
    "UPDATE work.catalogue SET version = 1",
    "INSERT INTO work.audit (who, door, act) VALUES ('ann', 'page', 'promoted')",
    "UPDATE work.audit SET who = 'somebody'",
    "DELETE FROM work.audit",
    "SELECT work.note('promoted', 1, 1, '{}', '{}')",
    "SELECT * FROM work.catalogue FOR UPDATE",
    "SET ROLE easeml_referee",
    "SET ROLE easeml_owner",
    "GRANT easeml_referee TO easeml_worker",
    "GRANT SELECT ON sealed.ledger TO easeml_worker",
    "SELECT * FROM pg_authid",
    "SELECT pg_read_file('pg_hba.conf')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "ALTER TABLE work.trials DISABLE TRIGGER trials_forward",
    "SET session_replication_role = replica",
)


def test_the_worker_is_refused(database: Any, world: Any) -> None:
    pattern = re.compile(r"this role may not do that: (permission denied|must be owner)")
    assert [s for s in REFUSED if not pattern.match(outcome(database.worker, s))] == []


def test_a_worker_cannot_make_the_referee_wait_for_a_study(database: Any, world: Any) -> None:
    with pytest.raises(StoreError, match="permission denied for table test_sets"), database.worker.begin() as tx:
        releases.hold_study(tx, world.study.study_id)
    with database.worker.begin() as holder:  # every lock that it has on the study's own rows
        change(holder, "SELECT 1 FROM work.studies FOR UPDATE")
        change(holder, "SELECT 1 FROM work.trials FOR UPDATE")
        with database.referee.begin() as tx:
            change(tx, "SET LOCAL lock_timeout = '2s'")
            releases.hold_study(tx, world.study.study_id)
            requests.note_attempt(tx, world.requests["promote"])


def test_neither_role_creates_anything(database: Any) -> None:
    places = ("work.", "sealed.", "public.", "pg_temp.")
    for role, place in itertools.product((database.worker, database.referee), places):
        said = outcome(role, f"CREATE TABLE {place}mine (x int)")
        assert "this role may not do that: permission denied" in said, (role, place)


def test_the_referee_cannot_change_what_it_has_written(database: Any, world: Any) -> None:
    columns = {"sealed.ledger": "log_cost", "sealed.predictions": "labels", "work.answers": "refused"}
    for table, column in (columns | {"sealed.test_sets": "labels", "work.gate_verdicts": "symbol"}).items():
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            said = outcome(database.referee, statement)
            assert f"may not do that: permission denied for table {table.split('.')[1]}" in said, statement


@pytest.mark.parametrize("role", ["worker", "referee"])
def test_neither_role_enters_the_database_of_airflow(database: Any, role: str) -> None:
    url = database.server.url(f"easeml_{role}", "airflow").replace("postgresql+psycopg2", "postgresql")
    with pytest.raises(psycopg2.OperationalError, match='permission denied for database "airflow"'):
        psycopg2.connect(url)


def test_a_message_wakes_and_tells_no_more_than_an_id(
    database: Any, world: Any, heard: Callable[[int], Any], file: Callable[..., int]
) -> None:
    study = world.study
    request_id = file(study, "meter", world.model_id, key="again")
    answer = {"study_id": study.study_id, "request_id": request_id}
    with database.referee.begin() as tx:
        read = {"model_id": world.model_id, "test_set_id": world.meter_set, "step": 2, "cached": False}
        releases.add_reading(tx, reading=releases.Reading(signal=2, signals=2, **read), **answer)
        releases.add_alert(tx, study=study.name, message="the gap is 0.31 +/- 0.02", **answer)
        requests.add_answer(tx, request_id, refused=True, message="a long story")
    assert heard(4) == [
        (REFEREE_CHANNEL, f"request:{request_id}"),
        (CHANNEL, f"alert:{study.name}"),
        (CHANNEL, "alert:*"),
        (CHANNEL, f"answer:{request_id}"),
    ]


TOPICS = (
    "answer:17",
    "trial:1",
    "request:9",
    "study:iris-2.b_c",
    "alert:0",
    "alert:*",
    "production:*",
    "evidence:iris",
)
NO_TOPICS = ("", "answer:", "answer:17 pass", "answer:-1", "gate:17", "study:A b", "trial:1\n", "trial:*", "alert:**")


def test_a_topic_is_a_kind_and_an_id_and_nothing_else(store: Any) -> None:
    for topic in TOPICS:
        with store.begin() as tx:
            notify(tx, topic)
    for topic in (*NO_TOPICS, "study:" + "a" * 64):
        refused = pytest.raises(
            InvalidInputError, match="a topic must be answer, request, suggestions or trial with an id"
        )
        with refused, store.begin() as tx:
            notify(tx, topic)


# What the released tables show: symbols, steps, ids and times, and the plan that was fixed before the first answer.
RELEASED = {
    "test_sets": (
        "id study_id data_version_id purpose state rows steps plan created_at retired_at name labels_on_demand "
        "retired_why artifact deleted_at"
    ),
    "requests": "id request_key kind study_id model_id arguments requested_at requested_by",
    "answers": "request_id refused message answered_at",
    "gate_verdicts": (
        "request_id kind study_id model_id incumbent_id test_set_id purpose step symbol planned cached decided_at"
    ),
    "meter_readings": (
        "request_id kind study_id model_id test_set_id purpose step signal signals cached read_at team edges tolerance "
        "submissions_left data_version_id direct_test_set_id direct_purpose direct_signal drift"
    ),
    "promotions": "id request_id kind study_id model_id gate_request_id symbol planned promoted_at restores who why",
    "production": "study_id model_id promotion_id",
    "alerts": "id study_id request_id message created_at cleared_at kind test_set_id reading_id over_budget team",
}
REAL_NUMBERS = {
    "tenants.weight",
    "tenants.quota_seconds",
    "studies.weight",
    "studies.budget_seconds",
    "studies.target_quality",
    "trials.cost_seconds",
    "trials.limit_seconds",
    "trials.lost_seconds",
    *("trials.start_seconds", "trials.charged_seconds"),
    *("trials.checkpoint_seconds", "trials.checkpoint_progress", "trials.resumed_seconds"),
    *("curves.quality", "curves.loss", "curves.seconds"),
    *("rungs.quality", "rungs.hoped", "rungs.needed"),
    "observations.quality",
    "observations.score",
    "observations.cost_seconds",
    "models.validation_loss",
    "meter_readings.tolerance",
    *("quality_checks.claimed", "quality_checks.measured", "quality_checks.tolerance"),  # on open rows, as above
    "heartbeats.answer_seconds",  # a setting of the referee's process
    # Sums of the numbers above.
    *("assessments.best_quality", "assessments.rise", "assessments.due_weight", "assessments.charged"),
    *("assessments.day_seconds", "assessments.day_since"),
}
# Of the validation part, which the developer has anyway.
OPEN_WORDS = {
    *("models.validation_loss", "predictions.labels", "selection_settings.report", "curves.loss"),
    "test_sets.labels_on_demand",  # whether people are asked for labels at all
    "quality_checks.tolerance",  # how much two measurements on open rows may differ
    "meter_readings.tolerance",  # what was promised: by the plan and the worst signal before
}


def test_what_is_released_has_no_column_for_more_than_symbols(ask: Ask) -> None:
    columns = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'work'"
    found = ask(columns)
    for table, expected in RELEASED.items():
        assert {c for t, c, _ in found if t == table} == set(expected.split()), table
    assert {f"{t}.{c}" for t, c, kind in found if kind in ("double precision", "numeric", "real")} == REAL_NUMBERS
    secret = re.compile("level|interval|toleran|count|wins|loss|error|report|label|weight_|estimate|p_value|log_")
    assert {f"{t}.{c}" for t, c, _ in found if secret.search(c)} == OPEN_WORDS
    assert {f"{t}.{c}" for t, c, kind in found if kind == "bytea"} == {
        "fed_examples.hash",
        "predictions.labels",
        "switches.hash",
    }


# Columns that PostgreSQL compresses or moves out of their row by their length. None of them follows from labels.
COMPRESSED = {
    "cells": "cells",  # the inputs of an example, as they were brought
    "chain": "chain kind key_id",
    "chains": "name",
    "claims": "duty",
    "examples": "hash",  # 32 bytes, never compressed
    "labels": "labeler",
    "put_offs": "reason",  # at most 100 characters
    "registry": "state",
    "test_sets": "fingerprint cell_names",
}


def test_the_size_on_disk_tells_nothing_of_sealed_content(database: Any, ask: Ask) -> None:
    """Nor does the server's counter of the values that it moves out of their row (``test_store_large_values.py``)."""
    found = ask(
        "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "WHERE c.relnamespace = 'sealed'::regnamespace AND c.relkind = 'r' AND a.attlen = -1 AND a.attstorage = 'x'"
    )
    assert set(found) == {(table, column) for table, columns in COMPRESSED.items() for column in columns.split()}


def test_the_worker_learns_nothing_from_statistics_or_other_sessions(database: Any, world: Any, ask: Ask) -> None:
    ask("ANALYZE")
    assert ask("SELECT count(*) > 0 FROM pg_stats WHERE schemaname = 'sealed'") == [(True,)]
    with database.worker.begin() as tx:
        assert change(tx, "SELECT 1 FROM pg_stats WHERE schemaname = 'sealed'") == 0
        assert change(tx, "SELECT 1 FROM pg_sequences WHERE schemaname = 'sealed' AND last_value IS NOT NULL") == 0
    for asked in STATISTICS:
        assert "permission denied for function" in outcome(database.worker, asked), asked
        assert outcome(database.owner, asked) == "done", asked  # who runs the installation may look


def test_the_catalogue_tells_nobody_how_many_rows_a_sealed_table_has(database: Any, world: Any, ask: Ask) -> None:
    """Not even after VACUUM ANALYZE, which a superuser may run at any time."""
    ask("VACUUM ANALYZE")
    assert ask("SELECT reltuples > 0 FROM pg_class WHERE oid = 'sealed.examples'::regclass") == [(True,)]
    for column in ("relpages", "reltuples", "relallvisible", "*"):
        for store in (database.worker, database.referee):
            denied = outcome(store, f"SELECT {column} FROM pg_class WHERE relnamespace = 'sealed'::regnamespace")
            assert "permission denied for table pg_class" in denied, column
    assert outcome(database.worker, "SELECT most_common_vals FROM pg_stats WHERE schemaname = 'sealed'") == "done"
    assert "permission denied for table pg_statistic" in outcome(
        database.worker, "SELECT stadistinct FROM pg_statistic"
    )
    assert outcome(database.owner, "SELECT reltuples FROM pg_class") == "done"
    with contextlib.closing(database.server.connect("airflow", "airflow")) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_class WHERE relname IN ('ledger', 'examples')")
        assert cursor.fetchone() == (0,)  # another database has another catalogue
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(f"SELECT pg_database_size('{database.name}')")


STATISTICS = (
    "SELECT DISTINCT query FROM pg_stat_activity WHERE usename = 'easeml_referee'",
    "SELECT n_tup_ins, n_tup_upd, n_live_tup, seq_scan FROM pg_stat_all_tables WHERE schemaname = 'sealed'",
    "SELECT n_tup_ins FROM pg_stat_xact_all_tables WHERE schemaname = 'sealed'",
    "SELECT heap_blks_read FROM pg_statio_all_tables WHERE schemaname = 'sealed'",
    "SELECT xact_commit, tup_inserted FROM pg_stat_database WHERE datname = current_database()",
    "SELECT wal_bytes FROM pg_stat_wal",
    "SELECT pg_current_wal_lsn()",
    "SELECT pg_logical_emit_message(false, 'x', 'y')",
    "SELECT relation, mode FROM pg_locks",
    "SELECT pg_blocking_pids(1)",
    "SELECT slot_name, restart_lsn FROM pg_replication_slots",
    "SELECT * FROM pg_available_wal_summaries()",
    "SELECT mxid_age('1')",
    *(
        f"SELECT {size}(c.oid) FROM pg_class c WHERE c.relnamespace = 'sealed'::regnamespace AND c.relkind = 'r'"
        for size in ("pg_relation_size", "pg_table_size", "pg_total_relation_size", "pg_indexes_size")
    ),
    "SELECT pg_database_size(current_database())",
    # The counters that every large value, and every notice on whatever channel, moves.
    *(f"SELECT {made}" for made in ("lo_creat(-1)", "lo_create(0)", "lo_from_bytea(0, 'x')")),
    "SELECT pg_column_toast_chunk_id(conbin) FROM pg_constraint",
    "SELECT pg_notification_queue_usage()",
)


def outcome(store: Any, statement: str) -> str:
    """What our error says of the statement, or that there was none."""
    try:
        with store.begin() as tx:
            tx.exec_driver_sql(statement)
    except StoreError as error:
        return str(error)
    return "done"
