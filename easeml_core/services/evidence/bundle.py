"""Signed bundles of one verdict: what a third party needs to check it without any database.

A bundle is an in-toto Statement v1 in a DSSE envelope. Its subject is the model's file by its SHA-256; its predicate is
the verdict with its entry of the hash chain. The full one adds condition, plan, level, counts, the hashes of set,
models and predictions, the chain from its beginning, and, where the level follows from them, earlier answers. Counts
and levels depend on labels, so a full bundle is the referee's alone while the set lives; the redacted one is public.
"""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.entities import Adaptivity
from easeml_core.errors import NotFoundError, StateError
from easeml_core.formats.attestation import seal_envelope, statement
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.judge import Slice, looks_of_submission
from easeml_core.metrics.metric import as_classes
from easeml_core.services.evidence.keys import KeyFolder
from easeml_core.store.roles import REFEREE
from easeml_core.store.tables import chain as chains
from easeml_core.store.tables import chained_rows, labels, requests, sealed, studies
from easeml_core.store.tables.chained_rows import LEDGER, VERDICT, of_set

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from easeml_core.entities import JsonObject
    from easeml_core.store.database import Store
    from easeml_core.store.tables.chain import Entry, PublishedHead
    from easeml_core.store.tables.chained_rows import SignedVerdict

FULL = "https://ease.ml/attestation/gate-verdict/v1"
REDACTED = "https://ease.ml/attestation/gate-verdict-redacted/v1"


def redacted(tx: Connection, *, request_id: int, test_set_id: int) -> JsonObject | None:
    """The bundle that leaves with a verdict, just after its entry was appended; None where nothing is signed.

    It holds the verdict's row, its nonce and its link: nothing of the ledger, and no hash of labels.
    """
    key, name = chains.signing_key(), of_set(test_set_id)
    if key is None:
        return None
    verdict = chained_rows.row_facts(tx, name, VERDICT, [request_id])[request_id]
    entry = chains.entry_of(tx, name, VERDICT, request_id)
    assert entry is not None  # the caller has just appended it
    content = {"version": 1, "verdict": _opened(entry, verdict), "chain": [_signed(entry)], "head": entry.hash.hex()}
    return seal_envelope(_statement(verdict, REDACTED, content), key)


def evidence_of(
    store: Store, *, model_id: int, keys: Path, request_id: int | None = None
) -> tuple[JsonObject, str | None]:
    """The bundle of the last verdict on a model, or of the one that was asked for."""
    with store.begin() as tx:
        found = chained_rows.verdict_of_model(tx, model_id, request_id)
        if found is None:
            kind = "gate verdict on model"
            raise NotFoundError(kind, model_id, remedy="see `easeml model list STUDY`")
        if requests.role(tx) != REFEREE:
            if found.envelope is None:
                message = (
                    f"the verdict of request {found.request_id} left without a signature: it is older than the "
                    "evidence, or its referee had no key"
                )
                raise StateError(message)
            return found.envelope, None
        content = _full(tx, found)
    verdict = content["verdict"]["facts"]
    warning = None
    if found.state not in ("retired", "released"):
        warning = (
            f"test set {found.test_set_id} is {found.state}: counts and level in this bundle depend on its labels, and "
            "are for the referee alone until it is retired"
        )
    return seal_envelope(_statement(verdict, FULL, content), KeyFolder(keys).key()), warning


