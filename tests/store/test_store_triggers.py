"""What is append-only stays so even for its owner; every trigger and every translated constraint is known by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from easeml_core.store.refusals import MEANING

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., list[tuple[Any, ...]]]

_FUNCTIONS = "SELECT prosrc FROM pg_proc WHERE pronamespace::regnamespace::text IN ('work', 'sealed')"
_NAMES = """
SELECT conname FROM pg_constraint WHERE connamespace::regnamespace::text IN ('work', 'sealed')
UNION SELECT relname FROM pg_class WHERE relkind = 'i' AND relnamespace::regnamespace::text IN ('work', 'sealed')
"""


def test_the_ledger_is_append_only_even_for_its_owner(ask: Ask, database: Any, world: Any) -> None:
    before = ask("SELECT * FROM sealed.ledger ORDER BY id")
    assert len(before) == 2
    for statement in ("UPDATE sealed.ledger SET log_cost = 0", "DELETE FROM sealed.ledger", "TRUNCATE sealed.ledger"):
        with pytest.raises(psycopg2.IntegrityError, match="the ledger is append-only"):
            ask(statement)
    assert ask("SELECT * FROM sealed.ledger ORDER BY id") == before


def test_settings_of_the_scheduler_are_append_only_even_for_their_owner(ask: Ask, database: Any, world: Any) -> None:
    before = ask("SELECT * FROM work.selection_settings ORDER BY id")
    assert len(before) == 1
    table = "work.selection_settings"
    for statement in (f"UPDATE {table} SET reason = 'x'", f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
        with pytest.raises(psycopg2.IntegrityError, match="append-only"):
            ask(statement)
    assert ask("SELECT * FROM work.selection_settings ORDER BY id") == before


def test_the_audit_is_append_only_even_for_its_owner(ask: Ask, database: Any, world: Any) -> None:
    before = ask("SELECT * FROM work.audit ORDER BY id")
    assert len(before) > 5
    for statement in ("UPDATE work.audit SET who = 'x'", "DELETE FROM work.audit", "TRUNCATE work.audit"):
        with pytest.raises(psycopg2.IntegrityError, match="the audit is append-only"):
            ask(statement)
    assert ask("SELECT * FROM work.audit ORDER BY id") == before


TRIGGERS = {
    *("ledger_append_only", "ledger_keep_all", "studies_forward", "trials_forward", "studies_active_since"),
    *("trials_ended_now", "trials_checkpoint_spent", "test_sets_forward"),
    "claims_held",
    *("trials_within_limits", "trials_limit_kept", "studies_within_limits", "tenants_within_limits"),
    *("selection_settings_append_only", "selection_settings_keep_all"),
    *("audit_append_only", "audit_keep_all", "tenants_audit", "studies_audit", "studies_state_audit"),
    *(
        "candidates_audit",
        "trials_audit",
        "trials_retry_audit",
        "selection_settings_audit",
        "test_sets_audit",
        "alerts_audit",
    ),
    *("requests_audit", "answers_audit", "promotions_audit", "submissions_audit", "feeds_audit", "switches_audit"),
    *("candidates_of_tenants", "rows_of_tenants", "observations_by_lease", "trials_by_lease", "trials_lease_ends"),
    *("data_versions_audit", "restarts_of_referee", "trials_excuse", "trials_executor_kept"),
    *("chain_append_only", "chain_keep_all"),
    *("registry_forward", "registry_indexed", "registry_keep", "registry_keep_all", "registry_reindexed"),
    *("tenants_assessed", "studies_assessed", "candidates_assessed", "data_versions_assessed", "trials_added_assessed"),
    *("trials_assessed", "observations_assessed", "models_assessed", "test_sets_assessed", "requests_assessed"),
    *("answers_assessed", "gate_verdicts_assessed", "meter_readings_assessed", "promotions_assessed"),
    *("production_assessed", "alerts_assessed", "study_changes_taken", "suggestion_requests_open"),
    *("quality_checks_audit", "quality_checks_catalogue", "quality_checks_assessed", "quality_checks_acknowledged"),
    *("tenants_catalogue", "studies_catalogue", "candidates_catalogue", "data_versions_catalogue"),
    *("candidates_withdrawn_audit", "candidates_withdrawn_assessed", "tenants_archived_audit"),
    *("is_open_for_more", "production_is_open", "requests_have_a_file", "test_sets_deleted_audit"),
}
# Names that triggers give as that of a violated constraint.
RAISED = {
    *("studies_forward_check", "trials_forward_check", "ledger_append_only", "test_sets_forward_check"),
    *("studies_budget_kept", "tenants_quota_kept", "tenants_parallel_kept", "selection_settings_append_only"),
    *("audit_append_only", "suggestion_requests_open_check", "change_requests_open_check", "rows_of_tenants_check"),
    "audit_rate_check",
    *("archived_closed", "studies_name_archived", "studies_production_kept", "studies_kept", "studies_counted"),
    *("studies_worked_on", "tenants_kept", "requests_file_check", "test_sets_served", "test_sets_in_use"),
}


def test_every_trigger_is_known(ask: Ask) -> None:
    found = ask("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O'")
    assert {name for (name,) in found} == TRIGGERS
    several = ask("SELECT count(*) FROM pg_trigger WHERE tgname IN ('rows_of_tenants', 'is_open_for_more')")
    assert len(found) == len(TRIGGERS) + several[0][0] - 2


def test_every_translated_constraint_is_there(ask: Ask) -> None:
    """A renamed constraint would lose its message silently."""
    names = {name for (name,) in ask(_NAMES)}
    assert set(MEANING) - names - RAISED == set()
    bodies = " ".join(body for (body,) in ask(_FUNCTIONS))
    assert {name for name in RAISED if f"'{name}'" not in bodies} == set()
