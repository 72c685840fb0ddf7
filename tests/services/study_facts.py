"""Facts and steps of a study for tests; what a test does not name has usual values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from easeml_core.entities import StudyState
from easeml_core.services.reports.next_steps import NextStep
from easeml_core.store.queries.overview import StudySummary

if TYPE_CHECKING:
    from easeml_core.services.reports.recommendations import Severity, StepKind

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

FACTS = StudySummary(
    tenant="lab",
    study="x-ray",
    state=StudyState.ACTIVE,
    source="csv:x-ray",
    metric="accuracy",
    created_at=NOW,
    weight=1.0,
    tenant_weight=1.0,
    budget_seconds=None,
    priority=0,
    deadline=None,
    target_quality=None,
    active_since=NOW,
    reserved_seconds=0.0,
    tenant_quota_seconds=None,
    tenant_charged_seconds=0.0,
    tenant_max_parallel=None,
    tenant_open_trials=0,
    candidates=5,
    trials=3,
    running=0,
    waiting=0,
    failed=0,
    cancelled=0,
    not_held=0,
    not_held_trial=None,
    not_held_at=None,
    best_quality=0.9,
    best_quality_day_ago=None,
    device_seconds=30.0,
    device_seconds_day=30.0,
    ended_day=3,
    lost=0,
    lost_at=None,
    queued_at=None,
    best_candidate="forest",
    best_model_id=7,
    best_verdict=None,
    best_is_judged=False,
    best_was_promoted=False,
    verdict=None,
    verdict_model_id=None,
    signal=None,
    signals=None,
    direct_signal=None,
    drift=None,
    submissions_left=None,
    meter_retired=False,
    teams=1,
    production_model_id=None,
    production_candidate=None,
    production_quality=None,
    best_stands=False,
    open_alerts=0,
    alert_kind=None,
    alert_kinds=[],
    sets_wanted=[],
    gate_set_live=True,
    gate_set_waits=False,
    meter_set_waits=False,
    gate_steps=20,
    gate_steps_used=2,
    labels_on_demand=False,
    asked_at=None,
    judging_at=None,
    refusal=None,
    read_at=NOW,
    seconds_left=None,
    best_trial_id=11,
    all_trials=3,
)


def study_facts(**changes: Any) -> StudySummary:
    """Return the facts of an active study with three results of five candidates, but for these changes."""
    return replace(FACTS, **changes)


def next_step_of(study: str | None, kind: StepKind, severity: Severity, **changes: Any) -> NextStep:
    """Return a step of a study whose tenant bears its name, but for these changes."""
    step = NextStep(study, study, kind, severity, "a title", "a reason", "do it", "/", "", None)
    return replace(step, **changes)
