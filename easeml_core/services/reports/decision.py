"""Why a trial was suggested, as recorded then, and its result."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from attrs import evolve
from msgspec import UNSET, UnsetType

from easeml_core.entities import JsonObject, TrialState
from easeml_core.formats.display import html_page, html_table
from easeml_core.formats.encoding import from_json, typed_record
from easeml_core.selection.suggestion import RunnerUp, seconds_text
from easeml_core.services.trials.rungs import sentence_of
from easeml_core.settings.config import SelectionConfig
from easeml_core.settings.limits import PLUGIN
from easeml_core.store.tables import decisions, trials
from easeml_core.store.tables.trials import RungDecision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.entities import Trial
    from easeml_core.store.database import Store
    from easeml_core.store.tables.decisions import Suggested, TrialResult


@typed_record
class StoredRunnerUp(RunnerUp):
    """The second best as it was stored; the names are left out where an earlier version stored none."""

    study: str | UnsetType = UNSET
    candidate: str | UnsetType = UNSET


@typed_record
class HandedOut:
    """One time that the trial was handed out; the figures are None where it was only handed out again.

    Attributes:
        batch_id: The batch of suggestions.
        position: In the batch, from 0.
        requested: How many trials the batch was asked for.
        suggested_at: When, in the form of ISO 8601.
        policy: Which policy chose it.
        settings_id: The settings that held; None for the program's own.
        settings: These settings, as the version that stored them wrote them.
        chosen_by: ``acquisition``, ``guard``, ``learning`` or ``left over``.
        mean: Expected quality, in [0, 1].
        std: Standard deviation of that belief.
        predicted_cost_seconds: 1 for all trials while no cost was ever measured.
        predicted_cost_interval_seconds: What the cost lies between with a probability of 80 %.
        expected_improvement: Over the best quality of the study, >= 0.
        best: Best quality of the study then; 0 before its first result.
        acquisition: Worth of the trial to the policy.
        guard: The guard's share of compute, in [0, 1].
        runner_up: The second best; None where nothing else was left.
        sentence: The reason in one sentence.
        of_other_tenant: True where the second best is another tenant's, so that this role does not read what it is.
        instead_of: Why the default policy has chosen in place of a user's policy; not there where it has not.
    """

    batch_id: int
    position: int
    requested: int
    suggested_at: str
    policy: str
    settings_id: int | None
    settings: JsonObject
    chosen_by: str
    mean: float | None
    std: float | None
    predicted_cost_seconds: float | None
    predicted_cost_interval_seconds: tuple[float, float] | None
    expected_improvement: float | None
    best: float | None
    acquisition: float | None
    guard: float | None
    runner_up: StoredRunnerUp | None
    sentence: str | None
    of_other_tenant: bool | UnsetType = UNSET
    instead_of: str | UnsetType = UNSET

    @property
    def has_no_ranking(self) -> bool:
        """Whether a user's policy chose it, which says of no trial what it is worth."""
        return self.policy.startswith(PLUGIN) and not self.instead_of


@typed_record
class Chosen(HandedOut):
    """A time at which the policy chose the trial, so that its figures are known."""

    mean: float
    std: float
    predicted_cost_seconds: float
    expected_improvement: float
    best: float
    acquisition: float


_FIGURES = tuple(field.name for field in fields(Chosen) if field not in fields(HandedOut))
"""Fields of ``Chosen`` alone; early versions stored some of them, and null for a number that JSON lacks."""


@typed_record
class TrialEnding:
    """The result of a trial; None where that is not known.

    Attributes:
        state: Of the trial.
        device: Where it ran.
        quality: Of its model, in [0, 1].
        cost_seconds: What it took.
        best_before: Best quality of the study on the same data when it ended.
        improvement: Of its quality over ``best_before``.
        improved: Whether that is above 0.
        surprise: By how many standard deviations its quality was above what was expected.
        cost_ratio: Its cost over the predicted one.
        failure: Why it failed.
    """

    state: TrialState
    device: str | None
    quality: float | None
    cost_seconds: float | None
    best_before: float | None
    improvement: float | None
    improved: bool | None
    surprise: float | None
    cost_ratio: float | None
    failure: str | None


@typed_record
class TrialExplanation:
    """Everything that was stored about the decision for a trial, and its result.

    Attributes:
        trial_id: The trial.
        study: Its study.
        candidate: What it trains.
        sentence: Why it ran, how often it was handed out and what came of it.
        batches: Each time that it was handed out, oldest first.
        outcome: How it turned out.
        rungs: What was decided at its rungs, in their order.
    """

    trial_id: int
    study: str
    candidate: str
    sentence: str
    batches: list[HandedOut]
    outcome: TrialEnding
    rungs: tuple[RungDecision, ...]

    @property
    def chosen(self) -> Chosen | None:
        """The first time at which the policy chose it; None where no reasons were stored."""
        return next((batch for batch in self.batches if isinstance(batch, Chosen)), None)

    def _repr_html_(self) -> str:
        columns = {"Suggested at": "at", "Batch": "batch", "Policy": "policy", "Chosen by": "chosen_by"}
        columns |= {"Expected quality": "mean", "Std": "std", "Predicted seconds": "seconds"}
        return html_page(html_table(f"{self.sentence}.", columns, [_row_of(batch) for batch in self.batches]))


