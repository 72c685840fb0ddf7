"""The page: closed to everybody without a login, complete, escaped, and honest when the database is away."""

import asyncio
import json
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from fastapi import HTTPException

from easeml_airflow.web import app as web
from easeml_airflow.web.view import Row, columns, page_of, seconds_text
from easeml_core.errors import StoreUnavailableError

STUDY = {
    "tenant": "radiology",
    "study": "chest-xray",
    "state": "ACTIVE",
    "source": "sklearn:digits",
    "weight": 1.0,
    "budget_seconds": None,
    "candidates": 10,
    "trials": 6,
    "running": 1,
    "waiting": 0,
    "failed": 2,
    "cancelled": 0,
    "best_quality": 0.93928,
    "best_candidate": "forest",
    "device_seconds": 75.0,
    "verdict": "pass",
    "signal": 2,
    "signals": 3,
    "direct_signal": None,
    "drift": None,
    "teams": 1,
    "production_model_id": 41,
    "production_candidate": "forest",
    "open_alerts": 0,
    "alert_kind": None,
    "refusal": None,
    "next": "train: 1 candidates have not run on the present data",
}
FRESH = STUDY | {
    "tenant": "fraud-watch",
    "study": "cards",
    "trials": 0,
    "running": 0,
    "failed": 0,
    "best_quality": None,
    "device_seconds": 25.0,
    "verdict": None,
    "signal": None,
    "signals": None,
    "production_model_id": None,
    "production_candidate": None,
}


def closed():
    raise HTTPException(status_code=401, detail="log in first")


class Client:
    """Asks an application in this process."""

    def __init__(self, app):
        self.app = app

    def request(self, method, path):
        async def ask():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as asker:
                return await asker.request(method, path)

        return asyncio.run(ask())

    def get(self, path):
        return self.request("GET", path)


def client(overview, *, require_login=lambda: None):
    def get_overview():
        if isinstance(overview, Exception):
            raise overview
        return {"policy": "default", "tenants": overview}

    return Client(web.create_app(get_overview=get_overview, require_login=require_login))


def text_of(html):
    """What a person reads, without tags."""

    class Reader(HTMLParser):
        words: list[str]

        def handle_data(self, data):
            self.words.append(data)

    reader = Reader()
    reader.words = []
    reader.feed(html)
    return " ".join(" ".join(reader.words).split())


def test_every_route_is_closed_without_a_login():
    """Walks all routes there are, so that a new one cannot be forgotten."""
    closed_client = client([STUDY], require_login=closed)
    routes = closed_client.app.routes
    assert {route.path for route in routes} == {"/", "/static/{name}"}
    for route in routes:
        for method in route.methods:
            answer = closed_client.request(method, route.path.replace("{name}", "tokens.css"))
            assert answer.status_code in (401, 403), (method, route.path)
            assert "radiology" not in answer.text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"])
def test_there_are_no_schema_routes(path):
    assert client([STUDY]).get(path).status_code == 404


def test_the_page_tells_every_fact_of_a_study():
    page = client([STUDY, FRESH]).get("/")
    assert page.status_code == 200
    words = text_of(page.text)
    for fact in (
        "1 trial is training for 2 tenants.",
        "1 of 2 studies have a model in production.",
        "radiology chest-xray train: 1 candidates have not run on the present data",
        "0.9393 accuracy",
        "6 of 10",
        "75.0 s 75.0 %",
        "forest model 41",
        "Pass",
        "2 of 3",
        "none yet",
        "Nothing to do",
    ):
        assert fact in words
    assert 'aria-label="signal 2 of 3"' in page.text
    assert 'width="75.0%"' in page.text


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"state": "REGISTERED"}, "Being sealed"),
        ({"state": "PAUSED"}, "Paused"),
        ({"state": "ACTIVE", "trials": 8}, "Searched"),
        ({"state": "ACTIVE", "trials": 7}, "Searching"),
        ({"state": "REFUSED", "next": "register it again: too few rows"}, "chest-xray: the study was refused"),
        ({"open_alerts": 1, "alert_kind": "overfitting"}, "chest-xray: overfitting above its budget"),
        ({"open_alerts": 1, "alert_kind": "drift"}, "chest-xray: validation and test data differ"),
        ({"open_alerts": 2, "alert_kind": "new-test-set"}, "chest-xray: a new test set is needed"),
        ({"direct_signal": 1, "drift": "likely"}, "2 of 3 second sample 1, drift likely"),
        ({"signal": None, "teams": 2}, "Pass by team"),
        ({"running": 0}, "No trial is training now; 2 tenants registered."),
        ({"verdict": "fail"}, "Last verdicts 0 pass, 1 fail"),
        ({"verdict": "withheld"}, "Withheld"),
    ],
)
def test_states_are_words(changes, word):
    assert word in text_of(client([STUDY | changes, FRESH]).get("/").text)


