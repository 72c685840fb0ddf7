"""Ways to run a DAG in this process; Airflow's home is made in ``tests/conftest.py``."""

import contextlib
import email
import json
import os
import socketserver
import threading
import warnings
from collections.abc import Iterator
from email.policy import default
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Any:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's own database, made once; its API server, which runs the tasks of ``dag.test()``, is imported too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries under Airflow warn about each other while they are imported
        import airflow.api_fastapi.app  # noqa: F401 - for its effects
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils.db import initdb

    initdb()
    DagBundlesManager().sync_bundles_to_db()


@pytest.fixture(scope="session")
def airflow_app(airflow_db: Any) -> Any:
    """Airflow's API server as an application, with our plugin in it; to make it takes four seconds."""
    from airflow.api_fastapi.app import create_app

    return create_app(apps="core")


@pytest.fixture
def run_dag(airflow_db: Any) -> Any:
    """Run a DAG in this process, deferrals included, and give its run."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    def run(dag: Any, **arguments: Any) -> Any:
        bag = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"], collect_dags=False)
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        return dag.test(**arguments)

    return run


@pytest.fixture(scope="session")
def dag_bag(root: Any) -> Any:
    """The repository's own DAGs."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(root / "dags"))


@pytest.fixture
def connected(database: Any, artifacts: Any, monkeypatch: Any) -> Any:
    """Airflow's connection ``easeml_default`` to this test's database, as ``easeml_worker``."""
    url = urlsplit(database.url("easeml_worker"))
    connection = {
        "conn_type": "easeml",
        "host": url.hostname,
        "port": url.port,
        "login": unquote(url.username),
        "password": unquote(url.password),
        "schema": url.path.lstrip("/"),
        "extra": {"artifacts": str(artifacts.root)},
    }
    monkeypatch.setenv("AIRFLOW_CONN_EASEML_DEFAULT", json.dumps(connection))
    return database


@contextlib.contextmanager
def at_work(connected: Any, artifacts: Any, **duties: Any) -> Iterator[Any]:
    """A referee with these duties, in a thread."""
    from easeml_core.services.referee.process import Referee

    stop = threading.Event()
    referee = Referee(connected.referee, artifacts, poll_seconds=0.2, **duties)
    worker = threading.Thread(target=referee.run, args=(stop,))
    worker.start()
    yield
    stop.set()
    worker.join(timeout=60)
    assert not worker.is_alive()


@pytest.fixture
def referee(connected: Any, artifacts: Any) -> Iterator[Any]:
    """A referee at work."""
    with at_work(connected, artifacts):
        yield


@pytest.fixture
def forcible_referee(connected: Any, artifacts: Any) -> Iterator[Any]:
    """A referee at work that was started with ``--allow-forced``."""
    with at_work(connected, artifacts, allow_forced=True):
        yield


class MailServer(socketserver.ThreadingTCPServer):
    """Keeps what is mailed."""

    mails: ClassVar[list[bytes]] = []


class MailDialogue(socketserver.StreamRequestHandler):
    """The server's side of SMTP, as far as one mail needs it."""

    def say(self, line: Any) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self) -> None:
        self.say("220 test")
        while line := self.rfile.readline().strip():
            word = line.split()[0].upper()
            if word in (b"EHLO", b"HELO"):
                self.say("250 test")
            elif word == b"DATA":
                self.say("354 go on")
                MailServer.mails.append(b"".join(iter(self.rfile.readline, b".\r\n")))
                self.say("250 kept")
            elif word == b"QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 fine")


class Mails:
    """What was mailed: whole with ``messages``, as (recipients, subject, text) when it is called."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def messages(self) -> Any:
        return [email.message_from_bytes(mail, policy=default) for mail in self.raw]

    def __call__(self) -> Any:
        return [(m["To"], m["Subject"], m.get_body(("html",)).get_content().strip()) for m in self.messages()]


@pytest.fixture
def mails(monkeypatch: Any) -> Iterator[Any]:
    """A mail server, and Airflow's connection to it."""
    MailServer.mails.clear()
    with MailServer(("127.0.0.1", 0), MailDialogue) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "gate@test", "retry_limit": 1}
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": server.server_address[1], "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        yield Mails(server.mails)
        server.shutdown()
