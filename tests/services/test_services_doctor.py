"""Each check of ``easeml doctor`` finds what is wrong and says what to do; a sound installation has no failed check."""

from __future__ import annotations

import json
import re
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from easeml_core.services import doctor_airflow, doctor_machine, doctor_versions
from easeml_core.services.doctor import Installation, examine
from easeml_core.services.doctor_airflow import VARIABLE, Pool, check_connection, check_metadata, check_pool
from easeml_core.services.doctor_database import check_clock, check_database, check_sealed
from easeml_core.services.doctor_machine import check_disk, check_secrets
from easeml_core.services.doctor_versions import check_extras, check_packages
from easeml_core.store import schema
from easeml_core.store.rows import change

if TYPE_CHECKING:
    from collections.abc import Iterator


def told(checks: Any) -> dict[str, Any]:
    return {check.name: check for check in checks}


def as_superuser(database: Any, statement: str) -> None:
    with closing(database.server.connect(database=database.name)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def test_a_sound_installation_has_no_failed_check(database: Any, tmp_path: Path) -> None:
    place = Installation(
        url=database.url("easeml_worker"),
        url_from="--database",
        home=tmp_path / ".easeml",
        artifacts=str(tmp_path),
        metadata_url=None,
        environment={},
    )
    looked_at: list[str] = []
    found = examine(place, looked_at.append)
    assert [check for check in found if check.state == "failed"] == []
    assert len({check.name for check in found}) == len(found) >= 18
    assert looked_at[0] == "versions"
    assert all(check.remedy for check in found if check.state == "warning")
    checks = told(found)
    assert checks["schema"].found == f"revision {schema.REVISION}"
    assert checks["sealed sets"].found == "closed to easeml_worker"
    assert checks["referee"].found == "nothing waits for it"
    assert "as easeml_worker" in checks["database"].found
    assert json.loads(json.dumps([check.to_json() for check in found]))[0]["name"] == "python"


@pytest.mark.parametrize("role", ["easeml_owner", "easeml_referee"])
def test_every_role_of_ours_may_look(database: Any, role: str) -> None:
    checks = told(check_database(database.url(role), "--database"))
    assert {check.state for check in checks.values()} == {"ok"}
    assert f"the address is of {role}" in checks["roles"].found
    assert "never give this address to tasks" in checks["roles"].remedy


def test_no_password_is_shown(database: Any) -> None:
    url = database.url("easeml_worker")
    password = url.partition("easeml_worker:")[2].partition("@")[0]
    for address in (url, url.replace(password, "wr0ng-password"), url.replace("127.0.0.1", "localhost:9/x#")):
        said = " ".join(f"{check.found} {check.remedy}" for check in check_database(address, "--database"))
        assert password not in said
        assert "wr0ng-password" not in said


def test_a_database_that_is_away_fails_once_and_skips_the_rest() -> None:
    for url in (None, "postgresql+psycopg2://easeml_worker:x@127.0.0.1:9/easeml", "nonsense"):
        found = check_database(url, "somewhere")
        assert [check.state for check in found] == ["failed", *["skipped"] * 5]
        assert "somewhere" in found[0].found


def test_an_old_schema_is_named_with_the_command(database: Any) -> None:
    with database.owner.begin() as tx:
        change(tx, "UPDATE work.alembic_version SET version_num = '0001'")
    checks = told(check_database(database.url("easeml_worker"), "--database"))
    assert (checks["schema"].state, checks["referee"].state) == ("failed", "skipped")
    assert f"revision 0001, this version needs {schema.REVISION}" in checks["schema"].found
    assert "easeml db upgrade" in checks["schema"].remedy


@pytest.mark.parametrize(
    ("statement", "way"),
    [
        ("GRANT USAGE ON SCHEMA sealed TO easeml_worker", "it may enter the schema sealed"),
        ("GRANT SELECT ON sealed.examples TO easeml_worker", "it has rights on sealed.examples"),
    ],
)
def test_a_worker_that_may_reach_sealed_sets_fails(database: Any, statement: str, way: str) -> None:
    as_superuser(database, statement)
    check = told(check_database(database.url("easeml_worker"), "--database"))["sealed sets"]
    assert (check.state, way in check.found) == ("failed", True)
    assert "seal new sets" in check.remedy


@pytest.mark.parametrize("opened", ["EXECUTE ON FUNCTION pg_stat_get_tuples_inserted(oid)", "SELECT ON pg_class"])
def test_statistics_that_are_open_are_a_warning(opened: str, database: Any) -> None:
    as_superuser(database, f"GRANT {opened} TO PUBLIC")
    check = told(check_database(database.url("easeml_worker"), "--database"))["sealed sets"]
    assert (check.state, "docs/install.md" in check.remedy) == ("warning", True)


def test_membership_is_a_way_too() -> None:
    shut = dict.fromkeys(("is_super", "is_referee", "is_owner", "may_enter", "may_watch"), False)
    assert check_sealed({**shut, "tables": []}).state == "ok"
    for way in ("is_super", "is_referee", "is_owner"):
        assert check_sealed({**shut, way: True, "tables": []}).state == "failed"


@pytest.mark.parametrize(
    ("kind", "minutes", "state"),
    [("seal", 0, "ok"), ("seal", 3, "warning"), ("seal", 30, "failed"), ("gate", 30, "warning")],
)
def test_requests_that_wait_tell_of_a_referee_that_is_not_there(
    database: Any, make_study: Any, kind: str, minutes: int, state: str
) -> None:
    make_study("cancer")
    with database.owner.begin() as tx:
        model = "NULL" if kind == "seal" else "(SELECT min(id) FROM work.models)"
        change(
            tx,
            "INSERT INTO work.requests (request_key, kind, study_id, model_id, requested_at) "
            f"SELECT 'k', :kind, id, {model}, now() - make_interval(mins => :minutes) FROM work.studies",
            kind=kind,
            minutes=minutes,
        )
    check = told(check_database(database.url("easeml_worker"), "--database"))["referee"]
    assert check.state == state
    if minutes:
        assert f"1 {kind} request, the oldest {minutes} min" in check.found


def test_clocks_that_differ() -> None:
    assert [check_clock(skew).state for skew in (0.0, 4.9, -20.0, 3600.0)] == ["ok", "ok", "warning", "failed"]
    assert check_clock(-20.0).found == "the database's clock is 20.0 s behind"


def test_packages_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["click>=99", "no-such-package>=1", "numpy>=1", "pytest>=99; extra == 'plot'"]
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    check = check_packages()
    assert check.state == "failed"
    assert f"click {metadata.version('click')}, not >=99; no-such-package is missing" in check.found
    extras = check_extras()
    assert (extras.state, f"pytest {metadata.version('pytest')}, not >=99" in extras.found) == ("warning", True)


def test_a_copied_product_has_no_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_versions, "DISTRIBUTION", "nobody-has-this")
    assert [check_packages().state, check_extras().state] == ["skipped", "skipped"]


