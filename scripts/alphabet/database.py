"""The database as the role ``easeml_worker`` sees it: tables, columns, allowed values, functions, notifications.

A table's own letter says on what the *existence* of its rows depends. Where rows exist because of a symbol, all their
columns have a letter with the basis ``released symbols`` or ``times``. What ``pg_catalog`` shows is compared as it is,
so only the parts that differ between any two installations stand here.
"""

from __future__ import annotations

from alphabet.letters import Kind, Letter, Observable, items


def _table(name: str, rows: Letter, why: str, **columns: str) -> tuple[Observable, ...]:
    """Give a table and all its columns their letters.

    Args:
        name: Table of schema ``work``.
        rows: Letter of the existence of rows.
        why: Reason for the table's letter, and for those of its columns.
        columns: Names of columns by their letter in lower case.
    """
    table = f"work.{name}"
    found = items(Kind.TABLE, rows, why, table)
    for letter, names in columns.items():
        found += items(Kind.COLUMN, Letter[letter.upper()], why, ",".join(names.split()), prefix=f"{table}.")
    return found


_TABLES = (
    *_table(
        "alembic_version", Letter.INPUT, "The schema's version is the same in all installations.", input="version_num"
    ),
    *_table(
        "alerts",
        Letter.ALERT,
        "An alert follows from a released signal or from the end of a set; developers clear it.",
        alert="id study_id request_id message kind test_set_id over_budget reading_id team",
        time="created_at cleared_at",
    ),
    *_table(
        "answers",
        Letter.STATE,
        "There is an answer once the referee released it, and its message holds a symbol or a refusal.",
        state="request_id",
        refusal="refused",
        symbol="message",
        time="answered_at",
    ),
    *_table(
        "artifact_store",
        Letter.INPUT,
        "The first command that uses a place sets it, and the owner changes it.",
        input="singleton store_id place set_by",
        time="set_at",
    ),
    *_table(
        "assessments",
        Letter.STATE,
        "What the overview shows of a study is counted from its trials, released symbols, alerts and moves.",
        state="study_id tenant_id tenant study shown standing urgency is_bad needs kinds holding best_quality rise "
        "running lost waiting ended_day judging due_weight charged open day_seconds day_running tenant_spent "
        "tenant_full facts",
        time="until queued_at day_since",
    ),
    *_table(
        "audit",
        Letter.STATE,
        "The audit holds acts of people and tasks, and answers, alerts and moves that follow from released symbols.",
        state="id who door role act study_id tenant_id before after reason",
        time="at",
    ),
    *_table(
        "candidates",
        Letter.INPUT,
        "Developers and the study's open data determine its candidates.",
        input="id study_id name kind parameters devices implementation withdrawn_why",
        time="withdrawn_at",
    ),
    *_table(
        "catalogue",
        Letter.INPUT,
        "The version counts changes of studies and candidates, for caches of the scheduler.",
        input="singleton version",
        time="changed_by",
    ),
    *_table(
        "catalogue_changes",
        Letter.INPUT,
        "A row for each transaction that has changed a study or a candidate, for caches of the scheduler.",
        time="xact",
    ),
    *_table(
        "change_requests",
        Letter.INPUT,
        "Tasks of a tenant's login ask to pause, archive or delete a study, or for the end of a trial.",
        input="id login study_id trial_id change actor door reason outcome refusal",
        time="filed_at ended_at",
    ),
    *_table(
        "curves",
        Letter.OPEN,
        "A learning curve is measured on open rows while a trial runs.",
        open="trial_id step of quality loss",
        time="seconds",
    ),
    *_table(
        "data_parts",
        Letter.INPUT,
        "Sizes of parts follow from the number of distinct inputs and from the plans.",
        input="data_version_id part",
        size="rows",
    ),
    *_table(
        "data_sets",
        Letter.INPUT,
        "The tenant names the source.",
        input="id tenant_id source target",
        time="created_at",
    ),
    *_table(
        "data_versions",
        Letter.INPUT,
        "A version is made when data are sealed or refreshed; its content hash is keyed by the installation's secret, "
        "and the names of all classes of the table are public, also of a class that occurs in sealed rows only.",
        input="id study_id data_set_id version content_hash artifact features class_names feature_names "
        "same_training_as layout goes_on_with",
        time="created_at",
    ),
    *_table(
        "evidence",
        Letter.STATE,
        "There is one row for each released symbol or signal, written when it leaves; its hashes cover secret nonces.",
        state="request_id study_id test_set_id",
        evidence="head audit_head envelope",
        time="left_at",
    ),
    *_table(
        "fed_examples",
        Letter.INPUT,
        "A row is fed by a developer; whether it lies in a sealed set depends on its inputs, never on its label.",
        input="study_id hash feed_id",
    ),
    *_table(
        "feeds",
        Letter.INPUT,
        "A feed is a developer's; its state follows from its inputs and the referee's rules on them.",
        input="id study_id request_key artifact rows origin fed_by state reason",
        time="fed_at",
    ),
    *_table(
        "gate_verdicts",
        Letter.SYMBOL,
        "There is one row for each released symbol, with the step that it used.",
        symbol="symbol",
        state="request_id kind study_id model_id incumbent_id test_set_id purpose step planned",
        cached="cached",
        time="decided_at",
    ),
    *_table(
        "locks",
        Letter.INPUT,
        "The rows are the same in all installations, and nothing changes them.",
        input="name held",
    ),
    *_table(
        "heartbeats",
        Letter.INPUT,
        "A referee's process writes at a fixed interval that it lives, whatever it works on, and its settings once.",
        input="referee_id workers answer_seconds",
        time="beat_at until",
    ),
    *_table(
        "scheduler_beats",
        Letter.INPUT,
        "A process of the scheduler, which reads nothing sealed, writes at a fixed interval that it lives.",
        input="id",
        time="started_at beat_at",
    ),
    *_table(
        "devices",
        Letter.INPUT,
        "A process that trains on open rows announces the devices of its host, at a fixed interval.",
        input="login tenants host name holder kind model memory_mb driver slots held",
        time="announced_at beat_at",
    ),
    *_table(
        "meter_readings",
        Letter.SYMBOL,
        "There is one row for each released signal, with the step that it used and what the plan leaves.",
        symbol="signal direct_signal drift",
        state="request_id kind study_id model_id test_set_id purpose step signals team edges tolerance "
        "submissions_left data_version_id direct_test_set_id direct_purpose",
        cached="cached",
        time="read_at",
    ),
    *_table(
        "models",
        Letter.INPUT,
        "Tasks and developers store models; the loss is that of the open validation part.",
        input="id study_id data_version_id trial_id format artifact submitted removed_why",
        open="validation_loss",
        time="created_at removed_at",
    ),
    *_table(
        "observations",
        Letter.OPEN,
        "Quality is measured on the open validation part, and the cost by the worker.",
        open="trial_id state quality cost_seconds score",
        time="observed_at",
    ),
    *_table(
        "offers",
        Letter.INPUT,
        "A task that asks for trials states what it can execute.",
        input="implementation study",
        time="asked_at",
    ),
    *_table(
        "predictions",
        Letter.OPEN,
        "The predictions are those on the open validation part.",
        open="model_id part labels",
    ),
    *_table(
        "production",
        Letter.STATE,
        "Production moves after a released pass, by a rollback or by force.",
        state="study_id model_id promotion_id",
    ),
    *_table(
        "promotions",
        Letter.STATE,
        "A promotion needs a released symbol, or is forced with a name and a reason.",
        state="id request_id kind study_id model_id gate_request_id planned restores who why",
        symbol="symbol",
        time="promoted_at",
    ),
    *_table(
        "quality_checks",
        Letter.OPEN,
        "A result is measured anew on the open validation part; a secret chooses which, and no label does.",
        open="trial_id study_id model_id claimed measured tolerance outcome reason acknowledged_why",
        time="checked_at acknowledged_at",
    ),
    *_table(
        "refreshes",
        Letter.INPUT,
        "A refresh is asked for by developers and made of open rows.",
        input="request_id study_id data_version_id off",
    ),
    *_table(
        "remeasure_failures",
        Letter.RETRY,
        "A model is measured again on the open validation part.",
        retry="model_id data_version_id study_id tries reason",
        time="tried_at",
    ),
    *_table(
        "requests",
        Letter.INPUT,
        "Requests are filed by developers and tasks.",
        input="id request_key kind study_id model_id arguments requested_by",
        time="requested_at",
    ),
    *_table(
        "restarts",
        Letter.INPUT,
        "Operators restart the installation; the database server says when it started.",
        input="id what reason",
        time="at",
    ),
    *_table(
        "rungs",
        Letter.OPEN,
        "Whether a training goes on follows from learning curves on open rows.",
        open="trial_id rung step of quality hoped needed known rule goes_on",
        time="decided_at",
    ),
    *_table(
        "selection_settings",
        Letter.INPUT,
        "The owner sets the policy; a backtest reads open results alone.",
        input="id config reason report created_by",
        time="created_at",
    ),
    *_table(
        "study_changes",
        Letter.STATE,
        "Trials, answers, alerts and moves log that a study has changed, until an overview has taken it in.",
        state="study_id taken",
    ),
    *_table(
        "studies",
        Letter.INPUT,
        "A tenant registers a study; sealing makes it active before any label is used.",
        input="id name tenant_id data_set_id state metric weight budget_seconds config request_key priority deadline "
        "target_quality task hit program archived_from archived_why",
        time="created_at active_since archived_at",
    ),
    *_table(
        "submissions",
        Letter.INPUT,
        "Developers hand models in.",
        input="id study_id model_id kind message bundle bundle_version request_key submitted_by submitted",
        time="submitted_at",
    ),
    *_table(
        "suggestion_batches",
        Letter.OPEN,
        "The scheduler reads open results alone.",
        open="id request_key policy requested settings_id",
        time="created_at",
    ),
    *_table(
        "suggestion_requests",
        Letter.INPUT,
        "Tasks and devices ask for trials; the scheduler refuses what names no study of the caller's.",
        input="id request_key login requested device studies functions sources trainers runtimes traceparent tries "
        "refusal",
        time="filed_at decided_at",
    ),
    *_table(
        "suggestions",
        Letter.OPEN,
        "The scheduler reads open results alone.",
        open="batch_id position trial_id reasons rival",
    ),
    *_table(
        "switches",
        Letter.INPUT,
        "Developers switch rows of the open training part off and on.",
        input="id study_id hash is_on reason switched_by request_key refreshed_by",
        time="switched_at",
    ),
    *_table(
        "tenant_logins",
        Letter.INPUT,
        "Operators give tenants logins; a worker reads whether there are any.",
        input="login tenant_id made_by",
        time="made_at",
    ),
    *_table(
        "tenants",
        Letter.INPUT,
        "Operators name tenants and set their limits.",
        input="id name weight max_parallel quota_seconds archived_why",
        time="created_at archived_at",
    ),
    *_table(
        "test_sets",
        Letter.INPUT,
        "The referee plans and seals sets; which of them is live, and why one ended, follows from the symbols.",
        input="id study_id data_version_id purpose plan name labels_on_demand artifact",
        size="rows steps",
        state="state retired_why",
        time="created_at retired_at deleted_at",
    ),
    *_table(
        "trials",
        Letter.INPUT,
        "Trials are suggested, trained and ended by tasks on open data.",
        input="id study_id candidate_id data_version_id state lease_key progress failure cancel_requested device "
        "limit_seconds reevaluates checkpoint checkpoint_progress last_key executor executor_details failure_kind "
        "retries retries_kind lease_hash lease_login",
        retry="attempt last_try excused",
        time="beat_at lease_until cost_seconds suggested_at started_at finished_at lost_seconds attempt_started_at "
        "checkpoint_seconds resumed_seconds start_seconds charged_seconds ended_xact",
    ),
)

