"""In a browser: when a study stops is typed in the zone of whoever types it, and what is sent stays UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import expect, sync_playwright
from property_sizes import at_night

from easeml_core.services.studies.limits import set_study

pytestmark = pytest.mark.journey
FILES = ("page.js", "live.js", "forms.js", "study.js", "page.css", "tokens.css", "study.css")
SITE, WINTER, SUMMER = "http://test", "2031-01-15T23:30", "2031-07-15T10:00"


@pytest.fixture
def pages(make_study, ask_as, database):
    """What the server answers, by path: the browser's own loop leaves none for a server in this process."""
    study = make_study()
    set_study(database.worker, study=study, deadline=datetime.fromisoformat(WINTER).replace(tzinfo=UTC))
    ada = ask_as("ada", "operator")
    paths = (f"/studies/{study}", *(f"/static/{name}" for name in FILES))
    return {path: ada.get(path) for path in paths}


@pytest.fixture
def opened(chromium, pages):
    """Open the page of the study with or without scripts, somewhere; the page and the forms that were sent."""
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def open_in(zone, *, scripts=True):
            page = browser.new_context(timezone_id=zone, java_script_enabled=scripts).new_page()
            path, sent = next(iter(pages)), []

            def answer(route):
                if route.request.method == "POST":
                    sent.append(parse_qs(route.request.post_data, keep_blank_values=True))
                    return route.fulfill(status=200, body=pages[path].text, content_type="text/html")
                found = pages.get(route.request.url.removeprefix(SITE))
                if found is None:
                    return route.abort()
                kind = found.headers["content-type"]
                return route.fulfill(status=200, body=found.text, content_type=kind)

            page.route("**/*", answer)
            page.goto(SITE + path)
            return page, sent

        yield open_in
        browser.close()


@pytest.mark.parametrize(
    ("zone", "winter", "summer"),
    [
        ("America/New_York", "2031-01-15T18:30", "2031-07-15T06:00"),
        at_night("Asia/Kolkata", "2031-01-16T05:00", "2031-07-15T15:30"),
        at_night("UTC", WINTER, SUMMER),
    ],
)
def test_a_deadline_is_typed_in_the_viewers_zone_and_sent_in_utc_again_after_a_swap(opened, zone, winter, summer):
    page, sent = opened(zone)
    for number in (1, 2):  # the second time in the page that the answer has put in the place of the first
        page.get_by_role("button", name="Budget", exact=True).click()
        typed = page.get_by_label("Deadline, your time zone")
        expect(typed).to_have_value(winter)
        dialog = page.locator("#d-stops")
        dialog.get_by_role("button", name="Set").click()
        expect(dialog).not_to_be_visible()
        assert len(sent) == 2 * number - 1
        assert sent[-1]["deadline"] == [WINTER]
        page.get_by_role("button", name="Budget", exact=True).click()
        page.get_by_label("Deadline, your time zone").fill(summer)
        page.locator("#d-stops").get_by_role("button", name="Set").click()
        expect(page.locator("#d-stops")).not_to_be_visible()
        assert sent[-1]["deadline"] == [SUMMER]
    page.get_by_role("button", name="Budget", exact=True).click()
    page.get_by_label("Deadline, your time zone").fill("")
    page.locator("#d-stops").get_by_role("button", name="Set").click()
    expect(page.locator("#d-stops")).not_to_be_visible()
    assert sent[-1]["deadline"] == [""]


def test_without_a_script_it_is_utc_and_says_so(opened):
    page, _ = opened("Asia/Kolkata", scripts=False)
    assert page.locator("label[for=deadline]").text_content() == "Deadline, UTC"
    assert page.locator("#deadline").get_attribute("value") == WINTER
    assert page.locator("#deadline").get_attribute("name") == "deadline"
