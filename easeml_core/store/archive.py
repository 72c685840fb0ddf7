"""Archived studies and tenants, withdrawn candidates, and what nothing depends on and is deleted (ADR 0035).

The changes are functions of the schema (``migrations/initial/changes.sql``). For the pages and the command line they
are made at once, for a tenant's login by the scheduler's process (``store/tables/scheduler_requests.py``).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.entities import StudyState
from easeml_core.formats.encoding import typed_record
from easeml_core.store.database import REFEREE_CHANNEL, notify, notify_pages
from easeml_core.store.rows import record, records, rows, scalar
from easeml_core.store.tables.studies import GONE

if TYPE_CHECKING:
    from sqlalchemy import Connection


@typed_record
class Dependents:
    """What a study has.

    Attributes:
        state: The study's state.
        production: The model in production; None for none.
        open_trials: Trials that wait or run.
        open_requests: Requests to the referee without an answer.
        candidates: All of them, withdrawn ones as well; likewise ``trials``, ``models`` and ``test_sets``.
        data_versions: Versions of its data; a study with one has sealed rows.
    """

    state: StudyState
    production: int | None
    open_trials: list[int]
    open_requests: list[int]
    candidates: int
    trials: int
    models: int
    test_sets: int
    data_versions: int


_DEPENDENTS = """
SELECT s.state, (SELECT model_id FROM work.production WHERE study_id = s.id) AS production,
       ARRAY(SELECT id FROM work.trials WHERE study_id = s.id AND finished_at IS NULL ORDER BY id) AS open_trials,
       ARRAY(SELECT r.id FROM work.requests r WHERE r.study_id = s.id
         AND NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = r.id) ORDER BY r.id) AS open_requests,
       (SELECT count(*) FROM work.candidates WHERE study_id = s.id) AS candidates,
       (SELECT count(*) FROM work.trials WHERE study_id = s.id) AS trials,
       (SELECT count(*) FROM work.models WHERE study_id = s.id) AS models,
       (SELECT count(*) FROM work.test_sets WHERE study_id = s.id) AS test_sets,
       (SELECT count(*) FROM work.data_versions WHERE study_id = s.id) AS data_versions
FROM work.studies s WHERE s.id = :id
"""


def dependents(tx: Connection, study_id: int) -> Dependents:
    """Return what hangs on a study that exists."""
    found = record(tx, Dependents, _DEPENDENTS, id=study_id)
    assert found is not None  # read in the transaction that has found the study
    return found


def apply_study_change(tx: Connection, study_id: int, study: str, wanted: str, why: str) -> bool:
    """Archive, restore or delete a study, and notify who waits; for a tenant's login file it."""
    waiting = dependents(tx, study_id).open_requests
    done = bool(
        scalar(tx, "SELECT work.change_study(:id, :wanted, :why)", id=study_id, wanted=wanted, why=why),
    )
    notify(tx, f"study:{study}")
    notify_pages(tx, study)
    notify(tx, *(f"request:{number}" for number in waiting), channel=REFEREE_CHANNEL)
    return done


@typed_record
class ArchivedStudy:
    """An archived study.

    Attributes:
        study: ``NAME``, or ``NAME@NUMBER`` where another study means the name now.
        study_id: Its number.
        tenant: Its tenant.
        was: Its state before.
        archived_at: When.
        who: Who archived it; None where the caller may not read that.
        why: The reason.
        production: The model that was in production; None for none.
        trials: How many it has.
    """

    study: str
    study_id: int
    tenant: str
    was: StudyState
    archived_at: datetime
    who: str | None
    why: str
    production: int | None
    trials: int


_ARCHIVED = f"""
SELECT CASE WHEN s.id = (SELECT z.id FROM work.studies z WHERE z.name = s.name
         ORDER BY z.state IN {GONE}, z.id DESC LIMIT 1) THEN s.name ELSE s.name || '@' || s.id END AS study,
       s.id AS study_id, t.name AS tenant, s.archived_from AS was, s.archived_at,
       (SELECT a.who FROM work.audit a WHERE a.study_id = s.id AND a.act = 'study archived'
        ORDER BY a.id DESC LIMIT 1) AS who, s.archived_why AS why,
       (SELECT model_id FROM work.production WHERE study_id = s.id) AS production,
       (SELECT count(*) FROM work.trials WHERE study_id = s.id) AS trials
FROM work.studies s JOIN work.tenants t ON t.id = s.tenant_id WHERE s.state = 'ARCHIVED'
ORDER BY s.archived_at DESC, s.id DESC LIMIT :limit
"""


def archived_studies(tx: Connection, *, limit: int) -> list[ArchivedStudy]:
    """Return the archived studies that the role may see, the newest first."""
    return records(tx, ArchivedStudy, _ARCHIVED, limit=limit)


def was_deleted(tx: Connection, kind: str, name: str) -> bool:
    """Whether the audit has that something of this name was deleted: ``study`` or ``tenant``."""
    asked = "SELECT EXISTS (SELECT FROM work.audit WHERE act = :act AND before ->> 'name' = :name)"
    return bool(scalar(tx, asked, act=f"{kind} deleted", name=name))


def set_withdrawn(tx: Connection, study_id: int, candidate: str, *, withdrawn: bool, why: str) -> bool:
    """Withdraw a candidate, or let it be suggested again; whether that changed anything."""
    asked = "SELECT work.set_candidate_withdrawn(:id, :candidate, :withdrawn, :why)"
    return bool(scalar(tx, asked, id=study_id, candidate=candidate, withdrawn=withdrawn, why=why))


def waiting_trials(tx: Connection, study_id: int, candidate: str) -> list[int]:
    """Return the candidate's trials that no worker holds."""
    found = rows(
        tx,
        "SELECT t.id FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id "
        "WHERE t.study_id = :id AND c.name = :candidate AND t.state = 'SUGGESTED' ORDER BY t.id",
        id=study_id,
        candidate=candidate,
    )
    return [r.id for r in found]


def apply_tenant_change(tx: Connection, tenant_id: int, wanted: str, why: str) -> bool:
    """Archive, restore or delete a tenant; whether that changed anything."""
    return bool(scalar(tx, "SELECT work.change_tenant(:id, :wanted, :why)", id=tenant_id, wanted=wanted, why=why))


@typed_record
class OfTenant:
    """What a tenant has.

    Attributes:
        archived_at: Since when it is archived; None where it is not.
        studies: Names of its studies that are not archived.
        archived_studies: How many are.
        production: Those of ``studies`` with a model in production.
    """

    archived_at: datetime | None
    studies: list[str]
    archived_studies: int
    production: list[str]


def of_tenant(tx: Connection, tenant_id: int) -> OfTenant:
    """Return what hangs on a tenant that exists."""
    found = record(
        tx,
        OfTenant,
        "SELECT t.archived_at, ARRAY(SELECT s.name FROM work.studies s WHERE s.tenant_id = t.id "
        "AND s.state <> 'ARCHIVED' ORDER BY 1) AS studies, (SELECT count(*) FROM work.studies s "
        "WHERE s.tenant_id = t.id AND s.state = 'ARCHIVED') AS archived_studies, "
        "ARRAY(SELECT s.name FROM work.production p JOIN work.studies s ON s.id = p.study_id "
        "WHERE s.tenant_id = t.id AND s.state <> 'ARCHIVED' ORDER BY 1) AS production "
        "FROM work.tenants t WHERE t.id = :id",
        id=tenant_id,
    )
    assert found is not None  # read in the transaction that has found the tenant
    return found
