"""Requests to the referee and its answers; a request key files its request once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from easeml_core.entities import GivenAnswer, JsonObject, RequestKind, Symbol
from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.formats.encoding import typed_record
from easeml_core.settings.limits import LONGEST_TEXT
from easeml_core.store.database import CHANNEL, NOTIFY, REFEREE_CHANNEL, known_topics, notify
from easeml_core.store.logins import own_key
from easeml_core.store.rows import as_json, change, clean, record, records, row, rows, scalar
from easeml_core.store.tables import studies
from easeml_core.store.tables.referee_claims import UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

    from easeml_core.entities import Study


NEW_KEY = "use a new key, in Airflow a new run"
"""What to do where a request key has asked something else."""


@typed_record
class Request:
    """One request: its subject, and the arguments as given."""

    id: int
    kind: RequestKind
    study_id: int
    model_id: int | None
    arguments: JsonObject

    @property
    def of_model(self) -> int:
        """The model, where the kind has one: all but ``seal`` and ``refresh`` (constraint requests_target_check)."""
        assert self.model_id is not None
        return self.model_id


def filed_by(tx: Connection, request_id: int) -> str:
    """Return the role of the database that filed a request, which no role can choose."""
    return str(scalar(tx, "SELECT requested_by FROM work.requests WHERE id = :id", id=request_id))


def file_request(
    tx: Connection,
    *,
    kind: RequestKind,
    study_id: int,
    model_id: int | None,
    arguments: JsonObject,
    request_key: str,
) -> int:
    """File a request and wake the referee; the same key gives the same request."""
    if not request_key:
        message = "request_key must not be empty; it makes the call repeatable"
        raise InvalidInputError(message)
    asked = {"key": own_key(tx, request_key), "kind": kind, "study_id": study_id, "model_id": model_id}
    asked["arguments"] = as_json(arguments)
    found = scalar(
        tx,
        "WITH filed AS (INSERT INTO work.requests (request_key, kind, study_id, model_id, arguments) "
        "VALUES (:key, :kind, :study_id, :model_id, CAST(:arguments AS jsonb)) "
        "ON CONFLICT ON CONSTRAINT requests_request_key DO NOTHING RETURNING id) "
        "SELECT id, pg_notify(:channel, 'request:' || id) FROM filed",
        channel=REFEREE_CHANNEL,
        **asked,
    )
    if found is None:
        # Compared by the database: a number or a tuple need not come back from it as the Python value that went in.
        found = scalar(
            tx,
            "SELECT id FROM work.requests WHERE request_key = :key AND kind = :kind AND study_id = :study_id "
            "AND model_id IS NOT DISTINCT FROM :model_id AND arguments = CAST(:arguments AS jsonb)",
            **asked,
        )
        if found is None:
            message = f"request key {request_key!r} was used for another request; {NEW_KEY}"
            raise InvalidInputError(message)
    return int(found)


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request that is to be filed."""

    request_key: str
    kind: RequestKind
    study: str
    model_id: int
    arguments: JsonObject


# A study that has given its name back is none that is asked about.
_FILE_MANY = """
INSERT INTO work.requests (request_key, kind, study_id, model_id, arguments)
SELECT n.key, n.kind, s.id, m.id, n.arguments
FROM unnest(CAST(:keys AS text[]), CAST(:kinds AS text[]), CAST(:studies AS text[]), CAST(:models AS bigint[]),
            CAST(:arguments AS jsonb[])) WITH ORDINALITY AS n (key, kind, study, model_id, arguments, number)
JOIN work.studies s ON s.name = n.study AND s.state NOT IN ('REFUSED', 'ARCHIVED')
JOIN work.models m ON m.id = n.model_id AND m.study_id = s.id AND m.removed_at IS NULL
ORDER BY n.number
ON CONFLICT ON CONSTRAINT requests_request_key DO NOTHING RETURNING id
"""


def file_requests(tx: Connection, new: Sequence[NewRequest]) -> int:
    """File many requests, in the order given, and wake the referee; keys that have filed a request are passed over.

    Left out are requests about a study or model that is not there, is archived or has lost its file, and those whose
    key has filed anything before: ``filed_requests`` tells which there are.
    """
    found = rows(
        tx,
        _FILE_MANY,
        keys=[own_key(tx, r.request_key) for r in new],
        kinds=[str(r.kind) for r in new],
        studies=[r.study for r in new],
        models=[r.model_id for r in new],
        arguments=[as_json(r.arguments) for r in new],
    )
    notify(tx, *(f"request:{r.id}" for r in found), channel=REFEREE_CHANNEL)
    return len(found)


