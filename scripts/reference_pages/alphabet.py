"""The observable alphabet: its letters, and every item of the product with its letter and the reason."""

from __future__ import annotations

from alphabet import ALPHABET, Kind, Letter

from reference_pages.docstring import table

INTRODUCTION = """\
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


def page() -> str:
    """The page of the alphabet."""
    parts = ["# The observable alphabet", INTRODUCTION]
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
