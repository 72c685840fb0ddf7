"""Every page in a real browser, as each person: who gets in, what the browser says, and what axe finds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from looks import NARROW_DARK, NARROW_LIGHT, WIDE_DARK, WIDE_LIGHT, findings, overflow, wrong_with
from patience import SECONDS
from playwright.sync_api import expect

from easeml_airflow.web import app as web
from easeml_airflow.web.pages.study.trials_table import LONGEST_REASON
from easeml_airflow.web.server.auth import Viewer, closed
from easeml_airflow.web.server.site import Site
from easeml_core.entities import SealedSetPurpose
from easeml_core.store.tables import studies, test_sets

if TYPE_CHECKING:
    from fastapi.routing import APIRoute

EVERYBODY, DEVELOPERS, OPERATORS, REFEREES = (("admin", "op", "user", "viewer")[:count] for count in (4, 3, 2, 1))
LABELERS, NOBODY = OPERATORS, ()  # of this installation; nobody: a cookie is not enough, programs send a token


def below(place: str, who: tuple[str, ...], *, get: str = "", post: str = "") -> dict[str, tuple[str, ...]]:
    """Routes below a place and who may use them; a dot stands for the place itself."""
    named = [(method, part) for method, parts in (("GET", get), ("POST", post)) for part in parts.split()]
    return {f"{method} {place}{'' if part == '.' else part}": who for method, part in named}


STUDY = "/studies/{study}"
WHO_MAY = {
    **below("", EVERYBODY, get="/ /new /compute /audit /audit.csv /events /static/{name} /client/easeml_client.py"),
    **below("", EVERYBODY, get="/archived"),
    **below("", EVERYBODY, get="/of-run /of-task"),
    **below("/health", EVERYBODY, get="."),
    **below("/health", OPERATORS, get="/details"),
    **below("/new", EVERYBODY, get="/data /look /check /register"),
    **below("/new", DEVELOPERS, post="/data /look /check /register"),
    **below("/trials/{trial_id}", EVERYBODY, get="."),
    **below(STUDY, EVERYBODY, get=". /lifecycle /submissions /data /use /decisions/{trial_id}", post="/use"),
    **below(STUDY, DEVELOPERS, post="/pause /resume /candidates /submissions /trials/{trial_id}/cancel"),
    **below(STUDY, DEVELOPERS, post="/archive /restore /delete /candidates/withdraw"),
    **below(f"{STUDY}/use", DEVELOPERS, post="/feed /switch /apply"),
    **below(STUDY, OPERATORS, post="/weight /stops"),
    **below("/compute", OPERATORS, get="/backtest.json", post="/tenants/{tenant} /release /backtest"),
    **below("/labels", LABELERS, get=". /{study} /{study}/wanted.csv", post="/{study} /{study}/undo /{study}/file"),
    **below("/labels/{study}", REFEREES, post="/decide /again"),
    **below(STUDY, REFEREES, get="/gate /gate/ledger.csv /meter /meter/ledger.csv", post="/gate/accept /meter/accept"),
    **below(f"{STUDY}/gate", REFEREES, post="/promote /rollback /plan /retire /release"),
    **below(f"{STUDY}/data", REFEREES, post="/retire /release /validate"),
    **below(
        "/api/v1/studies/{study}", NOBODY, get="/refine /feeds /requests/{request_id}", post="/feed /refine /infer"
    ),
    **below("/api/v1/tenants/{tenant}/studies/{study}", NOBODY, post="."),
}
"""Who may use which route. A route that is not named here fails the test: say who may."""

NEEDS_NO_LOGIN = {"GET /health"}
HEALTH = (200, 503)
"""Statuses of the routes of health, by what is found."""

FIELDS = {"to": "on", "study": "fresh", "tenant": "lab", "label": "0"}
PAGES = [
    "/",
    "/new",
    "/compute",
    "/audit",
    "/of-run?dag=nightly&run=manual__1",
    "/labels",
    "/labels/digits",
    "/studies/digits",
    "/studies/cancer/decisions/{trial}",
]
PAGES += [f"/studies/cancer{part}" for part in ("", "/lifecycle", "/submissions", "/gate", "/meter", "/data", "/use")]
pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]  # whoever comes first waits for the stack


def routes() -> list[tuple[str, APIRoute]]:
    """Every method and route of the application that runs inside Airflow's API server."""
    nothing: Any = None
    site = Site(nothing, nothing, nothing, lambda: Viewer("nobody"))
    app = web.create_app(site, require_login=lambda: None, rights=closed)
    return [(method, route) for route in app.routes for method in sorted(route.methods)]


