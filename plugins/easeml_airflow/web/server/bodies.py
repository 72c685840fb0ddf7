"""How much a request may send: little, until its route knows who asks and wants more.

The framework reads a form before it asks who sends it. Without a bound anybody could fill the server's disk with one
file, or its memory with one field, without a login.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import HTTPException

if TYPE_CHECKING:
    from fastapi import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
