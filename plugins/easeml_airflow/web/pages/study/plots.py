"""The two pictures of a study: quality over cost, and a line for each candidate.

Quality over cost has every trial of the present data where it ended, the best so far, and what is expected next. The
forest has what is believed or was measured of each candidate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_airflow.web.components.charts import Dot, Interval, Line, Note, Plot, nice_axis
from easeml_airflow.web.server.formats import Mark, expected_text, number_text, quality_text, seconds_text, unit_of
from easeml_core.entities import TrialState
from easeml_core.errors import counted
from easeml_core.selection.surrogate.logit_normal import band

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_airflow.web.components.charts import Axis
    from easeml_core.services.reports.study import StudyReport
    from easeml_core.services.selection.beliefs import Expected
    from easeml_core.store.queries.study import EndedPoint, StudyTrial

    Result = tuple[EndedPoint, float]


UNITS = ((7200.0, 3600.0, "device-hours"), (240.0, 60.0, "device-minutes"), (0.0, 1.0, "device-seconds"))
MOST_RUNNING = 5
KEY = (
    ("line", "ln k1", "best so far"),
    ("dot", "f1", "raised the best"),
    ("dot", "hole k6", "did not"),
    ("cross", "ln k2", "failed"),
)


@dataclass(frozen=True, slots=True)
class Coming:
    """A running trial with what is predicted of it.

    Attributes:
        trial: The trial.
        spent: Device seconds that the study will have spent when it ends.
        mean: Predicted quality.
        low: Lower end of the band that holds 80 %; ``high`` is the upper one.
    """

    trial: StudyTrial
    spent: float
    mean: float
    low: float
    high: float


def plot_of(report: StudyReport) -> Plot:
    """Return the plot of a study."""
    points = [p for p in report.points if p.is_present]
    spent = report.facts.device_seconds
    coming = _coming(report.open, spent)
    size, unit = next(
        (size, unit) for least, size, unit in UNITS if max(spent, *(c.spent for c in coming), 0.0) >= least
    )
    rises = _rises(points)
    results = [quality for _, quality in _results(points)]
    bands = [end for c in coming for end in (c.low, c.high)]
    x = nice_axis([0.0, spent / size, *(c.spent / size for c in coming)], title=f"{unit} spent")
    y = nice_axis([*results, *bands], title=f"{report.study.metric} on validation data")
    best = _best_line(rises, spent, size)
    return Plot(
        title=_title(rises, points, unit, size),
        sentence=_sentence(points, rises, coming, unit, size),
        x=x,
        y=y,
        lines=[best] if best.points else [],
        marks=[(spent / size, "ln thin dot kf")] if coming else [],
        dots=[_dot(result, result in rises, size) for result in _results(points)],
        notes=_notes(rises, coming, spent, size),
        height=250,
        key=KEY if points else (),
        crosses=[_cross(p, y.low, size) for p in points if p.state == TrialState.FAILED],
        intervals=[_interval(c, size) for c in coming],
    )


def _results(points: Sequence[EndedPoint]) -> list[Result]:
    """Return the trials that gave a quality, with it."""
    return [(point, point.quality) for point in points if point.quality is not None]


def _rises(points: Sequence[EndedPoint]) -> list[Result]:
    """Return the trials that raised the best, in their order."""
    best, found = -1.0, []
    for point, quality in _results(points):
        if quality > best:
            best = quality
            found.append((point, quality))
    return found


def _best_line(rises: Sequence[Result], spent: float, size: float) -> Line:
    steps = [(point.spent / size, quality) for point, quality in rises]
    return Line([*steps, (spent / size, steps[-1][1])] if steps else [], "ln k1", step=True)


def _coming(trials: Sequence[StudyTrial], spent: float) -> list[Coming]:
    """Return the running trials of which a quality was predicted, at most ``MOST_RUNNING``."""
    found: list[Coming] = []
    for trial in trials:
        if trial.state != TrialState.RUNNING or trial.mean is None or len(found) == MOST_RUNNING:
            continue
        spent += trial.predicted_seconds or 0.0
        found.append(Coming(trial, spent, trial.mean, *band(trial.mean, trial.std or 0.0)))
    return found


def _dot(result: Result, is_rise: bool, size: float) -> Dot:
    point, quality = result
    title = f"#{point.trial_id} {point.candidate}: {quality:.4f}, {seconds_text(point.cost)}"
    look = ("f1", 4.5) if is_rise else ("hole k6", 4)
    return Dot(point.spent / size, quality, title, *look)


def _cross(point: EndedPoint, floor: float, size: float) -> Dot:
    return Dot(point.spent / size, floor, f"#{point.trial_id} {point.candidate}: failed", "ln k2")


def _interval(coming: Coming, size: float) -> Interval:
    trial, low, high = coming.trial, coming.low, coming.high
    title = f"#{trial.trial_id} {trial.candidate} runs: 80 % expected between {low:.4f} and {high:.4f}"
    return Interval(coming.spent / size, low, coming.mean, high, title)


def _notes(rises: Sequence[Result], coming: Sequence[Coming], spent: float, size: float) -> list[Note]:
    notes = []
    if rises:
        last, quality = rises[-1]
        beside = ("end", -6) if last.spent > 0.5 * spent else ("start", 6)
        notes.append(Note(last.spent / size, quality, f"best {quality:.4f}", "t", *beside, -10, free=True))
    if coming:
        notes.append(Note(coming[0].spent / size, coming[0].mean, "running", "t", "end", -10, -2, free=True))
    return notes


def _title(rises: Sequence[Result], points: Sequence[EndedPoint], unit: str, size: float) -> str:
    if not rises:
        return "Quality over cost: no result yet" + (f", {len(points)} ended without one" if points else "")
    at = f"{rises[-1][0].spent / size:.1f} {unit}"
    if len(rises) == 1:
        return f"Quality over cost: nothing has beaten the first result, at {at}"
    return f"Quality over cost: {counted(len(rises), 'trial')} raised the best, the last one at {at}"


def _sentence(
    points: Sequence[EndedPoint], rises: Sequence[Result], coming: Sequence[Coming], unit: str, size: float
) -> str:
    if not rises:
        return "No trial has given a quality on the present data yet."
    failed = sum(p.state == TrialState.FAILED for p in points)
    first, (last, quality) = rises[0][1], rises[-1]
    way = f"rises from {first:.4f} to {quality:.4f}" if len(rises) > 1 else f"is {quality:.4f}"
    parts = [
        f"Quality of each of {counted(len(points), 'trial')} over {unit} spent. The best so far {way} "
        f"after {last.spent / size:.1f} {unit}.",
        f"{counted(failed, 'trial')} failed." if failed else "",
        f"{counted(len(coming), 'trial is', 'trials are')} running." if coming else "",
    ]
    return " ".join(part for part in parts if part)


FEW, MEASURED = 9, 3
"""Of the candidates that may run, and of those that have: so many are shown at first."""

SORTS = ("quality", "cost", "gain", "rate")
"""Columns that candidates may be sorted by: the cheapest first, of all else the most; what has no number comes last."""

BEST_ROOM = 0.26
"""Share of the axis that the word of the best so far takes, with a label beside it, where the table is narrow."""

BUSY = {
    TrialState.RUNNING: Mark("busy", "run", "Running"),
    TrialState.SUGGESTED: Mark("busy", "queue", "Waits"),
}
NEXT = Mark("busy", "queue", "Next")
ENDED = {
    TrialState.SUCCEEDED: Mark("idle", "done", "Done"),
    TrialState.FAILED: Mark("bad", "fail", "Failed"),
    TrialState.CANCELLED: Mark("idle", "stop", "Cancelled"),
}


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One candidate: numbers in words, places in per cent of the axis."""

    candidate: str
    state: Mark | None
    rank: int | None
    quality: str
    spread: str
    cost: str
    gain: str
    rate: str
    is_next: bool = False
    low: float | None = None
    width: float = 0.0
    above: float | None = None
    above_width: float = 0.0
    dot: float | None = None


