"""The referee's process: takes one request after the other, answers each exactly once, and survives any of them.

It loads no DAG code and alone holds the sealed role's address. A request is claimed, worked on and answered in one
transaction: a referee that is killed in the middle gives the request back unanswered and unspent.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from easeml_core.entities import RequestKind
from easeml_core.errors import ConcurrentUpdateError, InvalidInputError, StateError, StoreUnavailableError
from easeml_core.services.judging import judge
from easeml_core.services.metering import meter
from easeml_core.services.promotion import promote
from easeml_core.services.sealing import seal_study
from easeml_core.store import requests
from easeml_core.store.database import REFEREE_CHANNEL, savepoint
from easeml_core.store.listen import Ear

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.requests import Request

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""How often a request may take the referee's process down before it is refused."""

POSTPONE_SECONDS = 30.0
"""How long a request that ran into somebody else's lock gives way to the others."""

_GIVEN_UP = f"the referee's process ended {MAX_ATTEMPTS} times while it worked on this request; it is given up"

_PRIVATE = "the referee could not answer this request; its log says why, and nothing of the sealed set was spent"


class Referee:
    """Answers the requests of one installation.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where models and data lie.
        data: Folder whose subfolder TENANT holds that tenant's ``csv:`` files; None reads no file.
        poll_seconds: How long at most between two looks when no notification comes.
    """

    def __init__(
        self, store: Store, artifacts: ArtifactStore, *, data: Path | None = None, poll_seconds: float = 10.0
    ) -> None:
        self._store, self._artifacts, self._data, self._poll_seconds = store, artifacts, data, poll_seconds
        self._aside: dict[int, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Answer requests until ``stop`` is set; waits for the database while it is away."""
        while not stop.is_set():
            try:
                with Ear(self._store.dsn, REFEREE_CHANNEL) as ear:  # listens before the first look: nothing is missed
                    while not stop.is_set():
                        if self.answer_one() is None:
                            ear.wait(self._poll_seconds, stop)
            except (StoreUnavailableError, ConcurrentUpdateError) as error:
                logger.warning("waiting for the database: %s", error)
                stop.wait(1.0)
            except Exception:  # one request must not end the answers to all others; the log keeps the whole story
                logger.exception("the referee goes on")
                stop.wait(1.0)

    def answer_one(self) -> int | None:
        """Answer the oldest open request, or put it off for a lock in its way; its id, or None when there is none."""
        attempt = 0
        request_id: int | None = None
        try:
            with self._store.begin() as tx:
                request_id = requests.claim_request(tx, skip=self._set_aside())
                if request_id is None:
                    return None
                with self._store.begin() as aside:  # committed at once: an attempt that kills this process counts
                    attempt, lost = requests.note_attempt(aside, request_id)
                said = self._answer(tx, request_id, lost)
        except ConcurrentUpdateError as error:
            if request_id is None:
                raise
            self._postpone(request_id, attempt)
            said = f"put off, {error}"
        logger.info("request %d %s", request_id, said)
        return request_id

    def _set_aside(self) -> list[int]:
        """Requests that somebody else's lock was in the way of, for a while."""
        self._aside = {k: until for k, until in self._aside.items() if until > time.monotonic()}
        return list(self._aside)

    def _postpone(self, request_id: int, attempt: int) -> None:
        self._aside[request_id] = time.monotonic() + POSTPONE_SECONDS
        with self._store.begin() as tx:
            requests.note_survival(tx, request_id, attempt)

    def _answer(self, tx: Connection, request_id: int, lost: int) -> str:
        """Answer a claimed request; what the log says of it. A refusal leaves nothing else behind.

        Only errors about the caller's input and about public state are told to the caller: any other error may
        depend on the sealed data, so it goes to the referee's log.
        """
        request, message = None, _GIVEN_UP
        if lost < MAX_ATTEMPTS:
            try:
                with savepoint(tx):
                    request = requests.get_request(tx, request_id)
                    done = self._work(tx, request)
                requests.add_answer(tx, request_id, refused=False, message=done)
                return f"({request.kind}): answered"
            except (StoreUnavailableError, ConcurrentUpdateError):
                raise
            except (InvalidInputError, StateError) as error:
                message = str(error)
            except Exception:  # the process must survive every request; the log keeps the whole story
                logger.exception("request %d failed", request_id)
                message = _PRIVATE
        requests.refuse_sealing(tx, request_id)
        requests.add_answer(tx, request_id, refused=True, message=message)
        return f"({request.kind}): refused" if request else "refused, unread"

    def _work(self, tx: Connection, request: Request) -> str:
        work: dict[RequestKind, Callable[[], str]] = {
            RequestKind.SEAL: lambda: seal_study(tx, self._artifacts, request, data=self._data),
            RequestKind.GATE: lambda: judge(tx, self._artifacts, request),
            RequestKind.METER: lambda: meter(tx, self._artifacts, request),
            RequestKind.PROMOTE: lambda: promote(tx, request),
        }
        return work[request.kind]()
