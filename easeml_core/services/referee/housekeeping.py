"""Work of the referee while there is no request: move tags, run earlier models on new sets, remove uploads.

Models on new validation sets are evaluated by ``services/evaluation/reevaluation.py``.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from easeml_core.errors import EasemlError
from easeml_core.services.evaluation.reevaluation import check_next, measure_next
from easeml_core.services.evaluation.sealed_runs import at_once
from easeml_core.services.models.dag_bundles import sync_bundle_tags
from easeml_core.services.studies.archive import prune
from easeml_core.services.studies.uploads import forget_uploads
from easeml_core.services.test_sets.lifecycle import reevaluation_steps
from easeml_core.store.artifacts import orphans
from easeml_core.store.artifacts.orphans import DAY_SECONDS, remove_orphans
from easeml_core.store.artifacts.remote import RemoteArtifactStore
from easeml_core.store.tables import model_life, referee_claims
from easeml_core.store.tables.validation_sets import REMEASURE_TRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from easeml_core.services.referee.claiming import RefereeLease
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 300.0
"""Longest pause of work that failed, or had nothing to do."""

_ORPHANS_SECONDS = 86_400.0
_CHECK_SECONDS = 60.0
"""Pause until results are looked at again, once none of the sample waits."""

_UPKEEP_SECONDS = 60.0
"""Pause between two calls of ``upkeep``."""

_UPLOADS_SECONDS = 30.0
"""How long an upload may remain once its study is sealed, while there is no request."""


class Housekeeper:
    """Work that waits until there is no request.

    A request that needs a model's run meanwhile waits for one run at most: on a validation set up to 240 seconds (two
    attempts of 120), on a sealed set up to 480; where answers have fixed times, for the padded time
    (``model_runs.GRID_SECONDS``). Other requests do not wait (``services/evaluation/model_runs.py``).

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where models lie.
        lease: Of this process: one referee at a time runs earlier models.
        repositories: Name of a git bundle to its repository, whose tag follows production.
        check_share: Probability with which a trial's result is measured anew, in [0, 1].
        orphan_days: For how many days nothing has written a file that no row names when it is removed; 0 for never.
        retention: As ``keep``, ``days`` and ``curve_days`` of ``studies.archive.prune``; None in the first place
            where all models keep their files.
        upkeep: Called with the store once a minute, whether there are requests or not; None for nothing.
    """

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        lease: RefereeLease,
        repositories: Mapping[str, Path],
        *,
        check_share: float = 0.0,
        orphan_days: float = 0.0,
        retention: tuple[int | None, float, float] = (None, 30.0, 0.0),
        upkeep: Callable[[Store], None] | None = None,
    ) -> None:
        self._store, self._artifacts, self._repositories = store, artifacts, repositories
        self._lease, self._check_share, self._orphan_days = lease, check_share, orphan_days
        self._upkeep, self._retention = upkeep, retention
        self._tags_stand_for: int | None = None
        self._tags_due = self._models_due = self._measured_due = self._uploads_due = self._checks_due = 0.0
        self._uploads_stay: tuple[str, ...] = ()
        self._orphans_due = self._upkeep_due = self._retention_due = 0.0

    def work(self) -> bool:
        """Run one model at most; True when there may be more, so that requests get their turn in between."""
        self.tidy()
        return at_once(self.run_one())

    def tidy(self) -> None:
        """Do the work that runs no model."""
        self._move_tags()
        self._forget_uploads()
        self.keep_up()

    def keep_up(self) -> None:
        """Call ``upkeep`` at intervals."""
        if self._upkeep is None or time.monotonic() < self._upkeep_due:
            return
        self._upkeep_due = time.monotonic() + _UPKEEP_SECONDS
        try:
            self._upkeep(self._store)
        except EasemlError:  # must not keep the referee from its requests
            logger.exception("the upkeep of the database failed")

    def run_one(self) -> Generator[None, None, bool]:
        """Run one model at most; True when there may be more. Yields after a run on sealed inputs.

        The duty stays with the referee that has taken it while that lives.
        """
        with self._store.begin() as tx:
            if not referee_claims.take_duty(tx, referee_claims.EARLIER_MODELS, self._lease.number()):
                return False
        ran = yield from self._run_one_model()
        ran = self._measure_one_anew() if ran is None else ran
        ran = ran or self._check_one_result()
        if not ran:
            self._retain()
            self._remove_orphans()
        return ran

    def _move_tags(self) -> None:
        """Move the tags when production has moved, and at intervals, as a tag may have been moved by hand."""
        if not self._repositories:
            return
        with self._store.begin() as tx:
            last = model_life.last_id(tx)
        if last == self._tags_stand_for and time.monotonic() < self._tags_due:
            return
        self._tags_stand_for, self._tags_due = last, time.monotonic() + _AGAIN_SECONDS
        sync_bundle_tags(self._store, self._repositories)  # logs its failures

    def _forget_uploads(self) -> None:
        """Remove uploads at intervals: those of sealed studies hold sealed rows."""
        if time.monotonic() < self._uploads_due:
            return
        self._uploads_due = time.monotonic() + _UPLOADS_SECONDS
        try:
            stay = forget_uploads(self._store, self._artifacts, datetime.now(UTC).date())
            if stay and stay != self._uploads_stay:
                logger.warning(
                    "%d uploads hold sealed rows, and this account may not remove them, the owner of the store may: %s",
                    len(stay),
                    "; ".join(stay[:5]),
                )
            self._uploads_stay = stay
        except EasemlError:  # unavailable artifacts must not keep the referee from its requests
            logger.exception("uploads of sealed studies were not removed")

    def _run_one_model(self) -> Generator[None, None, bool | None]:
        """Run an earlier model on a live set that does not know it; a new set is looked at soon.

        None when there was none to run, False when it failed, perhaps after a run.
        """
        if time.monotonic() < self._models_due:
            return None
        try:
            if (yield from reevaluation_steps(self._store, self._artifacts, limit=1)):
                return True
        except Exception:  # a model that cannot be run now must not keep the referee from its requests
            logger.exception("a model of the past was not run on a live set")
            self._models_due = time.monotonic() + _AGAIN_SECONDS
            return False
        self._models_due = time.monotonic() + _AGAIN_SECONDS
        return None

    def _measure_one_anew(self) -> bool:
        """Evaluate a trained model on a new validation set; one that fails rests for a while.

        False after a failure, too: the referee then pauses, and all other models come before that one.
        """
        if time.monotonic() < self._measured_due:
            return False
        try:
            found = measure_next(self._store, self._artifacts, rest_seconds=_AGAIN_SECONDS)
        except Exception:  # as above
            logger.exception("a model was not measured on its study's new validation set")
            self._measured_due = time.monotonic() + _AGAIN_SECONDS
            return False
        if found is None or found.why is None:
            return found is not None
        logger.warning(
            "trial %d was not measured on its new validation set, failure %d of %d: %s",
            found.waiting.trial_id,
            found.tries,
            REMEASURE_TRIES,
            found.why,
        )
        return False

    def _check_one_result(self) -> bool:
        """Measure one result of the sample, once nothing else waits; whether there was one."""
        if time.monotonic() < self._checks_due:
            return False
        try:
            if check_next(self._store, self._artifacts, share=self._check_share) is not None:
                return True
        except Exception:  # as above
            logger.exception("a result was not measured")
        self._checks_due = time.monotonic() + _CHECK_SECONDS
        return False

    def _retain(self) -> None:
        """Note once a day which models lose their files, before files that no row names are removed."""
        keep, days, curve_days = self._retention
        if (keep is None and not curve_days) or time.monotonic() < self._retention_due:
            return
        self._retention_due = time.monotonic() + _ORPHANS_SECONDS
        try:
            done = prune(self._store, keep=keep, days=days, curve_days=curve_days)
        except Exception:  # as above
            logger.exception("models were not pruned")
            return
        if done.models:
            logger.info("%d models lose their files: best %s of each study are kept", len(done.models), keep)

    def _remove_orphans(self) -> None:
        """Remove files that no row names, once a day."""
        if not self._orphan_days or time.monotonic() < self._orphans_due:
            return
        self._orphans_due = time.monotonic() + _ORPHANS_SECONDS
        try:
            if isinstance(self._artifacts, RemoteArtifactStore):
                older_than = self._orphan_days * DAY_SECONDS
                found = orphans.find_in_bucket(self._store, self._artifacts, older_than=older_than)
                removed = orphans.clear_bucket(self._store, self._artifacts, found).removed
            else:
                removed = remove_orphans(self._store, self._artifacts, days=self._orphan_days)
        except Exception:  # as above
            logger.exception("files that no row names were not removed")
            return
        if removed:
            logger.info("%d files that no row names were removed", removed)
