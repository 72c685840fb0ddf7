"""The audit's page: every act with who and why, to each what is theirs, and the same as a table that runs nothing."""

from __future__ import annotations

import csv
import io

import pytest
from device_rows import add_study
from page_reader import Page

from easeml_core.services.reports.audit import audit
from easeml_core.services.selection.policy import set_policy
from easeml_core.services.studies.limits import set_study, set_tenant
from easeml_core.store.callers import acting
from easeml_core.store.rows import change

HOSTILE = "<script>alert(1)</script>"


def of_mine(study, tenant, *, write):
    return tenant == "lab"


@pytest.fixture
def done(database):
    """Things that were done to two tenants' studies, one by somebody with a hostile name."""
    add_study(database, "mine")
    add_study(database, "secret-project", tenant="rivals")
    with acting(HOSTILE, door="page", reason="=HYPERLINK(1)"):
        set_study(database.worker, study="mine", budget_seconds=3600.0)
    with acting("platform-op", door="command line", reason="storm season"):
        set_tenant(database.worker, tenant="rivals", weight=2.0)
    set_policy(database.owner, changes={"price_per_second": 1e-6}, reason="devices are dear")
    return database


def table_of(answer):
    return list(csv.DictReader(io.StringIO(answer.text)))


@pytest.mark.parametrize("role", ["operator", "referee"])
def test_operators_and_referees_see_all(done, ask_as, recorded, role):
    page = ask_as("ada", role).page("/audit")
    assert len(page.table) == audit(done.worker).total
    recorded(page.recorded(), "audit")


def test_others_see_what_was_done_to_their_studies(done, ask_as):
    asker = ask_as("vic", rights=of_mine)
    page = asker.get("/audit?since=all")
    assert "1 device-hour" in page.text
    for hidden in ("rivals", "secret-project", "platform-op", "storm season", "devices are dear"):
        assert hidden not in page.text
        assert hidden not in asker.get("/audit.csv?since=all").text
    assert {row["study"] for row in table_of(asker.get("/audit.csv"))} == {"mine"}
    for query in ("study=secret-project", "who=platform-op", "q=storm"):
        assert table_of(asker.get(f"/audit.csv?{query}")) == [], query


def test_whoever_sees_no_study_sees_no_row(done, ask_as):
    nobody = ask_as("eve", rights=lambda study, tenant, *, write: False)
    assert nobody.get("/audit").status_code == 200
    assert table_of(nobody.get("/audit.csv?since=all")) == []


