"""Trials that replace those that failed because of their task, what could execute trials lately, and restarts.

A recorded restart of the installation is evidence that an attempt was lost to it. The role of tasks reads restarts and
writes none. The latest start of the database server counts without a row; a referee records it, so that it still counts
after the next start (``requests.note_attempt``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.store.rows import change, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection


_LAST = """
WITH RECURSIVE place AS (
  SELECT CAST(:id AS bigint) AS id
  UNION ALL SELECT t.id FROM place JOIN work.trials t ON t.retries = place.id)
SELECT max(id) FROM place
"""

# Of each candidate the failure that stands last in its place; ``tries`` counts the whole chain, which goes over one
# candidate and one version of the data.
_CHANGED = """
SELECT t.id FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id AND c.withdrawn_at IS NULL
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


def is_withdrawn(tx: Connection, candidate_id: int) -> bool:
    """Whether the candidate is withdrawn."""
    return bool(scalar(tx, "SELECT withdrawn_at IS NOT NULL FROM work.candidates WHERE id = :id", id=candidate_id))


def changed_since(
    tx: Connection,
    *,
    sources: Mapping[str, str],
    code_version: str | None,
    studies: Sequence[str] | None,
    most: int,
) -> list[int]:
    """Trials of active studies that failed because of a task that is another one by now, oldest first.

    Those of withdrawn candidates are left out.

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
