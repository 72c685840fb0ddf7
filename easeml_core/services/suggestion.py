"""Which trials run next: all studies' results go in, trials with their reasons come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.config import SelectionConfig, require
from easeml_core.entities import StudyState
from easeml_core.errors import NotFoundError
from easeml_core.selection.suggest import suggest
from easeml_core.services.problem import build_problem, results_by_version, runnable_candidates
from easeml_core.store import studies, suggestions, trials
from easeml_core.store.database import lock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import Study, Trial
    from easeml_core.store.database import Store

RESERVE_SECONDS = 3600.0
"""How long a suggestion that nobody starts is kept for whoever asked; afterwards it is handed out again."""

_NOTHING = (
    "nothing to train: every candidate of the active studies has run on the present data, is under way, "
    "or is beyond its study's budget"
)


def suggest_trials(
    store: Store,
    *,
    count: int,
    policy: str = "default",
    studies_only: Sequence[str] | None = None,
    request_key: str,
) -> dict[str, Any]:
    """Suggest up to ``count`` trials over all active studies, and store them with their reasons.

    Trials that an earlier run left behind come first; no candidate is ever suggested twice for the same data.

    Args:
        store: Role ``easeml_worker``.
        count: How many at most, 1 to 1000.
        policy: One of ``easeml_core.config.POLICIES``.
        studies_only: Names of the studies to choose from; None for all active ones.
        request_key: Makes the call repeatable: the same key gives the same trials.

    Returns:
        ``{"policy", "trials": [{"trial_id", "study", "candidate", "reason"}], "message"}``. No trials is an answer.

    Raises:
        ConfigError: Count or policy is not allowed.
        NotFoundError: One of the studies does not exist.
    """
    require(type(count) is int and 1 <= count <= 1000, "count", count, "a whole number from 1 to 1000")
    require(bool(request_key), "request_key", request_key, "not empty: it makes the call repeatable")
    config = SelectionConfig(policy=policy)
    with store.begin() as tx:
        lock(tx, "suggest")  # one decision at a time: each sees what the one before it has handed out
        batch_id = suggestions.add_batch(tx, request_key=request_key, policy=policy, requested=count)
        if batch_id is not None:
            _fill(tx, batch_id, count, config, studies_only)
        made_by, found = suggestions.batch_of_request(tx, request_key)
    return {
        "policy": made_by,
        "trials": [
            {k: f[k] for k in ("trial_id", "study", "candidate")} | {"reason": f["reasons"]["sentence"]} for f in found
        ],
        "message": f"{len(found)} trials" if found else _NOTHING,
    }


def _fill(
    tx: Connection, batch_id: int, count: int, config: SelectionConfig, studies_only: Sequence[str] | None
) -> None:
    trials.expire_leases(tx)
    active = _active(tx, studies_only)
    left_over = trials.unreserved_trials(tx, [s.id for s in active])[:count]
    for position, trial in enumerate(left_over):
        reasons = {"policy": config.policy, "sentence": _left_over_sentence(trial)}
        _hand_out(tx, batch_id, position, trial.id, reasons)
    if len(left_over) < count:
        _suggest_new(tx, batch_id, count - len(left_over), len(left_over), config, active)


def _left_over_sentence(trial: Trial) -> str:
    why = f"its worker was lost in attempt {trial.attempt}" if trial.attempt else "an earlier run left it behind"
    return f"{trial.study}: {trial.candidate} is given again, {why}"


def _active(tx: Connection, names: Sequence[str] | None) -> list[Study]:
    active = studies.list_studies(tx, state=StudyState.ACTIVE)
    if names is None:
        return active
    known = {s.name for s in studies.list_studies(tx)}
    for name in names:
        if name not in known:
            raise NotFoundError(kind="study", name=name, known=known)
    return [s for s in active if s.name in set(names)]


def _suggest_new(
    tx: Connection, batch_id: int, count: int, position: int, config: SelectionConfig, active: list[Study]
) -> None:
    versions = studies.latest_data_versions(tx)
    results = results_by_version(trials.outcomes(tx))
    arms = runnable_candidates(active, studies.list_candidates(tx), versions, results)
    problem = build_problem(active, arms, versions, results)
    for offset, suggestion in enumerate(suggest(problem, count=count, config=config)):
        candidate = arms[suggestion.study_id][suggestion.arm]
        trial_id = trials.add_trial(
            tx,
            study_id=candidate.study_id,
            candidate_id=candidate.id,
            data_version_id=versions[candidate.study_id],
        )
        _hand_out(tx, batch_id, position + offset, trial_id, suggestion.to_json())


def _hand_out(tx: Connection, batch_id: int, position: int, trial_id: int, reasons: dict[str, Any]) -> None:
    suggestions.add_suggestion(
        tx,
        batch_id=batch_id,
        position=position,
        trial_id=trial_id,
        reasons=reasons,
        reserve_seconds=RESERVE_SECONDS,
    )