def test_a_study_that_needs_a_person_says_why_once_and_stands_out():
    page = (
        client([STUDY | {"state": "REFUSED", "open_alerts": 1, "alert_kind": "drift", "next": "read the alert"}, FRESH])
        .get("/")
        .text
    )
    words = text_of(page)
    assert "1 thing needs a person" in words
    assert words.count("read the alert") == 1
    assert page.count('<tr class="hot">') == 1


def test_the_study_that_a_tasks_link_names_is_marked():
    both = client([STUDY, FRESH])
    assert both.get("/").text.count("aria-current") == 0
    page = both.get("/?study=cards").text
    assert page.count("aria-current") == 1
    assert "fraud-watch" in page[page.index("aria-current") :]
    assert "radiology" not in page[page.index("aria-current") :]
    strange = both.get("/?study=%22%3E%3Cscript%3Ealert(1)").text
    assert "aria-current" not in strange
    assert "alert(1)" not in strange


def test_an_empty_installation_says_what_to_do():
    words = text_of(client([]).get("/").text)
    assert "No study yet" in words
    assert "easeml_register_study" in words


def test_an_absent_database_is_told_and_not_hidden():
    page = client(StoreUnavailableError("the database at h cannot be reached; start it with `make up`")).get("/")
    assert page.status_code == 503
    assert "cannot be reached; start it with `make up`" in text_of(page.text)


def test_names_are_escaped():
    page = client([STUDY | {"tenant": "<script>alert(1)</script>", "next": '"><img src=x>'}]).get("/").text
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_nothing_comes_from_outside_and_nothing_runs_inline():
    page = client([STUDY]).get("/")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert " style=" not in page.text
    assert "<style" not in page.text
    assert " onclick" not in page.text
    assert page.text.count("<script") == 1
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for address in ("static/tokens.css", "static/page.css", "static/page.js", "static/mark.svg"):
        assert f'"{address}"' in page.text  # relative: right under every base path


@pytest.mark.parametrize(("name", "kind"), web.STATIC.items())
def test_static_files_are_served_with_their_kind(name, kind):
    answer = client([]).get(f"/static/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == kind
    assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("name", ["nothing.css", "..%2Fapp.py", "%2e%2e%2fapp.py", "../app.py"])
def test_no_other_file_is_served(name):
    assert client([]).get(f"/static/{name}").status_code == 404


def test_all_static_files_there_are_are_known():
    assert {path.name for path in (Path(web.__file__).parent / "static").iterdir()} == set(web.STATIC)


def test_fields_template_and_heads_agree():
    """Each column of the view has a head with its help, and a cell."""
    page = client([STUDY]).get("/").text
    assert len(columns()) == page.count('<th scope="col"') == page.count("<td") + 1
    for title, help_text in columns():
        assert f'title="{help_text}"' in page
        assert title in page
    template = (Path(web.__file__).parent / "pages" / "overview.html").read_text()
    for field in Row.__dataclass_fields__:
        assert f"row.{field}" in template


def test_the_refresh_is_a_setting(monkeypatch):
    monkeypatch.setenv("AIRFLOW__EASEML__PAGE_REFRESH_SECONDS", "7")
    assert 'data-refresh="7"' in client([]).get("/").text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (119.9, "119.9 s"), (120, "2.0 min"), (7199, "120.0 min"), (7200, "2.0 h")]
)
def test_device_time_has_a_unit(seconds, text):
    assert seconds_text(seconds) == text


def test_shares_add_up_and_nothing_used_is_no_division_by_zero():
    page = page_of({"tenants": [STUDY, FRESH]}, read_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert sum(row.share_percent for row in page.rows) == 100
    idle = page_of({"tenants": [FRESH | {"device_seconds": 0.0}]}, read_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert idle.rows[0].share_percent == 0


def test_the_real_overview_fits_the_page(store, make_study):
    from easeml_core.services.overview import overview

    make_study("cancer")
    facts = json.loads(json.dumps(overview(store)))
    words = text_of(client(facts["tenants"]).get("/").text)
    assert "lab cancer" in words
    assert set(facts["tenants"][0]) >= set(STUDY)
