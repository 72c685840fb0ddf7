"""What tests of the store do to trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import Executor
from easeml_core.store.tables import leases, trials

if TYPE_CHECKING:
    from sqlalchemy import Connection


def begin_attempt(tx: Connection, trial_id: int, *, key: str = "key", seconds: float = 60) -> int:
    """Begin an attempt as a worker that has what the trial's candidate needs; the attempt's number."""
    executor = Executor(trials.get_trial(tx, trial_id).implementation, "test")
    number = leases.start_trial(tx, trial_id=trial_id, lease_key=key, lease_seconds=seconds, executor=executor)
    assert number is not None, "the trial cannot be started, or its candidate has another implementation"
    return number