def _full(tx: Connection, found: SignedVerdict) -> JsonObject:
    name = of_set(found.test_set_id)
    verdict = chained_rows.row_facts(tx, name, VERDICT, [found.request_id])[found.request_id]
    last = chains.entry_of(tx, name, VERDICT, found.request_id)
    ledger_id = chained_rows.ledger_entry_of(tx, found.test_set_id, verdict["step"])
    first = None if ledger_id is None else chains.entry_of(tx, name, LEDGER, ledger_id)
    if last is None or first is None or ledger_id is None:
        message = (
            f"the verdict of request {found.request_id} or its ledger entry is not in the chain of test set "
            f"{found.test_set_id}: it is older than the chain, or the chain is broken (`easeml evidence verify`)"
        )
        raise StateError(message)
    test_set = chained_rows.set_facts(tx, found.test_set_id)
    part = chains.entries(tx, name, limit=last.place)
    before = [entry for entry in part if entry.place < first.place]
    history: dict[str, JsonObject | list[JsonObject]] = {"genesis": _opened(before[0], dict(before[0].content or {}))}
    if test_set is not None and follows_from_earlier(test_set):
        history["earlier"] = _earlier(tx, name, before)
    facts = chained_rows.row_facts(tx, name, LEDGER, [ledger_id])[ledger_id]
    if test_set is not None and (looks := _looks(tx, test_set, facts)):
        history["looks"] = looks
    return {
        "version": 1,
        "study": found.study,
        "test_set": test_set,
        **history,
        "ledger": _opened(first, facts),
        "verdict": _opened(last, verdict),
        "chain": [_signed(entry) for entry in part],
        "head": last.hash.hex(),
    }


def follows_from_earlier(test_set: JsonObject) -> bool:
    """Whether the level of a verdict on the set follows from earlier answers, and not from its plan alone."""
    plan = test_set["plan"]
    return bool(test_set["purpose"] == "joint" or plan.get("gate", plan)["adaptivity"] == Adaptivity.RECYCLE)


def _looks(tx: Connection, test_set: JsonObject, ledger: JsonObject) -> list[JsonObject]:
    """Under early stopping: what was counted at each look, of the set and of each slice; empty otherwise.

    The counts of the last look are in the report, which the chain commits to; those before it only here.
    """
    plan, report, set_id = test_set["plan"], ledger["report"], test_set["id"]
    plan = plan.get("gate", plan)
    if plan.get("sampling", "fixed") != "early" or "clauses" not in report:
        return []
    models = (report["incumbent"], report["model"])
    known = sealed.known_predictions(tx, set_id, *models)
    old, new = (known[model].labels if model in known else None for model in models)
    codes = sealed.sealed_slices(tx, set_id)
    if old is None or new is None or (plan.get("slices") and codes is None):
        return []
    hit = studies.study_by_id(tx, test_set["study_id"]).hit
    slices = [
        Slice(name, parse_condition(source), np.flatnonzero(codes == place).astype(np.int64))
        for place, (name, source) in enumerate(plan.get("slices") or ())
    ]
    found = looks_of_submission(
        parse_condition(report["condition"]),
        *as_classes(hit, labels.known_labels(tx, set_id), old, new),
        log_level=ledger["log_level"],
        mode=plan["mode"],
        power=plan.get("power"),
        slices=slices,
    )
    return [asdict(one) for one in found]


def _earlier(tx: Connection, name: str, before: Sequence[Entry]) -> list[JsonObject]:
    """The answers before this one, in their order, opened."""
    answers = [entry for entry in before if entry.link.kind == LEDGER and entry.link.subject is not None]
    facts = chained_rows.row_facts(tx, name, LEDGER, [entry.link.subject or 0 for entry in answers])
    return [_opened(entry, facts[entry.link.subject or 0]) for entry in answers]


def _statement(verdict: JsonObject, kind: str, content: JsonObject) -> JsonObject:
    """The statement about the model's file; a model's identity is its format and its artifact."""
    model_format, _, artifact = str(verdict["model"]).partition(" sha256:")
    return statement(
        subject=f"model-{verdict['model_id']}.{model_format}", sha256=artifact, predicate_type=kind, predicate=content
    )


def _opened(entry: Entry, facts: JsonObject) -> JsonObject:
    """Return the content of an entry, with the nonce that proves it."""
    return {"facts": facts, "nonce": entry.nonce.hex(), "hash": entry.hash.hex()}


def _signed(entry: Entry) -> JsonObject:
    signature = None if entry.signature is None else base64.b64encode(entry.signature).decode()
    return {"link": entry.link.to_json(), "hash": entry.hash.hex(), "key_id": entry.key_id, "signature": signature}


def newest_heads(store: Store, *, study: str | None = None) -> list[PublishedHead]:
    """Return the last published head of each sealed set, which vouches for all before it."""
    with store.begin() as tx:
        return chains.newest_heads(tx, study)
