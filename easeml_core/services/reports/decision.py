"""Why a trial was suggested, as it was written down then, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from easeml_core.config import SelectionConfig
from easeml_core.entities import TrialState
from easeml_core.selection.suggestion import seconds_text
from easeml_core.services.trials.pruning import sentence_of
from easeml_core.store.tables import decisions, pruning, trials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.entities import Trial
    from easeml_core.store.database import Store
    from easeml_core.store.tables.decisions import Suggested, TrialResult
    from easeml_core.store.tables.pruning import RungDecision

_FIGURES = (
    *("mean", "std", "predicted_cost_seconds", "predicted_cost_interval_seconds", "expected_improvement", "best"),
    *("acquisition", "guard"),
)


def explain_trial(store: Store, *, trial_id: int) -> dict[str, Any]:
    """Everything that was stored of the decision for a trial, and how it turned out.

    Args:
        store: Role ``easeml_worker``.
        trial_id: The trial.

    Returns:
        ``{"trial_id", "study", "candidate", "sentence", "batches", "outcome", "rungs"}``. Each of ``rungs`` is what was
        decided there, and by which numbers (``store.rungs``). Each of ``batches``, oldest first, is a time that the
        trial was handed out: ``{"batch_id", "position", "requested", "suggested_at", "policy",
        "settings_id", "settings", "chosen_by", "mean", "std", "predicted_cost_seconds",
        "predicted_cost_interval_seconds", "expected_improvement", "best", "acquisition", "guard", "runner_up",
        "sentence"}``; figures are None where the trial was only handed out again. ``chosen_by`` is ``acquisition``,
        ``guard``, ``learning`` or ``left over``; ``settings_id`` None means the program's own settings. ``outcome`` is
        ``{"state", "device", "quality", "cost_seconds", "best_before", "improvement", "improved", "surprise",
        "cost_ratio", "failure"}``: ``surprise`` is how many standard deviations the quality was above what was
        expected, ``cost_ratio`` the cost over the predicted one; None where that is not known.

    Raises:
        NotFoundError: There is no such trial.
    """
    with store.begin() as tx:
        trial = trials.get_trial(tx, trial_id)
        batches = [_batch(found) for found in decisions.suggestions_of_trial(tx, trial_id)]
        told = decisions.outcome_of_trial(tx, trial_id)
        decided = pruning.decisions_of(tx, trial_id)
    outcome = _outcome(trial, told, batches)
    return {
        "trial_id": trial.id,
        "study": trial.study,
        "candidate": trial.candidate,
        "sentence": "; ".join([_sentence(trial, batches, outcome, told.reevaluates), *_stop(decided)]),
        "batches": batches,
        "outcome": outcome,
        "rungs": decided,
    }


def _stop(decided: Sequence[RungDecision]) -> list[str]:
    """That a rung has stopped it, where one has."""
    return [f"it {sentence_of(told)}" for told in decided if not told.goes_on]


def _batch(found: Suggested) -> dict[str, Any]:
    """One time that the trial was handed out."""
    reasons = found.reasons
    return {
        "batch_id": found.batch_id,
        "position": found.position,
        "requested": found.requested,
        "suggested_at": found.created_at.isoformat(),
        "policy": found.policy,
        "settings_id": found.settings_id,
        "settings": _settings(found.policy, found.config),
        "chosen_by": _chosen_by(reasons),
        **{name: reasons.get(name) for name in _FIGURES},
        "runner_up": reasons.get("runner_up"),
        "sentence": reasons.get("sentence"),
    }


def _settings(policy: str, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings of the batch as plain JSON, whatever version stored them; its policy may have been asked for."""
    own = evolve(SelectionConfig(), policy=policy).to_json()
    return {**own, "order": list(own["order"]), **(config or {}), "policy": policy}


def _chosen_by(reasons: Mapping[str, Any]) -> str:
    if "mean" not in reasons:
        return "left over"
    for name, share in (("guarded", "guard"), ("learning", "learning")):
        if reasons.get(name):
            return share
    return "acquisition"


def _outcome(trial: Trial, told: TrialResult, batches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    quality, cost, best = told.quality, told.cost_seconds, told.best_before
    forecast = _forecast(batches)
    improvement = None if quality is None else quality - (best or 0.0)
    std, predicted = forecast.get("std"), forecast.get("predicted_cost_seconds")
    return {
        "state": str(trial.state),
        "device": trial.device,
        "quality": quality,
        "cost_seconds": cost,
        "best_before": best,
        "improvement": improvement,
        "improved": None if improvement is None else improvement > 0,
        "surprise": (quality - forecast["mean"]) / std if quality is not None and std else None,
        "cost_ratio": cost / predicted if cost is not None and predicted else None,
        "failure": trial.failure,
    }


def _forecast(batches: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What was expected when the trial was chosen; empty where no reasons were stored."""
    return next((batch for batch in batches if batch["mean"] is not None), {})


def _sentence(
    trial: Trial, batches: Sequence[Mapping[str, Any]], outcome: Mapping[str, Any], reevaluates: int | None
) -> str:
    """Why it ran, how often it was handed out, and what came of it, in one sentence."""
    why = str(batches[0]["sentence"] or "") if batches else ""
    if reevaluates is not None:
        why = f"{trial.study}: {trial.candidate} of trial {reevaluates} was measured anew on another validation set"
    parts = [why or f"{trial.study}: {trial.candidate} was started without a suggestion, so no reason is stored"]
    if len(batches) > 1:
        parts.append(f"it was handed out {len(batches)} times")
    parts.append(_ending(trial, outcome))
    return "; ".join(parts)


def _ending(trial: Trial, outcome: Mapping[str, Any]) -> str:
    if trial.state is not TrialState.SUCCEEDED or outcome["quality"] is None:
        reason = (trial.failure or "").partition("\n")[0]
        words = {
            TrialState.SUGGESTED: "it waits to be started",
            TrialState.RUNNING: "it is running",
            TrialState.CANCELLED: "it was cancelled",
            TrialState.FAILED: f"it failed: {reason}",
            TrialState.SUCCEEDED: "it succeeded, and its quality was not recorded",
        }
        return words[trial.state]
    reached = f"it reached {outcome['quality']:.4f} in {seconds_text(outcome['cost_seconds'])}"
    return f"{reached}{_surprise(outcome)}, {_gain(outcome)}"


def _surprise(outcome: Mapping[str, Any]) -> str:
    surprise = outcome["surprise"]
    if surprise is None:
        return ""
    return f", {abs(surprise):.1f} std {'above' if surprise >= 0 else 'below'} what was expected"


def _gain(outcome: Mapping[str, Any]) -> str:
    if outcome["best_before"] is None:
        return "the first result on these data"
    gain = outcome["improvement"]
    if gain > 0:
        return f"{gain:.4f} better than the best before"
    return f"{-gain:.4f} short of the best before" if gain < 0 else "as good as the best before"
