"""A sealed set as every page shows it: its name, its life, and what a referee can do with it and does.

A ledger as a file for spreadsheets: numbers as they are, and no text in it is run as a formula.
"""

from __future__ import annotations

import io
from itertools import count
from typing import TYPE_CHECKING, Protocol, TypeVar

from fastapi.responses import Response

from easeml_airflow.web.server.site import HEADERS
from easeml_core.entities import SealedSetState
from easeml_core.errors import counted
from easeml_core.formats.csv_text import GuardedWriter
from easeml_core.services.test_sets.lifecycle import WITHOUT, retire_test_set
from easeml_core.services.test_sets.release import release_test_set
from easeml_core.store.callers import because

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from easeml_airflow.web.server.site import Site


_LIFE = tuple(SealedSetState)


def called(name: str | None, test_set_id: int) -> str:
    """What people call a set.

    Example:
        >>> called("spring", 12), called(None, 12)
        ('spring', 'set 12')
    """
    return name or f"set {test_set_id}"


def track_of(state: SealedSetState) -> list[tuple[str, str]]:
    """All states of a set in their order, each with whether it ``was``, ``is``, or comes ``later``.

    Example:
        >>> track_of(SealedSetState.LIVE)
        [('planned', 'was'), ('sealed', 'was'), ('live', 'is'), ('retired', 'later'), ('released', 'later')]
    """
    at = _LIFE.index(state)
    return [(str(one), "was" if n < at else "is" if n == at else "later") for n, one in enumerate(_LIFE)]


def acts_of(state: SealedSetState, *, rows: int, systems: Collection[str]) -> list[tuple[str, str]]:
    """What a referee can do with a set: ``retire``, ``release`` or nothing, with what comes of it.

    Example:
        >>> acts_of(SealedSetState.PLANNED, rows=10, systems=["gate"])
        [('retire', 'Its plan is dropped and its name stays taken. This cannot be taken back.')]
    """
    if state is SealedSetState.RELEASED:
        return []
    act = "release" if state is SealedSetState.RETIRED else "retire"
    return [(act, f"{_means(state, rows, systems)} This cannot be taken back.")]


def _means(state: SealedSetState, rows: int, systems: Collection[str]) -> str:
    if state is SealedSetState.PLANNED:
        return "Its plan is dropped and its name stays taken."
    if state is SealedSetState.SEALED:
        return "It will give no answer."
    if state is SealedSetState.LIVE:
        without = " and ".join(words for purpose, words in WITHOUT.items() if purpose in systems)
        follows = f"The set that was sealed next becomes live; where there is none, {without}."
        return f"It gives no further answer. {follows}"
    examples = f"Its {counted(rows, 'example')}, with the labels they have,"
    return f"{examples} become validation data that every user may read, and are never sealed again."


def retire_set(site: Site, *, study: str, test_set: int, reason: str) -> None:
    """Retire a set for this reason; nothing happens where it has ended before."""
    with because(reason):
        retire_test_set(site.open_sealed(), test_set=test_set, study=study)


def release_set(site: Site, *, study: str, test_set: int, reason: str) -> None:
    """Release a retired set for this reason; nothing happens where it is released already."""
    with because(reason):
        release_test_set(site.open_sealed(), site.open_artifacts(), test_set=test_set, study=study)


class Numbered(Protocol):
    """An entry of a ledger, with its place."""

    @property
    def step(self) -> int:
        """Which answer of the set it is."""


N = TypeVar("N", bound=Numbered)


def ledger_file(entries: Iterable[Numbered], columns: Mapping[str, str], *, test_set: int) -> Response:
    """The answer of a page that exports a ledger."""
    file = io.StringIO()
    writer = GuardedWriter(file)
    writer.row(columns)
    for entry in entries:
        writer.row(getattr(entry, name) for name in columns.values())
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="ledger-{test_set}.csv"'}
    return Response(file.getvalue(), media_type="text/csv", headers=headers)


def whole_ledger(read: Callable[[int], Sequence[N]], *, size: int) -> Iterable[N]:
    """All entries of a ledger, newest first, however many: an auditor's file is complete.

    Example:
        >>> from types import SimpleNamespace
        >>> pages = [[SimpleNamespace(step=step) for step in page] for page in ([4, 3], [3, 2], [1])]
        >>> [entry.step for entry in whole_ledger(pages.__getitem__, size=2)]
        [4, 3, 2, 1]
    """
    found: dict[int, N] = {}
    for number in count():
        page = read(number)
        found |= {entry.step: entry for entry in page if entry.step not in found}
        if len(page) < size:
            break
    return found.values()
