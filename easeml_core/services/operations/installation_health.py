"""Whether an installation is ready and sound, for load balancers and supervisors: the quick checks of ``doctor``.

Nothing here depends on sealed data: the schema's version, the age of requests without an answer, the referee's lease,
and free space.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from easeml_core.encoding import typed_record
from easeml_core.errors import EasemlError
from easeml_core.services.operations.checks import Check, check_referee, check_scheduler
from easeml_core.services.operations.doctor import check_rooms, check_schema
from easeml_core.store import schema
from easeml_core.store.queries import health

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easeml_core.store.database import Store

KEPT_SECONDS = 5.0
"""How long an answer is kept: callers without a login cause one look in that time."""


@typed_record
class Health:
    """The health of an installation.

    Attributes:
        status: ``failed`` where pages and tasks cannot work; ``degraded`` where a part does not, e.g. the referee.
        ready: Whether the database can be reached and its schema is current.
        checks: What was found.
    """

    status: Literal["ok", "degraded", "failed"]
    ready: bool
    checks: list[Check]


def installation_health(open_store: Callable[[], Store], place: Callable[[], str]) -> Health:
    """Look at database, schema, referee, scheduler and disk.

    Args:
        open_store: The database, with limits of time.
        place: Gives folder or address of models and data.
    """
    checks = [*_of_database(open_store), *_of_disk(place)]
    ready = all(check.state == "ok" for check in checks if check.name in ("database", "schema"))
    sound = all(check.state in ("ok", "skipped") for check in checks)
    return Health("failed" if not ready else "ok" if sound else "degraded", ready, checks)


def _of_database(open_store: Callable[[], Store]) -> list[Check]:
    try:
        with open_store().begin(check_schema=False, writes=False) as tx:
            revision = health.revision(tx)
            if revision != schema.REVISION:
                return [Check("database", "ok", "it answers"), check_schema(revision)]
            return [
                Check("database", "ok", "it answers"),
                check_schema(revision),
                check_referee(tx),
                check_scheduler(tx, health.logins_of_tenants(tx)[0]),
            ]
    except EasemlError as error:
        return [Check("database", "failed", str(error))]


def _of_disk(place: Callable[[], str]) -> list[Check]:
    try:
        places: dict[str, str | Path] = {"artifacts": place()}
        checks = check_rooms(places)
    except EasemlError as error:
        return [Check("disk: artifacts", "skipped", str(error))]
    return [Check(c.name, "ok", "there is room") if c.state == "warning" else c for c in checks]


T = TypeVar("T")


class KeptLook(Generic[T]):
    """Keeps what a look has found for a few seconds. Safe to share between threads.

    Args:
        look: Finds it.
        clock: Seconds that never go back.
    """

    def __init__(self, look: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        self._look, self._clock = look, clock
        self._kept: tuple[float, T] | None = None
        self._guard = threading.Lock()

    def __call__(self) -> T:
        """Return what was found, at most ``KEPT_SECONDS`` ago."""
        with self._guard:
            now = self._clock()
            if self._kept is None or now >= self._kept[0] + KEPT_SECONDS:
                self._kept = now, self._look()
            return self._kept[1]


class KeptHealth(KeptLook[Health]):
    """Keeps the health of an installation."""


def watch_changes(
    look: Callable[[], list[Check]], tell: Callable[[Check], object], stop: threading.Event, *, seconds: float
) -> bool:
    """Repeat checks until ``stop`` is set; tell each check whose state has changed, and at first those that are not ok.

    Args:
        look: Makes the checks.
        tell: Receives a changed check.
        stop: Ends the watch after the present look.
        seconds: Pause between two looks.

    Returns:
        Whether a check had failed at the last look.
    """
    states: dict[str, str] = {}
    while True:
        found = look()
        for check in found:
            before = states.get(check.name, "skipped" if check.state == "skipped" else "ok")
            if check.state != before:
                tell(check)
        states = {check.name: check.state for check in found}
        if stop.wait(seconds):
            return "failed" in states.values()
