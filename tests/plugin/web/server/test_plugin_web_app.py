"""All pages at once: closed without a login, closed to other pages' forms, escaped, with nothing from outside."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from page_reader import Page

from easeml_airflow.web import app as web
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.errors import StoreUnavailableError
from easeml_core.services.selection.scheduler import suggest_trials

HERE = Path(web.__file__).parent


def closed():
    raise HTTPException(status_code=401, detail="log in first")


def away():
    raise StoreUnavailableError("the database at h cannot be reached; start it with `make up`")


def site(*roles, store=away):
    return Site(store, away, away, lambda: Viewer("ada", frozenset(roles)))


def asked(route):
    path = route.path.replace("{name}", "tokens.css").replace("{study}", "cancer")
    return re.sub(r"{[a-z_]+}", "1", path)


def test_every_route_is_closed_without_a_login(client_of):
    """Walks all routes there are, so that a new one cannot be forgotten."""
    client = client_of(site(Role.OPERATOR, Role.REFEREE), require_login=closed)
    assert len(client.app.routes) >= 3, "the pages, the static files, the events"
    for route in client.app.routes:
        if route.path == "/health":  # says one word
            continue
        for method in route.methods:
            assert client.request(method, asked(route)).status_code == 401, (method, route.path)


@pytest.mark.parametrize(
    ("role", "answers"),
    [(None, (403, 403)), (Role.OPERATOR, (403, 403)), (Role.LABELER, (403, 200)), (Role.REFEREE, (200, 200))],
)
def test_a_page_that_forgets_to_ask_for_the_role_opens_nothing_sealed(client_of, database, monkeypatch, role, answers):
    opened = []

    def routes(site):
        router = APIRouter()
        for path in ("/careless", "/labels/careless"):
            router.add_api_route(path, site.open_sealed, response_model=None)
        return router

    monkeypatch.setattr(web, "PAGES", (SimpleNamespace(routes=routes),))
    viewer = Viewer("ada", frozenset({role} - {None}), lambda _study, _tenant, *, write: True)
    careless = Site(lambda: database.worker, away, lambda: opened.append(1), lambda: viewer)
    client = client_of(careless, require_login=lambda: None)
    assert tuple(client.get(path).status_code for path in ("/careless", "/labels/careless")) == answers
    assert len(opened) == answers.count(200)


def test_whoever_airflow_lets_see_no_plugins_hears_what_to_ask_for(client_of):
    """So it is for Viewer and User of the FAB login before an administrator gives them the right."""

    def refused():
        raise HTTPException(status_code=403, detail="Forbidden")

    client = client_of(site(), require_login=refused)
    for path in ("/", "/studies/cancer"):
        answer = client.get(path)
        assert (answer.status_code, "to read Plugins" in answer.text) == (403, True)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://test"},
        {"sec-fetch-site": "none"},
        {"origin": "http://elsewhere"},
        {"origin": "null"},
        {"authorization": "Basic abc"},
    ],
)
def test_no_change_is_made_for_a_page_of_somebody_elses(client_of, headers):
    client = client_of(site(Role.OPERATOR, Role.REFEREE))
    routes = [(route, method) for route in client.app.routes for method in route.methods - {"GET", "HEAD"}]
    for route, method in routes:
        answer = client.request(method, asked(route), headers=headers)
        assert answer.status_code == 403, (method, route.path)
        assert "a page of Ease.ml" in answer.text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"])
def test_there_are_no_schema_routes(client_of, path):
    assert client_of(site()).get(path).status_code == 404


def test_an_absent_database_is_told_as_a_page_to_people_and_as_json_to_programs(client_of):
    client = client_of(site())
    page = client.get("/")
    assert page.status_code == 503
    assert "start it with `make up`" in Page(page.text).text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    told = client.get("/", headers={"authorization": "Bearer t"})
    assert (told.status_code, told.json()["error"]) == (503, Page(told.json()["error"]).text)


def test_what_is_not_there_is_a_page_and_echoes_nothing(client_of, database):
    client = client_of(site(store=lambda: database.worker))
    for path in ("/studies/<script>alert(1)</script>", "/nowhere"):
        page = client.get(path)
        assert page.status_code == 404
        assert "<script>alert" not in page.text
        assert "Not here" in Page(page.text).text


@pytest.mark.parametrize("path", sorted((HERE / "static").iterdir()), ids=lambda path: path.name)
def test_static_files_are_served_with_their_kind_and_name_no_other_host(client_of, path):
    answer = client_of(site()).get(f"/static/{path.name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == web.KINDS[path.suffix]
    assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("name", ["nothing.css", "..%2Fapp.py", "%2e%2e%2fapp.py", "../app.py"])
def test_no_other_file_is_served(client_of, name):
    assert client_of(site()).get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize("path", sorted(HERE.glob("*/**/*.html")), ids=lambda path: path.name)
def test_no_template_runs_something_inline_or_comes_from_outside(path):
    text = path.read_text()
    assert "<style" not in text
    assert not re.search(r"<script(?! src=\"\{\{ base \}\}/static/)", text)
    assert not re.search(r"\son[a-z]+=", text)
    assert "javascript:" not in text
    assert "http" not in text
    assert "| safe" not in text
    assert "|safe" not in text


def test_the_refresh_is_a_setting(client_of, monkeypatch):
    monkeypatch.setenv("AIRFLOW__EASEML__PAGE_REFRESH_SECONDS", "7")
    assert 'data-refresh="7"' in client_of(site()).get("/").text


def test_every_address_begins_with_the_path_that_airflow_is_served_under(
    client_of, database, artifacts, make_study, monkeypatch
):
    """Airflow mounts the application below its own base path; an address that forgets it leads nowhere."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow")
    study = make_study("cancer")
    (trial,) = suggest_trials(database.worker, count=1, request_key="nightly/run-1/suggest/-1").trials
    viewer = Viewer("ada", frozenset(Role), lambda _study, _tenant, *, write: True)
    client = client_of(Site(lambda: database.worker, lambda: artifacts, lambda: database.referee, lambda: viewer))
    outer = FastAPI(root_path="/airflow")
    outer.mount("/easeml", client.app)
    client.app = outer
    of_study = ("", "/lifecycle", "/submissions", "/gate", "/meter", "/data", "/use", f"/decisions/{trial.trial_id}")
    places = ["/", "/new", "/compute", "/audit", "/labels", "/archived", "/nothing"]
    found = set()
    for path in places + [f"/studies/{study}{part}" for part in of_study]:
        page = client.get(f"/airflow/easeml{path}")
        assert page.status_code == (404 if path == "/nothing" else 200), path
        addresses = re.findall(r'(?:href|src|action|data-events)="([^"#?][^"]*)"', page.text)
        assert len(addresses) > 5, path
        found |= {(path, a) for a in addresses if not a.startswith(("/airflow/easeml/", "data:"))}
    run, forced = "/airflow/dags/nightly/runs/run-1", "/airflow/dags/easeml_forced_promotion"  # Airflow's own pages
    of_airflow = (("", run), (of_study[-1], run), ("/gate", forced))
    assert found == {(f"/studies/{study}{part}", address) for part, address in of_airflow}


