"""The overview's small charts and the numbers beside them: quality over time, all on one scale; devices; verdicts.

A map of very many studies: a cell is a study, columns of twenty, in the order of what they need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_airflow.web.components.charts import Axis, Band, Dot, Line, Plot
from easeml_airflow.web.server.formats import age_text, gain_text
from easeml_core.errors import counted
from easeml_core.services.reports.recommendations import Standing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from easeml_core.services.reports.overview import Board
    from easeml_core.services.reports.recommendations import Assessment
    from easeml_core.store.queries.assessments import Crowd


DAYS_DRAWN = 14
SECONDS_A_DAY = 86_400.0


def scale_of(
    now: datetime, drawn: Mapping[str, Sequence[tuple[datetime, float]]]
) -> tuple[Axis, Axis, datetime] | None:
    """One scale for all: time until now, at most two weeks; quality from the least to the best that is shown."""
    points = [point for found in drawn.values() for point in found]
    if not points:
        return None
    age = min(DAYS_DRAWN * SECONDS_A_DAY, max((now - when).total_seconds() for when, _ in points))
    low, high = min(q for _, q in points), max(q for _, q in points)
    return Axis(-max(age, 1.0), 0.0), Axis(low - 0.02, max(high, low) + 0.02), now


def span_text(sparks: Sequence[Plot | None]) -> str:
    """How far back the small charts go."""
    axis = next((spark.x for spark in sparks if spark is not None), None)
    return "" if axis is None else f"Last {age_text(-axis.low)}, all on one scale"


def spark_of(
    entry: Assessment, found: Sequence[tuple[datetime, float]], x: Axis, y: Axis, now: datetime
) -> Plot | None:
    """One study's best quality over time; None where it has no result."""
    if not found:
        return None
    look = "1" if entry.standing is Standing.SEARCHING or (entry.rise or 1) > 0 else "6"
    points = [(max((when - now).total_seconds(), x.low), quality) for when, quality in found]
    points.append((0.0, found[-1][1]))
    dot = Dot(0.0, found[-1][1], "", f"f{look}")
    return Plot("", "", x, y, lines=[Line(points, f"ln k{look}", step=True)], dots=[dot])


def area_spark(values: Sequence[float], look: str) -> Plot | None:
    """Values at equal distances, the last one now, over an area."""
    if len(values) < 2:
        return None
    low, high = min(values), max(values)
    y = Axis(low - 0.1 * (high - low or 1.0), high + 0.1 * (high - low or 1.0))
    points = list(enumerate(values))
    band = Band([(x, y.low, value) for x, value in points], f"a{look}")
    last = Dot(len(values) - 1, values[-1], "", f"f{look}")
    return Plot("", "", Axis(0, len(values) - 1), y, bands=[band], lines=[Line(points, f"ln k{look}")], dots=[last])


def mean_quality(now: datetime, improvements: Mapping[str, Sequence[tuple[datetime, float]]]) -> list[float]:
    """The mean best quality of those that have a result, at 29 moments of the last two weeks or since the first one.

    Before its first result a study counts as 0: else the mean would fall when a study that is harder has its first one.
    """
    scale = scale_of(now, improvements)
    if scale is None:
        return []
    x = scale[0]
    moments = [x.low * (1 - k / 28) for k in range(29)]
    means = []
    for moment in moments:
        best = [
            max((quality for when, quality in found if (when - now).total_seconds() <= moment), default=0.0)
            for found in improvements.values()
        ]
        means.append(sum(best) / len(best))
    return means


@dataclass(frozen=True, slots=True)
class Figures:
    """The numbers beside what needs a person."""

    mean: str
    mean_rise: str
    mean_spark: Plot | None
    training: int
    training_mean: str
    training_spark: Plot | None
    queued: int
    longest_wait: str
    ended: int
    passed: int
    failed: int
    withheld: int
    waiting: int
    moved: str


def figures_of(board: Board) -> Figures:
    """The numbers of the whole, from ``services.reports.overview.board``."""
    crowd, week, busy = board.crowd, board.week, board.busy
    waits = ""
    if crowd.queued_at is not None:
        waits = f"longest wait {age_text((board.read_at - crowd.queued_at).total_seconds())}, "
    promoted = f"{week.promoted} promoted" if week.promoted else "none promoted"
    rolled = f"{week.rolled_back} rolled back" if week.rolled_back else "none rolled back"
    return Figures(
        mean=f"{crowd.best / crowd.with_result:.4f}" if crowd.with_result else "none yet",
        mean_rise=f"{gain_text(crowd.rises / crowd.compared)} in 24 h" if crowd.compared else "",
        mean_spark=area_spark(mean_quality(board.read_at, board.improvements), "1"),
        training=crowd.training,
        training_mean=f"mean of 24 h {sum(busy) / len(busy):.2f}" if busy else "",
        training_spark=area_spark(busy, "3"),
        queued=crowd.waiting,
        longest_wait=waits,
        ended=crowd.ended_day,
        passed=week.passed,
        failed=week.failed,
        withheld=week.withheld,
        waiting=crowd.judging,
        moved=f"{promoted}, {rolled}",
    )


HIGH = 20
CELL = 10

STATES = (
    ("var(--bad)", "alert"),
    ("var(--warn)", "to decide"),
    ("var(--d1)", "searching"),
    ("var(--d6)", "finished"),
    ("var(--mute)", "paused"),
)
"""Colour and word of the states of a cell, in this order."""


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


def map_of(crowd: Crowd, names: Sequence[str]) -> StudyMap:
    """The map of all studies."""
    counts = (crowd.bad, crowd.needs - crowd.bad, crowd.searching, crowd.finished, crowd.paused)
    patches, first = [], 0
    for (colour, word), count in zip(STATES, counts, strict=True):
        if count:
            patches.append(Patch(colour, word, count, _path(first, count)))
        first += count
    parts = ", ".join(f"{patch.count:,} {patch.word}" for patch in patches)
    columns = -(-len(names) // HIGH)
    sentence = f"{counted(len(names), 'study', 'studies')}: {parts}"
    return StudyMap(max(columns * CELL - 2, CELL), HIGH * CELL - 2, patches, names, sentence)


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
