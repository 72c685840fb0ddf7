"""Start again what has ended: the database server and the components, each after a pause that grows while it fails.

As in supervisor, circus and systemd there is a pause with a factor, a largest pause, and a time after which a part
counts as steady. Unlike the first two, no part is given up (FATAL, ``max_retry``): the cause may be a machine that is
out of memory for an hour. A part that keeps failing is reported with the end of its log, and is tried again at the
largest pause.

While the database is away no component is started, since each would end at once, and no end counts as a failure.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from stack.failures import StackError

if TYPE_CHECKING:
    from collections.abc import Callable

RUNNING, RESTARTING, FAILING, WAITING = "running", "restarting", "failing", "waiting for the database"
LOOK_SECONDS = 0.25
JOIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a start.

        pause = min(most, first * factor^(failures - 1)) * U,  U uniform in [1 - jitter, 1 + jitter]

    The jitter keeps parts that ended together from coming back together.

    Attributes:
        first_seconds: Pause after the first failure, > 0.
        factor: Growth, >= 1.
        most_seconds: The largest pause before jitter.
        jitter: In [0, 1).
        steady_seconds: A part that ran so long begins again with the first pause.
        failing: So many failures in a row are reported.
    """

    first_seconds: float = 0.5
    factor: float = 2.0
    most_seconds: float = 60.0
    jitter: float = 0.25
    steady_seconds: float = 30.0
    failing: int = 4

    def pause_seconds(self, failures: int, rng: random.Random) -> float:
        """The pause after so many failures in a row, >= 1.

        Example:
            >>> plain = Backoff(jitter=0)
            >>> [plain.pause_seconds(n, random.Random(0)) for n in (1, 2, 3, 8, 1000)]
            [0.5, 1.0, 2.0, 60.0, 60.0]
        """
        growth = self.factor ** min(failures - 1, 60)
        return min(self.most_seconds, self.first_seconds * growth) * rng.uniform(1 - self.jitter, 1 + self.jitter)


class Part(Protocol):
    """What can be watched and started again."""

    @property
    def name(self) -> str:
        """What people call it."""

    def ended(self) -> str | None:
        """Why it does not run; None while it runs."""

    def start(self) -> None:
        """Start it; a StackError, an OSError or another error of the database counts as a failure."""

    def last_lines(self) -> str:
        """The end of what it logged in the run that ended."""


@dataclass(slots=True)
class Life:
    """What happened to one part so far.

    Attributes:
        part: Which.
        began: ``since`` on the monotonic clock.
        state: ``running``, ``restarting``, ``failing`` or ``waiting for the database``.
        since: When it was last started, in UTC.
        restarts: How often it was started again.
        failures: Failures in a row; 0 once it was steady.
        failure: Why it last ended, and when; empty if it never did.
        due: When to start it, on the monotonic clock; None while it runs.
        failing_since: Since when it keeps failing, on the monotonic clock.
    """

    part: Part
    began: float
    state: str = RUNNING
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    restarts: int = 0
    failures: int = 0
    failure: str = ""
    due: float | None = None
    failing_since: float | None = None


def named_status(status: int) -> str:
    """An exit status in words.

    Example:
        >>> named_status(-9), named_status(2)
        ('was killed by SIGKILL', 'ended with status 2')
    """
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


