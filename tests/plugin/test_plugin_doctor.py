"""Airflow's checks of ``easeml doctor``: connection, tables and device pool; the plugin contributes them."""

from __future__ import annotations

import json
import re
import threading
import tomllib
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from easeml_airflow.doctor import (
    VARIABLE,
    airflow_checks,
    airflow_head,
    check_connection,
    check_metadata,
    check_pool,
    check_teams,
    metadata_address,
)
from easeml_core.services.operations.doctor import CONTRIBUTED, ApiServer, Installation, examine
from easeml_core.store.server.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def as_superuser(database: Any, statement: str) -> None:
    with closing(database.server.connect(database=database.name)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def test_the_package_contributes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the entry point of pyproject.toml, whatever has been installed here."""
    declared = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["entry-points"][CONTRIBUTED]
    entries = [metadata.EntryPoint(name, value, CONTRIBUTED) for name, value in declared.items()]
    assert [entry.load() for entry in entries] == [airflow_checks]
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: entries if group == CONTRIBUTED else [])
    monkeypatch.chdir(tmp_path)
    place = Installation(None, "nowhere", tmp_path / ".easeml", str(tmp_path), environment={})
    checks = [
        check for check in examine(place) if check.name in ("Airflow connection", "Airflow tables", "device pool")
    ]
    assert [check.state for check in checks] == ["skipped"] * 3


@pytest.mark.parametrize(
    ("environment", "state", "words"),
    [
        ({"AIRFLOW_CONN_EASEML_DEFAULT": "easeml://easeml_worker@h/d"}, "skipped", "one team"),
        (
            {"AIRFLOW_CONN_A": "easeml://easeml_t_a@h/d", "AIRFLOW_CONN_B": "{"},
            "warning",
            "every task every connection",
        ),
        ({"AIRFLOW_CONN_A": "easeml://easeml_t_a@h/d", "AIRFLOW_CONN_B": "x://easeml_t_a@h/d"}, "warning", "share"),
        (
            {"AIRFLOW_CONN_A": '{"login": "easeml_t_a"}', "AIRFLOW__CORE__MULTI_TEAM": "True"},
            "ok",
            "a (easeml_t_a); multi-team mode",
        ),
    ],
)
def test_it_says_whether_airflow_keeps_connections_of_teams_apart(
    environment: dict[str, str], state: str, words: str
) -> None:
    found = check_teams(environment)
    assert found.state == state
    assert words in found.found


def test_airflows_tables_are_looked_for_where_its_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # the account's own Airflow, if it has one, is not looked for
    assert metadata_address({}) is None
    environment = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url("easeml_owner")}
    assert metadata_address(environment) == database.url("easeml_owner")
    place = Installation(None, "nowhere", tmp_path / ".easeml", str(tmp_path), environment=environment)
    (check,) = [check for check in airflow_checks(place) if check.name == "Airflow tables"]
    assert (check.state, "airflow db migrate" in check.remedy) == ("warning", True)


def test_an_airflow_with_settings_in_a_file_is_not_taken_for_that_of_the_embedded_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Server, "url", lambda _self, role, name: f"postgresql://{role}@embedded/{name}")
    (tmp_path / ".easeml" / "postgres").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert metadata_address({}) == "postgresql://airflow@embedded/airflow"
    assert metadata_address({"AIRFLOW_HOME": str(tmp_path / "none")}) is None
    home = tmp_path / "airflow"
    home.mkdir()
    for text, wanted in (
        ("[core]\n", f"sqlite:///{home}/airflow.db"),
        ("[database]\nsql_alchemy_conn = postgresql://a:%%b@db/c\n", "postgresql://a:%b@db/c"),
        ("[database]\nsql_alchemy_conn_cmd = pass show airflow\n", None),
    ):
        (home / "airflow.cfg").write_text(text)
        assert metadata_address({}) == wanted
        assert metadata_address({"AIRFLOW_HOME": str(home)}) == wanted
        assert metadata_address({"AIRFLOW_CONFIG": str(home / "airflow.cfg"), "AIRFLOW_HOME": str(home)}) == wanted
    (tmp_path / ".easeml" / "airflow").mkdir()  # the stack of `make up`, beside an Airflow of the account
    assert metadata_address({}) == "postgresql://airflow@embedded/airflow"
    assert metadata_address({"AIRFLOW_HOME": ".easeml/airflow"}) == "postgresql://airflow@embedded/airflow"
    assert metadata_address({"AIRFLOW_HOME": str(home)}) is None


def connection(database: Any, **changes: Any) -> str:
    host, _, rest = database.url("easeml_worker").partition("@")[2].partition(":")
    port, _, name = rest.partition("/")
    password = database.url("easeml_worker").partition("easeml_worker:")[2].partition("@")[0]
    told = {"conn_type": "easeml", "host": host, "port": int(port), "schema": name, "login": "easeml_worker"}
    return json.dumps(told | {"password": password, "extra": {"artifacts": "/srv/a"}} | changes)


def test_the_connection_of_the_environment(database: Any) -> None:
    assert check_connection({}).state == "skipped"
    good = check_connection({VARIABLE: connection(database)})
    assert (good.state, good.found.endswith("artifacts at /srv/a")) == ("ok", True)
    address = database.url("easeml_worker").replace("postgresql+psycopg2", "easeml") + "?artifacts=%2Fsrv%2Fa"
    assert check_connection({VARIABLE: address}) == good
    text = connection(database, extra=json.dumps({"artifacts": "/srv/a"}))
    assert check_connection({VARIABLE: text}) == good
    plain = {"artifacts": "/srv/a", "sslmode": "disable", "sslrootcert": ""}
    assert check_connection({VARIABLE: connection(database, extra=plain)}) == good


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"login": "easeml_referee"}, "tasks must connect as easeml_worker"),
        ({"host": ""}, "lacks host"),
        ({"extra": {}}, "extra.artifacts must be the path of a folder"),
        ({"extra": {"artifacts": ["/srv/a"]}}, "extra.artifacts must be the path of a folder"),
        ({"extra": {"artifacts": "https://data.example/a"}}, "extra.artifacts must be the path of a folder"),
        ({"extra": {"artifacts": "s3://me:secret@bucket/a"}}, "without user and password, got 'another address'"),
        ({"extra": {"artifacts": "/srv/a", "sslmod": "require"}}, "no more than artifacts, sslmode"),
        ({"extra": {"artifacts": "/srv/a", "__extra__": "{}"}}, "got ['__extra__']"),
        ({"extra": {"artifacts": "/srv/a", "sslmode": "on"}}, "extra.sslmode must be one of disable"),
        ({"extra": {"artifacts": "/srv/a", "sslkey": "/two words.key"}}, "extra.sslkey must be the path of a file"),
        ({"extra": {"artifacts": "/srv/a", "sslcert": 3}}, "extra.sslcert must be the path of a file"),
        ({"extra": [["artifacts", "/srv/a"]]}, "extra must be a mapping"),
        ({"extra": {"artifacts": "/srv/a", "sslmode": "require"}}, "does not support SSL"),
        ({"port": 9}, "cannot be reached"),
    ],
)
def test_a_connection_that_cannot_work(database: Any, changes: dict[str, Any], words: str) -> None:
    check = check_connection({VARIABLE: connection(database, **changes)})
    assert (check.state, words in check.found) == ("failed", True), check
    assert "secret" not in check.found


def test_the_connection_is_read_as_airflow_reads_it(database: Any) -> None:
    """As an address: the last of two words counts, gaps do not, and ``__extra__`` is the whole extra."""
    sound = check_connection({VARIABLE: connection(database)})
    address = database.url("easeml_worker").replace("postgresql+psycopg2", "easeml")
    inner = {"artifacts": "/srv/a", "sslmode": "disable"}
    for query in ({"__extra__": json.dumps(inner), "host": "x"}, [("artifacts", "/b"), *inner.items(), ("sslkey", "")]):
        assert check_connection({VARIABLE: f"{address}?{urlencode(query)}"}) == sound
    for extra, words in (({"sslmod": "x"}, "got ['sslmod']"), ([], "got 'list'")):
        refused = check_connection({VARIABLE: f"{address}?{urlencode({'__extra__': json.dumps(extra)})}"})
        assert (refused.state, words in refused.found) == ("failed", True)
    assert check_connection({VARIABLE: f"{address}?__extra__=artifacts"}).found.endswith("JSONDecodeError")


@pytest.mark.parametrize("text", ["{", '{"extra": 3, "host": "h"}', "[]", "easeml://a:b@h:port/x", ""])
def test_a_connection_that_is_none(text: str) -> None:
    assert check_connection({VARIABLE: text}).state == "failed"


def test_airflows_own_tables(database: Any) -> None:
    head = airflow_head()
    assert head is not None
    assert check_metadata(None).state == "skipped"
    assert check_metadata("sqlite:////tmp/airflow.db").state == "skipped"
    url = database.url("easeml_owner")
    assert check_metadata(url).state == "warning"  # its tables are not made yet
    as_superuser(database, f"CREATE TABLE public.alembic_version AS SELECT '{head}'::text AS version_num")
    as_superuser(database, "GRANT SELECT ON public.alembic_version TO easeml_owner")
    assert check_metadata(url).state == "ok"
    as_superuser(database, "UPDATE public.alembic_version SET version_num = '000000000000'")
    old = check_metadata(url)
    assert (old.state, old.found) == ("failed", f"revision 000000000000, the installed Airflow wants {head}")


def test_the_head_is_airflows_own() -> None:
    """Against the last entry of Airflow's own table of heads; Airflow itself is not imported."""
    spec = find_spec("airflow")
    assert spec is not None
    (folder, *_) = spec.submodule_search_locations or []
    text = (Path(folder) / "utils" / "db.py").read_text(encoding="utf-8")
    heads = re.findall(r'^    "\d+\.\d+\.\d+": "([0-9a-f]{12})",$', text, re.MULTILINE)
    assert airflow_head() == heads[-1]


@contextmanager
def airflow(pools: dict[str, Any], *, password: str = "right") -> Iterator[str]:
    """An API server with two routes, as Airflow's answers them."""

    class Routes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer({"access_token": "t"} if body["password"] == password else None, 401)

        def do_GET(self) -> None:
            name = self.path.removeprefix("/api/v2/pools/")
            allowed = self.headers["Authorization"] == "Bearer t"
            self.answer(pools.get(name) if allowed else None, 404 if allowed else 401)

        def answer(self, told: Any, otherwise: int) -> None:
            self.send_response(200 if told else otherwise)
            self.end_headers()
            self.wfile.write(json.dumps(told or {}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Routes) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_device_pool() -> None:
    pools = {
        "easeml_devices": {"slots": 2, "occupied_slots": 1},
        "empty": {"slots": 0, "occupied_slots": 0},
        "odd": {"a": 1},
    }
    with airflow(pools) as url:
        assert check_pool(ApiServer(url, "admin", "right")).found == "easeml_devices: 2 slots, 1 in use"
        wrong = check_pool(ApiServer(url, "admin", "wrong"))
        assert (wrong.state, "wrong" not in repr(wrong)) == ("failed", True)
        assert "airflow pools set none" in check_pool(ApiServer(url, "admin", "right", "none")).remedy
        assert check_pool(ApiServer(url, "admin", "right", "empty")).state == "failed"
        assert check_pool(ApiServer(url, "admin", "right", "odd")).state == "skipped"
    assert check_pool(ApiServer(url, "admin", "right")).state == "skipped"
    assert check_pool(None).state == "skipped"
    assert check_pool(ApiServer("file:///etc/passwd", "admin", "right")).state == "skipped"
    assert "right" not in repr(ApiServer(url, "admin", "right"))
