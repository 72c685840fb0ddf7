"""Watch the test sets of all studies; a gate or meter that needs a new one turns this DAG's run red, and sends a mail.

A test set is used up when its steps or passes run out, or when what is left of it can no longer reach the tolerance.
The alert says how many labels the next one needs. The sensor waits in the triggerer, where it costs no worker, for the
next alert after the last one that a run of this DAG has reported; none is lost between two runs.

Needs: the connection `easeml_default`; for the mail, the connection `smtp_default` and an address in `mail`.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param, task

from easeml_airflow.notifications import AlertNotifier
from easeml_airflow.sensors import NewTestSetSensor

with DAG(
    dag_id="easeml_test_set_watch",
    schedule="@continuous",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"easeml_conn_id": "easeml_default", "retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "study": Param(None, type=["null", "string"], description="Whose test set to watch; empty for all."),
        "mail": Param(None, type=["null", "string"], description="Whom to tell; addresses with commas between."),
    },
    doc_md=__doc__,
    tags=["easeml"],
) as dag:
    watch = NewTestSetSensor(
        task_id="watch",
        study=dag.param("study"),
        # The largest number that any run has reported; as a list, since more than one of them give a list anyway.
        after_id="{{ ((ti.xcom_pull(task_ids=['watch'], include_prior_dates=True) | select "
        "| map(attribute='alert_id') | list) + [0]) | max }}",
        timeout=timedelta(days=1),
        soft_fail=True,
        on_success_callback=AlertNotifier(to="{{ params.mail or '' }}"),
    )

    @task(retries=0, execution_timeout=timedelta(minutes=5))
    def raise_alert(alert):
        """Fail with the alert's message, so that it is seen, and whoever is told of failures is told of it."""
        raise RuntimeError(alert["message"])

    raise_alert(watch.output)
