"""The sealed side, as rows: sets, the models' predictions on them, the ledger. Only the referee's role can read it."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import text

from easeml_core.entities import JsonObject, SealedSetState
from easeml_core.errors import NotFoundError, ShapeError
from easeml_core.store.rows import as_json, change, clean, filler, pack, row, rows, scalar, unpack
from easeml_core.store.tables import chain, studies
from easeml_core.store.tables.chained_rows import LEDGER, of_set
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.entities import SealedSetPurpose
    from easeml_core.settings.config import SetConfig


def installation_secret(tx: Connection) -> bytes:
    """Return the secret that makes the split of data unpredictable to all but the referee, and repeatable."""
    return str(scalar(tx, "SELECT secret FROM sealed.installation")).encode()


def private_channel(tx: Connection) -> str:
    """Return the NOTIFY channel of the referee's side; its name is secret, since every role may listen to any name.

    How often labels come reveals labels where looking stops early.
    """
    return f"easeml_{hashlib.sha256(b'channel' + installation_secret(tx)).hexdigest()[:32]}"


def fixed_order(tx: Connection, hashes: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the order of a set's examples: random to all but the referee, and the same at every repetition.

    By the keyed hash of each example (HMAC-SHA-256 with the installation's secret): independent of the order and time
    of upload.
    """
    secret = installation_secret(tx)
    keyed = [hmac.digest(secret, b"order|" + example, "sha256") for example in hashes]
    return np.array(sorted(range(len(keyed)), key=keyed.__getitem__), dtype=np.int64)


def fingerprint(hashes: Sequence[bytes]) -> str:
    """Return the SHA-256 (hex) of a set's examples in any order, without labels and names."""
    return hashlib.sha256(b"".join(sorted(hashes))).hexdigest()


def seal(
    tx: Connection,
    *,
    study_id: int,
    data_version_id: int,
    purpose: SealedSetPurpose,
    inputs: NDArray[Any],
    labels: NDArray[Any],
    steps: int,
    plan: SetConfig,
    state: SealedSetState = SealedSetState.LIVE,
    name: str | None = None,
    labels_on_demand: bool = False,
    keys: Sequence[str] | None = None,
    slices: NDArray[np.int64] | None = None,
) -> int:
    """Seal a set: content in ``sealed``, size and plan in ``work``; its id.

    A row of ``work.test_sets`` that was planned under this name is filled; its plan and steps stay.
    """
    if len(inputs) != len(labels):
        raise ShapeError(name="labels", got=labels.shape, expected=f"({len(inputs)},)")
    hashes = example_hashes(inputs, studies.feature_names(tx, data_version_id))
    set_id = int(
        scalar(
            tx,
            "INSERT INTO work.test_sets (study_id, data_version_id, purpose, rows, steps, plan, state, name, "
            "labels_on_demand) VALUES (:study_id, :data_version_id, :purpose, :rows, :steps, CAST(:plan AS jsonb), "
            ":state, :name, :on_demand) ON CONFLICT ON CONSTRAINT test_sets_name_key DO UPDATE SET rows = :rows, "
            "data_version_id = :data_version_id, state = :state, labels_on_demand = :on_demand RETURNING id",
            study_id=study_id,
            data_version_id=data_version_id,
            purpose=purpose,
            rows=len(inputs),
            steps=steps,
            plan=as_json(plan.to_json()),
            state=state,
            name=name,
            on_demand=labels_on_demand,
        )
    )
    change(
        tx,
        "INSERT INTO sealed.test_sets (id, steps, fingerprint, inputs, labels, keys, slices) "
        "VALUES (:id, :steps, :fingerprint, :inputs, :labels, CAST(:keys AS jsonb), :slices)",
        id=set_id,
        steps=steps,
        fingerprint=fingerprint(hashes),
        inputs=pack(inputs),
        labels=pack(labels),
        keys=None if keys is None else as_json(list(keys)),
        slices=None if slices is None else pack(slices),
    )
    change(
        tx,
        "INSERT INTO sealed.examples (study_id, hash, test_set_id) "
        "SELECT :study_id, hash, :id FROM unnest(CAST(:hashes AS bytea[])) AS hash",
        study_id=study_id,
        id=set_id,
        hashes=hashes,
    )
    chain.open_chain(tx, of_set(set_id))
    return set_id


