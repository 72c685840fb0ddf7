"""Rows of a study's data after registration: pairs that were fed, rows switched off and on, versions, uploads.

Feeding or switching writes one row and does not wait. The referee makes a new data version of all that waits
(``services/datasets/refresh.py``); only its role changes existing rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from easeml_core.entities import StudyState
from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import typed_record
from easeml_core.store.logins import own_key
from easeml_core.store.rows import change, record, records, rows, scalar
from easeml_core.store.tables.requests import NEW_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Feed:
    """Pairs that a user fed: where they are stored, and what has become of them.

    ``state`` is ``waiting``, ``taken`` (its new rows are in the training part) or ``refused`` with a ``reason``.
    """

    id: int
    study_id: int
    artifact: str
    rows: int
    origin: str
    fed_by: str
    fed_at: datetime
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Switch:
    """A row of the training part, by the hash of its inputs, switched off or on."""

    id: int
    hash: bytes
    is_on: bool
    reason: str
    switched_by: str


_FEED = "SELECT id, study_id, artifact, rows, origin, fed_by, fed_at, state, reason FROM work.feeds "
_SWITCH = "SELECT id, hash, is_on, reason, switched_by FROM work.switches "


def add_feed(
    tx: Connection, *, study_id: int, artifact: str, rows: int, origin: str, fed_by: str, request_key: str
) -> int:
    """Record fed pairs; the same key gives the same feed."""
    given = {"study_id": study_id, "artifact": artifact, "key": own_key(tx, request_key)}
    if not request_key:
        message = "request_key must not be empty; it makes the call repeatable"
        raise InvalidInputError(message)
    found = scalar(
        tx,
        "INSERT INTO work.feeds (study_id, artifact, rows, origin, fed_by, request_key) "
        "VALUES (:study_id, :artifact, :rows, :origin, :fed_by, :key) "
        "ON CONFLICT ON CONSTRAINT feeds_request_key DO NOTHING RETURNING id",
        rows=rows,
        origin=origin,
        fed_by=fed_by,
        **given,
    )
    if found is None:
        same = "SELECT id FROM work.feeds WHERE request_key = :key AND study_id = :study_id AND artifact = :artifact"
        found = scalar(tx, same, **given)
    if found is None:
        message = f"request key {request_key!r} has fed other pairs; {NEW_KEY}"
        raise InvalidInputError(message)
    return int(found)


def list_feeds(tx: Connection, study_id: int, *, limit: int = 1000) -> list[Feed]:
    """The newest feeds of a study, newest first."""
    found = rows(tx, _FEED + "WHERE study_id = :id ORDER BY id DESC LIMIT :limit", id=study_id, limit=limit)
    return [Feed(**r._mapping) for r in found]


def waiting_feeds(tx: Connection, study_id: int, *, limit: int) -> list[Feed]:
    """Return the feeds that the referee has not processed, oldest first."""
    asked = _FEED + "WHERE study_id = :id AND state = 'waiting' ORDER BY id LIMIT :limit"
    return [Feed(**r._mapping) for r in rows(tx, asked, id=study_id, limit=limit)]


def count_waiting(tx: Connection, study_id: int, *, but: str) -> int:
    """Count the feeds that the referee has not processed, without the one under the request key ``but``."""
    asked = "SELECT count(*) FROM work.feeds WHERE study_id = :id AND state = 'waiting' AND request_key <> :key"
    return int(scalar(tx, asked, id=study_id, key=own_key(tx, but)))


def settle_feed(tx: Connection, feed_id: int, *, refused: str | None = None) -> None:
    """Mark a feed as taken, or as refused with this reason; for the referee's role."""
    change(
        tx,
        "UPDATE work.feeds SET state = :state, reason = :reason WHERE id = :id",
        id=feed_id,
        state="taken" if refused is None else "refused",
        reason=None if refused is None else refused[:2000],
    )


def count_refused(tx: Connection, study_id: int, reason: str) -> int:
    """Count the study's feeds that were refused with this reason."""
    asked = "SELECT count(*) FROM work.feeds WHERE study_id = :id AND state = 'refused' AND reason = :reason"
    return int(scalar(tx, asked, id=study_id, reason=reason))


def add_switches(
    tx: Connection,
    *,
    study_id: int,
    hashes: Sequence[bytes],
    is_on: bool,
    reason: str,
    switched_by: str,
    request_key: str,
) -> int:
    """Switch rows of the training part off or on, from the next refresh on; return how many are new with this key."""
    given = {"study_id": study_id, "hashes": list(hashes), "is_on": is_on, "key": own_key(tx, request_key)}
    added = change(
        tx,
        "INSERT INTO work.switches (study_id, hash, is_on, reason, switched_by, request_key) "
        "SELECT :study_id, hash, :is_on, :reason, :who, :key FROM unnest(CAST(:hashes AS bytea[])) AS hash "
        "ON CONFLICT ON CONSTRAINT switches_request_key DO NOTHING",
        reason=reason,
        who=switched_by,
        **given,
    )
    other = scalar(
        tx,
        "SELECT count(*) FROM work.switches WHERE request_key = :key AND hash = ANY (:hashes) "
        "AND (is_on <> :is_on OR study_id <> :study_id)",
        **given,
    )
    if other:
        message = f"request key {request_key!r} has switched these rows otherwise; {NEW_KEY}"
        raise InvalidInputError(message)
    return added


