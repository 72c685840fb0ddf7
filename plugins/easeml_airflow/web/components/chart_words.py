"""Where the words of a plot stand: beside what they name, and where they can, clear of all else that is drawn.

The server does not know how wide a plot will be, only that its words keep their size. So each place is judged at three
widths, from a telephone's to a desk's, and the place that covers least in all is taken. Widths of words are estimated,
a little too wide.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from easeml_airflow.web.components.charts import Dot, Note, Plot, Point

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
    for place, note in sorted(enumerate(found), key=lambda told: told[1].free):
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
    return min(costs, key=lambda told: told[0])[1]


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
