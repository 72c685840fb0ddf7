"""Bundles of evidence: what a third party recomputes from a file, and what a developer's file leaves out."""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from evidence_office import Office
from joint_lab import register

from easeml_core.errors import InvalidInputError
from easeml_core.formats.attestation import SigningKey, seal_envelope
from easeml_core.services.evidence.bundle import evidence_of, newest_heads
from easeml_core.services.evidence.bundle_check import check_bundle
from easeml_core.services.evidence.keys import KeyFolder
from easeml_core.services.evidence.notary import verify_all
from easeml_core.services.operations.notifications import look
from easeml_core.services.referee.requests import file_gate_request, file_meter_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_bundle_tells_level_and_verdict_again_without_a_database(office: Office) -> None:
    model, key = office.lab.models["full"]["good"], KeyFolder(office.keys).key().public
    full, warning = evidence_of(office.lab.referee, model_id=model, keys=office.keys)
    open_one, no_warning = evidence_of(office.lab.worker, model_id=model, keys=office.keys)
    assert "until it is retired" in str(warning)
    assert no_warning is None
    found = check_bundle(json.loads(json.dumps(full)), [key])
    assert (found.faults, found.symbol, found.kind) == ((), "pass", "full")
    assert found.attested == ()
    assert "the test set, its plan and its hashes are those that its chain begins with" in found.checks
    assert "pass from" in " ".join(found.checks).lower()
    assert check_bundle(open_one, [key]).faults == ()
    shown = base64.b64decode(open_one["payload"]).decode()
    report = office.lab.one("SELECT report FROM sealed.ledger WHERE step = 1")
    assert not [word for word in ("log_level", "wins", "labels", "report", "inputs") if word in shown]
    assert str(report["wins"]) not in json.loads(shown)["predicate"]["verdict"]["facts"].values()
    with pytest.raises(InvalidInputError, match="no trusted key has signed"):
        check_bundle(full, [SigningKey.new().public])
    envelope = evidence_of(office.lab.referee, model_id=office.lab.models["full"]["rare"], keys=office.keys)[0]
    assert check_bundle(envelope, [key]).symbol == "fail"


def test_the_head_leaves_with_the_answer_and_no_sooner(office: Office) -> None:
    result = newest_heads(office.lab.worker, study="full")
    (head,) = office.lab.rows("SELECT hash FROM sealed.chain WHERE chain = 'set/1' ORDER BY place DESC LIMIT 1")
    assert [one.head for one in result] == [bytes(head[0]).hex()]
    assert look(office.lab.worker, {"since": "2026-01-01T00:00:00+00:00", "told": {}}).events[-1].head == result[0].head
    office.answer_delay = 3600.0
    asked = {"study": "full", "model_id": office.lab.models["full"]["worse"], "request_key": office.lab.key()}
    file_gate_request(office.lab.worker, **asked)
    office.referee().run_once()  # decided, and not said
    assert office.lab.one("SELECT count(*) FROM sealed.chain WHERE kind = 'ledger'") == 3
    assert newest_heads(office.lab.worker, study="full") == result
    office.lab.as_superuser("UPDATE sealed.outbox SET leaves_at = now() WHERE left_at IS NULL")
    office.referee().run_once()
    (later,) = newest_heads(office.lab.worker)
    assert later.head != result[0].head
    assert verify_all(office.lab.referee, office.keys, heads=[result[0].head, later.head]).sound


@pytest.fixture(scope="module")
def signed(furnished_office: Office) -> tuple[bytes, SigningKey]:
    """The statement of a full bundle, and the key that has signed it."""
    lab, keys = furnished_office.lab, furnished_office.keys
    envelope, _ = evidence_of(lab.referee, model_id=lab.models["full"]["good"], keys=keys)
    lab.close()
    return base64.b64decode(envelope["payload"]), KeyFolder(keys).key()


