"""The life of sealed sets, all public: planned, sealed, live, retired, released; and the hashes that identify examples.

The hash of an example is SHA-256 of the names, then of the values, of its columns that are not zero, in an order that
the names decide. Columns of a file may come in any order, and words become columns by their frequency in a table: with
hashes of values by place the same row could be released in one study while it is live in another. Hashes are stored:
another form would have to be computed again for all sets.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.entities import Model, SealedSetPurpose, SealedSetState
from easeml_core.errors import NotFoundError, ShapeError
from easeml_core.formats.encoding import typed_record
from easeml_core.settings.config import SetConfig, set_config
from easeml_core.store.rows import as_json, change, clean, records, row, rows, scalar
from easeml_core.store.tables.referee_claims import WORKED_ON

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Row


@typed_record
class PlannedSet:
    """A sealed set and what it was planned for.

    Attributes:
        id: Its number in the installation.
        purpose: Which systems draw on it.
        rows: Examples; while planned, how many are needed at least.
        steps: Answers that it can give.
        plan: What was fixed before its first answer.
        labels_on_demand: Whether people are asked for labels when a verdict needs them.
    """

    id: int
    purpose: SealedSetPurpose
    rows: int
    steps: int
    plan: SetConfig
    labels_on_demand: bool


@typed_record
class SealedSet(PlannedSet):
    """The public side of a set.

    Attributes:
        study_id: Whose it is.
        study: Name of that study.
        data_version_id: The data whose encoding it has.
        name: Its name in the study, or None.
        state: Where in its life it is.
        steps_used: Answers that were released so far.
        gate_steps_used: Those of the gate among them; the others are the meter's.
        retired_why: ``steps``, ``changes``, ``tolerance``, ``signals``, ``regulation``, ``failure``, ``by hand``; or
            None.
        artifact: The released examples, or None.
    """

    study_id: int
    study: str
    data_version_id: int
    name: str | None
    state: SealedSetState
    steps_used: int
    gate_steps_used: int
    retired_why: str | None
    artifact: str | None

    @property
    def called(self) -> str:
        """The display name: its name, else its number."""
        return self.name or str(self.id)


ON_THE_PLAN = "(v.planned OR t.purpose = 'joint' OR NOT jsonb_exists(t.plan, 'other_conditions'))"
"""True of a verdict ``v`` on the set ``t`` that has used a step. Sets without the setting let every answer use one."""

_SET = f"""
SELECT t.id, t.study_id, s.name AS study, t.data_version_id, t.name, t.purpose, t.state, t.rows, t.steps,
       (SELECT coalesce(max(step), 0) FROM work.gate_verdicts v WHERE v.test_set_id = t.id AND {ON_THE_PLAN})
         + (SELECT coalesce(max(step), 0) FROM work.meter_readings r WHERE r.test_set_id = t.id)
         + (SELECT count(DISTINCT (m.format, m.artifact, r.team, r.data_version_id)) FROM work.meter_readings r
            JOIN work.models m ON m.id = r.model_id WHERE r.direct_test_set_id = t.id) AS steps_used,
       (SELECT coalesce(max(step), 0) FROM work.gate_verdicts v WHERE v.test_set_id = t.id AND {ON_THE_PLAN})
         AS gate_steps_used,
       t.plan, t.labels_on_demand, t.retired_why, t.artifact
FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id
"""


def list_sets(tx: Connection, study_id: int | None = None) -> list[SealedSet]:
    """The sets of a study, or of all, newest first."""
    found = rows(
        tx,
        _SET + "WHERE t.deleted_at IS NULL AND (:id IS NULL OR t.study_id = CAST(:id AS bigint)) ORDER BY t.id DESC",
        id=study_id,
    )
    return [_set(r) for r in found]


def get_set(tx: Connection, test_set_id: int) -> SealedSet:
    """The set with this id."""
    found = row(tx, _SET + "WHERE t.id = :id", id=test_set_id)
    if found is None:
        raise NotFoundError(kind="test set with id", name=test_set_id, remedy="see `easeml test-set list`")
    return _set(found)


def find_set(tx: Connection, handle: str | int, study_id: int | None = None) -> SealedSet:
    """The set of this name or number."""
    found = rows(
        tx,
        _SET + "WHERE t.deleted_at IS NULL AND (t.id::text = :handle OR (t.name = :handle AND :may_be_name)) "
        "AND (:id IS NULL OR t.study_id = CAST(:id AS bigint)) ORDER BY (t.name = :handle) DESC NULLS LAST, t.id",
        handle=str(handle),
        may_be_name=isinstance(handle, str),
        id=study_id,
    )
    named = [r for r in found if r.name == handle]
    if not found or len(named) > 1:
        remedy = "several studies have one; say which with --study" if named else "see `easeml test-set list`"
        raise NotFoundError(kind="single test set" if named else "test set", name=handle, remedy=remedy)
    return _set(found[0])


def set_named(tx: Connection, study_id: int, name: str) -> SealedSet | None:
    """The study's set of this name, or None."""
    found = row(tx, _SET + "WHERE t.study_id = :id AND t.name = :name", id=study_id, name=name)
    return None if found is None else _set(found)


def _set(found: Row[Any]) -> SealedSet:
    return SealedSet(**dict(found._mapping) | read_plan(found) | {"state": SealedSetState(found.state)})


def read_plan(found: Row[Any]) -> dict[str, SealedSetPurpose | SetConfig]:
    """Purpose and plan of a row of ``work.test_sets``; how the plan is read depends on the purpose."""
    purpose = SealedSetPurpose(found.purpose)
    return {"purpose": purpose, "plan": set_config(purpose, found.plan)}


def add_planned(
    tx: Connection,
    *,
    study_id: int,
    data_version_id: int,
    purpose: SealedSetPurpose,
    name: str,
    rows: int,
    steps: int,
    plan: SetConfig,
) -> int:
    """Say that a set is needed; its id. ``rows`` is how many examples at least."""
    return int(
        scalar(
            tx,
            "INSERT INTO work.test_sets (study_id, data_version_id, purpose, state, name, rows, steps, plan) VALUES "
            "(:study_id, :version, :purpose, 'planned', :name, :rows, :steps, CAST(:plan AS jsonb)) RETURNING id",
            study_id=study_id,
            version=data_version_id,
            purpose=purpose,
            name=name,
            rows=rows,
            steps=steps,
            plan=as_json(plan.to_json()),
        )
    )


def retire(tx: Connection, test_set_id: int, why: str) -> bool:
    """End the life of a set, whatever is left of it; False when it has ended already."""
    return bool(
        change(
            tx,
            "UPDATE work.test_sets SET state = 'retired', retired_at = clock_timestamp(), retired_why = :why "
            "WHERE id = :id AND state IN ('planned', 'sealed', 'live')",
            id=test_set_id,
            why=why,
        )
    )


def release(tx: Connection, test_set_id: int, artifact: str) -> None:
    """Publish a retired set: the artifact holds its examples from now on."""
    change(
        tx,
        "UPDATE work.test_sets SET state = 'released', artifact = :artifact WHERE id = :id AND state = 'retired'",
        id=test_set_id,
        artifact=artifact,
    )


def delete(tx: Connection, test_set_id: int, why: str) -> bool:
    """Delete what is sealed in a set that never served; False where it was deleted before."""
    return bool(scalar(tx, "SELECT sealed.delete_set(:id, :why)", id=test_set_id, why=why))


def deleted_set(tx: Connection, handle: str | int) -> SealedSet | None:
    """The deleted set of this number; None where there is none."""
    found = row(tx, _SET + "WHERE t.deleted_at IS NOT NULL AND t.id::text = :handle", handle=str(handle))
    return None if found is None else _set(found)


