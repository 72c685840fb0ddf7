"""``easeml db create``: an installation on a PostgreSQL server that has other users, by a superuser and by others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from easeml_core.store.schema import REVISION
from easeml_core.store.server.cluster import free_port
from easeml_core.store.server.creation import LOGINS
from easeml_core.store.server.server import throwaway_folder, throwaway_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easeml_core.store.server.server import Server

pytestmark = pytest.mark.journey

ADMIN = "bob"


@pytest.fixture
def foreign() -> Iterator[Server]:
    """A server with a database and a role of others, and an administrator who is no superuser."""
    with throwaway_server() as server:
        execute(server, "CREATE ROLE others LOGIN", "CREATE DATABASE others OWNER others")
        execute(server, f"CREATE ROLE {ADMIN} LOGIN CREATEROLE CREATEDB PASSWORD 'hunter2'")
        yield server


DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def of_version_15(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the administrator of the oldest PostgreSQL that we allow."""
    if not DEBIAN_15.exists():
        pytest.skip("PostgreSQL 15 is Debian's package postgresql-15")
    with throwaway_folder() as folder:
        data, port = folder / "data", free_port()
        account = () if os.getuid() else ("runuser", "-u", "postgres", "--")
        (folder / "data").mkdir()
        if not os.getuid():
            shutil.chown(data, "postgres")
        run = partial(subprocess.run, check=True, capture_output=True)
        run([*account, DEBIAN_15 / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"])
        settings = f"-p {port} -c unix_socket_directories='' -c fsync=off"
        run([*account, DEBIAN_15 / "pg_ctl", "-D", data, "-o", settings, "-l", data / "log", "-w", "start"])
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            run([*account, DEBIAN_15 / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"])


def test_the_oldest_postgresql_gets_an_installation_with_a_login(run: Any, of_version_15: str, tmp_path: Path) -> None:
    words = ("db", "create", "--artifacts", "models", "--secrets", str(tmp_path / "easeml"))
    for _ in range(2):  # the same again changes nothing
        answer = run(*words, EASEML_ADMIN_URL=of_version_15)
        assert answer.status == 0, answer.err
    owner = addresses(tmp_path / "easeml")["easeml_owner"]
    shown = run("tenant", "login", "workers", "--device", "--database", owner)
    assert shown.status == 0, shown.err
    assert "GRANT easeml_device TO" in shown.text
    assert "WITH INHERIT" not in shown.text


def execute(server: Server, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
    with closing(server.connect(database=database)) as opened, opened.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def connects(url: str, database: str) -> bool:
    try:
        psycopg2.connect(url.replace("+psycopg2", "").rpartition("/")[0] + f"/{database}").close()
    except psycopg2.OperationalError as error:
        if "permission denied" not in str(error):
            raise
        return False
    return True


def addresses(folder: Path) -> dict[str, str]:
    return {role: (folder / f"{role.removeprefix('easeml_')}.url").read_text().strip() for role in LOGINS}


def test_the_embedded_server_keeps_its_passwords_and_gets_a_connection(
    run: Any, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("db", "create", "--artifacts", "models", "--secrets", "own")
    with throwaway_server() as server:
        server.ensure_installation()
        refused = run(*words, EASEML_ADMIN_URL=server.url("postgres", "postgres"))
        assert (refused.status, "run this in the folder where that was started" in refused.err) == (2, True)
        monkeypatch.setattr("easeml_core.cli.operations.database.embedded_server", lambda: server)
        assert run(*words, EASEML_ADMIN_URL=server.url("postgres", "postgres")).status == 0
        assert addresses(nowhere / "own") == {role: server.url(role, "easeml") for role in LOGINS}
        server.ensure_installation()
        told = json.loads((nowhere / "own" / "connection.json").read_text())["easeml_default"]
        assert told["password"] == server.secrets["easeml_worker"]
        assert connects(server.url("easeml_worker", "easeml"), "easeml")


@pytest.mark.parametrize("is_superuser", [True, False])
def test_a_server_of_others_gets_an_installation_and_keeps_what_it_has(
    is_superuser: bool, run: Any, foreign: Server, tmp_path: Path
) -> None:
    admin = (
        foreign.url("postgres", "postgres")
        if is_superuser
        else f"postgresql://{ADMIN}:hunter2@127.0.0.1:{foreign.port}"
    )
    folder = tmp_path / "easeml"
    words = ("db", "create", "--artifacts", "models", "--secrets", str(folder))
    answer = run(*words, EASEML_ADMIN_URL=admin)
    assert answer.status == 0, answer.err
    assert f"schema {REVISION}; artifacts in {tmp_path}/models" in answer.text
    assert ("a superuser still has to run" in answer.err) is not is_superuser
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    urls = addresses(folder)
    assert all(connects(url, "easeml") for url in urls.values())
    assert connects(urls["easeml_worker"], "others")  # as before: that database is not ours to close
    assert not connects(f"postgresql://{ADMIN}:hunter2@127.0.0.1:{foreign.port}/x", "easeml")
    assert execute(foreign, "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname ~ '^easeml_' AND "
                   "(rolsuper OR rolcreaterole)") == []  # fmt: skip
    assert run("status", "--json", EASEML_DATABASE_URL=urls["easeml_worker"]).status == 0
    checks = {one["name"]: one["state"] for one in run("doctor", "--json", "--database", urls["easeml_worker"]).json}
    assert {checks[name] for name in ("database", "schema", "artifacts")} == {"ok"}
    # Who has made a role can become it (PostgreSQL 16), and may not close the statistics.
    assert {checks[name] for name in ("roles", "sealed sets")} == {"ok" if is_superuser else "warning"}
    kept = {path.name: path.read_text() for path in folder.iterdir()}
    again = run(*words, "--json", EASEML_ADMIN_URL=admin).json
    assert {path.name: path.read_text() for path in folder.iterdir()} == kept
    assert (again["schema"], bool(again["left"])) == (REVISION, not is_superuser)
    refused = run("db", "create", "--artifacts", "others", "--secrets", str(folder), EASEML_ADMIN_URL=admin)
    assert "others is not the artifact store of this installation" in refused.err
    assert {path.name: path.read_text() for path in folder.iterdir()} == kept


def test_what_is_printed_makes_the_same_for_an_administrator_with_psql(
    run: Any, foreign: Server, tmp_path: Path
) -> None:
    words = ("--artifacts", "models", "--secrets", "secrets", "--host", "127.0.0.1", "--port", str(foreign.port))
    answer = run("db", "create", "--print", *words)
    assert answer.status == 0
    assert "easeml db upgrade --artifacts" in answer.err
    urls = addresses(tmp_path / "secrets")
    assert not [url for url in urls.values() if url.split(":")[2].split("@")[0] in answer.out]
    for _ in range(2):  # it may be repeated
        execute_script(foreign, answer.out)
    done = run("db", "upgrade", "--artifacts", "models", "--database", urls["easeml_owner"])
    assert done.text == f"schema {REVISION}"
    checks = {one["name"]: one["state"] for one in run("doctor", "--json", "--database", urls["easeml_worker"]).json}
    assert {checks[name] for name in ("database", "roles", "sealed sets", "schema", "artifacts")} == {"ok"}


def execute_script(server: Server, text: str) -> None:
    """Run it as psql does, which the embedded server does not have."""
    head, _, inside = text.partition("\\connect easeml\n")
    roles, gexec, doors = head.partition(" \\gexec\n")
    roles, _, question = (
        roles.removeprefix("-- For a superuser: ").partition("\n\\set ON_ERROR_STOP on\n")[2].rpartition(";\n")
    )
    execute(server, roles)
    assert gexec
    for (sql,) in execute(server, question):
        execute(server, sql)
    execute(server, doors)
    execute(server, inside, database="easeml")


def test_the_connection_is_one_that_airflow_imports(run: Any, tmp_path: Path) -> None:
    run("db", "create", "--print", "--artifacts", "s3://bucket/easeml", "--host", "db", XDG_CONFIG_HOME=str(tmp_path))
    ((name, fields),) = json.loads((tmp_path / "easeml" / "connection.json").read_text()).items()
    assert name == "easeml_default"
    assert (fields["conn_type"], fields["login"], fields["host"]) == ("easeml", "easeml_worker", "db")
    assert fields["extra"] == {"artifacts": "s3://bucket/easeml"}


def test_each_error_on_the_way_says_what_to_do(run: Any, foreign: Server, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        answer = run("db", "create", "--artifacts", "models", "--secrets", "secrets", *words)
        assert answer.status == 2, answer
        assert "hunter2" not in answer.err
        assert "Traceback" not in answer.err
        return " ".join(answer.err.split())

    at = f"127.0.0.1:{foreign.port}"
    execute(foreign, "CREATE ROLE carl LOGIN PASSWORD 'hunter2'")
    assert "give --admin, or EASEML_ADMIN_URL, or --print" in refused()
    assert "--print needs --host" in refused("--print")
    assert "must look like postgresql://" in refused("--admin", "db")
    assert "give --host, by which" in refused("--admin", "postgresql://bob:hunter2@/postgres")
    assert "cannot be reached" in refused("--admin", "postgresql://bob:hunter2@127.0.0.1:9/postgres")
    assert "cannot be reached" in refused("--admin", "postgresql://bob@127.0.0.1:9/postgres?password=hunter2")
    assert "the role carl cannot make roles and databases" in refused("--admin", f"postgresql://carl:hunter2@{at}")
    assert not (tmp_path / "secrets").exists()
    (tmp_path / "file").touch()
    assert "Directory 'file' is a file" in refused("--admin", f"postgresql://bob:hunter2@{at}", "--secrets", "file")
    execute(foreign, "CREATE ROLE easeml_referee LOGIN")
    assert "give --secrets the folder of that installation" in refused("--admin", f"postgresql://bob:hunter2@{at}")
