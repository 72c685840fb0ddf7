"""Feeding, refining and inferring as operators, and as a service inside Airflow's real API server."""

import asyncio
import json
import threading
import time

import httpx
import numpy as np
import pytest
from task_doubles import context

from easeml_airflow import operators
from easeml_airflow.version_compat import AirflowFailException
from easeml_airflow.web.server import service
from easeml_airflow.web.server.auth import closed
from easeml_airflow.web.server.request_limits import Turns
from easeml_core.data.sources.load import load_source
from easeml_core.errors import ConcurrentUpdateError
from easeml_core.formats.encoding import to_json
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.store.tables.test_sets import example_hashes

TABLE = load_source("sklearn:breast_cancer")
TREE = [{"name": "tree", "kind": "decision_tree"}]


def pairs(count, seed=1):
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(TABLE.labels), count, replace=False)
    moved = (TABLE.inputs[chosen] * rng.uniform(0.99, 1.01, (count, 30))).astype(np.float32)
    names = ("malignant", "benign")
    labels = [names[label] for label in TABLE.labels[chosen]]
    return moved, [{"inputs": row.tolist(), "label": label} for row, label in zip(moved, labels, strict=True)]


@pytest.fixture
def study(connected, make_study):
    return make_study("cancer", candidates=TREE)


def refine(referee, artifacts, number, **given):
    """Run the operator up to its wait, let the referee answer, and let it end."""
    operator = operators.RefineOperator(task_id="refine", study="cancer", **given)
    request_id = operator.file_request(operator.hook.get_store(), f"key/{number}")
    Referee(referee, artifacts).run_once()
    return operator._finish(context(f"t{number}"), to_json(answer_of(referee, request_id)))


def test_pairs_are_fed_and_taken_in_by_operators(study, connected, artifacts, tmp_path):
    inputs, given = pairs(12)
    assert operators.FedStudiesOperator(task_id="f").execute(context()) == []
    fed = operators.FeedOperator(task_id="feed", study="cancer", pairs=given[:6])
    first = fed.execute(context("t1"))
    assert first == fed.execute(context("t1"))  # a retry
    assert first["rows"] == 6
    for name, values in (("inputs", inputs[6:]), ("targets", np.array([p["label"] for p in given[6:]]))):
        np.save(tmp_path / f"{name}.npy", values)
    second = operators.FeedOperator(task_id="feed", study="cancer", path=str(tmp_path)).execute(context("t2"))
    assert second["feed_id"] != first["feed_id"]
    assert operators.FedStudiesOperator(task_id="f").execute(context()) == ["cancer"]
    facts = refine(connected.referee, artifacts, 1)
    assert facts["version"] == 2
    assert operators.FedStudiesOperator(task_id="f").execute(context()) == ["cancer"]  # to be trained on version 2
    off = [example.hex() for example in example_hashes(inputs[:2], TABLE.feature_names)]
    after = refine(connected.referee, artifacts, 2, off=off, reason="they look wrong")
    assert after["train_rows"] == facts["train_rows"] - 2
    on = refine(connected.referee, artifacts, 3, on=json.dumps(off[:1]), reason="this one is right")
    assert on["train_rows"] == facts["train_rows"] - 1
    assert refine(connected.referee, artifacts, 4)["version"] is None
    wrong = [{"inputs": [0.0] * 30, "label": "fine"}]
    with pytest.raises(AirflowFailException, match="is no class of the study"):
        operators.FeedOperator(task_id="feed", study="cancer", pairs=wrong).execute(context("t3"))


def test_a_file_is_answered_into_a_file(study, connected, artifacts, tmp_path):
    baseline = "SELECT min(id) FROM work.models"
    with connected.worker.begin() as tx:
        model = tx.exec_driver_sql(baseline).scalar()
    np.save(tmp_path / "rows.npy", TABLE.inputs[:3])
    asked = {"study": "cancer", "path": str(tmp_path / "rows.npy"), "model": str(model)}
    told = operators.InferOperator(task_id="i", answers=str(tmp_path / "a.csv"), **asked).execute(context())
    assert (told["rows"], told["answers"]) == (3, str(tmp_path / "a.csv"))
    assert "labels" not in told
    assert (tmp_path / "a.csv").read_text() == "answer\nbenign\nbenign\nbenign\n"
    with pytest.raises(AirflowFailException, match="probabilities must be True or False"):
        operators.InferOperator(task_id="i", probabilities="yes", **asked).execute(context())


