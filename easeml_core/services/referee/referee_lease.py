"""The lease of one referee's process: its claims are valid while it lives, and others take them when it does not.

The lease is extended at a fixed interval, whatever the process works on (``store/tables/referee_claims.py``).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

from easeml_core.store.tables import referee_claims

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easeml_core.store.database import Store

logger = logging.getLogger(__name__)

LEASE_SECONDS = 20.0
"""How long a referee that was killed keeps others from its requests, at most."""

_BEATS = 4
"""Extensions in the time of one lease: three of them may be late or fail."""


class RefereeLease:
    """The row of one process among the referees. Safe to share between its threads.

    Args:
        store: Role ``easeml_referee``.
        seconds: Length of the lease, > 0 and at most 3600.
        workers: How many requests the process decides at a time.
        answer_seconds: After which its answers of gate and meter leave.
    """

    def __init__(
        self, store: Store, seconds: float = LEASE_SECONDS, *, workers: int = 1, answer_seconds: float = 0.0
    ) -> None:
        self._store, self._seconds = store, seconds
        self._workers, self._answer_seconds = workers, answer_seconds
        self._number: int | None = None
        self._extended_at: float | None = None
        self._guard = threading.Lock()

    def number(self) -> int:
        """Return the number of this referee; the first call begins its lease."""
        with self._guard:
            if self._number is None:
                with self._store.begin() as tx:
                    added = referee_claims.add_referee(
                        tx,
                        lease_seconds=self._seconds,
                        workers=self._workers,
                        answer_seconds=self._answer_seconds,
                    )
                self._number = added  # only once it is committed: the commit can fail
            return self._number

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Extend the lease while the block runs, then end it: others may have this referee's requests at once."""
        over = threading.Event()
        thread = threading.Thread(target=self._keep, args=(over,), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _keep(self, over: threading.Event) -> None:
        while True:
            self._extend(self._seconds)
            if over.wait(self._seconds / _BEATS):
                break
        self._extend(0.0)

    @property
    def is_kept(self) -> bool:
        """Whether the lease was extended within its length: the process lives, and the database answers it."""
        return self._extended_at is not None and time.monotonic() < self._extended_at + self._seconds

    def _extend(self, seconds: float) -> None:
        try:
            number = self.number()
            with self._store.begin() as tx:
                referee_claims.beat(tx, number, seconds)
            self._extended_at = time.monotonic() if seconds else None
        except Exception as error:  # it ends by itself, and the next extension comes soon
            logger.warning("the lease of this referee was not extended by %g s: %s", seconds, error)