@dataclass(frozen=True, slots=True)
class Forest:
    """What is believed of every candidate.

    Attributes:
        rows: One line each.
        axis: Quality, from left to right.
        ticks: Places of its labels, in per cent, and the labels: those that are clear of the best so far.
        best: Place of the best so far, in per cent; None before the first.
        best_word: Place of its word, which stands within the axis.
        best_text: The best so far.
        per: What gains are shown per: ``device-hour`` or ``device-minute``.
        total: How many candidates there are.
        sort: By which of ``SORTS`` they are sorted; empty for their turn.
        is_all: Whether all were asked for.
    """

    rows: Sequence[ForestRow]
    axis: Axis
    ticks: Sequence[tuple[float, str]]
    best: float | None
    best_word: float | None
    best_text: str
    per: str
    total: int
    sort: str = ""
    is_all: bool = False


def forest_of(report: StudyReport, *, all_candidates: bool, sort: str = "") -> Forest:
    """The lines: what runs, what may run by its rank, what has run by its quality, then the rest; or by a column."""
    believed = report.believed
    expected = {e.candidate: e for e in believed.candidates} if believed else {}
    measured = {p.candidate: p for p in report.points if p.is_present}  # the last end of each
    under_way = {trial.candidate: trial.state for trial in report.open}
    names = _ordered([c.name for c in report.candidates], expected, measured, under_way)
    total = len(names)
    sort = sort if sort in SORTS else ""
    if sort:
        costs_known = believed is not None and believed.costs_known
        names = _sorted(names, sort, expected, {n: m for n, m in measured.items() if n not in under_way}, costs_known)
    if not all_candidates:
        names = names[: FEW + MEASURED] if sort else _few(names, expected, measured, under_way)
    size, per = unit_of(_typical_cost(expected, measured))
    axis, best = _axis(names, expected, measured), believed.best if believed else 0.0
    best = best or max((m.quality or 0.0 for m in measured.values()), default=0.0)
    costs_known = believed is not None and believed.costs_known
    made = _Lines(axis, best, size, costs_known)
    rows = [made.row(name, expected.get(name), measured.get(name), under_way.get(name)) for name in names]
    place = axis.share(best) if best > 0 and axis.low <= best <= axis.high else None
    word = None if place is None else min(max(place, 50 * BEST_ROOM), 100 - 50 * BEST_ROOM)
    ticks = axis.ticks_beside(word, room=100 * BEST_ROOM)
    return Forest(rows, axis, ticks, place, word, quality_text(best), per, total, sort, all_candidates)


