"""The scheduler's process, and how a role asks it: requests for suggestions, filed by some roles and decided by it.

The database says which role decides at once: one with the right to add suggestions (``easeml_worker`` of an
installation of one team); any other one files a request (``easeml_device``, the logins of tenants). A role that may
suggest could suggest anything, so no task of a tenant has one (ADR 0032). The process holds the role
``easeml_scheduler``, loads no DAG code, and chooses among the studies that the request's login may have. A decision is
repeatable by the request's key: a process that is killed between a decision and its note decides nothing twice. Any
number of processes share the requests: each holds the row of the one that it decides.

A fault of the machine decides nothing (ADR 0025): the request rests, and the next one is decided. A request that meets
faults again and again, or whose decision ends the process, is refused, and its caller may file it anew.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from easeml_core.errors import (
    Blame,
    EasemlError,
    InvalidInputError,
    NotFoundError,
    SchemaVersionError,
    StateError,
    StoreError,
    StoreUnavailableError,
    blame_of,
)
from easeml_core.services.selection.policy import require_policy
from easeml_core.services.selection.scheduler import LiveScheduler, Suggestions, require_askable
from easeml_core.services.telemetry import below, trace_parent
from easeml_core.settings.config import require
from easeml_core.store import logins
from easeml_core.store.database import DECISIONS_CHANNEL, SCHEDULER_CHANNEL
from easeml_core.store.listen import BlockingListener, wait_here
from easeml_core.store.tables import decisions, scheduler_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Sequence

    from easeml_core.store.database import Store
    from easeml_core.store.tables.scheduler_requests import FiledSuggestionRequest, SuggestionRequest


logger = logging.getLogger(__name__)

KEPT, KEPT_OF_LOGIN = 16, 3
"""Schedulers that a process keeps in memory, of all logins and of one: each loads all results of the installation."""

STALE_SECONDS = 360.0
"""Age at which no caller waits for a request any more (``WAIT_SECONDS``); its caller files it anew."""

MOST_TRIES = 8
"""Decisions of one request that are begun: the pauses between them are 1, 2, 4, ... s, two minutes in all."""

MOST_OFFERS = 50_000
"""Names of functions times names of studies in one request: each pair is a row that the decision writes."""

REST_SECONDS = 0.05
"""Shortest time between two looks: any role may notify."""

WATCH_SECONDS, MOST_LOCKS, LONGEST_SECONDS = 2.0, 5000, 600.0
"""Pause between two looks at the sessions of logins; locks of one login; its longest transaction. The server's table of
locks holds some 20,000 for all, and a session takes about 800 in a second."""

FORGET_SECONDS, SCHEMA_SECONDS = 3600.0, 30.0

FAULT = "the scheduler could not decide because of a fault of the machine or of its program, which its log describes"
STALE = "its caller no longer waited when the scheduler came to it; ask again"


class SchedulerProcess:
    """Decides the filed requests of one installation.

    Args:
        store: Role ``easeml_scheduler``.
        policy: One of ``easeml_core.settings.config.POLICIES``; None for that of the installation.
        poll_seconds: Longest pause between two looks when no notification comes, > 0.

    Raises:
        ConfigError: There is no such policy, or the pause is not positive.
        NotFoundError: The policy is not installed here.
    """

    def __init__(self, store: Store, *, policy: str | None = None, poll_seconds: float = 10.0) -> None:
        require(poll_seconds > 0, "poll_seconds", poll_seconds, "seconds, > 0")
        if policy is not None:
            require_policy(policy)
        self._store, self._policy, self._poll_seconds = store, policy, poll_seconds
        self._schedulers: OrderedDict[tuple[str, Hashable], LiveScheduler] = OrderedDict()
        self._rests: dict[int, float] = {}  # requests that met a fault, until then on the monotonic clock
        self._forgot_at = 0.0
        self._is_change_open = False
        self._number: int | None = None
        self._beat_at = -math.inf

    @property
    def is_alive(self) -> bool:
        """Whether it has written lately that it lives."""
        return time.monotonic() - self._beat_at < scheduler_requests.SILENT_SECONDS

    def run(self, stop: threading.Event) -> None:
        """Decide requests until ``stop`` is set; waits for the database, and for its schema to be upgraded."""
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(done,), name="easeml sessions", daemon=True)
        watch.start()
        try:
            self._run(stop)
        finally:
            done.set()
            watch.join()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                require_scheduler(self._store)
                self._listen(stop)
            except SchemaVersionError as error:
                logger.error("nothing is decided, and the next look is in %g s: %s", SCHEMA_SECONDS, error)
                stop.wait(SCHEMA_SECONDS)
            except StoreError as error:
                if blame_of(error) is not Blame.PASSING:
                    raise
                logger.warning("waiting for the database: %s", error)
                stop.wait(1.0)
        self._end()

    def _listen(self, stop: threading.Event) -> None:
        with BlockingListener(self._store.dsn, SCHEDULER_CHANNEL) as listener:  # before the first look
            while not stop.is_set():
                self._beat()
                while self.make_changes() + self.decide_open(stop):
                    self._beat()
                self._forget()
                stop.wait(REST_SECONDS)
                longest = min(self._poll_seconds, scheduler_requests.BEAT_SECONDS)
                listener.wait(1.0 if self._rests or self._is_change_open else longest, stop)

    def _watch(self, done: threading.Event) -> None:
        """End sessions of logins that hold too many locks, or a transaction for too long, until ``done`` is set."""
        said = False
        while not done.wait(WATCH_SECONDS):
            try:
                with self._store.begin() as tx:
                    ended = logins.end_sessions(tx, most_locks=MOST_LOCKS, longest_seconds=LONGEST_SECONDS)
            except EasemlError as error:
                logger.warning("sessions of logins are not watched for now: %s", error)
                continue
            if ended is None and not said:
                logger.warning(
                    "no session of a login is ended that fills the table of locks: see docs/install.md, The database"
                )
                said = True
            elif ended:
                logger.warning("%d sessions of logins ended: too many locks, or a transaction open for too long", ended)

    def make_changes(self) -> int:
        """Pause studies and cancel trials where logins have asked for it; return how many changes were made.

        A fault leaves all of them for the next look, and ends no decision; the log has the traceback.
        """
        try:
            with self._store.begin() as tx:
                made = scheduler_requests.apply_changes(tx)
                self._is_change_open = scheduler_requests.is_any_open(tx)
        except SchemaVersionError:
            raise
        except Exception as error:
            if isinstance(error, StoreError) and blame_of(error) is Blame.PASSING:
                raise  # the database is away
            logger.error("changes that logins asked for rest after a fault", exc_info=error)
            self._is_change_open = True
            return 0
        return made

    def _beat(self) -> None:
        """Write that this process lives, not more often than every ``BEAT_SECONDS``."""
        if time.monotonic() - self._beat_at >= scheduler_requests.BEAT_SECONDS:
            with self._store.begin() as tx:
                self._number = scheduler_requests.note_beat(tx, self._number)
            self._beat_at = time.monotonic()

    def _end(self) -> None:
        """Write that this process lives no more; without a database its last beat grows old instead."""
        if self._number is not None:
            try:
                with self._store.begin() as tx:
                    scheduler_requests.end_beats(tx, self._number)
            except StoreError as error:
                logger.warning("its last beat stays: %s", error)

    def decide_open(self, stop: threading.Event | None = None) -> int:
        """Decide the oldest open request of each login; return how many were closed."""
        with self._store.begin(writes=False) as tx:
            found = scheduler_requests.open_suggestion_requests(tx)
        now = time.monotonic()
        self._rests = {number: until for number, until in self._rests.items() if until > now}
        decided = 0
        for number in found:
            if stop is not None and stop.is_set():
                break
            if number not in self._rests:
                decided += self._decide(number)
        return decided

    def _decide(self, number: int) -> bool:
        """Decide one request or refuse it; False where another process has it, or it rests after a fault."""
        with self._store.begin() as tx:
            tries = scheduler_requests.begin_decision(tx, number)
        if tries is None:
            return False
        try:
            with self._store.begin() as tx:
                if not scheduler_requests.hold_open(tx, number):
                    return False
                refusal = (
                    FAULT if tries > MOST_TRIES else self._answer(scheduler_requests.get_suggestion_request(tx, number))
                )
                scheduler_requests.note_decided(tx, number, refusal=refusal)
        except Exception as error:  # one request must not end the decisions on all others; the log has the traceback
            logger.error("request %d rests after a fault, try %d", number, tries, exc_info=error)
            self._rests[number] = time.monotonic() + 2.0 ** min(tries - 1, 6)
            return False
        return True

    def _answer(self, request: SuggestionRequest) -> str | None:
        """Make the batch of a request, in a separate transaction; return the reason where it is refused."""
        if request.waits_seconds > STALE_SECONDS:
            return STALE
        try:
            scheduler = self._scheduler_for(request)
            with below(request.traceparent):
                made = scheduler.ask(count=request.requested, device=request.device, request_key=request.request_key)
        except Exception as error:
            if blame_of(error) is not Blame.ASKER:
                raise
            logger.warning("request %d of %s is refused: %s", request.id, request.login, error)
            return str(error)
        logger.info("request %d of %s: %s", request.id, request.login, made.message)
        return None

    def _scheduler_for(self, request: SuggestionRequest) -> LiveScheduler:
        """Return the scheduler of the request's studies and implementations, kept from before or new."""
        studies = self._studies_of(request)
        if len(request.functions) * len(studies or ()) > MOST_OFFERS:
            message = (
                f"{len(request.functions)} functions for {len(studies or ())} studies are more than {MOST_OFFERS:,} "
                "pairs; name fewer studies in one request"
            )
            raise InvalidInputError(message)
        functions = tuple(sorted(zip(request.functions, request.sources, strict=True)))
        runtimes = None if request.runtimes is None else tuple(request.runtimes)
        key = request.login, (studies, functions, request.trainers, runtimes)
        scheduler = self._schedulers.pop(key, None)
        if scheduler is None:
            scheduler = LiveScheduler(
                self._store,
                policy=self._policy,
                studies_only=studies,
                functions=dict(functions),
                trainers=request.trainers,
                runtimes=runtimes,
            )
        self._schedulers[key] = scheduler
        self._keep_few(request.login)
        return scheduler

    def _keep_few(self, login: str) -> None:
        """Drop what was used longest ago: of this login, and of all."""
        own = [key for key in self._schedulers if key[0] == login]
        for key in own[: max(0, len(own) - KEPT_OF_LOGIN)]:
            del self._schedulers[key]
        while len(self._schedulers) > KEPT:
            self._schedulers.popitem(last=False)

    def _studies_of(self, request: SuggestionRequest) -> tuple[str, ...] | None:
        """Return the names of the studies to choose from; None for all active ones."""
        with self._store.begin(writes=False) as tx:
            own = scheduler_requests.studies_of_login(tx, request.login)
        wanted = None if request.studies is None else tuple(dict.fromkeys(request.studies))
        if own is None:
            return wanted
        if wanted is None:
            return tuple(own)
        known = set(own)
        for name in wanted:
            if name not in known:  # the names of other tenants' studies are not suggested for a typing error
                raise NotFoundError(kind="study of this login", name=name, known=own)
        return wanted

    def _forget(self) -> None:
        """Delete old requests, once an hour."""
        if time.monotonic() - self._forgot_at > FORGET_SECONDS:
            with self._store.begin() as tx:
                scheduler_requests.forget_old_requests(tx)
            self._forgot_at = time.monotonic()


