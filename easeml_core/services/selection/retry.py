"""Retry trials that failed because of their task.

Such a failure says nothing about the candidate, but an automatic repetition would run a broken task for ever. Another
trial replaces it, once,

* when a user asks for it (``easeml trial retry``, or by clearing the Airflow task), or
* when a caller has another source of the training function, or another version of this package:
  ``MOST_BY_ITSELF`` times at most for one candidate on one version of the data.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from easeml_core.entities import FailureKind, TrialState
from easeml_core.errors import BudgetExhaustedError, ConcurrentUpdateError, StateError
from easeml_core.services.selection.executors import code_version
from easeml_core.services.studies.candidates import adding_command
from easeml_core.services.studies.limits import reservation
from easeml_core.settings.config import TrainingConfig
from easeml_core.settings.device_requests import weight_of
from easeml_core.store.database import lock, notify, notify_pages, savepoint, waiting_briefly
from easeml_core.store.tables import capacity, leases, studies, trials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.tables.trials import TrialReport

MOST_BY_ITSELF = 3
"""Automatic retries of a candidate on the same data after changes of its implementation; then a user must ask."""


def retry_trial(store: Store, *, trial_id: int) -> TrialReport:
    """Add a trial in place of one that failed because of its task; repeatable.

    The new trial is SUGGESTED; the next caller that can execute it receives it.
    """
    with store.begin() as tx:
        lock(tx, "suggest")  # trials are made under it alone
        last = leases.last_in_place(tx, trial_id)
        if last == trial_id or trials.get_trial(tx, last).failure_kind == FailureKind.TASK:
            last = _retry(tx, last)
        return trials.trial_report(tx, last)


def in_place_of(store: Store, *, trial_id: int, request_key: str) -> int:
    """Return the trial that a task must run when its argument is this trial: the last one in its place.

    A user who clears a task whose trial failed because of the task wants a retry, so one is added.
    """
    with store.begin() as tx:
        last = leases.last_in_place(tx, trial_id)
        trial = trials.get_trial(tx, last)
        if trial.failure_kind != FailureKind.TASK or trial.last_key != request_key:
            return last
        lock(tx, "suggest")
        again = leases.last_in_place(tx, last)  # another process may have come first
        return _retry(tx, last) if again == last else again


def changed_tasks(
    tx: Connection, *, sources: Mapping[str, str], trainers: bool, studies_only: Sequence[str] | None
) -> list[int]:
    """Return the trials that failed because of a task that has changed since, oldest first."""
    version = code_version() if trainers else None
    return leases.changed_since(tx, sources=sources, code_version=version, studies=studies_only, most=MOST_BY_ITSELF)


def retry_all(tx: Connection, failed: Sequence[int]) -> bool:
    """Retry these trials where budget and data allow it; return whether any was."""
    added = False
    for trial_id in failed:
        try:
            with savepoint(tx), waiting_briefly(tx):  # all decisions wait for this one
                _retry(tx, trial_id)
        except (BudgetExhaustedError, StateError, ConcurrentUpdateError):
            continue  # it waits for a budget, for newer data, or for a transaction that holds the failed trial
        added = True
    return added


def _retry(tx: Connection, trial_id: int) -> int:
    trial = trials.get_trial(tx, trial_id)
    if trial.failure_kind != FailureKind.TASK:
        what = "failed because of its candidate" if trial.state == TrialState.FAILED else f"is {trial.state}"
        message = (
            f"trial {trial_id} ({trial.study}, {trial.candidate}) {what}; only a trial that failed because of its task "
            "is retried"
        )
        if trial.state == TrialState.FAILED:
            other = {"kind": trial.kind, "name": f"{trial.candidate}-v2", "parameters": trial.parameters}
            message += f"; after a repair add another candidate: `{adding_command(trial.study, other)}`"
        raise StateError(message)
    if trial.data_version_id != studies.latest_data_version(tx, trial.study_id).id:
        message = (
            f"trial {trial_id} ({trial.study}, {trial.candidate}) ran on earlier data; its candidate is suggested on "
            "the newest data by itself"
        )
        raise StateError(message)
    if leases.is_withdrawn(tx, trial.candidate_id):
        restoring = shlex.join(["easeml", "candidate", "restore", trial.study, trial.candidate])
        message = (
            f"trial {trial_id} ({trial.study}): candidate {trial.candidate!r} was withdrawn; `{restoring}` lets it be "
            "tried again"
        )
        raise StateError(message)
    added = trials.add_trial(
        tx,
        study_id=trial.study_id,
        candidate_id=trial.candidate_id,
        data_version_id=trial.data_version_id,
        device=trial.device,
        limit_seconds=_limit(tx, trial.study_id, weight_of(trial.device)),
        retries=trial_id,
    )
    notify(tx, f"trial:{trial_id}")
    notify_pages(tx, trial.study)
    return added


def _limit(tx: Connection, study_id: int, devices: float) -> float | None:
    """Return the reservation, as for a trial without a predicted cost; None where nothing limits it."""
    left = capacity.seconds_left(tx, study_id)
    if left is None:
        return None
    study = studies.study_by_id(tx, study_id)
    time_limit = TrainingConfig.from_json(study.config.get("training") or {}).time_limit_seconds
    limit = reservation(left=left, time_limit_seconds=time_limit, predicted_seconds=None, devices=devices)
    if limit is None:
        what = f"compute budget of study {study.name!r}"
        raise BudgetExhaustedError(what, 0.0, left, "raise it with `easeml study set` or `easeml tenant set`")
    return limit
