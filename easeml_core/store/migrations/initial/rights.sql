-- What the two roles that work may do with each table; those of logins are in store/grants.py.

GRANT SELECT ON work.tenants, work.data_sets, work.studies, work.data_versions, work.data_parts, work.candidates,
  work.trials, work.observations, work.curves, work.rungs, work.locks, work.selection_settings,
  work.suggestion_batches, work.suggestions, work.suggestion_requests, work.offers, work.scheduler_beats,
  work.devices, work.models, work.predictions, work.submissions, work.remeasure_failures, work.test_sets,
  work.requests, work.answers, work.gate_verdicts, work.meter_readings, work.promotions, work.production, work.alerts,
  work.feeds, work.fed_examples, work.refreshes, work.switches, work.quality_checks, work.heartbeats, work.evidence,
  work.audit, work.artifact_store, work.restarts, work.catalogue, work.catalogue_changes, work.study_changes,
  work.assessments, work.change_requests TO easeml_worker;
GRANT SELECT ON work.tenants, work.data_sets, work.studies, work.data_versions, work.data_parts, work.candidates,
  work.trials, work.observations, work.curves, work.rungs, work.locks, work.suggestion_batches, work.suggestions,
  work.suggestion_requests, work.offers, work.scheduler_beats, work.models, work.predictions, work.submissions,
  work.remeasure_failures, work.test_sets, sealed.installation, sealed.test_sets, sealed.examples, sealed.labels,
  sealed.cells, sealed.row_sources, sealed.registry, sealed.row_holds, sealed.row_parts, sealed.row_values,
  work.requests, work.answers, work.gate_verdicts, work.meter_readings, work.promotions, work.production, work.alerts,
  work.feeds, work.fed_examples, work.refreshes, work.switches, work.quality_checks, work.heartbeats,
  sealed.predictions, sealed.attempts, sealed.put_offs, sealed.ledger, sealed.wanted, sealed.referees, sealed.claims,
  sealed.turns, sealed.outbox, sealed.mails, sealed.chains, sealed.chain, work.evidence, work.audit,
  work.artifact_store, work.restarts, work.catalogue, work.catalogue_changes, work.study_changes, work.assessments,
  work.change_requests TO easeml_referee;
GRANT INSERT ON work.curves, work.suggestions, work.predictions, work.assessments TO easeml_worker;
GRANT INSERT ON work.data_versions, work.data_parts, work.candidates, work.observations, work.models, work.test_sets,
  sealed.test_sets, sealed.examples, sealed.labels, sealed.cells, sealed.row_sources, sealed.registry,
  sealed.row_holds, work.answers, work.gate_verdicts, work.meter_readings, work.promotions, work.production,
  work.alerts, work.fed_examples, work.refreshes, work.heartbeats, sealed.predictions, sealed.attempts,
  sealed.put_offs, sealed.ledger, sealed.wanted, sealed.referees, sealed.claims, sealed.turns, sealed.outbox,
  sealed.mails, sealed.chains, sealed.chain, work.evidence, work.assessments TO easeml_referee;
GRANT UPDATE ON work.assessments TO easeml_worker;
GRANT UPDATE ON work.assessments TO easeml_referee;

-- Columns. To lock a row, a role needs the right to update one of its columns.
GRANT INSERT (name, weight), UPDATE (weight, max_parallel, quota_seconds) ON work.tenants TO easeml_worker;
GRANT INSERT (tenant_id, source, target) ON work.data_sets TO easeml_worker;
GRANT INSERT (name, tenant_id, data_set_id, metric, weight, budget_seconds, config, request_key, priority, deadline,
  target_quality, task, hit, program), UPDATE (state, weight, budget_seconds, priority, deadline, target_quality) ON
  work.studies TO easeml_worker;
GRANT UPDATE (state, program) ON work.studies TO easeml_referee;
GRANT INSERT (study_id, name, kind, parameters, devices) ON work.candidates TO easeml_worker;
GRANT INSERT (study_id, candidate_id, data_version_id, lease_until, device, limit_seconds, retries), UPDATE (state,
  attempt, lease_key, lease_until, progress, failure, cost_seconds, cancel_requested, started_at, finished_at, device,
  limit_seconds, lost_seconds, attempt_started_at, checkpoint, checkpoint_seconds, checkpoint_progress,
  resumed_seconds, last_key, last_try, executor, executor_details, failure_kind, beat_at, start_seconds) ON
  work.trials TO easeml_worker;
