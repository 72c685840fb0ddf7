"""Rows that the named constraints must refuse; ``test_store_constraints.py`` tries each of them."""

from __future__ import annotations

from functools import partial

from constraint_cases_sealed import SEALED_CASES, Case, each

verdict, reading = partial(each, "gate_verdicts"), partial(each, "meter_readings")
BAD_NAMES = ("''", "'Lab'", "'-a'", "'a b'", "'a/b'", "'ä'", "E'a\\n'", "repeat('a', 64)")
NOT_POSITIVE = ("0", "-1", "'NaN'", "'Infinity'")
TOO_LARGE = ("1e308", "1.001e9")  # sums of 1e308 overflow, and break the schedule of all tenants
NO_MAPPING = ("'[]'", "'7'", "'\"word\"'", "'null'", "'[1]'")
# More digits than Python reads, the same in short hand, behind the point, and mere length.
HARMFUL = tuple(
    f"jsonb_build_object('a', {value})"
    for value in ("repeat('9', 5000)::numeric", "1e4990::numeric", "-1e-4990::numeric", "repeat('x', 4000)")
)
# Python reads no year beyond 9999 and none before 1, and psycopg2 no infinity.
BAD_TIMES = ("'infinity'", "'-infinity'", "'200000-01-01'", "'0044-03-15 BC'", "'1999-12-31 23:00+00'", "'3000-01-02'")
NO_SETTINGS = tuple(
    f"jsonb_build_object('training', {training})"
    for training in (
        *("'[1]'::jsonb", "'null'::jsonb"),
        *(
            f"jsonb_build_object('max_attempts', {value})"
            for value in ("'3'::text", "2.5", "3.0", "0", "1001", "'[3]'::jsonb", "NULL::int")
        ),
        *(
            f"jsonb_build_object('time_limit_seconds', {value})"
            for value in ("'9'::text", "0", "-1", "1.1e8", "'[3]'::jsonb", "NULL::int")
        ),
    )
)
NO_DEVICES = (
    *NO_MAPPING[1:4],
    *("'{{}}'", "'[]'", "'[1]'", "'[null]'", "'[[\"gpu\"]]'", '\'["gpu", ""]\'', "'[\"GPU\"]'", "'[\"a\\n\"]'"),
    "to_jsonb(array_fill('gpu'::text, ARRAY[21]))",
)
NO_SHARE = ("-0.001", "1.001", "'NaN'", "'Infinity'")
HASHED = "'sha256:' || repeat('a', 64)"
BAD_ARTIFACTS = ("'model.skops'", "'sha256:' || repeat('A', 64)", "'sha256:' || repeat('a', 63)", "'../' || artifact")
SAVED = {"checkpoint": HASHED, "checkpoint_seconds": "3", "checkpoint_progress": "0.5"}
NO_SECONDS = ("-0.1", "'NaN'", "'Infinity'", *TOO_LARGE)
NEW = {"cache_key": "'new'"}
NEW_KEY = {"request_key": "'new'"}
NO_HASHES = ("''::bytea", "'h'::bytea", "repeat('h', 33)::bytea")
OTHER_HASH = "repeat('x', 32)::bytea"
OTHER_DATA = {"data_version_id": "{second_version}"}
NEW_SET = {"kind": "'new-test-set'", "request_id": "NULL"}
NEW_KEY = {"request_key": "'new'"}
NO_VERDICT = {"gate_request_id": "NULL", "symbol": "NULL", "planned": "NULL"}

