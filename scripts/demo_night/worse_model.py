"""Hand a deliberately worse model to ``easeml_commit_gate``, and see it rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stack.failures import NightError

from demo_night.runs import Release, await_dag, follow, require_no_broken_tasks
from easeml_core.gate.condition import parse_condition
from easeml_core.services.models.promotion import model_list
from easeml_core.services.reports.overview import overview, study_details

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.progress import Progress
    from stack.rest import Rest

    from easeml_core.store.database import Store

GATE_DAG = "easeml_commit_gate"
BASELINE = "baseline"
"""Origin of the model that a study has before any other."""


@dataclass(frozen=True, slots=True)
class Worse:
    """A model that is worse than the one in production, by validation quality; ``candidate`` says where it is from."""

    study: str
    model_id: int
    candidate: str
    quality: float
    standing: str
    standing_quality: float
    condition: str


def find_worse(store: Store) -> Worse | None:
    """The widest gap between production and another model, over the studies whose gate compares the two.

    A trained model if there is one, else the baseline that production has replaced; None before any promotion.
    """
    found = [w for entry in overview(store).tenants for w in _worse_of(store, entry.study)]
    trained = [w for w in found if w.candidate != BASELINE]
    return max(trained or found, key=lambda w: w.standing_quality - w.quality, default=None)


def _worse_of(store: Store, study: str) -> list[Worse]:
    """All models of a study that are worse than the one that stands."""
    condition = str(study_details(store, study=study).settings["gate"]["condition"])
    listed = model_list(store, study=study)
    standing = next((m for m in listed if m.in_production), None)
    if standing is None or not compares(condition):
        return []
    return [
        Worse(
            study=study,
            model_id=model.model_id,
            candidate=model.origin,
            quality=model.validation_quality,
            standing=standing.origin,
            standing_quality=standing.validation_quality,
            condition=condition,
        )
        for model in listed
        if model.validation_quality < standing.validation_quality
    ]


def compares(condition: str) -> bool:
    """Whether a condition speaks of the old model: a worse one may well be good enough in itself."""
    return any(dict(clause.weights).get("o") for clause in parse_condition(condition).clauses)


def hand_in(rest: Rest, worse: Worse, progress: Progress, check: Callable[[], None]) -> Release:
    """Trigger the commit gate as its form would.

    Raises:
        NightError: If the gate lets the worse model pass, or something else breaks.
    """
    await_dag(rest, GATE_DAG, check)
    rest.pause(GATE_DAG, False)
    title = f"hand in a worse model: {worse.candidate} for {worse.study}, by {GATE_DAG}"
    with progress.step(title) as tell:
        run_id = rest.trigger(GATE_DAG, {"study": worse.study, "model": worse.model_id})
        for state, _ in follow(rest, GATE_DAG, run_id, check):
            tell(f"run {run_id}, {state}")
    released = require_no_broken_tasks(rest, GATE_DAG, run_id)
    if [r.symbol for r in released] != ["fail"] or released[0].promoted:
        message = f"the gate should have rejected {worse}, but answered {released}"
        raise NightError(message)
    return released[0]
