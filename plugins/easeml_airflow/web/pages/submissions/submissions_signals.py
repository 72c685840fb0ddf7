"""The signals of a meter set over its submissions, as shapes and a finding; for the developer's page."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.components.gauge import range_text
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDEST = 64
"""Submissions of a meter set that the plot has room for."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The signal of one submission; places in per cent."""

    left: float
    width: float
    top: float
    look: str
    title: str


@dataclass(frozen=True, slots=True)
class Signals:
    """The signals of the meter set over its submissions.

    Attributes:
        title: The finding.
        sentence: For who cannot see it.
        bands: One a signal: top in per cent, height, label at its left.
        cells: One a submission.
        ticks: Labels below: place in per cent, text.
        left_over: Where the submissions begin that are left, in per cent, and what is said of them; None where the set
            has more than the plot has room for.
    """

    title: str
    sentence: str
    bands: Sequence[tuple[float, float, str]]
    cells: Sequence[Cell]
    ticks: Sequence[tuple[float, str]]
    left_over: tuple[float, str] | None


def signals_of(meter: Mapping[str, Any]) -> Signals:
    """The plot of a meter set that has given a signal, as of ``services.handed_in``."""
    given = meter["signals"]
    count = len(meter["edges"]) + 1
    is_whole = meter["steps"] <= _WIDEST and given[0]["place"] == 1
    first = 1 if is_whole else given[0]["place"]
    places = meter["steps"] if is_whole else max(len(given), 8)
    height = 100 / count
    bands = [
        (round(100 - height * n, 2), round(height - 2, 2), f"{n}: {range_text(n, meter['edges'])}")
        for n in range(1, count + 1)
    ]
    cells = [
        Cell(
            left=round(100 * (entry["place"] - first + 0.08) / places, 2),
            width=round(84 / places, 2),
            top=bands[entry["signal"] - 1][0],
            look=f"e{min(entry['signal'], 4)}",
            title=f"submission {entry['number']}: signal {entry['signal']}",
        )
        for entry in given
        if entry["signal"] is not None
    ]
    last = given[-1]["place"]
    left = meter_left(meter)
    begin = round(100 * (last - first + 1) / places, 2)
    return Signals(
        title=_finding(given),
        sentence=_finding(given) + ("" if left is None else f"; {counted(left, 'submission')} left"),
        bands=bands,
        cells=cells,
        ticks=_ticks(first, places),
        left_over=(begin, f"{left:,} left") if is_whole and left and begin < 85 else None,
    )


def _finding(given: Sequence[Mapping[str, Any]]) -> str:
    """How the signal went: where it changed, and what it is now."""
    told = [entry for entry in given if entry["signal"] is not None]
    if not told:
        return "The meter was retired before it gave a signal"
    changes = [(a["signal"], a["number"]) for a, b in pairwise(told) if a["signal"] != b["signal"]]
    if not changes:
        return f"Signal of each submission: always {told[-1]['signal']}"
    if len(changes) > 3:
        return f"Signal of each submission: changed {len(changes)} times, now {told[-1]['signal']}"
    until = ", ".join(f"{signal} until submission {number}" for signal, number in changes)
    return f"Signal of each submission: {until}, now {told[-1]['signal']}"


def _ticks(first: int, places: int) -> list[tuple[float, str]]:
    step = max(1, places // 4)
    numbers = sorted({0, *range(step - 1, places, step), places - 1})
    return [(round(100 * (n + 0.5) / places, 2), f"{first + n:,}") for n in numbers]


def meter_left(meter: Mapping[str, Any]) -> int | None:
    """Submissions that the meter still answers; None where there is no last one."""
    if not meter["is_live"]:
        return 0
    left = meter["steps"] if meter["reading"] is None else meter["reading"]["submissions_left"]
    return None if left is None else int(left)
