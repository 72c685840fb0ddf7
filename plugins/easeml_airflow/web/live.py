"""Live updates of open pages: a stream of server-sent events without content.

After an event the page fetches itself with the rights of its viewer. A viewer receives events of the studies that they
may see only, so that the time of an event reveals nothing about other tenants.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
from collections import Counter
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from easeml_airflow.web.server.auth import Viewer
from easeml_core.errors import StoreUnavailableError
from easeml_core.services.telemetry import PAGE_STREAMS
from easeml_core.store.listen import Listener
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from easeml_airflow.web.server.site import Site

MOST_OF_ONE = 12
"""Streams that one person may hold open; a browser opens one a page."""

MOST = 1200
"""Streams that are open at once, where the process may open twice as many files; else half of those."""

SILENCE_SECONDS = 15.0
"""After so long without news a comment keeps what lies between from closing the connection."""

LIFE_SECONDS = 120.0
"""Then the stream ends, the browser opens another, and the page reloads: with new studies, the viewer's present rights,
and what changes without an event, such as a deadline or a lost worker."""

PAUSE_SECONDS = 1.0
"""News within this time are one event."""

EVENTS_A_SECOND = 20
"""Of all streams together, on average: a page that hears of a change asks for itself, which takes the server some 50
ms. So the more streams are open, the longer news may wait, each stream for another time."""


def routes(site: Site) -> APIRouter:
    """``/events``: hears of one study (``?study=NAME``), else of all that may be seen."""
    router, who = APIRouter(), Depends(site.viewer)
    open_streams: Counter[str] = Counter()

    def is_full(name: str) -> bool:
        return open_streams[name] >= MOST_OF_ONE or open_streams.total() >= most_streams()

    @router.get("/events")
    async def events(request: Request, study: str = "", viewer: Viewer = who) -> StreamingResponse:
        if is_full(viewer.name):
            raise HTTPException(status_code=429, detail="too many pages stand open; this one polls instead")
        topics = await run_in_threadpool(_topics, site, viewer, study)
        dsn = await run_in_threadpool(lambda: site.open_store().dsn)

        async def counted() -> AsyncIterator[str]:
            if is_full(viewer.name):  # concurrent requests have passed the first check
                return
            open_streams[viewer.name] += 1
            PAGE_STREAMS.note(1)
            try:
                async for event in _news(request, dsn, topics, open_streams.total):
                    yield event
            finally:
                PAGE_STREAMS.note(-1)
                open_streams[viewer.name] -= 1
                if not open_streams[viewer.name]:
                    del open_streams[viewer.name]

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(counted(), media_type="text/event-stream", headers=headers)

    return router


def most_streams() -> int:
    """Return how many streams may be open: each takes a file descriptor, and other requests need some."""
    return min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def _topics(site: Site, viewer: Viewer, study: str) -> list[str]:
    if study:
        return [f"study:{site.study(viewer, study).name}"]
    if viewer.sees_all:
        return ["study:*"]
    with site.open_store().begin() as tx:
        known = studies.names_and_tenants(tx)
    return [f"study:{name}" for name, tenant in known if viewer.sees(name, tenant)]


def pause_seconds(streams: int) -> float:
    """Return how long news wait in one of so many open streams, at random: at least ``PAUSE_SECONDS``."""
    spread = max(0.0, streams / EVENTS_A_SECOND - PAUSE_SECONDS)
    return PAUSE_SECONDS + spread * random.random()  # noqa: S311 - spreads the load


async def _news(
    request: Request, dsn: str, topics: list[str], streams: Callable[[], int] = lambda: 1
) -> AsyncIterator[str]:
    """One event whenever something is heard; ends when the database is away, and the page polls from then on."""
    listener = Listener.of(dsn)
    async with contextlib.AsyncExitStack() as heard:
        news = asyncio.Event()
        for topic in topics:
            await heard.enter_async_context(listener.subscribed(topic, news))
        yield "retry: 5000\n\n"
        is_open, until = False, asyncio.get_running_loop().time() + LIFE_SECONDS
        while not await request.is_disconnected():
            if asyncio.get_running_loop().time() > until:
                yield "retry: 100\n\n"  # this end is no failure
                return
            try:
                await listener.ensure_open()  # again: a broken connection is closed, and wakes who listens
            except StoreUnavailableError:
                return
            if not is_open:  # no event was sent for changes since the page was made: it reloads once
                is_open = True
                yield "event: listening\ndata:\n\n"
            try:
                await asyncio.wait_for(news.wait(), SILENCE_SECONDS)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            await asyncio.sleep(pause_seconds(streams()))
            news.clear()
            yield "event: changed\ndata:\n\n"
