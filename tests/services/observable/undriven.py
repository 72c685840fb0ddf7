"""What the two worlds do not drive, each with the reason; all else that exists must be driven, and nothing here may be.

``surfaces.py`` lists what exists, from the commands' parser, the routes, the schema, the plugin's classes and the
settings; the worlds record what they drove. A new command, parameter, route, column, class or setting is in neither
list and turns ``test_observable_worlds.py`` red, as an entry does here that is driven by now, or that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from alphabet import Kind


@dataclass(frozen=True, slots=True)
class Undriven:
    """One thing that exists and that no world looks at.

    Attributes:
        kind: Of the alphabet; None for a setting of a study or of the referee.
        name: As the alphabet has it; for a parameter the command, route or class, a space, and the parameter; for all
            columns of a table ``schema.table.*``.
        why: The reason, in one sentence.
    """

    kind: Kind | None
    name: str
    why: str


def _undriven(kind: Kind | None, why: str, *names: str) -> tuple[Undriven, ...]:
    return tuple(Undriven(kind, name, why) for name in names)


UNDRIVEN: tuple[Undriven, ...] = (
    *_undriven(
        None,
        "An hour of the day is another time at which the same code lets an answer leave, and none would leave here.",
        "answers.hour is set",
    ),
    *_undriven(
        Kind.COMMAND,
        "The command sends to an MLflow server what tables of schema work hold, and these are compared.",
        "mlflow sync",
    ),
    *_undriven(
        Kind.COMMAND,
        "The command prints sums over tables of schema work, which are compared, and ages, which differ.",
        "metrics",
    ),
    *_undriven(
        Kind.COMMAND,
        "The command needs an address that sees all tenants: it gives logins their rows, or moves their files.",
        *("tenant login", "tenant logout", "artifacts move", "artifacts prune", "artifacts sweep"),
        *("artifacts status", "artifacts verify"),
        *("tenant archive", "tenant restore", "tenant delete"),
    ),
    *_undriven(
        Kind.COMMAND,
        "The command sets rights of a folder of this machine, for a group that it names.",
        "tenant folder",
    ),
    *_undriven(
        Kind.COMMAND,
        "The command refuses every set of these worlds, since they have served.",
        "test-set delete",
    ),
    *_undriven(
        Kind.COMMAND,
        "The command finds nothing to change: these worlds measure no result again, which reads no sealed label.",
        "tenant acknowledge",
    ),
    *_undriven(
        Kind.COMMAND,
        "The process needs a role that suggests, and answers with what the scheduler does, which devices here run.",
        "scheduler",
    ),
    *_undriven(
        Kind.COMMAND,
        "The process writes rows that a device of these worlds writes as well, until a signal ends it.",
        "device announce",
    ),
    *_undriven(
        Kind.COLUMN,
        "The table has no rows: the role of these worlds suggests by itself and files no request.",
        "work.scheduler_beats.*",
        "work.suggestion_requests.*",
        "work.change_requests.*",
        "work.tenant_logins.*",
    ),
    *_undriven(
        Kind.TOPIC,
        "A function notifies it where a tenant's login asks for a change; these worlds have none.",
        "SQL easeml_scheduler",
    ),
    *_undriven(
        Kind.COMMAND,
        "The command makes the roles and an empty database, in which nothing is sealed.",
        "db create",
    ),
    *_undriven(
        Kind.CLASS,
        "The task sends to an MLflow server what tables of schema work hold, and these are compared.",
        "MlflowSyncOperator",
    ),
    *_undriven(
        Kind.COMMAND,
        "The command has no address of a database: it reads options and files of its caller.",
        *(
            "cache clear",
            "cache show",
            "completion",
            "dags copy",
            "db start",
            "db url",
            "evidence keys",
            "evidence trust",
        ),
        *("gate attack", "gate decide", "gate plan", "gate selftest", "meter plan", "meter replay", "program check"),
        *("program infer", "program match", "promotion verify", "service install", "simulate"),
    ),
    *_undriven(
        Kind.COMMAND,
        "The option needs a running Airflow, which is asked for its health and its DAGs.",
        "doctor --airflow",
    ),
    *_undriven(
        Kind.COMMAND,
        "The option repeats the checks that the command without it makes, until it is interrupted.",
        "doctor --watch",
    ),
    *_undriven(
        Kind.COLUMN,
        "The table has no rows: the worlds train nothing, switch no row off, measure no model again and keep the "
        "policy, none of which reads a sealed label.",
        *("work.curves.*", "work.predictions.*", "work.rungs.*", "work.switches.*", "work.remeasure_failures.*"),
        "work.quality_checks.*",
        "work.selection_settings.*",
    ),
    *_undriven(
        Kind.TOPIC,
        "It is sent where a trial, a study or a validation set changes, and the worlds are listened to while the "
        "referee answers.",
        *("CHANNEL trial", "NEWS_CHANNEL study", "REFEREE_CHANNEL study"),
    ),
    *_undriven(
        Kind.TOPIC,
        "The role of these worlds suggests by itself, so no process of the scheduler is asked.",
        *("SCHEDULER_CHANNEL suggestions", "DECISIONS_CHANNEL suggestions"),
    ),
    *_undriven(
        Kind.LOG,
        "The role of these worlds suggests by itself, so no process of the scheduler logs anything.",
        "easeml_core.services.selection.scheduler_process",
    ),
    *_undriven(
        Kind.LOG,
        "The module logs a fault of a policy that a user has installed, and the worlds keep the default policy.",
        "easeml_core.services.selection.policy",
    ),
    *_undriven(
        Kind.LOG,
        "The module logs a fault of Airflow, MLflow, a repository, a model or the machine, and the worlds have none.",
        *("easeml_airflow.hooks.lineage", "easeml_airflow.params", "easeml_airflow.triggers.watcher"),
        "easeml_airflow.web.server.airflow_runs",
        *("easeml_core.services.models.dag_bundles", "easeml_core.services.operations.mlflow_sync"),
        *("easeml_core.models.predict", "easeml_core.sandbox.child_start"),
        *("easeml_core.services.operations.monitoring", "easeml_core.services.telemetry"),
    ),
    *_undriven(
        Kind.LOG,
        "The module logs that a study was archived while requests were filed, and the worlds archive none then.",
        "easeml_core.services.referee.release",
    ),
    *_undriven(
        Kind.VALUE,
        "At the end every study of the worlds needs a person; the page of the overview was compared before, too.",
        "work.assessments.standing=finished",
        "work.assessments.standing=paused",
        "work.assessments.standing=searching",
    ),
    *_undriven(
        Kind.VALUE,
        "The worlds have no drift, no damaged set and no sets that share inputs, and a set that a referee plans, seals "
        "or releases is no answer.",
        "work.alerts.kind=drift",
        "work.meter_readings.drift=certain",
        "work.meter_readings.drift=likely",
        "work.test_sets.retired_why=failure",
        "work.test_sets.retired_why=signals",
        "work.test_sets.retired_why=overlap",
        "work.test_sets.state=planned",
        "work.test_sets.state=sealed",
        "work.test_sets.state=released",
        "work.promotions.symbol=withheld",
    ),
    *_undriven(
        Kind.CLASS,
        "The task takes rows or the path of a file, and rows are driven.",
        "FeedOperator path",
        "InferOperator path",
    ),
    *_undriven(
        Kind.CLASS,
        "What a study is registered with is a setting of the studies here, which the same service registers.",
        *(
            f"RegisterStudyOperator {argument}"
            for argument in (
                *("budget_seconds", "candidates", "deadline", "direct", "gate", "grid", "hit", "joint", "keep"),
                *("meter", "metric", "priority", "program", "split", "target_quality", "task", "training", "weight"),
            )
        ),
    ),
    *_undriven(
        Kind.CLASS,
        "The class is the base of the notifiers that are driven, and tells nothing itself.",
        "EasemlNotifier",
    ),
)
"""Everything that is not driven."""
