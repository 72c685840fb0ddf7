"""Which rows keep a file of the artifact store: each kind of row that names one, and none that has let it go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.store.artifacts.orphans import NamedFile, named_files

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., list[tuple[Any, ...]]]

KINDS = {
    "data version": "UPDATE work.data_versions SET artifact = %s",
    "model": "UPDATE work.models SET artifact = %s",
    "feed": "UPDATE work.feeds SET artifact = %s",
    "set": "UPDATE work.test_sets SET state = 'released', artifact = %s",
    "refresh": "UPDATE work.refreshes SET off = %s",
    "candidate": "UPDATE work.candidates SET parameters = jsonb_build_object('program', %s::text)",
}
LET_GO = {
    "model": "UPDATE work.models SET removed_at = now(), removed_why = 'old'",
    "refresh": "UPDATE work.refreshes SET off = NULL",
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_row_keeps_its_file(database: Any, world: Any, ask: Ask, kind: str) -> None:
    reference = "sha256:" + "5ea1" * 16
    kept = NamedFile("lab", reference)

    def named() -> set[NamedFile]:
        with database.owner.begin() as tx:
            return named_files(tx)

    ask("UPDATE work.test_sets SET state = 'retired', retired_at = now(), retired_why = 'steps'")
    assert kept not in named()
    ask(KINDS[kind], reference)
    assert kept in named()
    if kind in LET_GO:
        ask(LET_GO[kind])
        assert kept not in named()
