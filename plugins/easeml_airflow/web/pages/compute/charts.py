"""What ran where as boxes on a line of time, and two plots: how many devices trained, what an hour of one was worth.

Places are in per cent, with words for each, and the same as a table. The page looks back over one of several times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median, quantiles
from typing import TYPE_CHECKING

from easeml_airflow.web.components.charts import Axis, Band, Dot, Line, Note, Plot, nice_axis
from easeml_airflow.web.server.airflow_runs import task_address
from easeml_airflow.web.server.formats import MINUS, Mark, age_text, seconds_text
from easeml_core.entities import TrialState
from easeml_core.errors import counted
from easeml_core.services.reports.compute import WINDOWS, JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_airflow.web.server.airflow_runs import Place
    from easeml_core.services.reports.compute import ComputeReport, Job
    from easeml_core.services.reports.compute import Lane as DeviceLane
    from easeml_core.store.queries.compute import BusyDevices


HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, how long it is in per cent, a tick, and what it says."""

    name: str
    width: float
    value: str
    tick: float | None = None
    look: str = ""
    more: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """How far back a look goes.

    Attributes:
        span: So far.
        unit: What its axes count, ``HOUR`` or ``DAY``.
        marks: Into how many parts an axis is cut.
        step: Time from one round moment of the lanes to the next.

    Example:
        >>> SHOWN["6h"].word, SHOWN["7d"].word, SHOWN["7d"].length
        ('6 hours', '7 days', 7)
    """

    span: timedelta
    unit: timedelta
    marks: int
    step: timedelta

    @property
    def length(self) -> int:
        """Of the span, in units."""
        return self.span // self.unit

    @property
    def is_by_day(self) -> bool:
        """Whether days are counted, not hours."""
        return self.unit == DAY

    @property
    def word(self) -> str:
        """The span in words."""
        return f"{self.length} {'days' if self.is_by_day else 'hours'}"


_LOOKS = {"6h": (HOUR, 6, HOUR), "24h": (HOUR, 6, 4 * HOUR), "7d": (DAY, 7, DAY)}

SHOWN = {key: Window(span, *_LOOKS[key]) for key, (span, _) in WINDOWS.items()}
"""By the keys of ``services.reports.compute.WINDOWS``."""


LANES_SHOWN = 40
LABEL_UNTIL = 88.0
"""Per cent of the line; what ends later has its name inside, since there is no room behind it."""

ROWS_SHOWN = 25
"""Trials of the table beside the lanes."""

_STATES = {
    JobState.RUNNING: Mark("busy", "run", "running"),
    JobState.ENDED: Mark("ok", "done", "ended"),
    JobState.FAILED: Mark("bad", "fail", "failed"),
    JobState.LOST: Mark("bad", "alert", "lost"),
}


