"""Watch the test sets of all studies: a gate or meter that needs a new one turns the run red, and sends a mail.

A test set is used up when its steps or passes run out, or when what is left of it can no longer reach the tolerance.
The alert says how many labels the next one needs. The sensor waits in the triggerer, where it costs no worker, for
the next alert that no run of this DAG has reported; none is lost between two runs.

When: leave it switched on. By hand: say whom to tell. A run watches all studies, since Airflow allows one at a time: to
watch one alone, give the sensor of a copy its name.

Afterwards: the run is red, and its message says which set has served and what to seal next. A day without an alert
ends the run quietly, and the next one goes on watching. To tell other events, and by chat, see `easeml_notify`.

Needs: the connection of `[easeml] conn_id`; for the mail, the connection `smtp_default` and an address in `mail`.

More: docs/test-sets.md, docs/operators.md (A new test set), docs/operations.md (Notifications).
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, task

from easeml_airflow import params
from easeml_airflow.notifications import MailNotifier
from easeml_airflow.sensors import NewTestSetSensor

FORM = {
    "mail": params.mail("Recipients, separated by commas. Empty: no mail; the run fails in either case."),
}

with DAG(
    dag_id="easeml_test_set_watch",
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
    watch = NewTestSetSensor(
        task_id="watch",
        # What any run has reported; as a list, since more than one of them give a list anyway.
        reported="{{ ti.xcom_pull(task_ids=['watch'], include_prior_dates=True) | select | list | tojson }}",
        timeout=timedelta(days=1),
        soft_fail=True,
        on_success_callback=MailNotifier(to="{{ params.mail or '' }}"),
    )

    @task(retries=0, execution_timeout=timedelta(minutes=5))
    def raise_alert(alert):
        """Fail with the alert's message, so that the run's failure notifications carry it."""
        raise RuntimeError(alert["message"])

    raise_alert(watch.output)