def serves(purpose: SealedSetPurpose) -> set[SealedSetPurpose]:
    """Return the systems that draw on a set of this purpose: gate and meter both on a joint one."""
    return {SealedSetPurpose.GATE, SealedSetPurpose.METER} if purpose == SealedSetPurpose.JOINT else {purpose}


def _rivals(purpose: SealedSetPurpose) -> list[str]:
    """The purposes of sets that cannot be live beside one of this purpose: one of those it serves is served already."""
    return [str(other) for other in SealedSetPurpose if serves(other) & serves(purpose)]


def is_served(tx: Connection, study_id: int, purpose: SealedSetPurpose) -> bool:
    """Whether a live set stands in the way of a new live one of this purpose."""
    found = scalar(
        tx,
        "SELECT EXISTS (SELECT 1 FROM work.test_sets WHERE study_id = :id AND state = 'live' "
        "AND purpose = ANY (:rivals))",
        id=study_id,
        rivals=_rivals(purpose),
    )
    return bool(found)


def promote_oldest(tx: Connection, study_id: int, purpose: SealedSetPurpose) -> int | None:
    """Let the set that was sealed first become live, of those that can take the place of one of this purpose.

    After a joint set, sets for the gate or for the meter alone can; after one of these a joint set, once the other has
    ended too. A set that would still meet a live one is passed over.
    """
    waiting = rows(
        tx,
        "SELECT t.id, t.purpose FROM work.test_sets t JOIN sealed.test_sets k ON k.id = t.id WHERE t.study_id = :id "
        "AND t.purpose = ANY (:rivals) AND t.state = 'sealed' ORDER BY k.sealed_at, t.id",
        id=study_id,
        rivals=_rivals(purpose),
    )
    for found in waiting:
        if not is_served(tx, study_id, SealedSetPurpose(found.purpose)):
            change(tx, "UPDATE work.test_sets SET state = 'live' WHERE id = :id", id=found.id)
            return int(found.id)
    return None


def waiting_before(tx: Connection, found: SealedSet) -> list[SealedSet]:
    """Sets that wait, were sealed before this one, and can be live only without it; the first one first."""
    ids = rows(
        tx,
        "SELECT t.id FROM work.test_sets t JOIN sealed.test_sets k ON k.id = t.id, sealed.test_sets own "
        "WHERE own.id = :id AND t.study_id = :study_id AND t.purpose = ANY (:rivals) AND t.state = 'sealed' "
        "AND (k.sealed_at, k.id) < (own.sealed_at, own.id) ORDER BY k.sealed_at, k.id",
        id=found.id,
        study_id=found.study_id,
        rivals=_rivals(found.purpose),
    )
    return [get_set(tx, r.id) for r in ids]


def live_sets(tx: Connection) -> list[tuple[int, int]]:
    """Study and set of every live set of the studies that are not archived, the newest set first."""
    found = rows(
        tx,
        "SELECT t.study_id, t.id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id "
        "WHERE t.state = 'live' AND s.state <> 'ARCHIVED' ORDER BY t.id DESC",
    )
    return [(r.study_id, r.id) for r in found]


def set_with_fingerprint(tx: Connection, fingerprint: str) -> SealedSet | None:
    """The set of exactly these examples, in any study, or None; for the referee's role."""
    found = scalar(tx, "SELECT id FROM sealed.test_sets WHERE fingerprint = :fingerprint", fingerprint=fingerprint)
    return None if found is None else get_set(tx, found)


def tenants_sets_with(tx: Connection, study_id: int, hashes: Sequence[bytes]) -> dict[bytes, int]:
    """Which of the examples lie in a set of this study's tenant: hash to set; for the referee's role."""
    found = rows(
        tx,
        "SELECT e.hash, min(e.test_set_id) AS id FROM sealed.examples e JOIN work.studies s ON s.id = e.study_id "
        "WHERE e.hash = ANY (:hashes) AND s.tenant_id = (SELECT tenant_id FROM work.studies WHERE id = :id) "
        "GROUP BY e.hash",
        hashes=list(hashes),
        id=study_id,
    )
    return {bytes(r.hash): int(r.id) for r in found}


