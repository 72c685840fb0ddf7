"""From stored outcomes to the scheduler's view: present results per study, everything older as history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.entities import TrialState
from easeml_core.selection.problem import Arms, Past, Pending, Problem, Pull

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from easeml_core.entities import Candidate, Study

    Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of one trial; ``order`` is its place in the order of completion."""

    candidate_id: int
    candidate: str
    state: TrialState
    quality: float | None
    cost_seconds: float | None
    order: int

    @property
    def is_open(self) -> bool:
        """Suggested or running."""
        return self.state in (TrialState.SUGGESTED, TrialState.RUNNING)

    @property
    def is_withdrawn(self) -> bool:
        """Ended without anything to learn from: cancelled, or lost with its workers."""
        return not self.is_open and self.cost_seconds is None


def results_by_version(outcomes: Iterable[Mapping[str, Any]]) -> dict[Version, list[Result]]:
    """Results under (study id, data version id), from ``easeml_core.store.trials.outcomes``."""
    found: dict[Version, list[Result]] = {}
    for order, o in enumerate(outcomes):
        result = Result(
            o["candidate_id"], o["candidate"], TrialState(o["state"]), o["quality"], o["cost_seconds"], order
        )
        found.setdefault((o["study_id"], o["data_version_id"]), []).append(result)
    return found


def runnable_candidates(
    active: Sequence[Study],
    candidates: Iterable[Candidate],
    versions: Mapping[int, int],
    results: Mapping[Version, Sequence[Result]],
) -> dict[int, list[Candidate]]:
    """Per active study the candidates that the scheduler may know of, in their order: arm k is the k-th of them.

    A withdrawn candidate is left out on the present data: nothing was learnt, and nobody wants it repeated blindly.
    """
    withdrawn = {
        r.candidate_id for s in active for r in results.get((s.id, versions.get(s.id, -1)), ()) if r.is_withdrawn
    }
    arms: dict[int, list[Candidate]] = {s.id: [] for s in active if s.id in versions}
    for candidate in candidates:
        if candidate.study_id in arms and candidate.id not in withdrawn:
            arms[candidate.study_id].append(candidate)
    return {study_id: mine for study_id, mine in arms.items() if mine}


def build_problem(
    active: Sequence[Study],
    arms: Mapping[int, Sequence[Candidate]],
    versions: Mapping[int, int],
    results: Mapping[Version, Sequence[Result]],
) -> Problem:
    """The scheduler's input: arms, pulls in order of completion, open trials, and the past."""
    arm_of = {c.id: arm for mine in arms.values() for arm, c in enumerate(mine)}
    present = [
        (s.id, r) for s in active for r in results.get((s.id, versions.get(s.id, -1)), ()) if r.candidate_id in arm_of
    ]
    return Problem(
        studies=tuple(_arms(s, arms[s.id], versions, results) for s in active if s.id in arms),
        pulls=tuple(
            sorted(
                (
                    Pull(study_id, arm_of[r.candidate_id], r.quality, r.cost_seconds, r.order)
                    for study_id, r in present
                    if not r.is_open and r.cost_seconds is not None
                ),
                key=lambda pull: pull.order,
            )
        ),
        pending=tuple(Pending(study_id, arm_of[r.candidate_id]) for study_id, r in present if r.is_open),
        history=_history({s.id for s in active}, versions, results),
    )


def _arms(
    study: Study, mine: Sequence[Candidate], versions: Mapping[int, int], results: Mapping[Version, Sequence[Result]]
) -> Arms:
    """The study as the scheduler sees it; what earlier data versions used up is off its budget."""
    budget = study.budget_seconds
    if budget is not None:
        earlier = [r for (i, v), rs in results.items() if i == study.id and v != versions[study.id] for r in rs]
        budget = max(0.0, budget - sum(r.cost_seconds or 0.0 for r in earlier))
    return Arms(
        study_id=study.id,
        weight=study.weight,
        names=tuple(c.name for c in mine),
        kinds=tuple(c.kind for c in mine),
        budget_seconds=budget,
        study=study.name,
    )


def _history(
    active: set[int], versions: Mapping[int, int], results: Mapping[Version, Sequence[Result]]
) -> tuple[Past, ...]:
    """Finished trials of earlier data versions and of studies that are not active now."""
    past = []
    for (study_id, version), found in results.items():
        finished = [r for r in found if not r.is_open and not r.is_withdrawn]
        if finished and (study_id not in active or versions.get(study_id) != version):
            past.append(
                Past(
                    study_id=study_id,
                    names=tuple(r.candidate for r in finished),
                    qualities=tuple(r.quality for r in finished),
                    costs=tuple(r.cost_seconds for r in finished),
                )
            )
    return tuple(past)
