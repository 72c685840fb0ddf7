"""What the meter's page says, as frozen values made of the facts of ``services.meter``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from easeml_airflow.web.components.charts import Axis, Band, Dot, Line, Note, Plot, nice_axis
from easeml_airflow.web.components.gauge import COLOURS, Gauge, gauge_of, short
from easeml_airflow.web.server.formats import MINUS, signed
from easeml_core.entities import SealedSetState
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.config import MeterConfig
    from easeml_core.services.meter.results import MeterAnswer, MeterHistory

TICKS = 9


@dataclass(frozen=True, slots=True)
class MeterPicture:
    """The live state of a meter set.

    Attributes:
        gauge: With a needle.
        signals: Measured gaps over submissions; None before the first.
        tolerances: What each answer was worth; None before the first.
        left: Submissions left; None where there is no last one, or the set has ended.
        last: The last answer with a signal; None before the first.
    """

    gauge: Gauge
    signals: Plot | None
    tolerances: Plot | None
    left: int | None
    last: MeterAnswer | None


def picture_of(history: MeterHistory) -> MeterPicture:
    """The pictures of a meter set."""
    settings, answers = history.settings, history.answers
    measured = [_Measured(answer, answer.signal, answer.gap or 0.0) for answer in answers if answer.signal is not None]
    last = measured[-1].answer if measured else None
    edges = (last.edges if last else None) or settings.ranges
    tolerance = (last.promised if last else None) or settings.tolerance
    gap = None if last is None else last.gap
    gauge = gauge_of(None if last is None else last.signal, edges, tolerance, measured=gap, sides=history.sides)
    used = answers[-1].step if answers else 0
    ends = not settings.open_ended and history.chosen.state == SealedSetState.LIVE
    return MeterPicture(
        gauge=gauge,
        signals=_signals(measured, settings, max(0, settings.steps - used) if ends else None) if measured else None,
        tolerances=_tolerances(measured, settings) if measured else None,
        left=max(0, settings.steps - used) if ends else None,
        last=last,
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """An answer with a signal, and the gap that was measured."""

    answer: MeterAnswer
    signal: int
    gap: float

    @property
    def step(self) -> int:
        return self.answer.step

    @property
    def tolerance(self) -> float:
        """0 where it is not known."""
        return self.answer.tolerance or 0.0

    @property
    def is_ambiguous(self) -> bool:
        """Whether other ranges could have been the answer."""
        return (self.answer.reachable or 1) > 1

    @property
    def title(self) -> str:
        more = f", {self.answer.reachable} answers possible" if self.is_ambiguous else ""
        reach = f" ± {self.tolerance:.4f}" if self.tolerance else ""
        return f"submission {self.step}: {signed(self.gap)}{reach}, signal {self.signal}{more}"


def finding_of(signals: Sequence[int]) -> str:
    """What a row of signals says, oldest first; there is at least one.

    Example:
        >>> finding_of([1] * 9 + [2] * 8 + [3, 3])
        'Overfitting left range 1 after submission 9 and range 2 after 17'
        >>> finding_of([1, 1, 1])
        'All 3 answers lie in range 1'
        >>> finding_of([1, 3, 1])
        'Overfitting is back in range 1; it was 3 at its worst'
    """
    now, worst = signals[-1], max(signals)
    if worst == now == min(signals):
        answers = "The one answer lies" if len(signals) == 1 else f"All {len(signals):,} answers lie"
        return f"{answers} in range {now}"
    if now < worst:
        return f"Overfitting is back in range {now}; it was {worst} at its worst"
    # Of ranges that were left at once, the last one is named.
    left = {
        max(t for t, s in enumerate(signals, start=1) if s <= crossed): crossed for crossed in range(min(signals), now)
    }
    first, *others = sorted(left.items())
    parts = [f"range {first[1]} after submission {first[0]}", *(f"range {r} after {t}" for t, r in others)]
    return "Overfitting left " + " and ".join(parts)


def _signals(measured: Sequence[_Measured], settings: MeterConfig, left: int | None) -> Plot:
    edges, tolerance = settings.ranges, settings.tolerance
    reach = [(a.step, a.gap - a.tolerance, a.gap + a.tolerance) for a in measured]
    low = min(0.0, edges[0] - 2 * tolerance, *(least for _, least, _ in reach))
    above = max(edges[-1] - edges[0], 4 * tolerance) / 3
    high = max(edges[-1] + above, *(most for _, _, most in reach))
    ticks = [(edge, short(edge)) for edge in edges] + ([] if 0.0 in edges else [(0.0, "0")])
    last = measured[-1].step
    x = _steps_axis(last if settings.open_ended else max(last, settings.steps))
    ranges = list(enumerate(pairwise([low, *edges, high]), start=1))
    title = finding_of([answer.signal for answer in measured])
    return Plot(
        title=title,
        sentence=f"Measured overfitting of {counted(len(measured), 'submission')} with tolerance, from "
        f"{signed(measured[0].gap)} to {signed(measured[-1].gap)}. {title}.",
        x=x,
        y=Axis(low, high, ticks, f"test loss {MINUS} validation loss"),
        bands=[_across(x, begin, end, f"z{min(n, COLOURS)}") for n, (begin, end) in ranges]
        + [_across(x, edge - tolerance, edge + tolerance, "tolb") for edge in edges],
        lines=[Line([(x.low, edge), (x.high, edge)], "ln thin dash k6") for edge in edges]
        + [Line([(step, least), (step, most)], "ln thin kf") for step, least, most in reach],
        marks=[(last + 0.5, "ln thin dot kf")] if left else [],
        dots=[Dot(a.step, a.gap, a.title, "hole kf" if a.is_ambiguous else "ff", 4) for a in measured],
        notes=[Note(x.high, sum(ends) / 2, f"signal {n}", "t0", "end", -8, 4) for n, ends in ranges]
        + ([Note(last + 0.5, high, f"{left} left", "h1 w", "start", 6, 14)] if left else []),
        height=226,
    )


def _across(x: Axis, low: float, high: float, look: str) -> Band:
    """A band over the whole width."""
    return Band([(x.low, low, high), (x.high, low, high)], look)


def _steps_axis(steps: int) -> Axis:
    every = max(1, math.ceil(steps / (TICKS - 1)))
    places = sorted({1, *range(every, steps + 1, every)})
    return Axis(0.3, steps + 0.7, [(place, f"{place:,}") for place in places], "submission")


def _tolerances(measured: Sequence[_Measured], settings: MeterConfig) -> Plot | None:
    limit, known = settings.tolerance, [answer for answer in measured if answer.tolerance]
    if not known:
        return None
    first, (last, now) = known[0].tolerance, (known[-1].step, known[-1].tolerance)
    points = [(answer.step, answer.tolerance) for answer in known]
    x = _steps_axis(max(last, settings.steps))
    title = f"The answers hold within {now:.4f}; {limit:g} was promised"
    if settings.method == "path-adaptive":
        ambiguous = sum(answer.is_ambiguous for answer in measured)
        title = f"{ambiguous} of {counted(settings.ambiguous, 'planned ambiguous answer')} used"
    return Plot(
        title=title,
        sentence=f"Tolerance of each answer: {first:.4f} at first, {now:.4f} now, limit {limit:.4f}.",
        x=x,
        y=nice_axis(
            [limit, *(tolerance for _, tolerance in points), 0.6 * limit, 1.15 * limit],
            title="tolerance of the answer",
            most=4,
        ),
        lines=[Line(points, "ln k1"), Line([(x.low, limit), (x.high, limit)], "ln thin dash k2")],
        dots=[Dot(a.step, a.tolerance, a.title, "hole k1", 3.5) for a in known if a.is_ambiguous]
        + [Dot(last, now, f"now {now:.4f}", "f1", 4)],
        notes=[
            Note(x.low, limit, f"retired above {limit:.4f}", "t0", "start", 4, -6),
            Note(last, now, f"now {now:.4f}", "t", "start", 8, 14),
        ],
        height=150,
    )
