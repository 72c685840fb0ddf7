"""Quality over cost: every trial of the present data where it ended, the best so far, and what is expected next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_airflow.web.components.charts import Dot, Interval, Line, Note, Plot, nice_axis
from easeml_airflow.web.server.formats import seconds_text
from easeml_core.entities import TrialState
from easeml_core.errors import counted
from easeml_core.selection.surrogate.logit_normal import band

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.services.reports.study import StudyReport
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
    parts = [
        f"Quality of each of {counted(len(points), 'trial')} over {unit} spent. The best so far rises from "
        f"{first:.4f} to {quality:.4f} after {last.spent / size:.1f} {unit}.",
        f"{counted(failed, 'trial')} failed." if failed else "",
        f"{counted(len(coming), 'trial is', 'trials are')} running." if coming else "",
    ]
    return " ".join(part for part in parts if part)
