"""Everything a developer reads that is no table: pages, commands, results of tasks, events, mails, errors, logs."""

from __future__ import annotations

from alphabet.letters import Kind, Letter, Observable, items

_ROUTES = (
    *items(
        Kind.ROUTE,
        Letter.STATE,
        "The page shows studies, sets, submissions and acts as schema work holds them, and what follows from them.",
        """
        GET /
        GET /audit
        GET /audit.csv
        GET /studies/{study}
        GET /studies/{study}/lifecycle
        GET /studies/{study}/submissions
        GET /studies/{study}/gate
        GET /studies/{study}/meter
        GET /studies/{study}/data
        GET /studies/{study}/use
        GET /health
        GET /health/details
        GET /of-run
        GET /of-task
        """,
    ),
    *items(
        Kind.ROUTE,
        Letter.OPEN,
        "The page shows trials, devices and beliefs of the scheduler, which reads open results alone.",
        """
        GET /compute
        GET /compute/backtest.json
        GET /studies/{study}/decisions/{trial_id}
        GET /trials/{trial_id}
        """,
    ),
    *items(
        Kind.ROUTE,
        Letter.INPUT,
        "The route takes or shows what its caller enters, a file of the package, or rows of the open parts.",
        """
        GET /new
        GET /new/data
        GET /new/look
        GET /new/check
        GET /new/register
        POST /new/data
        POST /new/look
        POST /new/check
        POST /new/register
        GET /client/easeml_client.py
        GET /static/{name}
        GET /archived
        POST /studies/{study}/archive
        POST /studies/{study}/restore
        POST /studies/{study}/delete
        POST /studies/{study}/candidates/withdraw
        POST /studies/{study}/pause
        POST /studies/{study}/resume
        POST /studies/{study}/candidates
        POST /studies/{study}/trials/{trial_id}/cancel
        POST /studies/{study}/weight
        POST /studies/{study}/stops
        POST /studies/{study}/submissions
        POST /studies/{study}/use
        POST /studies/{study}/use/feed
        POST /studies/{study}/use/switch
        POST /studies/{study}/use/apply
        POST /compute/tenants/{tenant}
        POST /compute/release
        POST /compute/backtest
        POST /api/v1/tenants/{tenant}/studies/{study}
        POST /api/v1/studies/{study}/feed
        POST /api/v1/studies/{study}/refine
        GET /api/v1/studies/{study}/refine
        GET /api/v1/studies/{study}/feeds
        GET /api/v1/studies/{study}/requests/{request_id}
        """,
    ),
    *items(
        Kind.ROUTE,
        Letter.STATE,
        "The model in production, or the one that is named, answers on inputs of the caller.",
        "POST /api/v1/studies/{study}/infer",
    ),
    *items(
        Kind.ROUTE,
        Letter.NOTIFICATION,
        "The stream repeats notifications of studies that the reader may see.",
        "GET /events",
    ),
    *items(
        Kind.ROUTE,
        Letter.SEALED,
        "The route reads or changes schema sealed, and answers 403 without the role of a referee or labeler.",
        """
        GET /labels
        GET /labels/{study}
        GET /labels/{study}/wanted.csv
        POST /labels/{study}
        POST /labels/{study}/undo
        POST /labels/{study}/file
        POST /labels/{study}/decide
        POST /labels/{study}/again
        GET /studies/{study}/gate/ledger.csv
        GET /studies/{study}/meter/ledger.csv
        POST /studies/{study}/gate/promote
        POST /studies/{study}/gate/rollback
        POST /studies/{study}/gate/plan
        POST /studies/{study}/gate/retire
        POST /studies/{study}/gate/release
        POST /studies/{study}/gate/accept
        POST /studies/{study}/meter/accept
        POST /studies/{study}/data/retire
        POST /studies/{study}/data/release
        POST /studies/{study}/data/validate
        """,
    ),
)