def test_names_and_reasons_are_escaped_and_no_cell_is_a_formula(done, ask_as):
    operator = ask_as("ada", "operator")
    page = operator.get("/audit")
    assert HOSTILE not in page.text
    assert "&lt;script&gt;alert(1)" in page.text
    answer = operator.get("/audit.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="easeml-audit.csv"'
    assert answer.headers["cache-control"] == "no-store"
    rows = table_of(answer)
    assert len(rows) == audit(done.worker).total
    assert {"'=HYPERLINK(1)", "storm season"} <= {row["reason"] for row in rows}
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize("most", [3, 5])
def test_the_table_has_no_end_but_the_last_act(done, ask_as, monkeypatch, most):
    """It is read in parts; what is done between two of them moves the rows on, and none comes twice."""
    for number in range(10):
        with acting("ada", door="page"):
            set_study(done.worker, study="mine", priority=number + 1)
    total = audit(done.worker).total
    operator, asked = ask_as("ada", "operator"), []

    def look(store, **wanted):
        if asked:  # a part is out already
            set_study(done.worker, study="mine", priority=-len(asked))
        asked.append(wanted["offset"])
        return audit(store, **wanted)

    monkeypatch.setattr("easeml_airflow.web.pages.audit.audit", look)
    monkeypatch.setattr("easeml_airflow.web.pages.audit.MOST_ROWS", most)
    answer = operator.get("/audit.csv?since=all")
    rows = table_of(answer)
    assert len(rows) == total
    assert answer.text.count("started_by") == 1
    assert [row["at"] for row in rows] == sorted((row["at"] for row in rows), reverse=True)


def test_filters_hold_on_the_page_and_in_the_table(done, ask_as):
    operator = ask_as("ada", "operator")
    for query, acts in (
        ("show=limits", {"study changed", "tenant changed", "policy changed"}),
        ("show=limits&study=mine", {"study changed"}),
        ("who=platform-op", {"tenant changed"}),
        ("q=STORM", {"tenant changed"}),
    ):
        assert {row["act"] for row in table_of(operator.get(f"/audit.csv?{query}"))} == acts, query
        assert f"1 to {len(acts)} of {len(acts)}." in operator.page(f"/audit?{query}").part(".pager").text, query
    nothing = operator.page("/audit?q=nothing-is-called-so").part(".empty")
    assert ("of the kind" in nothing.text, nothing.buttons) == (True, ["Clear"])


def test_an_address_may_hold_anything(done, ask_as):
    for query in ("show=<b>", "since=1y", "page=-3", "page=9999999", "q=%00%ff", "who=%00", "study=%0a"):
        for path in ("/audit", "/audit.csv"):
            assert ask_as("ada", "operator").get(f"{path}?{query}").status_code == 200, query


def test_pages_follow_each_other(done, ask_as):
    for number in range(60):
        with acting("ada", door="page"):
            set_study(done.worker, study="mine", priority=number - 30)
    operator = ask_as("ada", "operator")
    total = audit(done.worker).total
    first, second = (operator.page(path).part(".pager") for path in ("/audit", "/audit?page=2"))
    assert f"1 to 50 of {total}" in first.text
    assert f"51 to {total} of {total}" in second.text
    assert [page.has(link) for page in (first, second) for link in ("#older", "#newer")] == [True, False, False, True]


def test_a_change_on_any_page_bears_the_name_of_who_made_it(done, ask_as):
    answer = ask_as("ann", rights=lambda study, tenant, *, write: True).post("/studies/mine/pause")
    assert answer.status_code == 303
    event = audit(done.worker, study="mine").events[0]
    assert (event.act, event.who, event.door) == ("study paused", "ann", "page")


def test_who_started_the_run_in_which_a_task_acts(done, ask_as, monkeypatch):
    runs = {"manual__1": "admin", "scheduled__2": None, "mine": "=ada"}
    for run in runs:
        with acting(f"nightly/{run}/train.promote", door="task"):
            set_study(done.worker, study="mine", priority=len(run))
    with acting("a/b/c", door="page"):
        set_study(done.worker, study="mine", priority=99)
    known = {("nightly", run): user for run, user in runs.items() if user}
    asked = []

    def say(wanted):
        asked.extend(wanted)
        return known

    monkeypatch.setattr("easeml_airflow.web.pages.audit.starters", say)
    operator = ask_as("ada", "operator")
    page = operator.page("/audit")
    whose = [row["Who"] for row in page.table if row["Who"].startswith("nightly, task train.promote ")]
    assert [who.rpartition("started ")[2] for who in whose] == ["by =ada", "by its schedule", "by admin"]
    assert page.has('a[href="/dags/nightly/runs/manual__1"]')
    assert sorted(asked) == sorted(("nightly", run) for run in runs)  # a person with slashes in the name is no task
    rows = {row["who"]: row["started_by"] for row in table_of(operator.get("/audit.csv"))}
    assert rows["nightly/manual__1/train.promote"] == "admin"
    assert rows["nightly/mine/train.promote"] == "'=ada"
    assert rows["a/b/c"] == rows["nightly/scheduled__2/train.promote"] == ""


def test_who_started_a_run_is_told_to_operators_alone(done, ask_as, monkeypatch):
    """A worker may name any run in an act, so what Airflow says of it is for who may see all runs."""
    with acting("rival-dag/manual__1/act", door="task"):
        set_study(done.worker, study="mine", priority=7)
    asked = []

    def say(wanted):
        asked.extend(wanted)
        return {("rival-dag", "manual__1"): "carol"}

    monkeypatch.setattr("easeml_airflow.web.pages.audit.starters", say)
    for viewer in (ask_as("vic", rights=of_mine), ask_as("rita", "referee")):
        page, table = viewer.get("/audit").text, viewer.get("/audit.csv").text
        assert "started by hand" in Page(page).text
        assert "carol" not in page + table
    assert asked == []
    assert "started by carol" in ask_as("ada", "operator").page("/audit").text


def test_a_refused_study_is_told_with_its_reason(database, ask_as):
    add_study(database, "mine")
    with database.owner.begin() as tx:
        columns = "tenant_id, data_set_id, metric, config"
        more = f"SELECT 'other', 'REGISTERED', 'other', {columns} FROM work.studies"
        change(tx, f"INSERT INTO work.studies (name, state, request_key, {columns}) {more}")
        asked = "INSERT INTO work.requests (request_key, kind, study_id) SELECT 'k', 'seal', max(id) FROM work.studies"
        change(tx, asked)
    with database.referee.begin() as tx:
        change(tx, "INSERT INTO work.answers (request_id, refused, message) VALUES (1, true, '@too few rows')")
        change(tx, "UPDATE work.studies SET state = 'REFUSED' WHERE name = 'other'")
    operator = ask_as("ada", "operator")
    (row,) = operator.page("/audit?show=refused").table
    assert row["What"] == "Study refused lab / other"
    assert ("did not seal" in row["Details"], "“@too few rows”" in row["Details"]) == (True, True)
    assert [row["reason"] for row in table_of(operator.get("/audit.csv?show=refused"))] == ["'@too few rows"]