# Constraint -> rows that it must refuse: table (and which row of it), changed columns with their new SQL expression.
CASES: dict[str, list[Case]] = {
    "work.tenants_name_key": [("tenants", {})],
    "work.artifact_store_singleton_check": each("artifact_store", "singleton", "false"),
    "work.artifact_store_id_check": each("artifact_store", "store_id", "''", "repeat('A', 32)", "repeat('a', 33)"),
    "work.artifact_store_place_check": each("artifact_store", "place", "''", "E' \\n'", "repeat('x', 4001)"),
    "work.change_requests_change_check": [
        *each("change_requests", "change", "'end'"),
        *each("change_requests", "trial_id", "1"),
        *each("change_requests", "change", "'cancel'"),
    ],
    "work.change_requests_key": [("change_requests", {})],
    "work.change_requests_outcome_check": each("change_requests", "outcome", "'x'"),
    "work.suggestions_rival_check": each("suggestions", "rival", "'[]'", "'1'"),
    "work.tenant_logins_tenant_fkey": each("tenant_logins", "tenant_id", "-1"),
    "work.tenant_logins_login_check": each("tenant_logins", "login", "'lab'", "'easeml_worker'", "'easeml_t_A'"),
    "work.tenants_name_check": each("tenants", "name", *BAD_NAMES),
    "work.tenants_weight_check": each("tenants", "weight", *NOT_POSITIVE, *TOO_LARGE, "1.001e6", "9.9e-7"),
    "work.tenants_archived_check": each("tenants", "archived_at", "now()", name="'new'"),
    "work.tenants_max_parallel_check": each("tenants", "max_parallel", "0", "-1"),
    "work.tenants_quota_check": each("tenants", "quota_seconds", *NOT_POSITIVE),
    "work.data_sets_tenant_fkey": each("data_sets", "tenant_id", "-1"),
    "work.data_sets_source_check": [
        *each("data_sets", "source", "repeat('x', 2001)"),
        *each("data_sets", "target", "repeat('x', 501)"),
    ],
    "work.data_sets_source_key": [("data_sets", {})],
    "work.studies_data_set_fkey": each("studies", "data_set_id", "{other_data_set}", name="'n'", request_key="'n'"),
    "work.studies_name_key": each("studies", "request_key", "'new'"),
    "work.studies_request_key": each("studies", "name", "'new'"),
    "work.studies_name_check": each("studies", "name", *BAD_NAMES),
    "work.studies_state_check": each("studies", "state", "'active'", "''"),
    "work.studies_archived_check": [
        *each("studies", "state", "'ARCHIVED'", name="'n'", request_key="'n'"),
        *each("studies", "archived_why", "'x'", name="'n'", request_key="'n'"),
        *each(
            "studies",
            "archived_from",
            *("'ARCHIVED'", "NULL"),
            **{
                "name": "'n'",
                "request_key": "'n'",
                "state": "'ARCHIVED'",
                "archived_at": "now()",
                "archived_why": "''",
            },
        ),
    ],
    "work.studies_metric_check": each("studies", "metric", "''", "'a b'", "repeat('a', 201)", "E'auc\\n'"),
    "work.studies_task_check": each("studies", "task", "'guessing'", "''"),
    "work.studies_hit_check": [
        *each("studies", "hit", "'auc'", "'within:'", "'within:0.5'"),
        *each("studies", "hit", "'accuracy'", "'within:x'", task="'regression'"),
    ],
    "work.studies_program_check": each("studies", "program", "repeat('x', 100001)"),
    "work.studies_weight_check": each("studies", "weight", *NOT_POSITIVE, *TOO_LARGE, "1.001e6", "9.9e-7"),
    "work.studies_budget_check": each("studies", "budget_seconds", *NOT_POSITIVE),
    "work.studies_priority_check": each("studies", "priority", "101", "-101"),
    "work.studies_deadline_check": each("studies", "deadline", *BAD_TIMES),
    "work.studies_config_check": each("studies", "config", *NO_MAPPING, *HARMFUL, *NO_SETTINGS),
    "work.studies_target_check": each("studies", "target_quality", *NOT_POSITIVE, "1.001"),
    "work.data_versions_study_fkey": each("data_versions", "study_id", "{other}", version="9", content_hash="'new'"),
    "work.data_versions_layout_check": each(
        "data_versions",
        "layout",
        """'{{"kind": "cube", "shape": [2]}}'""",
        """'{{"kind": "table", "shape": 2}}'""",
        """'{{"kind": "table", "shape": [2], "target": {{"kind": "tree", "shape": [2]}}}}'""",
        """'{{"kind": "table", "shape": [2], "target": {{"kind": "image"}}}}'""",
        """'{{"kind": "table", "shape": [2], "target": null}}'""",
        version="9",
        content_hash="'new'",
    ),
    "work.data_versions_version_key": each("data_versions", "content_hash", "'new'"),
    "work.data_versions_content_key": each("data_versions", "version", "9"),
    "work.data_versions_version_check": each("data_versions", "version", "0"),
    "work.data_versions_training_fkey": each(
        "data_versions", "same_training_as", "{other_version}", "-1", version="9", content_hash="'new'"
    ),
    "work.data_versions_training_check": each(
        "data_versions", "same_training_as", "1000000", version="9", content_hash="'new'"
    ),
    "work.data_versions_goes_on_fkey": each(
        "data_versions", "goes_on_with", "{other_version}", "-1", version="9", content_hash="'new'"
    ),
    "work.data_versions_goes_on_check": each(
        "data_versions", "goes_on_with", "1000000", version="9", content_hash="'new'"
    ),
    "work.data_versions_artifact_check": each("data_versions", "artifact", *BAD_ARTIFACTS),
    "work.data_versions_features_check": each("data_versions", "features", "0"),
    "work.data_parts_version_fkey": each("data_parts", "data_version_id", "-1"),
    "work.data_parts_part_check": each("data_parts", "part", "'test'"),
    "work.data_parts_rows_check": each("data_parts", "rows", "0"),
    "work.candidates_study_fkey": each("candidates", "study_id", "-1"),
    "work.candidates_parameters_check": each("candidates", "parameters", *NO_MAPPING, *HARMFUL, name="'new'"),
    "work.candidates_devices_check": each("candidates", "devices", *NO_DEVICES, name="'new'"),
    "work.candidates_name_check": [
        *each("candidates", "name", "''", "repeat('x', 201)", "E'a\\nb'", "E'\\x1b[2J'", "E'a\\u0085'"),
        *each("candidates", "kind", "repeat('x', 201)", name="'new'"),
    ],
    "work.candidates_withdrawn_check": each("candidates", "withdrawn_at", "now()", name="'new'"),
    "work.candidates_name_key": [("candidates", {})],
    "work.trials_candidate_fkey": each("trials waiting", "candidate_id", "{other_candidate}"),
    "work.trials_data_version_fkey": each("trials waiting", "data_version_id", "{other_version}"),
    "work.trials_once_per_data_key": [("trials waiting", {}), ("trials done", {})],
    "work.trials_executor_fkey": each(
        "trials running", "executor", "'trainer:forest'", "'function:tree'", "''", data_version_id="{second_version}"
    ),
    "work.trials_executor_check": [
        *each("trials running", "executor", "NULL", executor_details="NULL"),
        *each("trials done", "executor", "NULL", executor_details="NULL"),
    ],
    "work.trials_executor_details_check": [
        *each("trials running", "executor_details", "'[]'", """jsonb_build_object('a', repeat('x', 4000))"""),
        *each("trials waiting", "executor_details", "'{{}}'"),
    ],
    "work.trials_failure_kind_check": [
        *each("trials waiting", "failure_kind", "'task'"),
        *each("trials done", "failure_kind", "'candidate'"),
        *each("trials done", "failure_kind", "'worker'", state="'FAILED'", failure="'lost'"),
    ],
    "work.trials_task_cost_check": each("trials done", "failure_kind", "'task'", state="'FAILED'", failure="'no x'"),
    "work.trials_retries_check": each("trials waiting", "retries", "1000000"),
    "work.trials_retries_fkey": each("trials waiting", "retries", "{running}", "{waiting}", "-1"),
    "work.offers_length_check": [
        *each("offers", "implementation", "repeat('x', 1001)"),
        *each("offers", "study", "repeat('x', 501)"),
    ],
    "work.trials_state_check": each("trials waiting", "state", "'LOST'", "'suggested'"),
    "work.trials_lease_hash_check": each("trials waiting", "lease_hash", "'x'", "repeat('A', 64)", "repeat('a', 65)"),
    "work.trials_lease_check": [
        *each("trials waiting", "state", "'RUNNING'", attempt_started_at="now()", executor="'trainer:tree'"),
        *each("trials waiting", "lease_key", "'mine'"),
        *each("trials running", "lease_until", "NULL"),
    ],
    "work.trials_failure_check": [
        *each("trials waiting", "failure", "'no reason'"),
        *each("trials done", "state", "'FAILED'"),
    ],
    "work.trials_finished_check": [
        *each("trials waiting", "finished_at", "now()"),
        *each("trials done", "finished_at", "NULL"),
    ],
    "work.trials_cost_check": each("trials done", "cost_seconds", *NOT_POSITIVE, *TOO_LARGE, "NULL"),
    "work.trials_attempt_check": each("trials waiting", "attempt", "-1"),
    "work.trials_device_check": each("trials waiting", "device", *BAD_NAMES),
    "work.restarts_what_check": each("restarts", "what", "''", "'night'"),
    "work.restarts_at_check": each("restarts", "at", *BAD_TIMES),
    "work.restarts_reason_check": [
        *each("restarts", "reason", "'upgraded'"),
        *each("restarts", "reason", "NULL", "''", "' '", "E'a\\nb'", "repeat('a', 201)", what="'stated'"),
    ],
    "work.restarts_once_key": each("restarts", "what", "what"),
    "work.trials_excused_check": each("trials done", "excused", "-1", "attempt + 1", "11"),
    "work.trials_lost_check": each("trials waiting", "lost_seconds", "-0.1", "'NaN'", "'Infinity'", *TOO_LARGE),
    "work.trials_start_check": [
        *each("trials done", "start_seconds", *NO_SECONDS),
        *each("trials waiting", "start_seconds", "1"),
    ],
    "work.trials_limit_check": [
        *each("trials done", "start_seconds", "1.001", limit_seconds="2"),
        *each("trials waiting", "limit_seconds", *NOT_POSITIVE, *TOO_LARGE),
        *each("trials waiting", "lost_seconds", "2.001", limit_seconds="2"),
        *each("trials done", "cost_seconds", "2.001", limit_seconds="2"),
        *each("trials done", "cost_seconds", "1.001", lost_seconds="1", limit_seconds="2"),
    ],
    "work.trials_checkpoint_check": each("trials waiting", "checkpoint", *BAD_ARTIFACTS[:3]),
    "work.trials_checkpoint_whole_check": [
        *each("trials waiting", "checkpoint", HASHED),
        *each("trials waiting", "checkpoint_seconds", "3"),
        *each("trials waiting", "checkpoint_progress", "NULL", checkpoint=HASHED, checkpoint_seconds="3"),
    ],
    "work.trials_checkpoint_seconds_check": [
        *(("trials waiting", {**SAVED, "checkpoint_seconds": value}) for value in NO_SECONDS),
        *each("trials waiting", "resumed_seconds", "3.001", **SAVED),
    ],
    "work.trials_checkpoint_progress_check": [
        ("trials waiting", {**SAVED, "checkpoint_progress": value}) for value in NO_SHARE
    ],
    "work.trials_checkpoint_limit_check": each("trials waiting", "lost_seconds", "7.001", limit_seconds="10", **SAVED),
    "work.trials_checkpoint_open_check": [("trials done", SAVED)],
    "work.trials_resumed_check": each("trials waiting", "resumed_seconds", *NO_SECONDS),
    "work.curves_trial_fkey": each("curves", "trial_id", "-1"),
    "work.curves_step_check": each("curves", "step", "0", "10001", of="NULL"),
    "work.curves_of_check": each("curves", "of", "step - 1"),
    "work.curves_quality_check": each("curves", "quality", *NO_SHARE),
    "work.curves_loss_check": each("curves", "loss", "'NaN'", "'Infinity'", "'-Infinity'"),
    "work.curves_told_check": each("curves", "quality", "NULL", loss="NULL"),
    "work.curves_seconds_check": each("curves", "seconds", *NO_SECONDS),
    "work.rungs_trial_fkey": each("rungs", "trial_id", "-1"),
    "work.rungs_rung_check": each("rungs", "rung", "0", "21"),
    "work.rungs_step_check": each("rungs", "step", "0", '"of" + 1'),
    "work.rungs_quality_check": each("rungs", "quality", *NO_SHARE, hoped="NULL"),
    "work.rungs_hoped_check": each("rungs", "hoped", "quality - 0.1", "1.001", "'NaN'"),
    "work.rungs_needed_check": each("rungs", "needed", *NO_SHARE),
    "work.rungs_known_check": each("rungs", "known", "-1"),
    "work.rungs_rule_check": each("rungs", "rule", "''", "'halving'"),
    "work.rungs_reason_check": [
        ("rungs", {"goes_on": "false", "hoped": hoped, "needed": needed})
        for hoped, needed in (("0.7", "0.7"), ("NULL", "0.7"), ("0.7", "NULL"))
    ],
    "work.trials_last_check": [
        *each("trials waiting", "last_try", "1"),
        *each("trials running", "last_try", "0", "-1", last_key="'k'"),
    ],
    "work.trials_key_length_check": each("trials running", "last_key", "repeat('k', 4001)"),
    "work.trials_attempt_start_check": each("trials running", "attempt_started_at", "NULL"),
    "work.trials_attempt_time_check": each("trials running", "attempt_started_at", *BAD_TIMES),
    "work.trials_reevaluates_fkey": each("trials done", "reevaluates", "-1", data_version_id="{second_version}"),
    "work.trials_reevaluates_check": each("trials waiting", "reevaluates", "{waiting}"),
    "work.trials_times_check": [
        *each("trials waiting", "lease_until", *BAD_TIMES),
        *each("trials running", "started_at", *BAD_TIMES),
        *each("trials done", "finished_at", *BAD_TIMES),
    ],
    "work.catalogue_singleton_check": each("catalogue", "singleton", "false"),
    "work.catalogue_version_check": each("catalogue", "version", "0"),
    "work.suggestion_batches_request_key": [("suggestion_batches", {})],
    "work.suggestion_batches_policy_check": each("suggestion_batches", "policy", "repeat('x', 101)"),
    "work.suggestion_batches_requested_check": each("suggestion_batches", "requested", "0"),
    "work.suggestion_batches_settings_fkey": each("suggestion_batches", "settings_id", "-1", request_key="'new'"),
    "work.devices_login_check": each("devices", "login", "''", "repeat('x', 64)"),
    "work.devices_host_check": each("devices", "host", "''", "repeat('x', 254)"),
    "work.devices_name_check": each(
        "devices", "name", "'gpu'", "'cuda'", "'cuda:'", "'cuda:1000'", "'cuda:0:100'", "E'cpu\\n'"
    ),
    "work.devices_holder_check": each("devices", "holder", "repeat('x', 1001)"),
    "work.devices_kind_check": each("devices", "kind", *BAD_NAMES, name="'cuda:1'"),
    "work.devices_model_check": each("devices", "model", "''", "repeat('x', 201)", name="'cuda:1'"),
    "work.devices_memory_check": each("devices", "memory_mb", "0", "-1", name="'cuda:1'"),
    "work.devices_driver_check": each("devices", "driver", "''", "repeat('x', 101)", name="'cuda:1'"),
    "work.devices_slots_check": each("devices", "slots", "1025", name="'cuda:1'"),
    "work.devices_held_check": [
        *each("devices", "held", "-1", "3", "0", name="'cuda:1'"),
        *each("devices", "holder", "''", name="'cuda:1'"),
    ],
    "work.devices_beat_check": each("devices", "beat_at", "announced_at - interval '1 s'", name="'cuda:1'"),
    "work.scheduler_beats_beat_check": each("scheduler_beats", "beat_at", "started_at - interval '1 s'"),
    "work.suggestion_requests_request_key": [("suggestion_requests", {})],
    "work.suggestion_requests_key_check": each("suggestion_requests", "request_key", "''", "repeat('x', 1001)"),
    "work.suggestion_requests_requested_check": each("suggestion_requests", "requested", "0", "1001", **NEW_KEY),
    "work.suggestion_requests_device_check": each("suggestion_requests", "device", "''", "repeat('x', 101)", **NEW_KEY),
    "work.suggestion_requests_studies_check": each(
        "suggestion_requests",
        "studies",
        "array_fill('x'::text, ARRAY[10001])",
        "ARRAY[repeat('x', 1000000)]",
        "ARRAY[ARRAY['x'], ARRAY['y']]",
        **NEW_KEY,
    ),
    "work.suggestion_requests_functions_check": [
        ("suggestion_requests", {"functions": functions, "sources": sources, **NEW_KEY})
        for functions, sources in (
            ("array_fill('x'::text, ARRAY[201])", "array_fill('x'::text, ARRAY[201])"),
            ("ARRAY[repeat('x', 100000)]", "ARRAY['x']"),
            ("ARRAY[ARRAY['x'], ARRAY['y']]", "ARRAY['x', 'y']"),
            ("ARRAY[NULL::text]", "ARRAY['x']"),
        )
    ],
    "work.suggestion_requests_sources_check": [
        ("suggestion_requests", {"functions": functions, "sources": sources, **NEW_KEY})
        for functions, sources in (
            ("ARRAY['x', 'y']", "ARRAY['x']"),
            ("ARRAY['x']", "ARRAY[repeat('x', 100000)]"),
            ("ARRAY['x', 'y']", "ARRAY[ARRAY['x'], ARRAY['y']]"),
        )
    ],
    "work.suggestion_requests_runtimes_check": each(
        "suggestion_requests",
        "runtimes",
        "array_fill('x'::text, ARRAY[11])",
        "ARRAY[repeat('x', 1000)]",
        "ARRAY[ARRAY['x'], ARRAY['y']]",
        **NEW_KEY,
    ),
    "work.suggestion_requests_traceparent_check": each(
        "suggestion_requests", "traceparent", "''", "'00-x-y-01'", "repeat('0', 55)", **NEW_KEY
    ),
    "work.suggestion_requests_tries_check": each("suggestion_requests", "tries", "-1", **NEW_KEY),
    "work.suggestion_requests_refusal_check": [
        ("suggestion_requests", {"refusal": "'because'", **NEW_KEY}),
        *each("suggestion_requests", "refusal", "''", "repeat('x', 2001)", decided_at="now()", **NEW_KEY),
    ],
    "work.selection_settings_config_check": each(
        "selection_settings", "config", *NO_MAPPING, "jsonb_build_object('order', repeat('x', 100000))"
    ),
    "work.selection_settings_reason_check": each(
        "selection_settings", "reason", "''", "' '", "E'\\n\\t'", "repeat('x', 2001)"
    ),
    "work.selection_settings_report_check": each(
        "selection_settings", "report", *NO_MAPPING, "jsonb_build_object('a', repeat('x', 1000000))"
    ),
    "work.suggestions_reasons_check": each(
        "suggestions", "reasons", *NO_MAPPING, "jsonb_build_object('a', repeat('x', 20000))"
    ),
    "work.suggestions_batch_fkey": each("suggestions", "batch_id", "-1"),
    "work.suggestions_trial_fkey": each("suggestions", "trial_id", "-1", position="1"),
    "work.suggestions_trial_key": each("suggestions", "position", "1"),
    "work.observations_trial_fkey": each("observations", "trial_id", "{waiting}", "{running}", "-1"),
    "work.observations_state_check": each("observations", "state", "'RUNNING'"),
    "work.observations_quality_check": each("observations", "quality", *NO_SHARE),
    "work.observations_score_check": each("observations", "score", "'Infinity'", "'-Infinity'", "'NaN'"),
    "work.observations_cost_check": each("observations", "cost_seconds", *NOT_POSITIVE, *TOO_LARGE),
    "work.models_removed_check": each("models", "removed_why", "'old'"),
    "work.models_data_version_fkey": each("models", "data_version_id", "-1", trial_id="NULL"),
    "work.models_trial_key": each("models done", "artifact", "artifact"),
    # The trial is there, and so is the data, but the trial ran on other data.
    "work.models_trial_fkey": each("models done", "data_version_id", "{second_version}", trial_id="{waiting}"),
    "work.models_format_check": each("models", "format", "'pickle'", "'xgb'", "'LightGBM'", "''"),
    "work.models_artifact_check": each("models", "artifact", *BAD_ARTIFACTS),
    "work.models_loss_check": each("models", "validation_loss", *NO_SHARE),
    "work.models_baseline_key": each("models", "trial_id", "NULL", submitted="false"),
    "work.models_submitted_check": each("models done", "submitted", "true"),
    "work.submissions_model_key": each("submissions", "request_key", "'new'"),
    "work.submissions_model_fkey": each("submissions", "model_id", "{model}", "-1", request_key="'new'"),
    "work.submissions_request_key": each("submissions", "model_id", "{model}"),
    "work.submissions_submitted_check": each("submissions", "submitted", "false"),
    "work.submissions_kind_check": each("submissions", "kind", "'notebook'"),
    "work.submissions_message_check": each("submissions", "message", "''", "E' \\n'", "repeat('x', 2001)"),
    "work.submissions_bundle_check": [
        *each("submissions", "kind", "'bundle'"),
        *each("submissions", "bundle", "'dags'"),
        *each("submissions", "bundle", "'../dags'", "''", kind="'bundle'", bundle_version="'0123abc'"),
        *each("submissions", "bundle_version", "'main'", "'0123ab'", kind="'bundle'", bundle="'dags'"),
    ],
    "work.predictions_model_fkey": each("predictions", "model_id", "-1"),
    "work.predictions_part_check": each("predictions", "part", "'gate'", "'meter'", "'train'"),
    "work.remeasure_failures_model_fkey": each("remeasure_failures", "model_id", "{other_baseline}", "-1"),
    "work.remeasure_failures_version_fkey": each("remeasure_failures", "data_version_id", "{other_version}", "-1"),
    "work.remeasure_failures_tries_check": each("remeasure_failures", "tries", "0", "-1", **OTHER_DATA),
    "work.remeasure_failures_reason_check": each(
        "remeasure_failures", "reason", "''", "E' \\n'", "repeat('x', 2001)", **OTHER_DATA
    ),
    "work.quality_checks_trial_fkey": each("quality_checks", "trial_id", "-1"),
    "work.quality_checks_model_fkey": each(
        "quality_checks", "model_id", "{other_baseline}", "-1", trial_id="{waiting}"
    ),
    "work.quality_checks_claimed_check": each("quality_checks", "claimed", *NO_SHARE, trial_id="{waiting}"),
    "work.quality_checks_measured_check": each("quality_checks", "measured", *NO_SHARE, trial_id="{waiting}"),
    "work.quality_checks_tolerance_check": each(
        "quality_checks", "tolerance", "-0.001", "1", "'NaN'", trial_id="{waiting}"
    ),
    "work.quality_checks_reason_check": each(
        "quality_checks", "reason", "''", "repeat('x', 501)", measured="NULL", trial_id="{waiting}"
    ),
    "work.quality_checks_acknowledged_why_check": each(
        "quality_checks",
        "acknowledged_why",
        "''",
        "repeat('x', 501)",
        measured="0.1",
        acknowledged_at="now()",
        trial_id="{waiting}",
    ),
    "work.quality_checks_acknowledged_check": [
        *each("quality_checks", "acknowledged_why", "'as it should be'", measured="0.1", trial_id="{waiting}"),
        *each("quality_checks", "acknowledged_at", "now()", measured="0.1", trial_id="{waiting}"),
        # Nothing is to be acknowledged of a result that held.
        *each("quality_checks", "acknowledged_why", "'as it is'", acknowledged_at="now()", trial_id="{waiting}"),
    ],
    "work.quality_checks_why_check": [
        *each("quality_checks", "measured", "NULL", trial_id="{waiting}"),
        *each("quality_checks", "reason", "'it cannot be run'", trial_id="{waiting}"),
    ],
    "work.audit_words_check": [
        *each("audit", "who", "''", "E'a\\nb'", "repeat('x', 201)"),
        *each("audit", "door", "''", "E'\\x1b[2J'", "repeat('x', 41)"),
        *each("audit", "act", "''", "'Promoted'", "'a'", "repeat('x', 42)"),
        *each("audit", "reason", "repeat('x', 2001)"),
    ],
    "work.audit_facts_check": [
        *each("audit", "before", *NO_MAPPING),
        *each("audit", "after", *NO_MAPPING, "jsonb_build_object('a', repeat('x', 20000))"),
    ],
    "work.feeds_study_fkey": each("feeds", "study_id", "-1", **NEW_KEY),
    "work.feeds_request_key": [("feeds", {})],
    "work.feeds_artifact_check": each("feeds", "artifact", *BAD_ARTIFACTS, **NEW_KEY),
    "work.feeds_rows_check": each("feeds", "rows", "0", "100000001", **NEW_KEY),
    "work.feeds_words_check": [
        *each("feeds", "origin", "''", "E'a\\nb'", "repeat('x', 201)", **NEW_KEY),
        *each("feeds", "fed_by", "''", "E'\\x1b[2J'", "repeat('x', 201)", **NEW_KEY),
    ],
    "work.feeds_state_check": each("feeds", "state", "'open'", "'WAITING'", **NEW_KEY),
    "work.feeds_reason_check": [
        *each("feeds", "reason", "'broken'", **NEW_KEY),
        *each("feeds", "reason", "NULL", "''", "E' \\n'", "repeat('x', 2001)", state="'refused'", **NEW_KEY),
    ],
    "work.fed_examples_feed_fkey": [
        *each("fed_examples", "feed_id", "-1", hash=OTHER_HASH),
        *each("fed_examples", "study_id", "{other}"),
    ],
    "work.fed_examples_hash_check": each("fed_examples", "hash", *NO_HASHES),
    "work.switches_study_fkey": each("switches", "study_id", "-1", **NEW_KEY),
    "work.switches_refreshed_fkey": each("switches", "refreshed_by", "-1", **NEW_KEY),
    "work.switches_request_key": [("switches", {})],
    "work.switches_hash_check": each("switches", "hash", *NO_HASHES),
    "work.switches_words_check": [
        *each("switches", "reason", "''", "E' \\n'", "repeat('x', 501)", **NEW_KEY),
        *each("switches", "switched_by", "''", "E'a\\nb'", "repeat('x', 201)", **NEW_KEY),
    ],
    "work.refreshes_request_fkey": each("refreshes", "request_id", "-1", data_version_id="NULL", off="NULL"),
    "work.refreshes_version_fkey": each("refreshes", "data_version_id", "{other_version}", "-1", request_id="{gate2}"),
    "work.refreshes_version_key": each("refreshes", "request_id", "{gate2}"),
    "work.refreshes_off_check": [
        *each("refreshes", "off", "'pairs.npz'", "'sha256:'", request_id="{gate2}", **OTHER_DATA),
        *each("refreshes", "data_version_id", "NULL", request_id="{gate2}"),
    ],
    "work.test_sets_data_version_fkey": each(
        "test_sets", "data_version_id", "{other_version}", state="'retired'", retired_at="now()"
    ),
    "work.test_sets_purpose_check": each("test_sets", "purpose", "'both'", "'gate,meter'"),
    "work.test_sets_state_check": each("test_sets", "state", "'open'"),
    "work.test_sets_retired_check": [
        *each("test_sets", "state", "'retired'"),
        *each("test_sets", "state", "'released'", artifact=HASHED),
        *each("test_sets", "retired_at", "now()"),
    ],
    "work.test_sets_deleted_check": each("test_sets", "deleted_at", "now()"),
    "work.test_sets_name_check": each("test_sets", "name", *BAD_NAMES),
    "work.test_sets_name_key": each("test_sets", "name", "'next'", state="'sealed'"),
    "work.test_sets_why_check": each("test_sets", "retired_why", "'the labels are bad'", "''"),
    "work.test_sets_artifact_check": each(
        "test_sets",
        "artifact",
        *(a.replace("|| artifact", "|| 'x'") for a in BAD_ARTIFACTS),
        state="'released'",
        retired_at="now()",
    ),
    "work.test_sets_released_check": [
        *each("test_sets", "state", "'released'", retired_at="now()"),
        *each("test_sets", "artifact", HASHED),
    ],
    "work.test_sets_rows_check": each("test_sets", "rows", "0"),
    "work.test_sets_steps_check": each("test_sets", "steps", "0"),
    "work.test_sets_live_gate_key": [("test_sets", {}), *each("test_sets", "purpose", "'joint'")],
    "work.test_sets_live_meter_key": each("test_sets", "purpose", "'meter'"),
    "work.test_sets_live_direct_key": each("test_sets", "purpose", "'direct'"),
    "work.requests_request_key": [("requests", {})],
    "work.requests_study_fkey": each("requests seal", "study_id", "-1", request_key="'new'"),
    "work.requests_model_fkey": each("requests gate", "model_id", "{other_baseline}", request_key="'new'"),
    "work.requests_kind_check": each("requests gate", "kind", "'peek'"),
    "work.requests_arguments_check": each("requests gate", "arguments", *NO_MAPPING, *HARMFUL, request_key="'new'"),
    "work.requests_target_check": [
        *each("requests gate", "model_id", "NULL"),
        *each("requests seal", "model_id", "{model}"),
    ],
    "work.answers_request_fkey": each("answers", "request_id", "-1"),
    "work.gate_verdicts_request_fkey": verdict("request_id", "{meter2}", "{promote2}", "-1"),
    "work.gate_verdicts_incumbent_fkey": verdict("incumbent_id", "{other_baseline}", request_id="{gate2}"),
    "work.gate_verdicts_test_set_fkey": verdict("test_set_id", "{meter_set}", request_id="{gate2}"),
    "work.gate_verdicts_kind_check": [*verdict("kind", "'meter'"), *verdict("purpose", "'meter'")],
    "work.gate_verdicts_step_check": verdict("step", "0"),
    "work.gate_verdicts_symbol_check": verdict("symbol", "'unknown'", "'PASS'", "'pass 0.93'"),
    "work.meter_readings_request_fkey": reading("request_id", "{gate2}", "-1"),
    "work.meter_readings_test_set_fkey": reading("test_set_id", "{gate_set}", request_id="{meter2}"),
    "work.meter_readings_kind_check": [*reading("kind", "'gate'"), *reading("purpose", "'gate'")],
    "work.meter_readings_step_check": reading("step", "0"),
    "work.meter_readings_signal_check": [*reading("signal", "0", "3"), *reading("signals", "1", signal="NULL")],
    "work.meter_readings_team_check": reading("team", "0"),
    "work.meter_readings_edges_check": reading("edges", "'{{}}'", "'{{0.1,0.2}}'", "'{{NULL}}'"),
    "work.meter_readings_tolerance_check": reading("tolerance", "0", "1", "'NaN'"),
    "work.meter_readings_left_check": reading("submissions_left", "-1"),
    "work.meter_readings_data_version_fkey": reading("data_version_id", "{other_version}", "-1", request_id="{meter2}"),
    "work.meter_readings_direct_fkey": reading("direct_test_set_id", "{gate_set}", "-1", request_id="{meter2}"),
    "work.meter_readings_direct_check": [
        *reading("direct_signal", "1"),
        *reading("direct_signal", "0", "3", direct_test_set_id="{direct_set}"),
    ],
    "work.meter_readings_drift_check": [
        *reading("drift", "'none seen'"),
        *reading("drift", "NULL", "'some'", direct_test_set_id="{direct_set}", direct_signal="1"),
        *reading("drift", "'likely'", direct_test_set_id="{direct_set}", direct_signal="1", signal="NULL"),
    ],
    "work.promotions_request_key": [("promotions", {})],
    "work.promotions_request_fkey": each("promotions", "request_id", "{gate2}"),
    # A gate request without a verdict; one whose verdict was about another model; no gate request at all.
    "work.promotions_verdict_fkey": each(
        "promotions", "gate_request_id", "{gate2}", "{failed}", "{meter2}", "-1", request_id="{promote2}"
    ),
    "work.promotions_restores_fkey": each(
        "promotions", "restores", "-1", kind="'rollback'", request_id="{rollback2}", **NO_VERDICT
    ),
    "work.promotions_ground_check": [
        *each("promotions", "symbol", "'fail'", "NULL"),
        *each("promotions", "kind", "'gate'"),
        *each("promotions", "planned", "false", "NULL"),
        *each("promotions", "gate_request_id", "NULL"),
        *each("promotions", "who", "'Ada'"),
        *each("promotions", "why", "'because'"),
        *each("promotions", "restores", "id"),
        *each("promotions", "kind", "'rollback'", **NO_VERDICT),
        *each("promotions", "kind", "'rollback'", restores="id"),
        *each("promotions", "kind", "'rollback'", restores="id", who="'Ada'", **NO_VERDICT),
        *each("promotions", "who", "NULL", "''", "E'\\n'", kind="'force'", why="'because'", **NO_VERDICT),
        *each("promotions", "why", "NULL", "' '", kind="'force'", who="'Ada'", **NO_VERDICT),
        *each("promotions", "restores", "id", kind="'force'", who="'Ada'", why="'because'", **NO_VERDICT),
        *each("promotions", "kind", "'force'", who="'Ada'", why="'because'"),
    ],
    "work.assessments_study_fkey": each("assessments", "study_id", "-1"),
    "work.assessments_tenant_fkey": each("assessments", "tenant_id", "-1", study_id="{other}"),
    "work.assessments_standing_check": each("assessments", "standing", "''", "'lost'"),
    "work.assessments_urgency_check": each("assessments", "urgency", "-1"),
    "work.assessments_needs_check": each("assessments", "needs", "'{{}}'", "'7'", "'null'"),
    "work.assessments_facts_check": each("assessments", "facts", *NO_MAPPING),
    "work.production_promotion_fkey": each("production", "study_id", "{other}"),
    "work.alerts_request_key": [("alerts", {})],
    "work.alerts_reading_fkey": each("alerts", "request_id", "{gate2}", "{meter2}"),
    "work.alerts_test_set_fkey": each("alerts", "test_set_id", "-1", **NEW_SET),
    "work.alerts_test_set_key": [],  # tried below: no copy of the alert that is there can be the second one of a set
    "work.alerts_kind_check": each("alerts", "kind", "'weather'", request_id="NULL", test_set_id="{gate_set}"),
    "work.alerts_subject_check": [
        *each("alerts", "request_id", "NULL"),
        *each("alerts", "kind", "'new-test-set'", request_id="NULL"),
    ],
    "work.alerts_cleared_check": each("alerts", "cleared_at", "'1999-12-31'", "'3000-01-01'", "'infinity'"),
    "work.alerts_team_check": [
        *each("alerts", "team", "0", "-1"),
        *each("alerts", "team", "1", test_set_id="{gate_set}", **NEW_SET),
    ],
    "work.alerts_budget_check": each("alerts", "over_budget", "true", test_set_id="{gate_set}", **NEW_SET),
    **SEALED_CASES,
}
