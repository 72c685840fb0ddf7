"""The schema's version: upgraded once by any number of callers, and named when it is another one."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import text

from easeml_core.entities import TrialState
from easeml_core.errors import SchemaVersionError, StoreError
from easeml_core.store import schema
from easeml_core.store.database import Store
from easeml_core.store.rows import as_json, change, pack, rows, scalar
from easeml_core.store.tables import capacity, leases, row_registry, trials
from easeml_core.store.tables.sealed import fingerprint
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from sqlalchemy import Connection

WRITERS = 8


@pytest.fixture
def empty(server: Any) -> Iterator[Callable[[str], Store]]:
    """An installation's database before its first migration, as each role sees it."""
    server.create_database_from_template("empty", "template0")
    opened: list[Store] = []

    def open_store(role: str) -> Store:
        opened.append(Store(server.url(f"easeml_{role}", "empty")))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()
    server.drop_database("empty")


def test_the_code_expects_the_newest_migration_and_there_is_one_line_of_them() -> None:
    script = ScriptDirectory.from_config(schema.alembic_config())
    assert script.get_heads() == [schema.REVISION]


def test_revisions_are_four_digits_so_that_ahead_and_behind_can_be_distinguished() -> None:
    revisions = [s.revision for s in ScriptDirectory.from_config(schema.alembic_config()).walk_revisions()]
    assert all(len(r) == 4 and r.isdecimal() for r in revisions)


def test_an_upgrade_may_be_repeated(database: Any) -> None:
    with database.owner.begin() as tx:
        change(tx, "INSERT INTO work.tenants (name) VALUES ('lab')")
    assert schema.upgrade(database.owner) == schema.upgrade(database.owner) == schema.REVISION
    with database.worker.begin() as tx:
        assert scalar(tx, "SELECT count(*) FROM work.tenants") == 1


def at_revision(store: Store, revision: str) -> None:
    """Bring an empty database to an earlier schema, as an installation of that time has it."""
    config = schema.alembic_config()
    with store.begin(check_schema=False) as tx:
        change(tx, "CREATE SCHEMA IF NOT EXISTS work")
        change(tx, "CREATE SCHEMA IF NOT EXISTS sealed")
        config.attributes["connection"] = tx
        command.upgrade(config, revision)


EARLIER = """
INSERT INTO work.tenants (name) VALUES ('lab');
INSERT INTO work.data_sets (tenant_id, source) VALUES (1, 'csv:a');
INSERT INTO work.studies (name, tenant_id, data_set_id, state, metric, budget_seconds, config, request_key)
VALUES ('cancer', 1, 1, 'ACTIVE', 'accuracy', 10, '{}', 'k'), ('new', 1, 1, 'REGISTERED', 'accuracy', NULL, '{}', 'l');
INSERT INTO work.data_versions (study_id, data_set_id, version, content_hash, artifact, features, class_names)
VALUES (1, 1, 1, 'a', 'sha256' || chr(58) || repeat('0', 64), 4, '[]');
INSERT INTO work.candidates (study_id, name, kind) VALUES (1, 'a', 'tree'), (1, 'b', 'tree'), (1, 'c', 'tree');
INSERT INTO work.trials (study_id, candidate_id, data_version_id) VALUES (1, 1, 1), (1, 2, 1), (1, 3, 1);
UPDATE work.trials SET state = 'RUNNING', attempt = 1, lease_key = 'k', lease_until = now(), started_at = now()
WHERE id < 3;
UPDATE work.trials SET state = 'SUCCEEDED', lease_key = NULL, finished_at = now(), cost_seconds = 7 WHERE id = 1;
"""


