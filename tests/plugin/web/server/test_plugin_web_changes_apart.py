"""A check that a page forgets changes and tells nothing of another tenant: the database decides."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from page_client import OWN_PAGE, Client

from easeml_airflow.web import app as web
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.uploads import keep_upload
from easeml_core.services.trials.execution import run_trial
from easeml_core.store import logins
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.rows import change, rows, scalar
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.own_database

RIVAL, OWN = "zeppelin", "numerals"
CANDIDATES = [{"name": f"airship-{k}", "kind": "decision_tree", "parameters": {"max_depth": k}} for k in (1, 2, 3)]
OWN_CANDIDATES = [{"name": f"tree-{k}", "kind": "decision_tree", "parameters": {"max_depth": k}} for k in (1, 2, 3)]
SECRETS = ("airship", "gasbag", "malignant", "hindenburg")
"""Of the rival's rows and files alone."""

FOLLOWS = frozenset(("assessments", "study_changes", "catalogue_changes"))
"""Tables that a look at the overview brings up to date."""


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    """The files of each tenant by themselves."""
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def facts(database: Any, artifacts: Any, make_study: Any, tmp_path: Path) -> dict[str, str]:
    """Two tenants with a study each, a model each, trials that run or wait, an alert and an upload; who is mapped."""
    make_study(RIVAL, tenant="lab", candidates=CANDIDATES)
    make_study(OWN, tenant="mallory", source="sklearn:digits", candidates=OWN_CANDIDATES)
    given = suggest_trials(database.worker, count=6, request_key="night/1").trials
    first = {trial.study: trial.trial_id for trial in reversed(given)}
    for study, trial in first.items():
        run_trial(database.worker, artifacts, trial_id=trial, request_key=study)
    (tmp_path / "hindenburg.csv").write_text("gasbag,answer\n1,a\n2,b\n3,a\n4,b\n", encoding="utf-8")
    today = database_day(database)
    upload = keep_upload(artifacts, tmp_path / "hindenburg.csv", tenant="lab", file="hindenburg.csv", today=today)
    with database.owner.begin() as tx:
        logins.map_login(tx, "easeml_t_mallory", [studies.add_tenant(tx, name="mallory")])
        change(
            tx,
            "UPDATE work.trials t SET state = 'RUNNING', lease_until = now() - interval '1 s', attempt = 1, "
            "attempt_started_at = now(), started_at = now(), lease_key = 'k', executor = c.implementation "
            "FROM work.candidates c WHERE c.id = t.candidate_id AND t.id = (SELECT max(w.id) FROM work.trials w "
            "JOIN work.studies s ON s.id = w.study_id WHERE w.state = 'SUGGESTED' AND s.name = :name)",
            name=RIVAL,
        )
        of = partial(scalar, tx, id=scalar(tx, "SELECT id FROM work.studies WHERE name = :name", name=RIVAL))
        alert = of(
            "INSERT INTO work.alerts (study_id, kind, test_set_id, message) "
            "SELECT study_id, 'new-test-set', max(id), 'x' FROM work.test_sets WHERE study_id = :id GROUP BY study_id "
            "RETURNING id"
        )
        return {
            "model": str(of("SELECT max(id) FROM work.models WHERE study_id = :id")),
            "trial": str(of("SELECT max(id) FROM work.trials WHERE study_id = :id AND state = 'SUGGESTED'")),
            "test_set": str(of("SELECT max(id) FROM work.test_sets WHERE study_id = :id")),
            "alert": str(alert),
            "upload": f"csv:{upload}",
        }


def database_day(database: Any) -> Any:
    with database.worker.begin() as tx:
        return scalar(tx, "SELECT now()::date")


def of_mallory(_study: str, tenant: str, *, write: bool) -> bool:
    return tenant == "mallory"


@pytest.fixture
def asked_by(database: Any, artifacts: Any) -> Callable[..., Client]:
    """Somebody with these roles, on a server that holds the referee's address."""

    def make(name: str, *roles: str, rights: Any = of_mallory) -> Client:
        viewer = Viewer(name, frozenset(map(Role, roles)), rights)
        site = Site(lambda: database.worker, lambda: artifacts, lambda: database.referee, lambda: viewer)
        app = web.create_app(site, require_login=lambda: None, rights=lambda *, write: lambda: viewer.name)
        return Client(app)

    return make