_VALUES = (
    *items(
        Kind.VALUE,
        Letter.SYMBOL,
        "The symbols of the gate.",
        "pass, fail, withheld",
        prefix="work.gate_verdicts.symbol=",
    ),
    *items(
        Kind.VALUE,
        Letter.SYMBOL,
        "A comparison of two released signals.",
        "none seen, likely, certain",
        prefix="work.meter_readings.drift=",
    ),
    *items(
        Kind.VALUE,
        Letter.STATE,
        "A promotion takes over the symbol of its verdict, unless that was a fail.",
        "pass, withheld",
        prefix="work.promotions.symbol=",
    ),
    *items(
        Kind.VALUE, Letter.INPUT, "Purpose of the judging set.", "gate, joint", prefix="work.gate_verdicts.purpose="
    ),
    *items(
        Kind.VALUE, Letter.INPUT, "Purpose of the reading set.", "meter, joint", prefix="work.meter_readings.purpose="
    ),
    *items(
        Kind.VALUE,
        Letter.STATE,
        "The referee plans, seals and releases a set; which set is live follows from the symbols.",
        "planned, sealed, live, retired, released",
        prefix="work.test_sets.state=",
    ),
    *items(
        Kind.VALUE,
        Letter.STATE,
        "What is next of a study follows from its trials and from released symbols.",
        "needs, searching, finished, paused",
        prefix="work.assessments.standing=",
    ),
    *items(
        Kind.VALUE,
        Letter.STATE,
        "The end of a set follows from the steps used, the released symbols, the plan, inputs that sets share, or an "
        "act of the referee.",
        "steps, changes, tolerance, by hand, signals, regulation, failure, overlap",
        prefix="work.test_sets.retired_why=",
    ),
    *items(
        Kind.VALUE,
        Letter.ALERT,
        "Each alert follows from a released signal or the end of a set.",
        "overfitting, new-test-set, drift",
        prefix="work.alerts.kind=",
    ),
)

