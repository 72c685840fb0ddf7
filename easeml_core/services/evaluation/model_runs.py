"""Do work in threads whose real end no role may see: runs of models, and computations from sealed labels.

A decision that needs such work stops, its request waits until the padded end of the work (``padded``), and the
decision starts again. No thread sleeps until a padded end: the thread ends with the work, and the caller looks at
padded times only (``look``, ``next_look``). Until then the result stays in memory. Neither other decisions, nor the
next work, nor a transaction shows when the work has really ended.

There is a fixed number of places. Work keeps its place until its padded end, and the next one begins there: so when
work begins, and when it seems to end, follow from the times of the requests and from which time of the grid each piece
of work has needed, and from nothing else that a model or a label could change.

The state is in this process alone: a referee that is killed or stopped leaves the request as it was, and the work is
repeated.

Ends are padded to a few fixed times where answers have such times. A submitted model decides how long it runs, and it
sees sealed inputs while it does. The exact tests of a decision take longer or shorter by the counts of right and wrong
answers. Without padding a user who can see when the referee goes on could read information from the duration; with it,
only which time of the grid it was. When an answer leaves is decided by ``Timetable`` in
``services/referee/publishing.py``.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from easeml_core.store.database import helping

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray


GRID_SECONDS = (1.0, 3.0, 10.0, 60.0, 1200.0, 3600.0)
"""Of all runs for a request, or of a model's on a set. The last exceeds what they can take:

* A model is run on all rows of a set and on a part of them, each twice if it fails, for 120 s each at most: 480 s, and
  a few seconds until each of the four children has ended. A reading needs that for two sets, and two attempts on the
  validation part: 1,230 s. A kill or a time-out ends all that, and one run on the open rows follows.
* A model's file is copied for each of the five, at most 8 GiB (``LARGEST_COPIED_BYTES``), which are read three
  times and written once: 160 GiB together. 1,700 s suffice for that where reading and writing go at 100 MB/s and more.
  On a slower disk only files of that size can have a further time, the double of the last.
