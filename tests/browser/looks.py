"""A page that stands open: its news are refused, its clock stands still, and a test answers its looks."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page, Route

ZONE = ZoneInfo("Europe/Zurich")
EVENTS, OVERVIEW = "**/easeml/events*", re.compile(r"/easeml/(\?.*)?$")
AWAY = '<p role="alert"><b>the database cannot be reached</b></p>'


def refuse(route: Route) -> None:
    route.abort()


def unavailable(route: Route) -> None:
    route.fulfill(status=503, content_type="text/html", body=AWAY)


def stop_the_clock(page: Page) -> None:
    """Let no time pass on the page but what the test says."""
    now = datetime.now(ZONE)
    page.clock.install(time=now)
    page.clock.pause_at(now + timedelta(minutes=1))  # it still runs until then, on a busy machine for long


def without_news(page: Page, answer: Callable[[Route], None] = refuse) -> None:
    """Let the stream of events be refused, and the test move the clock."""
    stop_the_clock(page)
    page.route(EVENTS, answer)


def of_looks(answer: Callable[[Route], None]) -> Callable[[Route], None]:
    """Answer so where a page that stands open looks again, and let it be loaded otherwise."""
    return lambda route: answer(route) if route.request.resource_type == "fetch" else route.fallback()


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id"))
