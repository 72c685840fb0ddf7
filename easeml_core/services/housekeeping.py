"""What the referee does when nobody asks: tags follow production, new sets learn the models of the past.

New validation sets do, too: see ``remeasurement.py``.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from easeml_core.services.bundles import sync_bundle_tags
from easeml_core.services.evaluation import NO_PACE
from easeml_core.services.remeasurement import measure_next
from easeml_core.services.test_sets import reevaluate
from easeml_core.store import promotions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from easeml_core.services.pace import Pace
    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.database import Store

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 300.0
"""How long what could not be done, or has nothing to do, rests at most."""


class Housekeeper:
    """Work that waits until there is no request.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where models lie.
        repositories: Name of a git bundle to its repository, whose tag follows production.
        pace: When runs of models end.
    """

    def __init__(
        self, store: Store, artifacts: ArtifactStore, repositories: Mapping[str, Path], pace: Pace = NO_PACE
    ) -> None:
        self._store, self._artifacts, self._repositories, self._pace = store, artifacts, repositories, pace
        self._tags_stand_for: int | None = None
        self._tags_due = self._models_due = self._measured_due = 0.0
        self._aside: dict[int, float] = {}

    def work(self) -> bool:
        """Do one small piece; True when there may be more, so that requests get their turn in between."""
        self._move_tags()
        return self._run_one_model() or self._measure_one_anew()

    def _move_tags(self) -> None:
        """Let the tags follow: when production has moved, and now and then, as somebody may have moved a tag."""
        if not self._repositories:
            return
        with self._store.begin() as tx:
            last = promotions.last_id(tx)
        if last == self._tags_stand_for and time.monotonic() < self._tags_due:
            return
        self._tags_stand_for, self._tags_due = last, time.monotonic() + _AGAIN_SECONDS
        sync_bundle_tags(self._store, self._repositories)  # logs by itself what it could not do

    def _run_one_model(self) -> bool:
        """Run a model of the past on a live set that does not know it; a set that is new is looked at soon."""
        if time.monotonic() < self._models_due:
            return False
        try:
            if reevaluate(self._store, self._artifacts, limit=1, pace=self._pace):
                return True
        except Exception:  # a model that cannot be run now must not keep the referee from its requests
            logger.exception("a model of the past was not run on a live set")
        self._models_due = time.monotonic() + _AGAIN_SECONDS
        return False

    def _measure_one_anew(self) -> bool:
        """Measure a trained model on a validation set that has replaced another; one that fails rests for a while."""
        now = time.monotonic()
        if now < self._measured_due:
            return False
        self._aside = {trial_id: until for trial_id, until in self._aside.items() if until > now}
        try:
            found = measure_next(self._store, self._artifacts, skip=list(self._aside))
        except Exception:  # as above
            logger.exception("a model was not measured on its study's new validation set")
            self._measured_due = now + _AGAIN_SECONDS
            return False
        if found is not None and found.why is not None:
            logger.warning("trial %d was not measured on its new validation set: %s", found.waiting.trial_id, found.why)
            self._aside[found.waiting.trial_id] = now + _AGAIN_SECONDS
        return found is not None
