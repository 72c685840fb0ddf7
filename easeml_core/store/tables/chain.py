"""Hash chains as rows: one for each sealed set, one for the audit and the promotions.

An entry commits to a row (a ledger entry, a verdict, a reading, a row of the audit, a promotion) or to content that the
entry itself holds (``genesis``, ``acknowledged``, ``key``, ``labels``). Entries are signed where a key is in use
(``recording``). The facts of a row are in ``chained_rows.py``; ``services/evidence`` checks chains.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from easeml_core.formats.attestation import FIRST, NONCE_BYTES, Link, commit
from easeml_core.formats.encoding import typed_record
from easeml_core.store.rows import as_json, change, records, row, rows, scalar
from easeml_core.store.tables.chained_rows import AUDIT, GENESIS, HOLD, baseline, hold_with_facts, of_set

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import Connection, Row

    from easeml_core.entities import JsonObject
    from easeml_core.formats.attestation import SigningKey


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain.

    Attributes:
        chain: Its name.
        length: Entries, >= 0.
        hash: Of the last entry; ``FIRST`` of an empty chain.
    """

    chain: str
    length: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a chain as it is stored; nothing of it is believed before it is checked.

    Attributes:
        place: From 1.
        link: What the hash covers.
        nonce: Secret random bytes.
        hash: As stored.
        content: Of ``genesis``, ``acknowledged``, ``key`` and ``labels``; None where the content is that of a row.
        key_id: Of the key that has signed it; None where it is not signed.
        signature: On the hash.
    """

    place: int
    link: Link
    nonce: bytes
    hash: bytes
    content: JsonObject | None
    key_id: str | None
    signature: bytes | None


@dataclass(slots=True)
class Recording:
    """The key that signs entries, and the heads of the chains that were extended with it."""

    key: SigningKey
    heads: dict[str, Head] = field(default_factory=dict)


_recording: ContextVar[Recording | None] = ContextVar("easeml_chain", default=None)


@contextlib.contextmanager
def recording(key: SigningKey | None) -> Iterator[Recording | None]:
    """Sign every entry that this block appends; without a key entries are not signed."""
    token = _recording.set(None if key is None else Recording(key))
    try:
        yield _recording.get()
    finally:
        _recording.reset(token)


_HEAD = "SELECT place, hash FROM sealed.chain WHERE chain = :chain ORDER BY place DESC LIMIT 1"


def signing_key() -> SigningKey | None:
    """The key of the ``recording`` that is under way, or None."""
    recorded = _recording.get()
    return None if recorded is None else recorded.key


def is_signed_by(tx: Connection, key_ids: Collection[str]) -> bool:
    """Whether one of these keys has signed an entry of any chain."""
    query = "SELECT EXISTS (SELECT FROM sealed.chain WHERE key_id = ANY(:ids))"
    return bool(scalar(tx, query, ids=list(key_ids)))


def last_signer(tx: Connection) -> str | None:
    """Id of the key that has signed last, in any chain; None where no entry is signed."""
    found = scalar(tx, "SELECT key_id FROM sealed.chain WHERE key_id IS NOT NULL ORDER BY at DESC LIMIT 1")
    return None if found is None else str(found)


def head(tx: Connection, chain: str) -> Head:
    """The end of the chain as this transaction sees it."""
    found = row(tx, _HEAD, chain=chain)
    return Head(chain, 0, FIRST) if found is None else Head(chain, int(found.place), bytes(found.hash))


def hash_at(tx: Connection, chain: str, place: int) -> bytes | None:
    """Hash of the entry at a place, as stored; None where there is none, ``FIRST`` for place 0."""
    if place == 0:
        return FIRST
    query = "SELECT hash FROM sealed.chain WHERE chain = :chain AND place = :place"
    found = scalar(tx, query, chain=chain, place=place)
    return None if found is None else bytes(found)


def has_hash(tx: Connection, hash_hex: str) -> bool:
    """Whether an entry of any chain has this hash."""
    query = "SELECT EXISTS (SELECT FROM sealed.chain WHERE hash = decode(:hash, 'hex'))"
    return bool(scalar(tx, query, hash=hash_hex))


def append(
    tx: Connection, chain: str, kind: str, *, subject: int | None = None, content: JsonObject | None = None
) -> Head:
    """Append one entry, under the chain's lock, which is held until the transaction ends.

    The lock is a row that only the referee's side may lock, so that no worker can make a referee wait.
    """
    if content is not None:
        open_chain(tx, chain)
        # What is stored as JSON is committed to as it will be read back.
        own = json.loads(as_json(content))
        return _write(tx, head(tx, chain), kind, subject=subject, facts=own, keep=True)
    found = hold_with_facts(tx, chain, kind, subject or 0)
    if not found.is_open:
        _open(tx, chain)
        found = hold_with_facts(tx, chain, kind, subject or 0)
    last = Head(chain, found.last_place, found.last_hash or FIRST)
    return _write(tx, last, kind, subject=subject, facts=found.facts, keep=False)


def _hold(tx: Connection, chain: str) -> bool:
    return bool(rows(tx, HOLD, chain=chain))


def _open(tx: Connection, chain: str) -> None:
    change(tx, "INSERT INTO sealed.chains (name) VALUES (:name)", name=chain)
    _write(tx, head(tx, chain), GENESIS, subject=None, facts=baseline(tx, chain), keep=True)


def _write(tx: Connection, last: Head, kind: str, *, subject: int | None, facts: JsonObject, keep: bool) -> Head:
    nonce, signer = secrets.token_bytes(NONCE_BYTES), _recording.get()
    link = Link(last.chain, kind, subject, datetime.now(UTC), last.hash, commit(nonce, facts))
    new = Head(last.chain, last.length + 1, link.hash())
    change(
        tx,
        "INSERT INTO sealed.chain (chain, place, kind, subject, at, content, nonce, previous, commitment, hash, "
        "key_id, signature) VALUES (:chain, :place, :kind, :subject, :at, CAST(:content AS jsonb), :nonce, :previous, "
        ":commitment, :hash, :key_id, :signature)",
        chain=new.chain,
        place=new.length,
        kind=kind,
        subject=subject,
        at=link.at,
        content=as_json(facts) if keep else None,
        nonce=nonce,
        previous=link.previous,
        commitment=link.commitment,
        hash=new.hash,
        key_id=None if signer is None else signer.key.public.id,
        signature=None if signer is None else signer.key.sign_head(new.hash),
    )
    if signer is not None:
        signer.heads[new.chain] = new
    return new


def open_chain(tx: Connection, chain: str) -> None:
    """Begin a chain with an honest statement of what is there already; nothing where it has begun."""
    if not _hold(tx, chain):
        _open(tx, chain)


def open_missing(tx: Connection) -> None:
    """Begin the chain of every sealed set that has none, and that of the audit."""
    for found in rows(tx, "SELECT id FROM sealed.test_sets ORDER BY id"):
        open_chain(tx, of_set(int(found.id)))
    open_chain(tx, AUDIT)


def entries(tx: Connection, chain: str, *, after: int = 0, limit: int | None = None) -> list[Entry]:
    """Entries of a chain in their order, from a place on."""
    found = rows(tx, _ENTRY + "AND place > :after ORDER BY place LIMIT :most", chain=chain, after=after, most=limit)
    return [_entry(r) for r in found]


def entry_of(tx: Connection, chain: str, kind: str, subject: int) -> Entry | None:
    """The entry about a row, or None."""
    found = row(tx, _ENTRY + "AND kind = :kind AND subject = :subject", chain=chain, kind=kind, subject=subject)
    return None if found is None else _entry(found)


def newest_content(tx: Connection, chain: str, kind: str) -> JsonObject | None:
    """Content of the last entry of a kind that has one, or None."""
    query = "SELECT content FROM sealed.chain WHERE chain = :chain AND kind = :kind ORDER BY place DESC LIMIT 1"
    found: JsonObject | None = scalar(tx, query, chain=chain, kind=kind)
    return found


_ENTRY = (
    "SELECT chain, place, kind, subject, at, content, nonce, previous, commitment, hash, key_id, signature "
    "FROM sealed.chain WHERE chain = :chain "
)


def _entry(found: Row[Any]) -> Entry:
    return Entry(
        found.place,
        Link(
            found.chain,
            found.kind,
            found.subject,
            found.at.astimezone(UTC),
            bytes(found.previous),
            bytes(found.commitment),
        ),
        bytes(found.nonce),
        bytes(found.hash),
        found.content,
        found.key_id,
        None if found.signature is None else bytes(found.signature),
    )


def names(tx: Connection) -> list[str]:
    """Every chain that has an entry or a sealed set, the audit's last."""
    found = rows(
        tx,
        "SELECT id FROM sealed.test_sets UNION SELECT substr(chain, 5)::bigint FROM sealed.chain "
        "WHERE chain ~ '^set/[0-9]{1,18}$' ORDER BY 1",
    )
    return [*(of_set(int(r.id)) for r in found), AUDIT]


