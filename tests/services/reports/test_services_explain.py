"""Why a trial ran and what came of it, from what was stored when it was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.entities import Executor, TrialState
from easeml_core.errors import NotFoundError
from easeml_core.services.reports.decision import HandedOut, TrialExplanation, explain_trial
from easeml_core.services.selection.policy import set_policy
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import cancel_trial, claim, record_failure
from easeml_core.settings.config import SelectionConfig
from easeml_core.store.database import Store
from easeml_core.store.tables import leases, models, trials

if TYPE_CHECKING:
    from easeml_core.store.tables.decisions import SuggestedTrial


def suggest(lab: Any, count: int = 1, **changes: Any) -> list[SuggestedTrial]:
    return list(suggest_trials(lab.worker, **{"count": count, "request_key": lab.key()} | changes).trials)


def explain(lab: Any, trial: SuggestedTrial) -> TrialExplanation:
    return explain_trial(lab.worker, trial_id=trial.trial_id)


def succeed(lab: Any, trial: SuggestedTrial, *, quality: float, cost: float = 2.5) -> None:
    number = trial.trial_id
    with lab.worker.begin() as tx:
        attempt = leases.start_trial(
            tx,
            trial_id=number,
            lease_key="w",
            lease_seconds=60,
            executor=Executor(trials.get_trial(tx, number).implementation, "test"),
        )
        ended = {"trial_id": number, "attempt": attempt, "state": TrialState.SUCCEEDED}
        assert leases.finish_trial(tx, cost_seconds=cost, **ended)
        models.add_observation(tx, trial_id=number, quality=quality, cost_seconds=cost)


def test_everything_that_was_stored_of_the_decision(lab: Any) -> None:
    trial, _ = suggest(lab, 2)
    found = explain(lab, trial)
    assert (found.trial_id, found.study, found.candidate) == (trial.trial_id, trial.study, trial.candidate)
    (batch,) = found.batches
    stored = lab.one("SELECT reasons FROM work.suggestions WHERE trial_id = :id", id=trial.trial_id)
    for name in ("mean", "std", "predicted_cost_seconds", "expected_improvement", "best", "acquisition", "guard"):
        assert getattr(batch, name) == stored[name], name
    assert (batch.position, batch.requested, batch.policy) == (0, 2, "default")
    assert batch.settings_id is None
    assert SelectionConfig.from_json(batch.settings) == SelectionConfig()
    assert batch.sentence == trial.reason
    assert found.sentence.startswith(f"{trial.reason}; ")
    assert found.sentence.endswith("to be started")
    assert found.outcome.state == "SUGGESTED"
    assert found.outcome.quality is found.outcome.surprise is found.outcome.improved is None


def test_the_runner_up_has_names(lab: Any) -> None:
    first, second = suggest(lab, 2)
    (batch,) = explain(lab, first).batches
    assert batch.runner_up.acquisition >= 0
    names = (batch.runner_up.study, batch.runner_up.candidate)
    assert names[0] in ("full", "first", "hidden")
    assert "/".join(names) in first.reason
    for trial in suggest(lab, 20):
        for rival in (b.runner_up for b in explain(lab, trial).batches):
            assert rival is None or f"{rival.study}/{rival.candidate}" in trial.reason
    assert second.trial_id != first.trial_id


def test_a_success_is_measured_against_what_was_expected_and_what_was_there(lab: Any) -> None:
    (trial,) = suggest(lab, studies_only=["full"])
    best = lab.one(
        "SELECT max(quality) FROM work.observations o JOIN work.trials t ON t.id = o.trial_id "
        "JOIN work.studies s ON s.id = t.study_id WHERE s.name = 'full'"
    )
    succeed(lab, trial, quality=0.99, cost=2.5)
    found = explain(lab, trial)
    (batch,), outcome = found.batches, found.outcome
    assert (outcome.state, outcome.quality, outcome.cost_seconds) == ("SUCCEEDED", 0.99, 2.5)
    assert outcome.best_before == best
    assert (outcome.improvement, outcome.improved) == (pytest.approx(0.99 - best), best < 0.99)
    assert outcome.surprise == pytest.approx((0.99 - batch.mean) / batch.std)
    assert outcome.cost_ratio == pytest.approx(2.5 / batch.predicted_cost_seconds)
    side = "above" if outcome.surprise >= 0 else "below"
    assert f" 0.9900 in 2.5 s, {abs(outcome.surprise):.1f} std {side} " in found.sentence
    assert f" {0.99 - best:.4f} better " in found.sentence


def test_what_came_later_does_not_change_what_was_there_before(lab: Any) -> None:
    first, second = suggest(lab, 2, studies_only=["full"])
    succeed(lab, first, quality=0.1)
    before = explain(lab, first).outcome
    succeed(lab, second, quality=1.0)
    assert explain(lab, first).outcome == before
    assert before.improved is False
    assert " short of " in explain(lab, first).sentence


def test_a_failure_and_a_cancellation_are_said(lab: Any) -> None:
    failed, cancelled = suggest(lab, 2)
    record_failure(lab.worker, claim(lab.worker, trial_id=failed.trial_id, request_key="w"), "no memory\nTraceback")
    cancel_trial(lab.worker, trial_id=cancelled.trial_id)
    assert explain(lab, failed).sentence.endswith("; it failed: no memory")
    assert explain(lab, failed).outcome.failure == "no memory\nTraceback"
    assert explain(lab, cancelled).sentence.endswith("; it was cancelled")


def test_every_time_it_was_handed_out_is_there_in_order(lab: Any) -> None:
    (trial,) = suggest(lab)
    lab.let_run_out(trial.trial_id)
    (again,) = suggest(lab, policy="hybrid")
    assert again.trial_id == trial.trial_id
    found = explain(lab, trial)
    assert [b.policy for b in found.batches] == ["default", "hybrid"]
    assert [b.chosen_by == "left over" for b in found.batches] == [False, True]
    assert found.batches[0].batch_id < found.batches[1].batch_id
    assert found.batches[1].mean is None
    assert "handed out 2" in found.sentence
    succeed(lab, trial, quality=0.5)
    assert explain(lab, trial).outcome.surprise is not None  # against what was expected when it was chosen


def test_the_settings_of_the_batch_are_those_of_then(lab: Any) -> None:
    owner = Store(lab.url("easeml_owner"))
    answer = set_policy(owner, changes={"guard": 0.4, "policy": "hybrid"}, reason="then")
    (trial,) = suggest(lab, policy="default")
    set_policy(owner, changes={"guard": 0.0}, reason="now")
    owner.close()
    (batch,) = explain(lab, trial).batches
    assert batch.settings_id == answer.id
    assert SelectionConfig.from_json(batch.settings) == SelectionConfig(guard=0.4)
    assert batch.guard == 0.4


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [({}, "acquisition"), ({"guarded": True}, "guard"), ({"learning": True}, "learning")],
)
def test_who_chose_it(lab: Any, flags: dict[str, bool], chosen: str) -> None:
    (trial,) = suggest(lab)
    reasons = "reasons || jsonb_build_object('guarded', %s, 'learning', %s)"
    values = [flags.get(name, False) for name in ("guarded", "learning")]
    lab.as_superuser(f"UPDATE work.suggestions SET reasons = {reasons}", *values)
    (batch,) = explain(lab, trial).batches
    assert batch.chosen_by == chosen


@pytest.mark.parametrize("change", ["- 'expected_improvement' - 'best'", "|| jsonb_build_object('std', NULL)"])
def test_reasons_of_an_early_version_are_explained_without_figures(lab: Any, change: str) -> None:
    (trial,) = suggest(lab)
    lab.as_superuser(f"UPDATE work.suggestions SET reasons = reasons {change}")
    (batch,) = explain(lab, trial).batches
    assert (batch.chosen_by, batch.sentence) == ("learning", trial.reason)
    assert type(batch) is HandedOut


def test_a_trial_that_nobody_suggested_says_so(lab: Any, recorded: Any) -> None:
    number = lab.one("SELECT min(id) FROM work.trials")
    found = explain_trial(lab.worker, trial_id=number)
    assert found.batches == []
    assert found.outcome.surprise is None
    assert found.outcome.best_before is None
    recorded(found.sentence, "trial_without_a_suggestion")


def test_a_trial_that_is_not_there(lab: Any) -> None:
    with pytest.raises(NotFoundError, match="trial 999"):
        explain_trial(lab.worker, trial_id=999)
