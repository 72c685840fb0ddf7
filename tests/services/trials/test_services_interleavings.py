"""Any interleaving of suggest, claim, record, cancel and lost leases keeps what the store promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from property_sizes import NIGHTLY

from easeml_core.entities import TrialState
from easeml_core.errors import TrialStateError
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import (
    FINAL,
    Lease,
    cancel_trial,
    claim,
    expire_leases,
    record_failure,
    record_success,
)
from easeml_core.training.job import TrainingResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_ATTEMPTS = 3
STATES = "SELECT id, state FROM work.trials"
FOUND = """
SELECT (SELECT json_object_agg(id, state) FROM work.trials),
       (SELECT array_agg(trial_id ORDER BY trial_id) FROM work.observations),
       (SELECT array_agg(trial_id ORDER BY trial_id) FROM work.models WHERE trial_id IS NOT NULL),
       (SELECT count(*) = count(DISTINCT (candidate_id, data_version_id)) FROM work.trials),
       (SELECT max(attempt) FROM work.trials)
"""


class Interleavings(RuleBasedStateMachine):
    """Over a fresh copy of the laboratory each; a subclass says from where."""

    trials, leases = Bundle("trials"), Bundle("leases")
    make_lab: ClassVar[Callable[[], Any]]
    model: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.lab = type(self).make_lab()
        self.states: dict[int, str] = dict(self.lab.rows(STATES))
        self.batches: dict[str, Any] = {}
        self.handed_in, self.succeeded = set(self.states), set[int]()

    def teardown(self) -> None:
        self.lab.close()

    @rule(target=trials, count=st.integers(1, 4), key=st.sampled_from("abcdef"))
    def suggest(self, count: int, key: str) -> Any:
        answer = suggest_trials(self.lab.worker, count=count, request_key=key)
        assert self.batches.setdefault(key, answer) == answer  # the same key, the same trials
        return multiple(*(t.trial_id for t in answer.trials))

    @rule(target=leases, trial=trials, worker=st.sampled_from(["w1", "w2"]))
    def claim(self, trial: int, worker: str) -> Any:
        try:
            lease = claim(self.lab.worker, trial_id=trial, request_key=worker)
        except TrialStateError:
            assert self.states[trial] == "RUNNING"
            return multiple()
        return multiple() if lease is None else lease

    @rule(lease=leases, quality=st.floats(0, 1))
    def succeed(self, lease: Lease, quality: float) -> None:
        result = TrainingResult(quality, 1.0, self.model, "constant", np.zeros(85, dtype=np.int64))
        try:
            record_success(self.lab.worker, self.lab.artifacts, lease, result)
        except TrialStateError:
            return
        assert lease.trial.id not in self.succeeded  # no trial succeeds twice
        self.succeeded.add(lease.trial.id)

    @rule(lease=leases)
    def fail(self, lease: Lease) -> None:
        try:
            record_failure(self.lab.worker, lease, "it crashed")
        except TrialStateError:
            return
        assert lease.trial.id not in self.succeeded

    @rule(lease=leases)
    def beat(self, lease: Lease) -> None:
        lease.beat()

    @rule(trial=trials)
    def cancel(self, trial: int) -> None:
        cancel_trial(self.lab.worker, trial_id=trial)

    @rule(trial=trials)
    def lose(self, trial: int) -> None:
        """Its worker falls silent, or no worker ever starts it."""
        over = "UPDATE work.trials SET lease_until = now() - interval '1 s' WHERE id = %s AND state = ANY(%s)"
        self.lab.as_superuser(over, trial, ["SUGGESTED", "RUNNING"])

    @rule()
    def expire(self) -> None:
        expire_leases(self.lab.worker)

    @invariant()
    def the_store_keeps_its_promises(self) -> None:
        ((states, observed, modelled, is_once, attempts),) = self.lab.rows(FOUND)
        found = {int(trial): state for trial, state in states.items()}
        for trial, state in found.items():  # states only move forward
            before = self.states.get(trial, "SUGGESTED")
            assert before not in FINAL or state == before
            assert (before, state) != ("SUGGESTED", "SUCCEEDED")  # a worker must have run it
        assert set(self.states) <= set(found)
        self.states = found
        expected = sorted(self.succeeded | self.handed_in)  # what succeeded is observed once
        assert observed == modelled == expected
        assert sorted(t for t, s in found.items() if s == TrialState.SUCCEEDED) == expected
        assert is_once  # no candidate runs twice on the same data
        assert attempts <= MAX_ATTEMPTS


def test_any_interleaving_keeps_the_stores_promises(make_lab: Any, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_text('{"label": 1}')
    run_state_machine_as_test(
        type("HereAndNow", (Interleavings,), {"make_lab": staticmethod(make_lab), "model": model}),
        settings=settings(
            max_examples=8 if settings.get_current_profile_name() != NIGHTLY else 60,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
