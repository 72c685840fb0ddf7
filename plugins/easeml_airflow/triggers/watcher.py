"""What the triggers of our asset watchers share: each thing that waits in the database is one event, told once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from easeml_airflow import settings
from easeml_airflow.triggers.easeml import ended, open_waiting, pending
from easeml_airflow.version_compat import BaseEventTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from easeml_core.store.database import Store

log = logging.getLogger(__name__)

Waiting = dict[str, Any]


class WatcherTrigger(BaseEventTrigger):
    """Gives one event for each thing that waits, for as long as it runs.

    It remembers its events in memory only. After a restart it repeats those of things that still wait, so nothing is
    lost while the triggerer is away; a repeated event costs a run that finds nothing to do.

    The constructor only assigns: one that raised would end the triggerer at every start. ``run`` never returns, since
    it would not be started again before the triggerer is. Errors are logged, and the look is repeated.

    Args:
        study: Things of this study alone; None means of all.
        easeml_conn_id: Connection to the database; None means the installation's.
        poll_interval: Seconds between two looks when no notification comes; None means the installation's.
    """

    key: ClassVar[str]
    """Name of the number that tells one from another in ``waiting``."""
    topic: ClassVar[str]
    """What is listened for, before the study."""

    def __init__(
        self, *, study: str | None = None, easeml_conn_id: str | None = None, poll_interval: float | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own constructor has no types
        self.study = study
        self.easeml_conn_id = easeml_conn_id
        self.poll_interval = poll_interval

    @staticmethod
    @abstractmethod
    def waiting(store: Store, study: str | None) -> list[Waiting]:
        """Everything that waits now, as plain JSON with the number ``key``; oldest first."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, from which the triggerer makes the trigger again; equal ones share a trigger."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"study": self.study, "easeml_conn_id": self.easeml_conn_id, "poll_interval": self.poll_interval},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event for each thing."""
        with pending(self.topic):
            async with contextlib.aclosing(self._events()) as events:
                async for event in events:
                    ended(self.topic, "event")
                    yield event

    async def _events(self) -> AsyncGenerator[TriggerEvent, None]:
        seen: set[int] = set()
        while True:
            try:
                found = await self._next(seen)
            except Exception as error:  # whatever it is, the next one must not be lost for it
                of = self.study or "all studies"
                log.warning("the %s events of %s cannot be watched, trying again: %s", self.topic, of, error)
                await asyncio.sleep(self._seconds() * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the load
                continue
            for thing in found:
                yield TriggerEvent(thing)

    async def _next(self, seen: set[int]) -> list[Waiting]:
        """Wait for things that are not in ``seen`` yet, and add them."""
        store, until = await open_waiting(self.easeml_conn_id)
        topic = f"{self.topic}:{self.study or '*'}"
        look = partial(self.unseen, store, self.study, seen)
        found, waiting = await until(store.dsn, topic, look, poll_seconds=self._seconds())
        seen &= waiting  # the others wait no more, and never come back
        seen |= {thing[self.key] for thing in found}
        return list(found)

    @classmethod
    def unseen(cls, store: Store, study: str | None, seen: set[int]) -> tuple[list[Waiting], set[int]] | None:
        """Look once."""
        waiting = cls.waiting(store, study)
        fresh = [thing for thing in waiting if thing[cls.key] not in seen]
        return (fresh, {thing[cls.key] for thing in waiting}) if fresh else None

    def _seconds(self) -> float:
        """Return the interval; the default for an invalid one, since a trigger cannot report an error."""
        try:
            seconds = settings.poll_interval_seconds() if self.poll_interval is None else float(self.poll_interval)
        except (TypeError, ValueError):
            return 60.0
        return seconds if math.isfinite(seconds) and seconds > 0 else 60.0