def publish(tx: Connection, *, request_id: int, study_id: int, test_set_id: int, envelope: JsonObject | None) -> str:
    """Let the ends of the set's chain and of the audit's leave with an answer; every role may read them.

    A head is a hash over a secret nonce and says nothing; how many entries there are is not published.
    """
    ends = (
        "coalesce((SELECT encode(hash, 'hex') FROM sealed.chain WHERE chain = {} ORDER BY place DESC LIMIT 1), :first)"
    )
    published = scalar(
        tx,
        "INSERT INTO work.evidence (request_id, study_id, test_set_id, head, audit_head, envelope) VALUES "
        f"(:request_id, :study_id, :test_set_id, {ends.format(':chain')}, {ends.format(':audit')}, "
        "CAST(:envelope AS jsonb)) RETURNING head",
        request_id=request_id,
        study_id=study_id,
        test_set_id=test_set_id,
        chain=of_set(test_set_id),
        audit=AUDIT,
        first=FIRST.hex(),
        envelope=None if envelope is None else as_json(envelope),
    )
    return str(published)


@typed_record
class PublishedHead:
    """The end of a sealed set's chain that left with an answer.

    Attributes:
        evidence_id: Number of the gate's or the meter's request.
        study: Its study.
        test_set_id: The set.
        head: Hash of the last entry of the set's chain, in hexadecimal.
        audit_head: The same of the audit's chain.
    """

    evidence_id: int
    study: str
    test_set_id: int
    head: str
    audit_head: str