def _ordered(
    names: Sequence[str],
    expected: Mapping[str, Expected],
    measured: Mapping[str, EndedPoint],
    under_way: Mapping[str, TrialState],
) -> list[str]:
    def place(name: str) -> tuple[float, float]:
        if name in under_way:
            return 0, 0
        known, ended = expected.get(name), measured.get(name)
        if known is not None and known.rank is not None:
            return 1, known.rank
        if ended is not None and ended.quality is not None:
            return 2, -ended.quality
        return (3, 0) if ended is not None else (4, 0)

    return sorted(names, key=place)


def _sorted(
    names: Sequence[str],
    sort: str,
    expected: Mapping[str, Expected],
    measured: Mapping[str, EndedPoint],
    costs_known: bool,
) -> list[str]:
    """By the number that the column shows; where two are equal, by their turn."""

    def number(name: str) -> float | None:
        ended, known = measured.get(name), expected.get(name)
        if ended is not None:
            return {"quality": ended.quality, "cost": -ended.cost}.get(sort)
        if known is None or (sort in ("cost", "rate") and not costs_known):
            return None
        gain, cost = known.expected_improvement, known.predicted_cost_seconds
        return {"quality": known.mean, "cost": -cost, "gain": gain, "rate": gain / cost}[sort]

    def place(name: str) -> float:
        found = number(name)
        return math.inf if found is None else -found

    return sorted(names, key=place)


