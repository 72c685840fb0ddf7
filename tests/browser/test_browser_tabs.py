"""Ways between Airflow's pages and ours: the tabs of a run and of a task."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from looks import NARROW_DARK, WIDE_LIGHT, wrong_with
from patience import until
from playwright.sync_api import expect

from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import run_trial

if TYPE_CHECKING:
    from playwright.sync_api import FrameLocator, Page

REGISTER = "easeml_register_study"
STUDY = {
    **{"tenant": "lab", "study": "tabs", "source": "sklearn:breast_cancer"},
    "candidates": [{"name": kind, "kind": kind} for kind in ("nearest_centroid", "decision_tree")],
    "gate": {"condition": "n > 0.5 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 3},
    "meter": {"ranges": [0.2, 0.6], "tolerance": 0.2, "reliability": 0.9, "steps": 4},
}
pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]  # whoever comes first waits for the stack


@pytest.fixture(scope="module")
def run(installation: Any) -> str:
    """A run that has registered a study; two trials bear the names of further tasks of it."""
    client = installation.stack.access.rest()
    until(lambda: client.has_dag(REGISTER), "the reading of the DAG")
    client.pause(REGISTER, False)
    name = client.trigger(REGISTER, STUDY)
    assert list(client.wait(REGISTER, name))[-1] == "success"
    asked = {"count": 2, "policy": None, "request_key": f"{REGISTER}/{name}/suggest/-1"}
    for index, trial in enumerate(suggest_trials(installation.worker, **asked).trials):
        key = f"{REGISTER}/{name}/train/{index}"
        run_trial(installation.worker, installation.artifacts, trial_id=trial.trial_id, request_key=key)
    return str(name)


def open_tab(page: Page, route: str) -> FrameLocator:
    """Click the tab of Airflow's page; what its frame shows."""
    page.locator(f"a[href*='plugin/{route}']").click()
    expect(page).to_have_url(re.compile(f"/plugin/{route}$"))
    return page.frame_locator("iframe[title='Ease.ml']")


def test_a_run_has_a_tab_that_lists_what_it_did(open_as: Any, run: str) -> None:
    page = open_as("user", f"/dags/{REGISTER}/runs/{quote(run, safe='')}", frame=False).page
    frame = open_tab(page, "easeml-run")
    expect(frame.get_by_role("heading", name="What this run did")).to_be_visible()
    expect(frame.get_by_text(run)).to_be_visible()  # the plus and the colons of its name as they are
    expect(frame.get_by_role("row").filter(has_text="suggested and trained")).to_have_count(2)
    registered = frame.get_by_role("row").filter(has_text="Study registered")
    expect(registered).to_contain_text("tabs")
    expect(registered).to_contain_text("Sealed")
    frame.get_by_role("link", name=re.compile("^#")).first.click()
    expect(frame.get_by_role("heading", name="Why this trial")).to_be_visible()
    expect(page).to_have_url(re.compile("/plugin/easeml-run$"))


def test_a_task_has_a_tab_that_leads_to_what_it_was_about(open_as: Any, run: str) -> None:
    page = open_as("user", f"/dags/{REGISTER}/runs/{quote(run, safe='')}/tasks/register", frame=False).page
    frame = open_tab(page, "easeml-task")
    expect(frame.get_by_role("navigation", name="Pages of this study")).to_be_visible()
    expect(frame.get_by_role("heading", name="tabs")).to_be_visible()


def test_the_list_itself_has_no_serious_finding_and_no_complaint(open_as: Any, run: str) -> None:
    watched = open_as("admin", f"/of-run?dag={REGISTER}&run={quote(run, safe='')}")
    assert wrong_with(watched.page, (WIDE_LIGHT, NARROW_DARK)) == {}
    assert watched.complaints == []
