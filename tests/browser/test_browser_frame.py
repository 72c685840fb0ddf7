"""The frame of every page in a real browser: times, news, what it says when nothing answers or takes long, and keys."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx
import made_up_installation
import pytest
from looks import EVENTS, OVERVIEW, ZONE, focused, of_looks, refuse, unavailable, without_news
from patience import until
from playwright.sync_api import expect

from easeml_airflow.web.app import create_app
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.services.labeling import desk
from easeml_core.services.reports.overview import study_details, study_state
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import cancel_trial
from easeml_core.store.tables import labels

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from easeml_core.store.database import Store

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]  # whoever comes first waits for the stack


# ---- times


@pytest.mark.parametrize("path", ["/audit", "/studies/cancer", "/studies/cancer/decisions/{trial}"])
def test_times_are_those_of_the_viewers_zone(opened: Any, path: str) -> None:
    found = opened("op", path).evaluate(
        "[...document.querySelectorAll('time[data-style]')].map(t => [t.dateTime, t.dataset.style, t.textContent])"
    )
    assert {"minute", "clock"} <= {style for _, style, _ in found}
    for instant, style, text in found:
        there = datetime.fromisoformat(instant).astimezone(ZONE)
        wanted = {"minute": f"{there:%b} {there.day}, {there:%I:%M} {there:%p}", "clock": f"{there:%I:%M:%S %p}"}
        shown = text.replace("\N{NARROW NO-BREAK SPACE}", " ")
        assert shown == wanted.get(style, f"{there:%b} {there.day}, {there.year}")
        assert there.utcoffset()


# ---- news


@pytest.mark.parametrize("answer", [refuse, unavailable])
def test_without_news_a_page_asks_every_ten_seconds_and_says_so_after_thirty(opened: Any, answer: Any) -> None:
    page = opened("op", "/", before=lambda page: without_news(page, answer))
    notes, word = page.locator("#notes"), page.locator("[data-live-word]")
    expect(word).to_have_text("Read at")
    with page.expect_response(OVERVIEW):
        page.clock.fast_forward(10_500)
    assert notes.inner_text() == ""
    page.clock.fast_forward(20_500)
    expect(notes).to_have_text("No live updates. This page asks every 10 s instead.")
    page.unroute(EVENTS)

    def is_live() -> bool:
        page.clock.fast_forward(30_500)  # a stream that was refused is asked for again, 30 s after it was
        page.wait_for_timeout(500)
        return word.inner_text() == "Live,"

    until(is_live, "the stream that is asked for again")
    expect(notes).to_have_text("")


@pytest.mark.parametrize(
    ("answer", "why"), [(refuse, "The server does not answer."), (unavailable, "the database cannot be reached")]
)
def test_a_look_that_fails_keeps_the_page_and_says_so(opened: Any, answer: Any, why: str) -> None:
    page = opened("op", "/", before=without_news)
    notes, read = page.locator("#notes"), page.locator("[data-live] time").inner_text()
    before = page.locator("#main").inner_html()
    page.locator("#show-all").focus()
    page.route(OVERVIEW, of_looks(answer))
    page.clock.fast_forward(10_500)
    expect(notes).to_contain_text(why)
    expect(notes).to_contain_text(f"below is the state of {read}")
    expect(page.locator("[data-live-word]")).to_have_text("Read at")
    assert page.locator("#main").inner_html() == before
    assert page.title().startswith("Overview")
    assert focused(page) == "show-all"
    again = page.get_by_role("button", name="Try again")
    ends = "requestfinished" if answer is unavailable else "requestfailed"
    with page.expect_event(ends, predicate=lambda asked: OVERVIEW.search(asked.url)):  # a browser asks for news, too
        again.press("Enter")
    expect(again).to_be_focused()
    page.unroute(OVERVIEW)
    again.press("Enter")
    expect(notes).to_have_text("")
    assert focused(page) == "main", "the button is gone, and the keyboard goes on where the page begins"


def test_a_page_whose_look_failed_looks_again_by_itself(opened: Any) -> None:
    page = opened("op", "/", before=without_news)
    page.route(OVERVIEW, of_looks(unavailable))
    page.clock.fast_forward(10_500)
    expect(page.locator("#notes")).to_contain_text("Try again")
    page.unroute(OVERVIEW)
    page.clock.fast_forward(10_500)
    expect(page.locator("#notes")).to_have_text("")


def test_the_keyboard_stays_where_it_is_when_a_fresh_page_comes(opened: Any) -> None:
    def changed(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("<h1>", "<h1>Fresh ", 1))

    page = opened("op", "/studies/digits", before=without_news)
    page.route("**/studies/digits", of_looks(changed))
    opener = page.locator("[data-open=d-pause]")
    assert opener.get_attribute("id") is None, "such a one is found again by what it does"
    opener.focus()
    page.clock.fast_forward(10_500)
    expect(page.locator("h1")).to_have_text("Fresh digits")
    expect(opener).to_be_focused()


def test_nothing_is_put_in_the_place_of_what_is_being_pressed(opened: Any) -> None:
    page = opened("op", "/", before=without_news)
    looks: list[str] = []
    page.locator("#show-all").hover()
    page.mouse.down()
    page.on("request", lambda asked: OVERVIEW.search(asked.url) and looks.append(asked.url))
    page.clock.fast_forward(10_500)
    told_of_all(page)
    assert looks == []
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"show=all"))


def told_of_all(page: Page) -> None:
    """Whatever the page has asked by now is known here: the answer to a later question has come."""
    assert page.evaluate("fetch('static/mark.svg').then((answer) => answer.ok)")


# ---- what takes long


@pytest.mark.parametrize(
    ("person", "path", "asked", "button"),
    [
        ("op", "/compute", "**/compute/backtest", "text=Run now"),
        ("user", "/studies/cancer/use", re.compile(r"/use\?of="), "#of-newest"),
        ("op", "/", OVERVIEW, "#show-all"),
    ],
)
def test_what_takes_long_says_so_and_ends_well(opened: Any, person: str, path: str, asked: Any, button: str) -> None:
    held: list[Route] = []
    page = opened(person, path, before=without_news)
    page.route(asked, lambda route: held.append(route))  # a builtin is none to Playwright
    main, said, pressed = page.locator("#main"), page.locator("#said"), page.locator(button)
    pressed.click()
    until(lambda: page.evaluate("0") or held, "the question")
    page.clock.run_for(250)
    assert (main.get_attribute("aria-busy"), said.inner_text()) == (None, "")
    page.clock.run_for(100)
    expect(main).to_have_attribute("aria-busy", "true")
    expect(pressed).to_have_attribute("aria-disabled", "true")
    expect(said).to_have_text("Working")
    expect(page.locator(".working")).to_be_visible()
    held[0].continue_()
    expect(main).not_to_have_attribute("aria-busy", "true")
    expect(page.locator(button)).not_to_have_attribute("aria-disabled", "true")
    expect(said).not_to_have_text("Working")
    expect(page.locator(".working")).to_be_hidden()


def test_what_takes_long_cannot_be_pressed_twice_and_fails_aloud(opened: Any) -> None:
    held: list[Route] = []
    page = opened("op", "/compute", before=without_news)
    page.route("**/compute/backtest", lambda route: held.append(route))
    button = page.get_by_role("button", name="Run now")
    button.click()
    page.clock.run_for(350)
    expect(page.locator("#said")).to_have_text("Working")
    button.click(force=True)
    told_of_all(page)
    assert len(held) == 1
    held[0].abort()
    expect(page.locator("#main [role=alert]")).to_have_text("The server does not answer.")
    expect(page.locator("#main")).not_to_have_attribute("aria-busy", "true")
    expect(button).not_to_have_attribute("aria-disabled", "true")
    expect(page.locator("#said")).to_have_text("")


# ---- keys


@pytest.fixture
def crowded(database: Any) -> str:
    """The overview of 250 studies, as an operator is shown it."""
    with database.owner.begin() as tx:
        made_up_installation.fill(tx, key="t", candidates=["tree"], config={}, trials=[], rows=[100] * 250)
    operator = Viewer("ada", frozenset({Role.OPERATOR}))
    site = Site(lambda: database.worker, object, object, lambda: operator)
    transport = httpx.ASGITransport(app=create_app(site, require_login=lambda: None), root_path="/easeml")

    async def ask() -> str:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as asker:
            return (await asker.get("/easeml/")).text

    with ThreadPoolExecutor(1) as elsewhere:  # the browser's loop runs in this thread
        return elsewhere.submit(lambda: asyncio.run(ask())).result()


def test_the_map_of_very_many_is_walked_by_keys(crowded: str, opened: Any, installation: Any) -> None:
    def prepare(page: Page) -> None:
        page.route(OVERVIEW, lambda route: route.fulfill(content_type="text/html", body=crowded))

    page = opened("op", "/", before=prepare)
    names = page.locator("#map").get_attribute("data-names").split("\n")
    assert len(names) == 250
    page.locator("#map").focus()
    for key, cell in (("ArrowDown", 0), ("ArrowDown", 1), ("ArrowRight", 21), ("ArrowUp", 20), ("End", 249)):
        page.keyboard.press(key)
        expect(page.locator("#map-at")).to_have_text(names[cell])
    expect(page.locator("#map .at")).to_be_visible()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{installation.url}/easeml/studies/{names[0]}")


def test_the_mark_on_the_map_stays_at_its_study_when_news_comes(crowded: str, opened: Any) -> None:
    pages = [crowded]

    def prepare(page: Page) -> None:
        without_news(page)
        page.route(OVERVIEW, lambda route: route.fulfill(content_type="text/html", body=pages[-1]))

    page = opened("op", "/", before=prepare)
    at, mark = page.locator("#map-at"), page.locator("#map .at")
    names = page.locator("#map").get_attribute("data-names").split("\n")
    page.locator("#map").focus()
    for key in ("Home", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    expect(mark).to_have_attribute("y", "19")
    pages.append(crowded.replace(f'data-names="{names[0]}\n', 'data-names="'))  # the first of all is gone
    page.clock.fast_forward(10_500)
    expect(mark).to_have_attribute("y", "9")
    expect(at).to_have_text(names[2])
    expect(page.locator("#map")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(at).to_have_text(names[3])
    pages.append(pages[-1].replace(f"\n{names[3]}\n", "\n"))  # the marked one is gone
    page.clock.fast_forward(10_500)
    expect(mark).to_be_hidden()
    page.keyboard.press("ArrowDown")
    expect(at).to_have_text(names[1])


def test_a_dialog_is_opened_used_and_left_by_keys(open_as: Any) -> None:
    watched = open_as("op", "/studies/digits")
    page = watched.page
    opener, dialog = page.locator("[data-open=d-pause]"), page.locator("#d-pause")
    opener.focus()
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    assert page.evaluate("document.getElementById('d-pause').contains(document.activeElement)")
    for _ in range(8):  # what lies behind is out of reach; a browser's own bar may have its turn
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.matches('body, dialog *')")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()
    assert watched.complaints == []


def test_a_slider_of_the_planner_is_moved_by_keys(open_as: Any) -> None:
    watched = open_as("admin", "/studies/cancer/gate")
    page = watched.page
    expect(page.locator("#p-result[data-again]")).to_have_count(0)  # its numbers are there
    slider = page.locator("#plan-form input[type=range][name=steps]")
    told, plan = slider.get_attribute("aria-valuetext"), page.locator("#p-result").text_content()
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(slider).not_to_have_attribute("aria-valuetext", told)
    expect(slider).to_be_focused()
    expect(page.locator("#p-result")).not_to_have_text(plan)
    expect(page).to_have_url(re.compile(rf"steps={slider.input_value()}\b"))
    assert watched.complaints == []


# ---- everyday acts that nothing else here does in a browser


def test_a_study_is_paused_and_goes_on(open_as: Any, installation: Any) -> None:
    watched = open_as("user", "/studies/digits")
    page = watched.page
    for word, state in (("Pause", "PAUSED"), ("Resume", "ACTIVE")):
        page.get_by_role("button", name=word, exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name=word, exact=True).click()
        expect(page.locator("#said")).to_have_text(f"{word}d")
        expect(page.locator("[data-open=d-pause]")).to_be_focused()  # it says something else now
        assert study_state(installation.worker, study="digits") == state
        expect(page.get_by_role("dialog")).to_have_count(0)
    assert watched.complaints == []


def handed_out(store: Store, candidate: str, request_key: str) -> int:
    """The trial of this candidate; what other studies are handed beside it, such as those of other files, is ended."""
    found = suggest_trials(store, count=20, policy=None, request_key=request_key).trials
    (wanted,) = (trial.trial_id for trial in found if trial.candidate == candidate)
    for other in {trial.trial_id for trial in found} - {wanted}:
        cancel_trial(store, trial_id=other)
    return int(wanted)


def test_a_candidate_is_added_and_its_trial_cancelled(open_as: Any, installation: Any) -> None:
    watched = open_as("user", "/studies/cancer")
    page = watched.page
    page.get_by_role("button", name="Add candidate").click()
    page.locator("#candidate-kind").select_option("decision_tree")
    page.locator("#candidate-name").fill("stump")
    page.locator("#candidate-parameters").fill('{"max_depth": 1}')
    page.get_by_role("dialog").get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#said")).to_have_text("The candidate has joined")
    trial = handed_out(installation.worker, "stump", installation.key())
    page.locator(f"#cancel-{trial}").click()  # news bring it, without a reload
    page.get_by_role("dialog").get_by_role("button", name="Cancel the trial").click()
    expect(page.locator("#said")).to_have_text(f"Trial {trial} is cancelled")
    expect(page.locator(f"#cancel-{trial}")).to_have_count(0)
    (ended,) = (t for t in study_details(installation.worker, study="cancer").trials if t.trial_id == trial)
    assert ended.state == "CANCELLED"
    assert watched.complaints == []


def test_a_referee_decides_where_two_labelers_differ(open_as: Any, installation: Any) -> None:
    store = installation.referee
    with store.begin() as tx:
        wanted = labels.open_wanted(tx)[0]
    place = int(wanted.positions[-1])
    asked = {"study": "digits", "test_set_id": wanted.test_set_id, "place": place}
    for labeler, label in (("lea", 3), ("bob", 8)):
        desk.say(store, labeler=labeler, label=label, **asked)
    watched = open_as("admin", "/labels/digits")
    page = watched.page
    page.get_by_role("link", name="Decide").click()
    expect(page.get_by_text("Two labelers disagree on this example.")).to_be_visible()
    page.keyboard.press("9")  # the ninth class: 8
    expect(page.locator("#said")).to_contain_text("Settled")
    with store.begin() as tx:
        said = labels.labels_given(tx, asked["test_set_id"])
    assert said[labels.REFEREE][place] == 8
    assert watched.complaints == []