def _few(
    names: Sequence[str],
    expected: Mapping[str, Expected],
    measured: Mapping[str, EndedPoint],
    under_way: Mapping[str, TrialState],
) -> list[str]:
    busy = [n for n in names if n in under_way]
    ranked = [n for n in names if n not in under_way and n in expected and expected[n].rank is not None][:FEW]
    rest = [n for n in names if n not in under_way and n not in ranked and n in measured][
        : MEASURED + FEW - len(ranked)
    ]
    return busy + ranked + rest


def _typical_cost(expected: Mapping[str, Expected], measured: Mapping[str, EndedPoint]) -> float:
    costs = sorted(e.predicted_cost_seconds for e in expected.values()) or sorted(m.cost for m in measured.values())
    return costs[len(costs) // 2] if costs else 0.0


def _axis(names: Sequence[str], expected: Mapping[str, Expected], measured: Mapping[str, EndedPoint]) -> Axis:
    bands = [end for n in names if n in expected and n not in measured for end in (expected[n].low, expected[n].high)]
    results = [measured[n].quality for n in names if n in measured]
    found = sorted((quality for quality in results if quality is not None), reverse=True)
    # What has run far below the rest would squeeze what matters: it stands at the edge instead.
    return nice_axis([*bands, *(found[:1] if bands else found)], most=5)


@dataclass(frozen=True, slots=True)
class _Lines:
    """How candidates become lines of one forest."""

    axis: Axis
    best: float
    size: float
    costs_known: bool

    def row(
        self, name: str, expected: Expected | None, ended: EndedPoint | None, under_way: TrialState | None
    ) -> ForestRow:
        """The line of one candidate, by the most that is known of it."""
        if under_way is None and ended is not None:
            return self._ended(name, ended)
        if expected is None:
            state = BUSY[under_way] if under_way else Mark("idle", "wait", "Not predicted")
            return ForestRow(name, state, None, "", "", "", "", "")
        return self._expected(name, expected, under_way)

    def _ended(self, name: str, ended: EndedPoint) -> ForestRow:
        quality, cost = ended.quality, seconds_text(ended.cost)
        state = ENDED[ended.state]
        if quality is None:
            return ForestRow(name, state, None, "none", "", cost, "", "")
        return ForestRow(name, state, None, f"{quality:.4f}", "measured", cost, "", "", dot=self._place(quality))

    def _expected(self, name: str, known: Expected, under_way: TrialState | None) -> ForestRow:
        low, high = self._place(known.low), self._place(known.high)
        above = self._place(max(known.low, min(self.best, known.high))) if 0 < self.best < known.high else None
        is_next = known.rank == 1
        state = BUSY[under_way] if under_way else NEXT if is_next else None
        if state is None and known.rank is None:
            state = Mark("idle", "lock", "Held by a limit")
        rate = known.expected_improvement / known.predicted_cost_seconds
        return ForestRow(
            candidate=name,
            state=state,
            rank=known.rank,
            quality=f"{known.mean:.4f}",
            spread=f"{known.low:.4f} to {known.high:.4f}",
            cost=seconds_text(known.predicted_cost_seconds) if self.costs_known else "unknown",
            gain=expected_text(known.expected_improvement),
            rate=number_text(self.size * rate) if self.costs_known else "unknown",
            is_next=is_next,
            low=low,
            width=round(high - low, 2),
            above=above,
            above_width=0.0 if above is None else round(high - above, 2),
            dot=self._place(known.mean),
        )

    def _place(self, quality: float) -> float:
        return min(100.0, max(0.0, self.axis.share(quality)))
