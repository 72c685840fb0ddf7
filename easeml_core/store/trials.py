"""Trials, their states and their leases, as rows. Time is the database's clock, never a worker's.

A lease begins at ``clock_timestamp()``: the transaction may have waited long for the trial's row. Whether one is over
is asked with ``now()``, the transaction's start, so that such a wait never takes a lease away.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from easeml_core.entities import Trial, TrialState
from easeml_core.errors import NotFoundError
from easeml_core.store.database import notify
from easeml_core.store.rows import as_json, change, clean, row, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

_TRIAL = """
SELECT t.id, t.study_id, s.name AS study, t.candidate_id, c.name AS candidate, c.kind, c.parameters,
       t.data_version_id, t.state, t.attempt, t.failure, t.cancel_requested, t.lease_key, t.lease_until
FROM work.trials t JOIN work.studies s ON s.id = t.study_id JOIN work.candidates c ON c.id = t.candidate_id
"""


def _trial(found: Row[Any]) -> Trial:
    values = dict(found._mapping)
    return Trial(**values | {"state": TrialState(values["state"])})


def get_trial(tx: Connection, trial_id: int, *, lock: bool = False) -> Trial:
    """The trial, locked until the transaction ends when asked.

    Raises:
        NotFoundError: When there is none.
    """
    found = row(tx, _TRIAL + "WHERE t.id = :id" + (" FOR UPDATE OF t" if lock else ""), id=trial_id)
    if found is None:
        raise NotFoundError(kind="trial", name=trial_id, remedy="list them with `easeml study show STUDY`")
    return _trial(found)


def list_trials(tx: Connection, study_id: int) -> list[dict[str, Any]]:
    """All trials of a study with what is known of each, oldest first."""
    found = rows(
        tx,
        "SELECT t.id AS trial_id, c.name AS candidate, t.state, t.attempt, t.failure, t.progress, t.cost_seconds, "
        "t.data_version_id, o.quality, m.id AS model_id, t.finished_at FROM work.trials t "
        "JOIN work.candidates c ON c.id = t.candidate_id LEFT JOIN work.observations o ON o.trial_id = t.id "
        "LEFT JOIN work.models m ON m.trial_id = t.id WHERE t.study_id = :id ORDER BY t.id",
        id=study_id,
    )
    return [dict(r._mapping) for r in found]


def add_trial(tx: Connection, *, study_id: int, candidate_id: int, data_version_id: int) -> int:
    """A new SUGGESTED trial; ``trials_once_per_data_key`` refuses a second one for the same data."""
    return int(
        scalar(
            tx,
            "INSERT INTO work.trials (study_id, candidate_id, data_version_id) "
            "VALUES (:study_id, :candidate_id, :data_version_id) RETURNING id",
            study_id=study_id,
            candidate_id=candidate_id,
            data_version_id=data_version_id,
        )
    )


def unreserved_trials(tx: Connection, study_ids: Sequence[int]) -> list[Trial]:
    """SUGGESTED trials that nobody holds: their lease or reservation has run out."""
    found = rows(
        tx,
        _TRIAL + "WHERE t.state = 'SUGGESTED' AND (t.lease_until IS NULL OR t.lease_until < now()) "
        "AND t.study_id = ANY(:ids) ORDER BY t.id FOR UPDATE OF t SKIP LOCKED",
        ids=list(study_ids),
    )
    return [_trial(r) for r in found]


def outcomes(tx: Connection) -> list[dict[str, Any]]:
    """What every trial has told so far: finished ones in the order of their end, then the open ones."""
    found = rows(
        tx,
        "SELECT t.study_id, t.candidate_id, c.name AS candidate, t.data_version_id, t.state, o.quality, t.cost_seconds "
        "FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id "
        "LEFT JOIN work.observations o ON o.trial_id = t.id ORDER BY t.finished_at NULLS LAST, t.id",
    )
    return [dict(r._mapping) for r in found]


def expire_leases(tx: Connection) -> list[int]:
    """Take back leases that have run out; the trials' ids.

    CANCELLED when that was asked for, FAILED after the last attempt, else SUGGESTED again.
    """
    found = rows(
        tx,
        "WITH lost AS (SELECT t.id, CASE WHEN t.cancel_requested THEN 'CANCELLED' "
        "WHEN t.attempt >= (s.config -> 'training' ->> 'max_attempts')::int THEN 'FAILED' ELSE 'SUGGESTED' END AS next "
        "FROM work.trials t JOIN work.studies s ON s.id = t.study_id "
        "WHERE t.state = 'RUNNING' AND t.lease_until < now() FOR UPDATE OF t SKIP LOCKED) "
        "UPDATE work.trials t SET state = next, "
        "failure = CASE WHEN next = 'FAILED' THEN 'its worker was lost ' || attempt || ' times' END, "
        "finished_at = CASE WHEN next <> 'SUGGESTED' THEN clock_timestamp() END, "
        "lease_key = NULL, lease_until = NULL FROM lost WHERE t.id = lost.id RETURNING t.id, t.state",
    )
    for lost in found:
        if lost.state != TrialState.SUGGESTED:
            notify(tx, f"trial:{lost.id}")
    return [r.id for r in found]


def lease_is_over(tx: Connection, trial_id: int) -> bool:
    """Whether the trial's lease or reservation has run out, by the database's clock."""
    return bool(scalar(tx, "SELECT lease_until < now() FROM work.trials WHERE id = :id", id=trial_id))


def start_trial(tx: Connection, *, trial_id: int, lease_key: str, lease_seconds: float) -> int:
    """RUNNING under this key from now on; the number of this attempt, which fences off every earlier one."""
    return int(
        scalar(
            tx,
            "UPDATE work.trials SET state = 'RUNNING', attempt = attempt + 1, lease_key = :key, progress = NULL, "
            "lease_until = clock_timestamp() + make_interval(secs => :seconds), "
            "started_at = coalesce(started_at, clock_timestamp()) "
            "WHERE id = :id RETURNING attempt",
            id=trial_id,
            key=lease_key,
            seconds=lease_seconds,
        )
    )


def extend_lease(
    tx: Connection, *, trial_id: int, attempt: int, lease_seconds: float, progress: Mapping[str, Any] | None
) -> bool | None:
    """Heartbeat of one attempt: whether a cancel was asked for, or None when the lease is lost.

    Progress is for the eye: NaN in it becomes null, since a diverging loss is news and no reason to end a training.
    """
    found = row(
        tx,
        "UPDATE work.trials SET lease_until = clock_timestamp() + make_interval(secs => :seconds), "
        "progress = coalesce(CAST(:progress AS jsonb), progress) "
        "WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt RETURNING cancel_requested",
        id=trial_id,
        attempt=attempt,
        seconds=lease_seconds,
        progress=None if progress is None else as_json(json.loads(json.dumps(progress), parse_constant=lambda _: None)),
    )
    return None if found is None else bool(found.cancel_requested)


def request_cancel(tx: Connection, trial_id: int) -> None:
    """Ask for the trial's end: at once when it waits, at its next heartbeat when it runs."""
    change(
        tx,
        "UPDATE work.trials SET cancel_requested = true, "
        "state = CASE WHEN state = 'SUGGESTED' THEN 'CANCELLED' ELSE state END, "
        "finished_at = CASE WHEN state = 'SUGGESTED' THEN clock_timestamp() ELSE finished_at END "
        "WHERE id = :id AND state IN ('SUGGESTED', 'RUNNING')",
        id=trial_id,
    )