def newest_heads(tx: Connection, study: str | None) -> list[PublishedHead]:
    """Return the head of each set that left last, the oldest first."""
    return records(
        tx,
        PublishedHead,
        "SELECT evidence_id, study, test_set_id, head, audit_head FROM (SELECT DISTINCT ON (e.test_set_id) "
        "e.request_id AS evidence_id, s.name AS study, e.test_set_id, e.head, e.audit_head, e.left_at "
        "FROM work.evidence e JOIN work.studies s ON s.id = e.study_id "
        "WHERE s.name = :study OR CAST(:study AS text) IS NULL ORDER BY e.test_set_id, e.left_at DESC) n "
        "ORDER BY left_at, evidence_id",
        study=study,
    )


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction of a server.

    Attributes:
        number: In 64 bits.
        server_since: When that server was started: after a crash it may give numbers once more that it forgot.
    """

    number: int
    server_since: str


def transaction(tx: Connection) -> Transaction:
    """This transaction."""
    found = row(tx, "SELECT pg_current_xact_id()::text AS number, pg_postmaster_start_time()::text AS since")
    assert found is not None  # a query without a table has a row
    return Transaction(int(found.number), found.since)


def transaction_state(tx: Connection, asked: Transaction) -> str | None:
    """``in progress``, ``committed`` or ``aborted``, as the snapshot of this query has it.

    A snapshot ends after the newest transaction that was over (``pg_snapshot_xmax``), so an open one may lie at that
    end or beyond it. Whether its number was given out at all is seen by the number that this transaction gets then.

    None where the server does not know: it has been started anew since, or has forgotten.
    """
    found = scalar(
        tx,
        "SELECT CASE WHEN pg_postmaster_start_time()::text <> :since THEN NULL "
        "WHEN CAST(:id AS xid8) < pg_snapshot_xmax(s) AND pg_visible_in_snapshot(CAST(:id AS xid8), s) "
        "THEN pg_xact_status(CAST(:id AS xid8)) "
        "WHEN CAST(:id AS xid8) < pg_snapshot_xmax(s) OR CAST(:id AS xid8) < pg_current_xact_id() THEN 'in progress' "
        "END FROM pg_current_snapshot() AS s",
        id=str(asked.number),
        since=asked.server_since,
    )
    return None if found is None else str(found)


def hold(tx: Connection, chain: str) -> None:
    """Keep others from appending to the chain until this transaction ends."""
    _hold(tx, chain)
