"""Claims: which referee works on a request, or has a duty of the whole installation, for as long as it lives.

A referee is one row that extends its own lease; its claims are valid until that lease has ended. The lease is extended
at a fixed interval, whatever the referee works on, so that no transaction shows when a run of a model ends. A claim
saves work and keeps the order: that a request is decided once follows from ``sealed.outbox`` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import RequestKind
from easeml_core.formats.encoding import typed_record
from easeml_core.store.rows import change, record, records, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

EARLIER_MODELS = "earlier models"
"""The duty to run earlier models on new sets: one referee at a time has it."""

HELD_BY_OTHERS = """EXISTS (SELECT 1 FROM sealed.claims c JOIN sealed.referees f ON f.id = c.referee_id
  WHERE c.request_id = {request} AND c.referee_id IS DISTINCT FROM CAST(:referee AS bigint)
  AND f.until > clock_timestamp())"""
"""SQL: whether another living referee than ``:referee`` has claimed the request."""

UNDECIDED = """NOT EXISTS (SELECT 1 FROM work.answers a WHERE a.request_id = r.id)
  AND NOT EXISTS (SELECT 1 FROM sealed.outbox o WHERE o.request_id = r.id)"""
"""SQL: whether there is no decision on the request ``r``; a claim outlasts the decision."""

WORKED_ON = f"""EXISTS (SELECT 1 FROM sealed.claims c JOIN sealed.referees f ON f.id = c.referee_id
  JOIN work.requests r ON r.id = c.request_id
  WHERE r.study_id = :study AND f.until > clock_timestamp() AND {UNDECIDED})"""
"""SQL: whether a living referee works on a request of the study ``:study``."""


def add_referee(tx: Connection, *, lease_seconds: float, workers: int = 1, answer_seconds: float = 0.0) -> int:
    """Add a referee with a lease; return its number."""
    query = (
        # One reading of the clock for both: with two, the longest lease would be longer than allowed.
        "WITH added AS (INSERT INTO sealed.referees (beat_at, until) "
        "SELECT n.at, n.at + make_interval(secs => :s) FROM (SELECT clock_timestamp() AS at) n "
        "RETURNING id, beat_at, until) "
        "INSERT INTO work.heartbeats (referee_id, workers, answer_seconds, beat_at, until) "
        "SELECT id, :workers, :answer_seconds, beat_at, until FROM added RETURNING referee_id"
    )
    return int(scalar(tx, query, s=lease_seconds, workers=workers, answer_seconds=answer_seconds))


@typed_record
class RefereeLife:
    """What every role may know of the referees; a referee extends its lease at a fixed interval.

    Attributes:
        alive: How many run.
        workers: How many requests they decide at a time, together.
        answer_seconds: After which answers of gate and meter leave, the longest of those that run; None without any.
        beat_seconds: Seconds since one last extended its lease; None where there was never one.
    """

    alive: int
    workers: int
    answer_seconds: float | None
    beat_seconds: float | None


def referee_life(tx: Connection) -> RefereeLife:
    """Return whether referees run."""
    found = record(
        tx,
        RefereeLife,
        "SELECT count(*) FILTER (WHERE h.until > n.at) AS alive, "
        "coalesce(sum(h.workers) FILTER (WHERE h.until > n.at), 0) AS workers, "
        "max(h.answer_seconds) FILTER (WHERE h.until > n.at) AS answer_seconds, "
        "extract(epoch FROM min(n.at - h.beat_at))::double precision AS beat_seconds "
        "FROM work.heartbeats h CROSS JOIN (SELECT clock_timestamp() AS at) n",
    )
    assert found is not None  # an aggregate has one row
    return found


MOST_LOOKED_AT = 20_000
"""Requests, of the newest, that ``queue_place`` looks at; it counts no others."""


@typed_record
class Ahead:
    """Requests without an answer that come before one.

    Attributes:
        is_long: Whether models run for that one.
        short_ahead: Of those for which no model runs.
        long_ahead: Of the others.
    """

    is_long: bool
    short_ahead: int
    long_ahead: int


def queue_place(tx: Connection, request_id: int) -> Ahead | None:
    """Count the requests without an answer that come before this one; None where it is answered or not there.

    Short requests come first, and tenants take turns. A request that waits for labels, or whose answer is decided and
    has not left, counts as one without an answer: only what is published can be read from the numbers.
    """
    query = "SELECT is_long, short_ahead, long_ahead FROM work.queue_place(:id, :most)"
    return record(tx, Ahead, query, id=request_id, most=MOST_LOOKED_AT)


@typed_record
class WaitingRequest(Ahead):
    """A request without an answer, and what comes before it.

    Attributes:
        request_id: The request.
        kind: What it asks for.
    """

    request_id: int
    kind: RequestKind


def waiting_of_study(tx: Connection, study_id: int, *, limit: int) -> list[WaitingRequest]:
    """Return a study's requests without an answer, oldest first, each with what comes before it (``queue_place``)."""
    query = (
        "SELECT r.id AS request_id, r.kind, q.is_long, q.short_ahead, q.long_ahead FROM work.requests r "
        "CROSS JOIN LATERAL work.queue_place(r.id, :most) q WHERE r.study_id = :study "
        "AND NOT EXISTS (SELECT 1 FROM work.answers a WHERE a.request_id = r.id) ORDER BY r.id LIMIT :limit"
    )
    return records(tx, WaitingRequest, query, study=study_id, most=MOST_LOOKED_AT, limit=limit)


