"""Notifications about all studies, each sent at least once by a watcher that remembers what it sent.

They hold what every developer may know: symbols, never a sealed figure, and no withheld verdict.

A watcher keeps a ``NewsCursor`` as JSON between two looks. Rows are dated before they can be read, so each look goes
back ``OVERLAP`` behind the one before, and leaves out by id what was sent. Two kinds of events have no row: that a
search has ended, and that its budget is spent. The cursor names those that hold, and one that ceases and holds again is
new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from easeml_core.formats.display import device_time
from easeml_core.formats.encoding import typed_record
from easeml_core.services.reports.assessments import assess_changes, events_of
from easeml_core.services.reports.recommendations import best_words, steps_of
from easeml_core.settings.config import require
from easeml_core.store.queries import assessments
from easeml_core.store.queries import audit as rows

if TYPE_CHECKING:
    from easeml_core.entities import JsonObject
    from easeml_core.store.database import Store
    from easeml_core.store.queries.overview import StudySummary


class EventKind(StrEnum):
    """What an event is about."""

    PROMOTION = "promotion"
    ROLLBACK = "rollback"
    REJECTION = "rejection"
    NEW_TEST_SET = "new-test-set"
    OVERFITTING = "overfitting"
    DRIFT = "drift"
    STUDY_FINISHED = "study-finished"
    BUDGET_SPENT = "budget-spent"
    NOT_HELD = "not-held"


@typed_record
class NewsCursor:
    """Which events a watcher has sent; it keeps this as JSON between two looks.

    Attributes:
        since: ISO 8601.
        sent: Id of each event to its moment in ISO 8601, or None for one that holds.
    """

    since: str
    sent: dict[str, str | None]

    def to_stored(self) -> JsonObject:
        """Return it as the watcher stores it, with the keys of the first version."""
        return {"since": self.since, "told": self.sent}


@typed_record
class News:
    """One event of a study.

    Attributes:
        id: Of the event.
        kind: One of ``EventKind``.
        study: Its study.
        tenant: The study's tenant.
        key: The same whenever the same event is sent.
        at: When, in ISO 8601.
        model: Its model, or None.
        purpose: Purpose of its sealed set, or None.
        head: Of the hash chain as it left with the verdict, or None.
        message: In one sentence.
    """

    id: str
    kind: EventKind
    study: str
    tenant: str
    key: str
    at: str
    model: int | None
    purpose: str | None
    head: str | None
    message: str


OVERLAP = timedelta(minutes=15)
"""Longer than any transaction takes between dating a row and its end."""

MOST = 200
"""Largest number of events of one look; the next look has the others."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look for events.

    Attributes:
        events: Those that were not sent yet, oldest first.
        start: The given cursor, or a new one, before which nothing is new.
        until: Moment up to which this look has seen everything.
        holding: Ids of all events that hold now.
    """

    events: list[News]
    start: NewsCursor
    until: datetime
    holding: frozenset[str]


def look(store: Store, cursor: JsonObject | None, *, limit: int = MOST) -> Look:
    """Return the events since the cursor."""
    assess_changes(store)
    with store.begin(writes=False) as tx:
        now = rows.clock(tx)
        holding = {event_id(kind, study): study for kind, study in assessments.holding_events(tx)}
        if cursor is None:
            return Look([], NewsCursor(now.isoformat(), dict.fromkeys(holding)), now, frozenset(holding))
        start = _checked(cursor)
        since = datetime.fromisoformat(start.since)
        happened = rows.lately(tx, since=since, known=start.sent, limit=limit)
        fresh = [study for name, study in holding.items() if name not in start.sent][: limit - len(happened)]
        entries = assessments.kept_summaries(tx, dict.fromkeys(fresh)) if fresh else []
    found = [_happened(row) for row in happened]
    until: datetime = now if len(found) < limit else happened[-1].at
    held = [event for entry in entries for event in _held(entry) if event.id not in start.sent]
    return Look([*found, *held][:limit], start, until, frozenset(holding))


def after_telling(cursor: NewsCursor, event: News) -> NewsCursor:
    """Return the cursor after this event was sent; stored at once, it prevents a repetition if the next one fails."""
    moment = event.at if event.id == event.key else None
    return replace(cursor, sent=cursor.sent | {event.id: moment})


def after_all(cursor: NewsCursor, seen: Look) -> NewsCursor:
    """Return the cursor after all events of a look were sent, without those that no later look will find.

    Example:
        >>> from datetime import UTC
        >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
        >>> sent = {"alert-1": "2026-03-01T11:00:00+00:00", "alert-2": "2026-03-01T11:59:00+00:00", "gone": None}
        >>> cursor = NewsCursor("2026-03-01T10:00:00+00:00", sent)
        >>> after_all(cursor, Look([], cursor, noon, frozenset())).sent
        {'alert-2': '2026-03-01T11:59:00+00:00'}
    """
    since = max(datetime.fromisoformat(cursor.since), seen.until - OVERLAP)
    sent = {
        name: at
        for name, at in cursor.sent.items()
        if (name in seen.holding if at is None else datetime.fromisoformat(at) >= since)
    }
    return NewsCursor(since.isoformat(), sent)


def _checked(cursor: JsonObject) -> NewsCursor:
    sent, since = cursor.get("told"), cursor.get("since")
    try:
        known = isinstance(sent, dict) and datetime.fromisoformat(str(since)).tzinfo is not None
    except ValueError:
        known = False
    require(known, "cursor", since, "a cursor that this watcher has stored; delete it to begin anew")
    return NewsCursor(str(since), dict(sent or {}))


def _happened(row: rows.Happening) -> News:
    kind, facts = EventKind(row.kind), row.facts
    return News(
        id=row.id,
        kind=kind,
        study=row.study,
        tenant=row.tenant,
        key=row.id,
        at=row.at.isoformat(),
        model=facts.get("model"),
        purpose=facts.get("purpose"),
        head=facts.get("head"),
        message=_words(kind, facts),
    )


def _words(kind: EventKind, facts: JsonObject) -> str:
    if kind is EventKind.REJECTION:
        return f"model {facts['model']} did not pass step {facts['step']} of test set {facts['set']}; production stays"
    if kind is EventKind.NOT_HELD:
        return (
            f"trial {facts['trial']} stated quality {facts['stated']:.4f}, and its model has {facts['measured']:.4f}; "
            "the result is not used any more"
        )
    if kind is EventKind.ROLLBACK:
        return f"model {facts['model']} was brought back: {facts['why'] or 'no reason was given'}"
    if kind is EventKind.PROMOTION and facts["how"] == "force":
        return f"model {facts['model']} was promoted past the gate by {facts['by']}: {facts['why']}"
    if kind is EventKind.PROMOTION:
        return f"model {facts['model']} was promoted on its recorded verdict"
    return str(facts["message"])


def _held(entry: StudySummary) -> list[News]:
    """Return the events that hold for a study now, of its row in ``store/queries/overview.py``."""
    kinds = [EventKind(kind) for kind in events_of(entry, steps_of(entry))]
    return [_news(entry, k, _spent(entry) if k is EventKind.BUDGET_SPENT else _finished(entry)) for k in kinds]


def _finished(entry: StudySummary) -> str:
    return f"{best_words(entry)}, after {device_time(entry.device_seconds)}"


def _spent(entry: StudySummary) -> str:
    """Describe the budget or quota that is used up."""
    budget, quota = entry.budget_seconds, entry.tenant_quota_seconds
    if budget is not None and entry.device_seconds >= budget:
        used = device_time(entry.device_seconds, of=budget)
        return f"{used} are used: no trial begins any more; {best_words(entry)}"
    used = device_time(entry.tenant_charged_seconds, of=quota)
    return f"{used} of the quota of tenant {entry.tenant} are used: no trial begins any more"


def event_id(kind: str, study: str) -> str:
    """Return the id of an event that has no row."""
    return f"{kind}-{study}"


def _news(entry: StudySummary, kind: EventKind, message: str) -> News:
    """Return an event without a row; the device time distinguishes one end of a search from a later one."""
    name = event_id(kind, entry.study)
    return News(
        id=name,
        kind=kind,
        study=entry.study,
        tenant=entry.tenant,
        key=f"{name}-{entry.device_seconds:.3f}",
        at=entry.read_at.isoformat(),
        model=entry.best_model_id,
        purpose=None,
        head=None,
        message=message,
    )
