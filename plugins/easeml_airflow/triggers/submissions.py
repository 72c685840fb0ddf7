"""The trigger of an asset watcher: one event for each model that was handed in and that no gate was asked about."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from easeml_airflow import settings
from easeml_airflow.triggers.easeml import open_waiting
from easeml_airflow.version_compat import BaseEventTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from easeml_core.store.database import Store

log = logging.getLogger(__name__)

Submission = dict[str, Any]


class SubmissionsTrigger(BaseEventTrigger):
    """Gives one event ``{"submission_id", "study", "model_id"}`` a submission, for as long as it runs.

    It remembers what it has told only while it lives. After a restart it tells again whatever still waits, so a model
    that was handed in while the triggerer was away is not lost; one that is told twice costs a run that finds nothing.

    The constructor only assigns: one that raised would end the triggerer, at every start anew. ``run`` never ends: one
    that did would not be started again before the triggerer is. What goes wrong goes to the log, and is tried again.

    Args:
        study: Models of this study alone; None means of all.
        easeml_conn_id: Connection to the database; None means the installation's.
        poll_interval: Seconds between two looks when no notification comes; None means the installation's.
    """

    def __init__(
        self, *, study: str | None = None, easeml_conn_id: str | None = None, poll_interval: float | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own constructor has no types
        self.study = study
        self.easeml_conn_id = easeml_conn_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, from which the triggerer makes the trigger again; equal ones share a trigger."""
        return (
            "easeml_airflow.triggers.submissions.SubmissionsTrigger",
            {"study": self.study, "easeml_conn_id": self.easeml_conn_id, "poll_interval": self.poll_interval},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Tell each submission once."""
        told: set[int] = set()
        while True:
            try:
                found = await self._next(told)
            except Exception as error:  # whatever it is, the next submission must not be lost for it
                log.warning("submissions of %s cannot be watched, trying again: %s", self.study or "all studies", error)
                await asyncio.sleep(self._seconds() * random.uniform(0.8, 1.2))
                continue
            for submission in found:
                yield TriggerEvent(submission)

    async def _next(self, told: set[int]) -> list[Submission]:
        """Wait for submissions that were not told yet, and mark them as told."""
        store, until = await asyncio.to_thread(open_waiting, self.easeml_conn_id)
        topic = f"submission:{self.study or '*'}"
        found, waiting = await until(
            store.dsn, topic, partial(untold, store, self.study, told), poll_seconds=self._seconds()
        )
        told &= waiting  # the others have reached the gate, and never come back
        told |= {s["submission_id"] for s in found}
        return list(found)

    def _seconds(self) -> float:
        """The interval, whatever was given: a trigger has nobody to whom it could refuse it."""
        try:
            seconds = settings.poll_interval_seconds() if self.poll_interval is None else float(self.poll_interval)
        except (TypeError, ValueError):
            return 60.0
        return seconds if math.isfinite(seconds) and seconds > 0 else 60.0


def untold(store: Store, study: str | None, told: set[int]) -> tuple[list[Submission], set[int]] | None:
    """Look once.

    Returns:
        The submissions that wait and are not among ``told``, with the ids of all that wait; None if there are none.
    """
    from easeml_core.services.waiting import waiting_submissions

    waiting = waiting_submissions(store, study=study)
    fresh = [s for s in waiting if s["submission_id"] not in told]
    return (fresh, {s["submission_id"] for s in waiting}) if fresh else None
