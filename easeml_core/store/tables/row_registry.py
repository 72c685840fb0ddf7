"""The registry of rows: which are sealed, which are open, and the tokens that identify them. Referee's role only.

Tokens are defined in ``data/rows/cells.py``, equality of rows in ``data/rows/matching.py``, and the consequences in
``services/test_sets/row_registry.py``.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.store.database import lock
from easeml_core.store.rows import change, pack, rows, scalar, unpack
from easeml_core.store.tables.sealed import installation_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Row

_ROWS_AT_ONCE = 20_000
_PREFIXES_AT_ONCE = 256
"""Keys of packed parts in one query: a table of 100,000 x 50 cells asks for all 65,536, and needs few of the cells."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Rows of one study that have the same columns.

    Attributes:
        id: Its number.
        study_id: Whose rows they are.
        study: Name of that study.
        tenant: Name of its tenant.
        packed_names: ``names`` as stored: few sources are compared, and unpacking takes longer than reading.
    """

    id: int
    study_id: int
    study: str
    tenant: str
    packed_names: bytes

    @property
    def names(self) -> NDArray[np.uint64]:
        """Tokens of the columns' names, uint64, shape ``(columns,)``."""
        return unpack(self.packed_names)


@dataclass(frozen=True, slots=True, eq=False)
class KnownRows:
    """The rows of a source, in the order of their ids.

    Attributes:
        ids: 16 bytes each.
        is_sealed: bool, shape ``(rows,)``.
        holder: int64, shape ``(rows,)``: the set for which a sealed row is registered; 0 for an open row.
        tokens: uint64, shape ``(rows, columns)``; 0 for a missing value, or for one that is a label elsewhere.
    """

    ids: list[bytes]
    is_sealed: NDArray[np.bool_]
    holder: NDArray[np.int64]
    tokens: NDArray[np.uint64]


def registry_key(tx: Connection) -> bytes:
    """Return the key of all tokens: without the installation's secret a guessed value cannot be checked."""
    return hmac.digest(installation_secret(tx), b"rows", "sha256")


def seed_of(tx: Connection, source_id: int) -> int:
    """Return the seed that decides which columns of a source are compared first; known to the referee alone."""
    said = registry_key(tx) + str(source_id).encode()
    return int.from_bytes(hashlib.sha256(said).digest()[:8], "little")


def hold_registry(tx: Connection) -> None:
    """Lock the registry against comparing and registering until this transaction ends."""
    lock(tx, "row registry")


def list_sources(tx: Connection) -> list[Source]:
    """All sources, oldest first."""
    found = rows(
        tx,
        "SELECT r.id, r.study_id, s.name AS study, t.name AS tenant, r.names FROM sealed.row_sources r "
        "JOIN work.studies s ON s.id = r.study_id JOIN work.tenants t ON t.id = s.tenant_id ORDER BY r.id",
    )
    return [Source(r.id, r.study_id, r.study, r.tenant, bytes(r.names)) for r in found]


