"""What hash chains commit to: the facts of a sealed set, its ledger and verdicts, the audit and promotions.

``chain.py`` stores the entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from easeml_core.entities import JsonObject
from easeml_core.formats.attestation import digest
from easeml_core.formats.encoding import typed_record
from easeml_core.store.rows import record, row, rows
from easeml_core.store.tables.test_sets import ON_THE_PLAN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

AUDIT = "audit"
"""The chain of the audit and the promotions."""

GENESIS, LEDGER, VERDICT, READING = "genesis", "ledger", "verdict", "reading"
AUDITED, PROMOTION, KEY, ACKNOWLEDGED = "audit", "promotion", "key", "acknowledged"
LABELS = "labels"
"""Kind of an entry whose content states the labels that were given on demand and used (``labels.py``)."""

_SET = "set/"


def of_set(test_set_id: int) -> str:
    """Name of a sealed set's chain."""
    return f"{_SET}{test_set_id}"


def set_of(chain: str) -> int | None:
    """The sealed set whose chain this is; None for the chain of the audit."""
    return int(chain.removeprefix(_SET)) if chain.startswith(_SET) else None


# An earlier entry must always find the same facts: a column added to a table later goes into a query of a new kind.

_IDENTITY = "(SELECT m.format || ' ' || m.artifact FROM work.models m WHERE m.id = {0})"

_SET_FACTS = """
SELECT s.id AS subject, s.id, s.steps, s.fingerprint, encode(sha256(s.inputs), 'hex') AS inputs,
       encode(sha256(s.labels), 'hex') AS labels, encode(sha256(s.slices), 'hex') AS slices, s.keys, s.sealed_at,
       t.study_id, t.data_version_id, t.purpose, t.rows, t.plan, t.labels_on_demand, t.created_at
FROM sealed.test_sets s JOIN work.test_sets t ON t.id = s.id WHERE s.id = :set
"""

# A model that could not be run for one request (``sealed_predictions``) has no predictions then and may get some for a
# later request: the entry does not rest on those.
_ROW_FACTS = {
    LEDGER: """
SELECT l.id AS subject, l.test_set_id, l.step, l.steps, l.system, l.system_step, l.system_steps, l.request_id,
       l.cache_key, l.answer, l.is_change, l.open_ended, l.log_level, l.log_cost, l.tolerance, l.report, l.decided_at,
       (SELECT jsonb_object_agg(p.model, coalesce(encode(sha256(p.labels), 'hex'), 'no answer: '
          || encode(sha256(convert_to(p.failure, 'UTF8')), 'hex')))
        FROM sealed.predictions p WHERE p.test_set_id = l.test_set_id
        AND p.model IN (l.report ->> 'model', l.report ->> 'incumbent')
        AND (p.model = l.report ->> 'incumbent' OR l.report ->> 'failure' IS NULL
          OR rtrim(p.failure) IS NOT DISTINCT FROM rtrim(l.report ->> 'failure'))) AS predictions
FROM sealed.ledger l WHERE l.test_set_id = :set AND (:all OR l.id = ANY (CAST(:ids AS bigint[])))
""",
    VERDICT: f"""
SELECT v.request_id AS subject, v.request_id, v.study_id, v.model_id, v.incumbent_id, v.test_set_id, v.step, v.symbol,
       v.planned, v.cached, {_IDENTITY.format("v.model_id")} AS model, {_IDENTITY.format("v.incumbent_id")} AS incumbent
FROM work.gate_verdicts v WHERE v.test_set_id = :set AND (:all OR v.request_id = ANY (CAST(:ids AS bigint[])))
""",
    READING: f"""
SELECT r.request_id AS subject, r.request_id, r.study_id, r.model_id, r.test_set_id, r.step, r.signal, r.signals,
       r.cached, r.team, r.edges, r.tolerance, r.submissions_left, r.data_version_id, r.direct_test_set_id,
       r.direct_signal, r.drift, {_IDENTITY.format("r.model_id")} AS model
FROM work.meter_readings r WHERE r.test_set_id = :set AND (:all OR r.request_id = ANY (CAST(:ids AS bigint[])))
""",
    AUDITED: """
SELECT a.id AS subject, a.id, a.at, a.who, a.door, a.role, a.act, a.study_id, a.tenant_id, a.before, a.after, a.reason
FROM work.audit a WHERE CAST(:set AS bigint) IS NULL AND (:all OR a.id = ANY (CAST(:ids AS bigint[])))
""",
    PROMOTION: f"""
SELECT p.id AS subject, p.id, p.request_id, p.kind, p.study_id, p.model_id, p.gate_request_id, p.symbol, p.planned,
       p.restores, p.who, p.why, p.promoted_at, {_IDENTITY.format("p.model_id")} AS model
FROM work.promotions p WHERE CAST(:set AS bigint) IS NULL AND (:all OR p.id = ANY (CAST(:ids AS bigint[])))
""",
}

