"""Evaluate existing models on open validation data: all on a new set, and a sample on the set they were measured on.

Each evaluation is a trial of the new version that names the trial it evaluates again, committed by itself: a kill loses
the model that was running, and the next call continues there. A failure is recorded (``work.remeasure_failures``) and
tried once more, after the others. After ``validation_sets.REMEASURE_TRIES`` failures the candidate counts as failed on
the new version: it is not trained again, and evaluated only on request (``remeasure``).

A result is what a trial's task has stated. The referee measures what reaches production; of the others it measures each
with a small probability, after it has ended (``check_next``). Which ones follows from a secret of the installation and
the trial's number, so no tenant can tell them beforehand, and a restart chooses the same. The chosen ones are
independent: of ``m`` false results at least one is found with probability ``1 - (1 - share)^m``.

Nothing sealed takes part in either.
"""

from __future__ import annotations

import hmac
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.data.layout import stored_target
from easeml_core.data.parts import load_open_parts
from easeml_core.errors import (
    ArtifactError,
    Blame,
    EasemlError,
    StateError,
    TrainingError,
    TrainingKilled,
    TrainingStarved,
    blame_of,
)
from easeml_core.formats.encoding import typed_record
from easeml_core.metrics.metric import METRICS, metric_of
from easeml_core.models.answers import probabilities_of, wanted_of
from easeml_core.models.predict import predict_in_child
from easeml_core.services.evaluation.sealed_runs import NotRunError, Preparation, Run, run_model
from easeml_core.settings.limits import Range
from easeml_core.store.database import lock, notify, notify_pages
from easeml_core.store.tables import models, studies, validation_sets
from easeml_core.store.tables.sealed import installation_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from numpy.typing import NDArray

    from easeml_core.entities import Model, Study
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.validation_sets import UncheckedResult, Waiting