def test_an_installation_of_the_first_schema_is_upgraded_with_its_trials_under_way(
    empty: Callable[[str], Store],
) -> None:
    owner = empty("owner")
    at_revision(owner, "0001")
    with owner.begin(check_schema=False) as tx:
        change(tx, EARLIER)
    assert schema.upgrade(owner) == schema.REVISION
    with empty("worker").begin() as tx:
        assert scalar(tx, "SELECT count(*) FROM work.studies WHERE active_since IS NOT NULL") == 1
        running = "SELECT attempt_started_at = started_at FROM work.trials WHERE state = 'RUNNING'"
        assert scalar(tx, running) is True
        assert scalar(tx, "SELECT sum(lost_seconds) FROM work.trials") == 0
        # 7 of 10 s are used: the two that are open share the rest, and a third has no room.
        shares = "SELECT limit_seconds FROM work.trials WHERE finished_at IS NULL"
        assert [r.limit_seconds for r in rows(tx, shares)] == pytest.approx([1.5, 1.5], rel=1e-5)
        assert 0 <= capacity.seconds_left(tx, 1) < 1e-4
        ended = {"trial_id": 2, "attempt": 1, "state": TrialState.SUCCEEDED, "cost_seconds": 1.0}
        assert leases.finish_trial(tx, **ended)
        trials.request_cancel(tx, 3)
        assert capacity.seconds_left(tx, 1) == 2.0


def test_a_budget_that_was_exceeded_under_the_first_schema_is_raised_to_what_was_used(
    empty: Callable[[str], Store],
) -> None:
    owner = empty("owner")
    at_revision(owner, "0001")
    with owner.begin(check_schema=False) as tx:
        change(tx, EARLIER)
        change(tx, "UPDATE work.studies SET budget_seconds = 5 WHERE name = 'cancer'")
    schema.upgrade(owner)
    with empty("worker").begin() as tx:
        assert scalar(tx, "SELECT budget_seconds FROM work.studies WHERE id = 1") == 9.0  # 7 used, and 1 s for each
        assert 0 <= capacity.seconds_left(tx, 1) < 1e-4


def test_sets_of_an_earlier_schema_are_hashed_anew(empty: Callable[[str], Store]) -> None:
    """Two sets of two studies with the same rows, whose columns have another order: sealed twice before."""
    owner = empty("owner")
    at_revision(owner, "0005")
    tables = {"ab": np.float32([[1, 0], [3, 4]]), "ba": np.float32([[0, 1], [4, 3]])}
    earlier, _, _ = EARLIER.partition("INSERT INTO work.candidates")
    with owner.begin(check_schema=False) as tx:
        change(tx, earlier)
        change(
            tx,
            "INSERT INTO work.data_versions (study_id, data_set_id, version, content_hash, artifact, features, "
            "class_names) SELECT 2, 1, 1, 'b', artifact, 2, '[]' FROM work.data_versions",
        )
        for number, (names, table) in enumerate(tables.items(), 1):
            change(
                tx,
                "UPDATE work.data_versions SET features = 2, feature_names = CAST(:names AS jsonb) WHERE id = :id",
                names=as_json(list(names)),
                id=number,
            )
            change(
                tx,
                "INSERT INTO work.test_sets (study_id, data_version_id, purpose, rows, steps, plan) "
                "VALUES (:id, :id, 'gate', 2, 1, '{}')",
                id=number,
            )
            old = [hashlib.sha256(row.tobytes()).digest() for row in table]
            change(
                tx,
                "INSERT INTO sealed.test_sets (id, steps, fingerprint, inputs, labels) "
                "VALUES (:id, 1, :fingerprint, :inputs, :inputs)",
                id=number,
                fingerprint=fingerprint(old),
                inputs=pack(table),
            )
            change(
                tx,
                "INSERT INTO sealed.examples (study_id, hash, test_set_id) "
                "SELECT :id, hash, :id FROM unnest(CAST(:hashes AS bytea[])) AS hash",
                id=number,
                hashes=old,
            )
        second = scalar(tx, "SELECT fingerprint FROM sealed.test_sets WHERE id = 2")
    schema.upgrade(owner)
    expected = set(example_hashes(tables["ab"], ["a", "b"]))
    with owner.begin() as tx:
        for number in (1, 2):
            found = rows(tx, "SELECT hash FROM sealed.examples WHERE test_set_id = :id AND study_id = :id", id=number)
            assert {bytes(r.hash) for r in found} == expected
        kept = rows(tx, "SELECT fingerprint FROM sealed.test_sets ORDER BY id")
    assert [r.fingerprint for r in kept] == [fingerprint(list(expected)), second]


