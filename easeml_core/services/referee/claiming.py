"""Choose the referee's next request, and hold what belongs to a request until it is decided.

Which referee works on a request is in the database (``store/tables/referee_claims.py``), from when an attempt begins
until the request is decided, waits for something, or the referee's lease has ended. The lease of a referee's process is
extended at a fixed interval, whatever the process works on: its claims are valid while it lives, and others take them
when it does not. A request is passed over after a lock conflict, while its data are fetched or its models run, and
until its decision may be written; ``_CLAIM`` there has the order of the others. This state is in memory; a referee that
is killed leaves every request as it was, except for the attempts that are recorded in the database (ADR 0025).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.errors import ConcurrentUpdateError, StoreError
from easeml_core.services.evaluation.backoff import Patience, PutOffs, Turn
from easeml_core.services.evaluation.sealed_runs import Preparation
from easeml_core.store.database import notify
from easeml_core.store.tables import referee_claims, requests, sealed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import RequestKind
    from easeml_core.services.datasets.fetching import Fetches
    from easeml_core.services.evaluation.model_runs import Computed, ModelRuns
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.requests import Attempt


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


POSTPONE_SECONDS = 30.0
"""How long a request is passed over after a lock conflict."""


@dataclass(frozen=True, slots=True)
class Underway:
    """Work for requests of one referee outside their transactions.

    Attributes:
        fetches: Fetches of remote data.
        runs: Runs of models.
        judgements: Computations from sealed labels, of decisions that are not written yet.
        computed: Their results.
    """

    fetches: Fetches
    runs: ModelRuns
    judgements: ModelRuns
    computed: Computed

    def passed_over(self) -> list[int]:
        """Return the requests that cannot be decided yet."""
        return [*self.fetches.under_way(), *self.runs.under_way(), *self.judgements.under_way()]

    def works_for(self, request_id: int) -> bool:
        """Whether models run, or labels are judged, for the request."""
        return self.runs.has(request_id) or self.judgements.has(request_id)

    def failure(self, request_id: int) -> Exception | None:
        """Return, once, why the work for a request has stopped."""
        return self.runs.failure(request_id) or self.judgements.failure(request_id)

    def look(self) -> None:
        """Continue what has reached its padded end."""
        self.runs.look()
        self.judgements.look()

    def next_looks(self) -> list[float]:
        """Return the times of the next padded ends, by the clock of their pace."""
        return [due for due in (self.runs.next_look(), self.judgements.next_look()) if due is not None]

    def wait(self, seconds: float) -> bool:
        """Wait, at most so long, for the real end of work that is done now; False where none is."""
        return self.runs.wait(seconds) or self.judgements.wait(seconds) or self.fetches.wait(seconds)


class Claims:
    """Choose the next request of one referee. Safe to share between its threads.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where models and data lie.
        underway: Work for requests.
        lease: Of this process.
        most_put_offs: Largest number of postponements for faults that the request may have caused, >= 0.
    """

    def __init__(
        self, store: Store, artifacts: ArtifactStore, underway: Underway, lease: RefereeLease, *, most_put_offs: int
    ) -> None:
        self._store, self._artifacts, self._underway, self._lease = store, artifacts, underway, lease
        self._most_put_offs = most_put_offs
        self._put_offs = PutOffs(store, most_put_offs)
        self._aside: dict[int, float] = {}
        self._prepared: dict[int, Preparation] = {}
        self._guard = threading.Lock()
        self._busy = set[int]()  # requests that a thread of this process works on

    def claim(
        self, tx: Connection, kinds: Sequence[RequestKind] | None, *, first: int | None = None, alone: bool = False
    ) -> int | None:
        """Return the next request, locked until the transaction ends; None when there is none.

        Another referee may have decided it in this moment: ``begin`` looks again. State of requests that another
        referee has decided is dropped. The other arguments are those of ``referee_claims.claim_request``.
        """
        with self._guard:  # first: what a thread hands over is under way before the thread lets it go
            busy = set(self._busy)
        skip = {*busy, *self.standing_aside(), *self._underway.passed_over()}
        claimed = referee_claims.claim_request(
            tx, skip=sorted(skip), kinds=kinds, referee=self._lease.number(), first=first, alone=alone
        )
        with self._guard:
            prepared = {*self._prepared, *self._underway.computed.requests()} - self._busy
        fetched = self._underway.fetches.requests()
        if {*prepared, *fetched} - {claimed}:
            undecided = requests.undecided(tx, [*fetched, *prepared])
            self._underway.fetches.keep(undecided)
            for request_id in prepared - undecided:
                self._forget(request_id)
        return claimed

    def begin(self, turn: Turn) -> tuple[Preparation, int] | None:
        """Claim a request for this process, and record that work on it begins."""
        assert turn.request_id is not None
        with self._guard:
            if turn.request_id in self._busy or self._underway.works_for(turn.request_id):
                return None
            self._busy.add(turn.request_id)
            turn.is_mine = True
            ready = self._preparation(turn.request_id)
        attempt = self.resume(turn.request_id)
        if attempt is None:
            return None
        turn.attempt = attempt.number
        ready.patience = Patience(attempt.put_offs, self._most_put_offs)
        return ready, attempt.lost

    def resume(self, request_id: int) -> Attempt | None:
        """Claim a request in the database, and record the attempt; None where another referee has it or has decided it.

        It is committed at once: an attempt that kills this process counts.
        """
        with self._store.begin() as tx:
            if referee_claims.take(tx, request_id, self._lease.number()):
                return requests.note_attempt(tx, request_id)
        return None

    def end(self, turn: Turn) -> None:
        """Let other threads of this process have the request again."""
        if turn.is_mine:
            with self._guard:
                self._busy.discard(turn.request_id or 0)

    def release(self, tx: Connection, request_id: int) -> None:
        """Let other referees have the request, once the transaction is committed."""
        referee_claims.let_go(tx, [request_id], self._lease.number())

    def _preparation(self, request_id: int) -> Preparation:
        if request_id not in self._prepared:
            computed = self._underway.computed if self._underway.judgements.are_padded else None
            self._prepared[request_id] = Preparation(self._store, self._artifacts, computed)
        return self._prepared[request_id]

    def settle(self) -> None:
        """Record which attempts have stopped for a temporary fault; called before the next one begins."""
        self._put_offs.settle()

    def survived(self, turn: Turn) -> None:
        """Remember that the attempt has not killed this process, until that is recorded (``settle``)."""
        self._put_offs.survived(turn)

    def decided(self, request_id: int) -> None:
        """Drop the state of a request that is decided or waits for labels."""
        self._underway.fetches.decided(request_id)
        self._forget(request_id)

    def _forget(self, request_id: int) -> None:
        with self._guard:
            self._prepared.pop(request_id, None)
            self._underway.computed.forget(request_id, keep_runs=bool(self._prepared))

    def put_off(self, turn: Turn, error: Exception) -> str:
        """Postpone a request whose attempt has met a fault; return the line for the log.

        It waits briefly after a lock conflict, else as ``PutOffs`` says. In any case this referee's claim ends, where
        that can be written; otherwise the request stays its own, and it tries again.
        """
        try:
            return self._postpone(turn, error)
        finally:
            if turn.is_mine:
                self._give_up(turn)

    def _postpone(self, turn: Turn, error: Exception) -> str:
        ready = self._prepared.pop(turn.request_id or 0, None)
        if turn.request_id is None or ready is None or not ready.patience.allows(error):
            raise error
        self._put_offs.survived(turn)
        if isinstance(error, ConcurrentUpdateError):
            self.set_aside(turn.request_id)
            self._put_offs.settle()
            return f"put off, {error}"
        if not turn.attempt:  # not even its begin could be recorded
            raise error
        self._underway.fetches.decided(turn.request_id)  # what could not be fetched is fetched anew
        return self._put_offs.put_off(turn, error)

    def _give_up(self, turn: Turn) -> None:
        """As ``stop``, once it is recorded which attempts have not killed this process: to others they would seem lost.

        A failure is logged, since the fault that the attempt has met matters more.
        """
        try:
            self.settle()
            self.stop(turn)
        except StoreError as error:
            logger.warning("request %d: its claim could not be given up: %s", turn.request_id or 0, error)

    def stop(self, turn: Turn) -> None:
        """Give up the claim of an attempt that has stopped: this referee or another one tries again."""
        with self._store.begin() as tx:
            self.release(tx, turn.request_id or 0)

    def set_aside(self, request_id: int) -> None:
        """Pass the request over for a while after a lock conflict."""
        self._aside[request_id] = time.monotonic() + POSTPONE_SECONDS

    def standing_aside(self) -> list[int]:
        """Return the requests that are passed over after a lock conflict."""
        for request_id, until in list(self._aside.items()):  # changed in place: two threads set requests aside
            if until <= time.monotonic():
                self._aside.pop(request_id, None)
        return list(self._aside)

    def seconds_to_next(self) -> list[float]:
        """Return the seconds until each postponed request is tried again; negative where its time has come."""
        now = time.monotonic()
        return [until - now for until in list(self._aside.values())]


def wake(tx: Connection, request_id: int) -> None:
    """Notify this referee's other thread, and other referees, of a request; no other role may receive it."""
    notify(tx, f"request:{request_id}", channel=sealed.private_channel(tx))