def unseen_models(
    tx: Connection, study_id: int, test_set_id: int, *, limit: int, unless_worked_on: bool = False
) -> list[Model]:
    """Models whose past the set should know and does not: production, baseline, then the judged, newest first."""
    return records(
        tx,
        Model,
        "WITH wanted AS (SELECT model_id AS id, 0 AS turn FROM work.production WHERE study_id = :study "
        "UNION ALL (SELECT m.id, 1 FROM work.models m JOIN work.data_versions v ON v.id = m.data_version_id "
        "WHERE m.study_id = :study AND m.trial_id IS NULL AND NOT m.submitted ORDER BY v.version DESC LIMIT 1) "
        "UNION ALL SELECT model_id, 2 FROM work.gate_verdicts WHERE study_id = :study "
        "UNION ALL SELECT model_id, 2 FROM work.meter_readings WHERE study_id = :study) "
        "SELECT m.id, m.study_id, m.trial_id, m.format, m.artifact, m.validation_loss FROM work.models m "
        "JOIN (SELECT id, min(turn) AS turn FROM wanted GROUP BY id) w ON w.id = m.id WHERE NOT EXISTS "
        "(SELECT 1 FROM sealed.predictions p WHERE p.test_set_id = :set AND p.model = m.format || ' ' || m.artifact) "
        f"AND NOT (:unless_worked_on AND {WORKED_ON}) "
        "ORDER BY w.turn, m.id DESC LIMIT :limit",
        study=study_id,
        set=test_set_id,
        limit=limit,
        unless_worked_on=unless_worked_on,
    )


_CELLS_AT_ONCE = 2_000_000


def example_hashes(inputs: NDArray[Any], names: Sequence[str] | None) -> list[bytes]:
    """SHA-256 of every example, the same for the same named values in any order.

    Example:
        >>> one = example_hashes(np.array([[1.0, 0.0, 5.0]]), ["region=south", "region=west", "age"])
        >>> one == example_hashes(np.array([[5.0, 1.0]]), ["age", "region=south"])
        True
    """
    flat = np.asarray(inputs, dtype="<f4").reshape(len(inputs), -1)
    width = flat.shape[1]
    if names is not None and len(names) != width:
        raise ShapeError(name="names", got=(len(names),), expected=f"({width},)")
    keys = np.array(
        [_key(f"\0{place}" if names is None else clean(names[place])) for place in range(width)], dtype=np.uint64
    )
    order = np.argsort(keys, kind="stable")
    return list(_hashes(flat, keys[order], order))


def _key(name: str) -> int:
    """A name as 8 bytes. Names of one key make rows look alike that are not: these are refused, and never let in."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _hashes(flat: NDArray[np.float32], keys: NDArray[np.uint64], order: NDArray[np.intp]) -> Iterator[bytes]:
    """Hashes of the rows; ``keys`` are sorted, ``order`` is the place of each of them in a row."""
    keys = keys.astype("<u8")
    of_all = hashlib.sha256(keys.tobytes())
    at_once = max(1, _CELLS_AT_ONCE // max(1, len(keys)))
    for start in range(0, len(flat), at_once):
        block = flat[start : start + at_once].take(order, axis=1)
        block[np.isnan(block)] = np.nan  # one bit pattern for every NaN
        counts = np.count_nonzero(block, axis=1)
        for example, count in zip(block, counts, strict=True):
            if count == len(keys):
                digest = of_all.copy()
                digest.update(example.tobytes())
            else:
                places = np.flatnonzero(example)
                digest = hashlib.sha256(keys.take(places).tobytes())
                digest.update(example.take(places).tobytes())
            yield digest.digest()
