"""Keep every device busy: each trains one trial after the other, and none waits for the slowest.

One task is one device. As soon as it is free, it asks the scheduler for the next trial over all studies, with
everything in mind that all devices have learnt so far. A failed trial is recorded and stops no other trial. A
task that is killed releases its trial, and its next try resumes it from the last checkpoint.

When: by hand, for a day of training. Each task holds its slot of the pool until it ends: with
`easeml_nightly_retraining` at work, a night's trials wait for the devices.

Afterwards: it ends when nothing is left to train, or at a limit of the form. What comes out is gated and promoted by
`easeml_nightly_retraining`, or by hand with `easeml_commit_gate`.

Needs: the connection of `[easeml] conn_id`, the pool `easeml_devices` with a slot per device, as many workers, and the
studies registered once (`easeml_register_study`).

More: docs/operators.md (Rounds or stream), docs/selection.md.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from easeml_airflow import params
from easeml_airflow.operators import ListDevicesOperator, RunDeviceOperator

FORM = {
    "devices": params.devices(),
    "time_limit_minutes": Param(
        480,
        title="Time limit in minutes",
        type="integer",
        minimum=1,
        maximum=1440,
        description="No trial begins after so many minutes; one that runs then goes on to its end.",
    ),
    "max_trials": params.optional(
        "Most trials", "How many trials one device trains at most. Empty: no limit.", "integer", minimum=1
    ),
    "policy": params.policy(),
}

with DAG(
    dag_id="easeml_stream",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    max_active_tasks=1000,  # the pool is the limit; at the default of 16, the 17th device would have nothing to do
    default_args={
        "easeml_conn_id": None,  # that of [easeml] conn_id; a team names the connection with its login
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=25),  # longer than the longest time limit and one trial
    },
    params=FORM,
    doc_md=params.explained(__doc__, FORM),
    tags=["easeml"],
) as dag:
    devices = ListDevicesOperator(task_id="devices", devices=params.value(dag, "devices"), otherwise=["cpu", "cpu"])
    RunDeviceOperator.partial(
        task_id="run_device",
        pool="easeml_devices",
        policy=params.value(dag, "policy"),
        until="{{ params.time_limit_minutes * 60 }}",
        max_trials=params.value(dag, "max_trials"),
        map_index_template="{{ task.device }}",
    ).expand(device=devices.output)
