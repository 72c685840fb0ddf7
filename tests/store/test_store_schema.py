"""The schema's version: upgraded once by any number of callers, and named when it is another one."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from easeml_core.errors import SchemaVersionError, StoreError
from easeml_core.store import schema
from easeml_core.store.database import Store
from easeml_core.store.rows import change, rows, scalar
from easeml_core.store.tables import row_registry

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


def test_revisions_are_an_r_and_four_digits_so_that_ahead_and_behind_can_be_distinguished() -> None:
    revisions = [s.revision for s in ScriptDirectory.from_config(schema.alembic_config()).walk_revisions()]
    assert all(SchemaVersionError.is_released(r) for r in revisions)


def test_an_upgrade_may_be_repeated(database: Any) -> None:
    with database.owner.begin() as tx:
        change(tx, "INSERT INTO work.tenants (name) VALUES ('lab')")
    assert schema.upgrade(database.owner) == schema.upgrade(database.owner) == schema.REVISION
    with database.worker.begin() as tx:
        assert scalar(tx, "SELECT count(*) FROM work.tenants") == 1


STUDIES = """
INSERT INTO work.tenants (name) VALUES ('lab');
INSERT INTO work.data_sets (tenant_id, source) VALUES (1, 'csv:a');
INSERT INTO work.studies (name, tenant_id, data_set_id, state, metric, budget_seconds, config, request_key)
VALUES ('cancer', 1, 1, 'ACTIVE', 'accuracy', 10, '{}', 'k'), ('new', 1, 1, 'REGISTERED', 'accuracy', NULL, '{}', 'l');
INSERT INTO work.data_versions (study_id, data_set_id, version, content_hash, artifact, features, class_names)
VALUES (1, 1, 1, 'a', 'sha256' || chr(58) || repeat('0', 64), 4, '[]');
"""


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


@pytest.mark.parametrize(
    ("revision", "remedy"),
    [
        ("r0000", "run `easeml db upgrade`"),
        ("r9999", "install the version"),
        ("0049", "it is from before the first release"),
    ],
)
def test_another_revision_is_refused_with_what_helps(database: Any, revision: str, remedy: str) -> None:
    set_revision(database, revision)
    with pytest.raises(
        SchemaVersionError, match=rf"has schema {revision}, this version needs {schema.REVISION}; {remedy}"
    ):
        Store(database.url("easeml_worker")).begin().__enter__()


def test_an_upgrade_does_not_touch_a_database_that_is_ahead(database: Any) -> None:
    set_revision(database, "r9999")
    with pytest.raises(SchemaVersionError, match="install the version of easeml-airflow that made it"):
        schema.upgrade(database.owner)
    with database.owner.begin(check_schema=False) as tx:
        assert schema.current(tx) == "r9999"


def test_an_upgrade_does_not_touch_a_database_from_before_the_first_release(database: Any) -> None:
    set_revision(database, "0049")
    with pytest.raises(SchemaVersionError, match="cannot be upgraded: name an empty database"):
        schema.upgrade(database.owner)
    with database.owner.begin(check_schema=False) as tx:
        assert schema.current(tx) == "0049"


SECOND = """
from alembic import op

revision = "r0002"
down_revision = "r0001"


def upgrade() -> None:
    op.execute("ALTER TABLE work.tenants ADD COLUMN colour text NOT NULL DEFAULT 'blue'")
    op.execute("GRANT SELECT (colour) ON work.tenants TO easeml_worker")
"""


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Make this the code of a version with one more migration."""
    there = Path(schema.__file__).parent / "migrations"

    def install(migration: str) -> None:
        shutil.copytree(there, tmp_path / "migrations", dirs_exist_ok=True)
        (tmp_path / "migrations" / "versions" / "r0002_colours.py").write_text(migration)
        monkeypatch.setattr(schema, "_MIGRATIONS", tmp_path / "migrations")
        monkeypatch.setattr(schema, "REVISION", "r0002")

    return install


def test_a_next_version_upgrades_a_database_and_keeps_its_rows(
    empty: Callable[[str], Store], next_version: Callable[[str], None]
) -> None:
    owner = empty("owner")
    schema.upgrade(owner)
    with owner.begin() as tx:
        change(tx, STUDIES)
    next_version(SECOND)
    with pytest.raises(SchemaVersionError, match="has schema r0001, this version needs r0002; run `easeml db upgrade`"):
        empty("worker").begin().__enter__()
    assert schema.upgrade(owner) == schema.upgrade(owner) == "r0002"
    with empty("worker").begin() as tx:
        assert scalar(tx, "SELECT count(*) FROM work.studies") == 2
        assert scalar(tx, "SELECT colour FROM work.tenants") == "blue"


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    empty: Callable[[str], Store], next_version: Callable[[str], None]
) -> None:
    owner = empty("owner")
    schema.upgrade(owner)
    next_version(SECOND + '    op.execute("SELECT 1 / 0")\n')
    with pytest.raises(StoreError, match="division by zero"):
        schema.upgrade(owner)
    with owner.begin(check_schema=False) as tx:
        assert schema.current(tx) == "r0001"
        columns = (
            "SELECT count(*) FROM information_schema.columns WHERE table_name = 'tenants' AND column_name = 'colour'"
        )
        assert scalar(tx, columns) == 0


def test_only_the_owner_upgrades(empty: Callable[[str], Store]) -> None:
    for role in ("worker", "referee"):
        with pytest.raises(StoreError, match="this role may not do that: permission denied for database"):
            schema.upgrade(empty(role))


def test_the_schema_is_checked_once_a_store_not_once_a_transaction(database: Any) -> None:
    with database.worker.begin():
        pass
    set_revision(database, "r9999")
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
    """First rows, later ones of the same source, a packed part, and a column that is removed."""
    rng = np.random.default_rng(27)
    first, second = (
        np.column_stack([rng.integers(1, 2**64, (n, 2), dtype=np.uint64), np.arange(n) % 3]) for n in (30, 9)
    )
    large = rng.integers(1, 2**64, (2_100, 64), dtype=np.uint64)
    first, second = first.astype(np.uint64), second.astype(np.uint64)
    ids = [[bytes([block]) * 8 + row.to_bytes(8, "big") for row in range(2_100)] for block in range(3)]
    owner = empty("owner")
    schema.upgrade(owner)
    with owner.begin() as tx:
        change(tx, STUDIES)
        sources = [row_registry.add_source(tx, study, np.ones(2, dtype=np.uint64)) for study in (1, 2)]
        row_registry.add_rows(tx, sources[0], ids[0][:30], first, None)
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
