"""The life of a study's test sets: planned, sealed, live, retired, released; what follows the end of one.

``upload.py`` seals new examples. Every end of a live set, by its last step, by a rule, because its promise would not
hold any more, or by hand, lets the next waiting set go live and raises the alert for a new one once: a row of the kind
``new-test-set``, for sensors and notifications, and a mail where the plan names an address. It says why the set has
ended, no more than the answers so far show. An alert of the overfitting budget is separate.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from easeml_core.entities import AlertKind, SealedSetPurpose, SealedSetState
from easeml_core.errors import ArtifactError, StateError, TrainingKilled, TrainingStarved
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.services.evaluation.sealed_runs import sealed_run_steps
from easeml_core.services.test_sets.answers import gate_settings
from easeml_core.services.test_sets.planning import needed_examples, set_settings
from easeml_core.services.test_sets.row_registry import Overlap, overlapping_sets
from easeml_core.settings.config import JointConfig, SetConfig
from easeml_core.store.database import notify
from easeml_core.store.tables import labels, outbox, releases, studies, test_sets

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import Model, Study
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.test_sets import SealedSet


CALLED = {
    SealedSetPurpose.GATE: "gate set",
    SealedSetPurpose.METER: "meter set",
    SealedSetPurpose.JOINT: "gate and meter set",
    SealedSetPurpose.DIRECT: "second validation sample",
}
"""A set by its purpose."""

WHY = {
    "steps": "all its steps are used",
    "changes": "as many answers as its adaptivity allows were of the kind that ends it",
    "tolerance": "it has too few examples for another test at the level that is left",
    "by hand": "the referee has retired it",
    "overlap": "rows of it are open in another study",
    "signals": "its promise would not hold for another answer",
    "regulation": "its rule allows no further answer",
    "failure": "a model could not be run on it, which the meter's promise does not cover",
}
"""The meaning of ``retired_why``, as part of a sentence."""

WITHOUT = {
    SealedSetPurpose.GATE: "the gate gives no verdict",
    SealedSetPurpose.METER: "the meter gives no signal",
    SealedSetPurpose.DIRECT: "readings go on without it and cannot tell tuning from drift",
}
"""The state of a system without a live set."""


logger = logging.getLogger(__name__)

ENDED = (SealedSetState.RETIRED, SealedSetState.RELEASED)


@typed_record
class SystemSteps:
    """Answers of one system on a set.

    Attributes:
        steps_used: Released so far.
        steps: That it can give.
    """

    steps_used: int
    steps: int


@typed_record
class ShownSet:
    """The public facts of a set.

    Attributes:
        test_set_id: Its number.
        study: Whose it is.
        name: Its name in the study, or None.
        purpose: Which systems draw on it.
        state: Where in its life it is.
        rows: Examples; while planned, how many are needed at least.
        steps: Answers that it can give, of all systems.
        steps_used: Answers that were released so far, of all systems.
        systems: Likewise of each system that draws on it: ``gate``, ``meter``, ``direct``.
        labels_on_demand: Whether labels are requested when a verdict needs them.
        retired_why: A key of ``WHY``, or None.
        artifact: The released examples, or None.
        plan: What was fixed before its first answer.
    """

    test_set_id: int
    study: str
    name: str | None
    purpose: SealedSetPurpose
    state: SealedSetState
    rows: int
    steps: int
    steps_used: int
    systems: dict[str, SystemSteps]
    labels_on_demand: bool
    retired_why: str | None
    artifact: str | None
    plan: SetConfig


@typed_record
class RetiredSet(ShownSet):
    """A set after ``retire_test_set``.

    Attributes:
        live: Number of the set that is live now, or None.
    """

    live: int | None


def list_test_sets(store: Store, *, study: str | None = None) -> list[ShownSet]:
    """Return the sets of a study, or of all, newest first: public facts only."""
    with store.begin() as tx:
        study_id = None if study is None else studies.get_study(tx, study).id
        return [shown(found) for found in test_sets.list_sets(tx, study_id)]


def shown(found: SealedSet) -> ShownSet:
    """Return the public facts of a set."""
    return ShownSet(
        test_set_id=found.id,
        study=found.study,
        name=found.name,
        purpose=found.purpose,
        state=found.state,
        rows=found.rows,
        steps=found.steps,
        steps_used=found.steps_used,
        systems=steps_by_system(found),
        labels_on_demand=found.labels_on_demand,
        retired_why=found.retired_why,
        artifact=found.artifact,
        plan=found.plan,
    )


def steps_by_system(found: SealedSet) -> dict[str, SystemSteps]:
    """Return the steps of each system that draws on the set: ``gate``, ``meter``, ``direct``."""
    if not isinstance(found.plan, JointConfig):
        return {str(found.purpose): SystemSteps(found.steps_used, found.steps)}
    gate, meter = found.gate_steps_used, found.steps_used - found.gate_steps_used
    return {"gate": SystemSteps(gate, found.plan.gate.steps), "meter": SystemSteps(meter, found.plan.meter.steps)}


def plan_test_set(
    store: Store, *, study: str, name: str, purpose: str = "gate", settings: Mapping[str, object]
) -> ShownSet:
    """Announce publicly which set the study needs next; sealing examples under its name fulfils the plan."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        version = studies.latest_data_version(tx, found.id)
        kind, config = set_settings(found, purpose, settings)
        releases.hold_study(tx, found.id)
        there = test_sets.set_named(tx, found.id, name)
        # Of the same name and plan it is the same call, repeated; else the schema refuses the name.
        if there is None or there.state != SealedSetState.PLANNED or there.plan != config:
            test_sets.add_planned(
                tx,
                study_id=found.id,
                data_version_id=version.id,
                purpose=kind,
                name=name,
                rows=needed_examples(config),
                steps=config.steps,
                plan=config,
            )
            notify(tx, f"study:{found.name}")
        planned = test_sets.set_named(tx, found.id, name)
        assert planned is not None  # just written, or there already
        return shown(planned)


