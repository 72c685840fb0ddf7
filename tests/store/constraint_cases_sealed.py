"""Rows that the named constraints of the schema ``sealed``, and of what leaves it, must refuse."""

from __future__ import annotations

Case = tuple[str, dict[str, str]]


def each(table: str, column: str, *values: str, **also: str) -> list[Case]:
    """One case a value of the column."""
    return [(table, {column: value, **also}) for value in values]


NEW = {"cache_key": "'new'"}
NEW_ROW = "repeat('y', 16)::bytea"

SEALED_CASES: dict[str, list[Case]] = {
    "sealed.installation_singleton_check": each("sealed.installation", "singleton", "false"),
    "sealed.test_sets_public_fkey": [
        *each("sealed.test_sets", "id", "-1", fingerprint="'new'"),
        *each("sealed.test_sets", "id", "{planned}", fingerprint="'new'", steps="99"),
    ],
    "sealed.test_sets_fingerprint_key": each("sealed.test_sets", "id", "{planned}"),
    "sealed.examples_test_set_fkey": each("sealed.examples", "test_set_id", "-1", hash="'new'"),
    "sealed.predictions_test_set_fkey": each("sealed.predictions", "test_set_id", "-1"),
    "sealed.predictions_outcome_check": [
        *each("sealed.predictions", "failure", "'crashed'"),
        *each("sealed.predictions", "labels", "NULL"),
    ],
    "sealed.attempts_request_fkey": each("sealed.attempts", "request_id", "-1"),
    "sealed.put_offs_attempt_fkey": [
        *each("sealed.put_offs", "request_id", "-1"),
        *each("sealed.put_offs", "attempt", "99"),
    ],
    "sealed.put_offs_reason_check": each("sealed.put_offs", "reason", "''", "'a model says 7'", "repeat('a', 101)"),
    "sealed.put_offs_most_check": [
        *each("sealed.put_offs", "most", "0", "-1"),
        *each("sealed.put_offs", "bounded", "false", most="8"),
    ],
    "sealed.put_offs_until_check": each(
        "sealed.put_offs", "until", "put_off_at", "put_off_at + interval '2 days'", "'infinity'", "'-infinity'"
    ),
    "sealed.referees_until_check": each(
        "sealed.referees", "until", "beat_at - interval '1 s'", "beat_at + interval '2 hours'", "'infinity'"
    ),
    "work.heartbeats_referee_fkey": each("heartbeats", "referee_id", "-1"),
    "work.heartbeats_workers_check": each("heartbeats", "workers", "0", "65"),
    "work.heartbeats_answer_check": each("heartbeats", "answer_seconds", "-1", "'infinity'", "'NaN'"),
    "work.heartbeats_until_check": each(
        "heartbeats", "until", "beat_at - interval '1 s'", "beat_at + interval '2 hours'", "'infinity'"
    ),
    "sealed.turns_tenant_fkey": each("sealed.turns", "tenant_id", "-1"),
    "sealed.claims_request_key": each(
        "sealed.claims", "request_id", "(SELECT min(request_id) FROM sealed.claims)", duty="NULL"
    ),
    "sealed.claims_request_fkey": each("sealed.claims", "request_id", "-1", duty="NULL"),
    "sealed.claims_referee_fkey": each("sealed.claims", "referee_id", "-1", request_id="{gate2}", duty="NULL"),
    "sealed.claims_duty_key": each("sealed.claims", "duty", "'earlier models'", request_id="NULL"),
    "sealed.claims_duty_check": each("sealed.claims", "duty", "'tea'", request_id="NULL"),
    "sealed.claims_subject_check": [
        *each("sealed.claims", "request_id", "NULL", duty="NULL"),
        *each("sealed.claims", "duty", "'earlier models'", request_id="{gate2}"),
    ],
    "sealed.ledger_test_set_fkey": [
        *each("sealed.ledger", "test_set_id", "-1", request_id="{gate2}"),
        *each("sealed.ledger", "steps", "99", request_id="{gate2}", step="99", system_step="2", **NEW),
    ],
    "sealed.ledger_request_key": each("sealed.ledger", "step", "2", system_step="2", **NEW),
    "sealed.ledger_request_fkey": each("sealed.ledger", "request_id", "-1", step="2", system_step="2", **NEW),
    "sealed.ledger_step_key": each("sealed.ledger", "request_id", "{gate2}", system="'meter'", **NEW),
    "sealed.ledger_cache_key": each("sealed.ledger", "request_id", "{gate2}", step="2", system_step="2"),
    "sealed.ledger_system_check": each("sealed.ledger", "system", "'both'", "'joint'"),
    "sealed.ledger_system_step_key": each("sealed.ledger", "request_id", "{gate2}", step="2", **NEW),
    "sealed.ledger_system_step_check": [
        *each("sealed.ledger", "system_step", "0", "step + 1"),
        *each("sealed.ledger", "system_steps", "1", step="2", system_step="2"),
    ],
    "sealed.ledger_other_check": [
        *each("sealed.ledger", "step", "steps", "steps + 2", system="'other'", **NEW),
        *each("sealed.ledger", "is_change", "true", step="steps + 1", system="'other'", **NEW),
    ],
    "sealed.ledger_step_check": each("sealed.ledger", "step", "0", "steps + 1"),
    "sealed.ledger_log_level_check": each("sealed.ledger", "log_level", "0.1", "'NaN'", "'-Infinity'"),
    "sealed.ledger_log_cost_check": each("sealed.ledger", "log_cost", "-0.1", "'NaN'", "'Infinity'"),
    "sealed.outbox_request_fkey": each("sealed.outbox", "request_id", "-1"),
    "sealed.labels_test_set_fkey": each("sealed.labels", "test_set_id", "-1"),
    "sealed.labels_labeler_check": each("sealed.labels", "labeler", "''", "'Ann'", "'a b'", "repeat('a', 64)"),
    "sealed.cells_test_set_fkey": each("sealed.cells", "test_set_id", "-1"),
    "sealed.cells_place_check": each("sealed.cells", "place", "-1"),
    "sealed.cells_cells_check": each("sealed.cells", "cells", "'{{}}'", "'7'", "'null'", "'\"word\"'"),
    "sealed.wanted_request_fkey": each("sealed.wanted", "request_id", "-1"),
    "sealed.wanted_test_set_fkey": each("sealed.wanted", "test_set_id", "-1", request_id="{gate2}"),
    "sealed.ledger_tolerance_check": each("sealed.ledger", "tolerance", "-0.1", "'NaN'", "'Infinity'"),
    "sealed.chains_name_check": each("sealed.chains", "name", "'set/0'", "'set/x'", "'other'", "'set/1 '"),
    "sealed.chain_chain_fkey": each("sealed.chain", "chain", "'set/99'"),
    "sealed.chain_subject_key": [("sealed.chain ledger", {"place": "place + 100"})],
    "sealed.chain_place_check": each("sealed.chain", "place", "0", "-1"),
    "sealed.chain_kind_check": [
        *each("sealed.chain", "kind", "'other'", "'ledger'", place="99"),
        *each("sealed.chain", "content", "NULL", place="99"),
    ],
    "sealed.chain_length_check": [
        *each("sealed.chain", "nonce", "'n'::bytea", place="99"),
        *each("sealed.chain", "hash", "'h'::bytea", place="99"),
        *each("sealed.chain", "previous", "'h'::bytea", place="99"),
        *each("sealed.chain", "commitment", "'h'::bytea", place="99"),
    ],
    "sealed.chain_signature_check": [
        *each("sealed.chain", "key_id", "repeat('a', 64)", place="99"),
        *each("sealed.chain", "key_id", "repeat('A', 64)", place="99", signature="decode(repeat('00', 64), 'hex')"),
        *each("sealed.chain", "signature", "'s'::bytea", place="99", key_id="repeat('a', 64)"),
    ],
    "work.evidence_request_fkey": each("evidence", "request_id", "-1"),
    "work.evidence_study_fkey": each("evidence", "study_id", "-1", request_id="{gate2}"),
    "work.evidence_test_set_fkey": each("evidence", "test_set_id", "-1", request_id="{gate2}"),
    "work.evidence_head_check": [
        *each("evidence", "head", "'h'", "repeat('A', 64)", request_id="{gate2}"),
        *each("evidence", "audit_head", "'h'", "repeat('A', 64)", request_id="{gate2}"),
    ],
    "sealed.row_sources_study_fkey": each("sealed.row_sources", "study_id", "-1"),
    "sealed.registry_source_fkey": each("sealed.registry", "source_id", "-1", id=NEW_ROW),
    "sealed.registry_test_set_fkey": each("sealed.registry", "test_set_id", "-1", id=NEW_ROW),
    "sealed.registry_id_check": each("sealed.registry", "id", "'x'::bytea"),
    "sealed.registry_tokens_check": each("sealed.registry", "tokens", "'1234567'::bytea", id=NEW_ROW),
    "sealed.registry_state_check": each("sealed.registry", "state", "'lost'", id=NEW_ROW),
    "sealed.registry_sealed_check": each("sealed.registry", "test_set_id", "NULL", id=NEW_ROW, state="'sealed'"),
    "sealed.row_parts_source_fkey": each("sealed.row_parts", "source_id", "-1"),
    "sealed.row_holds_row_fkey": each("sealed.row_holds", "row_id", NEW_ROW),
    "sealed.row_holds_test_set_fkey": each("sealed.row_holds", "test_set_id", "-1"),
}