ROWS_OF_SET = (LEDGER, VERDICT, READING)
ROWS_OF_AUDIT = (AUDITED, PROMOTION)


def kinds_of(chain: str) -> tuple[str, ...]:
    """Kinds of rows that the chain covers."""
    return ROWS_OF_AUDIT if chain == AUDIT else ROWS_OF_SET


def row_facts(tx: Connection, chain: str, kind: str, subjects: Sequence[int] | None = None) -> dict[int, JsonObject]:
    """Facts of the rows of a kind, as plain JSON, by id."""
    found = rows(
        tx,
        _ROW_FACTS[kind],
        set=set_of(chain),
        all=subjects is None,
        ids=[] if subjects is None else list(subjects),
    )
    return {int(r.subject): _plain(r._asdict()) for r in found}


HOLD = "SELECT name FROM sealed.chains WHERE name = :chain FOR UPDATE"
"""Locks a chain; without a row where it has not begun."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What the next entry of a chain states, and what it follows.

    Attributes:
        facts: Of its row.
        is_open: Whether the chain has begun, and is held.
        last_place: Of its last entry; 0 without any.
        last_hash: Of that entry; None without any.
    """

    facts: JsonObject
    is_open: bool
    last_place: int
    last_hash: bytes | None


def hold_with_facts(tx: Connection, chain: str, kind: str, subject: int) -> Appended:
    """Hold a chain until the transaction ends, and return what its next entry states and follows.

    Two statements are sent at once. The second has a new snapshot, taken when the first has the lock, so it sees
    the last entry of the transaction that held the chain before (READ COMMITTED, which every writing transaction has).
    """
    found = row(
        tx,
        f"{HOLD}; SELECT f.*, coalesce(h.place, 0) AS last_place, h.hash AS last_hash, "
        f"EXISTS (SELECT FROM sealed.chains WHERE name = :chain) AS is_open FROM ({_ROW_FACTS[kind]}) f "
        "LEFT JOIN LATERAL (SELECT place, hash FROM sealed.chain WHERE chain = :chain ORDER BY place DESC LIMIT 1) h "
        "ON true",
        set=set_of(chain),
        all=False,
        ids=[subject],
        chain=chain,
    )
    assert found is not None  # the caller has written it in this transaction, or seen it
    facts = found._asdict()
    is_open, place, last = facts.pop("is_open"), int(facts.pop("last_place")), facts.pop("last_hash")
    return Appended(_plain(facts), is_open, place, None if last is None else bytes(last))


def set_facts(tx: Connection, test_set_id: int) -> JsonObject | None:
    """Facts of a sealed set that never change: its content as hashes, its plan and sizes; None where it is gone."""
    found = row(tx, _SET_FACTS, set=test_set_id)
    return None if found is None else _plain(found._asdict())


def baseline(tx: Connection, chain: str) -> JsonObject:
    """Return the present state: the set, and a digest of the facts of every row that the chain covers.

    Rows of the audit and promotions are left out of a chain that begins: they are appended as they are found.
    """
    set_id = set_of(chain)
    if set_id is None:
        return {"version": 1}
    counted = {kind: _digests(row_facts(tx, chain, kind)) for kind in kinds_of(chain)}
    return {"version": 1, "set": set_facts(tx, set_id), "rows": counted}


def _digests(facts: Mapping[int, Any]) -> dict[str, str]:
    return {str(subject): digest(found) for subject, found in facts.items()}


def _plain(found: JsonObject) -> JsonObject:
    """A row as plain JSON: moments in UTC, long lists of keys as their digest."""
    plain = {name: _moment(value) for name, value in found.items() if name != "subject"}
    if plain.get("keys") is not None:
        plain["keys"] = digest(plain["keys"])
    return plain


