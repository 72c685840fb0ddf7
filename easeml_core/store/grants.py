"""What the logins of tenants, devices and the scheduler may read and write: grants and policies, made by an upgrade.

They are no migrations: the roles belong to the server, which others may administrate, and an installation whose tenants
are one team has none of them (ADR 0032). Everything here may be repeated. A table that is named nowhere here is closed
to these roles.

A condition on a study or a trial is a subquery on that table, so that it is the other table's policy that decides. It
is evaluated for each row, or once for all of them, as the planner finds cheaper.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from easeml_core.store.roles import DEVICE, PERSON, REFEREE, SCHEDULER, TENANT, VIEWER, WORKER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

_TENANT_ID = "{table}.%s = ANY ((SELECT work.my_tenants())::bigint[])"
OF_TENANT = _TENANT_ID % "tenant_id"
OF_STUDY = "EXISTS (SELECT FROM work.studies s WHERE s.id = {table}.study_id)"
# One list for a whole query, which an index on the study takes: with the condition above, a tenant's list of
# trials reads those of all tenants. Each row is compared with the list, so tables without such an index have it not.
OF_LISTED_STUDIES = "{table}.study_id = ANY (ARRAY(SELECT s.id FROM work.studies s))"
OF_TRIAL = "EXISTS (SELECT FROM work.trials t WHERE t.id = {table}.trial_id)"
ALL_ROWS = "true"

# What is written about an attempt comes with the lease that was granted: while it runs, or with its end.
_LEASED = (
    "EXISTS (SELECT FROM work.trials t WHERE t.id = {table}.%s AND t.lease_hash = (SELECT work.lease()) "
    "AND (t.state = 'RUNNING' OR t.ended_xact = pg_current_xact_id_if_assigned()))"
)
BY_LEASE = _LEASED % "trial_id"
# A result comes with the end of its attempt, in one transaction.
_ENDS_HERE = "t.ended_xact = pg_current_xact_id_if_assigned()"
WITH_END = BY_LEASE.replace(f"(t.state = 'RUNNING' OR {_ENDS_HERE})", _ENDS_HERE)
# Keys are unique in the installation: no login takes the key that another one's next task will use.
OWN_KEY = "right({table}.request_key, length(work.caller()) + 1) = '@' || work.caller()"


@dataclass(frozen=True, slots=True)
class Access:
    """What one kind of login may do with one table.

    Attributes:
        reads: SQL: which rows it reads.
        shows: Columns that it reads; empty for all.
        adds: Columns that it may give a new row.
        adding: SQL: which rows it may add.
        changes: Columns that it may change.
        changing: SQL: which rows it may change, and lock.
        deletes: Whether it may delete the rows that it reads.
    """

    reads: str
    shows: str = ""
    adds: str = ""
    adding: str = ""
    changes: str = ""
    changing: str = ""
    deletes: bool = False


OF_LOGIN = "{table}.login = work.caller()"
_ASKED = "request_key requested device studies functions sources trainers runtimes traceparent"
_REPORTED = (
    "state progress failure failure_kind cost_seconds start_seconds lost_seconds resumed_seconds checkpoint "
    "checkpoint_seconds checkpoint_progress lease_key lease_until beat_at finished_at"
)
_LEASE_HELD = "{table}.state = 'RUNNING' AND {table}.lease_hash = (SELECT work.lease())"
_MODEL = "study_id data_version_id trial_id format artifact validation_loss submitted"
_SUGGESTION = "batch_id position trial_id reasons"
_CURVE = "trial_id step of quality loss seconds"
_RUNG = "trial_id rung step of quality hoped needed known rule goes_on"
_OBSERVATION = "trial_id quality cost_seconds score"
_PREDICTED = "EXISTS (SELECT FROM work.models m JOIN work.trials t ON t.id = m.trial_id WHERE m.id = {table}.model_id "
_PREDICTED += "AND t.lease_hash = (SELECT work.lease()) AND t.ended_xact = pg_current_xact_id_if_assigned())"

TENANTS = {
    "alembic_version": Access(ALL_ROWS),
    "artifact_store": Access(ALL_ROWS),
    "restarts": Access(ALL_ROWS),
    "heartbeats": Access(ALL_ROWS),
    # How a trial was chosen; the report behind the settings names studies of all tenants.
    "selection_settings": Access(ALL_ROWS, shows="id config created_at created_by"),
    "scheduler_beats": Access(ALL_ROWS),
    "tenants": Access(_TENANT_ID % "id"),
    "data_sets": Access(OF_TENANT, adds="tenant_id source target", adding=OF_TENANT),
    # What shares out devices between tenants is the provider's.
    "studies": Access(
        OF_TENANT,
        adds="name tenant_id data_set_id metric weight budget_seconds config request_key priority deadline "
        "target_quality task hit program",
        adding=f"{OF_TENANT} AND {OWN_KEY} AND weight <= 1 AND priority <= 0 AND deadline IS NULL",
    ),
    # With the study itself, or once it is sealed: the referee adds candidates meanwhile, and waits for no name.
    "candidates": Access(
        OF_STUDY,
        adds="study_id name kind parameters devices",
        adding="EXISTS (SELECT FROM work.studies s WHERE s.id = {table}.study_id "
        "AND (s.state IN ('ACTIVE', 'PAUSED') OR s.created_at = now()))",
    ),
    "data_versions": Access(OF_STUDY),
    "data_parts": Access("EXISTS (SELECT FROM work.data_versions v WHERE v.id = {table}.data_version_id)"),
    "trials": Access(OF_LISTED_STUDIES, changes=_REPORTED, changing=f"{_LEASE_HELD} AND {OF_STUDY}"),
    "curves": Access(OF_TRIAL, adds=_CURVE, adding=BY_LEASE),
    "rungs": Access(OF_TRIAL, adds=_RUNG, adding=BY_LEASE),
    "observations": Access(OF_TRIAL, adds=_OBSERVATION, adding=WITH_END),
    "suggestions": Access(OF_TRIAL, shows=_SUGGESTION),
    # A login's name may have been another tenant's before.
    "change_requests": Access(f"{OF_LOGIN} AND {OF_STUDY}"),
    # Whether a worker asks for what its candidates need, and no name beyond.
    "offers": Access(
        "EXISTS (SELECT FROM work.candidates c WHERE c.implementation = {table}.implementation) AND ({table}.study "
        "= '' OR EXISTS (SELECT FROM work.studies s WHERE s.name = {table}.study))"
    ),
    "suggestion_batches": Access(
        f"{OWN_KEY} OR EXISTS (SELECT FROM work.suggestions z WHERE z.batch_id = {{table}}.id)",
    ),
    "suggestion_requests": Access(OF_LOGIN, adds=_ASKED, adding=f"{OF_LOGIN} AND {OWN_KEY}"),
    "models": Access(
        OF_STUDY,
        adds=_MODEL,
        adding=f"{OF_STUDY} AND CASE WHEN {{table}}.trial_id IS NULL THEN {{table}}.submitted ELSE {WITH_END} END",
    ),
    "submissions": Access(
        OF_STUDY,
        adds="study_id model_id kind message bundle bundle_version request_key",
        adding=f"{OF_STUDY} AND {OWN_KEY}",
    ),
    "predictions": Access(
        "EXISTS (SELECT FROM work.models m WHERE m.id = {table}.model_id)",
        adds="model_id part labels",
        adding=_PREDICTED,
    ),
    "remeasure_failures": Access(OF_STUDY),
    "quality_checks": Access(OF_STUDY),
    "feeds": Access(
        OF_STUDY, adds="study_id request_key artifact rows origin fed_by", adding=f"{OF_STUDY} AND {OWN_KEY}"
    ),
    "fed_examples": Access(OF_STUDY),
    "switches": Access(
        OF_STUDY, adds="study_id hash is_on reason switched_by request_key", adding=f"{OF_STUDY} AND {OWN_KEY}"
    ),
    "refreshes": Access(OF_STUDY),
    "test_sets": Access(OF_STUDY),
    "requests": Access(
        OF_STUDY, adds="request_key kind study_id model_id arguments", adding=f"{OF_STUDY} AND {OWN_KEY}"
    ),
    "answers": Access("EXISTS (SELECT FROM work.requests r WHERE r.id = {table}.request_id)"),
    "gate_verdicts": Access(OF_STUDY),
    "meter_readings": Access(OF_STUDY),
    "promotions": Access(OF_STUDY),
    "production": Access(OF_STUDY),
    "alerts": Access(OF_STUDY),
    "evidence": Access(OF_STUDY),
    "assessments": Access(OF_TENANT),
    "study_changes": Access(OF_STUDY),
    "audit": Access(OF_TENANT),
    "devices": Access("{table}.tenants && (SELECT work.my_tenants())::bigint[]"),
}
"""Table -> what a tenant's login may do with it."""