def _altered(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def alter(statement: dict[str, Any]) -> None:
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        place: Any = statement
        for step in steps:
            place = place[step]
        place[last] = value

    return alter


@pytest.mark.parametrize(
    ("alter", "fault"),
    [
        (_altered("predicate.ledger.facts.log_level", -1.0), "the ledger entry is not what its entry commits to"),
        (_altered("predicate.ledger.facts.log_level", -1.0), "the plan gives the level"),
        (_altered("predicate.ledger.facts.report.wins", 0), "the counts"),
        (_altered("predicate.ledger.facts.report.condition", "n - o > 0.7 +/- 0.2"), "the counts give"),
        (_altered("predicate.ledger.facts.report.condition", "n > 0.1 +/- 0.05"), "judged was n > 0.1 +/- 0.05"),
        (_altered("predicate.ledger.facts.system", "other"), "counts the set's own condition"),
        (_altered("predicate.test_set.plan.slices", [["north", "n > 0.1 +/- 0.05"]]), "has the slices ['north']"),
        (_altered("predicate.test_set.plan.reliability", 0.999999), "the plan gives the level"),
        (_altered("predicate.verdict.facts.symbol", "fail"), "the ledger says 'pass', not 'fail'"),
        (_altered("predicate.verdict.nonce", "00" * 32), "the verdict is not what its entry commits to"),
        (_altered("subject.0.digest.sha256", "0" * 64), "another file than the subject"),
        (_altered("predicate.chain.1.link.previous", "00" * 32), "does not follow the one before"),
        (_altered("predicate.ledger.facts.report.judged", 5), "the verdict counts the first 5 disagreements"),
        (_altered("predicate.head", "00" * 32), "the head is not that of the last entry"),
        (_altered("predicate.test_set.rows", 9), "the test set is not the one that its chain begins with"),
        (_altered("predicate.genesis.facts.set.rows", 9), "the test set is not the one that its chain begins with"),
        (_altered("predicate.chain.2.signature", None), "1 entries no given key has signed"),
    ],
)
def test_a_bundle_whose_parts_do_not_agree_is_named_although_it_is_signed(
    signed: tuple[bytes, SigningKey], alter: Callable[[dict[str, Any]], None], fault: str
) -> None:
    """By the referee's own key: who signs must not be able to state a level or verdict that does not follow."""
    payload, key = signed
    found = json.loads(payload)
    alter(found)
    assert any(fault in one for one in check_bundle(seal_envelope(found, key), [key.public]).faults)


@pytest.fixture
def shared(lab: Any, tmp_path: Path) -> tuple[Office, int]:
    """A signal, a verdict, a signal and a verdict on one set; the model of the last verdict."""
    office, study = Office(lab, tmp_path / "keys"), register(lab, tmp_path)
    for n, (file, wrong) in enumerate([(file_meter_request, 0.3), (file_gate_request, 0.1)] * 2):
        model = study.model(wrong + n / 100)
        asked = {"study": study.study, "model_id": model, "request_key": f"answer/{n}"}
        assert not office.answer(file(lab.worker, **asked)).refused
    return office, model


def _without(*places: int) -> Callable[[dict[str, Any]], None]:
    def alter(statement: dict[str, Any]) -> None:
        predicate = statement["predicate"]
        predicate["earlier"] = [one for n, one in enumerate(predicate["earlier"]) if n not in places]

    return alter


def test_the_level_on_a_shared_set_is_recomputed_from_all_answers_before_it(shared: tuple[Office, int]) -> None:
    office, model = shared
    key = KeyFolder(office.keys).key()
    envelope, _ = evidence_of(office.lab.referee, model_id=model, keys=office.keys)
    found = check_bundle(envelope, [key.public])
    assert (found.faults, found.attested) == ((), ())
    assert "3 answers before it, all that the chain has" in found.checks
    for alter, fault in (
        (_without(1), "the answers before it are not all those of the chain"),
        (_without(0, 1, 2), "the plan gives the level"),
        (_altered("predicate.earlier.0.facts.log_cost", 9.0), "the answers before it are not all those of the chain"),
        (_altered("predicate.ledger.facts.log_level", -2.0), "the plan gives the level"),
    ):
        statement = json.loads(base64.b64decode(envelope["payload"]))
        alter(statement)
        faults = check_bundle(seal_envelope(statement, key), [key.public]).faults
        assert any(fault in one for one in faults), (fault, faults)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    del statement["predicate"]["earlier"]  # as in a bundle of an earlier version
    result = check_bundle(seal_envelope(statement, key), [key.public])
    assert [one for one in result.attested if one.startswith("the level: gate and meter share the set")]


def test_a_verdict_under_early_stopping_is_recomputed_from_the_counts_of_its_looks(lab: Any, tmp_path: Path) -> None:
    office, gate = Office(lab, tmp_path / "keys"), {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3}
    assert not lab.register("early", gate=gate | {"sampling": "early"}).refused
    (artifact,) = lab.rows("SELECT artifact FROM work.models WHERE id = :id", id=lab.models["full"]["good"])[0]
    model = lab.hand_in("early", "good", lab.artifacts.path(artifact), kind="skops", loss=0.02)
    asked = {"study": "early", "model_id": model, "request_key": "early"}
    symbol = office.answer(file_gate_request(lab.worker, **asked)).symbol
    key = KeyFolder(office.keys).key()
    envelope, _ = evidence_of(lab.referee, model_id=model, keys=office.keys)
    found = check_bundle(json.loads(json.dumps(envelope)), [key.public])
    assert (found.faults, found.symbol) == ((), symbol)
    assert found.attested == ("the counts of the looks before the last: the chain commits to those of the last alone",)
    assert any(one.endswith("looks") and symbol in one.lower() for one in found.checks), found.checks
    for alter, fault in (
        (_altered("predicate.looks.0.moments.0", 1), "the counts of the looks cannot be judged"),
        (_altered("predicate.ledger.facts.report.wins", 0), "the last look does not count what the report says"),
        (_altered("predicate.ledger.facts.report.passed", symbol != "pass"), "the looks give"),
    ):
        statement = json.loads(base64.b64decode(envelope["payload"]))
        alter(statement)
        faults = check_bundle(seal_envelope(statement, key), [key.public]).faults
        assert any(fault in one for one in faults), (fault, faults)


def test_the_level_is_that_of_mode_estimator_and_other_conditions(office: Office) -> None:
    """Three steps of full: 2^2 where first errors are paid for, 2^3 else; and what other conditions cost."""
    key = KeyFolder(office.keys).key()
    envelope, _ = evidence_of(office.lab.referee, model_id=office.lab.models["full"]["good"], keys=office.keys)
    for mode, estimator, others, halved in [
        ("fp-free", "exact", 0, 2),
        ("fp-free", "exact", 2, 4),
        ("fp-free", "paper", 0, 3),
        ("fn-free", "exact", 2, 6),
    ]:
        found = json.loads(base64.b64decode(envelope["payload"]))
        plan, facts = found["predicate"]["test_set"]["plan"], found["predicate"]["ledger"]["facts"]
        plan |= {"adaptivity": "full", "steps": 3, "mode": mode, "estimator": estimator, "other_conditions": others}
        facts["log_level"] = math.log1p(-plan["reliability"]) - halved * math.log(2)
        faults = check_bundle(seal_envelope(found, key), [key.public]).faults
        assert not [one for one in faults if "the plan gives the level" in one], (mode, estimator, others)


def test_a_bundle_is_what_standard_tools_read(office: Office) -> None:
    from securesystemslib import dsse, signer

    envelope, _ = evidence_of(office.lab.worker, model_id=office.lab.models["full"]["good"], keys=office.keys)
    public = serialization.load_pem_public_key(KeyFolder(office.keys).key().public.pem())
    key = signer.SSlibKey.from_crypto(public, keyid=envelope["signatures"][0]["keyid"])
    read = dsse.Envelope.from_dict(json.loads(json.dumps(envelope)))
    assert list(read.verify([key], 1)) == [key.keyid]
    assert json.loads(read.payload)["_type"] == "https://in-toto.io/Statement/v1"