# -- the service ------------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(airflow_app, connected):
    """Ask the service as a person of this role, by token or by cookie, or as nobody."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    def request(method, path, body=None, *, role="user", by="token", headers=None, content=None):
        sent = dict(headers or {})
        if role is not None:
            token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=role[0], role=role))
            sent |= {"Authorization": f"Bearer {token}"} if by == "token" else {"Cookie": f"_token={token}"}

        async def go():
            transport = httpx.ASGITransport(app=airflow_app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                given = {"json": body} if content is None else {"content": content}
                return await client.request(
                    method, f"/easeml/api/v1/studies/{path}", headers=sent, **(given if method == "POST" else {})
                )

        return asyncio.run(go())

    return request


ROUTES = [
    ("POST", "cancer/feed"),
    ("POST", "cancer/refine"),
    ("POST", "cancer/infer"),
    ("GET", "cancer/refine"),
    ("GET", "cancer/feeds"),
    ("GET", "cancer/requests/1"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_gets_in_without_a_token(ask, method, path):
    assert ask(method, path, {}, role=None).status_code == 401
    by_cookie = ask(method, path, {}, role="admin", by="cookie")  # another page can make a browser send it
    assert by_cookie.status_code == 401
    assert "Authorization: Bearer TOKEN" in by_cookie.json()["error"]
    wrong = ask(method, path, {}, role=None, headers={"Authorization": "Bearer not.a.token"})
    assert wrong.status_code in (401, 403)


@pytest.mark.parametrize(("method", "path"), ROUTES[:2])
def test_who_may_only_look_may_not_write(ask, method, path):
    answer = ask(method, path, {}, role="viewer")
    assert answer.status_code == 403
    assert "the right to trigger the DAG 'easeml_feed_retraining'" in answer.json()["error"]


def test_the_right_is_on_the_dag_of_the_study(ask, monkeypatch):
    from airflow.api_fastapi.app import get_auth_manager

    seen = []
    monkeypatch.setenv("AIRFLOW__EASEML__API_DAG", "easeml_of_{study}")
    monkeypatch.setattr(
        type(get_auth_manager()), "is_authorized_dag", lambda self, **asked: seen.append(asked) or False
    )
    assert ask("POST", "cancer/feed", {}).status_code == 403
    assert ask("GET", "vision/feeds").status_code == 403
    assert [(a["method"], a["details"].id, str(a["access_entity"].value)) for a in seen] == [
        ("POST", "easeml_of_cancer", "RUN"),
        ("GET", "easeml_of_vision", "RUN"),
    ]


def test_feed_refine_and_infer_over_http(ask, study, connected, artifacts):
    inputs, given = pairs(5)
    fed = ask("POST", "cancer/feed", {"pairs": given, "request_key": "mine"})
    assert fed.status_code == 200, fed.text
    assert fed.json() == ask("POST", "cancer/feed", {"pairs": given, "request_key": "mine"}).json()
    (entry,) = ask("GET", "cancer/feeds", role="viewer").json()["feeds"]
    assert (entry["fed_by"], entry["state"], entry["rows"]) == ("u", "waiting", 5)
    asked = ask("POST", "cancer/refine", {"apply": True}).json()
    waiting = f"cancer/requests/{asked['request_id']}"
    assert ask("GET", waiting).json() == {"answered": False, "answer": None}
    Referee(connected.referee, artifacts).run_once()
    assert ask("GET", waiting).json()["answer"]["version"] == 2
    rows = ask("GET", "cancer/refine?limit=2").json()
    assert [row["origin"] for row in rows["pairs"]] == ["feed 1", "feed 1"]
    off = [row["hash"] for row in rows["pairs"]]
    done = ask("POST", "cancer/refine", {"off": off, "reason": "they look wrong"}).json()
    assert done == {"study": "cancer", "switched": 2, "request_id": None}
    assert len(ask("GET", "cancer/refine?off=true").json()["pairs"]) == 2
    baseline = {"inputs": inputs[:2].tolist(), "model": 1}
    told = ask("POST", "cancer/infer", baseline, role="viewer").json()
    assert told["labels"] == ["benign", "benign"]
    assert told["model_id"] == 1
    assert told["latency"]["total_ms"] > 0


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("cancer/feed", {"pairs": []}, 400, "pairs must be a list of 1 to 10,000 entries"),
        ("cancer/feed", {"pairs": [1]}, 400, 'must be a list of {"inputs": ..., "label": ...}'),
        ("cancer/feed", {"pairs": [{"inputs": [0.0] * 30, "label": "x"}]}, 400, "is no class of the study"),
        ("cancer/feed", {"pairs": [{}] * 10_001}, 400, "got '10001 entries'"),
        ("cancer/feed", {"path": "/etc/passwd"}, 400, "body has no setting 'path'"),
        ("cancer/feed", {"pairs": [1], "request_key": 7}, 400, "request_key must be at most 200"),
        ("cancer/infer", {"inputs": [[0.0]]}, 409, "has no model in production yet"),
        ("cancer/infer", {"inputs": [[0.0]], "model": 1}, 400, "inputs must have shape"),
        ("cancer/infer", {"inputs": [[0.0]], "probabilities": 1}, 400, "probabilities must be true or false"),
        ("cancer/refine", {"off": ["0123456789ab"], "reason": "x"}, 404, "there is no row in the training part"),
        ("cancer/refine", {"off": ["0123456789ab"]}, 400, "reason must be 1 to 500 characters"),
        ("cancer/refine", {"off": [{"a": 1}], "reason": "x"}, 400, "8 to 64 hexadecimal digits"),
        ("fool/feed", {"pairs": [1]}, 404, "there is no study 'fool'"),
    ],
)
def test_what_cannot_be_is_told_in_json(ask, study, path, body, status, words):
    answer = ask("POST", path, body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert answer.headers["cache-control"] == "no-store"


def test_programs_learn_no_names_of_other_studies_and_tenants(ask, study, monkeypatch):
    missing = ask("POST", "fool/feed", {"pairs": [1]})
    assert missing.status_code == 404
    assert "cancer" not in missing.text
    monkeypatch.setenv("AIRFLOW__EASEML__API_DAG", "of_{tenant}")
    refused = [ask("POST", f"{name}/feed", {"pairs": [1]}, role="viewer") for name in ("cancer", "fool")]
    assert [answer.status_code for answer in refused] == [403, 403]
    assert refused[0].text.replace("cancer", "fool") == refused[1].text


def test_bodies_are_bounded_and_json(ask, study, monkeypatch):
    monkeypatch.setattr(service, "MOST_BYTES", 1000)
    large = ask("POST", "cancer/feed", {"pairs": ["x" * 2000]})
    assert (large.status_code, large.json()["error"][:32]) == (413, "the body may have at most 1,000 ")
    json_kind = {"Content-Type": "application/json"}
    for content, status in ((b"{", 400), (b"[]", 400), (b"[" * 900, 400), (b'{"pairs": 1e999999}', 400), (b"", 400)):
        assert ask("POST", "cancer/feed", content=content, headers=json_kind).status_code == status
    form = ask("POST", "cancer/feed", content=b"pairs=1", headers={"Content-Type": "text/plain"})
    assert form.status_code == 415
    assert ask("GET", "cancer/feed").status_code == 405


def test_a_table_that_is_too_large_for_the_server_is_left_to_the_command_line(ask, study, monkeypatch):
    monkeypatch.setattr(service, "MOST_CELLS", 100)
    answer = ask("GET", "cancer/refine")
    assert answer.status_code == 409
    assert "use `easeml refine` on the command line" in answer.json()["error"]


def test_nobody_waits_for_ever_for_a_turn():
    turns = Turns(at_once=1, patience_seconds=0.01)
    kept = service.Service(lambda: None, lambda: None, turns)
    with turns.taken("vision"), pytest.raises(ConcurrentUpdateError, match="other requests are worked on; try again"):
        kept.rows("cancer", off=False, limit=1)


def test_one_study_takes_neither_all_turns_nor_all_that_wait():
    """Each that waits holds a thread of Airflow's own server."""
    turns, held, told = Turns(at_once=2, waiting=4, patience_seconds=60), threading.Event(), []

    def work(name):
        try:
            with turns.taken(name):
                told.append(name)
                held.wait(60)
        except ConcurrentUpdateError:
            told.append("refused")

    crowd = [threading.Thread(target=work, args=("hostile",)) for _ in range(20)]
    for one in crowd:
        one.start()
    while len(told) < 18:  # one works, two wait
        time.sleep(0.01)
    assert sorted(told) == ["hostile", *["refused"] * 17]
    with turns.taken("cancer"):
        pass
    held.set()
    for one in crowd:
        one.join()
    assert told.count("hostile") == 3
    with turns.taken("hostile"):
        pass


