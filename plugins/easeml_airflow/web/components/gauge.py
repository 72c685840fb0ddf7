"""The gauge of the meter: one sector a signal, the lit one, its edges, and the band that the tolerance makes of it.

A developer's gauge has no needle: the measured gap is a referee's fact. The shapes are in ``templates/_gauge.html``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from easeml_airflow.web.server.formats import MINUS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

CENTRE = (170.0, 158.0)
OUTER, INNER = 128.0, 88.0
BAND_OUTER, BAND_INNER = 139.0, 133.0
NARROWEST_DEGREES = 11.0
"""Edges that lie closer are not both written: the text beside the gauge has them all."""

BOTH = ("lower", "upper")
"""Ends of the answered range that most methods promise of a model's own gap (``meter.sentences.promised_sides``)."""

COLOURS = 4
"""Sectors above the fourth share its colour; each carries its number."""


@dataclass(frozen=True, slots=True)
class Sector:
    """One range of the gap.

    Attributes:
        number: The signal, 1..m.
        colour: 1..4, of the four colours there are.
        is_lit: Whether it is what was answered.
        path: Its outline.
        x: Where its number stands.
        y: Where its number stands.
    """

    number: int
    colour: int
    is_lit: bool
    path: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Gauge:
    """A gauge, as shapes in a box of 340 by 166.

    Attributes:
        sentence: For who cannot see it.
        signal: What was answered; None where there is no answer yet.
        signals: m.
        says: The range of the answer in numbers, ``0.13 to 0.25``; empty without an answer.
        promised: What holds of the gap, with the tolerance; empty without an answer.
        sectors: The ranges, from left to right.
        edges: Labels of the edges: x, y, anchor, text.
        band: Outline of what the answer promises; empty without an answer.
        needle: Outline of the needle; empty for viewers who may not know the measured gap.
    """

    sentence: str
    signal: int | None
    signals: int
    says: str
    promised: str
    sectors: Sequence[Sector]
    edges: Sequence[tuple[float, float, str, str]]
    band: str
    needle: str


def gauge_of(
    signal: int | None,
    edges: Sequence[float],
    tolerance: float,
    *,
    measured: float | None = None,
    sides: Collection[str] = BOTH,
) -> Gauge:
    """The gauge of an answer.

    Example:
        >>> text = gauge_of(3, (0.05, 0.13, 0.25), 0.02)
        >>> text.sentence
        'Signal 3 of 4: overfitting 0.13 to 0.25, plus or minus 0.02'
        >>> text.promised, text.needle
        ('0.11 to 0.27', '')
        >>> gauge_of(3, (0.05, 0.13, 0.25), 0.02, sides=("upper",)).sentence
        'Signal 3 of 4: overfitting 0.13 to 0.25; promised is up to 0.27'
    """
    low, high = _ends(edges)
    bounds = [low, *edges, high]
    angles = [180 * (bound - low) / (high - low) for bound in bounds]
    sectors = [_sector(n, start, end, signal) for n, (start, end) in enumerate(pairwise(angles), start=1)]
    says = range_text(signal, edges) if signal else ""
    promised = promised_text(signal, edges, tolerance, sides) if signal else ""
    needle = "" if measured is None else _needle(180 * (min(max(measured, low), high) - low) / (high - low))
    return Gauge(
        sentence=_sentence(signal, edges, promised, tolerance if set(sides) >= set(BOTH) else None, measured),
        signal=signal,
        signals=len(sectors),
        says=says,
        promised=promised,
        sectors=sectors,
        edges=_labels(edges, angles[1:-1]),
        band="" if signal is None else _band(bounds, signal, tolerance, sides),
        needle=needle,
    )


def range_text(signal: int, edges: Sequence[float], tolerance: float = 0.0) -> str:
    """The range of a signal in numbers, widened by the tolerance on both sides.

    Example:
        >>> [range_text(s, (0.1, 0.3)) for s in (1, 2, 3)]
        ['up to 0.1', '0.1 to 0.3', 'above 0.3']
        >>> range_text(2, (0.1, 0.3), 0.02)
        '0.08 to 0.32'
    """
    return promised_text(signal, edges, tolerance, BOTH)


