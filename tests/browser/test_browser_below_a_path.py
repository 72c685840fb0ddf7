"""An Airflow whose own address has a path, as behind a proxy that serves other things, too: all stays below it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from patience import SECONDS, until
from playwright.sync_api import expect
from stack.rest import Rest

from easeml_core.services.reports.overview import study_state
from easeml_core.store.server.cluster import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

PATH = "/af/low"
PLACES = ("/", "/new", "/compute", "/audit", "/labels/digits", "/studies/cancer/decisions/{trial}")
PLACES += tuple(f"/studies/cancer{part}" for part in ("", "/lifecycle", "/submissions", "/gate", "/meter", "/use"))
pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]  # whoever comes first waits for the stack


@pytest.fixture(scope="module")
def below(installation: Any) -> Iterator[str]:
    """The address of a second API server of the same Airflow."""
    processes = installation.stack.processes
    (api_server,) = (found.component for found in processes.running if found.component.name == "api-server")
    port = free_port()
    url = f"http://{LOOPBACK}:{port}{PATH}"
    environment = {**api_server.environment, "AIRFLOW__API__PORT": str(port), "AIRFLOW__API__BASE_URL": url}
    processes.start(replace(api_server, name="api-server-below", environment=environment))
    started = processes.running[-1]
    rest = Rest(url, "", "", timeout_seconds=5)
    until(lambda: rest.answers("/api/v2/version"), "the second API server", seconds=2.5 * SECONDS)
    yield url
    started.process.terminate()
    started.process.wait()
    processes.running.remove(started)


@pytest.fixture
def page(below: str, installation: Any, browser: Any) -> Iterator[Page]:
    """A page of the administrator, who has logged in there; every answer must come from below the path."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(SECONDS * 1000)
    opened, strays = context.new_page(), []

    def look(answer: Any) -> None:
        where = urlsplit(answer.url)  # a blob comes from the page itself
        if answer.status >= 400 or (where.scheme == "http" and not where.path.startswith(f"{PATH}/")):
            strays.append((answer.status, answer.url))

    opened.goto(f"{below}/")
    opened.fill("input[name=username]", "admin")
    opened.fill("input[name=password]", installation.stack.access.keys.passwords["admin"])
    opened.keyboard.press("Enter")
    opened.wait_for_url(f"{below}/")
    opened.on("response", look)
    yield opened
    context.close()
    assert strays == []


@pytest.mark.nightly
def test_the_frame_the_news_a_form_and_the_way_back_to_airflow(page: Page, below: str, installation: Any) -> None:
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Ease.ml").click()
    inner = page.frame_locator("iframe[title='Ease.ml']")
    expect(inner.get_by_role("heading", level=1)).to_have_text("Overview")
    expect(inner.locator("[data-live-word]")).to_have_text("Live,")
    inner.get_by_role("link", name="digits").first.click()
    expect(page).to_have_url(f"{below}/plugin/easeml{PATH}/easeml/studies/digits")
    for word, state in (("Pause", "PAUSED"), ("Resume", "ACTIVE")):
        inner.get_by_role("button", name=word, exact=True).click()
        inner.get_by_role("dialog").get_by_role("button", name=word, exact=True).click()
        until(lambda state=state: study_state(installation.worker, study="digits") == state, state)
    page.reload()
    expect(inner.get_by_role("heading", level=1)).to_contain_text("digits")
    page.goto(f"{below}/easeml/studies/cancer/gate")
    page.locator("a[data-airflow]").first.click()
    expect(page).to_have_url(re.compile(rf"^{re.escape(below)}/dags/"))
    expect(page.get_by_role("button", name="Trigger")).to_be_visible()


@pytest.mark.nightly  # by day tests/plugin/web/server/test_plugin_web_app.py mounts the pages below a path
def test_every_address_on_a_page_begins_with_the_path(page: Page, below: str, installation: Any) -> None:
    for place in PLACES:
        page.goto(f"{below}/easeml{installation.path(place)}", wait_until="load")
        addresses = page.evaluate("[...document.querySelectorAll('a, form')].map(a => a.href || a.action)")
        assert addresses
        assert [address for address in addresses if not address.startswith(f"{below}/")] == [], place
