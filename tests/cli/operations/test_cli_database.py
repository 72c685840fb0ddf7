"""Where commands find their database: an address, the environment, the embedded server, or a clear error."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.store import schema
from easeml_core.store.server.server import throwaway_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEEDING = [("status",), ("trial", "cancel", "1"), ("referee", "--once"), ("db", "upgrade")]
"""Of each role one; every command is asked in test_cli_exit_codes.py."""

AWAY = "postgresql+psycopg2://easeml_worker:hunter2@127.0.0.1:9/easeml"


@pytest.mark.parametrize("asked", NEEDING, ids=" ".join)
def test_without_any_database_the_error_says_what_to_do(asked: tuple[str, ...], run: Any) -> None:
    answer = run(*asked)
    assert (answer.status, answer.out) == (2, "")
    for word in ("EASEML_DATABASE_URL is not set", "`make up` or `easeml db start`"):
        assert word in answer.err


@pytest.mark.parametrize("asked", NEEDING, ids=" ".join)
def test_a_database_that_cannot_be_reached_is_named_without_its_password(asked: tuple[str, ...], run: Any) -> None:
    answer = run(*asked, "--database", AWAY)
    assert (answer.status, answer.out) == (2, "")
    assert "postgresql+psycopg2://easeml_worker:***@127.0.0.1:9/easeml cannot be reached" in answer.err
    assert "`make up` or `easeml db start`, or correct" in answer.err
    assert "hunter2" not in answer.err
    assert "Traceback" not in answer.err


def test_the_address_may_come_from_the_environment(run: Any, database: Any) -> None:
    assert run("status", "--json", EASEML_DATABASE_URL=database.url("easeml_worker")).json["tenants"] == []
    answer = run("status", "--database", AWAY, EASEML_DATABASE_URL=database.url("easeml_worker"))
    assert answer.status == 2  # what is given on the line comes first


@pytest.mark.parametrize("address", ["here", "postgresql://127.0.0.1:port/easeml"])
def test_an_address_that_is_none_is_reported(address: str, run: Any) -> None:
    answer = run("status", "--database", address)
    assert answer.status == 2
    assert "postgresql+psycopg2://role:password@host:port/database" in answer.err


def test_a_wrong_password_is_reported_and_not_printed(run: Any, database: Any) -> None:
    address = database.url("easeml_worker")
    secret = database.server.secrets["easeml_worker"]
    answer = run("status", "--database", address.replace(secret, "hunter2"))
    assert answer.status == 2
    assert "password authentication failed" in answer.err
    assert "correct the password" in answer.err
    assert "make up" not in answer.err
    assert "hunter2" not in answer.err


def test_a_schema_that_is_missing_or_old_is_reported_with_the_remedy(run: Any, server: Any) -> None:
    server.create_database_from_template("empty_cli", "template0")
    try:
        answer = run("status", "--json", "--database", server.url("easeml_worker", "empty_cli"))
        assert answer.refusal == "SchemaVersionError"
        assert "schema none," in answer.err
        assert f"needs {schema.REVISION}; run `easeml db upgrade`" in answer.err
        upgrade = ("db", "upgrade", "--database", server.url("easeml_owner", "empty_cli"))
        assert run(*upgrade).text == f"schema {schema.REVISION}"
        assert run(*upgrade, "--json").json == {"schema": schema.REVISION}  # harmless when it is there
        assert run("status", "--json", "--database", server.url("easeml_worker", "empty_cli")).status == 0
    finally:
        server.drop_database("empty_cli")


def test_a_worker_may_not_upgrade_nor_be_the_referee(run: Any, database: Any, make_study: Any) -> None:
    for asked in (("db", "upgrade"), ("referee", "--once")):
        assert run(*asked, "--json", "--database", database.url("easeml_worker")).refusal == "WrongRoleError"


def test_the_url_of_a_server_that_never_ran_is_an_error(run: Any) -> None:
    answer = run("db", "url")
    assert (answer.status, "`easeml db start`" in answer.err) == (2, True)


class Served:
    """``easeml db start`` in a separate process and folder."""

    def __init__(self, folder: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EASEML")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "easeml_core.cli", "db", "start", "--json"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def first_words(self) -> Any:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 120)
        assert ready, "the server did not start"
        return json.loads("".join(self.process.stdout.readline() for _ in range(4)))

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture
def folder(monkeypatch: Any) -> Iterator[Path]:
    """A folder on memory whose ``.easeml`` the commands use."""
    with throwaway_folder() as made:
        # The folder's own server is the one that it stops at the end, should a test have failed.
        (made / ".easeml").mkdir(mode=0o711)
        (made / ".easeml" / "postgres").symlink_to(made / "home")
        monkeypatch.chdir(made)
        yield made


def back_up_and_replay(folder: Path, run: Any) -> None:
    """Without an address all but the key and marks of the referee is backed up; the marks find a restored one old."""
    data = folder / ".easeml" / "data" / "lab"
    data.mkdir(parents=True)
    (data / "new-customers.csv").write_text("a,b\n1,2\n")
    (data / "linked.csv").symlink_to(data / "new-customers.csv")
    (folder / ".easeml" / "keys.json").write_text("{}")
    inside = run("db", "backup", ".easeml/data/kept")
    assert (inside.status, "in .easeml/data, which" in inside.err) == (2, True)
    answer = run("db", "backup", "kept", "--json")
    assert answer.status == 0, answer.err
    keys = [f"referee-{path.name}" for path in (folder / ".easeml" / "referee").glob("*.pub")]
    assert len(keys) == 1
    names = ["easeml.dump", "airflow.dump", "artifacts.tar", "data.tar", "keys.json", "secrets.json", *keys]
    assert [kept["name"] for kept in answer.json["files"]] == names
    with tarfile.open(folder / "kept" / "data.tar") as archive:
        assert archive.getnames() == ["lab", "lab/new-customers.csv"]
    assert "left out of data.tar: .easeml/data/lab/linked.csv" in answer.err
    assert run("db", "restore", "kept", "--check").status == 0
    assert run("audit", "verify").status == 0
    assert run("policy", "set", "--policy", "roundrobin", "--reason", "a test").status == 0
    assert run("referee", "--once").status == 0
    assert run("audit", "verify").status == 0
    assert run("db", "restore", "kept", "--replace").status == 0
    old = run("audit", "verify")
    assert (old.status, "host has seen" in old.out + old.err) == (1, True)


def test_the_embedded_server_is_found_without_any_address(folder: Path, run: Any) -> None:
    served = Served(folder)
    try:
        where = served.first_words()
        assert where["host"] == "127.0.0.1"
        assert run("db", "upgrade").text == f"schema {schema.REVISION}"
        assert run("status", "--json").json == {"policy": None, "tenants": []}
        assert run("referee", "--once").text == "0 requests answered"
        address = run("db", "url", "--json").json["url"]
        assert address.startswith("postgresql+psycopg2://easeml_worker:")
        assert address.endswith(f"@127.0.0.1:{where['port']}/easeml")
        assert run("status", "--json", "--database", address).status == 0
        password = address.split(":")[2].split("@")[0]
        assert len(password) >= 20
        for asked in (("status",), ("study", "list"), ("db", "upgrade"), ("referee", "--once"), ("study", "show", "x")):
            answer = run(*asked)
            assert password not in answer.out + answer.err  # only `db url` says it
        assert run("db", "url", "--role", "nobody").status == 2
        back_up_and_replay(folder, run)
        second = Served(folder)  # one server, one owner
        _, complaint = second.process.communicate(timeout=60)
        assert second.process.returncode == 2
        assert f"process {served.process.pid}" in complaint
    finally:
        assert served.interrupt() == 0
    answer = run("status")
    assert answer.status == 2
    assert "cannot be reached" in answer.err
