"""Every named constraint is violated once, by a row that breaks nothing else; one without a case fails here.

A case copies a row that is there and changes some columns. The rows come from the fixture ``world``; beside it lies a
second study, so that a reference across studies is tried where one within is allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from constraint_cases import CASES, Case

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., list[tuple[Any, ...]]]

_CONSTRAINTS = """
SELECT format('%s.%s', n.nspname, o.conname), o.contype, c.oid::regclass::text,
       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum = ANY(o.conkey)), o.conindid
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('work', 'sealed') AND c.relname <> 'alembic_version' AND o.contype <> 't'
UNION
SELECT format('%s.%s', n.nspname, x.relname), 'u', i.indrelid::regclass::text, '{}', x.oid
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
WHERE n.nspname IN ('work', 'sealed') AND i.indisunique AND NOT EXISTS (
  SELECT 1 FROM pg_constraint WHERE conindid = x.oid AND contype IN ('p', 'u'))
"""
_STORED = """
SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
AND attgenerated = ''
"""
_COLUMNS = _STORED + "AND attidentity = ''"


@pytest.fixture
def places(world: Any, make_rows: Any, add_data: Any, succeed: Any, file: Any, ask: Ask) -> dict[str, int]:
    """Ids that the cases name."""
    study, other = world.study, make_rows("other", tenant="other")
    _, rival = succeed(other, 0)
    ((planned,),) = ask(
        "INSERT INTO work.test_sets (study_id, data_version_id, purpose, state, rows, steps, plan, name) "
        "VALUES (%s, %s, 'gate', 'planned', 5, 3, '{}', 'next') RETURNING id",
        study.study_id,
        study.version_id,
    )
    ((direct,),) = ask(
        "INSERT INTO work.test_sets (study_id, data_version_id, purpose, state, rows, steps, plan) "
        "VALUES (%s, %s, 'direct', 'live', 5, 3, '{}') RETURNING id",
        study.study_id,
        study.version_id,
    )
    ((data_set,),) = ask("SELECT data_set_id FROM work.studies WHERE name = 'other'")
    again = {
        f"{kind}2": file(study, kind, world.model_id, key=f"{kind}2")
        for kind in ("gate", "meter", "promote", "rollback")
    }
    return again | {
        "waiting": world.waiting,
        "running": world.running,
        "model": world.model_id,
        "gate_set": world.gate_set,
        "meter_set": world.meter_set,
        "planned": planned,
        "direct_set": direct,
        "second_version": add_data(study),
        "failed": file(other, "gate", rival),
        "other": other.study_id,
        "other_data_set": data_set,
        "other_version": other.version_id,
        "other_baseline": other.baseline_id,
        "other_candidate": other.candidates[0],
    }


ROWS = {
    "waiting": "state = 'SUGGESTED'",
    "running": "state = 'RUNNING'",
    "done": "trial_id IS NOT NULL",
    "seal": "kind = 'seal'",
    "gate": "kind = 'gate'",
    "ledger": "kind = 'ledger'",
}


def copy_of(ask: Ask, case: Case, places: dict[str, int]) -> str:
    """The statement that inserts the changed copy: of the oldest row, since any other order changes by itself."""
    (name, *which), changes = case[0].split(), case[1]
    table = name if "." in name else f"work.{name}"
    columns = [c for (c,) in ask(_COLUMNS, table)]
    assert set(changes) <= set(columns), f"{table} has no {set(changes) - set(columns)}"
    ((first,),) = ask(_STORED + "ORDER BY attnum LIMIT 1", table)
    values = ", ".join(changes.get(c, c).format(**places) for c in columns)
    condition = {"trials done": "state = 'SUCCEEDED'"}.get(case[0], ROWS[which[0]] if which else "true")
    source = f"{table} WHERE {condition} ORDER BY {first} LIMIT 1"
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {source}"


def refused_by(ask: Ask, statement: str) -> str:
    """Constraint that refuses the statement, with its schema; a column for NOT NULL."""
    try:
        ask(statement)
    except psycopg2.IntegrityError as error:
        return f"{error.diag.schema_name}.{error.diag.constraint_name or error.diag.column_name}"
    return "nothing"


def test_every_constraint_refuses_what_it_is_there_for(ask: Ask, places: dict[str, int]) -> None:
    for constraint, cases in CASES.items():
        for case in cases:
            found = refused_by(ask, copy_of(ask, case, places))
            assert found == constraint, f"{case} should be refused by {constraint}, was by {found}"


def test_a_set_has_one_alarm(ask: Ask, places: dict[str, int]) -> None:
    alarm = (
        "INSERT INTO work.alerts (study_id, kind, test_set_id, message) "
        f"SELECT study_id, 'new-test-set', id, 'x' FROM work.test_sets WHERE id = {places['gate_set']}"
    )
    ask(alarm)
    assert refused_by(ask, alarm) == "work.alerts_test_set_key"


def test_every_constraint_has_a_case(ask: Ask) -> None:
    found = ask(_CONSTRAINTS)
    referenced = {index for _, kind, _, _, index in found if kind == "f"}
    keys = {table: set(columns) for _, kind, table, columns, _ in found if kind == "p"}
    untested = set()
    for name, kind, table, columns, index in found:
        # Wider than the primary key: it can refuse nothing, it is there to be pointed at.
        pointed_at = kind == "u" and keys[table] <= set(columns)
        assert not pointed_at or index in referenced, f"{name} serves nothing"
        if kind in ("c", "f", "u") and not pointed_at:
            untested.add(name)
    assert untested - set(CASES) == set(), "constraints without a case"
    assert set(CASES) - untested == set(), "cases without a constraint"


def test_every_constraint_has_a_name_of_ours(ask: Ask) -> None:
    """The names are relied on: PostgreSQL's own (``_key1``, ``_not_null`` apart) would change with the order."""
    endings = {"p": "_pkey", "f": "_fkey", "u": "_key", "c": "_check", "n": "_not_null"}
    odd = [name for name, kind, _, _, _ in ask(_CONSTRAINTS) if not name.endswith(endings[kind])]
    assert odd == []


def test_every_primary_key_refuses_a_second_row(ask: Ask, places: dict[str, int]) -> None:
    primary = [(name, table) for name, kind, table, _, _ in ask(_CONSTRAINTS) if kind == "p"]
    assert len(primary) == 67
    for name, table in primary:
        columns = ", ".join(c for (c,) in ask(_STORED, table))
        again = f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {table} LIMIT 1"
        assert refused_by(ask, again) == name


def test_every_required_column_refuses_null(ask: Ask, places: dict[str, int]) -> None:
    required = ask(
        "SELECT c.oid::regclass::text, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "WHERE c.relnamespace IN ('work'::regnamespace, 'sealed'::regnamespace) AND c.relkind = 'r' "
        "AND a.attnum > 0 AND a.attnotnull AND a.attidentity = '' AND a.attgenerated = '' "
        "AND c.relname <> 'alembic_version'"
    )
    assert len(required) > 100
    for table, column in required:
        found = refused_by(ask, copy_of(ask, (table, {column: "NULL"}), places))
        assert found == f"{table.split('.')[0]}.{column}", (table, column)