@typed_record
class FiledRequest:
    """A request with what its answer has released.

    Attributes:
        request_key: Its key.
        request_id: Its number.
        kind: What is asked.
        study: The study.
        model_id: The model.
        refused: None while there is no answer; ``message`` likewise.
        symbol: Of a verdict; None without one.
        signal: Of a reading; None without one.
        alert: The alert of the overfitting budget that the reading, or the one that it repeats, has raised.
    """

    request_key: str
    request_id: int
    kind: RequestKind
    study: str
    model_id: int | None
    refused: bool | None
    message: str | None
    symbol: Symbol | None
    signal: int | None
    alert: str | None


def filed_requests(tx: Connection, keys: Sequence[str]) -> list[FiledRequest]:
    """Return the requests that these keys have filed."""
    given = {own_key(tx, key): key for key in keys}
    found = records(
        tx,
        FiledRequest,
        "SELECT r.request_key, r.id AS request_id, r.kind, s.name AS study, r.model_id, a.refused, a.message, "
        "v.symbol, g.signal, (SELECT w.message FROM work.meter_readings f "
        "JOIN work.alerts w ON w.reading_id = f.request_id "
        "WHERE f.test_set_id = g.test_set_id AND f.step = g.step AND w.kind = 'overfitting' ORDER BY w.id LIMIT 1) "
        "AS alert FROM work.requests r JOIN work.studies s ON s.id = r.study_id "
        "LEFT JOIN work.answers a ON a.request_id = r.id LEFT JOIN work.gate_verdicts v ON v.request_id = a.request_id "
        "LEFT JOIN work.meter_readings g ON g.request_id = a.request_id "
        "WHERE r.request_key = ANY (CAST(:keys AS text[]))",
        keys=list(given),
    )
    return [replace(request, request_key=given[request.request_key]) for request in found]


def count_answered(tx: Connection, request_ids: Sequence[int]) -> int:
    """Count those of these requests that have an answer."""
    query = "SELECT count(*) FROM work.answers WHERE request_id = ANY (CAST(:ids AS bigint[]))"
    return int(scalar(tx, query, ids=list(request_ids)))


_WITH_STUDY = (
    "SELECT r.id AS request_id, r.kind AS request_kind, r.study_id AS of_study, r.model_id, r.arguments, "
    f"{studies.COLUMNS} {studies.TABLES} "
)


def count_unanswered(tx: Connection, study_id: int, kind: RequestKind, *, but: str) -> int:
    """Count the requests of this kind without an answer, less one under the key ``but``."""
    query = (
        "SELECT count(*) FROM work.requests r WHERE r.study_id = :id AND r.kind = :kind AND r.request_key <> :key "
        "AND NOT EXISTS (SELECT 1 FROM work.answers a WHERE a.request_id = r.id)"
    )
    return int(scalar(tx, query, id=study_id, kind=kind, key=own_key(tx, but)))


@typed_record
class OpenRequest:
    """A request without an answer."""

    request_id: int
    model_id: int
    requested_at: datetime


def unanswered(tx: Connection, study_id: int, kind: RequestKind, *, limit: int = 100) -> list[OpenRequest]:
    """Requests of this kind without an answer, oldest first; the kind is one that names a model."""
    return records(
        tx,
        OpenRequest,
        "SELECT r.id AS request_id, r.model_id, r.requested_at FROM work.requests r WHERE r.study_id = :id "
        "AND r.kind = :kind AND NOT EXISTS (SELECT 1 FROM work.answers a WHERE a.request_id = r.id) "
        "ORDER BY r.id LIMIT :most",
        id=study_id,
        kind=str(kind),
        most=limit,
    )


def seal_request_of(tx: Connection, study_id: int) -> int:
    """Id of the request that asked to seal the study's data."""
    query = "SELECT id FROM work.requests WHERE study_id = :id AND kind = 'seal' ORDER BY id LIMIT 1"
    return int(scalar(tx, query, id=study_id))


def hold_request(tx: Connection, request_id: int) -> bool:
    """Hold an undecided request until the transaction ends; False when it is decided, or not there."""
    rows(tx, "SELECT id FROM work.requests WHERE id = :id FOR NO KEY UPDATE", id=request_id)
    return _is_undecided(tx, request_id)


def _is_undecided(tx: Connection, request_id: int) -> bool:
    return bool(scalar(tx, f"SELECT {UNDECIDED} FROM work.requests r WHERE r.id = :id", id=request_id))


