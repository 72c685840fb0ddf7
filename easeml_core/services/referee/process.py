"""The referee's process: answers each request exactly once, and survives any of them.

It loads no DAG code and alone holds the sealed role's address. Some threads decide what may take long, another one
publishes due answers and moves production, a third kind sends mail or extends the lease. Any number of such processes
share the requests. Each step of a request is a module:

    claiming.py    chooses the next request, says to other referees that this one lives, and so has its requests
    dispatch.py    prepares what its decision needs (fetched data, model runs, computations), and makes the decision
    publishing.py  publishes its answer, in the same transaction, or later where answers have fixed times

A fault of the machine decides nothing (``services/evaluation/backoff.py``).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from easeml_core.errors import ConcurrentUpdateError, SchemaVersionError, StateError, StoreUnavailableError
from easeml_core.services.datasets.access import Reach
from easeml_core.services.datasets.fetching import Fetches
from easeml_core.services.evaluation.backoff import MOST_PUT_OFFS, Turn
from easeml_core.services.evaluation.model_runs import DECISION_GRID_SECONDS, GRID_SECONDS, Computed, ModelRuns, Pace
from easeml_core.services.evidence.notary import Notary
from easeml_core.services.models.promotion import MOVES
from easeml_core.services.referee.claiming import LEASE_SECONDS, Claims, RefereeLease, Underway
from easeml_core.services.referee.dispatch import MISSING, RUNS, WAITS, WITHOUT_MODELS, Dispatcher, Prerequisites
from easeml_core.services.referee.housekeeping import Housekeeper
from easeml_core.services.referee.publishing import MailSender, MailServer, Timetable, release_due
from easeml_core.store.database import REFEREE_CHANNEL
from easeml_core.store.listen import BlockingListener
from easeml_core.store.tables import leases, outbox, referee_claims, requests, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from easeml_core.entities import RequestKind
    from easeml_core.files.cache import FileCache
    from easeml_core.files.urls import Address
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.external_query import NamedQuery


logger = logging.getLogger(__name__)


class Place(Enum):
    """What a thread decides.

    Attributes:
        ANY: Any request.
        ALONE: Requests of a tenant that no thread works for: the tenant whose models take long holds back no other.
        SHORT: Requests for which no model runs: they wait for no model.
    """

    ANY = "any"
    ALONE = "alone"
    SHORT = "short"


class Workers:
    """The deciding threads of one referee.

    Args:
        work: Does one piece of work, or returns the seconds until it should look again without being called.
        count: Threads for any request, >= 1. One more is for short requests, and from two on one works ``ALONE``.
        stop: When set, each thread ends after its present piece.
    """

    def __init__(self, work: Callable[[Place], float | None], count: int, stop: threading.Event) -> None:
        self._work, self._stop = work, stop
        self._calls = 0
        self._called = threading.Condition()
        kinds = [Place.ANY] * count + [Place.ALONE] * (count > 1) + [Place.SHORT]
        self._threads = [
            threading.Thread(target=self._keep_at, args=(place,), name=f"worker-{number}", daemon=True)
            for number, place in enumerate(kinds)
        ]
        for thread in self._threads:
            thread.start()

    def call(self) -> None:
        """Let every idle thread look for work."""
        with self._called:
            self._calls += 1
            self._called.notify_all()

    def join(self) -> None:
        """Wait for the end of the threads, once ``stop`` is set."""
        self.call()
        for thread in self._threads:
            thread.join()

    def _keep_at(self, place: Place) -> None:
        while not self._stop.is_set():
            with self._called:
                seen = self._calls
            pause = self._work(place)
            if pause is not None:
                self._wait_for_call(seen, pause)

    def _wait_for_call(self, seen: int, seconds: float) -> None:
        with self._called:
            self._called.wait_for(lambda: self._calls != seen or self._stop.is_set(), seconds)


T = TypeVar("T")

_RUNS = 5
"""Requests, for each worker, whose models run or are padded at a time where answers have fixed times.

