"""Trials that replace those that failed because of their task, what could execute trials lately, and restarts.

A recorded restart of the installation is evidence that an attempt was lost to it. The role of tasks reads restarts and
writes none. The latest start of the database server counts without a row; a referee records it, so that it still counts
after the next start (``requests.note_attempt``).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.encoding import typed_record
from easeml_core.store.rows import change, records, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection


ASKED_WITHIN = "interval '7 days'"
"""Callers that asked for trials within this time count as active; covers a weekly DAG."""

_LAST = """
WITH RECURSIVE place AS (
  SELECT CAST(:id AS bigint) AS id
  UNION ALL SELECT t.id FROM place JOIN work.trials t ON t.retries = place.id)
SELECT max(id) FROM place
"""

# Of each candidate the failure that stands last in its place; ``tries`` counts the whole chain, which goes over one
# candidate and one version of the data.
_CHANGED = """
SELECT t.id FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id
JOIN work.studies s ON s.id = t.study_id AND s.state = 'ACTIVE'
  AND (CAST(:studies AS text[]) IS NULL OR s.name = ANY(CAST(:studies AS text[])))
LEFT JOIN unnest(CAST(:names AS text[]), CAST(:hashes AS text[])) AS f (name, hash) ON c.implementation = f.name
WHERE t.failure_kind = 'task' AND NOT EXISTS (SELECT FROM work.trials n WHERE n.retries = t.id)
AND t.data_version_id = (SELECT max(v.id) FROM work.data_versions v WHERE v.study_id = t.study_id)
AND (SELECT count(*) FROM work.trials k WHERE k.candidate_id = t.candidate_id
     AND k.data_version_id = t.data_version_id AND k.retries IS NOT NULL) < :most
AND CASE WHEN c.kind = 'function'
    THEN f.hash IS NOT NULL AND f.hash IS DISTINCT FROM t.executor_details ->> 'source_hash'
    ELSE CAST(:version AS text) IS NOT NULL
         AND CAST(:version AS text) IS DISTINCT FROM t.executor_details ->> 'code_version' END
ORDER BY t.id
"""


def last_in_place(tx: Connection, trial_id: int) -> int:
    """The trial that stands last in the place of this one: itself where it was not retried."""
    return int(scalar(tx, _LAST, id=trial_id))


def changed_since(
    tx: Connection,
    *,
    sources: Mapping[str, str],
    code_version: str | None,
    studies: Sequence[str] | None,
    most: int,
) -> list[int]:
    """Trials of active studies that failed because of a task that is another one by now, oldest first.

    Args:
        tx: Role ``easeml_worker``.
        sources: Names of training functions with the hashes of their sources.
        code_version: Of the trainers that are there; None where none are.
        studies: Names of the studies that trials are asked of; None for all.
        most: Leave out candidates that were tried again so often on their data.
    """
    names = [f"function:{name}" for name in sources]
    found = rows(
        tx,
        _CHANGED,
        names=names,
        hashes=list(sources.values()),
        version=code_version,
        studies=None if studies is None else list(studies),
        most=most,
    )
    return [r.id for r in found]


def note_offer(tx: Connection, *, functions: Iterable[str], trainers: bool, studies: Sequence[str] | None) -> None:
    """Record, at most once a minute, that a caller with these implementations asks for trials of these studies."""
    named = [*(f"function:{name}" for name in functions), *(["trainer"] if trainers else [])]
    change(
        tx,
        "INSERT INTO work.offers (implementation, study) "
        "SELECT i, s FROM unnest(CAST(:named AS text[])) AS i, unnest(CAST(:studies AS text[])) AS s "
        "ON CONFLICT ON CONSTRAINT offers_pkey DO UPDATE SET asked_at = now() "
        "WHERE offers.asked_at < now() - interval '1 minute'",
        named=named,
        studies=[""] if studies is None else list(studies),
    )


# Counted: candidates without a trial on the present data, or with one that no worker holds. Where no caller has asked
# for trials of the study within the time, it waits for a DAG and not for an implementation.
_WAITING = f"""
WITH chosen AS (
  SELECT s.id, s.name FROM work.studies s
  WHERE s.state = 'ACTIVE' AND (CAST(:names AS text[]) IS NULL OR s.name = ANY(CAST(:names AS text[])))),
asking AS (
  SELECT o.study, CASE WHEN o.implementation = 'trainer' THEN NULL ELSE o.implementation END AS implementation
  FROM work.offers o WHERE o.asked_at > now() - {ASKED_WITHIN})
SELECT s.name AS study, need.implementation, count(*) AS candidates
FROM chosen s JOIN work.candidates c ON c.study_id = s.id
CROSS JOIN LATERAL (
  SELECT CASE WHEN c.kind = 'function' THEN c.implementation END AS offered,
         CASE WHEN c.kind IN ('function', 'command', 'container') THEN c.implementation
         ELSE 'trainer:' || c.kind END AS implementation) need
WHERE c.withdrawn_at IS NULL AND EXISTS (SELECT FROM asking a WHERE a.study IN ('', s.name))
AND NOT EXISTS (
  SELECT FROM asking a WHERE a.study IN ('', s.name) AND a.implementation IS NOT DISTINCT FROM need.offered)
