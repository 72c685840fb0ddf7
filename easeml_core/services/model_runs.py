"""Models run in a thread of their own, one after the other: no other request waits for a run, or for its padding.

A decision that misses runs stops (``NotRunError``), its request stands aside until the padded end of the runs
(``services/pace.py``), and the decision begins anew then. The next run begins at that end and no sooner. So neither the
thread that decides nor the next run shows when a run has really ended.

What is under way is known to this process alone. A referee that is killed meanwhile leaves the request as it was: what
a run has left is kept in the sealed schema, and all else is run again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    """Runs for one request, or of housekeeping.

    Attributes:
        request_id: None for housekeeping.
        work: Makes the runs, and returns at their padded end.
        ended: Called then, once the request may be decided; it raises nothing.
    """

    request_id: int | None
    work: Callable[[], object]
    ended: Callable[[], object]


class ModelRuns:
    """The runs of one referee. Safe to share between its threads.

    Models run under one account, and one that ran beside another on sealed inputs could look for them: there is one
    thread, which ends when there is nothing to run.
    """

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._now: _Job | None = None
        self._thread: threading.Thread | None = None
        self._failures: dict[int, Exception] = {}
        self._has_ended = False  # since under_way was asked
        self._changed = threading.Condition()

    def ask(self, request_id: int | None, work: Callable[[], object], ended: Callable[[], object]) -> None:
        """Make runs after those that were asked for before.

        Args:
            request_id: For which request; None for housekeeping.
            work: Makes them, and returns at their padded end.
            ended: Called then, once the request may be decided; it raises nothing.
        """
        with self._changed:
            self._jobs.append(_Job(request_id, work, ended))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="models", daemon=True)
                self._thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits for its turn."""
        with self._changed:
            return not self._jobs and self._now is None

    def under_way(self) -> list[int]:
        """Requests that cannot be decided yet."""
        with self._changed:
            self._has_ended = False
            jobs = [*self._jobs, *([] if self._now is None else [self._now])]
            return [job.request_id for job in jobs if job.request_id is not None]

    def failure(self, request_id: int) -> Exception | None:
        """Why the runs of a request have stopped, once: for its next decision to meet."""
        with self._changed:
            return self._failures.pop(request_id, None)

    def wait(self, seconds: float) -> bool:
        """Wait until runs have ended since ``under_way`` was asked, at most so long; False if there are none."""
        with self._changed:
            is_any = self._has_ended or bool(self._jobs) or self._now is not None
            if is_any:
                self._changed.wait_for(lambda: self._has_ended, seconds)
            return is_any

    def close(self) -> None:
        """Begin no other runs, and wait for the end of the one that was begun."""
        with self._changed:
            self._jobs.clear()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    self._thread = None
                    return
                job = self._now = self._jobs.popleft()
            failure: Exception | None = None
            try:
                job.work()
            except Exception as error:  # whose fault it is, and what is told of it, is for the decision to say
                failure = error
                if job.request_id is None:
                    logger.exception("housekeeping has failed, and is tried again later")
            with self._changed:
                if failure is not None and job.request_id is not None:
                    self._failures[job.request_id] = failure
                self._now, self._has_ended = None, True
                self._changed.notify_all()
            job.ended()