def test_health_says_one_word_without_a_login_and_more_to_operators(client_of):
    for store, status, word in ((away, 503, "failed"),):
        answer = client_of(site(store=store), require_login=closed).get("/health")
        assert (answer.status_code, answer.json()) == (status, {"status": word})
        assert client_of(site(store=store), require_login=closed).get("/health/details").status_code == 401
        assert client_of(site(store=store)).get("/health/details").status_code == 403
        found = client_of(site(Role.OPERATOR, store=store)).get("/health/details")
        assert (found.status_code, found.json()["checks"][0]["state"]) == (503, "failed")


def test_health_looks_once_in_a_while_however_often_it_is_asked(client_of, monkeypatch):
    """It needs no login: who asks again and again costs no look at the database each time."""
    monkeypatch.setattr("easeml_core.services.operations.checks.KEPT_SECONDS", 600.0)
    looks = []

    def counted():
        looks.append(1)
        away()

    client = client_of(site(store=counted), require_login=closed)
    assert client.get("/health").status_code == 503
    once = len(looks)
    assert [client.get("/health").status_code for _ in range(3)] == [503] * 3
    assert len(looks) == once > 0


def test_a_login_that_cannot_reach_its_database_is_a_page_that_says_so(client_of):
    """The login asks Airflow's database, on the same server; its driver's error was a bare 500."""
    from sqlalchemy.exc import OperationalError

    for error in (OperationalError("SELECT secret", {}, Exception("no route to host")), ConnectionRefusedError()):

        def asks_database(error=error):
            raise error

        answer = client_of(site(), require_login=asks_database).get("/")
        assert answer.status_code == 503
        assert "database of Airflow" in answer.text
        assert "secret" not in answer.text
