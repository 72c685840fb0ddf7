"""``easeml db create`` where folder, database or roles are of others, or differ from what they should be."""

from __future__ import annotations

import json
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from easeml_core.store.server.server import throwaway_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from easeml_core.store.server.server import Server

pytestmark = pytest.mark.journey

WORDS = ("db", "create", "--artifacts", "models", "--secrets")


@pytest.fixture
def foreign() -> Iterator[Server]:
    with throwaway_server() as server:
        execute(server, "CREATE ROLE bob LOGIN CREATEROLE CREATEDB PASSWORD 'hunter2'")
        yield server


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
    assert "does not log in with the password in" in refused.err
    logs_in(here)


def test_a_password_that_was_changed_is_written_into_its_file_and_then_into_the_connection(
    run: Any, foreign: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "easeml"
    assert run(*WORDS, str(folder), EASEML_ADMIN_URL=superuser(foreign)).status == 0
    execute(foreign, "ALTER ROLE easeml_worker PASSWORD 'another'")
    kept = files_of(folder)
    refused = run(*WORDS, str(folder), EASEML_ADMIN_URL=superuser(foreign))
    assert f"write the present address into {folder}/worker.url" in refused.err
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
    assert "has the database easeml, which is of bob; nothing was changed" in refused.err
    psycopg2.connect(bob(foreign).replace("bob", "app") + "/easeml").close()
    assert execute(foreign, "SELECT rolname FROM pg_roles WHERE rolname ~ '^easeml'") == []
    assert not (tmp_path / "new").exists()
    execute(foreign, "DROP DATABASE easeml")
    assert run(*WORDS, str(tmp_path / "new"), EASEML_ADMIN_URL=bob(foreign)).status == 0
    execute(foreign, "ALTER SCHEMA sealed OWNER TO bob", database="easeml")
    refused = run(*WORDS, str(tmp_path / "new"), EASEML_ADMIN_URL=bob(foreign))
    assert "has the schema sealed in the database easeml, which is of bob" in refused.err


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


def test_a_failed_run_takes_the_membership_of_the_owner_back(run: Any, foreign: Server, tmp_path: Path) -> None:
    execute(foreign, "ALTER ROLE bob CONNECTION LIMIT 1")  # a second connection, into our database, is refused
    failed = run(*WORDS, str(tmp_path / "new"), EASEML_ADMIN_URL=bob(foreign))
    assert "too many connections" in failed.err
    assert execute(foreign, "SELECT pg_has_role('bob', 'easeml_owner', 'USAGE')") == [(False,)]
    execute(foreign, "ALTER ROLE bob CONNECTION LIMIT -1")
    assert run(*WORDS, str(tmp_path / "new"), EASEML_ADMIN_URL=bob(foreign)).status == 0
