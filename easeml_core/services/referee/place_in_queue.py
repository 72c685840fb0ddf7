"""Tell who waits for an answer its place in the referees' queue, about how long it takes, and whether a referee runs.

The numbers follow from counts of requests without a published answer, from the settings of the referees that run, and
from the two constants below. No measured duration takes part: how long a model runs, or a decision takes, may depend on
sealed data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from easeml_core.entities import RequestKind
from easeml_core.errors import counted
from easeml_core.formats.display import span
from easeml_core.formats.encoding import typed_record
from easeml_core.store.tables import referee_claims

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.tables.referee_claims import Ahead, RefereeLife

SHORT_SECONDS = 1.0
"""About how long a request takes for which no model runs. One place of each referee is for these alone."""

LONG_SECONDS = 10.0
"""About how long a request of gate or meter takes: two models are started and run."""


@typed_record
class QueuePlace:
    """The place of a request without an answer.

    Attributes:
        request_id: The request.
        ahead: How many others come before it, as far as published facts tell. One that waits for labels counts too.
        estimate_seconds: About how long its answer takes; None where no referee runs.
        referees: How many run.
        workers: How many requests they decide at a time, together.
        beat_seconds: Seconds since a referee last said that it runs; None where none ever has.
    """

    request_id: int
    ahead: int
    estimate_seconds: float | None
    referees: int
    workers: int
    beat_seconds: float | None


def place_of(store: Store, request_id: int) -> QueuePlace | None:
    """Return the place of a request; None where it has an answer, or is not there."""
    with store.begin(writes=False) as tx:
        ahead, life = referee_claims.queue_place(tx, request_id), referee_claims.referee_life(tx)
    return None if ahead is None else _place(request_id, ahead, life)


MOST_SHOWN = 3
"""Requests of a study whose place ``waiting_texts`` names."""

_CALLED = {
    RequestKind.SEAL: "registration",
    RequestKind.GATE: "question to the gate",
    RequestKind.METER: "question to the meter",
    RequestKind.PROMOTE: "promotion",
    RequestKind.ROLLBACK: "rollback",
    RequestKind.FORCE: "promotion without the gate",
    RequestKind.REFRESH: "refresh of the data",
}


def waiting_texts(store: Store, study_id: int) -> list[str]:
    """Describe the oldest requests of a study without an answer, each with its place; empty where none waits."""
    with store.begin(writes=False) as tx:
        waiting = referee_claims.waiting_of_study(tx, study_id, limit=MOST_SHOWN)
        life = referee_claims.referee_life(tx) if waiting else None
    return [
        f"The {_CALLED[one.kind]} (request {one.request_id}) waits for the referee: "
        f"{place_text(_place(one.request_id, one, life))}"
        for one in waiting
        if life is not None
    ]


def _place(request_id: int, ahead: Ahead, life: RefereeLife) -> QueuePlace:
    return QueuePlace(
        request_id=request_id,
        ahead=ahead.short_ahead + ahead.long_ahead,
        estimate_seconds=estimate(ahead, life),
        referees=life.alive,
        workers=life.workers,
        beat_seconds=life.beat_seconds,
    )


def estimate(ahead: Ahead, life: RefereeLife) -> float | None:
    """Return about how many seconds the answer takes; None where no referee runs.

    Answers of gate and meter leave at the next time of the referee's grid.

    Example:
        >>> from easeml_core.store.tables.referee_claims import Ahead, RefereeLife
        >>> life = RefereeLife(alive=1, workers=2, answer_seconds=60.0, beat_seconds=3.0)
        >>> estimate(Ahead(is_long=True, short_ahead=0, long_ahead=35), life)
        180.0
    """
    if not life.alive or life.answer_seconds is None:
        return None
    if not ahead.is_long:
        return SHORT_SECONDS * (1 + ahead.short_ahead // life.alive)
    seconds = LONG_SECONDS * (1 + ahead.long_ahead // life.workers)
    grid = life.answer_seconds
    return math.ceil(seconds / grid) * grid if grid else seconds


def place_text(place: QueuePlace) -> str:
    """Describe the place in one line."""
    if place.estimate_seconds is None:
        return f"{counted(place.ahead, 'request')} ahead; {referee_text(place.beat_seconds)}"
    return f"{counted(place.ahead, 'request')} ahead, about {span(timedelta(seconds=place.estimate_seconds))}"


def referee_text(beat_seconds: float | None) -> str:
    """Say that no referee runs, and since when."""
    if beat_seconds is None:
        return "no referee runs, and none ever has: start one with `easeml referee`"
    return f"no referee runs since {span(timedelta(seconds=beat_seconds))}: start one with `easeml referee`"


def late_text(place: QueuePlace | None) -> str:
    """Say why a request has no answer yet, and what to do; the text follows a semicolon or a colon."""
    if place is None:
        return "the answer has just come; ask again with the same request key"
    if not place.referees:
        return f"{referee_text(place.beat_seconds)}; {counted(place.ahead, 'request')} ahead of it; the request stands"
    return f"{place_text(place)}; {_at_work(place)}; wait longer or start more workers; the request stands"


@dataclass(frozen=True, slots=True)
class Queue:
    """What all pages need of the queue.

    Attributes:
        no_referee: Says that no referee runs where one has run before; else an empty text.
        studies: Ids of the studies that have a request without an answer.
    """

    no_referee: str
    studies: frozenset[int]


def queue(store: Store) -> Queue:
    """Return the state of the queue."""
    with store.begin(writes=False) as tx:
        return Queue(_no_referee(tx), frozenset(referee_claims.studies_with_open_requests(tx)))


def no_referee(store: Store) -> str:
    """Say that no referee runs where one has run before; else an empty text."""
    with store.begin(writes=False) as tx:
        return _no_referee(tx)


def _no_referee(tx: Connection) -> str:
    life = referee_claims.referee_life(tx)
    return "" if life.alive or life.beat_seconds is None else referee_text(life.beat_seconds)


def life_text(store: Store) -> str:
    """Say whether referees run, and what to do where none does."""
    with store.begin(writes=False) as tx:
        life = referee_claims.referee_life(tx)
    if not life.alive:
        return referee_text(life.beat_seconds)
    return f"{_at_work(QueuePlace(0, 0, None, life.alive, life.workers, life.beat_seconds))}; wait longer or start more"


def _at_work(place: QueuePlace) -> str:
    many = f"{counted(place.referees, 'referee')} with {counted(place.workers, 'worker')}"
    return f"{many} at work, the last sign {span(timedelta(seconds=place.beat_seconds or 0.0))} ago"
