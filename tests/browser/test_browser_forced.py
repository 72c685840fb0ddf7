"""A promotion without the gate, clicked by people in Airflow's own pages: asked for, approved, rejected, and forged."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from forms import trigger
from patience import until
from playwright.sync_api import expect

from easeml_airflow.web.server.airflow_runs import WAITING
from easeml_core.services.models.promotion import model_list

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from easeml_core.store.tables.model_life import ListedModel

FORCED = "easeml_forced_promotion"
ASKED, ANSWERED = "the old one [crashes](http://127.0.0.1/) **today**", "seen on the line"
pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]  # whoever comes first waits for the stack


@pytest.fixture(scope="module")
def rest(installation: Any) -> Any:
    """The administrator's way in, with the DAG switched on."""
    client = installation.stack.access.rest()
    until(lambda: client.has_dag(FORCED), "the reading of the DAG")
    client.pause(FORCED, False)
    return client


def path_of(run: str) -> str:
    return f"/dags/{FORCED}/dagRuns/{quote(run, safe='')}/taskInstances/promote"


def ask(page: Page, rest: Any, model: int) -> str:
    """Ask for it in the form of the DAG; the run, once its task waits for a person."""
    given = {"study": "cancer", "model": str(model), "reason": ASKED}
    run = str(trigger(page, rest, FORCED, given)["dag_run_id"])
    until(lambda: rest.call("GET", path_of(run))["state"] in WAITING, "the question")
    return run


def question(page: Page, model: int) -> None:
    """From Airflow's list of required actions to the question about this model."""
    asked = page.get_by_role("link", name=f"Promote model {model} of study cancer without the gate?")
    asked.click()
    expect(page.get_by_role("button", name="Approve")).to_be_disabled()  # there is no reason yet
    expect(page.get_by_text(ASKED, exact=True)).to_be_visible()  # as it was typed: no link and no bold word


def question_from_the_audit(page: Page, model: int) -> None:
    """From our audit in Airflow's frame to the question about this model, the only one that waits."""
    frame = page.frame_locator("iframe[title='Ease.ml']")
    expect(frame.get_by_text("1 forced promotion waits for an answer of a referee in Airflow.")).to_be_visible()
    frame.get_by_role("link", name="Answer in Airflow").click()
    expect(page).to_have_url(re.compile(r"/tasks/promote/required_actions$"))
    expect(page.get_by_text(f"Promote model {model} of study cancer without the gate?").first).to_be_visible()


def told(page: Page, words: str) -> Locator:
    """The point of the question that has these words."""
    return page.get_by_role("listitem").filter(has_text=words)


def standing(installation: Any) -> list[ListedModel]:
    """What is in production of the study."""
    return [found for found in model_list(installation.worker, study="cancer") if found.in_production]


def test_a_referee_approves_what_a_user_asks_for_and_nobody_else_can(
    open_as: Any, installation: Any, rest: Any, people: Any
) -> None:
    model = installation.hand_in(1)
    run = ask(open_as("user", f"/dags/{FORCED}", frame=False).page, rest, model)
    for person, refused in (("viewer", 403), ("user", 403), ("op", 403)):
        answer = {"chosen_options": ["Approve"], "params_input": {"why": "because"}}
        address = f"{installation.url}/api/v2{path_of(run)}/-1/hitlDetails"
        assert people[person].request.patch(address, data=answer).status == refused, person
    page = open_as("user", "/required_actions", frame=False).page
    question(page, model)
    page.locator("[name='element_why']").fill("because")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("You do not have permission")).to_be_visible()
    assert rest.call("GET", path_of(run))["state"] in WAITING

    for person in ("op", "user"):
        other = open_as(person, "/audit").page
        expect(other.get_by_role("heading", name="Audit")).to_be_visible()
        expect(other.get_by_text("waits for an answer of a referee")).to_have_count(0)
    needed = open_as("admin", "/?needs=all").page  # each has its own line there, however many they are
    expect(needed.get_by_text("cancer: a promotion without the gate waits for a referee")).to_be_visible()
    before = standing(installation)
    page = open_as("admin", "/plugin/easeml/easeml/audit", frame=False).page
    question_from_the_audit(page, model)
    goes = f"in place of model {before[0]['model_id']}" if before else "where nothing is now"
    expect(told(page, f"model {model} of study cancer goes to production")).to_contain_text(goes)
    expect(told(page, "The gate's last word on it:")).to_contain_text("none, it was never judged")
    expect(told(page, "Who asks:")).to_contain_text("user")
    page.locator("[name='element_why']").fill(ANSWERED)
    page.get_by_role("button", name="Approve").click()
    assert list(rest.wait(FORCED, run))[-1] == "success"

    (found,) = standing(installation)
    assert (found.model_id, found.who, found.why) == (model, "admin", ANSWERED)
    audit = open_as("user", "/audit").page
    forced = audit.get_by_role("row").filter(has_text=re.compile("forced", re.IGNORECASE)).filter(has_text=ANSWERED)
    expect(forced.first).to_contain_text("admin")


@pytest.mark.nightly
def test_a_rejection_and_a_forged_approval_promote_nothing(open_as: Any, installation: Any, rest: Any) -> None:
    model, before = installation.models["cancer"][0], standing(installation)
    (judged,) = (found for found in model_list(installation.worker, study="cancer") if found.model_id == model)
    run = ask(open_as("user", f"/dags/{FORCED}", frame=False).page, rest, model)
    page = open_as("admin", "/required_actions", frame=False).page
    question(page, model)
    expect(told(page, "The gate's last word on it:")).to_contain_text(judged.verdict)
    page.locator("[name='element_why']").fill("the gate is there for that")
    page.get_by_role("button", name="Reject").click()
    until(lambda: rest.call("GET", path_of(run))["state"] == "skipped", "the rejection")

    # Whoever may change a run may write its XComs and its states: neither is a referee's word.
    run = ask(open_as("user", f"/dags/{FORCED}", frame=False).page, rest, model)
    api = open_as("user", "/", frame=False).page.request
    forged = {"chosen_options": ["Approve"], "params_input": {"why": "x"}, "responded_by_user": {"name": "admin"}}
    address = f"{installation.url}/api/v2{path_of(run)}"
    written = {"key": "return_value", "value": forged, "map_index": -1}
    assert api.post(f"{address}/xcomEntries", data=written).status == 201
    assert api.patch(address, data={"new_state": "success"}).status == 200
    assert list(rest.wait(FORCED, run))[-1] == "success"
    assert standing(installation) == before
