"""A map of very many studies: a cell is a study, columns of twenty, in the order of what they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.errors import counted
from easeml_core.services.reports.overview import Standing
from easeml_core.services.reports.recommendations import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Entry = Mapping[str, Any]

HIGH = 20
CELL = 10

STATES = (
    ("bad", "var(--bad)", "alert"),
    ("warn", "var(--warn)", "to decide"),
    (Standing.SEARCHING, "var(--d1)", "searching"),
    (Standing.FINISHED, "var(--d6)", "finished"),
    (Standing.PAUSED, "var(--mute)", "paused"),
)
"""State of a cell, colour, and word; in this order."""


@dataclass(frozen=True, slots=True)
class Patch:
    """All cells of one state, as one path."""

    colour: str
    word: str
    count: int
    path: str


@dataclass(frozen=True, slots=True)
class StudyMap:
    """The map.

    Attributes:
        width: Of its view box; it is ``height`` high.
        height: Of its view box.
        patches: In the order of their cells; none is empty.
        names: Of the studies, in the order of the cells.
        sentence: What it shows, in words.
        high: Cells in a column.
    """

    width: int
    height: int
    patches: Sequence[Patch]
    names: Sequence[str]
    sentence: str
    high: int = HIGH


def map_of(entries: Sequence[Entry]) -> StudyMap:
    """The map of all studies."""
    by_state: dict[str, list[str]] = {state: [] for state, _, _ in STATES}
    for entry in entries:
        by_state[_state(entry)].append(entry["study"])
    patches, names = [], list[str]()
    for state, colour, word in STATES:
        found = by_state[state]
        if found:
            patches.append(Patch(colour, word, len(found), _path(len(names), len(found))))
        names += found
    told = ", ".join(f"{patch.count:,} {patch.word}" for patch in patches)
    columns = -(-len(names) // HIGH)
    sentence = f"{counted(len(names), 'study', 'studies')}: {told}"
    return StudyMap(max(columns * CELL - 2, CELL), HIGH * CELL - 2, patches, names, sentence)


def _state(entry: Entry) -> str:
    if entry["standing"] is not Standing.NEEDS:
        return str(entry["standing"])
    return "bad" if entry["steps"][0].severity is Severity.BAD else "warn"


def _path(first: int, count: int) -> str:
    """Upright strokes from cell ``first`` on, one a column; a dashed line makes cells of them.

    Example:
        >>> _path(18, 4)
        'M4 180v18M14 0v18'
    """
    strokes = []
    while count > 0:
        column, row = divmod(first, HIGH)
        here = min(count, HIGH - row)
        strokes.append(f"M{column * CELL + 4} {row * CELL}v{here * CELL - 2}")
        first, count = first + here, count - here
    return "".join(strokes)
