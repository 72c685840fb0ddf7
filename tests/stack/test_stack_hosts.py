"""A stack on Celery: what each host gets and what not, where its broker comes from, and what its object store keeps."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from moto.s3.models import s3_backends
from stack.account import prepare_accounts
from stack.environment import CONNECTION, airflow_environment
from stack.failures import CommandFailedError, StackError
from stack.hosts import ACCOUNTS, REFEREE, WORKERS, Hosts, broker_program
from stack.keys import load_keys
from stack.object_server import ObjectServer
from stack.places import Places
from stack.processes import run_command
from werkzeug.test import Client

from easeml_core.store.server.server import throwaway_folder

METADATA = "postgresql+psycopg2://airflow:meta-secret@127.0.0.1:5999/airflow"
WORKER = "postgresql+psycopg2://easeml_worker:worker-secret@127.0.0.1:5999/easeml"


@pytest.fixture
def places():
    with throwaway_folder() as folder:
        (folder / "dags").mkdir()
        places = Places.of(folder / "state", folder / "dags")
        places.make()
        yield places


@pytest.fixture
def hosts(places, monkeypatch, tmp_path):
    program = tmp_path / "valkey-server"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Hosts.prepare(places, load_keys(places.keys))


@pytest.fixture
def environment(hosts):
    """Of all of Airflow's components."""
    addresses = {"metadata": METADATA, "worker": WORKER, "artifacts": hosts.artifacts}
    return airflow_environment(hosts.places, hosts.keys, port=8123, **addresses) | hosts.shared()


def test_a_worker_gets_neither_airflows_database_nor_a_key_that_signs_tokens(hosts, environment):
    kept_back = (METADATA, hosts.keys.fernet, hosts.keys.jwt, hosts.keys.people_jwt)
    assert {METADATA, hosts.keys.fernet, hosts.keys.jwt} <= set(environment.values())  # the scheduler has them
    for component in hosts.workers(environment, None):
        assert not set(kept_back) & set(component.environment.values())
        assert "s3://easeml/artifacts" in component.environment[CONNECTION]
    assert environment["AIRFLOW__CELERY__RESULT_BACKEND"] == hosts.broker_url


def test_hosts_share_no_folder(hosts, environment):
    worker, logs, other, _ = (component.environment for component in hosts.workers(environment, None))
    own = [
        {name: value for name, value in given.items() if str(hosts.places.hosts) in value}
        for given in (worker, other, hosts.of_referee())
    ]
    assert all({"HOME", "TMPDIR", "EASEML_CACHE"} <= set(given) for given in own)
    assert len({path for given in own for path in given.values()}) == sum(map(len, own))
    assert worker == logs  # the log server is a part of its host
    for path in ("tmp", "cache"):
        assert (hosts.places.host(REFEREE) / path).stat().st_mode & 0o777 == 0o700


def test_each_worker_takes_from_its_queue_and_from_that_of_all(hosts, environment):
    commands = {c.name: c.command for c in hosts.workers(environment, None)}
    for name in WORKERS:
        assert f"{name},default" in commands[f"worker-{name}"]
        assert "--skip-serve-logs" in commands[f"worker-{name}"]  # that server would listen on all interfaces


def test_without_a_broker_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("stack.hosts.importlib.util.find_spec", lambda name: None)
    with pytest.raises(StackError, match="apt-get install valkey-server"):
        broker_program()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's launcher can step down to another account")
def test_no_host_reads_another_and_only_the_object_store_the_artifacts(places, hosts):
    (places.broker_settings).write_text("secret")
    accounts = prepare_accounts(places, (), hosts.needs()).hosts
    assert len({account.uid for account in accounts.values()}) == len(ACCOUNTS)
    folders = {name: places.host(name) / "tmp" for name in ACCOUNTS} | {"artifacts": places.artifacts}
    for name, account in accounts.items():
        allowed = {name, "artifacts"} if name == "store" else {name}
        for other, folder in folders.items():
            look = (sys.executable, "-c", f"import os; os.listdir({str(folder)!r})")
            if other in allowed:
                run_command("look", look, {}, places.logs, account)
            else:
                with pytest.raises(CommandFailedError, match=r"PermissionError|FileNotFoundError"):
                    run_command("look", look, {}, places.logs, account)


@pytest.fixture
def store(tmp_path):
    """Ask an object store over the folder, as it would be after a start."""
    folder = tmp_path / "artifacts"
    folder.mkdir()

    def ask(method, path, data=b"", key="right"):
        s3_backends.reset()
        client = Client(ObjectServer("easeml", "artifacts", folder, "right"))
        headers = {"Authorization": f"AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/s3/aws4_request"}
        answer = client.open(path, method=method, data=data, headers=headers, base_url="http://127.0.0.1:5000")
        return answer.status_code, answer.data

    return folder, ask


def test_what_the_object_store_has_taken_is_there_after_a_restart(store):
    folder, ask = store
    assert ask("PUT", "/easeml/artifacts/ab/abc", b"model")[0] == 200
    assert (folder / "ab" / "abc").read_bytes() == b"model"
    assert ask("GET", "/easeml/artifacts/ab/abc") == (200, b"model")
    assert ask("DELETE", "/easeml/artifacts/ab/abc")[0] == 204
    assert ask("GET", "/easeml/artifacts/ab/abc")[0] == 404
    assert not (folder / "ab" / "abc").exists()


def test_the_object_store_takes_one_key_and_writes_nowhere_else(store):
    folder, ask = store
    assert ask("PUT", "/easeml/artifacts/ab/abc", b"model", key="wrong")[0] == 403
    for path in ("/easeml/artifacts/../keys.json", "/easeml/artifacts/ab/%2e%2e/%2e%2e/x", "/easeml/other/ab"):
        ask("PUT", path, b"model")
    assert [path for path in folder.parent.rglob("*") if path.is_file()] == []


def test_the_object_store_runs_by_itself(tmp_path):
    """As a program whose folder is not on the path, where modules of the launcher would hide others."""
    program = Path(sys.modules["stack"].__path__[0]) / "object_server.py"
    ended = subprocess.run([sys.executable, "-P", program], env={}, capture_output=True, text=True, check=False)
    assert "not enough values to unpack" in ended.stderr
