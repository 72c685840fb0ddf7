"""Watch the overfitting meters of all studies; an alert fails this DAG's run.

The sensor waits in the triggerer, where it needs no worker, for the next alert that no run of this DAG has reported; no
alert between two runs is lost. The alert's message says what to do.

When: leave it switched on. By hand: choose whether a study is paused. A run watches all studies, since Airflow allows
one at a time: to watch one alone, give the sensor of a copy its name. This DAG does not see alerts of teams that share
a meter set, since no team may learn the signals of another one: each team needs a separate sensor with `study` and
`team`. `easeml_test_set_watch` watches sets that are used up.

Afterwards: when the alert says that the study's overfitting budget is exceeded, its search is paused: it gets no new
trial until its developer has handled the alert and called `easeml study resume`. Drift pauses nothing: where a second
validation sample shows that validation and test data differ, the alert says which validation data to get. A day
without an alert ends the run as skipped, and the next run continues to watch.

Needs: the connection of `[easeml] conn_id`.

More: docs/meter.md, docs/operators.md (Overfitting), docs/operations.md (Notifications).
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param, task

from easeml_airflow import params
from easeml_airflow.operators import PauseOnAlertOperator
from easeml_airflow.sensors import OverfittingMeterSensor

FORM = {
    "pause": Param(
        True,
        title="Pause the search",
        type="boolean",
        description="Whether a study whose overfitting budget is exceeded gets no new trial until it is resumed.",
    ),
}

with DAG(
    dag_id="easeml_overfitting_watch",
    schedule="@continuous",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={
        "easeml_conn_id": None,  # that of [easeml] conn_id; a team names the connection with its login
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
    },
    params=FORM,
    doc_md=params.explained(__doc__, FORM),
    tags=["easeml"],
) as dag:
    watch = OverfittingMeterSensor(
        task_id="watch",
        wait_for="alert",
        kind="both",
        # What any run has reported; as a list, since more than one of them give a list anyway.
        reported="{{ ti.xcom_pull(task_ids=['watch'], include_prior_dates=True) | select | list | tojson }}",
        timeout=timedelta(days=1),
        soft_fail=True,
    )

    @task.short_circuit(execution_timeout=timedelta(minutes=5))
    def may_pause(params=None):
        """Return whether this run may pause a study."""
        return params["pause"]

    pause = PauseOnAlertOperator(
        task_id="pause",
        study="{{ ti.xcom_pull(task_ids='watch')['study'] }}",
        alert_id="{{ ti.xcom_pull(task_ids='watch')['alert_id'] }}",
        execution_timeout=timedelta(minutes=5),
    )

    @task(retries=0, execution_timeout=timedelta(minutes=5))
    def raise_alert(alert):
        """Fail with the alert's message, so that the run's failure notifications carry it."""
        raise RuntimeError(alert["message"])

    watch >> may_pause() >> pause
    raise_alert(watch.output)