def source_rows(tx: Connection, source: Source) -> KnownRows:
    """The rows of a source."""
    found = rows(
        tx,
        "SELECT string_agg(id, '' ORDER BY id) AS ids, string_agg(tokens, '' ORDER BY id) AS tokens, "
        "array_agg(CASE state WHEN 'sealed' THEN test_set_id ELSE 0 END ORDER BY id) AS holders "
        "FROM sealed.registry WHERE source_id = :id GROUP BY get_byte(id, 0) / 16 ORDER BY get_byte(id, 0) / 16",
        id=source.id,
    )  # in 16 values, since one has at most 1 GB
    ids = b"".join(block.ids for block in found)
    tokens = np.frombuffer(b"".join(block.tokens for block in found), dtype="<u8")
    holder = np.array([one for block in found for one in block.holders], dtype=np.int64)
    return KnownRows(
        [ids[start : start + 16] for start in range(0, len(ids), 16)],
        holder > 0,
        holder,
        tokens.reshape(len(holder), len(source.names)).astype(np.uint64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class SharedValues:
    """Given values that registered rows have; the rows of one part were registered together.

    Attributes:
        sources: int64, shape ``(parts,)``: the source of each part.
        parts: int64, shape ``(cells,)``: place of the cell's part in ``sources``, in order.
        tokens: uint64, shape ``(cells,)``.
        rows: int64, shape ``(cells,)``: number of the row within its part; 0 for a value of more than 8 rows.
    """

    sources: NDArray[np.int64]
    parts: NDArray[np.int64]
    tokens: NDArray[np.uint64]
    rows: NDArray[np.int64]


_CELL = np.dtype([("token", "<u8"), ("row", ">u4")])
_OF_PARTS = (
    "SELECT p.id, p.source_id, string_agg(v.cells, '') AS cells FROM {} v JOIN sealed.row_parts p ON p.id = v.part_id "
    "WHERE p.is_packed = :is_packed GROUP BY p.id"
)
# Sealed tables have no statistics: for a plain join the planner would read the whole table.
_PROBED = (
    "(SELECT f.part_id, f.cells FROM unnest(CAST(:keys AS bigint[])) AS k (key) CROSS JOIN LATERAL "
    "(SELECT part_id, cells FROM sealed.row_values WHERE key = k.key OFFSET 0) AS f)"
)


def shared_values(tx: Connection, values: NDArray[np.uint64]) -> SharedValues:
    """Return where registered rows have these values."""
    keys = np.frombuffer(values.astype("<u8").tobytes(), dtype=">i8").astype(np.int64)
    sources: dict[int, int] = {}
    blocks: dict[int, list[NDArray[Any]]] = {}
    for kind in rows(tx, "SELECT is_packed, sum(records) AS records FROM sealed.row_parts GROUP BY is_packed"):
        for block in _cells_of(tx, np.unique(keys >> 48) if kind.is_packed else keys, kind.is_packed, kind.records):
            read = np.frombuffer(block.cells, dtype=_CELL)
            near = np.searchsorted(values, read["token"]).clip(0, len(values) - 1)
            is_shared = values[near] == read["token"]  # others come with them
            if is_shared.any():
                sources[block.id] = block.source_id
                blocks.setdefault(block.id, []).append(read[is_shared])
    cells = np.concatenate([np.zeros(0, dtype=_CELL), *(one for part in blocks.values() for one in part)])
    parts = np.repeat(np.arange(len(blocks)), [sum(map(len, part)) for part in blocks.values()])
    return SharedValues(
        np.array([sources[part] for part in blocks], dtype=np.int64),
        parts,
        cells["token"].astype(np.uint64),
        cells["row"].astype(np.int64),
    )


def _cells_of(tx: Connection, keys: NDArray[np.int64], is_packed: bool, records: int) -> Iterator[Row[Any]]:
    """Yield the cells with these keys by part; a part may come several times, with other keys each time."""
    if not is_packed and len(keys) > records:  # reading all of them is cheaper
        yield from rows(tx, _OF_PARTS.format("sealed.row_values"), is_packed=is_packed)
        return
    at_once = _PREFIXES_AT_ONCE if is_packed else _ROWS_AT_ONCE
    for start in range(0, len(keys), at_once):
        part = keys[start : start + at_once].tolist()
        yield from rows(tx, _OF_PARTS.format(_PROBED), is_packed=is_packed, keys=part)


def states_of(tx: Connection, ids: Sequence[bytes]) -> dict[bytes, tuple[int, bool]]:
    """Study and whether sealed of each of these rows that is registered."""
    found: dict[bytes, tuple[int, bool]] = {}
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        part = rows(
            tx,
            "SELECT r.id, s.study_id, r.state = 'sealed' AS is_sealed FROM sealed.registry r "
            "JOIN sealed.row_sources s ON s.id = r.source_id WHERE r.id = ANY (:ids)",
            ids=list(ids[start : start + _ROWS_AT_ONCE]),
        )
        found |= {bytes(r.id): (int(r.study_id), bool(r.is_sealed)) for r in part}
    return found


def add_source(tx: Connection, study_id: int, names: NDArray[np.uint64]) -> int:
    """The source of a study with these columns; the one that is there, or a new one."""
    packed = pack(names)
    found = scalar(
        tx, "SELECT id FROM sealed.row_sources WHERE study_id = :study AND names = :names", study=study_id, names=packed
    )
    if found is None:
        found = scalar(
            tx,
            "INSERT INTO sealed.row_sources (study_id, names) VALUES (:study, :names) RETURNING id",
            study=study_id,
            names=packed,
        )
    return int(found)


def add_rows(
    tx: Connection, source_id: int, ids: Sequence[bytes], tokens: NDArray[np.uint64], test_set_id: int | None
) -> None:
    """Register rows: sealed in a set, or open where ``test_set_id`` is None; registered rows stay as they are."""
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        change(
            tx,
            "INSERT INTO sealed.registry (id, source_id, state, test_set_id, tokens) "
            "SELECT id, :source, :state, :test_set, tokens "
            "FROM unnest(CAST(:ids AS bytea[]), CAST(:tokens AS bytea[])) AS r (id, tokens) "
            "ON CONFLICT ON CONSTRAINT registry_pkey DO NOTHING",
            source=source_id,
            state="open" if test_set_id is None else "sealed",
            test_set=test_set_id,
            ids=list(ids[part]),
            tokens=[row.tobytes() for row in np.ascontiguousarray(tokens[part], dtype="<u8")],
        )


def hold_rows(tx: Connection, ids: Iterable[bytes], test_set_id: int) -> None:
    """Note that a set holds rows that are registered for another one."""
    change(
        tx,
        "INSERT INTO sealed.row_holds (row_id, test_set_id) SELECT DISTINCT id, CAST(:test_set AS bigint) "
        "FROM unnest(CAST(:ids AS bytea[])) AS id ON CONFLICT ON CONSTRAINT row_holds_pkey DO NOTHING",
        ids=list(ids),
        test_set=test_set_id,
    )


def sources_of(tx: Connection, ids: Iterable[bytes]) -> set[int]:
    """Sources of these registered rows."""
    found = rows(tx, "SELECT DISTINCT source_id FROM sealed.registry WHERE id = ANY (:ids)", ids=list(ids))
    return {int(r.source_id) for r in found}


def forget_columns(tx: Connection, ids: Iterable[bytes], places: Sequence[int]) -> None:
    """Remove columns from the tokens of rows: each is a label of theirs in another study.

    The index of their sources is made anew once, even where there is no column to remove: so the time does not tell
    whether a column was found to be a label.
    """
    tokens = "tokens"
    for place in places:
        tokens = f"overlay({tokens} PLACING decode(repeat('00', 8), 'hex') FROM {8 * place + 1} FOR 8)"
    change(tx, f"UPDATE sealed.registry SET tokens = {tokens} WHERE id = ANY (:ids)", ids=list(ids))


def open_released(tx: Connection, test_set_id: int) -> None:
    """Open the rows of a released set, but for those that another set holds which is not released."""
    change(
        tx,
        "UPDATE sealed.registry r SET state = 'open' WHERE r.state = 'sealed' AND (r.test_set_id = :id OR r.id IN "
        "(SELECT row_id FROM sealed.row_holds WHERE test_set_id = :id)) AND NOT EXISTS (SELECT FROM work.test_sets t "
        "WHERE t.state <> 'released' AND (t.id = r.test_set_id OR t.id IN "
        "(SELECT h.test_set_id FROM sealed.row_holds h WHERE h.row_id = r.id)))",
        id=test_set_id,
    )


def unreleased_holder(tx: Connection, test_set_id: int) -> tuple[int, int] | None:
    """A set in use that holds rows of this one too, and how many; None without any."""
    found = rows(
        tx,
        "WITH held AS (SELECT id AS row_id, test_set_id FROM sealed.registry UNION "
        "SELECT row_id, test_set_id FROM sealed.row_holds) SELECT t.id, count(*) AS examples FROM held AS mine "
        "JOIN held AS theirs ON theirs.row_id = mine.row_id AND theirs.test_set_id <> mine.test_set_id "
        "JOIN work.test_sets t ON t.id = theirs.test_set_id AND t.state IN ('live', 'sealed') "
        "WHERE mine.test_set_id = :id GROUP BY t.id ORDER BY 2 DESC, t.id LIMIT 1",
        id=test_set_id,
    )
    return (int(found[0].id), int(found[0].examples)) if found else None


@dataclass(frozen=True, slots=True)
class Unregistered:
    """A study with data whose rows are not registered: it is from before there was a registry, or has public data.

    Attributes:
        study_id: Its number.
        source: Where its data comes from.
        data_version_id: Its newest data.
    """

    study_id: int
    source: str
    data_version_id: int


def unregistered(tx: Connection) -> list[Unregistered]:
    """Studies with data of which no row is registered, oldest first."""
    found = rows(
        tx,
        "SELECT s.id AS study_id, d.source, max(v.id) AS data_version_id FROM work.data_versions v "
        "JOIN work.studies s ON s.id = v.study_id JOIN work.data_sets d ON d.id = s.data_set_id "
        "WHERE NOT EXISTS (SELECT FROM sealed.row_sources r WHERE r.study_id = s.id) GROUP BY s.id, d.source "
        "ORDER BY s.id",
    )
    return [Unregistered(r.study_id, r.source, r.data_version_id) for r in found]


def sets_of(tx: Connection, study_id: int) -> list[tuple[int, bool, bool]]:
    """Number of each sealed set of a study, whether its examples were brought, and whether it is released."""
    found = rows(
        tx,
        "SELECT t.id, k.keys IS NOT NULL AS brought, t.state = 'released' AS released FROM work.test_sets t "
        "JOIN sealed.test_sets k ON k.id = t.id WHERE t.study_id = :id AND t.deleted_at IS NULL ORDER BY t.id",
        id=study_id,
    )
    return [(int(r.id), bool(r.brought), bool(r.released)) for r in found]


def sets_from_before(tx: Connection) -> set[int]:
    """Sets in use that were sealed before rows of their study were registered: no look-up has compared them."""
    found = rows(
        tx,
        "SELECT t.id FROM work.test_sets t JOIN sealed.test_sets k ON k.id = t.id WHERE t.state IN ('live', 'sealed') "
        "AND NOT EXISTS (SELECT FROM sealed.row_sources r WHERE r.study_id = t.study_id "
        "AND r.registered_at <= k.sealed_at)",
    )
    return {int(r.id) for r in found}


def count_refusals(tx: Connection, study_id: int, words: str) -> int:
    """Count the requests of the study's tenant that were refused with these words in the last 30 days."""
    return int(
        scalar(
            tx,
            "SELECT count(*) FROM work.answers a JOIN work.requests r ON r.id = a.request_id "
            "JOIN work.studies s ON s.id = r.study_id WHERE a.refused AND strpos(a.message, :words) > 0 "
            "AND a.answered_at > clock_timestamp() - interval '30 days' "
            "AND s.tenant_id = (SELECT tenant_id FROM work.studies WHERE id = :id)",
            words=words,
            id=study_id,
        )
    )
