"""Signed bundles of one verdict: what a third party needs to check it without any database.

A bundle is an in-toto Statement v1 in a DSSE envelope. Its subject is the model's file by its SHA-256; its predicate is
the verdict with its entry of the hash chain. The full one adds condition, plan, level, counts, the hashes of set,
models and predictions, and the chain from the ledger entry to the verdict. Counts and levels depend on labels, so a
full bundle is the referee's alone while the set lives; the redacted one holds what every developer may know anyway.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from easeml_core.attestation import seal_envelope, statement
from easeml_core.errors import NotFoundError, StateError
from easeml_core.services.evidence.keys import KeyFolder
from easeml_core.store import chain as chains
from easeml_core.store import chained_rows, requests
from easeml_core.store.chained_rows import LEDGER, VERDICT, of_set
from easeml_core.store.roles import REFEREE

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from easeml_core.store.chain import Entry
    from easeml_core.store.database import Store

FULL = "https://ease.ml/attestation/gate-verdict/v1"
REDACTED = "https://ease.ml/attestation/gate-verdict-redacted/v1"


def redacted(tx: Connection, *, request_id: int, test_set_id: int) -> dict[str, Any] | None:
    """The bundle that leaves with a verdict, just after its entry was appended; None where nothing is signed.

    It holds what the verdict's row holds, its nonce and its link: nothing of the ledger, and no hash of labels.
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
) -> tuple[dict[str, Any], str | None]:
    """The bundle of the last verdict on a model, or of the one that was asked for.

    Args:
        store: With the role easeml_referee the bundle is full and signed here; with any other it is the one that left
            with the answer.
        model_id: The model.
        keys: The host's key folder; read for a full bundle only.
        request_id: The gate request; None for the last one.

    Returns:
        The envelope, and a warning for the referee where the set still lives.

    Raises:
        NotFoundError: There is no such verdict.
        StateError: The verdict left unsigned, or is not in its chain.
    """
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


def _full(tx: Connection, found: Any) -> dict[str, Any]:
    name = of_set(found.test_set_id)
    verdict = chained_rows.row_facts(tx, name, VERDICT, [found.request_id])[found.request_id]
    last = chains.entry_of(tx, name, VERDICT, found.request_id)
    ledger_id = chained_rows.ledger_entry_of(tx, found.test_set_id, verdict["step"])
    first = None if ledger_id is None else chains.entry_of(tx, name, LEDGER, ledger_id)
    if last is None or first is None or ledger_id is None:
        message = (
            f"the verdict of request {found.request_id} or its ledger entry is not in the chain of test set "
            f"{found.test_set_id}: it is older than the chain, or the chain is broken (`easeml audit verify`)"
        )
        raise StateError(message)
    part = chains.entries(tx, name, after=first.place - 1, limit=last.place - first.place + 1)
    return {
        "version": 1,
        "study": found.study,
        "test_set": chained_rows.set_facts(tx, found.test_set_id),
        "ledger": _opened(first, chained_rows.row_facts(tx, name, LEDGER, [ledger_id])[ledger_id]),
        "verdict": _opened(last, verdict),
        "chain": [_signed(entry) for entry in part],
        "head": last.hash.hex(),
    }


def _statement(verdict: dict[str, Any], kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """The statement about the model's file; a model's identity is its format and its artifact."""
    model_format, _, artifact = str(verdict["model"]).partition(" sha256:")
    return statement(
        subject=f"model-{verdict['model_id']}.{model_format}", sha256=artifact, predicate_type=kind, predicate=content
    )


def _opened(entry: Entry, facts: dict[str, Any]) -> dict[str, Any]:
    """What an entry commits to, with the nonce that shows it."""
    return {"facts": facts, "nonce": entry.nonce.hex(), "hash": entry.hash.hex()}


def _signed(entry: Entry) -> dict[str, Any]:
    signature = None if entry.signature is None else base64.b64encode(entry.signature).decode()
    return {"link": entry.link.to_json(), "hash": entry.hash.hex(), "key_id": entry.key_id, "signature": signature}


def newest_heads(store: Store, *, study: str | None = None) -> list[dict[str, Any]]:
    """Of each sealed set the head that left last, as plain JSON: it vouches for all before it.

    Args:
        store: Any role.
        study: Of this study; None for all.

    Returns:
        ``{"evidence_id", "study", "test_set_id", "head", "audit_head"}`` each, the oldest first.
    """
    with store.begin() as tx:
        return chains.newest_heads(tx, study)
