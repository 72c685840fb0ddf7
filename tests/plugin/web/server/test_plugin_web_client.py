"""The client for programs, against Airflow's real API server on a real port: token, feed, refine, infer."""

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from easeml_airflow.web import easeml_client
from easeml_airflow.web.easeml_client import EasemlError, Study, login
from easeml_core.data.sources.load import load_source
from easeml_core.services.referee.process import Referee

TABLE = load_source("sklearn:breast_cancer")


@pytest.fixture(scope="module")
def address(airflow_app):
    """Airflow's API server at work, with our plugin in it."""
    import uvicorn

    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    config = uvicorn.Config(airflow_app, port=port, log_level="warning", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=30)


@pytest.fixture(scope="module")
def password(address):
    """Of a user of Airflow's, as its own manager of accounts has made it up."""
    from airflow.api_fastapi.app import get_auth_manager

    get_auth_manager().init()  # writes them, where no server of this process has started before
    (file,) = Path(os.environ["AIRFLOW_HOME"]).glob("simple_auth_manager_passwords.json*")
    return json.loads(file.read_text()).__getitem__


def test_a_program_logs_in_feeds_refines_and_asks(address, password, connected, artifacts, make_study):
    make_study("cancer")
    study = Study(address, "cancer", token=login(address, "uma", password("uma")))
    pair = {"inputs": [float(value) + 0.5 for value in TABLE.inputs[0]], "label": "benign"}
    fed = study.feed([pair], request_key="file 17")
    assert fed == study.feed([pair], request_key="file 17")
    assert [(f["rows"], f["state"], f["fed_by"]) for f in study.feeds()] == [(1, "waiting", "uma")]

    asked = study.refine(apply=True)["request_id"]
    assert study.answer(asked) is None
    with pytest.raises(TimeoutError, match=f"request {asked} within 0 s"):
        study.wait(asked, patience_seconds=0, pause_seconds=0)
    Referee(connected.referee, artifacts).run_once()
    assert study.wait(asked)["version"] == 2

    (newest,) = study.rows(limit=1)
    assert newest["origin"] == "feed 1"
    assert study.refine(off=[newest["hash"]], reason="wrong label")["switched"] == 1
    assert [row["hash"] for row in study.rows(off=True)] == [newest["hash"]]

    named = [dict(zip(TABLE.feature_names, map(float, TABLE.inputs[1]), strict=True))]
    told = study.infer([*TABLE.inputs[:2].tolist()], model=1)
    assert told["labels"] == ["benign", "benign"]
    assert study.infer(named, model=1)["model_id"] == 1


def test_a_refusal_is_an_error_with_the_servers_words(address, password, connected, make_study):
    make_study("cancer")
    with pytest.raises(EasemlError) as nobody:
        login(address, "uma", "wrong")
    assert nobody.value.status == 401
    viewer = Study(address, "cancer", token=login(address, "vic", password("vic")))
    with pytest.raises(EasemlError, match="to trigger the DAG") as refused:
        viewer.feed([{"inputs": [0.0] * 30, "label": "benign"}])
    assert refused.value.status == 403
    with pytest.raises(EasemlError, match="no model in"):
        viewer.infer([[0.0] * 30])
    with pytest.raises(EasemlError) as strange:
        Study(address, "no/such study", token=login(address, "uma", password("uma"))).infer([[0.0]])
    assert strange.value.status in (403, 404)


def test_the_page_hands_out_this_very_file(ask_as):
    answer = ask_as("vic").get("/client/easeml_client.py")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/x-python")
    assert answer.text == Path(easeml_client.__file__).read_text()
    assert "import easeml_core" not in answer.text