@dataclass(frozen=True, slots=True)
class Box:
    """A trial on its lane, or the time that it still needs."""

    left: float
    width: float
    look: str
    word: str
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A device of a kind, as far as known: one trial at a time."""

    name: str
    mark: Mark
    status: str
    boxes: Sequence[Box]
    label: tuple[float, str] | None = None


@dataclass(frozen=True, slots=True)
class LaneLine:
    """A trial in the table beside the lanes."""

    device: str
    study: str
    candidate: str
    mark: Mark
    begun_at: datetime
    took: str
    left: str
    place: str = ""
    log: str | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """All lanes, their axis and the moment that is now."""

    lanes: Sequence[Lane] = ()
    ticks: Sequence[tuple[float, datetime, bool]] = ()
    now: float = 100.0
    now_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    total: int = 0
    drawn: int = 0
    lines: Sequence[LaneLine] = ()
    is_by_day: bool = False


@dataclass(frozen=True, slots=True)
class _Scale:
    since: datetime
    until: datetime

    def at(self, moment: datetime) -> float:
        share = (moment - self.since) / (self.until - self.since)
        return round(100 * min(1.0, max(0.0, share)), 2)


def board_of(report: ComputeReport, places: Mapping[str, Place]) -> Board:
    """Lanes of ``services.reports.compute.compute``; ``places`` are where tasks run, by request key."""
    now, window = report.now, SHOWN[report.window]
    span = now - report.since
    ends = [job.expected for lane in report.lanes for job in lane.jobs if job.expected]
    until = min(max([*ends, now + span / 20]), now + span / 2)
    scale = _Scale(report.since, until + (until - report.since) / 6)  # room for the names of what runs
    jobs = [job for lane in report.lanes for job in lane.jobs]
    return Board(
        lanes=[_lane(lane, scale, now) for lane in report.lanes[:LANES_SHOWN]],
        ticks=_ticks(scale, window.step, now),
        now=scale.at(now),
        now_at=now,
        total=len(report.lanes),
        drawn=report.drawn,
        lines=[_line(job, now, places) for job in sorted(jobs, key=_order)[:ROWS_SHOWN]],
        is_by_day=window.is_by_day,
    )


def _order(job: Job) -> tuple[int, float]:
    return {JobState.LOST: 0, JobState.RUNNING: 1}.get(job.state, 2), -job.until.timestamp()


def _lane(lane: DeviceLane, scale: _Scale, now: datetime) -> Lane:
    last = lane.jobs[-1]
    boxes = [box for job in lane.jobs for box in _boxes(job, scale, now)]
    mark, status, label = Mark("idle", "pause", "free"), "free", None
    if last.state == JobState.RUNNING:
        mark = _STATES[last.state]
        status = f"{last.run.study}, {_left(last, now)}"
        place = scale.at(last.expected or now)
        label = (place, last.run.study) if place < LABEL_UNTIL else None
    elif last.state == JobState.LOST and last.run.state == TrialState.RUNNING:
        mark = _STATES[last.state]
        status = f"no heartbeat for {age_text((now - last.until).total_seconds())}"
    return Lane(f"{lane.device} {lane.number}", mark, status, boxes, label)


def _boxes(job: Job, scale: _Scale, now: datetime) -> list[Box]:
    left, right = scale.at(job.begun), scale.at(job.until)
    look = {JobState.RUNNING: "run", JobState.LOST: "lost"}.get(job.state, "")
    word = "" if job.state == JobState.RUNNING else "lost" if job.state == JobState.LOST else job.run.study
    boxes = [Box(left, max(0.15, round(right - left - 0.1, 2)), look, word, _title(job, now))]
    if job.expected:
        end = scale.at(job.expected)
        word = "" if end < LABEL_UNTIL else job.run.study
        boxes.append(Box(right, max(0.3, round(end - right, 2)), "fut", word, f"expected end, {_left(job, now)}"))
    return boxes


def _title(job: Job, now: datetime) -> str:
    run = job.run
    took = seconds_text((job.until - job.begun).total_seconds())
    rest = f", {_left(job, now)}" if job.state == JobState.RUNNING else ""
    return f"{run.study}, {run.candidate}: {_STATES[job.state].word}, {took}{rest}"


def _left(job: Job, now: datetime) -> str:
    if job.expected is None:
        return "longer than expected" if job.run.predicted_seconds else "end not known"
    return f"{seconds_text((job.expected - now).total_seconds())} left"


def place_text(key: str | None, places: Mapping[str, Place]) -> str:
    """The machine and the pool of who holds a trial, as far as Airflow says."""
    place = places.get(key or "")
    if place is None:
        return ""
    return f"{place.host}, pool {place.pool}" if place.host else f"pool {place.pool}"


def _line(job: Job, now: datetime, places: Mapping[str, Place]) -> LaneLine:
    run = job.run
    key = run.lease_key if job.state in (JobState.RUNNING, JobState.LOST) else None
    return LaneLine(
        device=run.device or "not told",
        study=run.study,
        candidate=run.candidate,
        mark=_STATES[job.state],
        begun_at=job.begun,
        took=seconds_text(max(0.0, (job.until - job.begun).total_seconds())),
        left=_left(job, now) if job.state == JobState.RUNNING else "",
        place=place_text(key, places),
        log=task_address(key),
    )


def _ticks(scale: _Scale, step: timedelta, now: datetime) -> list[tuple[float, datetime, bool]]:
    """Round moments (place, moment, whether it also stands on a narrow page), none beside the present one."""
    first = scale.since.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    if step >= timedelta(hours=2):
        first = first.replace(hour=0)
    found, moment, number = [], first, 0
    while moment < scale.until:
        if moment > scale.since and abs(scale.at(moment) - scale.at(now)) > 7 and 3 < scale.at(moment) < 97:
            found.append((scale.at(moment), moment, number % 2 == 0))
        moment, number = moment + step, number + 1
    return found


HUNDRED = 100
LAST = 20
"""Choices whose worth the title tells."""


def _time_axis(window: Window) -> Axis:
    """Hours, or days, before now: the same in every zone."""
    span, marks, unit = window.length, window.marks, "d" if window.is_by_day else "h"
    ticks = [(-k * span / marks, f"{MINUS}{k * span // marks} {unit}" if k else "now") for k in range(marks, -1, -1)]
    return Axis(-span, 0, ticks, "")


def _few(number: float) -> str:
    """A mean of devices, with two figures where it is below one.

    Example:
        >>> _few(7.84), _few(0.0), _few(0.0213)
        ('7.8', '0', '0.021')
    """
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def _figures(number: float) -> str:
    """A worth of compute with three figures: it may be a thousand an hour, or a thousandth.

    Example:
        >>> _figures(13.9642), _figures(0.0021377), _figures(1834.2), _figures(0.0)
        ('14', '0.00214', '1,834', '0')
    """
    return f"{number:,.0f}" if abs(number) >= HUNDRED else f"{number:.3g}"


def busy_plot(parts: Sequence[BusyDevices], window: Window, *, is_all: bool) -> tuple[Plot, list[tuple[str, str]]]:
    """Return devices that trained over time: of all tenants, and of the viewer where that is less."""
    x = _time_axis(window)
    width = -x.low / max(1, len(parts))
    places = [x.low + (k + 0.5) * width for k in range(len(parts))]
    every, own = [p.devices for p in parts], [p.own for p in parts]
    shown = every if is_all else own
    mean = sum(shown) / len(shown) if shown else 0.0
    whose = "" if is_all else " for you"
    title = f"On average {_few(mean)} devices trained{whose} over the last {window.word}"
    axis = nice_axis([0, 1, *every], title="devices training")
    lines = [Line(list(zip(places, shown, strict=True)), "ln k3")]
    if not is_all:
        lines.insert(0, Line(list(zip(places, every, strict=True)), "ln kf thin dash"))
    plot = Plot(
        title=title,
        sentence=f"{title}; most at once {_few(max(shown, default=0))}, least {_few(min(shown, default=0))}.",
        x=x,
        y=axis,
        bands=[Band([(place, 0, value) for place, value in zip(places, shown, strict=True)], "a3")],
        lines=lines,
        height=196,
        key=() if is_all else (("line", "ln k3", "yours"), ("line", "ln kf thin dash", "of all tenants")),
    )
    pairs = [("Mean", _few(mean)), ("Most", _few(max(shown, default=0))), ("Least", _few(min(shown, default=0)))]
    return plot, [(f"{word} of devices training", value) for word, value in pairs]


def gains_plot(report: ComputeReport) -> Plot | None:
    """What each choice promised for an hour of a device, against the price of one; None without any choice."""
    gains, now, since = report.gains, report.now, report.since
    if not gains:
        return None
    window = SHOWN[report.window]
    x = _time_axis(window)

    def place(moment: datetime) -> float:
        return max(x.low, float((moment - now) / window.unit))

    values = [g.gain_per_hour for g in gains]
    top = min(max(values), 1.5 * quantiles(values, n=5)[-1]) if len(values) >= LAST else max(values)
    prices = report.prices
    price = prices[-1].per_hour
    y = nice_axis([0, top, price], title="gain of quality per device-hour")
    usual = median(values[:LAST])
    steps = [(place(p.at), min(p.per_hour, y.high)) for p in prices if p.at > since]
    before = [p.per_hour for p in prices if p.at <= since]
    line = [(x.low, before[-1] if before else 0.0), *steps]
    latest = "The last choice" if len(values) == 1 else f"The last {min(LAST, len(values))} choices"
    worth = f"{latest} promised {_figures(usual)} of quality per device-hour"
    title = f"{worth}; the price is {_figures(price)}" if price else worth
    return Plot(
        title=title,
        sentence=f"{title}. {counted(len(values), 'choice')}, from {_figures(min(values))} to {_figures(max(values))}; "
        f"{sum(v > y.high for v in values)} stand at the upper edge and are worth more.",
        x=x,
        y=y,
        lines=[Line(line, "ln thin dash kf", step=True)] if price else (),
        dots=[
            Dot(
                place(g.at),
                min(g.gain_per_hour, y.high),
                f"{g.study}, {g.candidate}: {_figures(g.gain_per_hour)} per device-hour"
                + (", by the guard" if g.guarded else ""),
                "f3" if g.guarded else "f1",
                3,
            )
            for g in gains
        ],
        notes=[Note(0, price, f"price {_figures(price)}", "t", "end", -4, -6)] if price else (),
        height=196,
        key=(("dot", "f1", "a choice by worth"), ("dot", "f3", "by the guard")),
    )