def test_little_room_is_a_warning_and_none_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([10**10, 10**9, 10**7])
    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda _: type("U", (), {"free": next(sizes)}))
    assert [check.state for check in check_disk(str(tmp_path), tmp_path)] == ["ok", "warning", "failed"]


def test_a_bucket_has_no_disk_here(tmp_path: Path) -> None:
    checks = told(check_disk("s3://key:secret@bucket/easeml", tmp_path / "not" / "there"))
    assert checks["disk: artifacts"].state == "skipped"
    assert "secret" not in checks["disk: artifacts"].found
    assert checks["disk: data"].state in ("ok", "warning")


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / ".easeml"
    assert check_secrets(home).state == "skipped"
    (home / "postgres").mkdir(parents=True)
    home.chmod(0o700)
    secrets = home / "postgres" / "secrets.json"
    secrets.write_text("{}")
    secrets.chmod(0o600)
    assert check_secrets(home).state == "ok"
    secrets.chmod(0o640)
    check = check_secrets(home)
    assert (check.state, f"chmod 600 {secrets}" in check.remedy) == ("failed", True)
    secrets.chmod(0o600)
    home.chmod(0o770)
    assert check_secrets(home).remedy == f"chmod go-w {home}"


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
    head = doctor_airflow.airflow_head()
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
    assert doctor_airflow.airflow_head() == heads[-1]


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
        assert check_pool(Pool(url, "admin", "right")).found == "easeml_devices: 2 slots, 1 in use"
        wrong = check_pool(Pool(url, "admin", "wrong"))
        assert (wrong.state, "wrong" not in repr(wrong)) == ("failed", True)
        assert "airflow pools set none" in check_pool(Pool(url, "admin", "right", "none")).remedy
        assert check_pool(Pool(url, "admin", "right", "empty")).state == "failed"
        assert check_pool(Pool(url, "admin", "right", "odd")).state == "skipped"
    assert check_pool(Pool(url, "admin", "right")).state == "skipped"
    assert check_pool(None).state == "skipped"
    assert check_pool(Pool("file:///etc/passwd", "admin", "right")).state == "skipped"
    assert "right" not in repr(Pool(url, "admin", "right"))
