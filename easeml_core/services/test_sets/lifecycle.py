"""The life of a study's test sets: planned, sealed, live, retired, released; and the history that a new one takes over.

Sealing new examples is in ``easeml_core.services.test_sets.upload``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from easeml_core.entities import SealedSetPurpose, SealedSetState
from easeml_core.errors import ArtifactError, TrainingKilled, TrainingStarved
from easeml_core.services.evaluation.sealed_runs import sealed_run_steps
from easeml_core.services.test_sets.planning import needed_examples, set_settings
from easeml_core.store.database import notify
from easeml_core.store.tables import labels, releases, studies, test_sets

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from sqlalchemy import Connection

    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.test_sets import SealedSet

logger = logging.getLogger(__name__)

ENDED = (SealedSetState.RETIRED, SealedSetState.RELEASED)


def list_test_sets(store: Store, *, study: str | None = None) -> list[dict[str, Any]]:
    """The sets of a study, or of all, newest first: public facts only.

    Args:
        store: Any role.
        study: The study, or None for all.

    Raises:
        NotFoundError: There is no such study.
    """
    with store.begin() as tx:
        study_id = None if study is None else studies.get_study(tx, study).id
        return [shown(found) for found in test_sets.list_sets(tx, study_id)]


def shown(found: SealedSet) -> dict[str, Any]:
    """What everybody may know of a set, as plain JSON.

    ``steps`` and ``steps_used`` count the answers of all systems; ``systems`` has ``{"steps_used", "steps"}`` of each.
    """
    return {
        "test_set_id": found.id,
        "study": found.study,
        "name": found.name,
        "purpose": str(found.purpose),
        "state": str(found.state),
        "rows": found.rows,
        "steps": found.steps,
        "steps_used": found.steps_used,
        "systems": steps_by_system(found),
        "labels_on_demand": found.labels_on_demand,
        "retired_why": found.retired_why,
        "artifact": found.artifact,
        "plan": dict(found.plan),
    }


def steps_by_system(found: SealedSet) -> dict[str, dict[str, int]]:
    """``{"steps_used", "steps"}`` of each system that draws on the set: ``gate``, ``meter``, ``direct``."""
    if found.purpose != SealedSetPurpose.JOINT:
        return {str(found.purpose): {"steps_used": found.steps_used, "steps": found.steps}}
    used = {"gate": found.gate_steps_used, "meter": found.steps_used - found.gate_steps_used}
    return {name: {"steps_used": count, "steps": found.plan[name]["steps"]} for name, count in used.items()}


def plan_test_set(
    store: Store, *, study: str, name: str, purpose: str = "gate", settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Say, in public, which set the study needs next; sealing examples under its name fulfils the plan.

    Args:
        store: Role ``easeml_referee``.
        study: The study.
        name: Name of the set, new in the study; the same plan may be repeated.
        purpose: ``gate``, ``meter``, ``joint`` or ``direct``.
        settings: What differs from the study's settings (``set_plans.set_settings``).

    Returns:
        As ``shown``; ``rows`` is how many examples are needed at least.

    Raises:
        StateError: The study has no data yet, or another set has the name.
        InvalidInputError: A setting is not allowed.
    """
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        version = studies.latest_data_version(tx, found.id)
        kind, config = set_settings(found, purpose, settings)
        releases.hold_study(tx, found.id)
        there = test_sets.set_named(tx, found.id, name)
        # Of the same name and plan it is the same call, repeated; else the schema refuses the name.
        if there is None or there.state != SealedSetState.PLANNED or there.plan != as_stored(config.to_json()):
            test_sets.add_planned(
                tx,
                study_id=found.id,
                data_version_id=version.id,
                purpose=kind,
                name=name,
                rows=needed_examples(config),
                steps=config.steps,
                plan=config.to_json(),
            )
            notify(tx, f"study:{found.name}")
        planned = test_sets.set_named(tx, found.id, name)
        assert planned is not None  # just written, or there already
        return shown(planned)


def as_stored(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as it comes back from JSON: tuples are lists, in the parts of a shared set's plan too.

    Example:
        >>> as_stored({"meter": {"ranges": (0.1, 0.2)}, "reliability": 0.9})
        {'meter': {'ranges': [0.1, 0.2]}, 'reliability': 0.9}
    """
    return {name: _listed(value) for name, value in plan.items()}


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return as_stored(value)
    return [_listed(v) for v in value] if isinstance(value, tuple | list) else value


def go_live(tx: Connection, study_id: int, purpose: SealedSetPurpose) -> int | None:
    """After a set was retired: those that were sealed first become live. The first one's number, or None without any.

    A set that gate and meter shared may be followed by one for each. Requests that waited for labels of sets that have
    ended are opened to the referee again. The referee runs the study's earlier models on the new set by itself
    (``reevaluation_steps``).

    Args:
        tx: Transaction of the referee's role that holds the study (``releases.hold_study``).
        study_id: The study.
        purpose: That of the set that was retired.
    """
    for found in test_sets.list_sets(tx, study_id):
        if test_sets.serves(found.purpose) & test_sets.serves(purpose) and found.state in ENDED:
            labels.close_wanted_of_set(tx, found.id)
    first = None
    while (live := test_sets.promote_oldest(tx, study_id, purpose)) is not None:
        first = live if first is None else first
        notify(tx, f"study:{test_sets.get_set(tx, live).study}")
        labels.announce(tx, live)
    return first


def reevaluation_steps(
    store: Store, artifacts: ArtifactStore, test_set_id: int | None = None, *, limit: int = 1
) -> Generator[None, None, int]:
    """Run models of the past on a live set that does not know them yet; how many were run.

    The model in production comes first, then the baseline, then those that were judged, newest first. One that was
    handed in and that nobody asked about is not run: to hand in costs nothing, and would else keep the referee busy.
    Each is kept by itself, so that a killed referee loses one at most. It yields as ``sealed_run_steps``.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where the models are.
        test_set_id: The set, or None for every live one.
        limit: How many to run at most.
    """
    skipped: set[tuple[int, int]] = set()
    run = 0
    while run < limit:
        with store.begin() as tx:
            found = _next_unseen(tx, test_set_id, skipped)
        if found is None:
            break
        set_id, model = found
        try:
            yield from sealed_run_steps(store, artifacts, model, set_id)
        except (ArtifactError, TrainingKilled, TrainingStarved) as error:
            # Its file is gone, or its process was ended: the judge will say so, or try again, if it matters.
            logger.warning("model %d was not run on test set %d: %s", model.id, set_id, error)
            skipped.add((set_id, model.id))
            continue
        run += 1
    return run


def _next_unseen(tx: Connection, test_set_id: int | None, skipped: set[tuple[int, int]]) -> Any | None:
    for study_id, set_id in test_sets.live_sets(tx):
        if test_set_id in (None, set_id):
            for model in test_sets.unseen_models(tx, study_id, set_id, limit=len(skipped) + 1):
                if (set_id, model.id) not in skipped:
                    return set_id, model
    return None


def find_set(tx: Connection, test_set: str | int, study: str | None) -> SealedSet:
    """The set of this name or number, in this study or in any.

    Raises:
        NotFoundError: There is no such study or set, or several studies have a set of this name.
    """
    return test_sets.find_set(tx, test_set, None if study is None else studies.get_study(tx, study).id)
