"""How a page looks: what axe finds and what is too wide; and one that stands open, whose looks a test answers."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has none

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from playwright.sync_api import Page, Route

ZONE = ZoneInfo("Europe/Zurich")
EVENTS, OVERVIEW = "**/easeml/events*", re.compile(r"/easeml/(\?.*)?$")
AWAY = '<p role="alert"><b>the database cannot be reached</b></p>'


GRAVE = ("serious", "critical")
WIDE_LIGHT, NARROW_DARK, WIDE_DARK, NARROW_LIGHT = (
    (width, mode) for width, mode in ((1280, "light"), (390, "dark"), (1280, "dark"), (390, "light"))
)


def findings(page: Page) -> list[tuple[str, str, str]]:
    """What axe calls serious: rule, how grave, the first place."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in GRAVE]


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def wrong_with(page: Page, looks: Iterable[tuple[int, str]]) -> dict[str, Any]:
    """What is wrong with a page in these widths and modes: findings, and what lies outside; empty for nothing."""
    wrong: dict[str, Any] = {}
    for width, mode in looks:
        page.emulate_media(color_scheme="dark" if mode == "dark" else "light")
        page.set_viewport_size({"width": width, "height": 900})
        found, outside = findings(page), overflow(page)
        if found or outside > 0:
            wrong[f"{width} {mode}"] = (found, outside)
    return wrong


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