def _moment(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


_VERSIONS_OF_SET = """
SELECT 'chain' AS kind, place AS id, xmin::text || ctid::text AS version FROM sealed.chain WHERE chain = :chain
UNION ALL SELECT 'ledger', id, xmin::text || ctid::text FROM sealed.ledger WHERE test_set_id = :set
UNION ALL SELECT 'verdict', request_id, xmin::text || ctid::text FROM work.gate_verdicts WHERE test_set_id = :set
UNION ALL SELECT 'reading', request_id, xmin::text || ctid::text FROM work.meter_readings WHERE test_set_id = :set
UNION ALL SELECT 'sealed', id, xmin::text || ctid::text FROM sealed.test_sets WHERE id = :set
UNION ALL SELECT 'set', id, xmin::text || ctid::text FROM work.test_sets WHERE id = :set
-- One version of all given labels: a row that is added can contradict an entry that was checked before.
UNION ALL SELECT 'labels', 0, string_agg(labeler || xmin::text || ctid::text, ' ' ORDER BY labeler)
  FROM sealed.labels WHERE test_set_id = :set HAVING count(*) > 0
UNION ALL SELECT 'prediction ' || model, 0, xmin::text || ctid::text FROM sealed.predictions WHERE test_set_id = :set
UNION ALL SELECT 'model', m.id, m.xmin::text || m.ctid::text FROM work.models m
  WHERE m.study_id = (SELECT study_id FROM work.test_sets WHERE id = :set)
"""

_VERSIONS_OF_AUDIT = """
SELECT 'chain' AS kind, place AS id, xmin::text || ctid::text AS version FROM sealed.chain WHERE chain = :chain
UNION ALL SELECT 'audit', id, xmin::text || ctid::text FROM work.audit
UNION ALL SELECT 'promotion', id, xmin::text || ctid::text FROM work.promotions
UNION ALL SELECT 'production', study_id, xmin::text || ctid::text FROM work.production
UNION ALL SELECT 'model', m.id, m.xmin::text || m.ctid::text FROM work.models m
  WHERE m.id IN (SELECT model_id FROM work.promotions)
"""


def versions(tx: Connection, chain: str) -> dict[tuple[str, int], str]:
    """Return the version of each row that the chain depends on; an equal version means an unchanged row.

    PostgreSQL gives every new version of a row the transaction that wrote it (``xmin``) and a place (``ctid``), also
    where triggers are off. Comparing them avoids hashing every row again before each answer.
    """
    query = _VERSIONS_OF_AUDIT if chain == AUDIT else _VERSIONS_OF_SET
    values = {"chain": chain} if chain == AUDIT else {"chain": chain, "set": set_of(chain)}
    return {(r.kind, int(r.id)): r.version for r in rows(tx, query, **values)}


def unchained(tx: Connection, kind: str, *, above: int, limit: int) -> list[int]:
    """Return ids of committed rows of the audit or of promotions that have no entry, rising.

    Numbers are given before their transactions end, so a lower one may appear later. The search therefore starts above
    the number below which no row can appear any more (``settled_below``).
    """
    table = {AUDITED: "work.audit", PROMOTION: "work.promotions"}[kind]
    found = rows(
        tx,
        f"SELECT a.id FROM {table} a WHERE a.id > :above AND NOT EXISTS (SELECT FROM sealed.chain c "
        "WHERE c.chain = :chain AND c.kind = :kind AND c.subject = a.id) ORDER BY a.id LIMIT :most",
        above=above,
        chain=AUDIT,
        kind=kind,
        most=limit,
    )
    return [int(r.id) for r in found]


@dataclass(frozen=True, slots=True)
class Horizon:
    """How far the numbers of rows reach, and which transactions may still add lower ones.

    Attributes:
        newest: Highest number of a row that can be seen; 0 without any.
        running_since: The oldest transaction that was not over (``pg_snapshot_xmin``).
        begun: The first number that no transaction had (``pg_snapshot_xmax``).
    """

    newest: int
    running_since: int
    begun: int


def horizon(tx: Connection, kind: str) -> Horizon:
    """Return the present horizon of a kind of rows."""
    table = {AUDITED: "work.audit", PROMOTION: "work.promotions"}[kind]
    found = row(
        tx,
        "SELECT pg_snapshot_xmin(s)::text::bigint AS running, pg_snapshot_xmax(s)::text::bigint AS begun, "
        f"(SELECT coalesce(max(id), 0) FROM {table}) AS newest FROM pg_current_snapshot() AS s",
    )
    assert found is not None  # a query without a table has a row
    return Horizon(int(found.newest), int(found.running), int(found.begun))


def contradictions(tx: Connection, chain: str) -> list[str]:
    """Return contradictions between ledger, verdicts, promotions and production pointer, in words for the referee."""
    query = _OF_AUDIT if chain == AUDIT else _OF_SET
    values = {} if chain == AUDIT else {"set": set_of(chain)}
    return [str(r.what) for r in rows(tx, query, **values)]


# Answers about other conditions are counted separately, beyond the set's steps.
_OF_SET = f"""
SELECT format('%s %s of the ledger follows %s', CASE WHEN other THEN 'answer about another condition' ELSE 'step' END,
  step, before) AS what FROM (
  SELECT system = 'other' AS other, step, lag(step, 1, CASE WHEN system = 'other' THEN steps ELSE 0 END)
    OVER (PARTITION BY system = 'other' ORDER BY step) AS before
  FROM sealed.ledger WHERE test_set_id = :set) l
WHERE step <> before + 1
UNION ALL
SELECT format('the verdict of request %s is %s, the ledger says %s at step %s', v.request_id, v.symbol,
  coalesce(l.answer, 'nothing'), v.step)
FROM work.gate_verdicts v JOIN work.test_sets t ON t.id = v.test_set_id LEFT JOIN sealed.ledger l
  ON l.test_set_id = v.test_set_id AND l.system = CASE WHEN {ON_THE_PLAN} THEN 'gate' ELSE 'other' END
  AND l.system_step = v.step
WHERE v.test_set_id = :set AND v.symbol IS DISTINCT FROM l.answer
UNION ALL
SELECT format('the answer of request %s has left, and the ledger has no entry of it', o.request_id)
FROM sealed.outbox o LEFT JOIN work.gate_verdicts v ON v.request_id = o.request_id
WHERE (o.facts -> 'verdict' ->> 'test_set_id')::bigint = :set AND o.left_at IS NOT NULL AND v.request_id IS NULL
"""

_OF_AUDIT = """
SELECT format('study %s: model %s is in production by promotion %s; the last promotion is %s, of model %s', s.name,
  coalesce(p.model_id::text, 'none'), coalesce(p.promotion_id::text, 'none'), coalesce(l.id::text, 'none'),
  coalesce(l.model_id::text, 'none')) AS what
FROM work.studies s LEFT JOIN work.production p ON p.study_id = s.id
LEFT JOIN LATERAL (SELECT id, model_id FROM work.promotions WHERE study_id = s.id ORDER BY id DESC LIMIT 1) l ON true
WHERE (p.promotion_id, p.model_id) IS DISTINCT FROM (l.id, l.model_id)
UNION ALL
SELECT format('promotion %s rests on gate request %s, whose verdict on model %s is %s', p.id, p.gate_request_id,
  p.model_id, coalesce(v.symbol, 'not there'))
FROM work.promotions p LEFT JOIN work.gate_verdicts v ON v.request_id = p.gate_request_id AND v.model_id = p.model_id
WHERE p.kind = 'promote' AND (v.symbol IS NULL OR v.symbol NOT IN ('pass', 'withheld'))
"""


def promoted_artifacts(tx: Connection) -> list[tuple[str, str]]:
    """Tenants and references of the files of all models that are or were in production."""
    query = (
        "SELECT DISTINCT t.name AS tenant, m.artifact FROM work.promotions p JOIN work.models m ON m.id = p.model_id "
        "JOIN work.studies s ON s.id = m.study_id JOIN work.tenants t ON t.id = s.tenant_id ORDER BY 2, 1"
    )
    return [(str(r.tenant), str(r.artifact)) for r in rows(tx, query)]


@typed_record
class SignedVerdict:
    """A verdict of the gate.

    Attributes:
        request_id: The gate's request.
        test_set_id: The set that judged.
        state: Of the set.
        study: Name of the study.
        envelope: The signed bundle that left with the verdict; None where nothing was signed.
    """

    request_id: int
    test_set_id: int
    state: str
    study: str
    envelope: JsonObject | None


def verdict_of_model(tx: Connection, model_id: int, request_id: int | None) -> SignedVerdict | None:
    """Return the verdict of a request on a model, or its last one; None without any."""
    return record(
        tx,
        SignedVerdict,
        "SELECT v.request_id, v.test_set_id, t.state, s.name AS study, e.envelope FROM work.gate_verdicts v "
        "JOIN work.test_sets t ON t.id = v.test_set_id JOIN work.studies s ON s.id = v.study_id "
        "LEFT JOIN work.evidence e ON e.request_id = v.request_id WHERE v.model_id = :model "
        "AND (v.request_id = :request OR CAST(:request AS bigint) IS NULL) ORDER BY v.request_id DESC LIMIT 1",
        model=model_id,
        request=request_id,
    )


def ledger_entry_of(tx: Connection, test_set_id: int, step: int) -> int | None:
    """Id of the ledger entry at a step of the gate, or None."""
    query = "SELECT id FROM sealed.ledger WHERE test_set_id = :set AND system = 'gate' AND system_step = :step"
    found = row(tx, query, set=test_set_id, step=step)
    return None if found is None else int(found.id)