_SHOWN = {name: Access(access.reads, shows=access.shows) for name, access in TENANTS.items()}
_MINE = "= ANY ((SELECT work.my_changes())::bigint[])"
_OF_CHANGED = f"EXISTS (SELECT FROM work.studies s WHERE s.id = {{table}}.study_id AND s.tenant_id {_MINE})"


def _filed(table: str) -> Access:
    """Return the right to add what a login may add, to studies that the person may change."""
    return replace(_SHOWN[table], adds=TENANTS[table].adds, adding=f"{_OF_CHANGED} AND {OWN_KEY}")


VIEWERS = _SHOWN
"""Table -> what the pages may do with it while they only look for a person."""

PEOPLE = _SHOWN | {
    "data_sets": replace(_SHOWN["data_sets"], adds=TENANTS["data_sets"].adds, adding=f"{{table}}.tenant_id {_MINE}"),
    "studies": replace(
        _SHOWN["studies"],
        adds=TENANTS["studies"].adds,
        adding=f"{{table}}.tenant_id {_MINE} AND {OWN_KEY} AND weight <= 1 AND priority <= 0 AND deadline IS NULL",
    ),
    "candidates": replace(_SHOWN["candidates"], adds=TENANTS["candidates"].adds, adding=_OF_CHANGED),
    "submissions": _filed("submissions"),
    "feeds": _filed("feeds"),
    "switches": _filed("switches"),
    "requests": _filed("requests"),
}
"""Table -> what the pages may do with it where a person changes something."""

