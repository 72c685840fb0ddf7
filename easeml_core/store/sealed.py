"""The sealed side, as rows: sets, the models' predictions on them, the ledger. Only the referee's role can read it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import text

from easeml_core.errors import ShapeError
from easeml_core.store.rows import as_json, change, clean, pack, row, scalar, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Row

    from easeml_core.entities import SealedSetPurpose


def installation_secret(tx: Connection) -> bytes:
    """What makes the split of data unpredictable to anybody but the referee, yet the same when it is repeated."""
    return str(scalar(tx, "SELECT secret FROM sealed.installation")).encode()


def example_hashes(inputs: NDArray[Any]) -> list[bytes]:
    """SHA-256 of every example; ``inputs`` has shape ``(n_examples, ...)``."""
    flat = np.ascontiguousarray(inputs).reshape(len(inputs), -1)
    return [hashlib.sha256(example.tobytes()).digest() for example in flat]


def seal(
    tx: Connection,
    *,
    study_id: int,
    data_version_id: int,
    purpose: SealedSetPurpose,
    inputs: NDArray[Any],
    labels: NDArray[Any],
    steps: int,
    plan: Mapping[str, Any],
) -> int:
    """Seal a set: content in ``sealed``, size and plan in ``work``; its id.

    Args:
        tx: Transaction of the referee's role.
        study_id: The study it belongs to.
        data_version_id: The data it was cut from.
        purpose: The one system that may draw on it.
        inputs: Shape ``(n_examples, ...)``.
        labels: Shape ``(n_examples,)``.
        steps: Answers that the set must serve, >= 1.
        plan: What was planned before the first answer; everybody may read it.

    Raises:
        ShapeError: Inputs and labels do not have the same length.
        AlreadyExistsError: Some of the examples lie in a sealed set already (when the statement runs).
    """
    if len(inputs) != len(labels):
        raise ShapeError(name="labels", got=labels.shape, expected=f"({len(inputs)},)")
    hashes = example_hashes(inputs)
    set_id = int(
        scalar(
            tx,
            "INSERT INTO work.test_sets (study_id, data_version_id, purpose, rows, steps, plan) "
            "VALUES (:study_id, :data_version_id, :purpose, :rows, :steps, CAST(:plan AS jsonb)) RETURNING id",
            study_id=study_id,
            data_version_id=data_version_id,
            purpose=purpose,
            rows=len(inputs),
            steps=steps,
            plan=as_json(plan),
        )
    )
    change(
        tx,
        "INSERT INTO sealed.test_sets (id, steps, fingerprint, inputs, labels) "
        "VALUES (:id, :steps, :fingerprint, :inputs, :labels)",
        id=set_id,
        steps=steps,
        fingerprint=hashlib.sha256(b"".join(sorted(hashes))).hexdigest(),
        inputs=pack(inputs),
        labels=pack(labels),
    )
    change(
        tx,
        "INSERT INTO sealed.examples (study_id, hash, test_set_id) "
        "SELECT :study_id, hash, :id FROM unnest(CAST(:hashes AS bytea[])) AS hash",
        study_id=study_id,
        id=set_id,
        hashes=hashes,
    )
    return set_id


def sealed_for_others(tx: Connection, study_id: int, hashes: Sequence[bytes]) -> int:
    """How many of the examples lie in a sealed set of another tenant's study."""
    found = scalar(
        tx,
        "SELECT count(DISTINCT e.hash) FROM sealed.examples e JOIN work.studies s ON s.id = e.study_id "
        "WHERE e.hash = ANY (:hashes) AND s.tenant_id <> (SELECT tenant_id FROM work.studies WHERE id = :study_id)",
        study_id=study_id,
        hashes=list(hashes),
    )
    return int(found)


def sealed_inputs(tx: Connection, test_set_id: int) -> NDArray[Any]:
    """Inputs of a sealed set, shape ``(n_examples, ...)``."""
    return unpack(scalar(tx, "SELECT inputs FROM sealed.test_sets WHERE id = :id", id=test_set_id))


def sealed_labels(tx: Connection, test_set_id: int) -> NDArray[Any]:
    """Labels of a sealed set, shape ``(n_examples,)``."""
    return unpack(scalar(tx, "SELECT labels FROM sealed.test_sets WHERE id = :id", id=test_set_id))


def known_predictions(tx: Connection, test_set_id: int, model: str) -> tuple[NDArray[Any] | None, str | None] | None:
    """What the model (``Model.identity``) predicted on the set, or why it could not; None when it was not run yet."""
    found = row(
        tx,
        "SELECT labels, failure FROM sealed.predictions WHERE test_set_id = :id AND model = :model",
        id=test_set_id,
        model=model,
    )
    if found is None:
        return None
    return (None if found.labels is None else unpack(found.labels)), found.failure


def keep_predictions(
    tx: Connection, test_set_id: int, model: str, *, labels: NDArray[Any] | None, failure: str | None
) -> None:
    """Keep what the artifact predicted on the set, or why it could not."""
    change(
        tx,
        "INSERT INTO sealed.predictions (test_set_id, model, labels, failure) VALUES (:id, :model, :labels, :failure)",
        id=test_set_id,
        model=model,
        labels=None if labels is None else pack(labels),
        failure=None if failure is None else clean(failure),
    )


def cached_entry(tx: Connection, test_set_id: int, cache_key: str) -> Row[Any] | None:
    """Ledger entry of an answer given before to the very same question, or None."""
    return row(
        tx,
        "SELECT step, answer FROM sealed.ledger WHERE test_set_id = :id AND cache_key = :key",
        id=test_set_id,
        key=cache_key,
    )


def spent(tx: Connection, test_set_id: int) -> tuple[int, float]:
    """Steps used so far and the sum of their log costs."""
    found = tx.execute(
        text("SELECT count(*), coalesce(sum(log_cost), 0) FROM sealed.ledger WHERE test_set_id = :id"),
        {"id": test_set_id},
    ).one()
    return int(found[0]), float(found[1])


def add_entry(
    tx: Connection,
    *,
    test_set_id: int,
    step: int,
    steps: int,
    request_id: int,
    cache_key: str,
    answer: str,
    log_level: float,
    log_cost: float,
    tolerance: float | None,
    report: Mapping[str, Any],
) -> None:
    """Write one answer into the append-only ledger, with the full report for the referee.

    Raises:
        BudgetExhaustedError: The set has no such step (when the transaction ends).
    """
    change(
        tx,
        "INSERT INTO sealed.ledger (test_set_id, step, steps, request_id, cache_key, answer, log_level, log_cost, "
        "tolerance, report) VALUES (:test_set_id, :step, :steps, :request_id, :cache_key, :answer, :log_level, "
        ":log_cost, :tolerance, CAST(:report AS jsonb))",
        test_set_id=test_set_id,
        step=step,
        steps=steps,
        request_id=request_id,
        cache_key=cache_key,
        answer=answer,
        log_level=log_level,
        log_cost=log_cost,
        tolerance=tolerance,
        report=as_json(report),
    )


def ledger(tx: Connection, test_set_id: int) -> list[dict[str, Any]]:
    """All entries of a set's ledger, in order: the referee's view."""
    found = tx.execute(
        text(
            "SELECT step, request_id, answer, log_level, log_cost, tolerance, report, decided_at FROM sealed.ledger "
            "WHERE test_set_id = :id ORDER BY step"
        ),
        {"id": test_set_id},
    )
    return [dict(r._mapping) for r in found]
