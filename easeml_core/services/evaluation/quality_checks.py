"""A random sample of the trials' results, measured anew on the open validation part that each was measured on.

A result is what a trial's task has stated. The referee measures what reaches production; of the others it measures each
with a small probability, after it has ended. Which ones follows from a secret of the installation and the trial's
number, so no tenant can tell them beforehand, and a restart chooses the same. Nothing sealed takes part.

The chosen ones are independent: of ``m`` false results at least one is found with probability ``1 - (1 - share)^m``
(``chance_to_find``).
"""

from __future__ import annotations

import hmac
import logging
from typing import TYPE_CHECKING

from easeml_core.data.layout import stored_target
from easeml_core.data.parts import load_open_parts
from easeml_core.errors import ArtifactError, EasemlError, StateError, TrainingError, TrainingKilled, TrainingStarved
from easeml_core.faults import Blame, blame_of
from easeml_core.limits import Range
from easeml_core.models.answers import wanted_of
from easeml_core.services.evaluation.reevaluation import quality_on
from easeml_core.services.evaluation.sealed_runs import run_model
from easeml_core.store.database import notify, notify_pages
from easeml_core.store.tables import studies, validation_sets
from easeml_core.store.tables.sealed import installation_secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from easeml_core.entities import Study
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.validation_sets import UncheckedResult

logger = logging.getLogger(__name__)

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
    """Whether a trial is in the sample: a pseudo-random function of its number.

    Args:
        key: Known to the referee alone.
        trial_id: The trial.
        share: Probability over keys, in [0, 1].
    """
    digest = hmac.digest(key, str(trial_id).encode(), "sha256")
    return int.from_bytes(digest[:8], "big") < share * _STEPS


def chance_to_find(false_results: int, share: float) -> float:
    """Probability that at least one of so many false results is measured.

    Example:
        >>> round(chance_to_find(1, 0.02), 4), round(chance_to_find(114, 0.02), 4)
        (0.02, 0.9001)
    """
    return 1.0 - (1.0 - share) ** false_results


def sampled(key: bytes, trials: Iterable[int], share: float) -> int | None:
    """The first of these trials that is in the sample."""
    return next((trial_id for trial_id in trials if is_chosen(key, trial_id, share)), None)


def check_next(store: Store, artifacts: ArtifactStore, *, share: float = SHARE) -> str | None:
    """Measure the next result of the sample; its outcome, or None where none waits. No transaction is open meanwhile.

    A model that cannot be run here is recorded as ``unmeasurable``, not as false: this machine may lack what its
    trainer had, or too little time or memory may be left.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where models and data lie.
        share: Probability of each result; 0 measures none.

    Raises:
        StoreError: The database cannot be reached; nothing was written.
        MachineError: The sandbox cannot be made; likewise.
        OSError: The disk or the system failed; likewise.
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
    measured, reason = _measured(artifacts, study, result)
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


def _measured(artifacts: ArtifactStore, study: Study, result: UncheckedResult) -> tuple[float | None, str | None]:
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
