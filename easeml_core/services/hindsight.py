"""A decision worked out again: everything that competed, and what the published policy HYBRID would have run instead.

Of a decision only the choice and its runner-up are stored. The rest follows from the trials that there were, since the
same observations give the same choice; studies, candidates and limits are taken as they are today. So the result is
held against what was stored, and where both do not agree to the last digit there is none.
"""

from __future__ import annotations

import math
import threading
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from easeml_core.config import SelectionConfig
from easeml_core.errors import ConfigError
from easeml_core.selection.costs import learn_costs
from easeml_core.selection.one_thread import one_thread
from easeml_core.selection.scheduler import scheduler_for
from easeml_core.services.memory import active_studies
from easeml_core.services.problem import build_problem, past_candidates, results_by_version, runnable_candidates
from easeml_core.store import decisions, studies, suggestions, tenants, trials

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from easeml_core.selection.problem import Problem
    from easeml_core.selection.scheduler import Choice, Pair, Scheduler
    from easeml_core.store.database import Store
    from easeml_core.store.decisions import Told

MOST_TRIALS, MOST_CANDIDATES = 5_000, 20_000
"""Larger installations are not worked out again for a page: it would take seconds."""

SHOWN = 9
KEPT = 256


@dataclass(frozen=True, slots=True)
class Competitor:
    """A candidate that could have run, and its worth to the policy."""

    study: str
    candidate: str
    worth: float


@dataclass(frozen=True, slots=True)
class Hindsight:
    """What competed then.

    Attributes:
        ranking: The best, first things first; what was chosen is among them if it was chosen for its worth.
        competing: How many could have run, over all studies.
        studies: How many studies they are of.
        hybrid: What HYBRID would have run with the same settings; its worth is HYBRID's own, an upper bound.
        past: Past searches, of earlier data or of studies that are not active, whose results the prior knew.
        cost_factor: The trial was expected to take between its predicted cost divided by this and multiplied by it,
            with a probability of 80 %; None where no cost was known.
    """

    ranking: tuple[Competitor, ...]
    competing: int
    studies: int
    hybrid: Competitor | None
    past: int = 0
    cost_factor: float | None = None


def hindsight(store: Store, *, trial_id: int) -> Hindsight | None:
    """What competed with a trial when it was chosen.

    Args:
        store: Role ``easeml_worker``.
        trial_id: A trial that the ``default`` policy has chosen.

    Returns:
        None where another policy chose it, or nobody did, where too much has changed since to work it out again, and
        where there is too much to work out.
    """
    with _mutex:
        kept = _kept.setdefault(store, {})
        if trial_id in kept:
            return kept[trial_id]
    with one_thread(), store.snapshot() as tx:
        found = _worked_out(tx, trial_id)
    with _mutex:
        if len(kept) >= KEPT:
            kept.pop(next(iter(kept)))
        kept[trial_id] = found
    return found


_mutex = threading.Lock()
_kept: weakref.WeakKeyDictionary[Store, dict[int, Hindsight | None]] = weakref.WeakKeyDictionary()


def _worked_out(tx: Connection, trial_id: int) -> Hindsight | None:
    trial = trials.get_trial(tx, trial_id)
    batches = suggestions.suggestions_of_trial(tx, trial_id)
    if not batches or batches[0]["policy"] != "default" or "mean" not in batches[0]["reasons"]:
        return None
    config, reasons = _config(batches[0]), batches[0]["reasons"]
    problem = None if config is None else _problem(tx, trial_id, batches[0]["created_at"])
    if config is None or problem is None:
        return None
    scheduler = scheduler_for(problem, config=config)
    choice = scheduler.choose(device=trial.device)
    if choice is None or not _agrees(choice, problem, reasons, (trial.study, trial.candidate)):
        return None
    published = scheduler_for(problem, config=replace(config, policy="hybrid"))
    told = _told(problem, scheduler, published.choose(device=trial.device), trial.device)
    past = sum(any(quality is not None for quality in past.qualities) for past in problem.history)
    return replace(told, past=past, cost_factor=_cost_factor(problem, choice.chosen, trial.device))


