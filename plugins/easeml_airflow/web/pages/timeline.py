"""A study's lifecycle: the next step with its reason, and a timeline that is the same for every viewer of the study.

The timeline is frozen values: lanes with marks at their places, and ticks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, Request

from easeml_airflow.web.components.action_items import need_of
from easeml_airflow.web.components.charts import Axis, Dot
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.formats import VERDICTS
from easeml_airflow.web.server.site import Tab
from easeml_core.entities import Symbol
from easeml_core.errors import counted
from easeml_core.services.reports.next_steps import next_steps
from easeml_core.services.reports.recommendations import Severity
from easeml_core.services.reports.timeline import LANES, MOST_DRAWN, lifecycle
from easeml_core.store.queries.timeline import EndedTrial, EventKind, Moved, Reading, VerdictEvent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from fastapi.responses import HTMLResponse

    from easeml_airflow.web.components.action_items import Need
    from easeml_airflow.web.server.site import Site
    from easeml_core.services.reports.timeline import Event


TICKS = 4
SHAPES = {
    EventKind.REGISTERED: ("queue", "idle"),
    EventKind.DATA: ("down", "busy"),
    EventKind.FED: ("down", "idle"),
    EventKind.SWITCHED: ("swap", "idle"),
    EventKind.TRIAL: ("run", "busy"),
    EventKind.SUBMITTED: ("right", "busy"),
    EventKind.READING: ("bolt", "idle"),
    EventKind.MOVED: ("done", "ok"),
    EventKind.SEALED: ("lock", "busy"),
    EventKind.RETIRED: ("stop", "idle"),
    EventKind.ALERT: ("alert", "bad"),
}
"""Symbol and colour of each kind; a verdict has those of its symbol."""

TOPS = {EventKind.VERDICT: 4, EventKind.READING: 28, EventKind.SUBMITTED: 16, EventKind.TRIAL: 36}
"""Distance of a symbol from the top of its lane, in pixels."""


@dataclass(frozen=True, slots=True)
class Place:
    """A symbol at a place of its lane: ``left`` in per cent, ``sector`` of the meter where it has one."""

    left: float
    title: str
    shape: str
    colour: str
    top: int
    sector: int = 0


@dataclass(slots=True)
class Lane:
    """One lane: trials are dots at the height of their quality, all else are symbols."""

    name: str
    places: list[Place] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)

    @property
    def height(self) -> int:
        """In pixels."""
        return 56 if self.name == "trials" else 48 if self.name == "submissions" else 28


@dataclass(frozen=True, slots=True)
class TimeLine:
    """The lanes, the ticks (per cent from the left, moment), how these are written, and the finding."""

    lanes: Sequence[Lane]
    ticks: Sequence[tuple[float, datetime]]
    style: str
    title: str


def shape_of(event: Event) -> tuple[str, str]:
    """Return the symbol and the colour of an event."""
    facts = event.facts
    if isinstance(facts, VerdictEvent):
        colour, shape, _ = VERDICTS[facts.symbol]
        return shape, colour
    if isinstance(facts, EndedTrial) and facts.quality is None:
        return "fail", "bad"
    return ("undo", "warn") if isinstance(facts, Moved) and facts.how == "rollback" else SHAPES[event.kind]


def _qualities(events: Sequence[Event]) -> list[float]:
    trials = [e.facts for e in events if isinstance(e.facts, EndedTrial)]
    return [trial.quality for trial in trials if trial.quality is not None]


def time_line(events: Sequence[Event]) -> TimeLine:
    """The line of these events, newest first; at least one."""
    first, last = events[-1].at, events[0].at
    span = max(last - first, timedelta(seconds=1))
    x = Axis(-0.03 * span.total_seconds(), 1.03 * span.total_seconds())
    lanes = {name: Lane(name) for name in LANES}
    qualities = _qualities(events)
    y = Axis(min(qualities, default=0.0) - 0.01, max(qualities, default=1.0) + 0.01)
    for event in reversed(events):
        left = x.share((event.at - first).total_seconds())
        _put(lanes[event.lane], event, left, y)
    ticks = [(x.share(k / TICKS * span.total_seconds()), first + k / TICKS * span) for k in range(TICKS + 1)]
    style = "clock" if span < timedelta(hours=2) else "minute" if span < timedelta(days=4) else "day"
    return TimeLine([lane for lane in lanes.values() if lane.places or lane.dots], ticks, style, title_of(events))


def _put(lane: Lane, event: Event, left: float, y: Axis) -> None:
    """Add the event's mark to its lane."""
    facts, title = event.facts, f"{event.title}; {event.detail}"
    shape, colour = shape_of(event)
    if isinstance(facts, EndedTrial) and facts.quality is not None:
        lane.dots.append(Dot(left, round(86 - 0.72 * y.share(facts.quality), 2), title, "f1", 4))
        return
    sector = min(facts.signal or 0, 4) if isinstance(facts, Reading) else 0
    lane.places.append(Place(left, title, shape, colour, TOPS.get(event.kind, 6), sector))


def title_of(events: Sequence[Event]) -> str:
    """What the line shows, with its main numbers."""
    kinds = Counter(e.kind for e in events)
    verdicts = [e.facts for e in events if isinstance(e.facts, VerdictEvent)]
    symbols = Counter(verdict.symbol for verdict in verdicts if not verdict.cached)
    qualities = _qualities(events)
    parts = [counted(kinds[EventKind.DATA], "data version"), counted(kinds[EventKind.TRIAL], "trial")]
    parts[1] += f", the best of them {max(qualities):.4f}" if qualities else ""
    parts += [f"{symbols[s]} {s}" for s in Symbol if symbols[s]]
    parts += [counted(kinds[EventKind.MOVED], "promotion")] if kinds[EventKind.MOVED] else []
    return "; ".join(parts)


STUDY_TAB = Tab("/lifecycle", "Lifecycle")

PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class Page:
    """What the template reads.

    Attributes:
        steps: What is next: its line, and what to do in words.
        is_calm: Whether nothing needs a person.
        line: The line of the newest events.
        is_cut: Whether there are more events than the line draws.
        drawn: Events that the line draws.
        events: One page of the list: event, symbol, colour.
        total: Events that there are.
        first: How many newer ones the page leaves out.
        number: Of the page, from 1.
    """

    steps: Sequence[tuple[Need, str]]
    is_calm: bool
    line: TimeLine
    is_cut: bool
    drawn: int
    events: Sequence[tuple[Event, str, str]]
    total: int
    first: int
    number: int


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/lifecycle``."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/studies/{study}/lifecycle")
    def show(request: Request, study: str, page: str = "1", viewer: Viewer = who) -> HTMLResponse:
        found, store = site.study(viewer, study), site.open_store()
        number = max(1, int(page[:6])) if page.isascii() and page.isdigit() else 1
        timeline = lifecycle(store, study=found.name, limit=PAGE_SIZE, offset=(number - 1) * PAGE_SIZE)
        steps = next_steps(store, studies_only=[found.name])
        shown = Page(
            steps=[(need_of(step, viewer, named=False), step.act) for step in steps],
            is_calm=all(step.severity == Severity.INFO for step in steps),
            line=time_line(timeline.line),
            is_cut=timeline.total > MOST_DRAWN,
            drawn=len(timeline.line),
            events=[(event, *shape_of(event)) for event in timeline.events],
            total=timeline.total,
            first=(number - 1) * PAGE_SIZE,
            number=number,
        )
        return site.page(request, viewer, "lifecycle.html", study=found, shown=shown)

    return router
