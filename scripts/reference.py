"""Make docs/reference anew from the code, and the stubs of signatures that are made from actions.

The pages are committed, so that they are read where nothing is installed; a test makes them again and compares.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
from reference_pages import answers
from reference_pages import code_pages as code
from reference_pages.database_pages import alphabet_page, functions_text, rights_page
from reference_pages.signatures import stubs

if TYPE_CHECKING:
    from psycopg2.extensions import connection

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
MADE = "<!-- Made by scripts/reference.py (make reference); do not edit. -->\n\n"

SQL_MADE = "-- Made by scripts/reference.py (make reference); do not edit. Migrations change these functions.\n\n"


def pages(opened: connection) -> dict[str, str]:
    """Every page by its file's name.

    Args:
        opened: To a database with the present schema.
    """
    made = {
        "commands.md": code.commands_page(),
        "operators.md": code.classes_page(),
        "python.md": code.faces_page(),
        "errors.md": code.failures_page(),
        "database.md": rights_page(opened),
        "observable.md": alphabet_page(),
    }
    return {name: MADE + text for name, text in made.items()} | {
        "answers.json": answers.document(),
        "openapi.json": answers.openapi_document(),
        "functions.sql": SQL_MADE + functions_text(opened),
    }


@click.command(help=__doc__)
def main() -> None:
    """Write the pages."""
    from easeml_core.store import schema
    from easeml_core.store.database import Store
    from easeml_core.store.server.server import throwaway_server

    with tempfile.TemporaryDirectory() as home, throwaway_server() as server:
        os.environ.setdefault("AIRFLOW_HOME", home)  # Airflow makes one where it is imported
        server.ensure_installation()
        owner = Store(server.url("easeml_owner", "easeml"))
        schema.upgrade(owner)
        owner.close()
        with closing(server.connect(database="easeml")) as opened:
            made = pages(opened)
    FOLDER.mkdir(exist_ok=True)
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for path, text in stubs().items():
        (FOLDER.parents[1] / path).write_text(text, encoding="utf-8")
    click.echo(f"{FOLDER.name}: {len(made)} pages, {len(stubs())} stubs")


if __name__ == "__main__":
    main()
