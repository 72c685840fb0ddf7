"""Models run in a thread of their own, one after the other: no other request waits for a run, or for its padding.

A decision that misses runs stops (``NotRunError``), its request stands aside until the padded end of the runs
(``services/evaluation/time_padding.py``), and the decision begins anew then. A padded end is a time before which
nothing goes on, and no thread sleeps until it: the thread ends with the run, and who decides looks at such times
alone (``look``, ``next_look``). Until then what the run gave is in memory. So neither the decisions of others, nor
the next run, nor a transaction shows when a run has really ended.

What is under way is known to this process alone. A referee that is killed or stopped meanwhile leaves the request as it
was, and the run is made again.
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
        pace: To which times runs are padded, by which clock.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._jobs: deque[_Job] = deque()
        self._now: _Job | None = None
        self._thread: threading.Thread | None = None  # while a step goes on
        self._latest: threading.Thread | None = None
        self._is_closing = False
        self._began = self._until = 0.0  # the step that goes on, and the padded end of the one before it
        self._failures: dict[int, Exception] = {}
        self._has_ended = False  # since under_way was asked
        self._changed = threading.Condition()

    def ask(self, request_id: int | None, steps: Generator[None, None, object], ended: Callable[[], object]) -> None:
        """Make runs after those that were asked for before.

        Args:
            request_id: For which request; None for housekeeping.
            steps: The work. It yields after each run, and goes on when that run has come to its padded end.
            ended: Called at the end, once the request may be decided; it raises nothing.
        """
        with self._changed:
            self._jobs.append(_Job(request_id, steps, ended))
        self.look()

    def look(self) -> None:
        """Let go on what has come to its padded end, and begin what has waited for that."""
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
        """When to look next, by the pace's clock: the next time at which a run can seem to end; None without a run."""
        with self._changed:
            if self._now is None:
                return None
            if self._thread is None:
                return self._until
            return self._began + padded(self._pace.clock() - self._began, self._pace.grid)

    @property
    def are_padded(self) -> bool:
        """Whether runs are padded at all; where not, who decides may as well make them itself."""
        return bool(self._pace.grid)

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
        """Wait while a model really runs, at most so long; False if none does, and none has ended since ``under_way``.

        For who has nothing else to do: how long this takes is not padded.
        """
        with self._changed:
            is_any = self._has_ended or self._thread is not None
            self._changed.wait_for(lambda: self._thread is None or self._has_ended, seconds)
            return is_any

    def close(self) -> None:
        """Begin no other runs, wait for the real end of the one that goes on, and leave what it gave."""
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
        except Exception as error:  # whose fault it is, and what is told of it, is for the decision to say
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
