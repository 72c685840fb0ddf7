"""A filter that a page forgets shows nothing of another tenant: the database decides, where tenants have logins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from page_reader import Page

from easeml_airflow.web.server.auth import Viewer
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import run_trial
from easeml_core.store import logins
from easeml_core.store.rows import change, rows
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.own_database

RIVAL, OWN = "zeppelin", "numerals"
CANDIDATES = [{"name": f"tree-{k}", "kind": "decision_tree", "parameters": {"max_depth": k}} for k in (1, 2, 3)]
ELSEWHERE = ("/events", "/static/{name}", "/client/easeml_client.py", "/labels", "/health")
"""Routes without rows of a tenant, of labelers, and the stream, whose topics have a test below."""


@pytest.fixture
def trial_of(database: Any, artifacts: Any, make_study: Any) -> dict[str, int]:
    """Two tenants with a study each, a trial that has run, and others under way; mallory's login is mapped."""
    make_study(RIVAL, tenant="lab", candidates=CANDIDATES)
    make_study(OWN, tenant="mallory", source="sklearn:digits", candidates=CANDIDATES)
    given = suggest_trials(database.worker, count=6, request_key="night/1").trials
    first = {trial.study: trial.trial_id for trial in reversed(given)}
    for study, trial in first.items():
        run_trial(database.worker, artifacts, trial_id=trial, request_key=study)
    with database.owner.begin() as tx:
        logins.map_login(tx, "easeml_t_mallory", [studies.add_tenant(tx, name="mallory")])
    return first


def routes(client: Any, *, study: str, trial: int) -> dict[str, str]:
    """Every page's route by GET, as an address about this study and trial."""
    found = {}
    for route in client.app.routes:
        path = getattr(route, "path", "")
        if "GET" in getattr(route, "methods", ()) and not path.startswith(ELSEWHERE):
            found[path] = path.replace("{study}", study).replace("{trial_id}", str(trial)).replace("{request_id}", "1")
    assert len(found) > 15
    return found


def of_mallory(_study: str, tenant: str, *, write: bool) -> bool:
    return tenant == "mallory"


def test_no_page_shows_a_rival_although_it_filters_nothing(
    trial_of: dict[str, int],
    ask_as: Callable[..., Any],
    database: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Viewer, "sees", lambda *_: True)
    monkeypatch.setattr(Viewer, "changes", lambda *_: True)
    mallory = ask_as("mallory", rights=of_mallory)
    addresses = routes(mallory, study=RIVAL, trial=trial_of[RIVAL])
    shown = {path: mallory.get(address) for path, address in addresses.items()}
    assert {path: Page(page.text).text[-400:] for path, page in shown.items() if page.status_code >= 500} == {}
    about = {path for path in addresses if "{study}" in path or "{trial_id}" in path}
    assert {path for path in about if shown[path].status_code == 200} == set()
    assert {path for path in addresses.keys() - about if RIVAL in shown[path].text} == set()
    with database.owner.begin() as tx:
        change(tx, "DELETE FROM work.tenant_logins")  # one team: the filter alone keeps them apart
    unfiltered = {path for path, address in addresses.items() if RIVAL in mallory.get(address).text}
    assert {"/", "/studies/{study}", "/studies/{study}/decisions/{trial_id}"} <= unfiltered


def test_the_own_pages_are_the_same_and_an_operator_sees_all(
    trial_of: dict[str, int], ask_as: Callable[..., Any], database: Any
) -> None:
    mallory = ask_as("mallory", rights=of_mallory)
    addresses = routes(mallory, study=OWN, trial=trial_of[OWN])
    apart = {path: mallory.get(address) for path, address in addresses.items()}
    assert {path: Page(page.text).text for path, page in apart.items() if page.status_code >= 500} == {}
    assert RIVAL in ask_as("ann", "operator").get("/").text
    with database.owner.begin() as tx:
        change(tx, "DELETE FROM work.tenant_logins")
    before = {path: mallory.get(address).status_code for path, address in addresses.items()}
    assert {path: page.status_code for path, page in apart.items()} == before


def test_a_person_of_two_tenants_sees_both(trial_of: dict[str, int], ask_as: Callable[..., Any], database: Any) -> None:
    page = ask_as("zoe", rights=lambda _study, tenant, *, write: tenant in ("mallory", "lab")).get("/")
    assert RIVAL in page.text
    assert OWN in page.text
    with database.worker.begin() as tx:  # what a page has looked for is over with its transaction
        assert len(rows(tx, "SELECT 1 FROM work.studies")) == 2