class Supervisor:
    """Watches the parts in a separate thread, from ``start`` to ``stop``.

    Args:
        database: The database server, without which no other part is started.
        backoff: How long to wait before a start.
        on_change: Called after each change, with a line for people.
        is_database_up: Whether the database answers.
        rng: Of the jitter.
    """

    def __init__(
        self,
        database: Part,
        *,
        is_database_up: Callable[[], bool],
        on_change: Callable[[str], None],
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.backoff, self.rng = backoff or Backoff(), rng or random.Random()
        self.is_database_up, self.on_change = is_database_up, on_change
        self.database = Life(database, time.monotonic())
        self.lives: list[Life] = []
        self._wanted: dict[str, Callable[[], Part]] = {}
        self.broken: BaseException | None = None
        self._held, self._end, self._looking = threading.Event(), threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    def hold(self) -> None:
        """Start nothing any more. A start of the database server that is under way is not waited for."""
        self._held.set()
        if self._looking.acquire(timeout=JOIN_SECONDS):
            self._looking.release()

    def stop(self) -> None:
        """End the thread: for the kernel that is the end of the launcher of what it has started again."""
        self._held.set()
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join(JOIN_SECONDS)

    def watch(self, part: Part) -> None:
        """Watch one more part, which runs."""
        self.lives.append(Life(part, time.monotonic()))

    def add(self, name: str, start: Callable[[], Part]) -> None:
        """Start one more part at the next look, in the thread that lives as long as the launcher.

        Args:
            name: Of the part; without effect where one of this name is watched. A start that fails is forgotten.
            start: Starts it.
        """
        if all(life.part.name != name for life in self.lives):
            self._wanted[name] = start

    def all(self) -> list[Life]:
        """The database server and the components."""
        return [self.database, *self.lives]

    def failing(self, patience_seconds: float = 0.0) -> Life | None:
        """The part that has kept failing for the longest time, at least so long; None if there is none.

        Raises:
            StackError: If the supervision itself broke, which is a fault of this program.
        """
        if self.broken is not None:
            message = f"the supervision of the stack broke: {self.broken!r}"
            raise StackError(message) from self.broken
        limit = time.monotonic() - patience_seconds
        found = [life for life in self.all() if life.failing_since is not None and life.failing_since <= limit]
        return min(found, key=lambda life: life.failing_since or 0.0, default=None)

    def look(self) -> None:
        """See what has ended, and start what is due."""
        self._look_at(self.database, is_held=False)
        if self.database.due is not None:
            is_away = True
        else:
            is_away = any(life.due is not None or life.part.ended() for life in self.lives) and not (
                self.is_database_up()
            )
        for life in list(self.lives):
            if self._held.is_set():
                return
            self._look_at(life, is_held=is_away)
        if not is_away:
            self._start_wanted()

    def _start_wanted(self) -> None:
        for name in list(self._wanted):
            start = self._wanted.pop(name)
            try:
                self.watch(start())
            except Exception as error:  # as in `_start`; who wants the part adds it again
                self.on_change(f"{name} did not start: {error}")
            else:
                self.on_change(f"{name} was started")

    def _run(self) -> None:
        try:
            while not self._end.wait(LOOK_SECONDS):
                with self._looking:
                    if not self._held.is_set():
                        self.look()
        except BaseException as error:  # a thread has no caller; `failing` raises it
            self.broken = error
            self.on_change(f"the supervision broke: {error!r}")
            self._end.wait()

    def _look_at(self, life: Life, *, is_held: bool) -> None:
        if life.due is None:
            reason = life.part.ended()
            if reason is None:
                self._note_steady(life)
                return
            self._plan(life, reason, counts=not is_held)
        if is_held:
            self._set_state(life, WAITING)
        elif life.due is not None and time.monotonic() >= life.due:
            self._start(life)

    def _note_steady(self, life: Life) -> None:
        if life.failures and time.monotonic() - life.began >= self.backoff.steady_seconds:
            was_failing = life.failing_since is not None
            life.failures, life.failing_since, life.state = 0, None, RUNNING
            if was_failing:
                self.on_change(f"{life.part.name} is steady again")

    def _plan(self, life: Life, reason: str, *, counts: bool) -> None:
        """Plan the next start of a part that has ended or did not start."""
        now = time.monotonic()
        if life.due is None and now - life.began >= self.backoff.steady_seconds:
            life.failures, life.failing_since = 0, None
        life.failures += int(counts)
        life.due = now + self.backoff.pause_seconds(max(1, life.failures), self.rng)
        life.failure = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {reason}"
        life.state = RESTARTING
        line = f"{life.part.name} {reason}; it is started again in {life.due - now:.1f} s"
        if life.failures >= self.backoff.failing:
            life.failing_since = life.failing_since if life.failing_since is not None else now
            life.state = FAILING
            last = life.part.last_lines()
            life.failure += f"\n{last}"
            line = f"{last}\n{line}; it failed {life.failures} times in a row, its last lines are above"
        self.on_change(line)

    def _start(self, life: Life) -> None:
        try:
            life.part.start()
        except Exception as error:  # whatever keeps a part from starting must not end the watch over the others
            self._plan(life, f"did not start: {error}", counts=True)
            return
        life.began, life.since, life.due = time.monotonic(), datetime.now(UTC), None
        life.restarts += 1
        life.state = FAILING if life.failing_since is not None else RUNNING
        self.on_change(f"{life.part.name} was started again ({life.restarts})")

    def _set_state(self, life: Life, state: str) -> None:
        if life.state != state:
            life.state = state
            self.on_change(f"{life.part.name} is {state}")