"""

DECISION_GRID_SECONDS = (0.5, 4.0, 60.0)
"""Padded durations of decisions. Nearly all take less than the first: below 0.1 s with 20,000
examples, 0.4 s with 200,000."""


def padded(took: float, grid: Sequence[float]) -> float:
    """Return the padded duration of a run: the next time of the grid, beyond its last the next multiple of that.

    Example:
        >>> padded(6.29, (10.0, 60.0))
        10.0
        >>> padded(61.0, (10.0, 60.0))
        120.0
    """
    if not grid:
        return took
    return next((end for end in grid if took <= end), grid[-1] * math.ceil(took / grid[-1]))


@dataclass(frozen=True, slots=True)
class Pace:
    """The times at which model runs, or decisions, may seem to end.

    Attributes:
        grid: As in ``padded``.
        clock: Seconds that never go back.
    """

    grid: tuple[float, ...] = ()
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class Computed:
    """Results that were computed for decisions that are not written yet.

    Attributes:
        judged: Results of sealed labels, by their inputs; a key begins with the request's id.
        losses: Of models on validation parts, by identity of the model and artifact of the data.
        answers: The models' answers on these parts, likewise.
    """

    judged: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    losses: dict[tuple[str, str], float] = field(default_factory=dict)
    answers: dict[tuple[str, str], NDArray[Any]] = field(default_factory=dict)

    def requests(self) -> set[int]:
        """Return the requests with a result of sealed labels."""
        return {key[0] for key in list(self.judged)}

    def forget(self, request_id: int, *, keep_runs: bool) -> None:
        """Drop what was computed for a request."""
        for key in list(self.judged):  # another thread may add to it meanwhile
            if key[0] == request_id:
                self.judged.pop(key, None)
        if not keep_runs:
            self.losses.clear()
            self.answers.clear()


logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Job:
    """Work for one request, or of housekeeping.

    Attributes:
        request_id: None for housekeeping.
        owner: As in ``ModelRuns.ask``.
        steps: Likewise.
        ended: Likewise.
        thread: Of the present step; None while it waits for its padded end.
        began: When the present step began.
        until: Padded end of the step before.
    """

    request_id: int | None
    owner: int
    steps: Generator[None, None, object]
    ended: Callable[[], object]
    thread: threading.Thread | None = None
    began: float = 0.0
    until: float = field(default=0.0)


class ModelRuns:
    """The work of one referee whose ends are padded. Safe to share between its threads.

    Args:
        pace: The times to which it is padded, and the clock.
        places: How much is done at a time, >= 1.
        reserve: Further places, >= 0, for owners that have none.

    Attributes:
        pace: As given.
    """

    def __init__(self, pace: Pace, places: int = 1, reserve: int = 0) -> None:
        self.pace, self._places, self._reserve = pace, places, reserve
        self._waiting: list[_Job] = []
        self._now: list[_Job] = []
        self._turns: dict[int, int] = {}  # of each owner that has had a place: the number of its last start
        self._is_closing = False
        self._failures: dict[int, Exception] = {}
        self._has_ended = False  # since the last call of under_way
        self._changed = threading.Condition()

    def ask(
        self,
        request_id: int | None,
        steps: Generator[None, None, object],
        ended: Callable[[], object],
        owner: int = 0,
    ) -> None:
        """Queue work: next comes the first piece of the owner with the fewest places, then the longest wait."""
        with self._changed:
            self._waiting.append(_Job(request_id, owner, steps, ended))
        self.look()

    def one_at_a_time(self) -> None:
        """Have a single place from now on."""
        with self._changed:
            self._places, self._reserve = 1, 0

    def look(self) -> None:
        """Continue what has reached its padded end, and start what has waited for that."""
        with self._changed:
            if self._is_closing:
                return
            now = self.pace.clock()
            for job in list(self._now):
                if job in self._now and job.thread is None and now >= job.until:
                    self._start(job)
            while (following := self._next()) is not None:
                self._waiting.remove(following)
                self._now.append(following)
                self._turns[following.owner] = 1 + max(self._turns.values(), default=0)
                self._start(following)

    def _next(self) -> _Job | None:
        """Return what comes next, where it has a place."""
        owned: dict[int, int] = {}
        for job in self._now:
            owned[job.owner] = owned.get(job.owner, 0) + 1
        if not self._waiting or len(self._now) >= self._places + self._reserve:
            return None
        found = min(self._waiting, key=lambda job: (owned.get(job.owner, 0), self._turns.get(job.owner, 0)))
        return found if len(self._now) < self._places or found.owner not in owned else None

    def _start(self, job: _Job) -> None:
        job.began = self.pace.clock()
        job.thread = threading.Thread(target=self._go_on, args=(job,), name="models", daemon=True)
        job.thread.start()

    def next_look(self) -> float | None:
        """Return the next time at which work can seem to end, by the pace's clock; None without any."""
        with self._changed:
            return min((self._due(job) for job in self._now), default=None)

    def _due(self, job: _Job) -> float:
        if job.thread is None:
            return job.until
        return job.began + padded(self.pace.clock() - job.began, self.pace.grid)

    @property
    def are_padded(self) -> bool:
        """Whether ends are padded at all; where not, the caller may do the work itself."""
        return bool(self.pace.grid)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is done and nothing waits for its turn."""
        with self._changed:
            return not self._waiting and not self._now

    def under_way(self) -> list[int]:
        """Return the requests that cannot be decided yet."""
        with self._changed:
            self._has_ended = False
            return [job.request_id for job in [*self._waiting, *self._now] if job.request_id is not None]

    def has(self, request_id: int) -> bool:
        """Whether work for the request is done or waits."""
        with self._changed:
            return any(job.request_id == request_id for job in [*self._waiting, *self._now])

    def failure(self, request_id: int) -> Exception | None:
        """Return, once, why the work for a request has stopped, for its next decision."""
        with self._changed:
            return self._failures.pop(request_id, None)

    def wait(self, seconds: float) -> bool:
        """Wait while work is really done, at most so long; False if none is and none has ended since ``under_way``.

        For a caller with nothing else to do: the duration is not padded.
        """
        with self._changed:
            is_any = self._has_ended or self._is_working()
            self._changed.wait_for(lambda: not self._is_working() or self._has_ended, seconds)
            return is_any

    def _is_working(self) -> bool:
        return any(job.thread is not None for job in self._now)

    def close(self) -> None:
        """Start no other work, wait for the real end of the present one, and drop its result."""
        with self._changed:
            self._is_closing = True
            self._waiting.clear()
            threads = [job.thread for job in self._now if job.thread is not None]
        for thread in threads:
            thread.join()
        with self._changed:
            self._is_closing = False
            left, self._now = self._now, []
        for job in left:
            job.steps.close()

    def _go_on(self, job: _Job) -> None:
        with helping():
            self._advance(job)

    def _advance(self, job: _Job) -> None:
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
            job.thread = None
            if is_over:
                self._now.remove(job)
                self._has_ended = True
                if failure is not None and job.request_id is not None:
                    self._failures[job.request_id] = failure
            else:
                job.until = job.began + padded(self.pace.clock() - job.began, self.pace.grid)
            self._changed.notify_all()
        if is_over:
            job.ended()
            self.look()