def _config(batch: Mapping[str, Any]) -> SelectionConfig | None:
    """The settings of then; None where this version does not know them any more."""
    try:
        stored = SelectionConfig() if batch["config"] is None else SelectionConfig.from_json(batch["config"])
    except (ConfigError, TypeError):
        return None
    return replace(stored, policy="default")


def _problem(tx: Connection, trial_id: int, moment: datetime) -> Problem | None:
    """The scheduler's input as of the decision, with today's studies, candidates and limits; None where it is large."""
    told = decisions.all_trials(tx)
    if len(told) > MOST_TRIALS:
        return None
    active, versions = active_studies(tx, None), studies.latest_data_versions(tx)
    results = results_by_version(_as_of(told, trial_id, moment))
    menus = decisions.menus(tx, [s.id for s in active])
    if sum(len(menu.ids) for menu in menus.values()) > MOST_CANDIDATES:
        return None
    return build_problem(
        active,
        runnable_candidates(active, menus, versions, results, training_parts=studies.training_parts(tx)),
        versions,
        results,
        rows=studies.training_rows(tx),
        tenants=tenants.list_tenants(tx),
        names=decisions.candidate_names(tx, past_candidates(active, versions, results)),
    )


def _as_of(told: Iterable[Told], trial_id: int, moment: datetime) -> list[Told]:
    """The trials that there were, those that have ended since as open ones; trials get their numbers one by one."""
    before = [t for t in told if t.id < trial_id]
    ended = [t for t in before if t.finished_at is not None and t.finished_at <= moment]
    rest = [t for t in before if t.finished_at is None or t.finished_at > moment]
    open_then = [t._replace(state="RUNNING", quality=None, cost_seconds=None, finished_at=None) for t in rest]
    return ended + sorted(open_then, key=lambda t: t.id)


def _agrees(choice: Choice, problem: Problem, reasons: Mapping[str, Any], chosen: tuple[str, str]) -> bool:
    """Whether the choice and its runner-up are those that were stored, by their names and to the last digit."""
    rival = reasons["runner_up"]
    stored = [(*chosen, reasons["acquisition"])]
    stored += [] if rival is None else [(rival.get("study"), rival.get("candidate"), rival["acquisition"])]
    pairs = [choice.chosen] + ([] if choice.runner_up is None else [choice.runner_up])
    return [_named(pair, problem) for pair in pairs] == stored


def _cost_factor(problem: Problem, chosen: Pair, device: str | None) -> float | None:
    """How far the cost may be off, by the cost model of the same observations."""
    model, arms = learn_costs(problem), problem.studies[chosen.tenant]
    if not model.known:
        return None
    forecast = model.forecast(arms.study_id, [arms.names[chosen.arm]], device)
    return float(forecast.interval(0.8)[1][0] / forecast.median[0])


def _named(pair: Pair, problem: Problem) -> tuple[str, str, float]:
    arms = problem.studies[pair.tenant]
    return arms.label, arms.names[pair.arm], pair.acquisition


def _told(problem: Problem, scheduler: Scheduler, hybrid: Choice | None, device: str | None) -> Hindsight:
    found: list[Competitor] = []
    waiting = 0
    for tenant, arms in enumerate(problem.studies):
        mine = _competitors(arms.label, arms.names, scheduler.worth(tenant, device=device))
        found += mine
        waiting += bool(mine)
    found.sort(key=lambda competitor: -competitor.worth)
    instead = None if hybrid is None else Competitor(*_named(hybrid.chosen, problem))
    return Hindsight(tuple(found[:SHOWN]), len(found), waiting, instead)


def _competitors(study: str, names: Sequence[str], worth: Any) -> list[Competitor]:
    return [Competitor(study, name, float(w)) for name, w in zip(names, worth, strict=True) if w > -math.inf]
