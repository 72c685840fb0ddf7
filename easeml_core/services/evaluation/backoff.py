"""Postpone requests that met a fault of the machine: with growing pauses, kept in the database, in their order.

A postponed request keeps its place: later ones of its kind and study wait for it, those of other studies go on. Faults
that the request may have caused (a kill, a time-out, no memory) postpone it a limited number of times; faults of the
database, the disk or the system as often as needed (``errors.Blame``). See ADR 0025.

That an attempt has stopped for such a fault must be recorded, or it counts as one that has killed the referee. While
the database itself is at fault, this process remembers it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from easeml_core.errors import Blame, SchemaVersionError, StoreExhaustedError, StoreUnavailableError, blame_of, name_of
from easeml_core.store.roles import REFEREE
from easeml_core.store.tables import requests

if TYPE_CHECKING:
    from easeml_core.store.database import Store
    from easeml_core.store.tables.requests import PutOff

logger = logging.getLogger(__name__)

MOST_PUT_OFFS = 8
"""Largest number of postponements for faults that the request may have caused: 4 hours 15 minutes in all."""

FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 4 * 3600.0
"""Longest pause after a kill, a time-out or a lack of memory."""

FIRST_WAIT_SECONDS = 15.0
LONGEST_WAIT_SECONDS = 600.0
"""Longest pause after a fault that no request has caused."""


def pause_seconds(times: int, blame: Blame) -> float:
    """Return the pause of a request after ``times`` earlier postponements for faults of this blame.

        pause = min(first * 2^times, longest)

    Example:
        >>> [pause_seconds(n, Blame.BOUNDED) for n in (0, 1, 7, 9)]
        [60.0, 120.0, 7680.0, 14400.0]
        >>> [pause_seconds(n, Blame.PASSING) for n in (0, 1, 9)]
        [15.0, 30.0, 600.0]
    """
    bounded = blame is Blame.BOUNDED
    first = FIRST_PAUSE_SECONDS if bounded else FIRST_WAIT_SECONDS
    return float(min(first * 2.0 ** min(times, 20), LONGEST_PAUSE_SECONDS if bounded else LONGEST_WAIT_SECONDS))


@dataclass(frozen=True, slots=True)
class Patience:
    """How often one request was postponed for faults that it may have caused, and how often it may be.

    Attributes:
        put_offs: Of this request so far, >= 0.
        most: Of any request, >= 0.
    """

    put_offs: int = 0
    most: int = MOST_PUT_OFFS

    def allows(self, error: BaseException) -> bool:
        """Whether a request that met this error is tried again later."""
        blame = blame_of(error)
        return blame is Blame.PASSING or (blame is Blame.BOUNDED and self.put_offs < self.most)


@dataclass(slots=True)
class Turn:
    """One attempt at a request.

    Attributes:
        request_id: None before one is claimed.
        attempt: Its number; 0 before it is noted.
        is_mine: Whether no other thread of this process may work on the request.
    """

    request_id: int | None = None
    attempt: int = 0
    is_mine: bool = False


class PutOffs:
    """Postpones requests for one referee. Safe to share between its threads.

    Args:
        store: Role ``easeml_referee``.
        most: Largest number of postponements for faults that the request may have caused, >= 0.
    """

    def __init__(self, store: Store, most: int = MOST_PUT_OFFS) -> None:
        self._store, self._most = store, most
        self._unsettled: dict[tuple[int, int], None] = {}

    def survived(self, turn: Turn) -> None:
        """Remember that the attempt has not killed this process, until that is recorded (``settle``)."""
        if turn.request_id is not None and turn.attempt:
            self._unsettled[turn.request_id, turn.attempt] = None

    def settle(self) -> None:
        """Record which attempts have stopped for a temporary fault; called before the next one begins."""
        for request_id, attempt in list(self._unsettled):
            with self._store.begin() as tx:
                requests.note_survival(tx, request_id, attempt)
            self._unsettled.pop((request_id, attempt), None)

    def put_off(self, turn: Turn, error: Exception) -> str:
        """Postpone the request to its next try; return the line for the log."""
        assert turn.request_id is not None
        if _stops_everything(error):
            raise error
        blame, why = blame_of(error), name_of(error)
        with self._store.begin() as tx:
            times = requests.times_put_off(tx, turn.request_id, bounded=blame is Blame.BOUNDED)
            pause = pause_seconds(times, blame)
            requests.put_off(
                tx,
                turn.request_id,
                turn.attempt,
                bounded=blame is Blame.BOUNDED,
                reason=why,
                seconds=pause,
                most=self._most,
            )
        self.settle()
        logger.warning("request %d: %s; put off for %g s, time %d", turn.request_id, why, pause, times + 1)
        return f"put off, {why}"


def list_put_off(store: Store) -> list[PutOff] | None:
    """Return the postponed requests that are not decided, oldest first; None where the role is not the referee's.

    Which requests meet a fault can depend on sealed inputs, so only the referee's role reads it.
    """
    with store.begin() as tx:
        return requests.list_put_off(tx) if requests.role(tx) == REFEREE else None


def sentence(one: PutOff) -> str:
    """Describe one postponed request: why, how often of how many times, and when it is tried next (UTC)."""
    blame = "a kill, a time-out or a lack of memory" if one.bounded else "the database, a disk or the operating system"
    limit = "" if one.bounded else ", of any number"
    limit = limit if one.most is None else f" of {one.most}"
    return (
        f"request {one.request_id} ({one.kind}, study {one.study!r}) is put off for {one.reason} ({blame}), "
        f"time {one.times}{limit}; next try at {one.until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    )


def _stops_everything(error: Exception) -> bool:
    """Whether no other request could be decided either."""
    is_away = isinstance(error, StoreUnavailableError) and not isinstance(error, StoreExhaustedError)
    return is_away or isinstance(error, SchemaVersionError)
