"""What somebody types, opens or chooses while a page is asked for outlives the answer, in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from looks import EVENTS, OVERVIEW, focused, of_looks, refuse, without_news
from patience import until
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page, Route

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]  # whoever comes first waits for the stack
COMPUTE, BACKTEST = re.compile(r"/easeml/compute(\?.*)?$"), "**/compute/backtest"
DESK = re.compile("/labels/digits")
REFUSAL = '<p role="alert"><b>{}</b></p>'
ANSWER = re.compile(r'id="answer"[^>]*>\s*(<input.*)[\s\S]*?</form>')
LOOK_MS = 10_500
PUT_MS = 500
"""In which a page that has come is put, if it ever is."""


def changed(route: Route) -> None:
    """Let it be answered by another page than before."""
    answer = route.fetch()
    route.fulfill(response=answer, body=answer.text().replace("<h1>", "<h1>Fresh ", 1))


def held(page: Page, asked: Any) -> Callable[[int], Route]:
    """Hold what the page asks from now on: the question of that number, once it has come."""
    found: list[Route] = []
    page.route(asked, of_looks(found.append))

    def question(number: int) -> Route:
        until(lambda: page.evaluate("0") or len(found) >= number, f"question {number}")
        assert len(found) == number
        return found[number - 1]

    return question


def lasts(page: Page, condition: str) -> None:
    """Fail unless this holds as long as a page that has come could still be put."""
    page.wait_for_timeout(PUT_MS)
    assert page.evaluate(condition)


# ---- looks


@pytest.mark.parametrize(
    ("person", "path"),
    [("user", "/studies/cancer"), ("user", "/studies/cancer/submissions"), ("admin", "/studies/cancer/gate")],
)
def test_a_look_that_brings_nothing_new_replaces_nothing(opened: Any, person: str, path: str) -> None:
    page = opened(person, path, before=without_news)
    page.evaluate("for (const part of ['main', 'bar-end']) document.getElementById(part).isOld = true")

    def is_put() -> Any:
        page.clock.fast_forward(LOOK_MS)
        page.wait_for_timeout(PUT_MS)
        return page.evaluate("!document.getElementById('bar-end').isOld")

    until(is_put, "the time of the look")
    assert page.evaluate("document.getElementById('main').isOld")


def test_a_complaint_stays_until_it_is_sent_again(opened: Any) -> None:
    page = opened("op", "/compute", before=without_news)
    question, told = held(page, BACKTEST), page.locator("main [data-error]")
    page.get_by_role("button", name="Run now").click()
    question(1).abort()
    expect(told).to_have_text("The server does not answer.")
    page.route(COMPUTE, of_looks(changed))
    page.clock.fast_forward(LOOK_MS)
    expect(page.locator("h1")).to_have_text("Fresh Compute")
    expect(told).to_have_text("The server does not answer.")
    page.get_by_role("button", name="Run now").click()
    question(2).fulfill(status=303, headers={"location": page.url})
    expect(told).to_have_count(0)


def test_news_wait_for_what_is_selected_and_the_page_says_so(opened: Any) -> None:
    page = opened("op", "/studies/cancer", before=lambda page: page.clock.install())
    live = page.locator("[data-live-word]")
    expect(live).to_have_text("Live,")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    page.route("**/studies/cancer", of_looks(changed))
    page.evaluate(
        "dispatchEvent(new Event('pagehide')); dispatchEvent(new Event('pageshow'))"
    )  # listens anew, and looks
    expect(live).to_have_text("Read at")
    lasts(page, "getSelection().toString() === 'cancer'")
    page.evaluate("getSelection().removeAllRanges()")
    page.clock.fast_forward(2_500)
    expect(page.locator("h1")).to_have_text("Fresh cancer")
    expect(live).to_have_text("Live,")


def test_what_was_scrolled_sideways_stays_there(opened: Any) -> None:
    page = opened("user", "/studies/cancer/use", before=without_news)
    page.set_viewport_size({"width": 390, "height": 900})
    page.locator("#py").evaluate("code => { code.scrollLeft = 40 }")
    page.route("**/use", of_looks(changed))
    page.clock.fast_forward(LOOK_MS)
    expect(page.locator("h1")).to_have_text("Fresh Use cancer")
    assert page.locator("#py").evaluate("code => code.scrollLeft") == 40


def test_a_menu_that_was_opened_holds_no_news_back(opened: Any) -> None:
    page = opened("op", "/", before=without_news)
    page.locator("h1").hover()
    page.mouse.down(button="right")  # where the menu takes the mouse, no more of this press is heard
    with page.expect_request(OVERVIEW):
        page.clock.fast_forward(LOOK_MS)


# ---- answers to what was asked before


def test_what_is_typed_while_a_search_is_answered_is_kept_and_asked(opened: Any) -> None:
    page = opened("op", "/", before=without_news)
    question, field = held(page, OVERVIEW), page.locator("#q")
    field.press_sequentially("canc")
    page.clock.run_for(300)
    first = question(1)
    field.press_sequentially("er")
    first.continue_()
    page.wait_for_timeout(PUT_MS)
    expect(field).to_have_value("cancer")
    page.clock.run_for(300)
    assert "q=cancer" in question(2).request.url
    question(2).continue_()
    expect(page).to_have_url(re.compile(r"q=cancer"))
    expect(field).to_have_value("cancer")
    assert focused(page) == "q"


def test_a_dialog_opened_while_something_takes_long_stays_with_its_words(opened: Any) -> None:
    page = opened("op", "/compute", before=lambda page: page.route(EVENTS, refuse))
    question, reason = held(page, BACKTEST), page.locator("#reason-lab")
    body = page.request.get(page.url).text().replace("<h1>", "<h1>Fresh ", 1)
    page.get_by_role("button", name="Run now").click()
    page.locator("[data-open=d-lab]").click()
    reason.press_sequentially("they wait")
    question(1).fulfill(content_type="text/html", body=body)
    expect(page.locator("h1")).to_have_text("Fresh Compute")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(reason).to_have_value("they wait")
    reason.press_sequentially(" for long")
    expect(reason).to_have_value("they wait for long")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("[data-open=d-lab]")).to_be_focused()


def test_whoever_went_on_meanwhile_is_not_taken_back(opened: Any) -> None:
    page = opened("op", "/compute", before=lambda page: page.route(EVENTS, refuse))
    question, here = held(page, BACKTEST), page.url
    page.get_by_role("button", name="Run now").click()
    question(1)
    chosen = page.locator("[id^=window-]:not([aria-current])").first
    there = re.compile(re.escape(chosen.get_attribute("href")) + "$")
    chosen.click()
    expect(page).to_have_url(there)
    question(1).fulfill(status=303, headers={"location": here})
    expect(page.locator("#said")).to_have_text("The backtest is done")
    expect(page).to_have_url(there)


def test_what_other_forms_hold_outlives_a_list_that_is_chosen(opened: Any) -> None:
    page = opened("user", "/studies/cancer/use", before=lambda page: page.route(EVENTS, refuse))
    column, file = page.locator("#fed-column"), page.locator("#fed-file")
    column.fill("diagnosis")
    file.set_input_files({"name": "rows.csv", "mimeType": "text/csv", "buffer": b"a,diagnosis\n"})
    page.locator("#of-newest").click()
    expect(page.locator("#of-newest")).to_have_attribute("aria-pressed", "true")
    expect(column).to_have_value("diagnosis")
    assert file.evaluate("file => file.files[0].name") == "rows.csv"


# ---- dialogs that are shut while what was sent is on its way, and other questions


def test_a_refusal_of_what_a_shut_dialog_sent_is_told_and_holds_no_news(opened: Any) -> None:
    page = opened("admin", "/studies/cancer/data", before=without_news)
    question, notes = held(page, "**/data/retire"), page.locator("#notes")
    page.locator("[data-open^=d-retire-]").first.click()
    page.locator("dialog[open] [id^=retire-why-]").press_sequentially("too old")
    page.get_by_role("dialog").get_by_role("button", name="Retire").click()
    question(1)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    question(1).fulfill(status=409, content_type="text/html", body=REFUSAL.format("it is needed still"))
    expect(notes).to_contain_text("it is needed still")
    page.route("**/cancer/data", of_looks(changed))
    page.clock.fast_forward(LOOK_MS)
    expect(page.locator("h1")).to_have_text("Fresh Data")
    expect(notes).to_be_empty()


def test_what_is_typed_after_pressing_in_a_dialog_goes_with_it_and_holds_no_news(opened: Any) -> None:
    page = opened("op", "/studies/cancer", before=without_news)
    question, reason = held(page, "**/cancer/weight"), page.locator("#weight-why")
    page.locator("[data-open=d-weight]").click()
    reason.press_sequentially("it is")
    page.get_by_role("dialog").get_by_role("button", name="Set").click()
    question(1)
    reason.press_sequentially(" urgent")
    question(1).fulfill(status=303, headers={"location": page.url})
    expect(page.locator("#said")).to_have_text("Weight is set")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(reason).to_have_value("")
    page.route("**/studies/cancer", of_looks(changed))
    page.clock.fast_forward(LOOK_MS)
    expect(page.locator("h1")).to_have_text("Fresh cancer")


def test_what_may_have_been_taken_is_sent_again_under_its_own_key(opened: Any) -> None:
    page = opened("user", "/studies/cancer/use", before=lambda page: page.route(EVENTS, refuse))
    question, form = held(page, "**/use/feed"), page.locator("#feed form").first
    key, told, button = form.locator("[name=request_key]"), form.locator("[data-error]"), form.locator("button")
    form.locator("#fed-file").set_input_files({"name": "rows.csv", "mimeType": "text/csv", "buffer": b"a,label\n"})
    first = key.input_value()
    button.click()
    question(1).abort()
    expect(told).to_have_text("The server does not answer.")
    page.locator("#of-newest").click()
    expect(page.locator("#of-newest")).to_have_attribute("aria-pressed", "true")
    expect(told).to_have_text("The server does not answer.")
    expect(key).to_have_value(first)
    button.click()
    question(2).fulfill(status=400, content_type="text/html", body=REFUSAL.format("it has fed others; use a new key"))
    expect(told).to_contain_text("press again")
    expect(key).not_to_have_value(first)


def test_a_class_that_was_chosen_stays_with_its_example(opened: Any) -> None:
    more = r'\g<0><form method="post" data-swap>\1<select id="more"><option>ten<option>eleven</select></form>'

    def with_more(route: Route) -> None:
        answer = route.fetch(headers=route.request.headers | {"sec-fetch-site": "same-origin"})  # else it is not ours
        route.fulfill(response=answer, body=ANSWER.sub(more, answer.text()))

    def prepare(page: Page) -> None:
        page.route(EVENTS, refuse)
        page.route(DESK, with_more)  # of more classes than there are keys

    page = opened("op", "/labels/digits", before=prepare)
    example, chosen = page.locator("#ex"), page.locator("#more")
    first = example.inner_text()
    chosen.select_option("eleven")
    page.locator("#a1").click()
    expect(example).not_to_have_text(first)
    expect(chosen).to_have_value("ten")


# ---- the labelling desk and the planner


def test_an_undo_waits_for_the_label_that_is_on_its_way(opened: Any) -> None:
    page = opened("op", "/labels/digits", before=lambda page: page.route(EVENTS, refuse))
    example, saved = page.locator("#ex"), page.locator("[data-saved]")
    first = example.inner_text()
    page.keyboard.press("+")
    page.keyboard.press("1")
    expect(saved).to_contain_text(first)
    expect(page.locator("[data-zoom]").first).to_have_class(re.compile("large"))
    question, second = held(page, DESK), example.inner_text()
    page.keyboard.press("2")
    page.keyboard.press("z")  # would take back the first
    question(1).continue_()
    expect(saved).to_contain_text(second)
    page.unroute(DESK)
    page.keyboard.press("z")
    expect(example).to_have_text(second)


def test_a_plan_that_comes_late_leaves_the_dialog_and_is_asked_for_again(opened: Any) -> None:
    page = opened("admin", "/studies/cancer/gate", before=lambda page: page.route(EVENTS, refuse))
    opener, name = page.locator("[data-open=d-plan]"), page.locator("#plan-name")
    expect(opener).to_be_visible()
    question, slider = held(page, re.compile(r"/gate\?")), page.locator("#p-steps")
    slider.focus()
    page.keyboard.press("ArrowRight")
    late = question(1)
    opener.click()
    name.press_sequentially("winter")
    late.continue_()
    page.wait_for_timeout(PUT_MS)
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(name).to_have_value("winter")
    page.keyboard.press("Escape")
    question(2).continue_()
    expect(page).to_have_url(re.compile(rf"steps={slider.input_value()}\b"))


def test_a_plan_that_is_not_counted_yet_is_asked_for_by_itself(opened: Any) -> None:
    def uncounted(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace('id="p-result"', 'id="p-result" data-again', 1))

    def prepare(page: Page) -> None:
        page.route(EVENTS, refuse)
        page.route(re.compile("/gate$"), uncounted)

    page = opened("admin", "/studies/cancer/gate", before=prepare)
    expect(page).to_have_url(re.compile(r"/gate\?.*steps="))
    expect(page.locator("#p-result[data-again]")).to_have_count(0)