_FUNCTIONS = (
    *items(
        Kind.FUNCTION,
        Letter.INPUT,
        "A trigger's function runs on rows of schema work and cannot be called by itself.",
        """
        audit_acknowledged, audit_alert, audit_answer, audit_candidate, audit_feed, audit_is_kept, audit_limits,
        audit_policy,
        audit_promotion, audit_quality, audit_request, audit_retry, audit_study, audit_submission, audit_switches,
        audit_set_deleted, audit_tenant, audit_withdrawal, is_open_for_more, production_is_open, requests_have_a_file,
        audit_test_set, audit_trial, audit_validation, catalogue_changed, changes_taken, study_changed,
        studies_changed, tenant_changed, observation_changed, answer_changed, restarts_of_referee, settings_are_kept,
        studies_active_since, studies_forward, studies_within_limits, suggestion_requests_check,
        tenants_within_limits, test_sets_forward, candidates_of_tenants, rows_of_tenants, observations_by_lease,
        trials_by_lease, trials_lease_ends, trials_checkpoint_spent, trials_ended_now, trials_excuse,
        trials_executor_kept, trials_forward, trials_within_limits
        """,
        prefix="work.",
    ),
    *items(
        Kind.FUNCTION,
        Letter.INPUT,
        "The function computes from its arguments and from tables of schema work, as the role that calls it.",
        "add_decision, asker, audit_asker, audit_word, caller, charge, check_budget, check_parallel, check_quota, "
        "device_fits, device_weight, kind_of_caller, lease, lease_seconds, look, queue_place, refuse, seen, "
        "was_restarted",
        prefix="work.",
    ),
)

