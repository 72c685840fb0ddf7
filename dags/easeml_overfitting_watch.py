"""Watch the overfitting meters of all studies; an alert turns this DAG's run red.

The sensor waits in the triggerer, where it costs no worker, for the next alert after the last one that a run of this
DAG has reported; none is lost between two runs. What to do is in the alert's message.

When: leave it switched on. By hand: name a study to watch that one alone, and choose whether it is paused. Alerts of
teams that share a meter set are not found here, since no team may learn another one's signals: each needs a sensor of
its own, with `study` and `team`. Sets that have served are watched by `easeml_test_set_watch`.

Afterwards: when the alert says that the study's overfitting budget is broken, its search is paused: it gets no new
trial until somebody has dealt with the alert and called `easeml study resume`. Drift pauses nothing: where a second
validation sample shows that validation and test data certainly differ, the alert says which validation data to get. A
day without an alert ends the run quietly, and the next one goes on watching.

Needs: the connection `easeml_default`.

More: docs/meter.md, docs/operators.md (Overfitting), docs/notifications.md.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param, task

from easeml_airflow import params
from easeml_airflow.operators import PauseOnAlertOperator
from easeml_airflow.sensors import OverfittingMeterSensor

FORM = {
    "study": params.study("Whose meter to watch. Empty: all."),
    "pause": Param(
        True,
        title="Pause the search",
        type="boolean",
        description="Whether a study whose overfitting budget is broken gets no new trial until somebody resumes it.",
    ),
}

with DAG(
    dag_id="easeml_overfitting_watch",
    schedule="@continuous",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"easeml_conn_id": "easeml_default", "retries": 2, "retry_delay": timedelta(seconds=30)},
    params=FORM,
    doc_md=params.explained(__doc__, FORM),
    tags=["easeml"],
) as dag:
    watch = OverfittingMeterSensor(
        task_id="watch",
        study=dag.param("study"),
        wait_for="alert",
        kind="both",
        # The largest number that any run has reported; as a list, since more than one of them give a list anyway.
        after_id="{{ ((ti.xcom_pull(task_ids=['watch'], include_prior_dates=True) | select "
        "| map(attribute='alert_id') | list) + [0]) | max }}",
        timeout=timedelta(days=1),
        soft_fail=True,
    )

    @task.short_circuit(execution_timeout=timedelta(minutes=5))
    def may_pause(params=None):
        """Whether whoever started this run wants a study to be paused."""
        return params["pause"]

    pause = PauseOnAlertOperator(
        task_id="pause",
        study="{{ ti.xcom_pull(task_ids='watch')['study'] }}",
        alert_id="{{ ti.xcom_pull(task_ids='watch')['alert_id'] }}",
        execution_timeout=timedelta(minutes=5),
    )

    @task(retries=0, execution_timeout=timedelta(minutes=5))
    def raise_alert(alert):
        """Fail with the alert's message, so that it is seen, and whoever is told of failures is told of it."""
        raise RuntimeError(alert["message"])

    watch >> may_pause() >> pause
    raise_alert(watch.output)