def undecided(tx: Connection, request_ids: Sequence[int]) -> set[int]:
    """Return which of these requests are undecided."""
    query = f"SELECT r.id FROM work.requests r WHERE r.id = ANY (:ids) AND {UNDECIDED}"
    return {int(found.id) for found in rows(tx, query, ids=list(request_ids))}


def tenant_of(tx: Connection, request_id: int) -> int:
    """Return the tenant of the request's study."""
    query = "SELECT s.tenant_id FROM work.requests r JOIN work.studies s ON s.id = r.study_id WHERE r.id = :id"
    return int(scalar(tx, query, id=request_id))


def role(tx: Connection) -> str:
    """Return the role of this transaction."""
    return str(scalar(tx, "SELECT current_user"))


def get_request(tx: Connection, request_id: int) -> tuple[Request, Study]:
    """Return the request and its study, read at once."""
    found = row(tx, _WITH_STUDY + "JOIN work.requests r ON r.study_id = s.id WHERE r.id = :id", id=request_id)
    request, study = (None, None) if found is None else _both(found)
    if request is None or study is None:
        raise NotFoundError(kind="request", name=request_id)
    return request, study


def study_and_earlier(tx: Connection, study: str, request_key: str) -> tuple[Study, Request | None]:
    """Return the study of this name, and the request that this key has filed or None, read at once."""
    found = row(
        tx,
        _WITH_STUDY + "LEFT JOIN work.requests r ON r.request_key = :key WHERE s.name = :name "
        f"ORDER BY s.state IN {studies.GONE}, s.id DESC LIMIT 1",
        name=study,
        key=own_key(tx, request_key),
    )
    if found is None:
        return studies.get_study(tx, study), None
    earlier, of_name = _both(found)
    return of_name, earlier


def _both(found: Row[Any]) -> tuple[Request | None, Study]:
    values = found._asdict()
    names = ("request_id", "request_kind", "of_study", "model_id", "arguments")
    number, kind, study_id, model_id, arguments = (values.pop(name) for name in names)
    request = None if number is None else Request(number, RequestKind(kind), study_id, model_id, arguments)
    return request, studies.study_of(values)


@typed_record
class Attempt:
    """An attempt at a request that begins.

    Attributes:
        number: From 1.
        lost: How many earlier ones ended with the referee's process.
        put_offs: How often the request was put off for what it may have brought about itself.
    """

    number: int
    lost: int
    put_offs: int


def note_attempt(tx: Connection, request_id: int) -> Attempt:
    """Record that work on a request begins.

    Must be committed before the work: an attempt that kills the referee must count. The latest attempt before a restart
    of the installation does not count, except every fourth: a request may be what brings the machine down.
    """
    begun = record(
        tx,
        Attempt,
        "WITH earlier AS (SELECT survived, attempt, begun_at, "
        "coalesce(lead(begun_at) OVER (ORDER BY attempt), clock_timestamp()) AS ended_at "
        "FROM sealed.attempts WHERE request_id = :id), "
        "lost AS (SELECT EXISTS (SELECT 1 FROM work.restarts r WHERE r.at > a.begun_at AND r.at < a.ended_at) "
        "OR (pg_postmaster_start_time() > a.begun_at AND pg_postmaster_start_time() < a.ended_at) AS by_restart "
        "FROM earlier a WHERE NOT a.survived), "
        "begun AS (INSERT INTO sealed.attempts (request_id, attempt) "
        "SELECT :id, coalesce(max(attempt), 0) + 1 FROM earlier RETURNING attempt) "
        "SELECT attempt AS number, "
        "(SELECT greatest(count(*) FILTER (WHERE NOT by_restart), count(*) / 4) FROM lost) AS lost, "
        "(SELECT count(*) FROM sealed.put_offs WHERE request_id = :id AND bounded) AS put_offs FROM begun",
        id=request_id,
    )
    assert begun is not None  # the statement inserts one row, or fails
    return begun


def note_survival(tx: Connection, request_id: int, attempt: int) -> None:
    """Record that the attempt stopped for a temporary fault; it does not count against the request."""
    change(
        tx,
        "UPDATE sealed.attempts SET survived = true WHERE request_id = :id AND attempt = :attempt",
        id=request_id,
        attempt=attempt,
    )