GRANT INSERT (study_id, candidate_id, data_version_id, state, cost_seconds, started_at, finished_at, device,
  limit_seconds, reevaluates) ON work.trials TO easeml_referee;
GRANT INSERT (trial_id, quality, cost_seconds, score) ON work.observations TO easeml_worker;
GRANT INSERT (trial_id, rung, step, of, quality, hoped, needed, known, rule, goes_on) ON work.rungs TO easeml_worker;
GRANT UPDATE (held) ON work.locks TO easeml_worker, easeml_referee;
GRANT INSERT (request_key, policy, requested, settings_id) ON work.suggestion_batches TO easeml_worker;
GRANT INSERT (request_key, requested, device, studies, functions, sources, trainers, runtimes, traceparent) ON
  work.suggestion_requests TO easeml_worker;
GRANT INSERT (implementation, study), UPDATE (asked_at) ON work.offers TO easeml_worker;
GRANT INSERT (study_id, data_version_id, trial_id, format, artifact, validation_loss, submitted) ON work.models TO
  easeml_worker;
GRANT UPDATE (removed_at, removed_why) ON work.models TO easeml_referee;
GRANT INSERT (study_id, model_id, kind, message, bundle, bundle_version, request_key) ON work.submissions TO
  easeml_worker;
GRANT INSERT (model_id, data_version_id, study_id, reason), UPDATE (tries, reason, tried_at) ON
  work.remeasure_failures TO easeml_referee;
GRANT UPDATE (data_version_id, state, rows, retired_at, labels_on_demand, retired_why, artifact) ON work.test_sets TO
  easeml_referee;
GRANT UPDATE (singleton) ON sealed.installation TO easeml_referee;
GRANT UPDATE (cell_names) ON sealed.test_sets TO easeml_referee;
GRANT UPDATE (labels) ON sealed.labels TO easeml_referee;
GRANT UPDATE (state, tokens) ON sealed.registry TO easeml_referee;
GRANT INSERT (request_key, kind, study_id, model_id, arguments) ON work.requests TO easeml_worker;
GRANT INSERT (request_key, kind, study_id, model_id, arguments), UPDATE (arguments) ON work.requests TO
  easeml_referee;
GRANT UPDATE (model_id, promotion_id) ON work.production TO easeml_referee;
GRANT UPDATE (cleared_at) ON work.alerts TO easeml_worker;
GRANT INSERT (study_id, request_key, artifact, rows, origin, fed_by) ON work.feeds TO easeml_worker;
GRANT UPDATE (state, reason) ON work.feeds TO easeml_referee;
GRANT UPDATE (feed_id) ON work.fed_examples TO easeml_referee;
GRANT INSERT (study_id, hash, is_on, reason, switched_by, request_key) ON work.switches TO easeml_worker;
GRANT UPDATE (refreshed_by) ON work.switches TO easeml_referee;
GRANT INSERT (trial_id, study_id, model_id, claimed, measured, tolerance, reason) ON work.quality_checks TO
  easeml_referee;
GRANT UPDATE (acknowledged_at, acknowledged_why) ON work.quality_checks TO easeml_worker;
GRANT UPDATE (beat_at, until) ON work.heartbeats TO easeml_referee;
GRANT UPDATE (survived) ON sealed.attempts TO easeml_referee;
GRANT UPDATE (examples, asked, is_open) ON sealed.wanted TO easeml_referee;
GRANT UPDATE (beat_at, until) ON sealed.referees TO easeml_referee;
GRANT UPDATE (referee_id, claimed_at) ON sealed.claims TO easeml_referee;
GRANT UPDATE (taken_at) ON sealed.turns TO easeml_referee;
GRANT UPDATE (left_at) ON sealed.outbox TO easeml_referee;
GRANT UPDATE (sent_at) ON sealed.mails TO easeml_referee;
GRANT UPDATE (opened_at) ON sealed.chains TO easeml_referee;
GRANT INSERT (store_id, place) ON work.artifact_store TO easeml_worker, easeml_referee;
GRANT INSERT (what, at) ON work.restarts TO easeml_referee;
GRANT UPDATE (taken) ON work.study_changes TO easeml_worker, easeml_referee;
