"""``easeml db create``: an installation on a PostgreSQL server that has other users, and what it leaves as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import closing, contextmanager
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

WORDS = ("db", "create", "--artifacts", "models", "--secrets")


@pytest.fixture(scope="module")
def server_of_others() -> Iterator[Server]:
    """A server with a database and a role of others."""
    with throwaway_server() as server:
        execute(server, "CREATE ROLE others LOGIN", "CREATE DATABASE others OWNER others")
        yield server


@pytest.fixture
def foreign(server_of_others: Server) -> Iterator[Server]:
    """That server with an administrator who is no superuser; without anything of ours, also after the test."""
    execute(server_of_others, "CREATE ROLE bob LOGIN CREATEROLE CREATEDB PASSWORD 'hunter2'")
    yield server_of_others
    execute(server_of_others, "DROP DATABASE IF EXISTS easeml WITH (FORCE)")
    of_test = "SELECT string_agg(rolname, ', ') FROM pg_roles WHERE rolname !~ '^(pg_|postgres$|others$)'"
    ((roles,),) = execute(server_of_others, of_test)
    execute(server_of_others, f"DROP OWNED BY {roles}", f"DROP ROLE {roles}")


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


def superuser(server: Server) -> str:
    return server.url("postgres", "postgres")


def bob(server: Server) -> str:
    return f"postgresql://bob:hunter2@127.0.0.1:{server.port}"


def logs_in(folder: Path, role: str = "worker") -> None:
    psycopg2.connect((folder / f"{role}.url").read_text().strip().replace("+psycopg2", "")).close()


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


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
        assert (refused.status, "in the folder where" in refused.err) == (2, True)
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
    admin = superuser(foreign) if is_superuser else bob(foreign)
    folder = tmp_path / "easeml"
    words = ("db", "create", "--artifacts", "models", "--secrets", str(folder))
    answer = run(*words, EASEML_ADMIN_URL=admin)
    assert answer.status == 0, answer.err
    assert f"schema {REVISION}; artifacts in {tmp_path}/models" in answer.text
    assert ("a superuser still" in answer.err) is not is_superuser
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    urls = addresses(folder)
    assert all(connects(url, "easeml") for url in urls.values())
    assert connects(urls["easeml_worker"], "others")  # as before: that database is not ours to close
    assert not connects(f"{bob(foreign)}/x", "easeml")
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
    assert "others is not the" in refused.err
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
    assert "EASEML_ADMIN_URL, or --print" in refused()
    assert "--print needs --host" in refused("--print")
    assert "look like postgresql://" in refused("--admin", "db")
    assert "give --host," in refused("--admin", "postgresql://bob:hunter2@/postgres")
    assert "cannot be reached" in refused("--admin", "postgresql://bob:hunter2@127.0.0.1:9/postgres")
    assert "cannot be reached" in refused("--admin", "postgresql://bob@127.0.0.1:9/postgres?password=hunter2")
    assert "role carl cannot make" in refused("--admin", f"postgresql://carl:hunter2@{at}")
    assert not (tmp_path / "secrets").exists()
    (tmp_path / "file").touch()
    assert "Directory 'file' is a file" in refused("--admin", f"postgresql://bob:hunter2@{at}", "--secrets", "file")
    execute(foreign, "CREATE ROLE easeml_referee LOGIN")
    assert "give --secrets the folder" in refused("--admin", f"postgresql://bob:hunter2@{at}")


def test_a_folder_of_another_installation_changes_no_password(run: Any, foreign: Server, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(*WORDS, str(here), EASEML_ADMIN_URL=superuser(foreign)).status == 0
    printed = ("db", "create", "--print", "--artifacts", "models", "--secrets", str(there))
    assert run(*printed, "--host", "127.0.0.1", "--port", "9").status == 0
    kept = files_of(there)
    refused = run(*WORDS, str(there), EASEML_ADMIN_URL=superuser(foreign))
    assert "is of 127.0.0.1:9/easeml" in refused.err
    assert "--secrets" in refused.err
    assert "is of 127.0.0.1:9/easeml" in run(*printed, "--host", "other").err
    assert files_of(there) == kept
    logs_in(here)
    for path in there.glob("*.url"):  # of the right address, with passwords of another installation
        path.write_text(path.read_text().replace(":9/", f":{foreign.port}/"))
    refused = run(*WORDS, str(there), EASEML_ADMIN_URL=superuser(foreign))
    assert "does not log in" in refused.err
    logs_in(here)


def test_a_password_that_was_changed_is_written_into_its_file_and_then_into_the_connection(
    run: Any, foreign: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "easeml"
    assert run(*WORDS, str(folder), EASEML_ADMIN_URL=superuser(foreign)).status == 0
    execute(foreign, "ALTER ROLE easeml_worker PASSWORD 'another'")
    kept = files_of(folder)
    refused = run(*WORDS, str(folder), EASEML_ADMIN_URL=superuser(foreign))
    assert f"address into {folder}/worker.url" in refused.err
    assert files_of(folder) == kept
    address = folder / "worker.url"
    address.write_text(re.sub(r":[^:@]*@", ":another@", address.read_text()))
    assert run(*WORDS, str(folder), EASEML_ADMIN_URL=superuser(foreign)).status == 0
    logs_in(folder)
    assert json.loads((folder / "connection.json").read_text())["easeml_default"]["password"] == "another"


def test_passwords_that_others_may_have_planted_are_refused(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    words = ("db", "create", "--print", "--artifacts", "models", "--host", "db", "--secrets")
    assert run(*words, str(folder)).status == 0
    address = folder / "referee.url"
    folder.chmod(0o770)
    assert "chmod go-w" in run(*words, str(folder)).err
    folder.chmod(0o755)
    address.chmod(0o640)
    assert "chmod 600" in run(*words, str(folder)).err
    address.chmod(0o600)
    (tmp_path / "link").symlink_to(folder)
    assert "is a link" in run(*words, str(tmp_path / "link")).err
    address.rename(folder / "elsewhere")
    address.symlink_to(folder / "elsewhere")
    assert "is a link" in run(*words, str(folder)).err
    address.unlink()
    assert run(*words, str(folder)).status == 0


def test_a_database_or_schema_of_others_is_left_as_it_is(run: Any, foreign: Server, tmp_path: Path) -> None:
    execute(foreign, "CREATE ROLE app LOGIN PASSWORD 'hunter2'", "CREATE DATABASE easeml OWNER bob")
    refused = run(*WORDS, str(tmp_path / "new"), EASEML_ADMIN_URL=superuser(foreign))
    assert "database easeml, which is of bob; nothing" in refused.err
    psycopg2.connect(bob(foreign).replace("bob", "app") + "/easeml").close()
    assert execute(foreign, "SELECT rolname FROM pg_roles WHERE rolname ~ '^easeml'") == []
    assert not (tmp_path / "new").exists()
    execute(foreign, "DROP DATABASE easeml")
    assert run(*WORDS, str(tmp_path / "new"), EASEML_ADMIN_URL=bob(foreign)).status == 0
    execute(foreign, "ALTER SCHEMA sealed OWNER TO bob", database="easeml")
    refused = run(*WORDS, str(tmp_path / "new"), EASEML_ADMIN_URL=bob(foreign))
    assert "the schema sealed in" in refused.err


def test_what_a_superuser_still_has_to_run_is_whole_and_ends_the_list(
    run: Any, foreign: Server, tmp_path: Path
) -> None:
    words = (*WORDS, str(tmp_path / "new"))
    told = run(*words, EASEML_ADMIN_URL=bob(foreign)).err
    left = run(*words, "--json", EASEML_ADMIN_URL=bob(foreign)).json["left"]
    may_watch = (
        "SELECT has_function_privilege('easeml_worker', 'pg_stat_get_tuples_inserted(oid)', 'EXECUTE'), "
        "has_column_privilege('easeml_worker', 'pg_class', 'reltuples', 'SELECT')"
    )
    assert execute(foreign, may_watch, database="easeml") == [(True, True)]
    assert all(one in told for one in left)
    execute(foreign, *left, database="easeml")
    assert execute(foreign, may_watch, database="easeml") == [(False, False)]
    assert run(*words, "--json", EASEML_ADMIN_URL=bob(foreign)).json["left"] == []


def test_a_repeated_run_takes_back_rights_and_memberships(run: Any, foreign: Server, tmp_path: Path) -> None:
    words = (*WORDS, str(tmp_path / "new"), "--json")
    run(*words, EASEML_ADMIN_URL=superuser(foreign))
    given = (
        "ALTER ROLE easeml_worker BYPASSRLS",
        "ALTER ROLE easeml_person LOGIN",
        "GRANT easeml_referee TO easeml_worker",
    )
    execute(foreign, *given)
    strong = (
        "SELECT rolname FROM pg_roles WHERE rolname ~ '^easeml_' AND rolbypassrls OR rolname = 'easeml_person' AND "
        "rolcanlogin UNION ALL SELECT 'member' WHERE pg_has_role('easeml_worker', 'easeml_referee', 'MEMBER')"
    )
    assert len(execute(foreign, strong)) == 3
    assert run(*words, EASEML_ADMIN_URL=superuser(foreign)).json["left"] == []
    assert execute(foreign, strong) == []


def test_a_role_without_the_right_to_take_rights_back_says_so(run: Any, foreign: Server, tmp_path: Path) -> None:
    words = (*WORDS, str(tmp_path / "new"), "--json")
    run(*words, EASEML_ADMIN_URL=bob(foreign))
    execute(foreign, "ALTER ROLE easeml_worker BYPASSRLS", "GRANT easeml_referee TO easeml_worker")
    left = run(*words, EASEML_ADMIN_URL=bob(foreign)).json["left"]
    assert any("ALTER ROLE easeml_worker" in one for one in left)
    execute(foreign, *left, database="easeml")
    assert run(*words, EASEML_ADMIN_URL=bob(foreign)).json["left"] == []
    assert execute(foreign, "SELECT pg_has_role('easeml_worker', 'easeml_referee', 'MEMBER')") == [(False,)]


@contextmanager
def kept_out(server: Server) -> Iterator[None]:
    """Bob may not enter our database, whether it is there or not; returns when the server has read the rule."""
    rules = server.data / "pg_hba.conf"
    before = rules.read_text()

    def reads(text: str, *, refuses: bool) -> None:
        rules.write_text(text)
        execute(server, "SELECT pg_reload_conf()")
        while refuses != ("pg_hba.conf rejects" in _refusal(f"{bob(server)}/easeml")):
            execute(server, "SELECT pg_sleep(0.01)")

    reads(f"host easeml bob all reject\n{before}", refuses=True)
    try:
        yield
    finally:
        reads(before, refuses=False)


def _refusal(address: str) -> str:
    try:
        psycopg2.connect(address).close()
    except psycopg2.OperationalError as error:
        return str(error)
    return ""


def test_a_failed_run_takes_the_membership_of_the_owner_back(run: Any, foreign: Server, tmp_path: Path) -> None:
    with kept_out(foreign):
        failed = run(*WORDS, str(tmp_path / "new"), EASEML_ADMIN_URL=bob(foreign))
        assert "pg_hba.conf rejects" in failed.err
        assert execute(foreign, "SELECT pg_has_role('bob', 'easeml_owner', 'USAGE')") == [(False,)]
    assert run(*WORDS, str(tmp_path / "new"), EASEML_ADMIN_URL=bob(foreign)).status == 0
