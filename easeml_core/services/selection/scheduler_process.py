"""The scheduler's process: decides the requests for suggestions that other roles have filed.

A role that may suggest could suggest anything, so no task of a tenant has one (ADR 0032). The process holds the role
``easeml_scheduler``, loads no DAG code, and chooses among the studies that the request's login may have. A decision is
repeatable by the request's key: a process that is killed between a decision and its note decides nothing twice, and
any number of processes share the requests.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

from easeml_core.config import SelectionConfig, require
from easeml_core.errors import (
    ConcurrentUpdateError,
    EasemlError,
    InvalidInputError,
    NotFoundError,
    StateError,
    StoreError,
    StoreUnavailableError,
)
from easeml_core.services.selection.scheduler import LiveScheduler
from easeml_core.store.database import SCHEDULER_CHANNEL
from easeml_core.store.listen import BlockingListener
from easeml_core.store.tables import suggestion_requests

if TYPE_CHECKING:
    import threading
    from collections.abc import Hashable

    from easeml_core.store.database import Store
    from easeml_core.store.tables.suggestion_requests import SuggestionRequest

logger = logging.getLogger(__name__)

KEPT = 16
"""Schedulers that a process keeps in memory, each for one choice of studies and implementations."""

_FAULT = "the scheduler could not decide because of an internal fault, which its log describes; ask again later"


class SchedulerProcess:
    """Decides the filed requests of one installation.

    Args:
        store: Role ``easeml_scheduler``.
        policy: One of ``easeml_core.config.POLICIES``; None for that of the installation.
        poll_seconds: Longest pause between two looks when no notification comes, > 0.

    Raises:
        ConfigError: There is no such policy, or the pause is not positive.
    """

    def __init__(self, store: Store, *, policy: str | None = None, poll_seconds: float = 10.0) -> None:
        require(poll_seconds > 0, "poll_seconds", poll_seconds, "seconds, > 0")
        if policy is not None:
            SelectionConfig(policy=policy)
        self._store, self._policy, self._poll_seconds = store, policy, poll_seconds
        self._schedulers: OrderedDict[Hashable, LiveScheduler] = OrderedDict()

    def run(self, stop: threading.Event) -> None:
        """Decide requests until ``stop`` is set; waits for the database while it is away."""
        while not stop.is_set():
            try:
                with BlockingListener(self._store.dsn, SCHEDULER_CHANNEL) as listener:  # before the first look
                    while not stop.is_set():
                        while self.decide_open(stop):
                            pass
                        listener.wait(self._poll_seconds, stop)
            except (StoreUnavailableError, ConcurrentUpdateError) as error:
                logger.warning("waiting for the database: %s", error)
                stop.wait(1.0)

    def decide_open(self, stop: threading.Event | None = None) -> int:
        """Decide the requests that are open now, at most a hundred; return how many."""
        with self._store.begin(writes=False) as tx:
            found = suggestion_requests.open_suggestion_requests(tx)
        decided = 0
        for request in found:
            if stop is not None and stop.is_set():
                break
            self._decide(request)
            decided += 1
        return decided

    def _decide(self, request: SuggestionRequest) -> None:
        """Decide one request, or refuse it with a reason.

        Raises:
            StoreUnavailableError, ConcurrentUpdateError: The request stays open.
        """
        refusal = None
        try:
            scheduler = self._scheduler_for(request)
            made = scheduler.ask(count=request.requested, device=request.device, request_key=request.request_key)
            logger.info("request %d of %s: %s", request.id, request.login, made.message)
        except (StoreUnavailableError, ConcurrentUpdateError):
            raise
        except (InvalidInputError, StateError) as error:
            refusal = str(error)
            logger.warning("request %d of %s is refused: %s", request.id, request.login, error)
        except (EasemlError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            refusal = _FAULT
            logger.error("request %d of %s is refused", request.id, request.login, exc_info=error)
        with self._store.begin() as tx:
            suggestion_requests.note_decided(tx, request.id, refusal=refusal)

    def _scheduler_for(self, request: SuggestionRequest) -> LiveScheduler:
        """Return the scheduler of the request's studies and implementations, kept from before or new.

        Raises:
            NotFoundError: The request names a study that its login may not have.
        """
        studies = self._studies_of(request)
        sources = {name: str(source) for name, source in request.functions.items() if source is not None}
        names = tuple(sorted(request.functions))
        runtimes = None if request.runtimes is None else tuple(request.runtimes)
        key = (studies, names, tuple(sorted(sources.items())), request.trainers, runtimes)
        scheduler = self._schedulers.pop(key, None)
        if scheduler is None:
            scheduler = LiveScheduler(
                self._store,
                policy=self._policy,
                studies_only=studies,
                functions=sources if len(sources) == len(names) else names,
                trainers=request.trainers,
                runtimes=runtimes,
            )
        self._schedulers[key] = scheduler
        while len(self._schedulers) > KEPT:
            self._schedulers.popitem(last=False)
        return scheduler

    def _studies_of(self, request: SuggestionRequest) -> tuple[str, ...] | None:
        """Return the names of the studies to choose from; None for all active ones."""
        with self._store.begin(writes=False) as tx:
            own = suggestion_requests.studies_of_login(tx, request.login)
        wanted = None if request.studies is None else tuple(dict.fromkeys(request.studies))
        if own is None:
            return wanted
        if wanted is None:
            return tuple(own)
        for name in wanted:
            if name not in own:  # the names of other tenants' studies are not suggested for a typing error
                raise NotFoundError(kind="study of this login", name=name, known=own)
        return wanted


def require_scheduler(store: Store) -> None:
    """Raise unless the role of this store may decide.

    Raises:
        StoreError: It may not.
    """
    with store.begin(writes=False) as tx:
        if not suggestion_requests.may_suggest(tx):
            message = "the role of this address may not suggest; `easeml scheduler` needs that of easeml_scheduler"
            raise StoreError(message)