def asked(installation: Any, method: str, route: APIRoute) -> tuple[str, dict[str, Any]]:
    """An address of the route, and what a browser would send to it from a page of ours."""
    given = {"study": "cancer", "name": "page.js", "tenant": "lab", "trial_id": installation.trials["cancer"][0]}
    if "/labels/" in route.path:
        given["study"] = "digits"
    path = re.sub(r"{(\w+)}", lambda found: str(given.get(found[1], 1)), route.path)
    needed = "&".join(f"{field.alias}=1" for field in route.dependant.query_params if field.field_info.is_required())
    sent: dict[str, Any] = {"method": method, "headers": {"sec-fetch-site": "same-origin"}, "max_redirects": 0}
    if method == "POST":
        sent |= _form(route.dependant.body_params)
    return f"{installation.url}/easeml{path}?{needed}", sent


def _form(fields: list[Any]) -> dict[str, Any]:
    kinds = {field.name: str(field.field_info.annotation) for field in fields}
    uploads = [name for name, kind in kinds.items() if "UploadFile" in kind]
    if uploads:
        return {"multipart": {name: {"name": "x.csv", "mimeType": "text/csv", "buffer": b"a,b"} for name in uploads}}
    return {"form": {name: "1" for name in kinds} | FIELDS}


def test_every_route_is_refused_to_whoever_it_is_not_for(installation: Any, people: Any, browser: Any) -> None:
    found = {f"{method} {route.path}": asked(installation, method, route) for method, route in routes()}
    assert set(found) == set(WHO_MAY), "say in WHO_MAY who may use each route"
    stranger = browser.new_context()
    stranger.set_default_timeout(SECONDS * 1000)
    let_in = []
    for name, (address, sent) in found.items():
        status = stranger.request.fetch(address, **sent).status
        assert status in HEALTH if name in NEEDS_NO_LOGIN else status == 401, name
        for person in people.keys() - set(WHO_MAY[name]):
            status = people[person].request.fetch(address, **sent).status
            if status not in (401, 403):
                let_in.append((name, person, status))
    stranger.close()
    assert let_in == []


def test_every_page_opens_for_whoever_it_is_for(installation: Any, people: Any) -> None:
    with installation.referee.begin() as tx:
        of_cancer = test_sets.list_sets(tx, studies.get_study(tx, "cancer").id)
    sets = {found.purpose: found.id for found in of_cancer}
    for method, route in routes():
        name = f"{method} {route.path}"
        if method != "GET" or route.path == "/events":  # that one never ends
            continue
        address, sent = asked(installation, method, route)
        if route.path.endswith("ledger.csv"):
            draws = SealedSetPurpose.METER if "/meter/" in route.path else SealedSetPurpose.GATE
            address += f"&set={sets[draws]}"
        for person in WHO_MAY[name]:
            status = people[person].request.fetch(address, **sent).status
            if route.path == "/compute/backtest.json":
                assert status in (200, 404), person  # before the first backtest there is none
            elif route.path.startswith("/health"):
                assert status in HEALTH, (name, person)
            else:
                assert status in (200, 303), (name, person)


def test_no_change_is_taken_from_a_page_of_somebody_elses(installation: Any, people: Any) -> None:
    for method, route in routes():
        if method == "POST" and not route.path.startswith("/api/"):
            address, sent = asked(installation, method, route)
            foreign = sent | {"headers": {"sec-fetch-site": "cross-site"}}
            assert people["admin"].request.fetch(address, **foreign).status == 403, route.path


@pytest.mark.parametrize(
    "looks",
    [(WIDE_LIGHT, NARROW_DARK), pytest.param((WIDE_DARK, NARROW_LIGHT), marks=pytest.mark.nightly)],
    ids=["wide and light, narrow and dark", "the other way round"],
)
def test_no_page_has_a_serious_finding_or_a_complaint(open_as: Any, looks: Any) -> None:
    watched, wrong = open_as("admin", "/"), {}
    for path in PAGES:
        watched.page.emulate_media(color_scheme="light")
        watched.page.set_viewport_size({"width": 1280, "height": 900})
        watched.visit(path)
        if (found := (wrong_with(watched.page, looks), list(watched.complaints))) != ({}, []):
            wrong[path] = found
    assert wrong == {}


