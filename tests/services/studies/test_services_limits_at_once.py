"""Eight workers at once under every kind of limit, while a user changes the limits: nothing is exceeded or stuck."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from easeml_core.errors import BudgetExhaustedError
from easeml_core.services.registration.register import pause_study
from easeml_core.services.reports.overview import overview
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.candidates import add_candidates
from easeml_core.services.studies.limits import list_tenants, set_study, set_tenant
from easeml_core.services.trials.execution import cancel_trial, claim, record_failure
from easeml_core.store.database import Store

STUDIES = ("full", "first", "hidden")
WORKERS, CANDIDATES = 8, 40


def beyond(store: Store) -> list[str]:
    """What exceeds a limit at this moment, as people see it."""
    found = []
    for e in overview(store).tenants:
        if e.budget_seconds is not None and e.device_seconds + e.reserved_seconds > e.budget_seconds + 1e-9:
            found.append(f"budget of {e.study}: {e}")
    for t in list_tenants(store):
        taken = t.used_seconds + t.reserved_seconds
        if t.quota_seconds is not None and taken > t.quota_seconds + 1e-9:
            found.append(f"quota: {t}")
        if t.max_parallel is not None and t.open_trials > t.max_parallel:
            found.append(f"open trials: {t}")
    return found


def work(lab: Any, number: int) -> int:
    """Take a trial, spend some made-up time on it, record it, and so on; how many there were."""
    rng, store, done = random.Random(f"worker {number}"), Store(lab.url("easeml_worker")), 0
    for turn in range(25):
        key = f"{number}/{turn}"
        for trial in suggest_trials(store, count=1, policy="roundrobin", request_key=key).trials:
            if rng.random() < 0.1:
                cancel_trial(store, trial_id=trial.trial_id)
                continue
            lease = claim(store, trial_id=trial.trial_id, request_key=key)
            assert lease is not None
            lease.started -= rng.uniform(0.1, 1.1) * min(lease.reserved_seconds, 20.0)
            record_failure(store, lease, "made up")
            done += 1
    store.close()
    return done


def change(lab: Any, over: threading.Event) -> int:
    """A user sets limits, pauses and resumes; how often a limit below the present use was refused."""
    rng, store, refused = random.Random("somebody"), Store(lab.url("easeml_worker")), 0
    while not over.is_set():
        study = rng.choice(STUDIES)
        try:
            set_study(store, study=study, budget_seconds=rng.choice([None, rng.uniform(20, 700)]), priority=1)
            set_tenant(store, tenant="lab", max_parallel=rng.randint(1, 8), quota_seconds=rng.uniform(100, 3000))
        except BudgetExhaustedError:
            refused += 1
        pause_study(store, study=study, paused=True)
        pause_study(store, study=study, paused=False)
    store.close()
    return refused


def watch(lab: Any, over: threading.Event) -> tuple[int, list[str]]:
    """Look again and again: how often, and what was beyond a limit."""
    store, looks, answer = Store(lab.url("easeml_worker")), 0, []
    while not over.is_set():
        answer += beyond(store)
        looks += 1
    store.close()
    return looks, answer


@pytest.mark.journey
@pytest.mark.nightly
def test_eight_workers_under_changing_limits(lab: Any) -> None:
    tree = {"kind": "decision_tree"}
    trees = [tree | {"name": f"tree {k}", "parameters": {"max_depth": k + 1}} for k in range(CANDIDATES)]
    for study in STUDIES:
        add_candidates(lab.worker, study=study, candidates=trees)
    set_study(lab.worker, study="full", budget_seconds=60.0)
    set_study(lab.worker, study="first", budget_seconds=200.0)
    set_tenant(lab.worker, tenant="lab", max_parallel=6, quota_seconds=2000.0)
    over = threading.Event()
    with ThreadPoolExecutor(WORKERS + 2) as pool:
        watching, changing = pool.submit(watch, lab, over), pool.submit(change, lab, over)
        try:
            done = [w.result() for w in [pool.submit(work, lab, n) for n in range(WORKERS)]]
        finally:
            over.set()
    looks, answer = watching.result()
    assert answer == []
    assert looks > 10
    assert changing.result() > 0, "limits must have been refused, else nothing is shown"
    assert sum(done) > 20, "trials must have run, else nothing is shown"
    assert lab.one("SELECT count(*) FROM work.trials WHERE finished_at IS NULL") == 0
    pairs = "SELECT count(*) - count(DISTINCT (candidate_id, data_version_id)) FROM work.trials"
    assert lab.one(pairs) == 0
