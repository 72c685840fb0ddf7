"""Take in what was fed: retrain the studies that new pairs have touched, and release what passes.

The studies are found to which pairs were fed, or in which rows were switched off or on, and which are not yet trained
and released on them. The referee makes a new data version of each. Then every device trains one candidate of these
studies after the other until all have run, for eight hours at most; no other study gets a trial. What is better than
the model in production is judged by the gate and promoted on a pass.

When: each night at half past midnight (UTC), or by hand right after a large feed. Where nothing was fed, nothing is
done. A study that a run did not bring to its end, since the referee was away, the time was up or a task failed, is
taken up by the next run, or by the same one where it is cleared.

Afterwards: the studies stand on their new data version; what passed is in production, what failed is a red task
`gate`.

Needs: the connection of `[easeml] conn_id`, the pool `easeml_devices` with a slot per device, the referee's process,
and studies with fed rows (`easeml feed`, `FeedOperator`, or the service of the page).

More: docs/feed-refine-infer.md, docs/operators.md.
"""

from datetime import timedelta

from airflow.sdk import DAG, task, task_group
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import params
from easeml_airflow.operators import (
    BestModelsOperator,
    FedStudiesOperator,
    GateOperator,
    ListDevicesOperator,
    MeterOperator,
    PromoteModelOperator,
    RefineOperator,
    RunDeviceOperator,
)

FORM = {"devices": params.devices()}

# Seconds left of the run's time for training: a further try of a device gets no further time. The release has the rest
# of the run's twelve hours, less the last trial.
LEFT = """{{ [0, 8 * 3600
    - (macros.datetime.now(dag_run.start_date.tzinfo) - dag_run.start_date).total_seconds()] | max }}"""

with DAG(
    dag_id="easeml_feed_retraining",
    schedule=CronTriggerTimetable("30 0 * * *", timezone="UTC", run_immediately=timedelta()),  # never for a past night
    catchup=False,
    max_active_runs=1,
    max_active_tasks=1000,  # the pool is the limit; at the default of 16, the 17th device would have nothing to do
    dagrun_timeout=timedelta(hours=12),
    default_args={
        "easeml_conn_id": None,  # that of [easeml] conn_id; a team names the connection with its login
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=1),
        "trigger_rule": "all_done_min_one_success",  # one study that cannot be refreshed, or trained, stops no other
    },
    params=FORM,
    doc_md=params.explained(__doc__, FORM),
    tags=["easeml"],
) as dag:
    fed = FedStudiesOperator(task_id="fed_studies")
    refresh = RefineOperator.partial(task_id="refresh", map_index_template="{{ task.study }}").expand(study=fed.output)

    live = ListDevicesOperator(task_id="live_devices", devices=params.value(dag, "devices"))

    @task(execution_timeout=timedelta(minutes=5))
    def devices(studies, live):
        """The devices, to map one task over each; none where nothing is to be trained."""
        return live if studies else []

    train = RunDeviceOperator.partial(
        task_id="train",
        pool="easeml_devices",
        studies=fed.output,
        until=LEFT,
        execution_timeout=timedelta(hours=10),  # longer than the time for training and one trial
        map_index_template="{{ task.device }}",
    ).expand(device=devices(fed.output, live.output))
    best = BestModelsOperator(task_id="best_models", studies=fed.output)
    refresh >> train >> best

    @task_group(default_args={"map_index_template": "{{ task.study }}", "trigger_rule": "all_success"})
    def release(study, model_id, quality):
        """Judge one study's best model; promote it on a pass, meter it in any case."""
        gate = GateOperator(task_id="gate", study=study, model_id=model_id)
        PromoteModelOperator(
            task_id="promote", study=study, model_id=model_id, gate_request_id=gate.output["request_id"]
        )
        MeterOperator(task_id="meter", study=study, model_id=model_id)

    release.expand_kwargs(best.output)