def sealed_for_others(tx: Connection, study_id: int, hashes: Sequence[bytes]) -> int:
    """Count the examples in sealed sets of other tenants' studies."""
    found = scalar(
        tx,
        "SELECT count(DISTINCT e.hash) FROM sealed.examples e JOIN work.studies s ON s.id = e.study_id "
        "WHERE e.hash = ANY (:hashes) AND s.tenant_id <> (SELECT tenant_id FROM work.studies WHERE id = :study_id)",
        study_id=study_id,
        hashes=list(hashes),
    )
    return int(found)


def sealed_by_tenant(tx: Connection, study_id: int, hashes: Sequence[bytes]) -> dict[str, int]:
    """Count the examples in sets of each other study of this study's tenant, whatever their state."""
    found = rows(
        tx,
        "SELECT s.name, count(*) AS examples FROM sealed.examples e JOIN work.studies s ON s.id = e.study_id "
        "WHERE e.hash = ANY (:hashes) AND s.id <> :study_id "
        "AND s.tenant_id = (SELECT tenant_id FROM work.studies WHERE id = :study_id) "
        "GROUP BY s.name ORDER BY 2 DESC, s.name",
        study_id=study_id,
        hashes=list(hashes),
    )
    return {r.name: int(r.examples) for r in found}


def in_use_elsewhere(tx: Connection, test_set_id: int) -> tuple[int, int] | None:
    """The set in use, of any tenant, that shares most examples with this one, and how many; None without any.

    In use is one that is live or waits to be. Those of this set's tenant come first.
    """
    found = row(
        tx,
        "SELECT o.test_set_id AS id, count(*) AS examples FROM sealed.examples e "
        "JOIN sealed.examples o ON o.hash = e.hash AND o.test_set_id <> e.test_set_id "
        "JOIN work.test_sets t ON t.id = o.test_set_id AND t.state IN ('live', 'sealed') "
        "JOIN work.studies theirs ON theirs.id = o.study_id JOIN work.studies ours ON ours.id = e.study_id "
        "WHERE e.test_set_id = :id GROUP BY o.test_set_id "
        "ORDER BY bool_or(theirs.tenant_id = ours.tenant_id) DESC, 2 DESC, o.test_set_id LIMIT 1",
        id=test_set_id,
    )
    return None if found is None else (int(found.id), int(found.examples))


def sealed_inputs(tx: Connection, test_set_id: int) -> NDArray[Any]:
    """Inputs of a sealed set, shape ``(n_examples, ...)``."""
    return unpack(scalar(tx, "SELECT inputs FROM sealed.test_sets WHERE id = :id", id=test_set_id))


def inputs_and_secret(tx: Connection, test_set_id: int) -> tuple[NDArray[Any], bytes]:
    """Return ``sealed_inputs`` and ``installation_secret``, read at once: what a run on a sealed set needs."""
    found = row(
        tx,
        "SELECT inputs, (SELECT secret FROM sealed.installation) AS secret FROM sealed.test_sets WHERE id = :id",
        id=test_set_id,
    )
    if found is None:
        raise NotFoundError(kind="sealed set with id", name=test_set_id)
    return unpack(found.inputs), str(found.secret).encode()


def sealed_labels(tx: Connection, test_set_id: int) -> NDArray[Any]:
    """Labels of a sealed set, shape ``(n_examples,)``."""
    return unpack(scalar(tx, "SELECT labels FROM sealed.test_sets WHERE id = :id", id=test_set_id))


def is_sealed(tx: Connection, test_set_id: int) -> bool:
    """Whether the set holds examples; one that is only planned does not."""
    return bool(scalar(tx, "SELECT EXISTS (SELECT 1 FROM sealed.test_sets WHERE id = :id)", id=test_set_id))