def waiting_switches(tx: Connection, study_id: int) -> list[Switch]:
    """Return the switches since the last refresh, in order."""
    asked = _SWITCH + "WHERE study_id = :id AND refreshed_by IS NULL ORDER BY id"
    return [_switch(r) for r in rows(tx, asked, id=study_id)]


def last_switches(tx: Connection, study_id: int) -> dict[bytes, Switch]:
    """Return the last switch of every row that was ever switched, by hash."""
    asked = _SWITCH.replace("SELECT", "SELECT DISTINCT ON (hash)") + "WHERE study_id = :id ORDER BY hash, id DESC"
    return {found.hash: found for found in map(_switch, rows(tx, asked, id=study_id))}


def _switch(found: Any) -> Switch:
    return Switch(**dict(found._mapping) | {"hash": bytes(found.hash)})


def settle_switches(tx: Connection, switch_ids: Sequence[int], *, request_id: int) -> None:
    """Mark these switches as processed for this request; for the referee's role."""
    change(
        tx,
        "UPDATE work.switches SET refreshed_by = :request WHERE id = ANY (:ids)",
        request=request_id,
        ids=list(switch_ids),
    )


def add_fed_examples(tx: Connection, study_id: int, feed_of: Mapping[bytes, int]) -> None:
    """Record the feed of each row of the training part; a later feed replaces an earlier one."""
    change(
        tx,
        "INSERT INTO work.fed_examples (study_id, hash, feed_id) SELECT :study_id, hash, feed_id "
        "FROM unnest(CAST(:hashes AS bytea[]), CAST(:feeds AS bigint[])) AS given(hash, feed_id) "
        "ON CONFLICT ON CONSTRAINT fed_examples_pkey DO UPDATE SET feed_id = excluded.feed_id",
        study_id=study_id,
        hashes=list(feed_of),
        feeds=list(feed_of.values()),
    )


def fed_examples(tx: Connection, study_id: int) -> dict[bytes, int]:
    """Return hash to feed of every row of the training part, switched off or not, that came with a feed."""
    found = rows(tx, "SELECT hash, feed_id FROM work.fed_examples WHERE study_id = :id", id=study_id)
    return {bytes(r.hash): int(r.feed_id) for r in found}


def add_refresh(
    tx: Connection, *, request_id: int, study_id: int, data_version_id: int | None = None, off: str | None = None
) -> None:
    """Record the result of a refresh: a data version and the artifact of rows that it leaves out, or nothing new.

    For the referee's role.
    """
    change(
        tx,
        "INSERT INTO work.refreshes (request_id, study_id, data_version_id, off) "
        "VALUES (:request, :study, :data, :off)",
        request=request_id,
        study=study_id,
        data=data_version_id,
        off=off,
    )


@typed_record
class RefreshedData:
    """The data version that a refresh made, with the rows of its training part; both None where nothing was new."""

    version: int | None
    train_rows: int | None


def refresh_facts(tx: Connection, request_id: int) -> RefreshedData | None:
    """Return what a refresh made; None without a refresh."""
    return record(
        tx,
        RefreshedData,
        "SELECT v.version, p.rows AS train_rows FROM work.refreshes r "
        "LEFT JOIN work.data_versions v ON v.id = r.data_version_id "
        "LEFT JOIN work.data_parts p ON p.data_version_id = v.id AND p.part = 'train' WHERE r.request_id = :id",
        id=request_id,
    )


def switched_off(tx: Connection, study_id: int) -> str | None:
    """Return the artifact of the rows that the study's newest training part leaves out, or None."""
    found = scalar(
        tx,
        "SELECT off FROM work.refreshes WHERE study_id = :id AND data_version_id IS NOT NULL "
        "ORDER BY data_version_id DESC LIMIT 1",
        id=study_id,
    )
    return None if found is None else str(found)


def hidden_in_study(tx: Connection, study_id: int, hashes: Sequence[bytes]) -> set[bytes]:
    """Return which examples lie in an unreleased set of this same study; for the referee's role."""
    found = rows(
        tx,
        "SELECT e.hash FROM sealed.examples e JOIN work.test_sets t ON t.id = e.test_set_id "
        "WHERE e.study_id = :id AND e.hash = ANY (:hashes) AND t.state <> 'released'",
        id=study_id,
        hashes=list(hashes),
    )
    return {bytes(r.hash) for r in found}


class FedStudy(NamedTuple):
    """An active study that was fed or refined; ``is_newest``: its newest training part has all of it."""

    name: str
    is_newest: bool


