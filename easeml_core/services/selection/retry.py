"""Trials that failed because of their task: tried again by hand, or when what executes them has changed.

Such a trial says nothing of its candidate, so the candidate is not used up for these data; it is not suggested again by
itself either, or a broken task would run on for ever. Another trial takes its place, once,

* when a person asks for it (``easeml trial retry``, or an Airflow task that is cleared), after whatever was mended, or
* when somebody asks for trials whose function has another source than the one that failed, or whose version of this
  package is another: ``MOST_BY_ITSELF`` times at most for one candidate on one version of the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.config import TrainingConfig
from easeml_core.entities import FailureKind, TrialState
from easeml_core.errors import BudgetExhaustedError, StateError
from easeml_core.services.selection.executors import code_version
from easeml_core.services.studies.compute_budget import reservation
from easeml_core.store.database import lock, notify, savepoint, tell_pages
from easeml_core.store.tables import reservations, retries, studies, trials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.tables.trials import TrialReport

MOST_BY_ITSELF = 3
"""So often a candidate is tried again on the same data since what executes it has changed; then a person must ask."""


def retry_trial(store: Store, *, trial_id: int) -> TrialReport:
    """Let another trial take the place of one that failed because of its task; repeatable.

    The new trial waits as SUGGESTED, and the next that asks and can execute it is handed it.

    Args:
        store: Role ``easeml_worker``.
        trial_id: The trial that failed, or one whose place was taken already: then nothing is added.

    Returns:
        The report of the trial that stands last in its place, as ``run_trial`` gives it.

    Raises:
        NotFoundError: There is no such trial.
        StateError: It did not fail because of its task, or there are newer data.
        BudgetExhaustedError: Study or tenant has too little left for it.
    """
    with store.begin() as tx:
        lock(tx, "suggest")  # trials are made under it alone
        last = retries.last_in_place(tx, trial_id)
        if last == trial_id or trials.get_trial(tx, last).failure_kind == FailureKind.TASK:
            last = _retry(tx, last)
        return trials.trial_report(tx, last)


def in_place_of(store: Store, *, trial_id: int, request_key: str) -> int:
    """Return the trial that a task works on that was told to run this one.

    A task that is tried again after its trial failed because of it is meant to try it again: a person has cleared it.
    A trial whose place was taken meanwhile stands aside.

    Args:
        store: Role ``easeml_worker``.
        trial_id: What the task was told.
        request_key: The task's; only the task that failed tries again by itself.
    """
    with store.begin() as tx:
        last = retries.last_in_place(tx, trial_id)
        trial = trials.get_trial(tx, last)
        if trial.failure_kind != FailureKind.TASK or trial.last_key != request_key:
            return last
        lock(tx, "suggest")
        again = retries.last_in_place(tx, last)  # another process may have come first
        return _retry(tx, last) if again == last else again


def retry_changed(
    tx: Connection, *, sources: Mapping[str, str], trainers: bool, studies_only: Sequence[str] | None
) -> bool:
    """Retry what failed because of a task that is another one by now; whether anything was added.

    Args:
        tx: Holds the lock ``suggest``.
        sources: Names of the training functions that whoever asks has, with the hashes of their sources.
        trainers: Whether it has the trainers of this package.
        studies_only: Names of the studies that it asks trials of; None for all.
    """
    added = False
    version = code_version() if trainers else None
    failed = retries.changed_since(tx, sources=sources, code_version=version, studies=studies_only, most=MOST_BY_ITSELF)
    for trial_id in failed:
        try:
            with savepoint(tx):
                _retry(tx, trial_id)
        except (BudgetExhaustedError, StateError):
            continue  # it waits for a budget, or for newer data
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
        raise StateError(message)
    if trial.data_version_id != studies.latest_data_version(tx, trial.study_id).id:
        message = (
            f"trial {trial_id} ({trial.study}, {trial.candidate}) ran on earlier data; its candidate is suggested on "
            "the newest data by itself"
        )
        raise StateError(message)
    added = trials.add_trial(
        tx,
        study_id=trial.study_id,
        candidate_id=trial.candidate_id,
        data_version_id=trial.data_version_id,
        device=trial.device,
        limit_seconds=_limit(tx, trial.study_id),
        retries=trial_id,
    )
    notify(tx, f"trial:{trial_id}")
    tell_pages(tx, trial.study)
    return added


def _limit(tx: Connection, study_id: int) -> float | None:
    """Return what to reserve: as for a trial of which nothing is known; None where nothing limits it.

    Raises:
        BudgetExhaustedError: Too little is left.
    """
    left = reservations.seconds_left(tx, study_id)
    if left is None:
        return None
    study = studies.study_by_id(tx, study_id)
    time_limit = TrainingConfig.from_json(study.config.get("training") or {}).time_limit_seconds
    limit = reservation(left=left, time_limit_seconds=time_limit, predicted_seconds=None)
    if limit is None:
        what = f"compute budget of study {study.name!r}"
        raise BudgetExhaustedError(what, 0.0, left, "raise it with `easeml study set` or `easeml tenant set`")
    return limit
