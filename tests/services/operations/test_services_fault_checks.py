"""Every check of the fault harness finds its fault: rows are changed as no role of ours could, and all is undone."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import fault_checks
import pytest

FREE = "SET session_replication_role = replica"
"""No trigger and no foreign key is asked."""

DROP = "ALTER TABLE {0} DROP CONSTRAINT {1} CASCADE"

CHANGES: dict[str, list[str]] = {
    "a candidate ran twice on the same data": [
        DROP.format("work.trials", "trials_once_per_data_key"),
        "UPDATE work.trials SET candidate_id = (SELECT min(candidate_id) FROM work.trials)",
    ],
    "a success without its observation, or the reverse": ["DELETE FROM work.observations WHERE trial_id = 1"],
    "a success without its model, or the reverse": ["DELETE FROM work.models WHERE trial_id = 1"],
    "a model without predictions": [],
    "a lease of a trial that has ended": [
        DROP.format("work.trials", "trials_lease_check"), "UPDATE work.trials SET lease_key = 'w' WHERE id = 1"
    ],
    "a trial without a suggestion": [],
    "more suggestions than were asked for": [
        "INSERT INTO work.suggestion_batches (request_key, policy, requested) VALUES ('k', 'default', 1)",
        "INSERT INTO work.suggestions SELECT b.id, t.id, t.id, '{}' FROM work.suggestion_batches b, work.trials t",
    ],
    "a decided request for suggestions without its batch, or two that one batch answers": [
        "INSERT INTO work.suggestion_requests (request_key, requested, trainers, decided_at) "
        "VALUES ('k', 1, true, now())"
    ],
    "a budget is exceeded": ["UPDATE work.studies SET budget_seconds = 0.001"],
    "a trial that failed by another fault than its own": [
        "UPDATE work.trials SET state = 'FAILED', failure = 'it crashed' WHERE id = 1"
    ],
    "a seal without its study's state, or the reverse": ["UPDATE work.studies SET state = 'REGISTERED' WHERE id = 1"],
    "an active study without its parts": ["DELETE FROM sealed.test_sets WHERE id = 1"],
    "a study that was refused": ["UPDATE work.studies SET state = 'REFUSED' WHERE id = 1"],
    "a request that was refused": ["UPDATE work.answers SET refused = true WHERE request_id = 1"],
    "an answer of gate or meter that was not decided": ["DELETE FROM sealed.outbox"],
    "a verdict without its answer, or the reverse": ["DELETE FROM work.gate_verdicts"],
    "a refresh without its answer, or the reverse": [
        "INSERT INTO work.refreshes (request_id, study_id) SELECT id, study_id FROM work.requests WHERE kind = 'gate'",
        DROP.format("work.requests", "requests_target_check"),
        "UPDATE work.requests SET kind = 'refresh' WHERE kind = 'gate'",
        "DELETE FROM work.answers",
    ],
    "a verdict without its evidence": [],
    "a claim of a request that is decided": [
        "INSERT INTO sealed.claims (request_id, referee_id) SELECT min(request_id), 1 FROM work.answers "
        "ON CONFLICT (request_id) DO UPDATE SET referee_id = 1"
    ],
    "labels that are wanted for a request that is answered": [
        "INSERT INTO sealed.wanted SELECT request_id, 1, ''::bytea, ''::bytea, true FROM work.gate_verdicts"
    ],
    "steps of a set that are not 1 to their number": ["UPDATE sealed.ledger SET step = 2"],
    "a set that was asked more often than planned": [
        DROP.format("sealed.ledger", "ledger_step_check"),
        "UPDATE sealed.ledger SET steps = 0",
    ],
    "a question that was counted twice": [
        DROP.format("sealed.ledger", "ledger_step_key"),
        DROP.format("sealed.ledger", "ledger_cache_key"),
        "UPDATE sealed.ledger SET cache_key = 'k', test_set_id = 1",
    ],
    "a verdict or reading that was not counted, or counted though it was known": ["DELETE FROM sealed.ledger"],
    "an entry of the ledger that nothing was answered for": ["DELETE FROM work.answers"],
    "production is not what was promoted last": ["DELETE FROM work.production"],
    "a promotion without its answer, or the reverse": ["DELETE FROM work.promotions"],
    "a promotion that rests on no pass": ["UPDATE work.gate_verdicts SET symbol = 'fail'"],
    "a promotion that is not in the audit once": ["DELETE FROM work.audit WHERE act = 'promoted'"],
    "a study whose registration and sealing are not in the audit once": [
        "DELETE FROM work.audit WHERE act = 'study sealed'"
    ],
    "a feed that is not in the audit once": [
        "INSERT INTO work.feeds (study_id, request_key, artifact, rows, origin, fed_by) "
        "VALUES (1, 'k', 'sha256:' || repeat('0', 64), 1, 'pairs', 'ann')"
    ],
    "a set whose beginning is not in the audit once": ["DELETE FROM work.audit WHERE act LIKE 'set %'"],
    "a fed row that is there twice": [
        DROP.format("work.fed_examples", "fed_examples_pkey"),
        "INSERT INTO work.fed_examples SELECT 1, sha256('a'), 1 FROM generate_series(1, 2)",
    ],
    "a sealed row that two sets of a study share": [
        DROP.format("sealed.examples", "examples_pkey"), "INSERT INTO sealed.examples SELECT * FROM sealed.examples"
    ],
    "versions of a study's data that are not 1 to their number": ["UPDATE work.data_versions SET version = 2"],
    "more than one live set for one purpose": [
        "DROP INDEX work.test_sets_live_gate_key, work.test_sets_live_meter_key",
        "UPDATE work.test_sets SET purpose = 'gate'",
    ],
}  # fmt: skip
"""What is changed so that a check must find it; nothing where the laboratory is an offender: its models
are handed in, and its referee has no key."""


@pytest.fixture
def judged(lab: Any) -> Any:
    """A laboratory with a verdict, a reading and a promotion."""
    lab.promote(lab.gate("good").request_id)
    lab.meter("good")
    return lab


def is_found(lab: Any, what: str, changes: list[str]) -> bool:
    """Whether a check finds something after changes that are undone."""
    with closing(lab.server.connect(database=lab.name)) as opened:
        opened.autocommit = False
        with opened.cursor() as cursor:
            for statement in (FREE, *changes, fault_checks.NEVER[what]):
                cursor.execute(statement)
            return cursor.rowcount > 0


def test_every_check_finds_its_fault(judged: Any) -> None:
    unsound = {said.split(":")[0] for said in fault_checks.broken_rows(judged.superuser_rows)}
    assert unsound == {what for what, changes in CHANGES.items() if not changes}
    assert CHANGES.keys() == fault_checks.NEVER.keys()
    for what, changes in CHANGES.items():
        assert is_found(judged, what, changes), what


def test_missing_and_changed_artifacts_are_found(judged: Any) -> None:
    assert fault_checks.broken_artifacts(judged.superuser_rows, judged.artifacts.root) == []
    elsewhere = judged.artifacts.root / "nothing"
    assert len(fault_checks.broken_artifacts(judged.superuser_rows, elsewhere)) > 5
    assert all("unfinished" not in said for said in fault_checks.orphans(judged.superuser_rows, judged.artifacts.root))


def test_two_answers_to_one_request_are_found(judged: Any, tmp_path: Any) -> None:
    lines = ['{"act": "gate/1", "key": "full/gate/1", "said": {"request_id": 1, "message": "a"}}', "{cut"]
    (tmp_path / "full.jsonl").write_text("\n".join([lines[0], lines[0].replace('"a"', '"b"'), lines[1]]))
    found = fault_checks.broken_promises(lambda *_: [], tmp_path, ["full"])
    assert any("was answered twice" in said for said in found)
    assert "full/refresh was never answered" in found
    assert any("people saw 'b', the database has None" in said for said in found)