A place that waits for its padded end needs no processor."""

_JUDGEMENTS = 4
"""Computations from labels, for each worker, that are done or padded at a time."""

SCHEMA_SECONDS = 30.0
"""Pause of the referee where the database's schema is not that of this version."""


@dataclass(frozen=True, slots=True)
class Duties:
    """Settings of a referee.

    Attributes:
        data: Folder whose subfolder TENANT holds that tenant's files; None reads no file.
        prefixes: Under which ``url:`` sources may lie; none reads no address.
        queries: Queries of ``sql:`` sources; none reads no database.
        cache: For fetched files; None for the cache of this account.
        timetable: When answers of gate and meter leave.
        allow_forced: Whether a task may request a forced promotion.
        mail: The mail server; None keeps mail until a referee has one.
        repositories: Name of an Airflow git bundle to the repository whose tag follows production.
        keys: This host's key folder (``services/evidence``); None signs and checks nothing.
        audit_share: Largest share of the time that checks of the audit's chain take (``Notary``), in [0, 1).
        check_share: Probability with which a trial's result is measured anew (``quality_checks``), in [0, 1].
        orphan_days: For how many days nothing has written a file that no row names when it is removed; 0 for never.
        keep_models: How many of the best models of each study keep their files; None for all models.
        keep_days: Age in days from which on the others lose them, >= 1.
        curve_days: After how many days learning curves that no rule reads any more are removed; 0 for never.
        put_offs: Largest number of postponements after a kill, a time-out or a lack of memory, >= 0.
        workers: How many requests are decided at a time, and models run, >= 1.
        lease_seconds: How long others leave alone the requests of a referee that has ended, > 0 and at most 3600.
        poll_seconds: Longest pause between two looks when no notification comes.
        grid_seconds: Where answers have fixed times: the times to which runs of models are padded
            (``services/evaluation/model_runs.py``).
        decision_grid_seconds: Likewise the times after which a decision of gate or meter is written, so that no time
            follows from labels; the referee answers others meanwhile. Empty for at once.
        upkeep: Called with the store once a minute, whether there are requests or not; None for nothing.
    """

    data: Path | None = None
    prefixes: tuple[Address, ...] = ()
    queries: Mapping[str, NamedQuery] = field(default_factory=dict)
    cache: FileCache | None = None
    timetable: Timetable = field(default_factory=Timetable)
    allow_forced: bool = False
    mail: MailServer | None = None
    repositories: Mapping[str, Path] = field(default_factory=dict)
    keys: Path | None = None
    audit_share: float = 0.0
    check_share: float = 0.0
    orphan_days: float = 0.0
    keep_models: int | None = None
    keep_days: float = 30.0
    curve_days: float = 0.0
    put_offs: int = MOST_PUT_OFFS
    workers: int = 1
    lease_seconds: float = LEASE_SECONDS
    poll_seconds: float = 10.0
    grid_seconds: tuple[float, ...] = GRID_SECONDS
    decision_grid_seconds: tuple[float, ...] = DECISION_GRID_SECONDS
    upkeep: Callable[[Store], None] | None = None

    @property
    def reach(self) -> Reach:
        """The sources that it may read."""
        return Reach(self.data, self.prefixes, self.queries, self.cache)


