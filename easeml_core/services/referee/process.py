"""The referee's process: takes one request after the other, answers each exactly once, and survives any of them.

It loads no DAG code and alone holds the sealed role's address. A request is claimed, worked on and decided in one
transaction: a referee that is killed in the middle gives the request back undecided and unspent. The answer leaves in
the same transaction, or in a later one where answers have fixed times (``services/referee/publishing.py``). Models
that the decision needs run before it, in no transaction (``services/evaluation/sealed_runs.py``), and so do fetches
of data that lie elsewhere, beside other requests (``services/datasets/fetching.py``). Where answers have fixed times,
models run beside other requests too (``services/evaluation/model_runs.py``). Answers that are due and moves of
production have a thread of their own. A fault of the machine decides nothing (``services/evaluation/backoff.py``).
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from easeml_core.entities import RequestKind
from easeml_core.errors import (
    ConcurrentUpdateError,
    InvalidInputError,
    SchemaVersionError,
    StateError,
    StoreError,
    StoreUnavailableError,
)
from easeml_core.faults import is_put_off
from easeml_core.services.datasets.access import Reach
from easeml_core.services.datasets.fetching import Fetches, NotFetchedError
from easeml_core.services.datasets.refresh import refresh
from easeml_core.services.evaluation.backoff import MOST_PUT_OFFS, Patience, PutOffs, Turn
from easeml_core.services.evaluation.model_runs import ModelRuns
from easeml_core.services.evaluation.sealed_runs import Computed, NotJudgedError, NotRunError, Preparation
from easeml_core.services.evaluation.time_padding import DECISION_GRID_SECONDS, GRID_SECONDS, Pace, padded
from easeml_core.services.evidence.notary import Notary
from easeml_core.services.gate.judge import judge
from easeml_core.services.meter.reading import meter
from easeml_core.services.models.promotion import MOVES
from easeml_core.services.referee.housekeeping import Housekeeper
from easeml_core.services.referee.mail import MailServer, Postman
from easeml_core.services.referee.publishing import Timetable, release, say
from easeml_core.services.registration.sealing import seal_study
from easeml_core.services.test_sets.answer import Answer, Asked, Waiting
from easeml_core.store.database import REFEREE_CHANNEL, notify, savepoint
from easeml_core.store.listen import Ear
from easeml_core.store.tables import labels, outbox, releases, requests, retries, sealed, studies
from easeml_core.store.tables.outbox import Held

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from easeml_core.entities import Study
    from easeml_core.remote.cache import FileCache
    from easeml_core.remote.urls import Address
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.external_query import NamedQuery
    from easeml_core.store.tables.requests import Request

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""How often a request may take the referee's process down before it is refused."""

POSTPONE_SECONDS = 30.0
"""How long a request that ran into somebody else's lock gives way to the others."""

SCHEMA_SECONDS = 30.0
"""How long the referee rests where the database's schema is not that of this version."""

_GIVEN_UP = f"the referee's process ended {MAX_ATTEMPTS} times while it worked on this request; it is given up"

_PRIVATE = "the referee could not answer this request; its log says why, and nothing of the sealed set was spent"

_REGISTER_AGAIN = "; correct that and register the study again"
"""Said with every refusal to seal a study's data."""

_FORCED_REFUSED = (
    "this referee takes no forced promotion from a task; let who may, run `easeml model promote --force` with the "
    "referee's address, or start the referee with --allow-forced"
)

_WAITS = "waits for labels"

_TIMED = (RequestKind.GATE, RequestKind.METER)
"""What answers leave at fixed times: those that depend on sealed data."""

_RUNS = (RequestKind.SEAL, RequestKind.REFRESH, *_TIMED)
"""What may take long: it is decided by another thread than moves of production are."""


