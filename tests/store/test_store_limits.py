"""The limits that people read in messages, forms and help are those that the database enforces."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core import entities
from easeml_core.errors import StoreError
from easeml_core.models.formats import FORMATS
from easeml_core.settings import limits
from easeml_core.settings.limits import Range
from easeml_core.store.tables import referee_claims

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., list[tuple[Any, ...]]]

RANGES = {
    "tenants_weight_check": ("weight", limits.WEIGHT),
    "studies_weight_check": ("weight", limits.WEIGHT),
    "studies_priority_check": ("priority", limits.PRIORITY),
    "studies_budget_check": ("budget_seconds", limits.SECONDS),
    "tenants_quota_check": ("quota_seconds", limits.SECONDS),
    "studies_target_check": ("target_quality", limits.TARGET_QUALITY),
    "tenants_max_parallel_check": ("max_parallel", Range(least=limits.MAX_PARALLEL.least, whole=True)),
    "observations_cost_check": ("cost_seconds", limits.COST_SECONDS),
    "rungs_rung_check": ("rung", Range(least=1, most=limits.MOST_RUNGS, whole=True)),
    # As docstrings of ``store/tables`` state them.
    "heartbeats_workers_check": ("workers", Range(least=1, most=64, whole=True)),
    "heartbeats_answer_check": ("answer_seconds", Range(least=0, most=2_592_000)),
    "suggestion_requests_requested_check": ("requested", Range(least=1, most=1000, whole=True)),
}
NAMES = {
    "tenants_name_check": ("name", limits.NAME),
    "studies_name_check": ("name", limits.NAME),
    "test_sets_name_check": ("name", limits.NAME),
    "trials_device_check": ("device", limits.NAME),
    "labels_labeler_check": ("labeler", limits.LABELER),
}
LENGTHS = {
    "submissions_message_check": ("message", limits.LONGEST_TEXT),
    "data_sets_source_check": ("source, ''::text AS target", limits.LONGEST_TEXT),
    "data_sets_target": ("target, ''::text AS source", limits.LONGEST_TARGET),
    "candidates_name_check": ("name, ''::text AS kind", limits.LONGEST_CANDIDATE),
}
WORDS = {
    "studies_state_check": entities.StudyState,
    "studies_task_check": entities.Task,
    "trials_state_check": entities.TrialState,
    "test_sets_purpose_check": entities.SealedSetPurpose,
    "test_sets_state_check": entities.SealedSetState,
    "requests_kind_check": entities.RequestKind,
    "alerts_kind_check": entities.AlertKind,
    "gate_verdicts_symbol_check": entities.Symbol,
    "models_format_check": FORMATS,
}
SETTINGS = (
    "jsonb_build_object('training', jsonb_build_object('max_attempts', {0}, 'time_limit_seconds', {1})) AS config"
)


@pytest.fixture
def allows(ask: Ask) -> Callable[..., bool]:
    """Whether a constraint allows columns, given as the list of a SELECT."""

    def allowed(constraint: str, columns: str, *values: object) -> bool:
        query = "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conname = %s"
        ((rule,),) = set(ask(query, constraint))
        ((answer,),) = ask(
            f"SELECT coalesce(({rule.replace('%', '%%')}), true) FROM (SELECT {columns}) AS row", *values
        )
        return bool(answer)

    return allowed


def edges(limit: Range) -> list[float]:
    """Numbers at each bound and on both sides of it."""
    found = [math.nan, math.inf, -math.inf] if not limit.whole else []
    for bound in (limit.least, limit.above, limit.most, limit.below):
        if bound is not None and bound != math.inf:
            step = 1 if limit.whole else max(abs(bound), 1) * 1e-9 if bound != limits.WEIGHT.least else 1e-9
            found += [bound - step, bound, bound + step]
    return found


def test_numbers(allows: Callable[..., bool]) -> None:
    for constraint, (column, limit) in RANGES.items():
        kind = "bigint" if limit.whole else "double precision"
        tried = {n: allows(constraint, f"%s::{kind} AS {column}", n) for n in edges(limit)}
        assert tried == {n: limit.holds(n) for n in tried}, constraint
        assert set(tried.values()) == {True, False}, constraint


@pytest.mark.parametrize("lease_seconds", [0, 3600])
def test_a_referee_may_have_the_shortest_and_the_longest_lease(database: Any, lease_seconds: float) -> None:
    for _ in range(20):  # two readings of the clock may be equal by chance
        with database.referee.begin() as tx:
            referee = referee_claims.add_referee(tx, lease_seconds=lease_seconds)
            referee_claims.beat(tx, referee, lease_seconds)
    with pytest.raises(StoreError), database.referee.begin() as tx:
        referee_claims.add_referee(tx, lease_seconds=3600.001)


def test_open_trials_are_counted_in_32_bits(ask: Ask) -> None:
    assert ask("SELECT pg_typeof((NULL::work.tenants).max_parallel)::text") == [("integer",)]
    assert limits.MAX_PARALLEL.most == 2**31 - 1


def test_names(allows: Callable[..., bool]) -> None:
    tried = ["a", "0", "", "-a", "_", "A", "ä", "a b", "a\n", "a" * 63, "a" * 64]
    tried += [f"a{chr(c)}" for c in range(32, 127)]
    for constraint, (column, limit) in NAMES.items():
        found = {t: allows(constraint, f"%s::text AS {column}", t) for t in tried}
        assert found == {t: limit.holds(t) for t in tried}, constraint


def test_lengths(allows: Callable[..., bool]) -> None:
    for case, (columns, most) in LENGTHS.items():
        constraint = "data_sets_source_check" if case.startswith("data_sets") else case
        held = [allows(constraint, f"%s::text AS {columns}", "x" * length) for length in (1, most, most + 1)]
        assert held == [True, True, False], case


def test_settings(allows: Callable[..., bool]) -> None:
    for attempts, seconds in [(n, 60) for n in (0, 1, 1000, 1001)] + [(3, s) for s in (0, 1e8, 1.001e8)]:
        held = limits.ATTEMPTS.holds(attempts) and limits.DURATION.holds(seconds)
        allowed = allows("studies_config_check", SETTINGS.format("%s::int", "%s::float8"), attempts, seconds)
        assert allowed == held, (attempts, seconds)


def test_bytes_of_json(allows: Callable[..., bool]) -> None:
    for size, held in ((limits.MOST_JSON_BYTES, True), (limits.MOST_JSON_BYTES + 1, False)):
        value = "x" * (size - len('{"a": ""}'))
        assert allows("candidates_parameters_check", "jsonb_build_object('a', %s::text) AS parameters", value) == held
        assert allows("requests_arguments_check", "jsonb_build_object('a', %s::text) AS arguments", value) == held


def test_devices_of_a_candidate(allows: Callable[..., bool]) -> None:
    for count, held in ((0, False), (1, True), (limits.MOST_DEVICES, True), (limits.MOST_DEVICES + 1, False)):
        columns = "to_jsonb(%s::text[]) AS devices"
        assert allows("candidates_devices_check", columns, ["gpu"] * count) == held


def test_words(ask: Ask) -> None:
    for constraint, words in WORDS.items():
        ((rule,),) = set(ask("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", constraint))
        assert set(re.findall(r"'([^']+)'::text", rule)) == {str(word) for word in words}, constraint