def _row_of(batch: HandedOut) -> dict[str, object]:
    """Return a hand-out as a row of a notebook's table."""
    row: dict[str, object] = {
        "at": batch.suggested_at[:19],
        "batch": batch.batch_id,
        "policy": batch.policy,
        "chosen_by": batch.chosen_by,
    }
    if isinstance(batch, Chosen):
        row |= {"mean": batch.mean, "std": batch.std, "seconds": batch.predicted_cost_seconds}
    return row


def explain_trial(store: Store, *, trial_id: int) -> TrialExplanation:
    """Return everything that was stored of the decision for a trial, and how it turned out."""
    with store.begin() as tx:
        trial = trials.get_trial(tx, trial_id)
        batches = [_batch(found) for found in decisions.suggestions_of_trial(tx, trial_id)]
        result = decisions.outcome_of_trial(tx, trial_id)
        decided = trials.decisions_of(tx, trial_id)
    outcome = _outcome(trial, result, batches)
    return TrialExplanation(
        trial_id=trial.id,
        study=trial.study,
        candidate=trial.candidate,
        sentence="; ".join([_sentence(trial, batches, outcome, result.reevaluates), *_stop(decided)]),
        batches=batches,
        outcome=outcome,
        rungs=decided,
    )


def _stop(decided: Sequence[RungDecision]) -> list[str]:
    """Say that a rung has stopped it, where one has."""
    return [f"it {sentence_of(decision)}" for decision in decided if not decision.goes_on]


def _batch(found: Suggested) -> HandedOut:
    """One time that the trial was handed out."""
    kind = Chosen if all(isinstance(found.reasons.get(name), int | float) for name in _FIGURES) else HandedOut
    stored = {field.name: found.reasons.get(field.name) for field in fields(kind)}
    for name in ("of_other_tenant", "instead_of"):
        if name not in found.reasons:
            del stored[name]
    own = {
        "batch_id": found.batch_id,
        "position": found.position,
        "requested": found.requested,
        "suggested_at": found.created_at.isoformat(),
        "policy": found.policy,
        "settings_id": found.settings_id,
        "settings": _settings(found.policy, found.config),
        "chosen_by": _chosen_by(found.reasons),
    }
    return from_json(stored | own, kind)


def _settings(policy: str, config: JsonObject | None) -> JsonObject:
    """The settings of the batch as plain JSON, whatever version stored them; its policy may have been asked for."""
    own = evolve(SelectionConfig(), policy=policy).to_json()
    return {**own, "order": list(own["order"]), **(config or {}), "policy": policy}


def _chosen_by(reasons: JsonObject) -> str:
    if "mean" not in reasons:
        return "left over"
    for name, share in (("guarded", "guard"), ("learning", "learning")):
        if reasons.get(name):
            return share
    return "acquisition"


def _outcome(trial: Trial, result: TrialResult, batches: Sequence[HandedOut]) -> TrialEnding:
    quality, cost, best = result.quality, result.cost_seconds, result.best_before
    forecast = next((batch for batch in batches if isinstance(batch, Chosen)), None)
    improvement = None if quality is None else quality - (best or 0.0)
    surprise = ratio = None
    if forecast is not None and quality is not None and forecast.std:
        surprise = (quality - forecast.mean) / forecast.std
    if forecast is not None and cost is not None and forecast.predicted_cost_seconds:
        ratio = cost / forecast.predicted_cost_seconds
    return TrialEnding(
        state=trial.state,
        device=trial.device,
        quality=quality,
        cost_seconds=cost,
        best_before=best,
        improvement=improvement,
        improved=None if improvement is None else improvement > 0,
        surprise=surprise,
        cost_ratio=ratio,
        failure=trial.failure,
    )


def _sentence(trial: Trial, batches: Sequence[HandedOut], outcome: TrialEnding, reevaluates: int | None) -> str:
    """Say in one sentence why it ran, how often it was suggested, and what its result was."""
    why = (batches[0].sentence or "") if batches else ""
    if reevaluates is not None:
        why = f"{trial.study}: {trial.candidate} of trial {reevaluates} was measured anew on another validation set"
    parts = [why or f"{trial.study}: {trial.candidate} was started without a suggestion, so no reason is stored"]
    if len(batches) > 1:
        parts.append(f"it was handed out {len(batches)} times")
    parts.append(_ending(trial, outcome))
    return "; ".join(parts)


def _ending(trial: Trial, outcome: TrialEnding) -> str:
    if trial.state is not TrialState.SUCCEEDED or outcome.quality is None:
        reason = (trial.failure or "").partition("\n")[0]
        words = {
            TrialState.SUGGESTED: "it waits to be started",
            TrialState.RUNNING: "it is running",
            TrialState.CANCELLED: "it was cancelled",
            TrialState.FAILED: f"it failed: {reason}",
            TrialState.SUCCEEDED: "it succeeded, and its quality was not recorded",
        }
        return words[trial.state]
    reached = f"it reached {outcome.quality:.4f} in {seconds_text(outcome.cost_seconds or 0.0)}"
    return f"{reached}{_surprise(outcome)}, {_gain(outcome)}"


def _surprise(outcome: TrialEnding) -> str:
    surprise = outcome.surprise
    if surprise is None:
        return ""
    return f", {abs(surprise):.1f} std {'above' if surprise >= 0 else 'below'} what was expected"


def _gain(outcome: TrialEnding) -> str:
    if outcome.best_before is None:
        return "the first result on these data"
    gain = outcome.improvement or 0.0
    if gain > 0:
        return f"{gain:.4f} better than the best before"
    return f"{-gain:.4f} short of the best before" if gain < 0 else "as good as the best before"