def test_the_audit_of_an_earlier_installation_begins_with_what_its_tables_knew(empty: Callable[[str], Store]) -> None:
    owner = empty("owner")
    at_revision(owner, "0007")
    earlier, _, _ = EARLIER.partition("INSERT INTO work.candidates")
    with owner.begin(check_schema=False) as tx:
        change(tx, earlier.replace("'{}'", '\'{"training": {"max_attempts": 3}}\''))
        change(
            tx,
            "INSERT INTO work.test_sets (study_id, data_version_id, purpose, state, rows, steps, plan, retired_at, "
            "retired_why) VALUES (1, 1, 'gate', 'retired', 5, 3, '{}', now() + interval '1 h', 'steps')",
        )
    schema.upgrade(owner)
    with empty("worker").begin() as tx:
        found = rows(tx, "SELECT act, who, door, tenant_id FROM work.audit ORDER BY id")
    assert sorted(r.act for r in found) == ["set retired", "set sealed", "study registered", "study registered"]
    assert found[-1].act == "set retired"
    assert {(r.who, r.door, r.tenant_id) for r in found} == {("not recorded", "before the audit", 1)}


def test_eight_first_upgrades_at_once_give_one_schema_with_a_secret_of_its_own(
    empty: Callable[[str], Store], database: Any
) -> None:
    stores, start = [empty("owner") for _ in range(WRITERS)], Barrier(WRITERS)

    def upgrade(store: Store) -> str:
        start.wait()
        return schema.upgrade(store)

    with ThreadPoolExecutor(WRITERS) as pool:
        assert list(pool.map(upgrade, stores)) == [schema.REVISION] * WRITERS
    with empty("worker").begin() as tx:
        assert scalar(tx, "SELECT count(*) FROM work.trials") == 0
    secrets = []
    for store in (empty("referee"), database.referee):
        with store.begin() as tx:
            secrets += [r.secret for r in rows(tx, "SELECT secret FROM sealed.installation")]
    assert len(set(secrets)) == len(secrets) == 2


def test_an_empty_database_is_refused_with_the_command_that_helps(empty: Callable[[str], Store]) -> None:
    with pytest.raises(
        SchemaVersionError, match=rf"has schema none, .* needs {schema.REVISION}; run `easeml db upgrade`"
    ) as caught:
        empty("worker").begin().__enter__()
    assert (caught.value.found, caught.value.expected) == (None, schema.REVISION)


@pytest.mark.parametrize(("revision", "remedy"), [("0000", "run `easeml db upgrade`"), ("9999", "install the version")])
def test_another_revision_is_refused_with_what_helps(database: Any, revision: str, remedy: str) -> None:
    set_revision(database, revision)
    with pytest.raises(
        SchemaVersionError, match=rf"has schema {revision}, this version needs {schema.REVISION}; {remedy}"
    ):
        Store(database.url("easeml_worker")).begin().__enter__()


def test_an_upgrade_does_not_touch_a_database_that_is_ahead(database: Any) -> None:
    set_revision(database, "9999")
    with pytest.raises(SchemaVersionError, match="install the version of easeml-airflow that made it"):
        schema.upgrade(database.owner)
    with database.owner.begin(check_schema=False) as tx:
        assert schema.current(tx) == "9999"


def test_only_the_owner_upgrades(empty: Callable[[str], Store]) -> None:
    for role in ("worker", "referee"):
        with pytest.raises(StoreError, match="this role may not do that: permission denied for database"):
            schema.upgrade(empty(role))