def finish_trial(
    tx: Connection,
    *,
    trial_id: int,
    attempt: int,
    state: TrialState,
    cost_seconds: float | None,
    failure: str | None = None,
) -> bool:
    """End one attempt; False when the lease was lost meanwhile, and then nothing is written."""
    return bool(
        change(
            tx,
            "UPDATE work.trials SET state = :state, failure = :failure, cost_seconds = :cost, lease_key = NULL, "
            "lease_until = NULL, finished_at = clock_timestamp() "
            "WHERE id = :id AND state = 'RUNNING' AND attempt = :attempt",
            id=trial_id,
            attempt=attempt,
            state=state,
            failure=None if failure is None else clean(failure),
            cost=cost_seconds,
        )
    )


def release_lease(tx: Connection, trial_id: int) -> None:
    """Set a RUNNING trial back to SUGGESTED: its lease was lost."""
    change(
        tx,
        "UPDATE work.trials SET state = 'SUGGESTED', lease_key = NULL, lease_until = NULL WHERE id = :id",
        id=trial_id,
    )


def give_up(tx: Connection, trial_id: int) -> None:
    """CANCELLED when that was asked for, else FAILED: its worker was lost too often."""
    change(
        tx,
        "UPDATE work.trials SET state = CASE WHEN cancel_requested THEN 'CANCELLED' ELSE 'FAILED' END, "
        "failure = CASE WHEN NOT cancel_requested THEN 'its worker was lost ' || attempt || ' times' END, "
        "lease_key = NULL, lease_until = NULL, finished_at = clock_timestamp() WHERE id = :id",
        id=trial_id,
    )
