"""Charts as the design draws them: geometry here in per cent, shapes in ``_charts.html``, colours in tokens.css.

They are drawn on the server: a page says the same without a script, follows light and dark, scales from 390 to 1,440
pixels with text that stays readable, and a test reads what it shows. Why no charting library: docs/adr/0019.

Where the words of a plot stand: beside what they name, and where they can, clear of all else that is drawn.

The server does not know how wide a plot will be, only that its words keep their size. So each place is judged at three
widths, from a telephone's to a desk's, and the place that covers least in all is taken. Widths of words are estimated,
a little too wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from easeml_airflow.web.server.formats import MINUS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


WIDTHS = (260.0, 430.0, 700.0)
"""Pixels of the plotting area: on a telephone, in a part of a desk's page, and in most of it."""

LETTER, BOLD_LETTER = 6.9, 7.7
"""Pixels of one letter of 12 pixels, on average, in the widest of the usual fonts."""

RISE, FALL = 10.0, 3.0
"""Pixels above and below the line that a word stands on."""

ROOM = 10.0
"""Pixels beside the plotting area, and above it, that a word may use."""

STEP = 8.0
"""A line is judged by points on it that are this many pixels apart."""

ON_WORDS, OUTSIDE, ON_DOTS, ON_LINES = 20.0, 20.0, 4.0, 1.0
"""How bad a covered pixel is."""


class Box(NamedTuple):
    """An area in pixels, and how bad it is to cover one of them."""

    left: float
    top: float
    right: float
    bottom: float
    cost: float = 0.0

    def shared(self, other: Box) -> float:
        """Square pixels that both have."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0


def placed(plot: Plot) -> list[Note]:
    """The notes of a plot at their places: those that are free one after the other, round those that are not."""
    drawn = {width: list(_drawn(plot, width)) for width in WIDTHS}
    found = list(plot.notes)
    for place, note in sorted(enumerate(found), key=lambda item: item[1].free):
        if note.free:
            found[place] = note = _best_place(note, plot, drawn)
        for width in _widths(note):
            drawn[width].append(_box(note, plot, width)._replace(cost=ON_WORDS))
    return found


def _best_place(note: Note, plot: Plot, drawn: dict[float, list[Box]]) -> Note:
    """The first place that covers nothing, else the one that covers least."""
    near = {}
    for width in _widths(note):
        reach = _reach(note, plot, width)
        near[width] = [box for box in drawn[width] if reach.shared(box)]
    costs: list[tuple[float, Note]] = []
    for moved in _places(note):
        costs.append((sum(_cost(_box(moved, plot, width), plot, width, near[width]) for width in near), moved))
        if costs[-1][0] == 0:
            break
    return min(costs, key=lambda parts: parts[0])[1]


def _cost(word: Box, plot: Plot, width: float, near: Sequence[Box]) -> float:
    """How bad a word is there: what it covers, and what of it is outside."""
    over = max(0.0, word.right - width - ROOM, (0.0 if plot.y.ticks else -ROOM) - word.left)
    above = max(0.0, -ROOM - word.top, word.bottom - plot.height)
    outside = over * (RISE + FALL) + above * (word.right - word.left)
    return OUTSIDE * outside + sum(word.shared(box) * box.cost for box in near)


def _reach(note: Note, plot: Plot, width: float) -> Box:
    """All that any place of a note may cover."""
    lefts, tops, rights, bottoms, _ = zip(*(_box(moved, plot, width) for moved in _places(note)), strict=True)
    return Box(min(lefts), min(tops), max(rights), max(bottoms))


def _widths(note: Note) -> Sequence[float]:
    """At which widths it is seen: the style sheet hides ``w`` on a telephone."""
    return WIDTHS[1:] if "w" in note.look.split() else WIDTHS


def _places(note: Note) -> Iterator[Note]:
    """Where it may stand, the best place first: as wanted, on the other side, below instead of above, further off."""
    mirrored = RISE - FALL - note.dy
    for dy in (note.dy, mirrored):
        yield from (replace(side, dy=dy) for side in _sides(note))
    for further in (14.0, 28.0):
        for dy in (note.dy, mirrored):
            yield from (replace(side, dy=dy + math.copysign(further, dy)) for side in _sides(note))


def _sides(note: Note) -> tuple[Note, ...]:
    if note.anchor == "middle":
        return note, replace(note, anchor="start", dx=8), replace(note, anchor="end", dx=-8)
    return note, replace(note, anchor={"start": "end", "end": "start"}[note.anchor], dx=-note.dx)


def _box(note: Note, plot: Plot, width: float) -> Box:
    letter = BOLD_LETTER if {"t", "t0"} & set(note.look.split()) else LETTER
    long = letter * len(note.text)
    begin = plot.left(note.x) / 100 * width + note.dx - {"start": 0.0, "middle": long / 2, "end": long}[note.anchor]
    line = plot.top(note.y) / 100 * plot.height + note.dy
    return Box(begin, line - RISE, begin + long, line + FALL)


def _drawn(plot: Plot, width: float) -> Iterator[Box]:
    """What is drawn besides words, and the vertical axis's title."""

    def at(x: float, y: float) -> Point:
        return plot.left(x) / 100 * width, plot.top(y) / 100 * plot.height

    yield Box(-60.0, -25.0, LETTER * len(plot.y.title) - 40.0, -9.0, ON_WORDS)
    dots: list[Dot] = [*plot.dots, *plot.crosses]
    for dot in dots:
        x, y = at(dot.x, dot.y)
        yield Box(x - dot.radius, y - dot.radius, x + dot.radius, y + dot.radius, ON_DOTS)
    for line in plot.lines:
        corners = [at(*point) for point in line.points if all(map(math.isfinite, point))]
        for a, b in pairwise(corners):
            yield from _along([a, (b[0], a[1]), b] if line.step else [a, b])
    for mark, _ in plot.marks:
        yield from _along([(at(mark, 0)[0], 0.0), (at(mark, 0)[0], float(plot.height))])
    for span in plot.intervals:
        yield from _along([at(span.x, span.low), at(span.x, span.high)])
        x, y = at(span.x, span.middle)
        yield Box(x - 5, y - 5, x + 5, y + 5, ON_DOTS)


def _along(corners: Sequence[Point]) -> Iterator[Box]:
    """Small boxes on a line through these points."""
    for (x, y), (to_x, to_y) in pairwise(corners):
        steps = max(1, round(math.hypot(to_x - x, to_y - y) / STEP))
        for n in range(steps + 1):
            here, there = x + n / steps * (to_x - x), y + n / steps * (to_y - y)
            yield Box(here - 3, there - 3, here + 3, there + 3, ON_LINES)


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
        parts = [f"M{first[0]} {first[1]}"]
        parts += [f"H{x}V{y}" if line.step else f"L{x} {y}" for x, y in rest]
        return "".join(parts)

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