_FUNCTIONS += (
    *items(
        Kind.FUNCTION,
        Letter.INPUT,
        "The function reads or changes tables of schema work, with its owner's rights; where it deletes a study or a "
        "tenant, what it calls removes the claims and turns of theirs, which hold times alone.",
        "announce_device, rival_of, change_study, change_tenant, set_candidate_withdrawn",
        prefix="work.",
    ),
)

_TOPICS = (
    *items(
        Kind.TOPIC,
        Letter.NOTIFICATION,
        "The topic is notified where an answer, an alert, a move of production or a change of state is committed.",
        "CHANNEL answer, CHANNEL alert, CHANNEL evidence, CHANNEL production, CHANNEL study",
    ),
    *items(
        Kind.TOPIC,
        Letter.INPUT,
        "The topic is notified by tasks, developers, the scheduler, or a referee that measured a model on open rows.",
        "CHANNEL trial, CHANNEL submission, NEWS_CHANNEL study, REFEREE_CHANNEL request, "
        "REFEREE_CHANNEL study, SCHEDULER_CHANNEL suggestions, DECISIONS_CHANNEL suggestions",
    ),
    *items(
        Kind.TOPIC,
        Letter.INPUT,
        "The channel is notified by a function of the database when a tenant's login asks for a change.",
        "SQL easeml_scheduler",
    ),
    *items(
        Kind.TOPIC,
        Letter.SEALED,
        "The channel's name is derived from the installation's secret, so no other role can listen to it.",
        "private_channel request, private_channel labels",
    ),
)

