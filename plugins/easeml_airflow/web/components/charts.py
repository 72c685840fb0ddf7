"""Charts as the design draws them: geometry in per cent here, shapes in ``pages/_charts.html``, colours in tokens.css.

They are drawn on the server: a page says the same without a script, follows light and dark, scales from 390 to 1,440
pixels with text that stays readable, and a test reads what it shows. Why no charting library: docs/adr/0019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easeml_airflow.web.components.chart_words import placed
from easeml_airflow.web.server.formats import MINUS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis from ``low`` to ``high``, which differ.

    Attributes:
        low: Value at the left, or at the bottom.
        high: Value at the right, or at the top.
        ticks: Values with a label, and the labels.
        title: What it counts, with the unit.
    """

    low: float
    high: float
    ticks: Sequence[tuple[float, str]] = ()
    title: str = ""

    def share(self, value: float) -> float:
        """Where a value lies, in per cent of the axis, two decimals."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def ticks_beside(self, word: float | None, *, room: float) -> list[tuple[float, str]]:
        """Places of the ticks that are not at an end, in per cent, with their labels.

        Args:
            word: Middle of a word on the same line, in per cent; None without one.
            room: How far from its middle a tick's label is clear of it, in per cent.

        Example:
            >>> Axis(0, 4, [(n, str(n)) for n in range(5)]).ticks_beside(60.0, room=20.0)
            [(25.0, '1')]
        """
        places = [(self.share(value), label) for value, label in self.ticks]
        return [(at, label) for at, label in places if 0 < at < 100 and (word is None or abs(at - word) >= room)]


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points; with ``step``, one that keeps its height until the next point (best so far)."""

    points: Sequence[Point]
    look: str = "ln k1"
    step: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """An area between two lines over the same places: (x, low, high)."""

    points: Sequence[tuple[float, float, float]]
    look: str = "a1"


@dataclass(frozen=True, slots=True)
class Dot:
    """A point with a sentence for who points at it."""

    x: float
    y: float
    title: str
    look: str = "f1"
    radius: float = 4.5


@dataclass(frozen=True, slots=True)
class Interval:
    """An upright range with its middle, for what is expected: a diamond between two ends."""

    x: float
    low: float
    middle: float
    high: float
    title: str


@dataclass(frozen=True, slots=True)
class Note:
    """A word at a place; ``anchor`` is start, middle or end. One that is ``free`` moves off what it would cover."""

    x: float
    y: float
    text: str
    look: str = "t"
    anchor: str = "start"
    dx: float = 0
    dy: float = 0
    free: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot: its finding as title, a sentence for who cannot see it, and what is in it.

    Attributes:
        title: The finding, not the names of the axes.
        sentence: What the picture shows, with its main numbers.
        x: The horizontal axis.
        y: The vertical axis.
        bands: Drawn first.
        lines: Drawn over them; places that are no numbers are left out.
        marks: Upright lines: (x, look).
        dots: Drawn last but for the words.
        notes: Words, and where each is wanted.
        height: In pixels.
        key: What is drawn how: (``line``, ``dot`` or ``cross``, look, word).
        crosses: What failed, each at its place.
        intervals: What is expected.
    """

    title: str
    sentence: str
    x: Axis
    y: Axis
    bands: Sequence[Band] = ()
    lines: Sequence[Line] = ()
    marks: Sequence[tuple[float, str]] = ()
    dots: Sequence[Dot] = ()
    notes: Sequence[Note] = ()
    height: int = 220
    key: Sequence[tuple[str, str, str]] = field(default=())
    crosses: Sequence[Dot] = ()
    intervals: Sequence[Interval] = ()

    def path(self, line: Line) -> str:
        """The line in an area of 1,000 by 1,000."""
        places = [self._place(*point) for point in line.points if all(map(math.isfinite, point))]
        if not places:
            return ""
        first, *rest = places
        told = [f"M{first[0]} {first[1]}"]
        told += [f"H{x}V{y}" if line.step else f"L{x} {y}" for x, y in rest]
        return "".join(told)

    def area(self, band: Band) -> str:
        """The band in an area of 1,000 by 1,000, closed."""
        there = [self._place(x, high) for x, _, high in band.points]
        back = [self._place(x, low) for x, low, _ in reversed(band.points)]
        return "M" + "L".join(f"{x} {y}" for x, y in there + back) + "z" if there else ""

    def words(self) -> Sequence[Note]:
        """The notes where they cover least of one another, and of what is drawn."""
        return placed(self) if self.notes else ()

    def left(self, x: float) -> float:
        """Per cent from the left."""
        return self.x.share(x)

    def top(self, y: float) -> float:
        """Per cent from the top."""
        return round(100 - self.y.share(y), 2)

    def _place(self, x: float, y: float) -> Point:
        return round(10 * self.left(x), 1), round(10 * self.top(y), 1)


def nice_axis(values: Iterable[float], *, title: str = "", most: int = 6, digits: int | None = None) -> Axis:
    """An axis that holds all values, with at most ``most`` round ticks.

    Args:
        values: What must fit; those that are not finite are left out. None at all gives 0 to 1.
        title: Of the axis.
        most: Ticks at most, at least 2.
        digits: Decimals of the labels; None for as many as the step needs.

    Example:
        >>> axis = nice_axis([0.87, 0.94])
        >>> axis.low, axis.high, [label for _, label in axis.ticks]
        (0.86, 0.94, ['0.86', '0.88', '0.90', '0.92', '0.94'])
    """
    held = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(held), max(held)
    step = _round_step((high - low or abs(high) or 1.0) / (most - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if digits is None else digits
    ticks = [(n * step, f"{n * step:,.{decimals}f}".replace("-", MINUS)) for n in range(first, last + 1)]
    return Axis(round(first * step, 10), round(last * step, 10), ticks, title)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= least * (1 - 1e-9))
