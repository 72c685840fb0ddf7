"""The timeline of a study: its data, trials, submissions, verdicts, promotions, test sets and alerts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from textwrap import shorten
from typing import TYPE_CHECKING

from easeml_core.services.test_sets.lifecycle import WHY
from easeml_core.settings.config import require
from easeml_core.store.queries import timeline as rows
from easeml_core.store.queries.timeline import EventKind
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from datetime import datetime

    from easeml_core.store.database import Store

MOST_DRAWN = 1000
"""Largest number of events on the line, the newest."""

_SHOWN = 120
"""Characters of a program; the study's page has all of it."""

LANES = ("data", "trials", "submissions", "production", "sealed sets", "alerts")

_LANE = {
    EventKind.REGISTERED: "data",
    EventKind.DATA: "data",
    EventKind.FED: "data",
    EventKind.SWITCHED: "data",
    EventKind.TRIAL: "trials",
    EventKind.SUBMITTED: "submissions",
    EventKind.VERDICT: "submissions",
    EventKind.READING: "submissions",
    EventKind.MOVED: "production",
    EventKind.SEALED: "sealed sets",
    EventKind.RETIRED: "sealed sets",
    EventKind.ALERT: "alerts",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event in words.

    Attributes:
        at: When.
        kind: What happened.
        lane: One of ``LANES``.
        ref: Its number among the events of its kind; of a trial the trial's id.
        title: A few words.
        detail: The rest; may be empty.
        facts: The event's row, of the class that belongs to its kind.
    """

    at: datetime
    kind: EventKind
    lane: str
    ref: int
    title: str
    detail: str
    facts: rows.EventFacts


@dataclass(frozen=True, slots=True)
class Timeline:
    """The history of a study.

    Attributes:
        study: Its name.
        total: Events that there are.
        events: One page of them, newest first.
        line: The newest ``MOST_DRAWN``.
    """

    study: str
    total: int
    events: list[Event]
    line: list[Event]


def lifecycle(store: Store, *, study: str, limit: int = 50, offset: int = 0) -> Timeline:
    """Return the history of a study, with released facts only."""
    require(1 <= limit <= 1000, "limit", limit, "from 1 to 1000")
    require(offset >= 0, "offset", offset, ">= 0")
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        line = [in_words(e) for e in rows.events(tx, found.id, limit=MOST_DRAWN)]
        if offset + limit <= MOST_DRAWN:
            events = line[offset : offset + limit]
        else:
            events = [in_words(e) for e in rows.events(tx, found.id, limit=limit, offset=offset)]
        total = len(line) if len(line) < MOST_DRAWN else rows.count_events(tx, found.id)
    return Timeline(study, total, events, line)


def in_words(row: rows.EventRow) -> Event:
    """Return the event with its lane, title and detail."""
    title, detail = _words(row.facts)
    return Event(row.at, row.kind, _LANE[row.kind], row.ref, title, detail, row.facts)


@singledispatch
def _words(facts: rows.EventFacts) -> tuple[str, str]:
    """Return the title and the detail of an event."""
    raise NotImplementedError(type(facts))


@_words.register
def _(facts: rows.Registered) -> tuple[str, str]:
    return "registered", shorten(facts.program or "", width=_SHOWN, placeholder=" ...")


@_words.register
def _(facts: rows.NewData) -> tuple[str, str]:
    counts = f"{facts.train_rows or 0:,} rows to train on, {facts.validation_rows or 0:,} to validate"
    if facts.validation_only:
        return f"data version {facts.version}: another validation set", counts
    return f"data version {facts.version}{', refreshed' if facts.refreshed else ''}", counts


@_words.register
def _(facts: rows.Fed) -> tuple[str, str]:
    state = f"{facts.state}: {facts.reason}" if facts.reason else facts.state
    return f"{facts.rows:,} examples fed", f"{state}; from {facts.origin}, by {facts.by}"


@_words.register
def _(facts: rows.Switched) -> tuple[str, str]:
    return f"{facts.rows:,} examples switched {'on' if facts.is_on else 'off'}", f"{facts.reason}, {facts.by}"


@_words.register
def _(facts: rows.EndedTrial) -> tuple[str, str]:
    took = f"{facts.seconds:,.1f} s" + (f" on {facts.device}" if facts.device else "")
    if facts.quality is not None:
        how = "measured anew, " if facts.measured_anew else ""
        return f"{facts.candidate}: {facts.quality:.4f}", f"{how}{took}"
    return f"{facts.candidate} {facts.state.lower()}", "; ".join(filter(None, [facts.failure, took]))


@_words.register
def _(facts: rows.Submitted) -> tuple[str, str]:
    return f"model {facts.model} handed in", f"{facts.what}, by {facts.by}: {facts.message}"


@_words.register
def _(facts: rows.VerdictEvent) -> tuple[str, str]:
    again = ", the same answer again" if facts.cached else ""
    return f"model {facts.model}: {facts.symbol}", f"step {facts.step} of set {facts.set}{again}"


@_words.register
def _(facts: rows.Reading) -> tuple[str, str]:
    drift = f"; drift {facts.drift}" if facts.drift else ""
    if facts.signal is None:
        return f"model {facts.model}: no signal", f"set {facts.set} was retired instead{drift}"
    return f"model {facts.model}: signal {facts.signal} of {facts.signals}", f"on set {facts.set}{drift}"


@_words.register
def _(facts: rows.Moved) -> tuple[str, str]:
    how = {"promote": "promoted", "rollback": "rolled back to", "force": "promoted by force"}[facts.how]
    title = f"{how} model {facts.model}" if facts.how == "rollback" else f"model {facts.model} {how}"
    reasons = [facts.reason, f"by {facts.by}" if facts.by else ""]
    return title, ", ".join(filter(None, reasons)) or "on a passing verdict"


@_words.register
def _(facts: rows.Sealed) -> tuple[str, str]:
    return (
        f"{facts.purpose} set {facts.set} sealed",
        f"{facts.rows:,} rows, {facts.steps} steps; now {facts.state}",
    )


@_words.register
def _(facts: rows.Retired) -> tuple[str, str]:
    why = WHY.get(facts.why, facts.why) if facts.why else ""
    return f"{facts.purpose} set {facts.set} retired", why + ("; released since" if facts.released else "")


@_words.register
def _(facts: rows.Alerted) -> tuple[str, str]:
    end = ", cleared" if facts.is_cleared else "" if facts.is_open else ", served"
    return f"alert: {facts.what}{end}", facts.message
