"""What the reference has of the database, and of what developers can observe: rights, functions, the alphabet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alphabet import ALPHABET, Kind, Letter

from reference_pages.code_pages import table

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
RIGHTS_INTRODUCTION = """\
The rights of the two roles that work, table by table, as the migrations grant them. `easeml_owner` owns all of it, and
`airflow` enters none of it. In brackets: on some columns only. What it is for: [security](../security.md)."""


def rights_page(opened: connection) -> str:
    """The page of rights.

    Args:
        opened: To a database with the present schema, as one who may read the catalogue.
    """
    parts = ["# Rights in the database", RIGHTS_INTRODUCTION]
    with opened.cursor() as cursor:
        cursor.execute(_TABLES)
        found = cursor.fetchall()
        for schema in ("work", "sealed"):
            rows: list[tuple[str, ...]] = []
            for name, oid in ((name, oid) for where, name, oid in found if where == schema):
                rows.append((f"`{name}`", *(_rights(cursor, role, schema, oid) for role in ROLES)))
            parts.append(f"## Schema {schema}\n\n" + table(("table", *(f"`{role}`" for role in ROLES)), rows))
    return "\n\n".join(parts) + "\n"


_FUNCTIONS = """
SELECT p.oid, pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname IN ('work', 'sealed') AND p.prokind IN ('f', 'p')
ORDER BY n.nspname DESC, p.proname, pg_get_function_identity_arguments(p.oid)
"""
_CALLS = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgfoid = %s AND NOT tgisinternal ORDER BY 1"


def functions_text(opened: connection) -> str:
    """The present text of every function of the schemas ``work`` and ``sealed``, with the triggers that call it.

    A migration replaces a function, or a part of its text: no file of them shows what is in force.

    Args:
        opened: As for ``rights_page``.
    """
    with opened.cursor() as cursor:
        cursor.execute(_FUNCTIONS)
        parts = []
        for oid, text in cursor.fetchall():
            cursor.execute(_CALLS, [oid])
            calls = "".join(f"-- {call}\n" for (call,) in cursor.fetchall())
            parts.append(f"{calls}{text.rstrip()};")
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


ALPHABET_INTRODUCTION = """\
Everything that a developer can read, and what each item may depend on. A developer is any process with the database
role `easeml_worker`, and any person who opens the pages without the role of a referee or labeler. The letters are
explained in [security](../security.md#what-a-developer-can-observe). A new column, route, command, event, mail, error
or log gets its letter in `scripts/alphabet`; a test fails until it has one."""

TITLES = {
    Kind.TABLE: "Tables: how many rows exist",
    Kind.COLUMN: "Columns",
    Kind.VALUE: "Values of columns that follow from symbols",
    Kind.FUNCTION: "Functions of the database",
    Kind.CATALOGUE: "Parts of pg_catalog that are no public facts, or differ between any two installations",
    Kind.TOPIC: "Notifications of the database: channel and topic",
    Kind.ROUTE: "Routes of the web application",
    Kind.COMMAND: "Commands",
    Kind.CLASS: "Tasks, sensors and notifiers",
    Kind.EVENT: "Events of triggers, and news",
    Kind.MAIL: "Mails of the referee",
    Kind.ERROR: "Errors whose message an answer may carry",
    Kind.LOG: "Modules that write log lines",
}


def letters() -> str:
    """The table of letters, as ``docs/security.md`` has it."""
    rows = [(f"`{letter.name}`", letter.content, str(letter.basis)) for letter in Letter]
    return table(("letter", "what it consists of", "may depend on"), rows)


def alphabet_page() -> str:
    """The page of the alphabet."""
    parts = ["# The observable alphabet", ALPHABET_INTRODUCTION]
    for kind in Kind:
        groups: dict[tuple[str, str], list[str]] = {}
        for item in ALPHABET:
            if item.kind is kind:
                groups.setdefault((item.letter.name, item.why), []).append(_shown(kind, item.name))
        rows = [(", ".join(names), f"`{letter}`", why) for (letter, why), names in groups.items()]
        parts.append(f"## {TITLES[kind]}\n\n" + table(("item", "letter", "why"), rows))
    return "\n\n".join(parts) + "\n"


def _shown(kind: Kind, name: str) -> str:
    """The name as code; what follows from the section's title is left out."""
    return (
        f"`{name.removeprefix('work.')}`"
        if kind in (Kind.TABLE, Kind.COLUMN, Kind.VALUE, Kind.FUNCTION)
        else f"`{name}`"
    )