def go_live(tx: Connection, study_id: int, purpose: SealedSetPurpose) -> int | None:
    """Let the oldest waiting sets become live after a set was retired; return the first one's number, or None.

    A set that gate and meter shared may be followed by one for each. Requests that waited for labels of ended sets are
    open to the referee again, which runs the study's earlier models on the new set when idle (``reevaluation_steps``).
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
    """Run earlier models on a live set that does not know them yet; return how many were run.

    The model in production comes first, then the baseline, then those that were judged, newest first. A submission
    without a gate or meter request is not run: submissions are free and could keep the referee busy. Each result is
    stored separately, so that a killed referee loses one at most. Yields as ``sealed_run_steps``.
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
            # Its file is missing, or its process was ended: the judge will say so, or try again, if it matters.
            logger.warning("model %d was not run on test set %d: %s", model.id, set_id, error)
            skipped.add((set_id, model.id))
            continue
        run += 1
    return run


def _next_unseen(tx: Connection, test_set_id: int | None, skipped: set[tuple[int, int]]) -> tuple[int, Model] | None:
    for study_id, set_id in test_sets.live_sets(tx):
        if test_set_id in (None, set_id):
            unseen = test_sets.unseen_models(
                tx, study_id, set_id, limit=len(skipped) + 1, unless_worked_on=test_set_id is None
            )
            for model in unseen:
                if (set_id, model.id) not in skipped:
                    return set_id, model
    return None


def find_set(tx: Connection, test_set: str | int, study: str | None) -> SealedSet:
    """Return the set of this name or number, in this study or in any."""
    return test_sets.find_set(tx, test_set, None if study is None else studies.get_study(tx, study).id)


HAS_NO_LIVE_SET = "has no live {} set"
"""The text of a refusal; it names the purpose of the requested set."""


def when_live(tx: Connection, found: SealedSet) -> str | None:
    """Say when a waiting set becomes live, with the commands; None for one that does not wait."""
    if found.state != SealedSetState.SEALED:
        return None
    before = test_sets.waiting_before(tx, found)
    longer = f"; {_names(before)} {'waits' if len(before) == 1 else 'wait'} longer" if before else ""
    return _after([*_in_its_way(tx, found), *before]) + longer


def _after(sets: Sequence[SealedSet]) -> str:
    commands = ", ".join(f"`easeml test-set retire {other.id}`" for other in sets)
    return f"it becomes live when {_names(sets)} {'is' if len(sets) == 1 else 'are'} retired ({commands})"


def _names(sets: Sequence[SealedSet]) -> str:
    return " and ".join(f"{CALLED[found.purpose]} {found.called}" for found in sets)


def no_live_set(tx: Connection, study: Study, purpose: SealedSetPurpose) -> StateError:
    """Return the refusal of a system that has no live set, with the set that waits for another system's to end, if any.

    Only a set for gate and meter together can wait then. The message is public: it holds nothing of the schema
    ``sealed``, such as which of two sets was sealed first.
    """
    message = f"study {study.name!r} {HAS_NO_LIVE_SET.format(purpose)}"
    for found in reversed(test_sets.list_sets(tx, study.id)):
        waits = found.state == SealedSetState.SEALED and purpose in test_sets.serves(found.purpose)
        live = _in_its_way(tx, found) if waits else []
        if live:
            return StateError(f"{message}; set {found.called} of gate and meter waits: {_after(live)}")
    return StateError(f"{message}; the referee must seal a new one")