@dataclass(frozen=True, slots=True)
class Duties:
    """How this referee works.

    Attributes:
        data: Folder whose subfolder TENANT holds that tenant's files; None reads no file.
        prefixes: Under which ``url:`` sources may lie; none reads no address.
        queries: What ``sql:`` sources may name; none reads no database.
        cache: Where what is fetched goes; None for the cache of this account.
        timetable: When answers of gate and meter leave.
        allow_forced: Whether a forced promotion may be asked for by a task.
        mail: Where mail goes; None keeps it until a referee knows.
        repositories: Name of an Airflow git bundle to the repository whose tag follows production.
        keys: This host's key folder (``services/evidence``); None signs and checks nothing.
        put_offs: How often a request is put off at most for a kill, a time-out or a lack of memory, >= 0.
        poll_seconds: How long at most between two looks when no notification comes.
        grid_seconds: Where answers have fixed times: to which times runs of models are padded
        (``services/evaluation/time_padding.py``). decision_grid_seconds: Likewise how long after its beginning a
        decision of gate or meter is written, so that no
            time follows from labels; the referee answers others meanwhile. Empty for at once.
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
    put_offs: int = MOST_PUT_OFFS
    poll_seconds: float = 10.0
    grid_seconds: tuple[float, ...] = GRID_SECONDS
    decision_grid_seconds: tuple[float, ...] = DECISION_GRID_SECONDS

    @property
    def reach(self) -> Reach:
        """What it may read for a study."""
        return Reach(self.data, self.prefixes, self.queries, self.cache)


class Referee:
    """Answers the requests of one installation.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where models and data lie.
        duties: How it works.
        options: Single settings of ``Duties``, over those of ``duties``.
    """

    def __init__(self, store: Store, artifacts: ArtifactStore, duties: Duties | None = None, **options: Any) -> None:
        self._store, self._artifacts = store, artifacts
        self._duties = Duties(**options) if duties is None else duties
        self._notary = Notary(store, self._duties.keys)
        self._aside: dict[int, float] = {}
        self._put_offs = PutOffs(store, self._duties.put_offs)
        self._fetches = Fetches(replace(self._duties.reach, artifacts=artifacts))
        self._schema_told = -math.inf
        self._keep_time()
        self._computed = Computed()
        self._not_before: dict[int, float] = {}
        self._free_at = -math.inf
        self._prepared: dict[int, Preparation] = {}
        self._house_has_more = True
        self._housekeeper = Housekeeper(store, artifacts, self._duties.repositories)

    def _keep_time(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        """Read the time from this clock. Nothing sleeps but ``answer_one`` and ``run_once``, for want of other work."""
        is_fixed = self._duties.timetable.is_fixed
        self._decisions = Pace(self._duties.decision_grid_seconds if is_fixed else (), clock)
        self._runs = ModelRuns(Pace(self._duties.grid_seconds if is_fixed else (), clock))
        self._sleep = sleep

    def run(self, stop: threading.Event) -> None:
        """Answer requests until ``stop`` is set; waits for the database while it is away."""
        postman = self._start_postman(stop)
        clerk = threading.Thread(target=self._keep_at, args=(self._say_or_move, stop), name="clerk", daemon=True)
        clerk.start()
        self._keep_at(self._decide_or_tidy, stop)
        self._runs.close()
        clerk.join()
        self._fetches.keep(())
        if postman is not None:
            postman.join()

    def _decide_or_tidy(self) -> bool:
        """One piece of what may take long; False when there is none."""
        return self._answer_ready(_RUNS) is not None or self._keep_house()

    def _keep_house(self) -> bool:
        """What is done when there is no request; False when there is no more, or until a model's padded end."""
        if not self._runs.are_padded:
            return self._housekeeper.work()
        self._housekeeper.tidy()
        if self._runs.is_idle:
            self._runs.ask(None, self._run_for_house(), self._wake_for_house)
        return False

    def _run_for_house(self) -> Generator[None, None, None]:
        self._house_has_more = False  # where this fails, it rests until the next look
        self._house_has_more = yield from self._housekeeper.run_one()

    def _wake_for_house(self) -> None:
        if self._house_has_more:
            self._wake_deciding(0)

    def _say_or_move(self) -> bool:
        """One piece of what must not wait for a model: answers whose time has come, and moves of production."""
        if self.release_one() is not None or self._answer_ready(tuple(MOVES)) is not None:
            return True
        self._notary.look_over()
        return self._notary.append_committed()

    def _keep_at(self, work: Callable[[], bool], stop: threading.Event) -> None:
        """Do this work until ``stop`` is set, whatever comes."""
        while not stop.is_set():
            try:
                with self._store.begin() as tx:
                    private = sealed.private_channel(tx)
                    retries.note_server_start(tx)
                with Ear(self._store.dsn, REFEREE_CHANNEL, private) as ear:  # before the first look: nothing is missed
                    while not stop.is_set():
                        looked_at = time.monotonic()
                        if not work():
                            ear.wait(self._pause_seconds(looked_at), stop)
            except (StoreUnavailableError, ConcurrentUpdateError) as error:
                logger.warning("waiting for the database: %s", error)
                stop.wait(1.0)
            except SchemaVersionError as error:  # a person must upgrade the one or the other
                self._tell_schema(error)
                stop.wait(SCHEMA_SECONDS)
            except Exception:  # one request must not end the answers to all others; the log keeps the whole story
                logger.exception("the referee goes on")
                stop.wait(1.0)

    def _tell_schema(self, error: SchemaVersionError) -> None:
        """One line for both threads that have met it."""
        told, self._schema_told = self._schema_told, time.monotonic()
        if self._schema_told - told >= SCHEMA_SECONDS / 2:
            logger.error("nothing is answered, and the next look is in %g s: %s", SCHEMA_SECONDS, error)

    def run_once(self) -> int:
        """Decide what can be decided, say what is due, send the mail that waits; how many requests were dealt with."""
        handled = set[int]()
        self._house_has_more = True
        while True:
            found = self.release_one()
            found = self._answer_ready() if found is None else found
            if found is None and ((self._house_has_more and self._keep_house()) or self._wait()):
                continue
            if found is None:
                break
            self._house_has_more = True
            handled.add(found)
        self._runs.close()
        while self._notary.append_committed():
            pass
        if self._duties.mail is not None:
            Postman(self._store, self._duties.mail).send_waiting()
        return len(handled)

    def _start_postman(self, stop: threading.Event) -> threading.Thread | None:
        if self._duties.mail is None:
            return None
        postman = Postman(self._store, self._duties.mail)
        thread = threading.Thread(target=postman.run, args=(stop,), name="postman", daemon=True)
        thread.start()
        return thread

    def _pause_seconds(self, looked_at: float) -> float:
        """How long to wait for a notification: until the next answer leaves or request is tried, or the usual time.

        What has become due since the last look began may have been missed by it: then not at all. What was due before
        was passed over for a reason (another referee holds it), and is left to the usual time.

        Args:
            looked_at: When that look began, by ``time.monotonic``.
        """
        with self._store.begin() as tx:
            ago = time.monotonic() - looked_at
            left = (
                outbox.seconds_to_next(tx, looked_ago=ago),
                requests.seconds_to_next_try(tx, looked_ago=ago),
            )
        now, next_run = self._decisions.clock(), self._runs.next_look()
        soon = [until - now for until in [*list(self._not_before.values()), *([] if next_run is None else [next_run])]]
        soon += [until - time.monotonic() for until in list(self._aside.values())]
        ago = time.monotonic() - looked_at
        known = [*(seconds for seconds in left if seconds is not None), *(s for s in soon if s > -ago)]
        return max(0.0, min([self._duties.poll_seconds, *known]))

    def release_one(self) -> int | None:
        """Say the decided answer whose time has come first; its request's id, or None when there is none."""
        request_id: int | None = None
        try:
            with self._notary.begin() as tx:
                held = outbox.claim_due(tx, skip=self._set_aside())
                if held is None:
                    return None
                request_id = held.request_id
                release(tx, held)
                _wake(tx, request_id)  # the next one may have waited for the end of the set
        except StoreUnavailableError:
            raise
        except Exception as error:  # a decided answer is never lost: it is said later
            if request_id is None:
                raise
            self._aside[request_id] = time.monotonic() + POSTPONE_SECONDS
            log = logger.info if isinstance(error, ConcurrentUpdateError) else logger.exception
            log("request %d: the answer could not leave and is put off, %s", request_id, error)
        else:
            logger.info("request %d: the answer has left", request_id)
        return request_id

    def answer_one(self, kinds: Sequence[RequestKind] | None = None) -> int | None:
        """As ``_answer_ready``; where all that is open waits for its time or for data from elsewhere, it waits too."""
        while (found := self._answer_ready(kinds)) is None and self._wait():
            pass
        return found

    def _wait(self) -> bool:
        """Wait until a request may be decided whose time has not come, or whose data; False when there is none."""
        times = list(self._not_before.values())
        next_run = self._runs.next_look()
        if next_run is not None:
            times.append(next_run)
        left = max(0.0, min([until - self._decisions.clock() for until in times], default=math.inf))
        longest = min(self._duties.poll_seconds, left)
        if self._runs.wait(longest) or self._fetches.wait(longest):
            return True
        if times:
            self._sleep(left)
        return bool(times)

    def _answer_ready(self, kinds: Sequence[RequestKind] | None = None) -> int | None:
        """Decide the oldest open request, or put it off for a lock in its way; its id, or None when there is none.

        A request whose data lie elsewhere stands aside while they are fetched, and others are decided. Where answers
        leave at once, this one has left with that. While models run for it no lock is held, so it is looked at anew
        after each: another referee may have decided it, or it needs another model by now.

        Args:
            kinds: Of these kinds only; None for all.
        """
        while True:
            turn = Turn()
            try:
                said = self._decide_next(turn, kinds)
            except Exception as error:
                ready = self._prepared.pop(turn.request_id or 0, None)
                if turn.request_id is None or ready is None or not ready.patience.allows(error):
                    raise
                self._put_offs.survived(turn)
                said = self._put_off(turn, error)
            if turn.request_id is None:
                return None
            if said is not None:
                logger.info("request %d %s", turn.request_id, said)
                return turn.request_id

    def _decide_next(self, turn: Turn, kinds: Sequence[RequestKind] | None) -> str | None:
        """Decide one request; what the log says of it. None where it has to be looked at again, or there is none."""
        self._put_offs.settle()
        self._runs.look()
        try:
            with self._notary.begin() as tx:
                turn.request_id = self._claim(tx, kinds)
                if turn.request_id is None:
                    return None
                ready = self._preparation(turn.request_id)
                with self._store.begin() as aside:  # committed at once: an attempt that kills this process counts
                    attempt = requests.note_attempt(aside, turn.request_id)
                turn.attempt = attempt.number
                ready.patience = Patience(attempt.put_offs, self._duties.put_offs)
                stopped = self._runs.failure(turn.request_id)
                if stopped is not None:
                    raise stopped
                said = self._answer(tx, ready, turn.request_id, attempt.lost)
                if said == _WAITS:
                    requests.note_survival(tx, turn.request_id, turn.attempt)
        except NotFetchedError as missing:
            self._fetch(missing, turn)
            return None
        except NotRunError as missing:
            self._run_models(missing, ready, turn)
            return None
        except NotJudgedError as missing:
            self._judge(missing, turn)
            return None
        self._fetches.decided(turn.request_id)
        self._forget(turn.request_id)
        return said

    def _preparation(self, request_id: int) -> Preparation:
        """What the runs for a request have left, until it is decided or put off."""
        computed = self._computed if self._decisions.grid else None
        if request_id not in self._prepared:
            self._prepared[request_id] = Preparation(self._store, self._artifacts, computed)
        return self._prepared[request_id]

    def _run_models(self, missing: NotRunError, ready: Preparation, turn: Turn) -> None:
        """Make the runs that a decision has missed; where they are padded, beside the decisions of other requests."""
        request_id = turn.request_id or 0
        is_beside = self._runs.are_padded and any(run.has_code for run in missing.runs)
        if not is_beside:
            ready.run(missing)  # a model that kills this process leaves the attempt as one that did not survive
        self._put_offs.survived(turn)
        self._put_offs.settle()
        if is_beside:
            steps = self._run_in_turn(missing, ready, request_id)
            self._runs.ask(request_id, steps, lambda: self._wake_deciding(request_id))

    def _run_in_turn(self, missing: NotRunError, ready: Preparation, request_id: int) -> Generator[None, None, None]:
        """Make a request's runs when their turn has come: from then on a killed process counts against it."""
        with self._store.begin() as tx:
            if not requests.undecided(tx, [request_id]):
                return  # another referee has decided it meanwhile
        with self._store.begin() as tx:
            turn = Turn(request_id, requests.note_attempt(tx, request_id).number)
        try:
            yield from ready.steps(missing)
        finally:
            self._put_offs.survived(turn)  # before the request may be claimed, or the attempt seems lost then
            with _noted(request_id):
                self._put_offs.settle()

    def _wake_deciding(self, request_id: int) -> None:
        with _noted(request_id), self._store.begin() as tx:
            _wake(tx, request_id)

    def _judge(self, missing: NotJudgedError, turn: Turn) -> None:
        """Compute what a decision has missed, in no transaction; when it is written follows from no label.

        The time counts from when the request was taken up, or from when the decision before it may be written if that
        is later. What is padded is the time of this computation alone: with that of the one before, which may have made
        this one begin late, the time of this answer would tell of the other. A referee that is killed until then has
        written nothing, and the next one computes the same.
        """
        request_id = turn.request_id or 0
        began = self._decisions.clock()
        self._computed.judged[missing.key] = missing.compute()
        took = self._decisions.clock() - began
        self._free_at = self._not_before[request_id] = max(began, self._free_at) + padded(took, self._decisions.grid)
        self._put_offs.survived(turn)
        self._put_offs.settle()

    def _forget(self, request_id: int) -> None:
        """Nothing that was computed for a request is needed any more."""
        self._not_before.pop(request_id, None)
        self._prepared.pop(request_id, None)
        for key in list(self._computed.judged):  # another thread may add to it meanwhile
            if key[0] == request_id:
                self._computed.judged.pop(key, None)
        if not self._not_before and not self._prepared:
            self._computed.losses.clear()
            self._computed.answers.clear()

    def _put_off(self, turn: Turn, error: Exception) -> str:
        """Let the request give way to others for a while: briefly for a lock in its way, else as ``PutOffs`` says."""
        assert turn.request_id is not None
        if isinstance(error, ConcurrentUpdateError):
            self._aside[turn.request_id] = time.monotonic() + POSTPONE_SECONDS
            self._put_offs.settle()
            return f"put off, {error}"
        if not turn.attempt:  # not even that it begins could be noted
            raise error
        self._fetches.decided(turn.request_id)  # what could not be fetched is fetched anew
        return self._put_offs.put_off(turn, error)

    def _claim(self, tx: Connection, kinds: Sequence[RequestKind] | None) -> int | None:
        """The next request; what was prepared for others is let go where another referee has decided them."""
        now = self._decisions.clock()
        early = [request_id for request_id, until in list(self._not_before.items()) if until > now]
        skip = [*self._set_aside(), *self._fetches.under_way(), *self._runs.under_way(), *early]
        claimed = requests.claim_request(tx, skip=skip, kinds=kinds)
        prepared, fetched = {*list(self._prepared), *list(self._not_before)}, self._fetches.requests()
        if {*prepared, *fetched} - {claimed}:
            undecided = requests.undecided(tx, [*fetched, *prepared])
            self._fetches.keep(undecided)
            for request_id in prepared - undecided:
                self._forget(request_id)
        return claimed

    def _fetch(self, missing: NotFetchedError, turn: Turn) -> None:
        """Let the data be fetched that a decision has missed; until then it has cost nothing."""
        request_id = turn.request_id or 0
        self._put_offs.survived(turn)
        self._put_offs.settle()
        self._fetches.ask(request_id, missing.study, self._around_fetch(request_id, may_kill=missing.may_kill))

    @contextlib.contextmanager
    def _around_fetch(self, request_id: int, *, may_kill: bool) -> Iterator[None]:
        """Let a fetch that kills this process count as an attempt that did not survive, and wake who waits for it."""
        attempt = 0
        with _noted(request_id), self._store.begin() as tx:
            attempt = requests.note_attempt(tx, request_id).number if may_kill else 0
        yield
        self._put_offs.survived(Turn(request_id, attempt))  # remembered where the database cannot be told now
        with _noted(request_id):
            self._put_offs.settle()
            with self._store.begin() as tx:
                _wake(tx, request_id)

    def _set_aside(self) -> list[int]:
        """Requests that somebody else's lock was in the way of, for a while."""
        for request_id, until in list(self._aside.items()):  # changed in place: two threads put requests aside
            if until <= time.monotonic():
                self._aside.pop(request_id, None)
        return list(self._aside)

    def _answer(self, tx: Connection, ready: Preparation, request_id: int, lost: int) -> str:
        """Decide a claimed request; what the log says of it.

        A refusal leaves nothing else behind. Only errors about the caller's input and about public state are told to
        the caller: any other error may depend on the sealed data, so it goes to the referee's log.
        """
        request, message = None, _GIVEN_UP
        if lost < MAX_ATTEMPTS:
            try:
                with savepoint(tx):
                    request = requests.get_request(tx, request_id)
                    asked = self._asked(tx, request)
                    done = self._work(tx, ready, request, asked)
                    if isinstance(done, Waiting):
                        return _WAITS
                    study = None if asked is None else asked.study
                    return self._decided(tx, request_id, request.kind, done, refused=False, study=study)
            except (NotRunError, NotFetchedError, NotJudgedError):
                raise
            except Exception as error:  # the process must survive every request; the log keeps the whole story
                if ready.patience.allows(error):
                    raise
                message = str(error)
                if not isinstance(error, InvalidInputError | StateError) or is_put_off(error):
                    logger.exception("request %d failed", request_id)
                    message = _PRIVATE
        if requests.refuse_sealing(tx, request_id):
            message += _REGISTER_AGAIN
        kind = None if request is None else request.kind
        return self._decided(tx, request_id, kind, Answer(message), refused=True)

    def _decided(
        self,
        tx: Connection,
        request_id: int,
        kind: RequestKind | None,
        answer: Answer,
        *,
        refused: bool,
        study: Study | None = None,
    ) -> str:
        """Keep the decision, and say it if its time has come; what the log says."""
        if kind in (None, RequestKind.GATE):
            labels.close_wanted(tx, request_id)
        leaves_at = self._leaves_at(tx, request_id, kind)
        decided = Held(request_id, refused, answer.message, answer.facts)
        outbox.hold(
            tx, request_id=request_id, refused=refused, message=answer.message, facts=answer.facts, leaves_at=leaves_at
        )
        if leaves_at is not None or kind in MOVES:
            _wake(tx, request_id)  # who says it must know when; and tags follow production
        if leaves_at is not None:
            return f"({kind or 'unread'}): decided, to be answered later"
        say(tx, decided, study)
        if kind is None:
            return "refused, unread"
        return f"({kind}): refused" if refused else f"({kind}): answered"

    def _leaves_at(self, tx: Connection, request_id: int, kind: RequestKind | None) -> datetime | None:
        """When the answer leaves; None for in this very transaction."""
        if kind not in (None, *_TIMED) or not self._duties.timetable.is_fixed:
            return None
        asked, now = outbox.times(tx, request_id)
        leaves_at = self._duties.timetable.leaves_at(asked, now)
        return leaves_at if leaves_at > now else None

    def _asked(self, tx: Connection, request: Request) -> Asked | None:
        """Hold the study of a request to gate or meter, once its evidence verifies; None for other requests."""
        if request.kind is RequestKind.FORCE and not self._duties.allow_forced:
            raise StateError(_FORCED_REFUSED)
        if request.kind not in _TIMED:
            self._notary.require_sound(_rests_on(tx, request))
            return None
        study = studies.study_by_id(tx, request.study_id)
        # All its sets at once, in one order: gate and meter may share one, and what stands must not change meanwhile.
        asked = Asked(request, study, releases.hold_study(tx, study.id))
        self._notary.require_sound([found.id for found in asked.live])
        return asked

    def _work(self, tx: Connection, ready: Preparation, request: Request, asked: Asked | None) -> Answer | Waiting:
        if asked is not None:
            return judge(tx, ready, asked) if request.kind is RequestKind.GATE else meter(tx, ready, asked)
        if request.kind in MOVES:
            return Answer(MOVES[request.kind](tx, request))
        if request.kind is RequestKind.SEAL:
            return Answer(seal_study(tx, self._artifacts, request, self._fetches))
        return Answer(refresh(tx, self._artifacts, request))


def _rests_on(tx: Connection, request: Request) -> list[int]:
    """The sealed set whose verdict a promotion rests on, and whose evidence must verify before it."""
    if request.kind is RequestKind.PROMOTE:
        verdict = releases.get_verdict(tx, int(request.arguments["gate_request_id"]))
        return [] if verdict is None else [verdict["test_set_id"]]
    return []


@contextlib.contextmanager
def _noted(request_id: int) -> Iterator[None]:
    """What is noted around a fetch or run must not end it: without a word of its end it is found at the next look."""
    try:
        yield
    except StoreError as error:
        logger.warning("request %d: what was fetched or run for it could not be noted: %s", request_id, error)


def _wake(tx: Connection, request_id: int) -> None:
    """Let the other thread look, and other referees; nobody else may hear when something was decided."""
    notify(tx, f"request:{request_id}", channel=sealed.private_channel(tx))
