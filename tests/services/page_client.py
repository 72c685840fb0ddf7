"""A browser's questions to an application in this process."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import httpx
from page_reader import Page

OWN_PAGE = {"sec-fetch-site": "same-origin"}


class Client:
    """Asks an application in this process; what it posts comes from a page of ours unless headers say otherwise."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def request(self, method: str, path: str, **asked: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as asker:
                asking = asker.request(method, path, **asked)
                return await asyncio.wait_for(asking, timeout=60)  # a stream that should have been refused never ends

        return asyncio.run(ask())

    def get(self, path: str, **asked: Any) -> httpx.Response:
        return self.request("GET", path, **asked)

    def page(self, path: str, **asked: Any) -> Page:
        """The page at this address."""
        answer = self.get(path, **asked)
        assert answer.status_code == 200, answer.text
        return Page(answer.text)

    def post(self, path: str, *, headers: dict[str, str] = OWN_PAGE, **asked: Any) -> httpx.Response:
        """``data`` is a form; the answer of a change that worked is 303 to a page."""
        return self.request("POST", path, headers=headers, **asked)


@dataclass
class Seat:
    """Who asks an application now."""

    viewer: Any


class SeatedClient(Client):
    """Asks as one person an application that several ask in turn: to make one takes a second."""

    def __init__(self, app: Any, seat: Seat, viewer: Any) -> None:
        super().__init__(app)
        self._seat, self._viewer = seat, viewer

    def request(self, method: str, path: str, **asked: Any) -> httpx.Response:
        self._seat.viewer = self._viewer
        return super().request(method, path, **asked)


def without_times(html: str) -> str:
    """Return a page without what differs at each look: times, that of the look among them, and keys of requests."""
    html = re.sub(r"<time.*?</time>", "TIME", html)
    return re.sub(r'name="request_key" value="[^"]*"', "KEY", html)
