"""Tables of both schemas, and what each role may do with them, as a migrated database says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_pages.docstring import table

if TYPE_CHECKING:
    from psycopg2.extensions import connection

ROLES = ("easeml_worker", "easeml_referee")
ACTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_TABLES = """
SELECT n.nspname, c.relname, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('work', 'sealed') AND c.relkind IN ('r', 'v', 'm', 'p') ORDER BY n.nspname DESC, c.relname
"""
_MAY = "SELECT has_schema_privilege(%s, %s, 'USAGE') AND has_table_privilege(%s, %s::oid, %s)"
_SOME = "SELECT has_schema_privilege(%s, %s, 'USAGE') AND has_any_column_privilege(%s, %s::oid, %s)"
INTRODUCTION = """\
The rights of the two roles that work, table by table, as the migrations grant them. `easeml_owner` owns all of it, and
`airflow` enters none of it. In brackets: on some columns only. What it is for: [security](../security.md)."""


def page(opened: connection) -> str:
    """The page of rights.

    Args:
        opened: To a database with the present schema, as one who may read the catalogue.
    """
    parts = ["# Rights in the database", INTRODUCTION]
    with opened.cursor() as cursor:
        cursor.execute(_TABLES)
        found = cursor.fetchall()
        for schema in ("work", "sealed"):
            rows: list[tuple[str, ...]] = []
            for name, oid in ((name, oid) for where, name, oid in found if where == schema):
                rows.append((f"`{name}`", *(_rights(cursor, role, schema, oid) for role in ROLES)))
            parts.append(f"## Schema {schema}\n\n" + table(("table", *(f"`{role}`" for role in ROLES)), rows))
    return "\n\n".join(parts) + "\n"


def _rights(cursor: object, role: str, schema: str, oid: int) -> str:
    """What a role may do with a table, in words."""
    words = []
    for act in ACTS:
        whole = _ask(cursor, _MAY, role, schema, role, oid, act)
        some = act != "DELETE" and _ask(cursor, _SOME, role, schema, role, oid, act)
        if whole or some:
            words.append(act.lower() if whole else f"({act.lower()})")
    return ", ".join(words) or "nothing"


def _ask(cursor: object, statement: str, *values: object) -> bool:
    cursor.execute(statement, values)  # type: ignore[attr-defined]  # DB-API cursors have no common type
    return bool(cursor.fetchone()[0])  # type: ignore[attr-defined]  # DB-API cursors have no common type
