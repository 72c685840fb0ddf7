"""Retrain every tenant's study each night, and release what passes.

Three rounds: the scheduler suggests the next trials over all studies, each is trained in its own task in the pool
that stands for the devices. Then, for every study whose best model is not the one in production, the gate judges it
on the sealed set; a pass is promoted. The overfitting meter reads beside the gate, so a rejected model is metered
too. A failed trial or a rejected model of one tenant does not stop the others.

When: each night at one (UTC); by hand whenever the devices are free. When every candidate has run, a night trains
nothing and succeeds.

Afterwards: what passed is in production, what failed is a red task `gate`, a failed trial is a red task `train`; the
next night goes on from what was learnt.

With more than some hundreds of studies take `easeml_night_at_scale`: Airflow maps over 1,024 studies at most.

Needs: the connection of `[easeml] conn_id`, the pool `easeml_devices`, the referee's process, and the studies
registered once (`easeml_register_study`).

More: docs/operators.md (Rounds or stream), docs/selection.md, docs/gate.md.
"""

from datetime import timedelta

from airflow.sdk import DAG, task_group
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import params
from easeml_airflow.operators import (
    BestModelsOperator,
    GateOperator,
    MeterOperator,
    PromoteModelOperator,
    SuggestTrialsOperator,
    TrainTrialOperator,
)

ROUNDS = 3
FORM = {
    "trials_per_round": params.optional(
        "Trials in one round",
        "How many trials each of the three rounds suggests. Empty: as many as live devices can take, at least six.",
        "integer",
        minimum=1,
        maximum=256,
    ),
    "policy": params.policy(),
}

with DAG(
    dag_id="easeml_nightly_retraining",
    schedule=CronTriggerTimetable("0 1 * * *", timezone="UTC", run_immediately=timedelta()),  # never for a past night
    catchup=False,
    max_active_runs=1,
    max_active_tasks=1000,  # the pool is the limit; at the default of 16, the 17th device would have nothing to do
    dagrun_timeout=timedelta(hours=12),
    default_args={
        "easeml_conn_id": None,  # that of [easeml] conn_id; a team names the connection with its login
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=1),
    },
    params=FORM,
    doc_md=params.explained(__doc__, FORM),
    tags=["easeml"],
) as dag:
    trained = None
    for number in range(1, ROUNDS + 1):
        suggest = SuggestTrialsOperator(
            task_id=f"suggest_{number}",
            count=params.value(dag, "trials_per_round"),
            at_least=6,
            policy=params.value(dag, "policy"),
            trigger_rule="all_done",  # a failed trial, or an empty round, must not end the night
        )
        if trained is not None:
            trained >> suggest
        trained = TrainTrialOperator.partial(
            task_id=f"train_{number}",
            pool="easeml_devices",
            map_index_template="{{ task.trial['study'] }}: {{ task.trial['candidate'] }}",
        ).expand(trial=suggest.output)

    best = BestModelsOperator(task_id="best_models", trigger_rule="all_done")
    trained >> best

    @task_group(default_args={"map_index_template": "{{ task.study }}"})
    def release(study, model_id, quality):
        """Judge one study's best model; promote it on a pass, meter it in any case."""
        gate = GateOperator(task_id="gate", study=study, model_id=model_id)
        PromoteModelOperator(
            task_id="promote", study=study, model_id=model_id, gate_request_id=gate.output["request_id"]
        )
        MeterOperator(task_id="meter", study=study, model_id=model_id)

    release.expand_kwargs(best.output)