_COMMON = (
    *("alembic_version", "artifact_store", "heartbeats", "scheduler_beats", "restarts"),
    *("tenants", "data_sets", "studies", "candidates", "data_versions", "data_parts", "quality_checks"),
)
"""What a device and the scheduler read of all tenants."""

DEVICES = {
    name: Access(ALL_ROWS)
    for name in (
        *_COMMON,
        "suggestion_batches",
    )
} | {
    "suggestions": Access(ALL_ROWS, shows=_SUGGESTION),
    # The login that all workers share has no ending; the login of each worker has one.
    "suggestion_requests": Access(
        OF_LOGIN,
        adds=_ASKED,
        adding=f"{OF_LOGIN} AND ({OWN_KEY} "
        "OR work.caller() = 'easeml_device' AND position('@easeml_' IN {table}.request_key) = 0)",
    ),
    "trials": Access(ALL_ROWS, changes=_REPORTED, changing=_LEASE_HELD),
    "curves": Access(ALL_ROWS, adds=_CURVE, adding=BY_LEASE),
    "rungs": Access(ALL_ROWS, adds=_RUNG, adding=BY_LEASE),
    "observations": Access(ALL_ROWS, adds=_OBSERVATION, adding=WITH_END),
    "models": Access(ALL_ROWS, adds=_MODEL, adding=WITH_END),
    "predictions": Access(ALL_ROWS, adds="model_id part labels", adding=_PREDICTED),
    # The provider's; a tenant's own devices train for that tenant alone.
    "devices": Access("{table}.tenants = '{}' AND NOT starts_with({table}.login, 'easeml_t_')"),
}
"""Table -> what the role ``easeml_device``, and a login of one worker, may do with it."""

_ALL = Access(ALL_ROWS)
SCHEDULERS = {
    name: _ALL
    for name in (
        *_COMMON,
        *("curves", "rungs", "observations", "models", "catalogue", "catalogue_changes"),
        *("selection_settings", "production", "tenant_logins", "change_requests", "devices"),
    )
} | {
    "suggestion_requests": Access(
        ALL_ROWS, changes="tries decided_at refusal studies functions sources", changing=ALL_ROWS, deletes=True
    ),
    "scheduler_beats": Access(
        ALL_ROWS, adds="started_at", adding=ALL_ROWS, changes="beat_at", changing=ALL_ROWS, deletes=True
    ),
    "trials": Access(
        ALL_ROWS,
        adds="study_id candidate_id data_version_id device limit_seconds lease_until retries",
        adding=ALL_ROWS,
        changes="state device limit_seconds lost_seconds lease_key lease_until failure finished_at beat_at",
        changing=ALL_ROWS,
    ),
    "suggestion_batches": Access(ALL_ROWS, adds="request_key policy requested settings_id", adding=ALL_ROWS),
    "suggestions": Access(ALL_ROWS, adds=f"{_SUGGESTION} rival", adding=ALL_ROWS),
    "offers": Access(ALL_ROWS, adds="implementation study", adding=ALL_ROWS, changes="asked_at", changing=ALL_ROWS),
    "locks": Access(ALL_ROWS, changes="held", changing=ALL_ROWS),
}
"""Table -> what the role ``easeml_scheduler`` may do with it."""

KINDS = {TENANT: TENANTS, DEVICE: DEVICES, SCHEDULER: SCHEDULERS, VIEWER: VIEWERS, PERSON: PEOPLE}
_NEEDED = (TENANT, DEVICE, SCHEDULER)
"""Without these there are no logins; without the others the pages have the rights of easeml_worker."""

