"""The form in which Airflow asks for a run of a DAG, filled in as a person does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patience import until
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from playwright.sync_api import Page


def trigger(page: Page, rest: Any, dag: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Ask for a run on the page of its DAG; the run as Airflow's interface tells it."""
    earlier = _runs(rest, dag)
    page.get_by_role("button", name="Trigger").click()
    fields = [(page.locator(f"[name='element_{name}']"), value) for name, value in given.items()]
    for field, value in fields:
        field.fill(value)
    for field, value in fields:  # nothing that the form read meanwhile took its place
        expect(field).to_have_value(value)
    page.get_by_role("dialog").get_by_role("button", name="Trigger").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    (made,) = until(lambda: _runs(rest, dag).keys() - earlier.keys(), "the run")
    return _runs(rest, dag)[made]


def _runs(rest: Any, dag: str) -> dict[str, dict[str, Any]]:
    """The latest runs of a DAG by their ids."""
    newest = rest.call("GET", f"/dags/{dag}/dagRuns?order_by=-run_after&limit=100")
    return {run["dag_run_id"]: run for run in newest["dag_runs"]}