@pytest.mark.parametrize("model", ["9" * 5000, "9" * 19])
def test_an_id_of_many_digits_is_none(ask, study, model):
    answer = ask("POST", "cancer/infer", {"inputs": [[0.0] * 30], "model": model})
    assert (answer.status_code, "or the id of a model" in answer.json()["error"]) == (400, True)


def test_a_name_that_no_database_can_look_for_is_no_study(ask, study):
    assert ask("GET", "a%00b/feeds").status_code == 404


def test_a_reason_is_text(ask, study):
    row = ask("GET", "cancer/refine?limit=1").json()["pairs"][0]["hash"]
    answer = ask("POST", "cancer/refine", {"off": [row], "reason": "\0"})
    assert (answer.status_code, "characters of text" in answer.json()["error"]) == (400, True)


def test_answers_that_are_too_large_for_the_server_are_refused(ask, study, monkeypatch):
    monkeypatch.setattr(service, "MOST_ANSWERS", 5)
    asked = {"inputs": [[0.0] * 30] * 3, "model": 1}
    assert ask("POST", "cancer/infer", asked).json()["labels"] == ["benign"] * 3
    answer = ask("POST", "cancer/infer", asked | {"probabilities": True})
    assert answer.status_code == 400
    assert "the answer would have 6 numbers, more than 5; send fewer rows at once" in answer.json()["error"]


def test_where_airflow_has_no_rights_the_service_is_closed():
    from fastapi import HTTPException

    with pytest.raises(HTTPException) as caught:
        closed(write=False)()
    assert caught.value.status_code == 403
