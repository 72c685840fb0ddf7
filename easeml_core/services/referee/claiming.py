"""Choose the referee's next request, and hold what belongs to a request until it is decided.

A request is passed over after a lock conflict, while its data are fetched or its models run, and until its decision may
be written. ``_CLAIM`` in ``store/tables/requests.py`` has the order of the others. This state is in memory; a referee
that is killed leaves every request as it was, except for the attempts that are recorded in the database (ADR 0025).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.errors import ConcurrentUpdateError
from easeml_core.services.evaluation.backoff import Patience, PutOffs, Turn
from easeml_core.services.evaluation.sealed_runs import Preparation
from easeml_core.store.database import notify
from easeml_core.store.tables import requests, sealed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import RequestKind
    from easeml_core.services.datasets.fetching import Fetches
    from easeml_core.services.evaluation.model_runs import ModelRuns
    from easeml_core.services.evaluation.time_padding import PaddedDecisions
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

POSTPONE_SECONDS = 30.0
"""How long a request is passed over after a lock conflict."""


@dataclass(frozen=True, slots=True)
class Underway:
    """Work for requests of one referee outside their transactions.

    Attributes:
        fetches: Fetches of remote data.
        runs: Runs of models.
        decisions: Decisions that are computed and not written yet.
    """

    fetches: Fetches
    runs: ModelRuns
    decisions: PaddedDecisions


class Claims:
    """Choose the next request of one referee. Safe to share between its threads.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where models and data lie.
        underway: Work for requests.
        most_put_offs: Largest number of postponements for faults that the request may have caused, >= 0.
    """

    def __init__(self, store: Store, artifacts: ArtifactStore, underway: Underway, *, most_put_offs: int) -> None:
        self._store, self._artifacts = store, artifacts
        self._fetches, self._runs, self._decisions = underway.fetches, underway.runs, underway.decisions
        self._most_put_offs = most_put_offs
        self._put_offs = PutOffs(store, most_put_offs)
        self._aside: dict[int, float] = {}
        self._prepared: dict[int, Preparation] = {}

    def claim(self, tx: Connection, kinds: Sequence[RequestKind] | None) -> int | None:
        """Return the next request, locked until the transaction ends; None when there is none.

        State of requests that another referee has decided is dropped.
        """
        early = self._decisions.early()
        skip = [*self.standing_aside(), *self._fetches.under_way(), *self._runs.under_way(), *early]
        claimed = requests.claim_request(tx, skip=skip, kinds=kinds)
        prepared, fetched = {*list(self._prepared), *self._decisions.waiting()}, self._fetches.requests()
        if {*prepared, *fetched} - {claimed}:
            undecided = requests.undecided(tx, [*fetched, *prepared])
            self._fetches.keep(undecided)
            for request_id in prepared - undecided:
                self._forget(request_id)
        return claimed

    def begin(self, turn: Turn) -> tuple[Preparation, int]:
        """Record that work on a claimed request begins.

        Returns:
            The results of its runs, and how many earlier attempts have ended with the referee's process.
        """
        assert turn.request_id is not None
        ready = self._preparation(turn.request_id)
        with self._store.begin() as tx:  # committed at once: an attempt that kills this process counts
            attempt = requests.note_attempt(tx, turn.request_id)
        turn.attempt = attempt.number
        ready.patience = Patience(attempt.put_offs, self._most_put_offs)
        return ready, attempt.lost

    def _preparation(self, request_id: int) -> Preparation:
        if request_id not in self._prepared:
            computed = self._decisions.computed if self._decisions.are_padded else None
            self._prepared[request_id] = Preparation(self._store, self._artifacts, computed)
        return self._prepared[request_id]

    def settle(self) -> None:
        """Record which attempts have stopped for a temporary fault; called before the next one begins.

        Raises:
            StoreError: That cannot be recorded; it is remembered.
        """
        self._put_offs.settle()

    def survived(self, turn: Turn) -> None:
        """Remember that the attempt has not killed this process, until that is recorded (``settle``)."""
        self._put_offs.survived(turn)

    def decided(self, request_id: int) -> None:
        """Drop the state of a request that is decided or waits for labels."""
        self._fetches.decided(request_id)
        self._forget(request_id)

    def _forget(self, request_id: int) -> None:
        self._prepared.pop(request_id, None)
        self._decisions.forget(request_id, keep_runs=bool(self._prepared))

    def put_off(self, turn: Turn, error: Exception) -> str:
        """Postpone a request whose attempt has met a fault; return the line for the log.

        It waits briefly after a lock conflict, else as ``PutOffs`` says.

        Raises:
            Exception: The fault itself, where the decision was to meet it, or where the attempt could not be recorded.
        """
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
        self._fetches.decided(turn.request_id)  # what could not be fetched is fetched anew
        return self._put_offs.put_off(turn, error)

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