def quality_on(artifacts: ArtifactStore, study: Study, model: Model, *, data: str, answers: NDArray[Any]) -> float:
    """Return the quality of the model on the validation part of some data, in [0, 1]."""
    if study.metric not in METRICS and not study.metric.startswith("within:"):
        message = (
            f"quality is measured by {study.metric}, a function of the tenant's, which the referee does not run; the "
            "candidate is trained anew where that is wanted"
        )
        raise StateError(message)
    artifacts = artifacts.of_tenant(study.tenant)
    with artifacts.copy(data) as path:
        parts = load_open_parts(path)
    metric, chances = metric_of(study.metric), None
    try:
        if metric.needs == "probabilities":
            with artifacts.copy(model.artifact) as path:
                wanted = probabilities_of(parts.classes)
                chances = predict_in_child(path, model.format, parts.validation_inputs, wanted=wanted)
        score = metric.score(parts.validation_labels, answers, chances)
        return metric.quality(score, metric.scale_of(parts.validation_labels))
    except EasemlError as error:
        message = f"it has no score by {study.metric} on the validation part"
        raise StateError(message) from error


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result for one model.

    Attributes:
        waiting: The model.
        quality: On the newest validation part, in [0, 1]; None where it was not recorded.
        trial_id: The trial that says so; None where none was written.
        model_id: The model's row on the new version; None likewise.
        why: Why it failed; None where it did not.
        tries: Failures on this version.
    """

    waiting: Waiting
    quality: float | None = None
    trial_id: int | None = None
    model_id: int | None = None
    why: str | None = None
    tries: int = 0


@typed_record
class Measured:
    """A model that was evaluated again.

    Attributes:
        candidate: Name of its candidate.
        trial_id: The trial that says so.
        model_id: The model's row on the new version.
        quality: On the newest validation part, in [0, 1].
        before: On the one that was replaced.
    """

    candidate: str
    trial_id: int | None
    model_id: int | None
    quality: float | None
    before: float


@typed_record
class NotMeasured:
    """A model that could not be evaluated: its candidate, its trial, and why."""

    candidate: str
    trial_id: int
    why: str


@typed_record
class Remeasured:
    """The result of evaluating the models of a study again.

    Attributes:
        study: The study.
        version: Number of its newest data.
        measured: Models that were evaluated.
        by_referee: How many of those that waited were evaluated by another process meanwhile.
        failed: Models that could not be evaluated.
        left: How many models still wait.
        given_up: How many count as failed on this version.
        under_way: How many trials on earlier data have not ended.
    """

    study: str
    version: int
    measured: tuple[Measured, ...]
    by_referee: int
    failed: tuple[NotMeasured, ...]
    left: int
    given_up: int
    under_way: int


def silent(_: str) -> None:
    """Log nothing."""


def remeasure(store: Store, artifacts: ArtifactStore, study: str, *, log: Callable[[str], None] = silent) -> Remeasured:
    """Evaluate all models of a study that its newest validation part does not know; repeatable and interruptible.

    Those that were given up are tried again, each once a call.
    """
    with store.begin() as tx:
        study_id = studies.get_study(tx, study).id
        studies.latest_data_version(tx, study_id)
        wanted = validation_sets.count_waiting(tx, study_id)[0] + validation_sets.count_given_up(tx, study_id)
    done: list[Measurement] = []
    failed: list[Measurement] = []
    while True:
        found = measure_next(store, artifacts, study_id=study_id, skip=[m.waiting.trial_id for m in failed])
        if found is None:
            break
        (done if found.why is None else failed).append(found)
        log(f"{_line(found)} ({len(done) + len(failed)} of {max(wanted, len(done) + len(failed))})")
    measured = tuple(_measured(m) for m in done if m.quality is not None)
    with store.begin() as tx:
        version = studies.latest_data_version(tx, study_id).version
        left, under_way = validation_sets.count_waiting(tx, study_id)
        given_up = validation_sets.count_given_up(tx, study_id)
    return Remeasured(
        study=study,
        version=version,
        measured=measured,
        by_referee=max(0, wanted - len(measured) - left - given_up),
        failed=tuple(NotMeasured(m.waiting.candidate, m.waiting.trial_id, m.why or "") for m in failed),
        left=left,
        given_up=given_up,
        under_way=under_way,
    )


def _line(found: Measurement) -> str:
    name = found.waiting.candidate
    if found.why is not None:
        return f"{name}: not measured, {found.why}"
    if found.quality is None:
        return f"{name}: evaluated by another process, or on data that were replaced meanwhile"
    return f"{name}: quality {found.quality:.4f}, was {found.waiting.quality:.4f}"


def _measured(found: Measurement) -> Measured:
    waiting = found.waiting
    return Measured(waiting.candidate, found.trial_id, found.model_id, found.quality, waiting.quality)


def measure_next(
    store: Store,
    artifacts: ArtifactStore,
    *,
    study_id: int | None = None,
    skip: Collection[int] = (),
    rest_seconds: float | None = None,
) -> Measurement | None:
    """Evaluate the model whose turn it is, and store its quality or its failure; None where none waits.

    No transaction is open while the model runs. Its duration is no secret, since its inputs are open. It is run twice
    at most, for 120 seconds each (``evaluation``, ``predict_in_child``).
    """
    with store.begin() as tx:
        found = validation_sets.waiting_models(tx, study_id, skip=list(skip), rest_seconds=rest_seconds)
        study = studies.study_by_id(tx, found[0].model.study_id) if found else None
    if study is None:
        return None
    waiting = found[0]
    ready, began = Preparation(store, artifacts), time.monotonic()
    ready.run(NotRunError(Run(waiting.model, None)))
    loss = ready.loss(waiting.model, waiting.artifact)
    answers = ready.answers(waiting.model, waiting.artifact)
    if loss is None or answers is None:
        error = ready.missing(Run(waiting.model, None))
        if isinstance(error, NotRunError):  # the run was on newer data and says nothing about these
            return Measurement(waiting)
        if blame_of(error) is Blame.PASSING:
            raise error
        return _keep_failure(store, waiting, error)
    try:
        quality = quality_on(artifacts, study, waiting.model, data=waiting.artifact, answers=answers)
    except StateError as error:
        return _keep_failure(store, waiting, error)
    seconds = max(time.monotonic() - began, 1e-6)
    return _keep(store, waiting, quality=quality, loss=loss, seconds=seconds)


def _keep_failure(store: Store, waiting: Waiting, error: Exception) -> Measurement:
    """Record the failure, whatever it was: an error that does not count would bring the same model again for ever."""
    why = str(error)
    if isinstance(error, (TrainingKilled, TrainingStarved)):
        why = "it cannot be run on the validation part: its process was killed, or ran out of time or memory"
    elif not isinstance(error, (StateError, ArtifactError)):
        # The text may hold what the model has written, which is never shown.
        logger.error("trial %d was not measured on its new validation set", waiting.trial_id, exc_info=error)
        why = f"measuring it ended with {type(error).__name__}; the log says more"
    with store.begin() as tx:
        tries = validation_sets.add_failure(tx, waiting, why)
    return Measurement(waiting, why=why, tries=tries)


def _keep(store: Store, waiting: Waiting, *, quality: float, loss: float, seconds: float) -> Measurement:
    with store.begin() as tx:
        lock(tx, "suggest")  # so that no scheduler misses the trial
        trial_id = validation_sets.add_remeasurement(tx, waiting, quality=quality, seconds=seconds)
        if trial_id is None:
            return Measurement(waiting)
        model_id = models.add_model(
            tx,
            study_id=waiting.model.study_id,
            data_version_id=waiting.data_version_id,
            trial_id=trial_id,
            format=waiting.model.format,
            artifact=waiting.model.artifact,
            validation_loss=loss,
        )
        notify(tx, f"trial:{trial_id}", f"study:{waiting.study}")
    return Measurement(waiting, quality, trial_id, model_id)


SHARE = 0.02
"""Probability with which a result is measured anew, by default."""
SHARES = Range(least=0, most=1)

EXACT = 1e-6
"""Largest difference of two qualities that the same answers give: sums in another order."""
TOLERANCES = {"skops": EXACT, "lightgbm": EXACT, "xgboost": EXACT, "constant": EXACT}
LOOSE = 0.01
"""Likewise of other formats: a network or a program may answer rows near a boundary otherwise on another device."""

_STEPS = 2**64


def tolerance_of(format: str) -> float:
    """Largest difference of claimed and measured quality with which a result still holds, in [0, 1)."""
    return TOLERANCES.get(format, LOOSE)


def is_chosen(key: bytes, trial_id: int, share: float) -> bool:
    """Whether a trial is in the sample: a pseudo-random function of its number."""
    digest = hmac.digest(key, str(trial_id).encode(), "sha256")
    return int.from_bytes(digest[:8], "big") < share * _STEPS


def sampled(key: bytes, trials: Iterable[int], share: float) -> int | None:
    """The first of these trials that is in the sample."""
    return next((trial_id for trial_id in trials if is_chosen(key, trial_id, share)), None)


def check_next(store: Store, artifacts: ArtifactStore, *, share: float = SHARE) -> str | None:
    """Measure the next result of the sample; its outcome, or None where none waits. No transaction is open meanwhile.

    A model that cannot be run here is recorded as ``unmeasurable``, not as false: this machine may lack what its
    trainer had, or too little time or memory may be left.
    """
    if not share:
        return None
    with store.begin() as tx:
        key = hmac.digest(installation_secret(tx), b"sample of results", "sha256")
        trial_id = sampled(key, validation_sets.unchecked_trials(tx), share)
        if trial_id is None:
            return None
        result = validation_sets.unchecked_result(tx, trial_id)
        study = studies.study_by_id(tx, result.study_id)
    measured, reason = _measured_again(artifacts, study, result)
    tolerance = tolerance_of(result.model.format)
    with store.begin() as tx:
        outcome = validation_sets.add_quality_check(tx, result, measured=measured, tolerance=tolerance, reason=reason)
        if outcome == "not held":
            notify(tx, f"study:{study.name}")
            notify_pages(tx, study.name)
    if outcome == "not held":
        logger.error(
            "trial %d of study %s, tenant %s: quality %.6f was stated, and its model has %.6f; the result is not used "
            "any more",
            trial_id, study.name, study.tenant, result.quality, measured,
        )  # fmt: skip
    elif outcome == "unmeasurable":
        logger.warning("trial %d of study %s cannot be measured: %s", trial_id, study.name, reason)
    return outcome


def _measured_again(artifacts: ArtifactStore, study: Study, result: UncheckedResult) -> tuple[float | None, str | None]:
    """Return the quality of the trial's model on its own validation part, or None and why it cannot be measured."""
    place = artifacts.of_tenant(study.tenant)
    try:
        with place.copy(result.artifact) as path:
            inputs = load_open_parts(path).validation_inputs
        wanted = wanted_of(study.task, stored_target(result.layout))
        answers, failure = run_model(place, result.model, inputs, wanted)
        if answers is None:
            # The text may hold what the model has written, which is never shown.
            logger.info("trial %d cannot be measured: %s", result.trial_id, failure)
            return None, "its model cannot be run on the referee's machine"
        return quality_on(artifacts, study, result.model, data=result.artifact, answers=answers), None
    except (TrainingKilled, TrainingStarved):  # recorded at once: one that hangs would keep all others from their turn
        return None, "its model's process was killed, or ran out of time or memory"
    except StateError as error:
        return None, str(error)
    except ArtifactError as error:
        if blame_of(error) is Blame.PASSING:
            raise
        return None, "a file of it is missing or was changed"
    except (TrainingError, EasemlError) as error:
        if blame_of(error) is Blame.PASSING:
            raise
        return None, f"measuring it ended with {type(error).__name__}"