def attacks(facts: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Every route that is not by GET, with what makes it change or tell something of the rival's."""
    key = {"request_key": "k"}
    draft = {"study": "mine", "tenant": "lab", "source": facts["upload"], "target": "answer", **key}
    draft |= {"task": "classification", "metric": "accuracy"}
    page = f"/studies/{RIVAL}"
    labels = {"test_set_id": facts["test_set"], "place": "0", "label": "1"}
    return {
        "/tenants/{tenant}": {"at": "/compute/tenants/lab", "data": {"weight": "9"}},
        "/release": {"at": "/compute/release"},
        "/backtest": {"at": "/compute/backtest"},
        "/gate/promote": {"data": {"model": facts["model"], "gate_request": "1", **key}},
        "/gate/rollback": {"data": {"model": facts["model"], "why": "x", **key}},
        "/gate/plan": {
            "data": {
                "name": "x",
                "condition": "n > 0.5 +/- 0.2",
                "reliability": "0.99",
                "steps": "2",
                "adaptivity": "full",
                "mode": "fp-free",
            }
        },
        "/gate/retire": {"data": {"test_set": facts["test_set"]}},
        "/gate/release": {"data": {"test_set": facts["test_set"]}},
        "/gate/accept": {"data": {"alert_id": facts["alert"]}},
        "/meter/accept": {"data": {"alert_id": facts["alert"]}},
        "/submissions": {"data": {"model": facts["model"], "gate": "true", **key}},
        "/data/retire": {"data": {"test_set": facts["test_set"]}},
        "/data/release": {"data": {"test_set": facts["test_set"]}},
        "/data/validate": {"data": {"test_set": facts["test_set"]}},
        "/new/data": {"at": "/new/data", "data": draft | {"points": facts["upload"]}, "may": 303},
        "/new/look": {"at": "/new/look", "data": draft},
        "/new/check": {"at": "/new/check", "data": draft},
        "/new/register": {"at": "/new/register", "data": draft},
        "/labels/{study}": {"at": f"/labels/{RIVAL}", "data": labels},
        "/labels/{study}/undo": {"at": f"/labels/{RIVAL}/undo", "data": labels},
        "/labels/{study}/file": {"at": f"/labels/{RIVAL}/file", "files": {"labels": ("l.csv", "place,label\n0,1\n")}},
        "/labels/{study}/decide": {"at": f"/labels/{RIVAL}/decide", "data": labels},
        "/labels/{study}/again": {"at": f"/labels/{RIVAL}/again", "data": labels},
        "/pause": {},
        "/resume": {},
        "/archive": {"data": {"why": "planted", "withdraw": "true"}},
        "/restore": {},
        "/delete": {"data": {"why": "planted"}},
        "/candidates/withdraw": {"data": {"name": "tree", "why": "planted"}},
        "/candidates": {"data": {"name": "planted", "kind": "decision_tree"}},
        "/trials/{trial_id}/cancel": {"at": f"{page}/trials/{facts['trial']}/cancel"},
        "/weight": {"data": {"weight": "9", "priority": "1"}},
        "/stops": {"data": {"budget_hours": "1"}},
        "/use": {"data": {"i0": "1"}},
        "/use/feed": {"data": {"i0": "1", "label": "0", **key}},
        "/use/switch": {"data": {"to": "off", "row": "0" * 64, **key}},
        "/use/apply": {"data": key},
        "/tenants/{tenant}/studies/{study}": {
            "at": "/api/v1/tenants/lab/studies/mine",
            "json": {"source": facts["upload"], "target": "answer", "task": "classification", "metric": "accuracy"},
        },
        "/feed": {"at": f"/api/v1{page}/feed", "json": {"pairs": [{"inputs": [0.0] * 30, "label": "0"}]}},
        "/refine": {"at": f"/api/v1{page}/refine", "json": {"apply": True}},
        "/infer": {"at": f"/api/v1{page}/infer", "json": {"inputs": [[0.0] * 30], "model": "best"}},
    }


def ask_all(client: Client, facts: dict[str, str]) -> dict[str, httpx.Response]:
    """The answer of each route, by its path."""
    found, left = {}, attacks(facts)
    for route in client.app.routes:
        if not getattr(route, "methods", set()) - {"GET", "HEAD"}:
            continue
        ending = max((e for e in left if route.path.endswith(e)), key=len)
        asked = left[ending]
        at = asked.get("at", route.path.replace("{study}", RIVAL))
        sent = {name: asked[name] for name in ("data", "files", "json") if name in asked}
        found[route.path] = client.request("POST", at, headers=OWN_PAGE, **sent)
    assert len(found) == len(left)
    return found


def rows_of_all(database: Any) -> dict[str, str]:
    """A hash of each table of the installation."""
    with database.owner.begin() as tx:
        tables = rows(
            tx,
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('work', 'sealed') ORDER BY 2",
        )
        return {
            found.tablename: scalar(
                tx, f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {found.schemaname}.{found.tablename} t"
            )
            for found in tables
            if found.tablename not in FOLLOWS
        }


def test_no_route_changes_or_tells_a_rivals_rows_although_no_page_checks(
    facts: dict[str, str], asked_by: Callable[..., Client], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for check in ("sees", "changes"):
        monkeypatch.setattr(Viewer, check, lambda *_: True)
    monkeypatch.setattr(Viewer, "require", lambda *_: None)
    before = rows_of_all(database)
    shown = ask_all(asked_by("mallory"), facts)
    after = rows_of_all(database)
    assert {table for table in before if before[table] != after[table]} == set()
    told = {path: answer.text for path, answer in shown.items() if any(s in answer.text for s in SECRETS)}
    assert {path: text[-300:] for path, text in told.items() if facts["upload"] not in text} == {}
    accepted = {path for path, answer in shown.items() if answer.status_code < 400}
    assert accepted <= {"/compute/release", "/compute/backtest", "/new/data"}  # nothing to release; names no row


def test_what_a_person_may_change_is_changed_in_their_name(
    facts: dict[str, str], asked_by: Callable[..., Client], database: Any
) -> None:
    """With the rights of their tenants: keys end with the role, so that no login can take them."""
    with database.owner.begin() as tx:
        last = scalar(tx, "SELECT max(id) FROM work.audit")
        of = partial(scalar, tx, id=scalar(tx, "SELECT id FROM work.studies WHERE name = :name", name=OWN))
        waits = of("SELECT max(id) FROM work.trials WHERE study_id = :id AND state = 'SUGGESTED'")
        model = of("SELECT max(id) FROM work.models WHERE study_id = :id")
    page, inputs = f"/studies/{OWN}", [0.0] * 64
    draft = {"source": "sklearn:wine", "task": "classification", "metric": "accuracy", "weight": "1"}
    draft |= {"gate_condition": "n > 0.5 +/- 0.3", "gate_reliability": "0.9", "gate_steps": "1"}
    sent: dict[str, dict[str, Any]] = {
        f"{page}/pause": {},
        f"{page}/resume": {},
        f"{page}/archive": {"data": {"why": "over"}},
        f"{page}/restore": {},
        f"{page}/candidates": {"data": {"name": "more", "kind": "decision_tree"}},
        f"{page}/trials/{waits}/cancel": {"data": {"reason": "no use"}},
        f"{page}/submissions": {"data": {"model": str(model), "gate": "true", "request_key": "s"}},
        f"/api/v1{page}/feed": {"json": {"pairs": [{"inputs": inputs, "label": "1"}], "request_key": "f"}},
        f"/api/v1{page}/refine": {"json": {"apply": True, "request_key": "a"}},
        "/new/register": {"data": draft | {"study": "second", "tenant": "mallory", "request_key": "r"}},
    }
    mallory = asked_by("mallory")
    answers = {at: mallory.post(at, **asked) for at, asked in sent.items()}
    assert {at: a.text[-400:] for at, a in answers.items() if a.status_code >= 400} == {}
    fresh = {"data": draft | {"study": "first", "tenant": "newcomers", "request_key": "n"}}
    anyone = asked_by("zoe", rights=lambda _study, tenant, *, write: tenant == "newcomers")
    assert anyone.post("/new/register", **fresh).status_code == 303
    assert "newcomers" in anyone.get("/studies/first").text
    with database.owner.begin() as tx:
        done = rows(tx, "SELECT act, who, door, role FROM work.audit WHERE id > :last", last=last)
        keys = rows(tx, "SELECT request_key, requested_by FROM work.requests WHERE request_key LIKE '%/mallory/%'")
        assert scalar(tx, "SELECT state FROM work.trials WHERE id = :id", id=waits) == "CANCELLED"
    acts = {"study paused", "study resumed", "study archived", "study restored", "trial cancelled", "candidate added"}
    assert acts <= {r.act for r in done}, done
    assert {(r.who, r.door) for r in done} == {("mallory", "page"), ("mallory", "service"), ("zoe", "page")}
    assert {r.requested_by for r in keys} == {"easeml_person"}
    assert all(r.request_key.endswith("@easeml_person") for r in keys)


def test_who_may_only_look_asks_a_model_and_changes_nothing(
    facts: dict[str, str], asked_by: Callable[..., Client], database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = asked_by("rita", rights=lambda _study, tenant, *, write: tenant == "mallory" and not write)
    asked = {"inputs": [[0.0] * 64], "model": "best"}
    assert reader.post(f"/api/v1/studies/{OWN}/infer", json=asked).status_code == 200
    assert reader.post(f"/studies/{OWN}/pause").status_code == 403
    monkeypatch.setattr(Viewer, "changes", lambda *_: True)
    before = rows_of_all(database)
    for what in ("pause", "archive", "delete", "candidates", "candidates/withdraw", "submissions", "use/apply"):
        given = {"name": "planted", "kind": "decision_tree", "model": "1", "gate": "true", "request_key": "k"}
        given |= {"why": "planted", "withdraw": "true"}
        reader.post(f"/studies/{OWN}/{what}", data=given)
    assert rows_of_all(database) == before
