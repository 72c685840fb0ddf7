"""Retrain thousands of studies each night, and release what passes: in few tasks, however many studies there are.

First one task a device, each of which trains one trial after the other over all studies until the night's time for
training is over or nothing is left, so that no device waits for the slowest trial of a round. Then the best models that
wait for a verdict, in chunks: one task a chunk asks the gate and the meter about all its studies, waits without a
worker, and promotes what passes. A failed trial or a rejected model of one tenant does not stop the others.

When: each night at one (UTC), in place of `easeml_nightly_retraining`, which has a group of tasks for each study. Take
that one for up to some hundreds of studies, this one for more; switch on one of the two.

Afterwards: what passed is in production. A chunk with a rejected or refused study is a red task `release`; its log and
its XCom `released` have a line for each study, and the page of each study has its verdict.

Needs: the connection of `[easeml] conn_id`, the pool `easeml_devices` with a slot per device, as many workers, the
referee's process, and the studies registered once (`easeml_register_study`).

More: docs/operators.md (A night for thousands of studies), docs/gate.md.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import params
from easeml_airflow.operators import BestModelsOperator, ListDevicesOperator, ReleaseModelsOperator, RunDeviceOperator

FORM = {
    "devices": params.devices(),
    "time_limit_minutes": Param(
        360,
        title="Time for training in minutes",
        type="integer",
        minimum=1,
        maximum=600,
        description="No trial begins after so many minutes; one that runs then goes on to its end.",
    ),
    "max_trials": params.optional(
        "Most trials", "How many trials one device trains at most. Empty: no limit.", "integer", minimum=1
    ),
    "chunk_size": Param(
        200,
        title="Studies in one chunk",
        type="integer",
        minimum=1,
        maximum=1000,
        description="How many studies one task releases at most. Airflow takes up to 1,024 chunks.",
    ),
    "policy": params.policy(),
}

# Seconds that are left of the night's time for training: a further try of a device gets no further time.
LEFT = """{{ [0, params.time_limit_minutes * 60
    - (macros.datetime.now(dag_run.start_date.tzinfo) - dag_run.start_date).total_seconds()] | max }}"""

with DAG(
    dag_id="easeml_night_at_scale",
    schedule=CronTriggerTimetable("0 1 * * *", timezone="UTC", run_immediately=timedelta()),  # never for a past night
    catchup=False,
    max_active_runs=1,
    max_active_tasks=1000,  # the pool is the limit; at the default of 16, the 17th device would have nothing to do
    dagrun_timeout=timedelta(hours=18),
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
    devices = ListDevicesOperator(task_id="devices", devices=params.value(dag, "devices"), otherwise=["cpu", "cpu"])
    trained = RunDeviceOperator.partial(
        task_id="train",
        pool="easeml_devices",
        policy=params.value(dag, "policy"),
        until=LEFT,
        max_trials=params.value(dag, "max_trials"),
        map_index_template="{{ task.device }}",
        execution_timeout=timedelta(hours=12),  # longer than the longest time limit and one trial
    ).expand(device=devices.output)

    best = BestModelsOperator(
        task_id="best_models", chunk_size=params.value(dag, "chunk_size"), trigger_rule="all_done"
    )
    trained >> best
    ReleaseModelsOperator.partial(task_id="release", map_index_template="{{ task.span }}").expand(models=best.output)