def test_the_reason_of_a_failure_wraps_in_its_table(open_as: Any) -> None:
    """As long as a reason may be; the columns after it stay in view."""
    page = open_as("admin", "/studies/cancer").page
    page.set_viewport_size({"width": 1300, "height": 900})
    table = page.locator("table.trials")
    reason = table.locator(".two small").first
    for text in ("the training function raised ValueError: no such depth " * 4, "/srv/models/" * 15):
        reason.evaluate("(small, text) => { small.textContent = text }", text[:LONGEST_REASON])
        assert overflow(page) <= 0
        assert table.evaluate("table => table.scrollWidth - table.parentElement.clientWidth") <= 0


def who_may(path: str) -> tuple[str, ...]:
    """Of a page by its address, from the table of routes."""
    route = re.sub("/(cancer|digits)", "/{study}", path.partition("?")[0]).replace("{trial}", "{trial_id}")
    return WHO_MAY[f"GET {route}"]


@pytest.mark.parametrize("person", EVERYBODY[1:])
def test_what_somebody_sees_has_no_complaint_and_nothing_of_the_referees(open_as: Any, person: str) -> None:
    watched = open_as(person, "/")
    for path in (path for path in PAGES if person in who_may(path)):
        watched.visit(path)
        assert watched.complaints == [], path
        tabs = " ".join(watched.page.locator("nav.tabs").all_inner_texts())
        assert not re.search(r"\bGate\b|\bMeter\b", tabs), path
        assert ("Labels" in tabs) == (person == "op"), path


@pytest.mark.parametrize(
    ("person", "path"), [("op", "/studies/digits"), ("user", "/studies/digits"), ("admin", "/labels/digits")]
)
def test_an_open_dialog_has_no_serious_finding(open_as: Any, person: str, path: str) -> None:
    page = open_as(person, path).page
    names = page.locator("[data-open]").evaluate_all("all => all.map(one => one.dataset.open)")
    assert names
    page.locator("details:has([data-open])").evaluate_all("all => all.forEach(one => { one.open = true })")
    for name in dict.fromkeys(names):
        page.locator(f"[data-open='{name}']").first.click()
        assert page.locator(f"#{name}").is_visible()
        assert findings(page) == [], name
        page.keyboard.press("Escape")


def test_nor_has_what_a_developer_sees_of_the_data(open_as: Any) -> None:
    watched = open_as("user", "/studies/cancer/data")
    assert "Data" in watched.page.locator("h1").inner_text()
    assert (findings(watched.page), overflow(watched.page), watched.complaints) == ([], 0, [])


def test_nor_has_an_error(open_as: Any) -> None:
    page = open_as("viewer", "/studies/nothing").page
    assert page.locator("h1").inner_text() == "Not here"
    assert (findings(page), overflow(page)) == ([], 0)


def test_nor_has_the_second_step_of_a_new_study_while_its_program_is_edited(open_as: Any) -> None:
    watched = open_as("user", "/new")
    page = watched.page
    page.fill("#n-tenant", "lab")
    page.fill("#n-study", "weights")
    table = "".join(f"{n},{n % 7},{'heavy' if n % 3 else 'light'}\n" for n in range(60))
    upload = {"name": "weights.csv", "mimeType": "text/csv", "buffer": f"size,age,kind\n{table}".encode()}
    page.set_input_files("#n-file", upload)
    page.get_by_role("button", name="Look at the data").click()
    program = page.locator("#d-program")
    expect(program).not_to_have_value("")
    assert findings(page) == []
    program.press("End")
    program.press_sequentially(" nonsense")
    expect(page.locator("#program-check .bad").first).to_be_visible()
    expect(page.locator("#program-check")).not_to_have_attribute("aria-busy", "true")
    assert findings(page) == []
    assert watched.complaints == []


def test_each_page_is_reached_by_keyboard_from_the_first(open_as: Any) -> None:
    page = open_as("admin", "/").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    page.wait_for_url("**#main")
    assert page.evaluate("document.activeElement.id") == "main"