_COMMANDS = (
    *items(
        Kind.COMMAND,
        Letter.STATE,
        "The command prints what schema work holds of sets, answers, alerts and acts, and what follows from it.",
        """
        alerts
        audit
        doctor
        infer
        metrics
        mlflow sync
        model list
        next
        status
        study list
        study show
        submissions
        test-set list
        validation show
        """,
    ),
    *items(
        Kind.COMMAND,
        Letter.SYMBOL,
        "The command asks the referee, and prints the answer or that there is none yet.",
        """
        gate ask
        model meter
        model promote
        model rollback
        promote
        promotion evidence
        rollback
        submit
        """,
    ),
    *items(
        Kind.COMMAND,
        Letter.OPEN,
        "The command reads open rows, trials and results on the open validation part.",
        """
        backtest
        costs
        device announce
        device list
        device run
        scheduler
        explain
        feed
        refine apply
        refine feeds
        refine list
        refine off
        refine on
        refine rank
        model show
        trial show
        """,
    ),
    *items(
        Kind.COMMAND,
        Letter.INPUT,
        "The command reads settings and what its caller enters, or files of the caller.",
        """
        artifacts move
        artifacts prune
        artifacts status
        artifacts sweep
        artifacts verify
        cache clear
        cache show
        candidate add
        candidate pack
        candidate restore
        candidate withdraw
        completion
        dags copy
        db artifacts
        db backup
        db create
        db note-restart
        db restore
        db start
        db upgrade
        db url
        gate decide
        gate plan
        gate attack
        gate selftest
        meter plan
        meter replay
        policy history
        policy set
        policy show
        program check
        program infer
        program match
        service install
        promotion verify
        simulate
        study archive
        study delete
        study pause
        study restore
        study register
        study resume
        study set
        tenant acknowledge
        tenant archive
        tenant delete
        tenant folder
        tenant list
        tenant login
        tenant logout
        tenant restore
        tenant set
        test-set fetch
        trial cancel
        trial retry
        """,
    ),
    *items(
        Kind.COMMAND,
        Letter.SEALED,
        "The command needs the address of the role easeml_referee.",
        """
        evidence acknowledge
        evidence keys
        evidence rotate
        evidence trust
        evidence verify
        labels conflicts
        labels give
        labels unsure
        labels wanted
        ledger
        referee
        test-set overlaps
        test-set plan
        test-set delete
        test-set release
        test-set retire
        test-set seal
        validation remeasure
        validation replace
        """,
    ),
)

_CLASSES = (
    *items(
        Kind.CLASS,
        Letter.SYMBOL,
        "The task returns the referee's answer.",
        "GateOperator, MeterOperator, PromoteModelOperator, RejectedModelOperator, ReleaseModelsOperator, "
        "RollbackModelOperator, "
        "ForcePromotionOperator, SubmitModelOperator",
    ),
    *items(
        Kind.CLASS,
        Letter.STATE,
        "The task returns what schema work holds, and what follows from it.",
        "BestModelsOperator, FedStudiesOperator, InferOperator, ListDevicesOperator, ListStudiesOperator, "
        "MlflowSyncOperator, WaitingSubmissionsOperator, TestSetReadySensor",
    ),
    *items(
        Kind.CLASS,
        Letter.ALERT,
        "The task ends with an alert, or acts on one.",
        "NewTestSetSensor, OverfittingMeterSensor, PauseOnAlertOperator",
    ),
    *items(
        Kind.CLASS,
        Letter.OPEN,
        "The task returns trials, results on open rows, or what became of fed rows.",
        "FeedOperator, RefineOperator, RegisterStudyOperator, RunDeviceOperator, SuggestTrialsOperator, "
        "TrainTrialOperator, TrialFinishedSensor, trial",
    ),
    *items(
        Kind.CLASS,
        Letter.NOTIFICATION,
        "The notification repeats an event, which follows from released symbols or open results.",
        "EasemlNotifier, FunctionNotifier, MailNotifier, WebhookNotifier, NotifyOperator",
    ),
)

