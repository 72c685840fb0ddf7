"""Decide a claimed request in one transaction, and prepare outside of it what the decision needs.

The work and the decision are one transaction: a referee that is killed in the middle gives the request back undecided
and unspent. A decision that lacks a fetch, a run of a model or a computation stops with an error that names all of it,
and its request is claimed again once that is there. None of these is a failure of the request. An attempt that goes on
with one of them is recorded, so that a process that is killed meanwhile counts against the request, and one that is not
does not.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from typing import TYPE_CHECKING

from easeml_core.entities import RequestKind, StudyState
from easeml_core.errors import InvalidInputError, StateError, StoreError, is_put_off
from easeml_core.services.datasets.fetching import NotFetchedError
from easeml_core.services.datasets.refresh import refresh
from easeml_core.services.evaluation.backoff import Turn
from easeml_core.services.evaluation.sealed_runs import NotJudgedError, NotRunError, side_by_side
from easeml_core.services.gate.judge import judge
from easeml_core.services.meter.reading import meter
from easeml_core.services.models.promotion import MOVES
from easeml_core.services.referee.claiming import wake
from easeml_core.services.referee.publishing import say
from easeml_core.services.registration.sealing import seal_study
from easeml_core.services.test_sets.answers import Answer, Asked, Waiting
from easeml_core.store.artifacts.disk import require_room
from easeml_core.store.database import savepoint
from easeml_core.store.tables import labels, outbox, referee_claims, releases, requests
from easeml_core.store.tables.outbox import Held

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from datetime import datetime

    from sqlalchemy import Connection

    from easeml_core.entities import Study
    from easeml_core.services.datasets.fetching import Fetches
    from easeml_core.services.evaluation.sealed_runs import Preparation
    from easeml_core.services.evidence.notary import Notary
    from easeml_core.services.referee.claiming import Claims, Underway
    from easeml_core.services.referee.publishing import Timetable
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.requests import Request


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
        """Prepare what a decision has lacked, or start it beside the decisions of other requests."""
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


MAX_ATTEMPTS = 5
"""Attempts that may end the referee's process before a request is refused."""

TIMED = (RequestKind.GATE, RequestKind.METER)
"""Requests whose answers leave at fixed times: those that depend on sealed data."""

WITHOUT_MODELS = tuple(kind for kind in referee_claims.SHORT if kind not in MOVES)
"""Requests for which no model runs, decided by another thread than moves of production."""

RUNS = (*WITHOUT_MODELS, *TIMED)
"""Requests that may take long, decided by another thread than moves of production."""

WAITS = "waits for labels"
"""The log's text for a request that cannot be decided yet."""

_GIVEN_UP = f"the referee's process ended {MAX_ATTEMPTS} times while it worked on this request; it is given up"

_PRIVATE = "the referee could not answer this request; its log says why, and nothing of the sealed set was spent"

_ARCHIVED = "study {study!r} is archived; restore it (`easeml study restore {study}`), and ask again with a new key"

_REGISTER_AGAIN = "; correct that and register the study again"
"""Part of every refusal to seal a study's data."""

_FORCED_REFUSED = (
    "this referee takes no forced promotion from a task; run `easeml model promote --force` with the referee's "
    "address, or start the referee with --allow-forced"
)