def test_the_schema_is_checked_once_a_store_not_once_a_transaction(database: Any) -> None:
    with database.worker.begin():
        pass
    set_revision(database, "9999")
    with database.worker.begin() as tx:
        assert tx.execute(text("SELECT 1")).scalar() == 1


def set_revision(database: Any, revision: str) -> None:
    with database.owner.begin(check_schema=False) as tx:
        change(tx, "UPDATE work.alembic_version SET version_num = :revision", revision=revision)


def values_of(rows_of_part: NDArray[np.uint64]) -> list[list[int]]:
    """The common values of rows that were registered together, and the other values of each row, sorted."""
    values, counts = np.unique(rows_of_part[rows_of_part > 0], return_counts=True)
    common = values[counts > 8].tolist()
    others = [sorted(set(row.tolist()) - {0, *common}) for row in rows_of_part]
    return sorted([common, *(row for row in others if row)])


def indexed(tx: Connection, values: NDArray[np.uint64]) -> list[list[list[int]]]:
    """The same of all parts, from the index."""
    found = row_registry.shared_values(tx, np.unique(values[values > 0]))
    parts = []
    for part in range(len(found.sources)):
        tokens, numbers = found.tokens[found.parts == part], found.rows[found.parts == part]
        by_row = [sorted(tokens[numbers == row].tolist()) for row in np.unique(np.append(0, numbers))]
        parts.append(sorted(by_row))
    return sorted(parts)


def newest_part(tx: Connection) -> int:
    return int(scalar(tx, "SELECT max(id) FROM sealed.row_parts"))


def test_the_index_of_values_follows_the_registry(empty: Callable[[str], Store]) -> None:
    """Rows from before the index, later ones of the same source, a packed part, and a column that is removed."""
    rng = np.random.default_rng(27)
    first, second = (
        np.column_stack([rng.integers(1, 2**64, (n, 2), dtype=np.uint64), np.arange(n) % 3]) for n in (30, 9)
    )
    large = rng.integers(1, 2**64, (2_100, 64), dtype=np.uint64)
    first, second = first.astype(np.uint64), second.astype(np.uint64)
    ids = [[bytes([block]) * 8 + row.to_bytes(8, "big") for row in range(2_100)] for block in range(3)]
    owner = empty("owner")
    at_revision(owner, "0026")
    with owner.begin(check_schema=False) as tx:
        change(tx, EARLIER.partition("INSERT INTO work.candidates")[0])
        sources = [row_registry.add_source(tx, study, np.ones(2, dtype=np.uint64)) for study in (1, 2)]
        row_registry.add_rows(tx, sources[0], ids[0][:30], first, None)
    schema.upgrade(owner)
    with owner.begin() as tx:
        assert indexed(tx, first) == [values_of(first)]
        row_registry.add_rows(tx, sources[0], ids[1][:9], second, None)
        row_registry.add_rows(tx, sources[1], ids[2], large, None)
        assert rows(tx, "SELECT is_packed FROM sealed.row_parts ORDER BY id") == [(False,), (False,), (True,)]
        some = np.concatenate([first.ravel(), second.ravel(), large[5], large[:, 7][:9]])
        hit = np.where(np.isin(large, some), large, 0)
        assert indexed(tx, some) == sorted(map(values_of, (first, second, hit)))
        row_registry.forget_columns(tx, ids[0][:30], (1, 2))
        first[:, 1:] = 0
        assert indexed(tx, some) == sorted(map(values_of, (np.concatenate([first, second]), hit)))
        made = newest_part(tx)
        row_registry.forget_columns(tx, ids[0][:30], ())  # the index is made anew all the same
        assert newest_part(tx) > made
        change(tx, "UPDATE sealed.registry SET state = 'open'")
        assert scalar(tx, "SELECT count(*) FROM sealed.row_parts") == 2