_FUNCTIONS = {
    "my_tenants()": (TENANT, DEVICE, VIEWER, PERSON),
    "my_changes()": (PERSON,),
    "rival_of(bigint, integer)": (TENANT, DEVICE, SCHEDULER, VIEWER, PERSON),
    "apply_changes()": (SCHEDULER,),
    "end_sessions(bigint, double precision)": (SCHEDULER,),
    # The place of a request among those that the caller may read.
    "queue_place(bigint, integer)": (TENANT, DEVICE, SCHEDULER, VIEWER, PERSON),
    "claim_trial(bigint, text, text, jsonb)": (TENANT, DEVICE),
    "cancel_trial(bigint)": (TENANT, PERSON),
    "announce_device(text, text, text, text, text, integer, text, integer, integer)": (TENANT, DEVICE),
    "set_study_paused(bigint, boolean)": (TENANT, PERSON),
    "change_study(bigint, text, text)": (TENANT, PERSON),
    "set_candidate_withdrawn(bigint, text, boolean, text)": (TENANT, PERSON),
}


def set_grants(tx: Connection, revision: str) -> bool:
    """Give the roles their rights; False where the server has no such roles, and nothing is changed."""
    asked = "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)"
    found = {name for (name,) in tx.exec_driver_sql(asked, (list(KINDS),))}
    if not found.issuperset(_NEEDED):
        return False
    kinds = [role for role in KINDS if role in found]
    done = list(_statements(kinds))
    mark = f"rights {hashlib.sha256(repr((revision, done)).encode()).hexdigest()}"
    if tx.exec_driver_sql("SELECT obj_description('work.my_tenants()'::regprocedure)").scalar() == mark:
        return True
    for statement in (*_taken(tx, kinds), *done, f"COMMENT ON FUNCTION work.my_tenants() IS '{mark}'"):
        tx.exec_driver_sql(statement)
    return True


def _taken(tx: Connection, kinds: Sequence[str]) -> Iterator[str]:
    """Yield what takes all rights and policies away, and closes every table to who has no policy."""
    roles = ", ".join(kinds)
    for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
        yield f"REVOKE ALL ON ALL {kind} IN SCHEMA work FROM {roles}"
    for name, table in tx.exec_driver_sql("SELECT policyname, tablename FROM pg_policies WHERE schemaname = 'work'"):
        yield f"DROP POLICY {name} ON work.{table}"
    for (table,) in tx.exec_driver_sql("SELECT tablename FROM pg_tables WHERE schemaname = 'work' ORDER BY 1"):
        yield f"ALTER TABLE work.{table} ENABLE ROW LEVEL SECURITY"
        yield f"CREATE POLICY all_rows ON work.{table} TO {WORKER}, {REFEREE} USING (true) WITH CHECK (true)"


def _statements(kinds: Sequence[str]) -> Iterator[str]:
    """Yield the grants and policies of these roles."""
    yield f"GRANT USAGE ON SCHEMA work TO {', '.join(kinds)}"
    # Whether there are any: then the pages keep tenants apart, and `easeml scheduler` is needed.
    yield f"GRANT SELECT ON work.tenant_logins TO {WORKER}, {REFEREE}"
    for function, roles in _FUNCTIONS.items():
        for role in sorted(set(roles).intersection(kinds)):
            yield f"GRANT EXECUTE ON FUNCTION work.{function} TO {role}"
    for role in kinds:
        for table, access in KINDS[role].items():
            yield from _of_table(role, table, access)


def _of_table(role: str, table: str, access: Access) -> Iterator[str]:
    yield f"GRANT SELECT{f' ({_names(access.shows)})' if access.shows else ''} ON work.{table} TO {role}"
    yield _policy(role, "reads", table, f"FOR SELECT TO {role} USING ({access.reads})")
    if access.adds:
        yield f"GRANT INSERT ({_names(access.adds)}) ON work.{table} TO {role}"
        yield _policy(role, "adds", table, f"FOR INSERT TO {role} WITH CHECK ({access.adding})")
    if access.deletes:
        yield f"GRANT DELETE ON work.{table} TO {role}"
        yield _policy(role, "deletes", table, f"FOR DELETE TO {role} USING ({access.reads})")
    if access.changes:
        yield f"GRANT UPDATE ({_names(access.changes)}) ON work.{table} TO {role}"
        # The row may leave the state in which it could be changed; which row it is cannot be changed.
        yield _policy(role, "changes", table, f"FOR UPDATE TO {role} USING ({access.changing}) WITH CHECK (true)")


def _names(columns: str) -> str:
    return ", ".join(f'"{name}"' for name in columns.split())


def _policy(role: str, verb: str, table: str, rule: str) -> str:
    rule = rule.replace("{table}", table)
    return f"CREATE POLICY {role.removeprefix('easeml_')}_{verb} ON work.{table} {rule}"