def _in_its_way(tx: Connection, found: SealedSet) -> list[SealedSet]:
    """Return the live sets of the study beside which this one cannot be live, the oldest first."""
    sets, serves = reversed(test_sets.list_sets(tx, found.study_id)), test_sets.serves(found.purpose)
    return [other for other in sets if other.state == SealedSetState.LIVE and test_sets.serves(other.purpose) & serves]


_GATE, _METER, _JOINT, _DIRECT = (
    SealedSetPurpose.GATE,
    SealedSetPurpose.METER,
    SealedSetPurpose.JOINT,
    SealedSetPurpose.DIRECT,
)
_SERVED = {_GATE: (_GATE,), _METER: (_METER,), _JOINT: (_GATE, _METER), _DIRECT: (_DIRECT,)}
"""Systems whose answers come from a set of this purpose."""

_FOLLOWING = {_GATE: (_GATE, _JOINT), _METER: (_METER, _JOINT), _JOINT: (_JOINT, _GATE, _METER), _DIRECT: (_DIRECT,)}
"""Purposes of the sets that may replace it, in order; one that serves a system with a live set stays sealed."""


def end_set(tx: Connection, study: Study, test_set_id: int, why: str) -> None:
    """Retire a live set, let the next sealed one go live, and raise the alert for a new one."""
    if not releases.retire_test_set(tx, test_set_id, why):
        return
    ended = test_sets.get_set(tx, test_set_id)
    for purpose in _FOLLOWING[ended.purpose]:
        go_live(tx, study.id, purpose)
    message = _message(tx, study, ended, why)
    releases.add_alert(
        tx,
        study_id=study.id,
        study=study.name,
        test_set_id=test_set_id,
        kind=AlertKind.NEW_TEST_SET,
        message=message,
    )
    recipient = gate_settings(ended).mail if _GATE in _SERVED[ended.purpose] else ""
    if recipient:
        outbox.add_mail(tx, recipient=recipient, subject=f"easeml: {study.name} needs a new test set", body=message)


def _message(tx: Connection, study: Study, ended: SealedSet, why: str) -> str:
    purpose = ended.purpose
    following, without = list[int](), list[str]()
    for system in _SERVED[purpose]:
        live = releases.live_test_set(tx, study.id, system)
        if live is None:
            without.append(WITHOUT[system])
        elif live.id not in following:
            following.append(live.id)
    words = [f"{study.name}: {CALLED[purpose]} {ended.id} is retired, {_why(ended, why)}"]
    if without:
        words.append(f"{' and '.join(without)} until a new set is sealed {_how(purpose)}")
    words += [f"set {set_id} is live now" for set_id in following]
    if not without:
        words.append(f"seal another one in time {_how(purpose)}")
    return "; ".join(words)


def _why(ended: SealedSet, why: str) -> str:
    """As of ``WHY``; of a shared set, which system's steps are used."""
    if why == "steps" and ended.purpose == _JOINT:
        for system, count in steps_by_system(ended).items():
            if count.steps_used >= count.steps:
                return f"the {system}'s {count.steps} steps are used"
    return WHY[why]


def _how(purpose: SealedSetPurpose) -> str:
    """Return the commands that seal the next one."""
    option = "" if purpose == _GATE else f", both with --purpose {purpose}"
    return f"(`easeml test-set plan`, `easeml test-set seal`{option})"


BY_HAND = "by hand"
OVERLAP = "overlap"
ENDED_BY_ANSWER = frozenset({"steps", "changes", "tolerance", "signals", "regulation", "failure"})
"""Ends that follow from the set's answers. The others say, or may, that its examples are no fair test."""


def retire_test_set(store: Store, *, test_set: str | int, study: str | None = None, why: str = BY_HAND) -> RetiredSet:
    """Retire a set by hand; the oldest one that waits becomes live. Repeatable."""
    with store.begin() as tx:
        found = find_set(tx, test_set, study)
        releases.hold_study(tx, found.study_id)
        found = test_sets.get_set(tx, found.id)
        if found.state == SealedSetState.LIVE:
            end_set(tx, studies.study_by_id(tx, found.study_id), found.id, why)
        else:
            test_sets.retire(tx, found.id, why)  # planned or sealed: nothing else changes
        notify(tx, f"study:{found.study}")
        live = releases.live_test_set(tx, found.study_id, found.purpose)
        ended = shown(test_sets.get_set(tx, found.id))
        return RetiredSet(**row_of(ended), live=None if live is None else live.id)


def retire_overlapping(store: Store, artifacts: ArtifactStore, *, retire: bool) -> list[Overlap]:
    """List the sets in use whose rows are open in another study, and retire them where that is asked for."""
    with store.begin() as tx:
        found = overlapping_sets(tx, artifacts)
    if retire:
        for one in found:
            retire_test_set(store, test_set=one.test_set_id, why=OVERLAP)
    return found