_CATALOGUE = (
    *items(
        Kind.CATALOGUE,
        Letter.INPUT,
        "The relation describes the server and its databases, the reader's own session, or the version of PostgreSQL.",
        """
        pg_database, pg_db_role_setting, pg_cursors, pg_prepared_statements, pg_settings, pg_stat_ssl,
        pg_stat_gssapi, pg_shdepend, pg_timezone_names, pg_timezone_abbrevs, pg_prepared_xacts, pg_roles, pg_group,
        pg_user, pg_available_extensions, pg_available_extension_versions
        """,
    ),
    *items(
        Kind.CATALOGUE,
        Letter.INPUT,
        "The function gives the time, a random value, or a fact of the reader's own session.",
        """
        clock_timestamp(), now(), statement_timestamp(), timeofday(), transaction_timestamp(), random(),
        gen_random_uuid(), uuidv4(), uuidv7(), current_database(), inet_client_port(), pg_backend_pid(),
        pg_export_snapshot(), pg_my_temp_schema()
        """,
    ),
    *items(
        Kind.CATALOGUE,
        Letter.LABEL_COUNT,
        "The server counts transactions; how many the referee makes depends on labels only where `sampling: early` "
        "asks for labels on demand, batch after batch.",
        """
        pg_current_xact_id(), pg_current_xact_id_if_assigned(), pg_current_snapshot(), txid_current(),
        txid_current_if_assigned(), txid_current_snapshot()
        """,
    ),
    *items(
        Kind.CATALOGUE,
        Letter.STATE,
        "The system columns of a table show in which order, and in which transactions, its rows were written.",
        "ctid and xmin",
    ),
    *items(
        Kind.CATALOGUE,
        Letter.STATE,
        "The functions that give sizes are closed (docs/install.md); the sizes grow by the entries of requests.",
        "sizes of sealed tables",
    ),
    *items(
        Kind.CATALOGUE,
        Letter.TIME,
        "The column holds transaction numbers of the server's maintenance.",
        "pg_class.relfrozenxid, pg_class.relminmxid",
    ),
    *items(
        Kind.CATALOGUE,
        Letter.SIZE,
        "Maintenance counts rows and pages of a table; a separate test covers what it counts of sealed tables.",
        "pg_class.reltuples, pg_class.relpages, pg_class.relallvisible, pg_class.relallfrozen",
    ),
)

DATABASE: tuple[Observable, ...] = (*_TABLES, *_VALUES, *_FUNCTIONS, *_TOPICS, *_CATALOGUE)
"""Every observable item of the database."""