def studies_with_open_requests(tx: Connection) -> list[int]:
    """Return the ids of the studies with a request without an answer, of the newest ``MOST_LOOKED_AT`` requests."""
    query = (
        "SELECT DISTINCT r.study_id FROM (SELECT id, study_id FROM work.requests ORDER BY id DESC LIMIT :most) r "
        "WHERE NOT EXISTS (SELECT 1 FROM work.answers a WHERE a.request_id = r.id)"
    )
    return [int(study_id) for (study_id,) in rows(tx, query, most=MOST_LOOKED_AT)]


def beat(tx: Connection, referee: int, lease_seconds: float) -> None:
    """Extend the lease of a referee, also after it has ended: claims that no other has taken are its own again.

    A lease of 0 seconds ends at once.
    """
    change(
        tx,
        "WITH beaten AS (UPDATE sealed.referees f SET beat_at = n.at, until = n.at + make_interval(secs => :seconds) "
        "FROM (SELECT clock_timestamp() AS at) n WHERE f.id = :id RETURNING f.id, f.beat_at, f.until) "
        "UPDATE work.heartbeats h SET beat_at = b.beat_at, until = b.until FROM beaten b WHERE h.referee_id = b.id",
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


SHORT = tuple(kind for kind in RequestKind if kind not in (RequestKind.GATE, RequestKind.METER))
"""Requests for which no model runs: each takes a second or so."""

AGED_SECONDS = 600.0
"""After this time a request that runs models comes no later than the short ones."""

# Verdicts of a study come in the order of their requests, and so do readings: a request that waits for labels keeps its
# place before later ones, otherwise the speed of labeling would decide what is compared with what. Gate and meter
# requests on a shared set form one order, since its steps follow each other. A set whose last answer is decided but not
# published must not reveal it by refusing the next request. What costs a look at other tables is asked of one request
# after the other, in their order, until one may be decided: there can be ten thousands of them.
# Short requests come first, for a time, so that none waits for the models of a hundred others. Among the rest the
# tenant with the fewest requests at work comes first, then the one whose turn was longest ago.
_CLAIM = f"""
WITH undecided AS MATERIALIZED (
  SELECT r.id, r.kind, r.study_id,
    r.kind <> ALL (CAST(:short AS text[]))
      AND r.requested_at > clock_timestamp() - make_interval(secs => :aged) AS is_long,
    min(r.id) OVER (PARTITION BY r.study_id, r.kind) AS first_of_kind,
    min(r.id) FILTER (WHERE r.kind IN ('gate', 'meter')) OVER (PARTITION BY r.study_id) AS first_of_both
  FROM work.requests r WHERE {UNDECIDED}),
ending AS MATERIALIZED (
  SELECT e.kind, e.study_id, EXISTS (SELECT FROM work.test_sets t
    WHERE t.id = (p.facts ->> 'test_set_id')::bigint AND t.purpose = 'joint') AS both
  FROM sealed.outbox p JOIN work.requests e ON e.id = p.request_id
  WHERE p.left_at IS NULL AND coalesce(p.facts ->> 'retired_why', p.facts ->> 'direct_retired_why') IS NOT NULL),
shared AS MATERIALIZED (SELECT t.study_id FROM work.test_sets t WHERE t.purpose = 'joint' AND t.state = 'live'),
held AS MATERIALIZED (
  SELECT s.tenant_id, count(*) AS claims FROM sealed.claims c
  JOIN sealed.referees f ON f.id = c.referee_id AND f.until > clock_timestamp()
  JOIN undecided h ON h.id = c.request_id
  JOIN work.studies s ON s.id = h.study_id WHERE h.id <> :first GROUP BY s.tenant_id)
SELECT r.id FROM (
  SELECT u.id, u.kind, u.study_id, u.id <> :first AS is_later, u.is_long, coalesce(h.claims, 0) AS claims,
    coalesce(t.taken_at, '-infinity') AS turn, s.state = 'ARCHIVED' AS is_archived
  FROM undecided u JOIN work.studies s ON s.id = u.study_id LEFT JOIN held h ON h.tenant_id = s.tenant_id
  LEFT JOIN sealed.turns t ON t.tenant_id = s.tenant_id
  WHERE u.id <> ALL (:skip) AND (CAST(:kinds AS text[]) IS NULL OR u.kind = ANY (CAST(:kinds AS text[])))
  AND (NOT :alone OR h.claims IS NULL)
  AND (u.kind NOT IN ('gate', 'meter') OR (u.id = u.first_of_kind
    AND (u.id = u.first_of_both OR u.study_id NOT IN (SELECT s.study_id FROM shared s))))
  ORDER BY is_later, is_long, claims, turn, id OFFSET 0) u
JOIN work.requests r ON r.id = u.id
WHERE NOT {HELD_BY_OTHERS.format(request="u.id")}
AND (u.is_archived OR NOT EXISTS (SELECT 1 FROM sealed.wanted w WHERE w.request_id = u.id AND w.is_open OFFSET 0))
AND NOT EXISTS (SELECT 1 FROM sealed.put_offs p WHERE p.request_id = u.id AND p.until > clock_timestamp() OFFSET 0)
AND (u.kind NOT IN ('gate', 'meter')
  OR NOT EXISTS (SELECT 1 FROM ending e WHERE e.study_id = u.study_id AND (e.kind = u.kind OR e.both)))
ORDER BY u.is_later, u.is_long, u.claims, u.turn, u.id LIMIT 1 FOR NO KEY UPDATE OF r SKIP LOCKED
"""


def claim_request(
    tx: Connection,
    *,
    skip: Sequence[int] = (),
    kinds: Sequence[RequestKind] | None = None,
    referee: int | None = None,
    first: int | None = None,
    alone: bool = False,
    aged_seconds: float = AGED_SECONDS,
) -> int | None:
    """Return the id of the next request to decide, held until the transaction ends; None when there is none.

    Short requests come before those that run models and have not waited for ``aged_seconds``. Among the others it is
    one of the tenant with the fewest requests that any living referee works on, then of the tenant that was served
    longest ago, and of its requests the oldest. Passed over: decided requests, those that another referee works on, and
    those that wait (for labels, for an earlier request, or for another try). Of an archived study, for which no label
    is asked, they are taken up and refused.

    A referee that dies gives the request back with its lock, and nothing of its work is written. Another one may have
    decided or claimed the request between this statement's snapshot and its lock: ``take`` looks again.
    The arguments are read later (``requests.get_request``), where hostile content can be refused.
    """
    found = scalar(
        tx,
        _CLAIM,
        skip=list(skip),
        kinds=None if kinds is None else [str(kind) for kind in kinds],
        short=[str(kind) for kind in SHORT],
        aged=aged_seconds,
        referee=referee,
        first=first or 0,
        alone=alone,
    )
    return None if found is None else int(found)


# A claim is new, was given up, is the referee's own, or is one whose referee's lease has ended.
_UNLESS_HELD = """
DO UPDATE SET referee_id = :referee, claimed_at = clock_timestamp()
WHERE c.referee_id IS NULL OR c.referee_id = :referee
OR NOT EXISTS (SELECT 1 FROM sealed.referees f WHERE f.id = c.referee_id AND f.until > clock_timestamp())
"""
_TAKE_DUTY = f"""
INSERT INTO sealed.claims AS c (duty, referee_id) VALUES (:duty, :referee)
ON CONFLICT ON CONSTRAINT claims_duty_key {_UNLESS_HELD}
"""
_TAKE_REQUEST = f"""
WITH taken AS (
  INSERT INTO sealed.claims AS c (request_id, referee_id)
  SELECT r.id, :referee FROM work.requests r WHERE r.id = :id AND {UNDECIDED}
  ON CONFLICT ON CONSTRAINT claims_request_key {_UNLESS_HELD} RETURNING c.request_id)
INSERT INTO sealed.turns AS t (tenant_id) SELECT s.tenant_id FROM taken
JOIN work.requests r ON r.id = taken.request_id JOIN work.studies s ON s.id = r.study_id
ON CONFLICT ON CONSTRAINT turns_pkey DO UPDATE SET taken_at = clock_timestamp()
"""


def take(tx: Connection, request_id: int, referee: int) -> bool:
    """Claim a request; False where it is decided, or another living referee has it. Its own claim it has already.

    A decision that commits while this waits for its referee's claim is not seen; who holds the request's row is safe
    from that. With a claim the tenant has had its turn: of two tenants the other one comes first next time.
    """
    return bool(change(tx, _TAKE_REQUEST, id=request_id, referee=referee))


def take_duty(tx: Connection, duty: str, referee: int) -> bool:
    """As ``take``, for a duty, which stays with the referee while it lives."""
    query = "SELECT EXISTS (SELECT 1 FROM sealed.claims WHERE duty = :duty AND referee_id = :referee)"
    if scalar(tx, query, duty=duty, referee=referee):
        return True
    return bool(change(tx, _TAKE_DUTY, duty=duty, referee=referee))


def let_go(tx: Connection, request_ids: Sequence[int], referee: int) -> None:
    """Give up the referee's claims of these requests: another may work on them."""
    change(
        tx,
        "UPDATE sealed.claims SET referee_id = NULL WHERE request_id = ANY (:ids) AND referee_id = :referee",
        ids=list(request_ids),
        referee=referee,
    )
