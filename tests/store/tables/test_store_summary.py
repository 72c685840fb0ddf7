"""The one query behind every table of tenants, on a small state worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from attempts import begin_attempt

from easeml_core.entities import Executor, Symbol, TrialState
from easeml_core.formats.encoding import row_of
from easeml_core.store.queries.overview import busy_devices, policies_used, study_summaries
from easeml_core.store.queries.study import guard_of_day
from easeml_core.store.rows import change, scalar
from easeml_core.store.tables import decisions, leases, releases, requests, studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable


def test_nothing_registered_is_nothing_to_show(store: Any) -> None:
    with store.begin() as tx:
        assert study_summaries(tx) == policies_used(tx) == []


def test_a_fresh_study_has_zeros_and_gaps(store: Any, make_rows: Callable[..., Any]) -> None:
    make_rows("iris", tenant="botany", candidates=4)
    with store.begin() as tx:
        (row,) = study_summaries(tx)
    found = row_of(row)
    assert [found.pop(k) is not None for k in ("active_since", "created_at", "read_at")] == [True] * 3
    assert found == {
        "tenant": "botany",
        "study": "iris",
        "state": "ACTIVE",
        "source": "csv:iris",
        "metric": "accuracy",
        "weight": 2.0,
        "tenant_weight": 1.0,
        "budget_seconds": None,
        "priority": 0,
        "deadline": None,
        "seconds_left": None,
        "target_quality": None,
        "reserved_seconds": 0.0,
        "tenant_quota_seconds": None,
        "tenant_charged_seconds": 0.0,
        "tenant_max_parallel": None,
        "tenant_open_trials": 0,
        "candidates": 4,
        "trials": 0,
        "running": 0,
        "waiting": 0,
        "failed": 0,
        "cancelled": 0,
        "ended_day": 0,
        "lost": 0,
        "lost_at": None,
        "queued_at": None,
        "best_quality": None,
        "best_quality_day_ago": None,
        "best_candidate": None,
        "best_model_id": None,
        "best_verdict": None,
        "best_is_judged": False,
        "best_was_promoted": False,
        "best_stands": False,
        "device_seconds": 0.0,
        "device_seconds_day": 0.0,
        "verdict": None,
        "verdict_model_id": None,
        "signal": None,
        "signals": None,
        "direct_signal": None,
        "drift": None,
        "submissions_left": None,
        "meter_retired": None,
        "teams": None,
        "production_model_id": None,
        "production_candidate": None,
        "production_quality": None,
        "open_alerts": 0,
        "alert_kind": None,
        "alert_kinds": [],
        "sets_wanted": [],
        "gate_set_live": False,
        "gate_set_waits": False,
        "meter_set_waits": False,
        "gate_steps": None,
        "gate_steps_used": 0,
        "labels_on_demand": False,
        "asked_at": None,
        "judging_at": None,
        "refusal": None,
        "best_trial_id": None,
        "not_held": 0,
        "not_held_trial": None,
        "not_held_at": None,
        "all_trials": 0,
    }


@pytest.mark.parametrize(("device", "weight"), [("gpu", 1.0), ("gpu:4", 4.0), ("gpu/4", 0.25)])
def test_a_running_trial_takes_seconds_of_each_of_its_devices(
    database: Any, make_rows: Any, device: str, weight: float
) -> None:
    made = make_rows("iris", tenant="botany")
    with database.owner.begin() as tx:
        ids = {"study_id": made.study_id, "data_version_id": made.version_id}
        trial = trials.add_trial(tx, candidate_id=made.candidates[0], device=device, **ids)
        executor = Executor(trials.get_trial(tx, trial).implementation, "test")
        leases.start_trial(tx, trial_id=trial, lease_key="k", lease_seconds=3600, executor=executor)
        change(
            tx,
            "UPDATE work.trials SET suggested_at = now() - interval '1 day', started_at = now() - interval '2 h', "
            "attempt_started_at = now() - interval '2 h', lease_until = now() + interval '1 h'",
        )
    with database.worker.begin() as tx:
        (row,) = study_summaries(tx)
        assert row.device_seconds_day == pytest.approx(7200 * weight, rel=1e-2)
        assert guard_of_day(tx).seconds == pytest.approx(7200 * weight, rel=1e-2)
        assert busy_devices(tx, None)[-1] == pytest.approx(weight)


def test_the_numbers_of_a_lively_study(database: Any, store: Any, world: Any, succeed: Callable[..., Any]) -> None:
    """The world: one done (0.8 in 3 s), one waiting, one running, gated, metered, promoted, one alert. And more."""
    study = world.study
    with store.begin() as tx:
        studies.add_candidates(tx, study.study_id, [{"name": f"more-{k}", "kind": "tree"} for k in range(4)])
        study.candidates = [c.id for c in studies.list_candidates(tx, study.study_id)]
    succeed(study, 3, quality=0.9, cost=4.5)
    succeed(study, 4, quality=0.9, cost=2.5)  # as good and cheaper: the best
    ids = {"study_id": study.study_id, "data_version_id": study.version_id}
    with database.owner.begin() as tx:
        change(tx, "UPDATE work.trials SET limit_seconds = 700 WHERE finished_at IS NULL")
    with store.begin() as tx:
        failed = trials.add_trial(tx, candidate_id=study.candidates[5], **ids)
        attempt = begin_attempt(tx, failed, key="k")
        ended = {"state": TrialState.FAILED, "failure": "out of memory", "cost_seconds": 10.0}
        leases.finish_trial(tx, trial_id=failed, attempt=attempt, **ended)
        cancelled = trials.add_trial(tx, candidate_id=study.candidates[6], **ids)
        trials.request_cancel(tx, cancelled)
        (row,) = study_summaries(tx)
        charged = scalar(tx, "SELECT sum(work.charge(t)) FROM work.trials t")
    assert row.tenant_charged_seconds == pytest.approx(charged), "the rule that triggers keep limits by"
    counts = {k: getattr(row, k) for k in ("candidates", "trials", "running", "waiting", "failed", "cancelled")}
    assert counts == {"candidates": 7, "trials": 3, "running": 1, "waiting": 1, "failed": 1, "cancelled": 1}
    assert (row.best_quality, row.best_candidate) == (0.9, "more-1")
    assert row.all_trials == 7
    assert row.best_model_id != world.model_id  # the first one stands, by a verdict on it
    assert (row.best_verdict, row.best_stands, row.production_quality) == (None, False, 0.8)
    assert (row.ended_day, row.device_seconds_day >= 20.0, row.best_quality_day_ago) == (5, True, None)
    assert (row.gate_steps, row.gate_steps_used, row.labels_on_demand) == (3, 1, False)
    assert row.device_seconds == 3.0 + 4.5 + 2.5 + 10.0
    assert (row.verdict, row.verdict_model_id) == ("pass", world.model_id)
    assert (row.signal, row.signals, row.meter_retired) == (2, 2, False)
    assert (row.production_model_id, row.production_candidate) == (world.model_id, "candidate-0")
    assert (row.open_alerts, row.refusal) == (1, None)


def test_the_newest_verdict_and_reading_count(database: Any, store: Any, world: Any, file: Callable[..., int]) -> None:
    answer = {"model_id": world.model_id, "step": 2, "cached": False}
    gate, meter = (file(world.study, kind, world.model_id, key=f"{kind}2") for kind in ("gate", "meter"))
    with database.referee.begin() as tx:
        verdict = releases.Verdict(
            incumbent_id=world.study.baseline_id,
            test_set_id=world.gate_set,
            symbol=Symbol.FAIL,
            planned=True,
            **answer,
        )
        releases.add_verdict(tx, request_id=gate, study_id=world.study.study_id, verdict=verdict)
        reading = releases.Reading(test_set_id=world.meter_set, signal=None, signals=2, **answer)
        releases.add_reading(tx, request_id=meter, study_id=world.study.study_id, reading=reading)
        assert not study_summaries(tx)[0].meter_retired  # a team of several may be at its end, and the set alive
        releases.retire_test_set(tx, world.meter_set, "signals")
    with store.begin() as tx:
        ((alert_id,),) = [(a.alert_id,) for a in releases.list_alerts(tx, world.study.study_id)]
        assert releases.clear_alert(tx, alert_id)
        assert not releases.clear_alert(tx, alert_id)
        (row,) = study_summaries(tx)
    assert row.verdict == "fail"
    assert (row.signal, row.meter_retired, row.open_alerts) == (None, True, 0)


def test_qualities_on_older_data_are_not_compared_with_those_on_new(
    store: Any, make_rows: Any, succeed: Callable[..., Any], add_data: Callable[..., int]
) -> None:
    study = make_rows()
    succeed(study, 0, quality=0.99, cost=5.0)
    study.version_id = add_data(study)
    with store.begin() as tx:
        assert [(r.best_quality, r.device_seconds) for r in study_summaries(tx)] == [(None, 5.0)]
    succeed(study, 1, quality=0.6, cost=1.0)
    with store.begin() as tx:
        (row,) = study_summaries(tx)
    assert (row.best_quality, row.best_candidate, row.device_seconds) == (0.6, "candidate-1", 6.0)


def test_studies_do_not_mix_and_come_by_tenant_and_name(
    database: Any, store: Any, make_rows: Any, succeed: Callable[..., Any], file: Callable[..., int]
) -> None:
    wine, _, iris = (make_rows(n, tenant=t) for n, t in (("wine", "b"), ("digits", "b"), ("iris", "a")))
    succeed(wine, 0, quality=0.3)
    succeed(wine, 1, quality=0.4)
    succeed(iris, 2, quality=0.7)
    refused = file(wine, "seal", None)
    with database.referee.begin() as tx:
        requests.add_answer(tx, refused, refused=True, message="too few rows")
    with store.begin() as tx:
        found = [(r.study, r.trials, r.best_quality, r.refusal) for r in study_summaries(tx)]
        assert study_summaries(tx, limit=1)[0].study == "iris"
    assert found == [("iris", 1, 0.7, None), ("digits", 0, None, None), ("wine", 2, 0.4, "too few rows")]


def test_policies_by_their_last_use(store: Any) -> None:
    with store.begin() as tx:
        for n, policy in enumerate(("hybrid", "default", "hybrid", "random", "default")):
            decisions.add_batch(tx, request_key=f"{n}", policy=policy, requested=1)
        assert policies_used(tx) == ["default", "random", "hybrid"]