def require_scheduler(store: Store) -> None:
    """Raise unless the role of this store may decide."""
    with store.begin(writes=False) as tx:
        if not scheduler_requests.may_suggest(tx):
            message = "the role of this address may not suggest; `easeml scheduler` needs that of easeml_scheduler"
            raise StoreError(message)


WAIT_SECONDS = 300.0
"""How long a caller waits for the scheduler's process; a further call with the same key goes on waiting."""

_LOOK_SECONDS = 1.0


class Suggester(Protocol):
    """Suggests trials of one choice of studies and implementations."""

    def ask(self, *, count: int = 1, device: str | None = None, request_key: str) -> Suggestions:
        """Return up to ``count`` trials to run next; the same key gives the same trials."""


def suggester_for(
    store: Store,
    *,
    policy: str | None = None,
    usual_policy: str | None = None,
    studies_only: Sequence[str] | None = None,
    functions: Collection[str] | Mapping[str, str] = (),
    trainers: bool = True,
    runtimes: Collection[str] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Suggester:
    """Return what suggests trials to this role; arguments as in ``LiveScheduler``."""
    with store.begin(writes=False) as tx:
        decides_here = scheduler_requests.may_suggest(tx)
    if not decides_here:
        require(
            policy is None, "policy", policy, "left out: the scheduler's process (`easeml scheduler`) has one for all"
        )
        return FiledSuggester(
            store,
            studies_only=studies_only,
            functions=functions,
            trainers=trainers,
            runtimes=runtimes,
            should_stop=should_stop,
        )
    return LiveScheduler(
        store,
        policy=policy or usual_policy,
        studies_only=studies_only,
        functions=functions,
        trainers=trainers,
        runtimes=runtimes,
    )


class FiledSuggester:
    """Files requests for suggestions, and waits for the scheduler's process to decide them.

    Args:
        store: A role that may file requests.
        studies_only: As in ``suggester_for``, and so are the others.
        functions: Names of training functions, or these with the hashes of their sources.
        trainers: Whether the caller has the trainers of this package.
        runtimes: Container programs of the caller's machine; None where that is not known.
        should_stop: Asked every second while a request waits.
        wait_seconds: How long a call waits for a decision, >= 0.
    """

    def __init__(
        self,
        store: Store,
        *,
        studies_only: Sequence[str] | None = None,
        functions: Collection[str] | Mapping[str, str] = (),
        trainers: bool = True,
        runtimes: Collection[str] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._store, self._should_stop, self._wait_seconds = store, should_stop, wait_seconds
        self._studies = None if studies_only is None else tuple(studies_only)
        hashes = dict(functions) if isinstance(functions, Mapping) else dict.fromkeys(functions)
        self._functions: dict[str, str | None] = {**hashes}
        self._trainers = trainers
        self._runtimes = None if runtimes is None else tuple(runtimes)

    def ask(self, *, count: int = 1, device: str | None = None, request_key: str) -> Suggestions:
        """Return up to ``count`` trials to run next; the same key gives the same trials."""
        require_askable(count, device, request_key)
        filed = self._file(count, device, request_key)
        decided = self._wait(filed.id)
        if decided is not None and decided.refusal is not None and filed.was_there:
            filed = self._file(count, device, request_key)  # refused for an earlier caller: asked anew
            decided = self._wait(filed.id)
        if decided is None:
            if self._should_stop():
                return Suggestions("", (), "the caller was stopped before the scheduler decided")
            message = (
                f"the scheduler has not decided request {filed.id} for suggestions within {self._wait_seconds:g} s; "
                "see that `easeml scheduler` runs with this database, then try again: the same request goes on waiting"
            )
            raise StoreUnavailableError(message)
        if decided.refusal is not None:
            message = f"the scheduler refuses request {filed.id} for suggestions: {decided.refusal}"
            raise (StoreUnavailableError if decided.refusal == FAULT else StateError)(message)
        with self._store.begin(writes=False) as tx:
            return Suggestions.of(*decisions.batch_of_request(tx, logins.own_key(tx, request_key)))

    def _file(self, count: int, device: str | None, request_key: str) -> FiledSuggestionRequest:
        with self._store.begin() as tx:
            return scheduler_requests.file_suggestion_request(
                tx,
                request_key=request_key,
                requested=count,
                device=device,
                studies=self._studies,
                functions=self._functions,
                trainers=self._trainers,
                runtimes=self._runtimes,
                traceparent=trace_parent(),
            )

    def _wait(self, number: int) -> SuggestionRequest | None:
        """Return the request once it is decided; None where the time is over or the caller was stopped."""

        def look() -> tuple[SuggestionRequest | None] | None:
            if self._should_stop():
                return (None,)
            with self._store.begin(writes=False) as tx:
                found = scheduler_requests.get_suggestion_request(tx, number)
            return None if found.decided_at is None else (found,)

        waiting = {"seconds": self._wait_seconds, "poll_seconds": _LOOK_SECONDS}
        seen = wait_here(self._store.dsn, DECISIONS_CHANNEL, look, **waiting)
        return None if seen is None else seen[0]