class Referee:
    """Answers the requests of one installation.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where models and data lie.
        duties: Its settings.
        options: Single settings of ``Duties``, over those of ``duties``.
    """

    def __init__(self, store: Store, artifacts: ArtifactStore, duties: Duties | None = None, **options: Any) -> None:
        self._store, self._artifacts = store, artifacts
        self._duties = Duties(**options) if duties is None else duties
        self._notary = Notary(store, self._duties.keys, audit_share=self._duties.audit_share)
        self._fetches = Fetches(replace(self._duties.reach, artifacts=artifacts))
        self._dispatcher = Dispatcher(
            artifacts,
            self._notary,
            self._fetches,
            timetable=self._duties.timetable,
            allow_forced=self._duties.allow_forced,
        )
        self._schema_logged = -math.inf
        self._lease = RefereeLease(
            store,
            self._duties.lease_seconds,
            workers=self._duties.workers,
            answer_seconds=self._duties.timetable.longest_seconds,
        )
        self._workers: Workers | None = None
        self._keep_time()
        self._idle_has_more = True
        self._idle = threading.Lock()
        self._housekeeper = Housekeeper(
            store,
            artifacts,
            self._lease,
            self._duties.repositories,
            check_share=self._duties.check_share,
            orphan_days=self._duties.orphan_days,
            retention=(self._duties.keep_models, self._duties.keep_days, self._duties.curve_days),
            upkeep=self._duties.upkeep,
        )

    def _keep_time(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        """Read the time from this clock. Only ``answer_one`` and ``run_once`` sleep, for want of other work."""
        duties, computed = self._duties, Computed()
        is_fixed, reserve = duties.timetable.is_fixed, int(duties.workers > 1)
        runs = Pace(duties.grid_seconds if is_fixed else (), clock)
        judgements = Pace(duties.decision_grid_seconds if is_fixed else (), clock)
        self._clock, self._sleep = clock, sleep
        self._runs = ModelRuns(runs, _RUNS * duties.workers, reserve)
        self._judgements = ModelRuns(judgements, _JUDGEMENTS * duties.workers, reserve)
        self._underway = Underway(self._fetches, self._runs, self._judgements, computed)
        self._claims = Claims(
            self._store, self._artifacts, self._underway, self._lease, most_put_offs=self._duties.put_offs
        )
        self._prerequisites = Prerequisites(self._store, self._claims, self._underway)

    @property
    def is_alive(self) -> bool:
        """Whether its lease is extended: at a fixed interval, whatever it works on."""
        return self._lease.is_kept

    def run(self, stop: threading.Event) -> None:
        """Answer requests until ``stop`` is set; waits for the database while it is away."""
        while not self._is_key_open(stop):
            if stop.is_set():
                return
        mailer = self._start_mailer(stop)
        with self._lease.kept():
            answers = threading.Thread(target=self._publish, args=(stop,), name="publisher", daemon=True)
            answers.start()
            workers = self._workers = Workers(lambda place: self._decide(place, stop), self._duties.workers, stop)
            while not stop.is_set():
                self._safely(lambda: self._listen(stop), stop)
            workers.join()
            self._workers = None
            self._runs.close()
            self._judgements.close()
            answers.join()
        self._fetches.keep(())
        if mailer is not None:
            mailer.join()

    def _is_key_open(self, stop: threading.Event) -> bool:
        """Whether this host may sign, which the database says; False after a pause where it is away."""
        refused: list[StateError] = []

        def work() -> bool:
            try:
                self._notary.open_key()
            except StateError as error:
                refused.append(error)
            return True

        is_open = bool(self._safely(work, stop))
        if refused:
            raise refused[0]
        return is_open

    def _decide(self, place: Place, stop: threading.Event) -> float | None:
        """Do one piece of what may take long, or return how long to wait for a call."""

        def work() -> float | None:
            looked_at = time.monotonic()
            return None if self._decide_or_tidy(place) else self._pause_seconds(looked_at)

        return self._safely(work, stop)

    def _call_workers(self) -> None:
        """Let idle workers look."""
        if self._workers is not None:
            self._workers.call()

    def _decide_or_tidy(self, place: Place = Place.ANY) -> bool:
        """Do one piece of what may take long; False when there is none."""
        if place is Place.ANY and self._idle.acquire(blocking=False):  # also where requests leave no time without one
            try:
                self._housekeeper.keep_up()
            finally:
                self._idle.release()
        kinds = WITHOUT_MODELS if place is Place.SHORT else RUNS
        if self._answer_ready(kinds, alone=place is Place.ALONE) is not None:
            return True
        if place is not Place.ANY or not self._idle.acquire(blocking=False):
            return False  # another thread has this work
        try:
            return self._work_idle()
        finally:
            self._idle.release()

    def _work_idle(self) -> bool:
        """Do work for times without requests; False when there is no more, or until a model's padded end."""
        if not self._runs.are_padded:
            return self._housekeeper.work()
        self._housekeeper.tidy()
        if self._runs.is_idle:
            self._runs.ask(None, self._run_idle(), self._wake_idle)
        return False

    def _run_idle(self) -> Generator[None, None, None]:
        self._idle_has_more = False  # where this fails, it rests until the next look
        self._idle_has_more = yield from self._housekeeper.run_one()

    def _wake_idle(self) -> None:
        if self._idle_has_more:
            self._prerequisites.wake(0)

    def _say_or_move(self) -> bool:
        """Do one piece of what must not wait for a model: publish due answers, or move production."""
        has_left, has_moved = self.release_one() is not None, self._answer_ready(tuple(MOVES)) is not None
        if has_left or has_moved:  # by turns: neither waits for all of the other
            return True
        is_more_left = self._notary.look_over()
        return self._notary.append_committed() or is_more_left

    def _publish(self, stop: threading.Event) -> None:
        """Publish and move until ``stop`` is set."""
        while not stop.is_set():
            self._safely(lambda: self._publish_what_comes(stop), stop)

    def _publish_what_comes(self, stop: threading.Event) -> None:
        with self._listener() as listener:  # before the first look: nothing is missed
            while not stop.is_set():
                looked_at = time.monotonic()
                if not self._say_or_move():
                    listener.wait(self._pause_seconds(looked_at), stop)

    def _listen(self, stop: threading.Event) -> None:
        """Call the workers whenever a notification comes, until ``stop`` is set."""
        with self._listener() as listener:
            while not stop.is_set():
                self._call_workers()
                listener.wait(self._duties.poll_seconds, stop)

    def _listener(self) -> BlockingListener:
        with self._store.begin() as tx:
            private = sealed.private_channel(tx)
            leases.note_server_start(tx)
        return BlockingListener(self._store.dsn, REFEREE_CHANNEL, private)

    def _safely(self, work: Callable[[], T], stop: threading.Event) -> T | None:
        """Do a piece of work, whatever error comes; None after one, once a pause is over."""
        try:
            return work()
        except (StoreUnavailableError, ConcurrentUpdateError) as error:
            logger.warning("waiting for the database: %s", error)
            stop.wait(1.0)
        except SchemaVersionError as error:  # the schema or the program must be upgraded
            self._log_schema(error)
            stop.wait(SCHEMA_SECONDS)
        except Exception:  # one request must not end the answers to all others; the log has the traceback
            logger.exception("the referee goes on")
            stop.wait(1.0)
        return None

    def _log_schema(self, error: SchemaVersionError) -> None:
        """Log one line for all threads that have met it."""
        before, self._schema_logged = self._schema_logged, time.monotonic()
        if self._schema_logged - before >= SCHEMA_SECONDS / 2:
            logger.error("nothing is answered, and the next look is in %g s: %s", SCHEMA_SECONDS, error)

    def run_once(self) -> int:
        """Decide, publish and mail all that is possible now; return how many requests were handled."""
        self._notary.open_key()
        with self._lease.kept():
            handled = self._handle_all()
        while self._notary.append_committed():
            pass
        if self._duties.mail is not None:
            MailSender(self._store, self._duties.mail).send_waiting()
        return handled

    def _handle_all(self) -> int:
        handled = set[int]()
        self._idle_has_more = True
        while True:
            found = self.release_one()
            found = self._answer_ready() if found is None else found
            if found is None and ((self._idle_has_more and self._work_idle()) or self._wait()):
                continue
            if found is None:
                break
            self._idle_has_more = True
            handled.add(found)
        self._runs.close()
        self._judgements.close()
        return len(handled)

    def _start_mailer(self, stop: threading.Event) -> threading.Thread | None:
        if self._duties.mail is None:
            return None
        sender = MailSender(self._store, self._duties.mail)
        thread = threading.Thread(target=sender.run, args=(stop,), name="mailer", daemon=True)
        thread.start()
        return thread

    def _pause_seconds(self, looked_at: float) -> float:
        """Return how long to wait for a notification: until an answer leaves, a request is tried or a lease ends.

        Not at all for what has become due since the last look began, which may have missed it. What was due before
        was passed over for a reason (another referee holds it), and waits as usual.
        """
        referee = self._lease.number()
        with self._store.begin() as tx:
            ago = time.monotonic() - looked_at
            left = (
                outbox.seconds_to_next(tx, looked_ago=ago),
                requests.seconds_to_next_try(tx, looked_ago=ago),
                referee_claims.seconds_to_next_end(tx, referee, looked_ago=ago),
            )
        now = self._clock()
        soon = [until - now for until in self._underway.next_looks()]
        soon += self._claims.seconds_to_next()
        ago = time.monotonic() - looked_at
        known = [*(seconds for seconds in left if seconds is not None), *(s for s in soon if s > -ago)]
        return max(0.0, min([self._duties.poll_seconds, *known]))

    def release_one(self) -> int | None:
        """Publish the due answer that was decided first; return its request's id, or None when there is none."""
        return release_due(self._notary, self._claims)

    def answer_one(self, kinds: Sequence[RequestKind] | None = None) -> int | None:
        """As ``_answer_ready``; where all open requests wait for their time or for remote data, it waits too."""
        while (found := self._answer_ready(kinds)) is None and self._wait():
            pass
        return found

    def _wait(self) -> bool:
        """Wait for the time or the data of a request that may then be decided; False when there is none."""
        times = self._underway.next_looks()
        left = max(0.0, min([until - self._clock() for until in times], default=math.inf))
        if self._underway.wait(min(self._duties.poll_seconds, left)):
            return True
        if times:
            self._sleep(max(0.0, min(times) - self._clock()))
        return bool(times)

    def _answer_ready(self, kinds: Sequence[RequestKind] | None = None, *, alone: bool = False) -> int | None:
        """Decide a request, or pass it over after a lock conflict; return its id, or None when there is none.

        A request with remote data is passed over while they are fetched, and others are decided. Where answers leave at
        once, this one has left with that. No lock is held while models run for it, so it is read again after each run:
        another referee may have decided it, or it needs another model by now.
        """
        first: int | None = None
        while True:
            turn = Turn()
            try:
                said = self._decide_next(turn, kinds, first, alone=alone)
            except Exception as error:
                said = self._claims.put_off(turn, error)
            finally:
                self._claims.end(turn)
            if turn.request_id is None:
                return None
            if said is not None:
                logger.info("request %d %s", turn.request_id, said)
                return turn.request_id
            first = turn.request_id

    def _decide_next(
        self, turn: Turn, kinds: Sequence[RequestKind] | None, first: int | None, *, alone: bool
    ) -> str | None:
        """Decide one request; return the line for the log. None where it must be looked at again, or there is none."""
        self._claims.settle()
        self._underway.look()
        try:
            with self._notary.begin() as tx:
                turn.request_id = self._claims.claim(tx, kinds, first=first, alone=alone)
                if turn.request_id is None:
                    return None
                begun = self._claims.begin(turn)
                if begun is None:
                    return None
                ready, lost = begun
                self._call_workers()  # there may be more to decide
                stopped = self._underway.failure(turn.request_id)
                if stopped is not None:
                    raise stopped
                said = self._dispatcher.decide(tx, ready, turn.request_id, lost)
                if said == WAITS:
                    requests.note_survival(tx, turn.request_id, turn.attempt)
                self._claims.release(tx, turn.request_id)
        except MISSING as missing:
            self._prerequisites.make(missing, ready, turn)
            return None
        self._claims.decided(turn.request_id)
        return said
