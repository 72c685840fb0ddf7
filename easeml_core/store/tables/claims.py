"""Claims: which referee works on a request, or has a duty of the whole installation, for as long as it lives.

A referee is one row that extends its own lease; its claims are valid until that lease has ended. The lease is extended
at a fixed interval, whatever the referee works on, so that no transaction shows when a run of a model ends. A claim
saves work and keeps the order: that a request is decided once follows from ``sealed.outbox`` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.store.rows import change, scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

EARLIER_MODELS = "earlier models"
"""The duty to run earlier models on new sets: one referee at a time has it."""

HELD_BY_OTHERS = """EXISTS (SELECT 1 FROM sealed.claims c JOIN sealed.referees f ON f.id = c.referee_id
  WHERE c.request_id = {request} AND c.referee_id IS DISTINCT FROM CAST(:referee AS bigint)
  AND f.until > clock_timestamp())"""
"""SQL: whether another living referee than ``:referee`` has claimed the request."""


def add_referee(tx: Connection, *, lease_seconds: float) -> int:
    """Add a referee with a lease; return its number."""
    query = "INSERT INTO sealed.referees (until) VALUES (clock_timestamp() + make_interval(secs => :s)) RETURNING id"
    return int(scalar(tx, query, s=lease_seconds))


def beat(tx: Connection, referee: int, lease_seconds: float) -> None:
    """Extend the lease of a referee, also after it has ended: claims that no other has taken are its own again.

    A lease of 0 seconds ends at once.
    """
    change(
        tx,
        "UPDATE sealed.referees f SET beat_at = n.at, until = n.at + make_interval(secs => :seconds) "
        "FROM (SELECT clock_timestamp() AS at) n WHERE f.id = :id",
        id=referee,
        seconds=lease_seconds,
    )


def seconds_to_next_end(tx: Connection, referee: int, *, looked_ago: float) -> float | None:
    """Seconds until another referee's lease ends that had not ended ``looked_ago`` seconds ago; None without any.

    At most 0 where it has ended since then: its requests may be had.
    """
    found = scalar(
        tx,
        "SELECT extract(epoch FROM min(until) - clock_timestamp())::double precision FROM sealed.referees "
        "WHERE id <> :id AND until > clock_timestamp() - make_interval(secs => :ago)",
        id=referee,
        ago=looked_ago,
    )
    return None if found is None else float(found)


def take(tx: Connection, request_id: int, referee: int) -> bool:
    """Claim a request; False where another living referee has it. Its own claim it has already."""
    return _take(tx, "request_id", request_id, referee)


def take_duty(tx: Connection, duty: str, referee: int) -> bool:
    """As ``take``, for a duty, which stays with the referee while it lives."""
    query = "SELECT EXISTS (SELECT 1 FROM sealed.claims WHERE duty = :duty AND referee_id = :referee)"
    return bool(scalar(tx, query, duty=duty, referee=referee)) or _take(tx, "duty", duty, referee)


def _take(tx: Connection, column: str, subject: int | str, referee: int) -> bool:
    taken = change(
        tx,
        f"INSERT INTO sealed.claims AS c ({column}, referee_id) VALUES (:subject, :referee) "
        f"ON CONFLICT ON CONSTRAINT claims_{'request' if column == 'request_id' else column}_key "
        "DO UPDATE SET referee_id = :referee, claimed_at = clock_timestamp() "
        "WHERE c.referee_id IS NULL OR c.referee_id = :referee OR NOT EXISTS (SELECT 1 FROM sealed.referees f "
        "WHERE f.id = c.referee_id AND f.until > clock_timestamp())",
        subject=subject,
        referee=referee,
    )
    return bool(taken)


def let_go(tx: Connection, request_ids: Sequence[int], referee: int) -> None:
    """Give up the referee's claims of these requests: another may work on them."""
    change(
        tx,
        "UPDATE sealed.claims SET referee_id = NULL WHERE request_id = ANY (:ids) AND referee_id = :referee",
        ids=list(request_ids),
        referee=referee,
    )
