"""Quality over cost: every trial of the present data where it ended, the best so far, and what is expected next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.web.components.charts import Dot, Interval, Line, Note, Plot, nice_axis
from easeml_airflow.web.server.formats import seconds_text
from easeml_core.errors import counted
from easeml_core.selection.surrogate.quality_band import band

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNITS = ((7200.0, 3600.0, "device-hours"), (240.0, 60.0, "device-minutes"), (0.0, 1.0, "device-seconds"))
MOST_RUNNING = 5
KEY = (
    ("line", "ln k1", "best so far"),
    ("dot", "f1", "raised the best"),
    ("dot", "hole k6", "did not"),
    ("cross", "ln k2", "failed"),
)


def plot_of(facts: Mapping[str, Any]) -> Plot:
    """The plot for the facts of ``services.study_facts``."""
    points = [p for p in facts["points"] if p["is_present"]]
    spent = float(facts["counts"]["used_seconds"])
    running = [t for t in facts["open"] if t["state"] == "RUNNING" and (t["reasons"] or {}).get("mean") is not None]
    coming = _coming(running[:MOST_RUNNING], spent)
    size, unit = next((size, unit) for least, size, unit in UNITS if max(spent, *(c[0] for c in coming), 0.0) >= least)
    rises = _rises(points)
    told = [p["quality"] for p in points if p["quality"] is not None]
    bands = [end for _, low, high, _ in coming for end in (low, high)]
    x = nice_axis([0.0, spent / size, *(at / size for at, *_ in coming)], title=f"{unit} spent")
    y = nice_axis([*told, *bands], title=f"{facts['study'].metric} on validation data")
    best = _best_line(rises, spent, size)
    return Plot(
        title=_title(rises, points, unit, size),
        sentence=_sentence(points, rises, coming, unit, size),
        x=x,
        y=y,
        lines=[best] if best.points else [],
        marks=[(spent / size, "ln thin dot kf")] if coming else [],
        dots=[_dot(p, p in rises, size) for p in points if p["quality"] is not None],
        notes=_notes(rises, coming, spent, size),
        height=250,
        key=KEY if points else (),
        crosses=[_cross(p, y.low, size) for p in points if p["state"] == "FAILED"],
        intervals=[_interval(c, size) for c in coming],
    )


def _rises(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The trials that raised the best, in their order."""
    best, found = -1.0, []
    for point in points:
        if point["quality"] is not None and point["quality"] > best:
            best = point["quality"]
            found.append(point)
    return found


def _best_line(rises: Sequence[Mapping[str, Any]], spent: float, size: float) -> Line:
    steps = [(p["spent"] / size, p["quality"]) for p in rises]
    return Line([*steps, (spent / size, steps[-1][1])] if steps else [], "ln k1", step=True)


def _coming(running: Sequence[Mapping[str, Any]], spent: float) -> list[tuple[float, float, float, Mapping[str, Any]]]:
    """Where each running trial may end: device seconds spent by then, the ends of its band, and the trial."""
    found = []
    for trial in running:
        reasons = trial["reasons"]
        spent += reasons["predicted_cost_seconds"]
        found.append((spent, *band(reasons["mean"], reasons["std"]), trial))
    return found


def _dot(point: Mapping[str, Any], is_rise: bool, size: float) -> Dot:
    title = f"#{point['trial_id']} {point['candidate']}: {point['quality']:.4f}, {seconds_text(point['cost'])}"
    look = ("f1", 4.5) if is_rise else ("hole k6", 4)
    return Dot(point["spent"] / size, point["quality"], title, *look)


def _cross(point: Mapping[str, Any], floor: float, size: float) -> Dot:
    return Dot(point["spent"] / size, floor, f"#{point['trial_id']} {point['candidate']}: failed", "ln k2")


def _interval(coming: tuple[float, float, float, Mapping[str, Any]], size: float) -> Interval:
    at, low, high, trial = coming
    title = f"#{trial['trial_id']} {trial['candidate']} runs: 80 % expected between {low:.4f} and {high:.4f}"
    return Interval(at / size, low, trial["reasons"]["mean"], high, title)


def _notes(rises: Sequence[Mapping[str, Any]], coming: Sequence[Any], spent: float, size: float) -> list[Note]:
    notes = []
    if rises:
        last = rises[-1]
        beside = ("end", -6) if last["spent"] > 0.5 * spent else ("start", 6)
        best = f"best {last['quality']:.4f}"
        notes.append(Note(last["spent"] / size, last["quality"], best, "t", *beside, -10, free=True))
    if coming:
        at, *_, trial = coming[0]
        notes.append(Note(at / size, trial["reasons"]["mean"], "running", "t", "end", -10, -2, free=True))
    return notes


def _title(rises: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]], unit: str, size: float) -> str:
    if not rises:
        return "Quality over cost: no result yet" + (f", {len(points)} ended without one" if points else "")
    at = f"{rises[-1]['spent'] / size:.1f} {unit}"
    if len(rises) == 1:
        return f"Quality over cost: nothing has beaten the first result, at {at}"
    return f"Quality over cost: {counted(len(rises), 'trial')} raised the best, the last one at {at}"


def _sentence(
    points: Sequence[Mapping[str, Any]],
    rises: Sequence[Mapping[str, Any]],
    coming: Sequence[Any],
    unit: str,
    size: float,
) -> str:
    if not rises:
        return "No trial has given a quality on the present data yet."
    failed = sum(p["state"] == "FAILED" for p in points)
    first, last = rises[0]["quality"], rises[-1]["quality"]
    parts = [
        f"Quality of each of {counted(len(points), 'trial')} over {unit} spent. The best so far rises from "
        f"{first:.4f} to {last:.4f} after {rises[-1]['spent'] / size:.1f} {unit}.",
        f"{counted(failed, 'trial')} failed." if failed else "",
        f"{counted(len(coming), 'trial is', 'trials are')} running." if coming else "",
    ]
    return " ".join(part for part in parts if part)