AND NOT EXISTS (
  SELECT FROM work.trials t WHERE t.candidate_id = c.id
  AND t.data_version_id = (SELECT max(v.id) FROM work.data_versions v WHERE v.study_id = s.id)
  AND (t.state <> 'SUGGESTED' OR t.lease_until >= now()))
GROUP BY s.name, need.implementation ORDER BY s.name, need.implementation
"""


_FUNCTIONS = """
WITH waiting AS (
  SELECT s.name AS study, c.name, c.kind, c.implementation FROM work.studies s
  JOIN work.candidates c ON c.study_id = s.id AND c.withdrawn_at IS NULL
  WHERE s.state = 'ACTIVE' AND (CAST(:names AS text[]) IS NULL OR s.name = ANY(CAST(:names AS text[])))
  AND NOT EXISTS (
    SELECT FROM work.trials t WHERE t.candidate_id = c.id
    AND t.data_version_id = (SELECT max(v.id) FROM work.data_versions v WHERE v.study_id = s.id)
    AND (t.state <> 'SUGGESTED' OR t.lease_until >= now())))
SELECT w.study, w.implementation, array_agg(w.name ORDER BY w.name) AS candidates,
       (SELECT max(o.asked_at) FROM work.offers o
        WHERE o.implementation = w.implementation AND o.study IN ('', w.study)) AS asked_at,
       EXISTS (SELECT FROM waiting x WHERE x.study = w.study AND x.kind <> 'function') AS has_others
FROM waiting w WHERE w.kind = 'function' GROUP BY w.study, w.implementation ORDER BY w.study, w.implementation
"""


@typed_record
class WaitingFunction:
    """Candidates of a study that wait for a task that executes their training function.

    Attributes:
        study: The study.
        implementation: ``function:NAME``.
        candidates: Their names, in alphabetical order.
        asked_at: When a caller with this function last asked for trials of the study; None where none has.
        has_others: Whether candidates wait, too, that a device can run.
    """

    study: str
    implementation: str
    candidates: list[str]
    asked_at: datetime | None
    has_others: bool


def waiting_for_functions(tx: Connection, *, names: Iterable[str] | None) -> list[WaitingFunction]:
    """Return the training functions for which candidates of active studies wait, by study.

    Args:
        tx: Any role.
        names: Of these studies only; None for all.
    """
    return records(tx, WaitingFunction, _FUNCTIONS, names=None if names is None else list(names))


@typed_record
class WaitingCandidates:
    """Candidates of a study, by implementation, that no active DAG or device can execute."""

    study: str
    implementation: str
    candidates: int


@typed_record
class TaskFailures:
    """Trials of a study that failed because of their task, oldest first."""

    study: str
    trials: list[int]


def waiting_for_implementation(tx: Connection, *, names: Iterable[str] | None = None) -> list[WaitingCandidates]:
    """Count the candidates of active studies that nothing that asks for trials can execute.

    Args:
        tx: Any role.
        names: Of these studies only; None for all.

    Returns:
        By study.
    """
    return records(tx, WaitingCandidates, _WAITING, names=None if names is None else list(names))


def task_failures(tx: Connection, *, names: Iterable[str] | None) -> list[TaskFailures]:
    """Trials on the present data that failed because of their task and whose place nothing has taken, by study.

    Args:
        tx: Any role.
        names: Of these studies, where they are active; None for all.
    """
    return records(
        tx,
        TaskFailures,
        "SELECT s.name AS study, array_agg(t.id ORDER BY t.id) AS trials FROM work.trials t "
        "JOIN work.studies s ON s.id = t.study_id WHERE s.state = 'ACTIVE' "
        "AND (CAST(:names AS text[]) IS NULL OR s.name = ANY(CAST(:names AS text[]))) AND t.failure_kind = 'task' "
        "AND t.data_version_id = (SELECT max(v.id) FROM work.data_versions v WHERE v.study_id = t.study_id) "
        "AND NOT EXISTS (SELECT FROM work.trials n WHERE n.retries = t.id) GROUP BY s.name ORDER BY s.name",
        names=None if names is None else list(names),
    )


MOST_EXCUSED = 10
"""Attempts of one trial that restarts excuse at most, as in ``work.trials_excused_check``."""


def note_server_start(tx: Connection) -> bool:
    """Record when the database server started, once; True where that was new. Role ``easeml_referee``."""
    return bool(
        change(
            tx,
            "INSERT INTO work.restarts (what, at) VALUES ('server', pg_postmaster_start_time()) "
            "ON CONFLICT ON CONSTRAINT restarts_once_key DO NOTHING",
        )
    )


def state_restart(tx: Connection, *, reason: str) -> None:
    """Record that workers were restarted or taken away just now, e.g. a node that was drained. Role ``easeml_owner``.

    Raises:
        ConfigError: The reason is empty, too long, or more than one line.
    """
    is_line = len(reason.strip()) >= 1 and len(reason) <= 200 and reason.isprintable()
    require(is_line, "reason", reason, "a line of 1 to 200 characters")
    change(tx, "INSERT INTO work.restarts (what, reason) VALUES ('stated', :reason)", reason=reason)