class Dispatcher:
    """Decide claimed requests of one referee.

    Args:
        artifacts: Where models and data lie.
        notary: Verifies the evidence that a decision rests on.
        fetches: Data that was fetched for requests.
        timetable: When answers of gate and meter leave.
        allow_forced: Whether a task may request a forced promotion.
    """

    def __init__(
        self,
        artifacts: ArtifactStore,
        notary: Notary,
        fetches: Fetches,
        *,
        timetable: Timetable,
        allow_forced: bool,
    ) -> None:
        self._artifacts, self._notary, self._fetches = artifacts, notary, fetches
        self._timetable, self._allow_forced = timetable, allow_forced

    def decide(self, tx: Connection, ready: Preparation, request_id: int, lost: int) -> str:
        """Decide a claimed request; return the line for the log.

        A refusal leaves nothing else behind. Only errors about the caller's input and about public state are reported
        to the caller: any other error may depend on sealed data, so it goes to the referee's log.
        """
        request, message = None, _GIVEN_UP
        if lost < MAX_ATTEMPTS:
            try:
                with savepoint(tx, ending=MISSING):
                    request, study = requests.get_request(tx, request_id)
                    if study.state is StudyState.ARCHIVED:
                        raise StateError(_ARCHIVED.format(study=study.name))
                    asked = self._asked(tx, request, study)
                    done = self._work(tx, ready, request, study, asked)
                    if isinstance(done, Waiting):
                        return WAITS
                    held = None if asked is None else study
                    return self._keep(tx, request_id, request.kind, done, study=held)
            except MISSING:
                raise
            except Exception as error:  # the process must survive every request; the log has the traceback
                if ready.patience.allows(error):
                    raise
                message = str(error)
                if not isinstance(error, InvalidInputError | StateError) or is_put_off(error):
                    logger.exception("request %d failed", request_id)
                    message = _PRIVATE
        if requests.refuse_sealing(tx, request_id):
            message += _REGISTER_AGAIN
        kind = None if request is None else request.kind
        return self._keep(tx, request_id, kind, Answer(message), refused=True)

    def _asked(self, tx: Connection, request: Request, study: Study) -> Asked | None:
        """Lock the study of a gate or meter request, once its evidence verifies; None for other requests."""
        if request.kind is RequestKind.FORCE and not self._allow_forced:
            raise StateError(_FORCED_REFUSED)
        if request.kind not in TIMED:
            self._notary.require_sound(_rests_on(tx, request))
            return None
        # All its sets at once, in one order: gate and meter may share one, and production must not change meanwhile.
        asked = Asked(request, study, releases.hold_study(tx, study.id))
        self._notary.require_sound([found.id for found in asked.live])
        return asked

    def _work(
        self, tx: Connection, ready: Preparation, request: Request, study: Study, asked: Asked | None
    ) -> Answer | Waiting:
        if asked is not None:
            return judge(tx, ready, asked) if request.kind is RequestKind.GATE else meter(tx, ready, asked)
        if request.kind in MOVES:
            return Answer(MOVES[request.kind](tx, request, study))
        require_room(self._artifacts.root, tempfile.gettempdir())  # put off, as long as a disk has too little
        if request.kind is RequestKind.SEAL:
            return Answer(seal_study(tx, self._artifacts, request, study, self._fetches))
        return Answer(refresh(tx, self._artifacts, request, study))

    def _keep(
        self,
        tx: Connection,
        request_id: int,
        kind: RequestKind | None,
        answer: Answer,
        *,
        refused: bool = False,
        study: Study | None = None,
    ) -> str:
        """Store the decision, and publish it if its time has come; return the line for the log."""
        if kind in (None, RequestKind.GATE):
            labels.close_wanted(tx, request_id)
        leaves_at = self._leaves_at(tx, request_id, kind)
        outbox.hold(
            tx, request_id=request_id, refused=refused, message=answer.message, facts=answer.facts, leaves_at=leaves_at
        )
        if leaves_at is not None or kind in MOVES:
            wake(tx, request_id)  # the publishing thread must know the time; and tags follow production
        if leaves_at is not None:
            return f"({kind or 'unread'}): decided, to be answered later"
        say(tx, Held(request_id, refused, answer.message, answer.facts), study)
        if kind is None:
            return "refused, unread"
        return f"({kind}): refused" if refused else f"({kind}): answered"

    def _leaves_at(self, tx: Connection, request_id: int, kind: RequestKind | None) -> datetime | None:
        """Return when the answer leaves; None for in this same transaction."""
        if kind not in (None, *TIMED) or not self._timetable.is_fixed:
            return None
        asked, now = outbox.times(tx, request_id)
        leaves_at = self._timetable.leaves_at(asked, now)
        return leaves_at if leaves_at > now else None


def _rests_on(tx: Connection, request: Request) -> list[int]:
    """Return the sealed set whose verdict a promotion rests on, and whose evidence must verify before it."""
    if request.kind is RequestKind.PROMOTE:
        verdict = releases.get_verdict(tx, int(request.arguments["gate_request_id"]))
        return [] if verdict is None else [verdict.test_set_id]
    return []