def promised_text(signal: int, edges: Sequence[float], tolerance: float, sides: Collection[str]) -> str:
    """The range of a signal with the tolerance, without an end that is not promised.

    Example:
        >>> promised_text(2, (0.1, 0.3), 0.02, ("upper",)), promised_text(3, (0.1, 0.3), 0.02, ("upper",))
        ('up to 0.32', 'any amount')
    """
    low = None if signal == 1 or "lower" not in sides else edges[signal - 2] - tolerance
    high = None if signal > len(edges) or "upper" not in sides else edges[signal - 1] + tolerance
    if low is None:
        return "any amount" if high is None else f"up to {short(high)}"
    return f"above {short(low)}" if high is None else f"{short(low)} to {short(high)}"


def short(value: float) -> str:
    """A boundary without zeros at its end.

    Example:
        >>> short(0.30000000000000004), short(-0.02)
        ('0.3', '−0.02')
    """
    return f"{round(value, 4):g}".replace("-", MINUS)


def _sentence(
    signal: int | None, edges: Sequence[float], promised: str, tolerance: float | None, measured: float | None
) -> str:
    """The answer in words; the tolerance is None where not both ends are promised."""
    signals = len(edges) + 1
    if signal is None:
        return f"No signal yet, of {signals}; edges at {', '.join(map(short, edges))}"
    text = f"Signal {signal} of {signals}: overfitting {range_text(signal, edges)}"
    text += f"; promised is {promised}" if tolerance is None else f", plus or minus {short(tolerance)}"
    return text if measured is None else f"{text}; measured {measured:.4f}".replace("-", MINUS)


def _ends(edges: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the scale, since the outer ranges have none."""
    low = min(0.0, edges[0] - 0.05) if edges[0] <= 0 else 0.0
    return low, edges[-1] + max(0.28 * (edges[-1] - low), 0.01)


def _place(degrees: float, radius: float) -> tuple[float, float]:
    """The point at an angle from the left end of the scale, clockwise."""
    turn = math.radians(180 - degrees)
    return round(CENTRE[0] + radius * math.cos(turn), 1), round(CENTRE[1] - radius * math.sin(turn), 1)


def _arc(start: float, end: float, outer: float, inner: float) -> str:
    (ax, ay), (bx, by) = _place(start, outer), _place(end, outer)
    (cx, cy), (dx, dy) = _place(end, inner), _place(start, inner)
    return f"M{ax} {ay}A{outer:g} {outer:g} 0 0 1 {bx} {by}L{cx} {cy}A{inner:g} {inner:g} 0 0 0 {dx} {dy}z"


def _sector(number: int, start: float, end: float, signal: int | None) -> Sector:
    x, y = _place((start + end) / 2, (OUTER + INNER) / 2)
    return Sector(number, min(number, COLOURS), number == signal, _arc(start, end, OUTER, INNER), x, y + 5)


def _labels(edges: Sequence[float], angles: Sequence[float]) -> list[tuple[float, float, str, str]]:
    text, last = [], -NARROWEST_DEGREES
    for edge, angle in zip(edges, angles, strict=True):
        if angle - last >= NARROWEST_DEGREES:
            x, y = _place(angle, BAND_OUTER + 7)
            beside = 4 * (1 - math.sin(math.radians(angle)))  # text stands on its line; at the sides it is centred
            text.append((x, round(y + beside, 1), _anchor(angle), short(edge)))
            last = angle
    return text


def _anchor(degrees: float) -> str:
    return "end" if degrees < 70 else "start" if degrees > 110 else "middle"


def _band(bounds: Sequence[float], signal: int, tolerance: float, sides: Collection[str]) -> str:
    low, high = bounds[0], bounds[-1]
    first = low if signal == 1 or "lower" not in sides else max(bounds[signal - 1] - tolerance, low)
    last = high if signal == len(bounds) - 1 or "upper" not in sides else min(bounds[signal] + tolerance, high)
    start, end = (180 * (bound - low) / (high - low) for bound in (first, last))
    return _arc(start, end, BAND_OUTER, BAND_INNER)


def _needle(degrees: float) -> str:
    (tip_x, tip_y) = _place(degrees, OUTER - 46)
    (ax, ay), (bx, by) = _place(degrees - 90, 5), _place(degrees + 90, 5)
    return f"M{ax} {ay}L{tip_x} {tip_y}L{bx} {by}z"
