"""Measures what pages and service answer: how many requests, how long, and how many streams of events are open.

A measurement names the route as it was declared, such as ``/studies/{study}``, never what a viewer asked for. The time
of a request that opened the sealed rows is not measured, since it could tell of them.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_airflow.hooks.easeml import connect_metrics, watch_listeners
from easeml_core.services.telemetry import PAGE_REQUESTS, PAGE_SECONDS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COUNTED_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STREAM = "/events"
"""A stream's time is that of the page that has it open."""


@dataclass(slots=True)
class _Known:
    """What is known of a request; one object for all threads that work on it."""

    status: int = 500
    has_read_sealed: bool = False


_request: ContextVar[_Known | None] = ContextVar("easeml_measured_request", default=None)


def note_sealed() -> None:
    """Say that the request at hand opens the sealed rows."""
    if (known := _request.get()) is not None:
        known.has_read_sealed = True


class Measured:
    """An application whose answers are counted and timed.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        connect_metrics()
        watch_listeners()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request, and note its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known, begun = _Known(), time.monotonic()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                known.status = message["status"]
            await send(message)

        token = _request.set(known)
        try:
            await self._app(scope, receive, noted)
        finally:
            _request.reset(token)
            seconds = time.monotonic() - begun
            route = getattr(scope.get("route"), "path", "") or "other"
            method = scope["method"] if scope["method"] in COUNTED_METHODS else "other"
            PAGE_REQUESTS.note(1, route=route, method=method, status=f"{known.status // 100}xx")
            if not (known.has_read_sealed or route == STREAM):
                PAGE_SECONDS.note(seconds, route=route, method=method)
