"""Limits of long requests and of request bodies.

A few long requests run at the same time, one for each study, and few wait: a waiting request holds one of the threads
that Airflow's server shares, and a tenant's model may take as long as its limit allows. A request body is small until
its route has authorised the user and raises the bound: the framework reads a form before it checks the login, so
without a bound any client could fill the server's disk or memory.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import Depends, HTTPException

from easeml_airflow.web.server.auth import Viewer
from easeml_core.errors import ConcurrentUpdateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fastapi import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


MOST_OF_ONE = 10
"""Pages that one person is answered at the same time: a quarter of the threads, and as many as a browser asks for."""


class Turns:
    """The turns of one server.

    Args:
        at_once: How many work at the same time, >= 1.
        waiting: How many more wait, of all studies together, >= 0; of one study half of them.
        patience_seconds: How long each waits.
    """

    def __init__(self, at_once: int = 2, waiting: int = 8, patience_seconds: float = 10.0) -> None:
        self._at_once, self._waiting, self._patience = at_once, waiting, patience_seconds
        self._working = Counter[str]()
        self._queued = Counter[str]()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, study: str) -> Iterator[None]:
        """One turn for a study, for as long as the block.

        Raises:
            ConcurrentUpdateError: There was none in time, or too many wait already.
        """
        self._take(study)
        try:
            yield
        finally:
            with self._changed:
                self._working[study] -= 1
                self._working += Counter()  # forgets who has none
                self._changed.notify_all()

    def _take(self, study: str) -> None:
        with self._changed:
            if not self._is_free(study):
                self._wait(study)
            self._working[study] += 1

    def _is_free(self, study: str) -> bool:
        return self._working.total() < self._at_once and not self._working[study]

    def _wait(self, study: str) -> None:
        message = "other requests are worked on; try again"
        if self._queued.total() >= self._waiting or self._queued[study] >= self._waiting // 2:
            raise ConcurrentUpdateError(message)
        self._queued[study] += 1
        try:
            if not self._changed.wait_for(lambda: self._is_free(study), self._patience):
                raise ConcurrentUpdateError(message)
        finally:
            self._queued[study] -= 1
            self._queued += Counter()


def few_of_each(viewer: Callable[..., Viewer]) -> Callable[..., Any]:
    """A FastAPI dependency that answers 429 to a person of whom ``MOST_OF_ONE`` other requests are worked on.

    Args:
        viewer: FastAPI dependency that gives who asks.
    """
    who, working = Depends(viewer), Counter[str]()

    async def place(viewer: Viewer = who) -> AsyncIterator[None]:
        if working[viewer.name] >= MOST_OF_ONE:
            message = f"{MOST_OF_ONE} other requests of yours are worked on; wait for them"
            raise HTTPException(status_code=429, detail=message)
        working[viewer.name] += 1
        try:
            yield
        finally:
            working[viewer.name] -= 1

    return place


USUAL_BYTES = 100_000
"""Enough for every form without a file, and its longest text."""

_KEY = "easeml.allowance"


@dataclass(slots=True)
class _Allowance:
    """Bytes that a request may send."""

    most_bytes: int = USUAL_BYTES


class BoundedBodies:
    """An application whose requests send ``USUAL_BYTES``, or what their route has allowed; more ends in 413.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request, and count what it sends."""
        allowance, seen = _Allowance(), 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > allowance.most_bytes:
                raise too_large(allowance.most_bytes)
            return message

        scope[_KEY] = allowance
        await self._app(scope, counted, send)


def allow(request: Request, most_bytes: int) -> None:
    """Let a request send more: for routes that know who asks, before they read it."""
    request.scope[_KEY].most_bytes = most_bytes


def too_large(most_bytes: int) -> HTTPException:
    """What is answered to who sends more."""
    return HTTPException(413, f"a form or a file may have at most {most_bytes / 1e6:,.3g} MB here")