# The newest version may be one that shares its training part with an earlier one: a new validation part.
_FED = """
SELECT s.name, NOT bool_or(w.waits) AS is_newest FROM work.studies s JOIN (
  SELECT study_id, fed_at AS since, true AS waits FROM work.feeds WHERE state = 'waiting'
  UNION ALL SELECT study_id, switched_at, true FROM work.switches WHERE refreshed_by IS NULL
  UNION ALL SELECT n.study_id, n.created_at, false FROM (
    SELECT DISTINCT ON (study_id) study_id, created_at, coalesce(same_training_as, id) AS training
    FROM work.data_versions ORDER BY study_id, version DESC) n
  WHERE EXISTS (SELECT FROM work.refreshes r WHERE r.data_version_id = n.training)) w ON w.study_id = s.id
WHERE s.state = 'ACTIVE' GROUP BY s.id
ORDER BY greatest(min(w.since), (
  SELECT max(q.requested_at) FROM work.requests q WHERE q.study_id = s.id AND q.kind = 'refresh')), s.name
"""


def fed_studies(tx: Connection) -> list[FedStudy]:
    """Return the active studies with pairs or switches, taken by their newest training part or not: oldest wait first.

    A study waits since the last refresh that was asked for: one that cannot be refreshed comes behind the others.
    """
    return [FedStudy(**r._mapping) for r in rows(tx, _FED)]


_VERSIONS = """
SELECT v.version, v.created_at, v.features, jsonb_array_length(v.class_names) AS classes,
       coalesce(v.layout ->> 'kind', 'table') AS kind, f.version AS training_of, r.request_id IS NOT NULL AS refreshed,
       max(p.rows) FILTER (WHERE p.part = 'train') AS train_rows,
       max(p.rows) FILTER (WHERE p.part = 'validation') AS validation_rows
FROM work.data_versions v LEFT JOIN work.data_parts p ON p.data_version_id = v.id
LEFT JOIN work.data_versions f ON f.id = v.same_training_as LEFT JOIN work.refreshes r ON r.data_version_id = v.id
WHERE v.study_id = :id GROUP BY v.id, f.version, r.request_id ORDER BY v.version DESC LIMIT :limit
"""

_REFRESHES = """
SELECT q.id AS request_id, q.requested_at, a.answered_at, coalesce(a.refused, false) AS refused, a.message, v.version
FROM work.requests q LEFT JOIN work.answers a ON a.request_id = q.id
LEFT JOIN work.refreshes r ON r.request_id = q.id LEFT JOIN work.data_versions v ON v.id = r.data_version_id
WHERE q.study_id = :id AND q.kind = 'refresh' ORDER BY q.id DESC LIMIT :limit
"""


@typed_record
class VersionEntry:
    """A version of a study's data in the list of its versions.

    Attributes:
        version: Its number, from 1.
        created_at: When it was made.
        features: Columns of its inputs.
        classes: Classes of its labels; 0 where numbers are predicted.
        kind: Of its layout, such as ``table``.
        training_of: The version whose training part it shares; None where its training part is new.
        refreshed: Whether a refresh made it from fed pairs.
        train_rows: Rows of its training part.
        validation_rows: Rows of its validation part.
    """

    version: int
    created_at: datetime
    features: int
    classes: int
    kind: str
    training_of: int | None
    refreshed: bool
    train_rows: int
    validation_rows: int


def version_history(tx: Connection, study_id: int, *, limit: int) -> list[VersionEntry]:
    """Return the versions of a study's data, newest first, with the rows of their open parts."""
    return records(tx, VersionEntry, _VERSIONS, id=study_id, limit=limit)


@typed_record
class RefreshEntry:
    """A refresh that was asked for; ``version`` is what it made, None where nothing was new or it has no answer."""

    request_id: int
    requested_at: datetime
    answered_at: datetime | None
    refused: bool
    message: str | None
    version: int | None


def refresh_history(tx: Connection, study_id: int, *, limit: int) -> list[RefreshEntry]:
    """Return the refreshes that were asked for, newest first."""
    return records(tx, RefreshEntry, _REFRESHES, id=study_id, limit=limit)


class UploadUse(NamedTuple):
    """A study whose source names an upload, and the study's state."""

    tenant: str
    source: str
    state: StudyState


def uses_of_uploads(tx: Connection, days: Sequence[str]) -> list[UploadUse]:
    """Return the uses of uploads of these days (``YYYY-MM-DD``); a source with such a name may still be malformed."""
    found = rows(
        tx,
        "SELECT DISTINCT t.name AS tenant, d.source, s.state FROM work.studies s "
        "JOIN work.data_sets d ON d.id = s.data_set_id JOIN work.tenants t ON t.id = s.tenant_id "
        "WHERE substring(d.source FROM '^[a-z]+:upload:(.{10})/') = ANY (:days)",
        days=list(days),
    )
    return [UploadUse(r.tenant, r.source, StudyState(r.state)) for r in found]
