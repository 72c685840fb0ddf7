"""Each check of ``easeml doctor`` finds what is wrong and says what to do; a sound installation has no failed check."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.formats.encoding import to_json
from easeml_core.services.operations import doctor
from easeml_core.services.operations.checks import Check, crowding
from easeml_core.services.operations.doctor import (
    Installation,
    check_clock,
    check_database,
    check_disk,
    check_extras,
    check_packages,
    check_sealed,
    check_secrets,
    examine,
)
from easeml_core.services.studies.logins import end_login, make_login
from easeml_core.store import schema
from easeml_core.store.artifacts import disk
from easeml_core.store.database import Store
from easeml_core.store.logins import map_login
from easeml_core.store.queries import health
from easeml_core.store.queries.health import WorkerRights
from easeml_core.store.rows import change, scalar
from easeml_core.store.tables import referee_claims
from easeml_core.store.tables.scheduler_requests import note_beat

if TYPE_CHECKING:
    from pathlib import Path


def answer(checks: Any) -> dict[str, Any]:
    return {check.name: check for check in checks}


def as_superuser(database: Any, statement: str) -> None:
    with closing(database.server.connect(database=database.name)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def test_a_sound_installation_has_no_failed_check(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the state of a stack in this folder is not looked at
    place = Installation(
        url=database.url("easeml_worker"),
        url_from="--database",
        home=tmp_path / ".easeml",
        artifacts=str(tmp_path),
        environment={},
    )
    looked_at: list[str] = []
    found = examine(place, looked_at.append)
    assert [check for check in found if check.state == "failed"] == []
    assert len({check.name for check in found}) == len(found) >= 15
    assert looked_at[0] == "versions"
    assert all(check.remedy for check in found if check.state == "warning")
    checks = answer(found)
    assert checks["schema"].found == f"revision {schema.REVISION}"
    assert checks["sealed sets"].found == "closed to easeml_worker"
    assert checks["tenants"].found.startswith(("one team", "logins of tenants: "))  # other tests have made some
    assert checks["referee"].found == "nothing waits for it"
    assert "as easeml_worker" in checks["database"].found
    assert to_json(found)[0]["name"] == "python"


def contributed(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Let one entry point of the group be there: this one."""
    entry = metadata.EntryPoint("others", value, doctor.CONTRIBUTED)
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [entry] if group == doctor.CONTRIBUTED else [])


def nothing_installed(tmp_path: Path) -> Installation:
    return Installation(
        url=None, url_from="nowhere", home=tmp_path / "none", artifacts=str(tmp_path), environment={"A": "b"}
    )


def sees_the_place(place: Installation) -> list[Check]:
    return [Check("seen", "ok", place.environment["A"])]


def breaks(_place: Installation) -> list[Check]:
    raise LookupError("a")


def test_checks_of_another_package_come_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "another_package", sys.modules[__name__])
    contributed(monkeypatch, "another_package:sees_the_place")
    looked_at: list[str] = []
    checks = answer(examine(nothing_installed(tmp_path), looked_at.append))
    assert checks["seen"] == Check("seen", "ok", "b")
    assert looked_at.index("put-offs") < looked_at.index("others") < looked_at.index("disk")
    for broken, error in (("breaks", "LookupError: a"), ("gone", "AttributeError")):
        contributed(monkeypatch, f"another_package:{broken}")
        check = answer(examine(nothing_installed(tmp_path)))["others"]
        assert (check.state, f"another_package:{broken} end with {error}" in check.found) == ("failed", True)
        assert "devices" in answer(examine(nothing_installed(tmp_path))), "the others are made all the same"


@pytest.mark.parametrize("role", ["easeml_owner", "easeml_referee"])
def test_every_role_of_ours_may_look(database: Any, role: str) -> None:
    checks = answer(check_database(database.url(role), "--database"))
    policy = checks.pop("policy").state
    assert policy == ("skipped" if role == "easeml_referee" else "ok")
    assert {check.state for check in checks.values()} == {"ok"}
    assert f"the address is of {role}" in checks["roles"].found
    assert "never give this address to tasks" in checks["roles"].remedy


@pytest.mark.parametrize("role", ["easeml_owner", "easeml_referee", "easeml_worker"])
def test_logins_of_another_database_on_the_server_are_not_ours(database: Any, role: str) -> None:
    """Roles belong to the whole server: a tenant's login of its neighbour asked for a scheduler here."""
    login = "easeml_t_of-a-neighbour"
    with database.server._administering() as server:
        server.execute(f'CREATE ROLE "{login}"')
    try:
        checks = answer(check_database(database.url(role), "--database"))
        assert (checks["scheduler"].state, checks["tenants"].found[:9]) == ("ok", "one team:")
        with database.owner.begin() as tx:
            tenant = scalar(tx, "INSERT INTO work.tenants (name) VALUES ('lab') RETURNING id")
            map_login(tx, login, [tenant])
        checks = answer(check_database(database.url(role), "--database"))
        assert (checks["scheduler"].state, checks["tenants"].found[:20]) == ("warning", "logins of tenants: 1")
        with database.owner.begin() as tx:
            map_login(tx, login, [])
            note_beat(tx, None)
        checks = answer(check_database(database.url(role), "--database"))
        assert "1 process of `easeml scheduler` at work" in checks["scheduler"].found  # for workers' logins, say
    finally:
        with database.server._administering() as server:
            server.execute(f'DROP ROLE "{login}"')


