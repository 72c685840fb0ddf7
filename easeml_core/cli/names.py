"""Arguments that are names in the store: what the shell completes after them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from easeml_core.errors import EasemlError

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_SECONDS = 1.5
"""A shell that waits longer feels broken; then nothing is offered."""
MOST_NAMES = 1000


class StudyName(click.types.StringParamType):
    """Text that names a study; the shell is offered the names there are, or nothing where they are not at hand."""

    name = "study"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names that begin with what is typed; never an error, and never a long wait."""
        url = ctx.params.get("database")
        names = _in_time(lambda: _study_names(url))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)][:MOST_NAMES]


STUDY = StudyName()


def _study_names(url: str | None) -> list[str]:
    from easeml_core.cli.connection import open_store
    from easeml_core.store.tables.studies import names_and_tenants

    store = open_store(url)
    with store.begin() as tx:
        return [name for name, _ in names_and_tenants(tx)]


def _in_time(work: Callable[[], list[str]]) -> list[str]:
    """What the work gives in time; nothing where it fails or takes longer."""
    found: list[str] = []

    def attempt() -> None:
        try:
            found.extend(work())
        except (EasemlError, OSError):  # no store, or not ours to open: the shell offers nothing
            return

    worker = threading.Thread(target=attempt, daemon=True)
    worker.start()
    worker.join(PATIENCE_SECONDS)
    return found if not worker.is_alive() else []