_EVENTS = (
    *items(
        Kind.EVENT,
        Letter.SYMBOL,
        "The event holds the referee's answer.",
        "question answer",
    ),
    *items(
        Kind.EVENT,
        Letter.STATE,
        "The event holds how many of the requests of a task have an answer.",
        "trigger AnswersTrigger",
    ),
    *items(
        Kind.EVENT,
        Letter.ALERT,
        "The event holds an alert, or that none is open.",
        """
        question alert
        question alert-since
        question any
        question clear
        question new-test-set
        question new-test-set-since
        trigger AlertsTrigger
        news new-test-set
        news overfitting
        news drift
        """,
    ),
    *items(
        Kind.EVENT,
        Letter.STATE,
        "The event follows from a released symbol, an act of a person, or the state of a set.",
        """
        question test-set
        trigger EvidenceTrigger
        trigger ProductionTrigger
        news promotion
        news rollback
        news rejection
        """,
    ),
    *items(
        Kind.EVENT,
        Letter.OPEN,
        "The event follows from trials, open results and what developers hand in.",
        """
        question trial
        trigger SubmissionsTrigger
        news study-finished
        news budget-spent
        news not-held
        """,
    ),
)

_MAILS = (
    *items(
        Kind.MAIL,
        Letter.SEALED,
        "The mail goes to the address of the set's plan, which no developer reads.",
        "say, end_set",
    ),
)

_ERRORS = (
    *items(
        Kind.ERROR,
        Letter.RETRY,
        "This machine cannot start a sandbox or its child now, whatever the model and the inputs are.",
        "MachineError",
    ),
    *items(
        Kind.ERROR,
        Letter.RETRY,
        "Other trainings hold the GPUs of this host. The message names processes and trial ids, nothing of a study.",
        "DevicesHeldError",
    ),
    *items(
        Kind.ERROR,
        Letter.REFUSAL,
        "The message names what the caller gave and what schema work holds.",
        "InvalidInputError, ShapeError, ConfigError, ConditionSyntaxError, ProgramError, StateError, NotFoundError, "
        "AlreadyExistsError, TrialStateError, BudgetExhaustedError",
    ),
    *items(
        Kind.ERROR,
        Letter.REFUSAL,
        "Offline verdicts alone raise it: the message names examples of the caller's files.",
        "MissingLabelsError",
    ),
    *items(
        Kind.ERROR,
        Letter.REFUSAL,
        "The message holds the planner's size and the number of distinct inputs, both of which are public.",
        "SealedSetTooSmallError",
    ),
)

_LOGS = (
    *items(
        Kind.LOG,
        Letter.SEALED,
        "Only the referee's process runs this code with the role easeml_referee, and its log is the referee's.",
        """
        easeml_core.cli.referee
        easeml_core.services.evaluation.sealed_runs
        easeml_core.services.evidence.notary
        easeml_core.services.datasets.fetching
        easeml_core.services.referee.housekeeping
        easeml_core.services.gate.judge
        easeml_core.services.referee.claiming
        easeml_core.services.referee.publishing
        easeml_core.services.meter.reading
        easeml_core.services.evaluation.model_runs
        easeml_core.services.evaluation.backoff
        easeml_core.services.datasets.access
        easeml_core.services.referee.dispatch
        easeml_core.services.referee.process
        easeml_core.services.datasets.refresh
        easeml_core.services.test_sets.row_registry
        easeml_core.services.evaluation.reevaluation
        easeml_core.services.registration.sealing
        easeml_core.services.test_sets.lifecycle
        """,
    ),
    *items(
        Kind.LOG,
        Letter.NOTIFICATION,
        "The process holds no address of the referee, so its log lines hold what schema work holds.",
        """
        easeml_airflow.hooks.lineage
        easeml_airflow.params
        easeml_airflow.triggers.watcher
        easeml_airflow.web.server.airflow_runs
        easeml_core.services.models.dag_bundles
        easeml_core.services.operations.mlflow_sync
        easeml_core.services.operations.monitoring
        easeml_core.services.referee.release
        easeml_core.services.telemetry
        easeml_core.services.selection.policy
        easeml_core.services.selection.scheduler_process
        easeml_core.models.predict
        easeml_core.sandbox.child_start
        """,
    ),
)

INTERFACES: tuple[Observable, ...] = (*_ROUTES, *_COMMANDS, *_CLASSES, *_EVENTS, *_MAILS, *_ERRORS, *_LOGS)
"""Every observable item outside the database."""
