"""Prepare outside any transaction what a decision needs: fetches, runs of models, computations.

A decision that lacks something stops with an error that names all of it, and its request is claimed again once that is
there. None of these is a failure of the request. An attempt that goes on with one of them is recorded, so that a
process that is killed meanwhile counts against the request, and one that is not does not.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from easeml_core.errors import StoreError
from easeml_core.services.datasets.fetching import NotFetchedError
from easeml_core.services.evaluation.backoff import Turn
from easeml_core.services.evaluation.sealed_runs import NotJudgedError, NotRunError, side_by_side
from easeml_core.services.referee.claiming import wake
from easeml_core.store.tables import requests

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from easeml_core.services.evaluation.sealed_runs import Preparation
    from easeml_core.services.referee.claiming import Claims, Underway
    from easeml_core.store.database import Store

logger = logging.getLogger(__name__)

MISSING = (NotFetchedError, NotRunError, NotJudgedError)
"""Errors by which a decision stops that lacks something."""


class Prerequisites:
    """Prepares what decisions of one referee have lacked.

    Args:
        store: Role ``easeml_referee``.
        claims: Where attempts are recorded.
        underway: Work for requests.
    """

    def __init__(self, store: Store, claims: Claims, underway: Underway) -> None:
        self._store, self._claims = store, claims
        self._fetches, self._runs, self._judgements = underway.fetches, underway.runs, underway.judgements
        self._computed = underway.computed

    def make(self, missing: NotFetchedError | NotRunError | NotJudgedError, ready: Preparation, turn: Turn) -> None:
        """Prepare what a decision has lacked, or start it beside the decisions of other requests.

        Args:
            missing: What is lacking.
            ready: Receives the results of runs.
            turn: The attempt that has stopped.
        """
        request_id = turn.request_id or 0
        if isinstance(missing, NotFetchedError):
            self._stopped(turn)  # until the data are there it has cost nothing
            around = self._around_fetch(request_id, may_kill=missing.may_kill)
            self._fetches.ask(request_id, missing.study, around)
        elif isinstance(missing, NotJudgedError):
            steps = self._compute(missing, turn)
            self._judgements.ask(request_id, steps, lambda: self.wake(request_id), self._tenant_of(request_id))
        elif self._runs.are_padded and any(run.has_code for run in missing.runs):
            self._stopped(turn)
            self._claims.stop(turn)  # until its turn has come, another referee with a free place may make them
            if not side_by_side():
                self._runs.one_at_a_time()
            steps = self._run_in_turn(missing, ready, request_id)
            self._runs.ask(request_id, steps, lambda: self.wake(request_id), self._tenant_of(request_id))
        else:
            ready.run(missing)  # a model that kills this process leaves the attempt as one that did not survive
            self._stopped(turn)

    def _stopped(self, turn: Turn) -> None:
        self._claims.survived(turn)
        self._claims.settle()

    def _run_in_turn(self, missing: NotRunError, ready: Preparation, request_id: int) -> Generator[None, None, None]:
        """Make a request's runs when their turn has come: from then on a killed process counts against it."""
        attempt = self._claims.resume(request_id)
        if attempt is None:
            return  # another referee makes them, or has decided it meanwhile
        turn = Turn(request_id, attempt.number)
        try:
            yield from ready.steps(missing)
        finally:
            self._claims.survived(turn)  # before the request may be claimed, or the attempt would seem lost
            with _noted(request_id):
                self._claims.settle()

    def _compute(self, missing: NotJudgedError, turn: Turn) -> Generator[None, None, None]:
        """Compute what a decision lacked; nothing follows from it before its padded end, however it ends."""
        try:
            try:
                found = missing.compute()
            finally:
                yield
            self._computed.judged[missing.key] = found
        finally:
            self._claims.survived(turn)
            with _noted(turn.request_id or 0):
                self._claims.settle()

    def _tenant_of(self, request_id: int) -> int:
        with self._store.begin() as tx:
            return requests.tenant_of(tx, request_id)

    @contextlib.contextmanager
    def _around_fetch(self, request_id: int, *, may_kill: bool) -> Iterator[None]:
        """Count a fetch that kills this process as an attempt that did not survive, and wake the deciding thread."""
        attempt = 0
        with _noted(request_id), self._store.begin() as tx:
            attempt = requests.note_attempt(tx, request_id).number if may_kill else 0
        yield
        self._claims.survived(Turn(request_id, attempt))  # remembered where the database cannot record it now
        with _noted(request_id):
            self._claims.settle()
            with self._store.begin() as tx:
                wake(tx, request_id)

    def wake(self, request_id: int) -> None:
        """Wake the deciding thread; where the database is unavailable, the next look finds what was prepared."""
        with _noted(request_id), self._store.begin() as tx:
            wake(tx, request_id)


@contextlib.contextmanager
def _noted(request_id: int) -> Iterator[None]:
    """Let no failure to record end a fetch or run: its end is then found at the next look."""
    try:
        yield
    except StoreError as error:
        logger.warning("request %d: what was fetched or run for it could not be noted: %s", request_id, error)