def put_off(
    tx: Connection,
    request_id: int,
    attempt: int,
    *,
    bounded: bool,
    reason: str,
    seconds: float,
    most: int | None = None,
) -> bool:
    """Postpone an undecided request; the attempt counts as one that survived."""
    note_survival(tx, request_id, attempt)
    return hold_request(tx, request_id) and bool(
        change(
            tx,
            "INSERT INTO sealed.put_offs (request_id, attempt, bounded, reason, most, until) "
            "SELECT :id, :attempt, :bounded, :reason, CAST(:most AS integer), "
            "clock_timestamp() + make_interval(secs => :seconds) "
            "WHERE NOT EXISTS (SELECT 1 FROM sealed.put_offs WHERE request_id = :id AND until > clock_timestamp())",
            id=request_id,
            attempt=attempt,
            bounded=bounded,
            reason=clean(reason)[:100],
            most=most if bounded else None,
            seconds=seconds,
        )
    )


def times_put_off(tx: Connection, request_id: int, *, bounded: bool) -> int:
    """Return how often the request was postponed for faults of this kind."""
    query = "SELECT count(*) FROM sealed.put_offs WHERE request_id = :id AND bounded = :bounded"
    return int(scalar(tx, query, id=request_id, bounded=bounded))


@typed_record
class PutOff:
    """An undecided request that was put off.

    Attributes:
        request_id: The request.
        kind: ``gate``, ``meter`` and so on.
        study: Name of its study.
        bounded: Whether the last fault is one that the request may have brought about itself.
        reason: A word for the last fault.
        times: How often it was put off for faults of that class, >= 1.
        most: How often it may be; None where there is no limit, or where an older version put it off.
        until: When it is tried next; in the past where it is to be tried now.
    """

    request_id: int
    kind: str
    study: str
    bounded: bool
    reason: str
    times: int
    most: int | None
    until: datetime


def list_put_off(tx: Connection) -> list[PutOff]:
    """Undecided requests that were put off, the oldest first; for the referee's role."""
    return records(
        tx,
        PutOff,
        "SELECT r.id AS request_id, r.kind, s.name AS study, p.bounded, p.reason, (SELECT count(*) "
        "FROM sealed.put_offs q WHERE q.request_id = r.id AND q.bounded = p.bounded) AS times, p.most, p.until "
        "FROM work.requests r JOIN work.studies s ON s.id = r.study_id CROSS JOIN LATERAL (SELECT * "
        "FROM sealed.put_offs l WHERE l.request_id = r.id ORDER BY l.attempt DESC LIMIT 1) p "
        f"WHERE {UNDECIDED} ORDER BY r.id",
    )


def seconds_to_next_try(tx: Connection, *, looked_ago: float) -> float | None:
    """Seconds until a request that was put off, and still was ``looked_ago`` seconds ago, is tried; None without any.

    At most 0 where its time has come since then.
    """
    found = scalar(
        tx,
        "SELECT extract(epoch FROM min(p.until) - clock_timestamp())::double precision FROM sealed.put_offs p "
        "JOIN work.requests r ON r.id = p.request_id "
        f"WHERE p.until > clock_timestamp() - make_interval(secs => :ago) AND {UNDECIDED}",
        ago=looked_ago,
    )
    return None if found is None else float(found)


def refuse_sealing(tx: Connection, request_id: int) -> bool:
    """A study whose data cannot be sealed is refused for good; its name and the reason stay visible."""
    study = scalar(
        tx,
        "UPDATE work.studies s SET state = 'REFUSED' FROM work.requests r WHERE r.id = :id AND r.kind = 'seal' "
        "AND s.id = r.study_id AND s.state = 'REGISTERED' RETURNING s.name",
        id=request_id,
    )
    if study is not None:
        notify(tx, f"study:{study}")
    return study is not None


def add_answer(tx: Connection, request_id: int, *, refused: bool, message: str, also: Sequence[str] = ()) -> None:
    """Answer a request and notify the listeners of the answer, and of other topics (``database.notify``)."""
    rows(
        tx,
        "WITH answered AS (INSERT INTO work.answers (request_id, refused, message) VALUES (:id, :refused, :message)) "
        + NOTIFY,
        id=request_id,
        refused=refused,
        message=clean(message)[:LONGEST_TEXT],
        channel=CHANNEL,
        topics=known_topics(*also, f"answer:{request_id}"),
    )


def get_answer(tx: Connection, request_id: int) -> GivenAnswer | None:
    """The answer of a request, or None while there is none."""
    found = record(
        tx,
        GivenAnswer,
        "SELECT r.id AS request_id, r.kind, s.name AS study, r.model_id, a.refused, a.message FROM work.requests r "
        "JOIN work.studies s ON s.id = r.study_id LEFT JOIN work.answers a ON a.request_id = r.id WHERE r.id = :id",
        id=request_id,
    )
    if found is None:
        raise NotFoundError(kind="request", name=request_id)
    return None if found.refused is None else found