def sealed_keys(tx: Connection, test_set_id: int) -> list[str]:
    """Names of the examples in their order: the uploader's, or their places from 0 where the study's data was split."""
    found = row(
        tx,
        "SELECT s.keys, t.rows FROM sealed.test_sets s JOIN work.test_sets t ON t.id = s.id WHERE s.id = :id",
        id=test_set_id,
    )
    if found is None:
        raise NotFoundError(kind="sealed set with id", name=test_set_id)
    return [str(place) for place in range(found.rows)] if found.keys is None else list(found.keys)


def sealed_slices(tx: Connection, test_set_id: int) -> NDArray[np.int64] | None:
    """Place of every example's slice in the plan, -1 for none, shape ``(n_examples,)``; None for a set without."""
    found = scalar(tx, "SELECT slices FROM sealed.test_sets WHERE id = :id", id=test_set_id)
    return None if found is None else unpack(found)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """A model's predictions on a set, or why it failed.

    Attributes:
        labels: Shape ``(n_examples,)``; None where it could not.
        failure: Why it could not, for the referee; None where it could.
    """

    labels: NDArray[Any] | None
    failure: str | None


def known_predictions(tx: Connection, test_set_id: int, *models: str) -> dict[str, Predictions]:
    """Return models' predictions on the set, by ``Model.identity``; one that was not run yet is left out."""
    found = rows(
        tx,
        "SELECT model, labels, rtrim(failure) AS failure FROM sealed.predictions "
        "WHERE test_set_id = :id AND model = ANY (:models)",
        id=test_set_id,
        models=list(models),
    )
    return {r.model: Predictions(None if r.labels is None else unpack(r.labels), r.failure) for r in found}


def keep_predictions(
    tx: Connection,
    test_set_id: int,
    model: str,
    *,
    labels: NDArray[Any] | None,
    failure: str | None,
    isolation: JsonObject | None = None,
) -> None:
    """Store the artifact's predictions on the set, or why it failed, and how its process was isolated.

    Existing predictions stay: of a model that is not deterministic, the first answer counts. A short failure is kept
    with blanks behind it: shorter than 25 bytes, it would stay in the row.
    """
    packed = None if labels is None else pack(labels)
    why = None if failure is None else clean(failure).ljust(32)
    change(
        tx,
        "INSERT INTO sealed.predictions (test_set_id, model, labels, failure, isolation, filler) "
        f"VALUES (:id, :model, :labels, :failure, CAST(:isolation AS jsonb), {filler(':size')}) ON CONFLICT ON "
        "CONSTRAINT predictions_pkey DO NOTHING",
        id=test_set_id,
        model=model,
        labels=packed,
        failure=why,
        size=len(packed or (why or "").encode()),
        isolation=None if isolation is None else as_json(isolation),
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
    report: JsonObject,
    is_change: bool = False,
    open_ended: bool = False,
    system: str,
    system_step: int | None = None,
    system_steps: int | None = None,
) -> None:
    """Write one answer into the append-only ledger and its hash chain, with the full report for the referee.

    ``is_change`` marks an answer of the kind that costs (``stats/adaptivity.py``), ``open_ended`` one of a set that has
    no last step.

    ``system`` is ``gate``, ``meter`` or ``other`` (``store/tables/ledger.py``); ``system_step`` and ``system_steps``
    count its answers alone, where several share the set (None: they are ``step`` and ``steps``).
    """
    entry_id = scalar(
        tx,
        "INSERT INTO sealed.ledger (test_set_id, step, steps, request_id, cache_key, answer, log_level, log_cost, "
        "tolerance, report, is_change, open_ended, system, system_step, system_steps, filler) VALUES (:test_set_id, "
        ":step, :steps, :request_id, :cache_key, :answer, :log_level, :log_cost, :tolerance, CAST(:report AS jsonb), "
        ":is_change, :open_ended, :system, :system_step, :system_steps, "
        f"{filler('pg_column_size(CAST(:report AS jsonb))')}) RETURNING id",
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
        is_change=is_change,
        open_ended=open_ended,
        system=system,
        system_step=step if system_step is None else system_step,
        system_steps=steps if system_steps is None else system_steps,
    )
    chain.append(tx, of_set(test_set_id), LEDGER, subject=int(entry_id))
