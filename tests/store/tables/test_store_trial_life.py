"""A trial's life in any order of events: suggest, claim, beat, fall silent, expire, finish, fail, cancel.

Hypothesis chooses the order, on a real database and with the functions that workers call. After each event the rows are
compared with the rows before it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from property_sizes import examples

from easeml_core.entities import TrialState
from easeml_core.errors import TrialStateError
from easeml_core.services.trials.execution import (
    Lease,
    cancel_trial,
    claim,
    expire_leases,
    record_failure,
    record_success,
)
from easeml_core.store.rows import change, rows
from easeml_core.store.tables import trials
from easeml_core.training.job import TrainingResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_ATTEMPTS = 3
KEYS = st.sampled_from(["worker-a", "worker-b", "worker-c"])
PICK = st.integers(min_value=0, max_value=10**6)
S, R, OK, F, C = TrialState
ALLOWED = {(S, S), (R, R), (S, R), (S, F), (S, C), (R, S), (R, OK), (R, F), (R, C)}

_ROWS = """
SELECT t.id, t.state, t.attempt, t.lease_key, t.lease_until < now() AS over, t.cancel_requested, t.failure,
       t.cost_seconds, (SELECT count(*) FROM work.observations o WHERE o.trial_id = t.id) AS observations,
       (SELECT count(*) FROM work.models m WHERE m.trial_id = t.id) AS models
FROM work.trials t WHERE t.study_id = :study_id ORDER BY t.id
"""


class TrialLife(RuleBasedStateMachine):
    """One study with four candidates and three workers, none of which knows what the others do."""

    def __init__(self, database: Any, artifacts: Any, model: Path, make_rows: Callable[..., Any], name: str) -> None:
        super().__init__()
        self.store, self.artifacts, self.model = database.worker, artifacts, model
        self.study = make_rows(name, candidates=4, max_attempts=MAX_ATTEMPTS)
        self.leases: list[Lease] = []
        self.before = self.look()

    def look(self) -> dict[int, Any]:
        with self.store.begin() as tx:
            return {r.id: r for r in rows(tx, _ROWS, study_id=self.study.study_id)}

    def some_trial(self, pick: int) -> Any:
        return list(self.before.values())[pick % len(self.before)]

    def holds(self, lease: Lease) -> bool:
        """Whether this attempt is the one that may end its trial."""
        trial = self.before[lease.trial.id]
        return bool(trial.state == R and trial.attempt == lease.attempt)

    @precondition(lambda self: len(self.before) < 4)
    @rule()
    def suggest(self) -> None:
        with self.store.begin() as tx:
            trials.add_trial(
                tx,
                study_id=self.study.study_id,
                candidate_id=self.study.candidates[len(self.before)],
                data_version_id=self.study.version_id,
            )

    @precondition(lambda self: self.before)
    @rule(pick=PICK, key=KEYS)
    def claim(self, pick: int, key: str) -> None:
        trial = self.some_trial(pick)
        taken = trial.state == R and trial.lease_key != key and not trial.over
        try:
            lease = claim(self.store, trial_id=trial.id, request_key=key)
        except TrialStateError:
            assert taken
            return
        assert not taken
        if lease is None:
            assert self.look()[trial.id].state in (OK, F, C)
        else:
            assert lease.attempt == trial.attempt + 1 <= MAX_ATTEMPTS
            self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(pick=PICK)
    def beat(self, pick: int) -> None:
        lease = self.leases[pick % len(self.leases)]
        lease.beat()
        assert lease.lost == (not self.holds(lease))
        assert lease.cancelled == (self.holds(lease) and self.before[lease.trial.id].cancel_requested)

    @precondition(lambda self: any(t.state == R for t in self.before.values()))
    @rule(pick=PICK)
    def fall_silent(self, pick: int) -> None:
        running = [t.id for t in self.before.values() if t.state == R]
        with self.store.begin() as tx:
            past = "UPDATE work.trials SET lease_until = now() - interval '1 min' WHERE id = :id"
            change(tx, past, id=running[pick % len(running)])

    @rule()
    def expire(self) -> None:
        silent = {t.id for t in self.before.values() if t.state == R and t.over}
        assert silent == set(expire_leases(self.store)) & set(self.before)

    @precondition(lambda self: self.leases)
    @rule(pick=PICK, quality=st.floats(0, 1))
    def succeed(self, pick: int, quality: float) -> None:
        lease = self.leases[pick % len(self.leases)]
        result = TrainingResult(quality, 1.5, self.model, "skops", np.zeros(2, dtype=np.int64))
        self.end(lease, lambda: record_success(self.store, self.artifacts, lease, result))

    @precondition(lambda self: self.leases)
    @rule(pick=PICK)
    def fail(self, pick: int) -> None:
        lease = self.leases[pick % len(self.leases)]
        self.end(lease, lambda: record_failure(self.store, lease, "it crashed"))

    def end(self, lease: Lease, record: Callable[[], None]) -> None:
        try:
            record()
        except TrialStateError:
            assert not self.holds(lease)
        else:
            assert self.holds(lease)

    @precondition(lambda self: self.before)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        trial = self.some_trial(pick)
        state = cancel_trial(self.store, trial_id=trial.id).state
        assert state == (C if trial.state == S else trial.state)

    @invariant()
    def nothing_is_lost_and_nothing_counts_twice(self) -> None:
        now = self.look()
        for trial in now.values():
            earlier = self.before.get(trial.id)
            if earlier is not None:
                self.moved_forward(earlier, trial)
            assert (trial.state == R) == (trial.lease_key is not None)
            assert (trial.state == F) == (trial.failure is not None)
            assert trial.observations == trial.models == (1 if trial.state == OK else 0)
            assert trial.attempt <= MAX_ATTEMPTS
        attempts = Counter((lease.trial.id, lease.attempt) for lease in self.leases)
        assert max(attempts.values(), default=1) == 1  # so at most one lease of a trial is alive
        self.before = now

    @staticmethod
    def moved_forward(earlier: Any, now: Any) -> None:
        if earlier.state in (OK, F, C):
            assert earlier == now
        else:
            assert (earlier.state, now.state) in ALLOWED
            assert now.attempt >= earlier.attempt


def test_any_order_of_events_keeps_the_invariants(
    database: Any, artifacts: Any, make_rows: Callable[..., Any], tmp_path: Path
) -> None:
    model, made = tmp_path / "model.skops", Counter()
    model.write_bytes(b"a model")

    def life() -> TrialLife:
        made["study"] += 1
        return TrialLife(database, artifacts, model, make_rows, f"study-{made['study']}")

    run_state_machine_as_test(
        life,
        settings=settings(
            max_examples=examples(40), stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