def test_who_can_become_the_owner_is_named(database: Any) -> None:
    """A login that is a member of easeml_owner reads what is sealed; one of ours needs no right over the server."""
    names = ("an-administrator", "easeml_t_strong")
    with database.server._administering() as server:
        for name, strong in zip(names, ("easeml_owner", "pg_read_all_data"), strict=True):
            server.execute(f'DROP ROLE IF EXISTS "{name}"; CREATE ROLE "{name}"; GRANT {strong} TO "{name}"')
        try:
            for state, found in (("failed", "easeml_t_strong is a member of pg_read_all_data"), ("warning", "")):
                check = answer(check_database(database.url("easeml_worker"), "--database"))["roles"]
                assert check.state == state
                assert "an-administrator is a member of easeml_owner" in check.found
                assert found in check.found
                server.execute("DROP ROLE IF EXISTS easeml_t_strong")
        finally:
            server.execute('DROP ROLE IF EXISTS easeml_t_strong; DROP ROLE "an-administrator"')


def test_logins_that_could_use_up_the_server_are_a_warning(database: Any) -> None:
    administrator = Store(database.url("postgres"))
    with administrator.begin() as tx:
        scalar(tx, "INSERT INTO work.tenants (name) VALUES ('lab') RETURNING id")
    for number in range(1, 5):
        make_login(administrator, name=f"crowd-{number}", tenants=["lab"])
    try:
        looked = partial(check_database, database.url("easeml_worker"), "--database")
        check = answer(looked())["tenants"]
        assert (check.state, "logins may open 200 of the server's 200" in check.found) == ("warning", True)
        with administrator.begin() as tx:
            tx.exec_driver_sql('ALTER ROLE "easeml_t_crowd-1" CONNECTION LIMIT -1')
        assert "no limit of connections: easeml_t_crowd-1" in answer(looked())["tenants"].found
    finally:
        for number in range(1, 5):
            end_login(administrator, name=f"crowd-{number}")
        administrator.close()
    room = health.Capacity(2, (), 100, 200, 6400, 100)
    assert crowding(room) == (
        "logins may hold 10,000 locks, and the server has room for 6,400",
        "set max_locks_per_transaction to 100 or more",
    )
    assert crowding(room._replace(locks=10_000)) == ("", "")


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
        assert [check.state for check in found] == ["failed", *["skipped"] * 8]
        assert "somewhere" in found[0].found


def test_an_old_schema_is_named_with_the_command(database: Any) -> None:
    with database.owner.begin() as tx:
        change(tx, "UPDATE work.alembic_version SET version_num = 'r0000'")
    checks = answer(check_database(database.url("easeml_worker"), "--database"))
    assert (checks["schema"].state, checks["referee"].state) == ("failed", "skipped")
    assert f"revision r0000, this version needs {schema.REVISION}" in checks["schema"].found
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
    check = answer(check_database(database.url("easeml_worker"), "--database"))["sealed sets"]
    assert (check.state, way in check.found) == ("failed", True)
    assert "seal new sets" in check.remedy


@pytest.mark.parametrize(
    "opened",
    [
        "EXECUTE ON FUNCTION pg_stat_get_tuples_inserted(oid)",
        "EXECUTE ON FUNCTION pg_blocking_pids(integer)",
        "SELECT ON pg_class",
    ],
)
def test_statistics_that_are_open_are_a_warning(opened: str, database: Any) -> None:
    as_superuser(database, f"GRANT {opened} TO PUBLIC")
    check = answer(check_database(database.url("easeml_worker"), "--database"))["sealed sets"]
    assert (check.state, "docs/install.md" in check.remedy) == ("warning", True)


def test_membership_is_a_way_too() -> None:
    names = ("is_super", "is_referee", "is_owner", "may_enter", "may_watch")
    shut = WorkerRights(**dict.fromkeys(names, False))
    assert check_sealed(shut).state == "ok"
    for way in ("is_super", "is_referee", "is_owner"):
        assert check_sealed(replace(shut, **{way: True})).state == "failed"


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
    check = answer(check_database(database.url("easeml_worker"), "--database"))["referee"]
    assert check.state == state
    if minutes:
        assert f"1 {kind} request, the oldest {minutes} min" in check.found


@pytest.mark.parametrize(("waits", "state"), [(False, "warning"), (True, "failed")])
def test_a_referee_that_has_ended_is_reported_before_anything_is_late(
    database: Any, make_study: Any, waits: bool, state: str
) -> None:
    make_study("cancer")
    with database.referee.begin() as tx:
        referee_claims.add_referee(tx, lease_seconds=60.0)
    if waits:
        with database.owner.begin() as tx:
            filed = "INSERT INTO work.requests (request_key, kind, study_id) SELECT 'k', 'seal', id FROM work.studies"
            change(tx, filed)
    url = database.url("easeml_worker")
    assert answer(check_database(url, "--database"))["referee"].state == "ok"
    with database.owner.begin() as tx:  # also of the one that has sealed the study
        change(tx, "UPDATE work.heartbeats SET beat_at = n.at, until = n.at FROM (SELECT clock_timestamp() AS at) n")
    check = answer(check_database(url, "--database"))["referee"]
    assert check.state == state
    assert check.found.startswith("no referee runs since 0 s: start one with `easeml referee`")


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
    monkeypatch.setattr(doctor, "DISTRIBUTION", "not-installed")
    assert [check_packages().state, check_extras().state] == ["skipped", "skipped"]


def test_little_room_is_a_warning_and_none_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([10**10, 10**9, 10**7])
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(sizes), total=10**12))
    assert [check.state for check in check_disk(str(tmp_path), tmp_path)] == ["ok", "warning", "failed"]


def test_a_bucket_has_no_disk_here(tmp_path: Path) -> None:
    checks = answer(check_disk("s3://key:secret@bucket/easeml", tmp_path / "not" / "there"))
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
