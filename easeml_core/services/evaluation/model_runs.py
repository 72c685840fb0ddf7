"""Run models one after the other in a separate thread: no other request waits for a run, or for its padding.

A decision that needs runs stops with ``NotRunError``, its request waits until the padded end of the runs
(``time_padding.py``), and the decision starts again. No thread sleeps until a padded end: the thread ends with the run,
and the caller looks at padded times only (``look``, ``next_look``). Until then the result stays in memory. Neither
other decisions, nor the next run, nor a transaction shows when a run has really ended.

The state of runs is in this process alone: a referee that is killed or stopped leaves the request as it was, and the
run is repeated.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.services.evaluation.time_padding import padded

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from easeml_core.services.evaluation.time_padding import Pace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    """Runs for one request, or of housekeeping.

    Attributes:
        request_id: None for housekeeping.
        steps: As in ``ModelRuns.ask``.
        ended: Likewise.
    """

    request_id: int | None
    steps: Generator[None, None, object]
    ended: Callable[[], object]


class ModelRuns:
    """The runs of one referee. Safe to share between its threads.

    Models run under one account, and one that ran beside another on sealed inputs could look for them: there is one
    run at a time.

    Args:
        pace: The times to which runs are padded, and the clock.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._jobs: deque[_Job] = deque()
        self._now: _Job | None = None
        self._thread: threading.Thread | None = None  # of the present step
        self._latest: threading.Thread | None = None
        self._is_closing = False
        self._began = self._until = 0.0  # of the present step, and the padded end of the one before it
        self._failures: dict[int, Exception] = {}
        self._has_ended = False  # since the last call of under_way
        self._changed = threading.Condition()

    def ask(self, request_id: int | None, steps: Generator[None, None, object], ended: Callable[[], object]) -> None:
        """Queue runs after those that were requested before.

        Args:
            request_id: For which request; None for housekeeping.
            steps: The work. It yields after each run, and goes on when that run has come to its padded end.
            ended: Called at the end, once the request may be decided; it raises nothing.
        """
        with self._changed:
            self._jobs.append(_Job(request_id, steps, ended))
        self.look()

    def look(self) -> None:
        """Continue what has reached its padded end, and start what has waited for that."""
        with self._changed:
            if self._is_closing or self._thread is not None:
                return
            if self._now is not None and self._pace.clock() < self._until:
                return
            if self._now is None:
                if not self._jobs:
                    return
                self._now = self._jobs.popleft()
            self._began = self._pace.clock()
            thread = threading.Thread(target=self._go_on, args=(self._now,), name="models", daemon=True)
            thread.start()
            self._thread = self._latest = thread

    def next_look(self) -> float | None:
        """Return the next time at which a run can seem to end, by the pace's clock; None without a run."""
        with self._changed:
            if self._now is None:
                return None
            if self._thread is None:
                return self._until
            return self._began + padded(self._pace.clock() - self._began, self._pace.grid)

    @property
    def are_padded(self) -> bool:
        """Whether runs are padded at all; where not, the caller may make them itself."""
        return bool(self._pace.grid)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits for its turn."""
        with self._changed:
            return not self._jobs and self._now is None

    def under_way(self) -> list[int]:
        """Return the requests that cannot be decided yet."""
        with self._changed:
            self._has_ended = False
            jobs = [*self._jobs, *([] if self._now is None else [self._now])]
            return [job.request_id for job in jobs if job.request_id is not None]

    def failure(self, request_id: int) -> Exception | None:
        """Return, once, why the runs of a request have stopped, for its next decision."""
        with self._changed:
            return self._failures.pop(request_id, None)

    def wait(self, seconds: float) -> bool:
        """Wait while a model really runs, at most so long; False if none does and none has ended since ``under_way``.

        For a caller with nothing else to do: the duration is not padded.
        """
        with self._changed:
            is_any = self._has_ended or self._thread is not None
            self._changed.wait_for(lambda: self._thread is None or self._has_ended, seconds)
            return is_any

    def close(self) -> None:
        """Start no other runs, wait for the real end of the present one, and drop its result."""
        with self._changed:
            self._is_closing = True
            self._jobs.clear()
        if self._latest is not None:
            self._latest.join()
        with self._changed:
            self._is_closing = False
            left, self._now = self._now, None
        if left is not None:
            left.steps.close()

    def _go_on(self, job: _Job) -> None:
        is_over, failure = True, None
        try:
            next(job.steps)
            is_over = False
        except StopIteration:
            pass
        except Exception as error:  # the decision reports it
            failure = error
            if job.request_id is None:
                logger.exception("housekeeping has failed, and is tried again later")
        with self._changed:
            self._thread = None
            if is_over:
                self._now, self._has_ended = None, True
                if failure is not None and job.request_id is not None:
                    self._failures[job.request_id] = failure
            else:
                self._until = self._began + padded(self._pace.clock() - self._began, self._pace.grid)
            self._changed.notify_all()
        if is_over:
            job.ended()
            self.look()
