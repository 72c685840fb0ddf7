"""Send the events of all studies by mail and to a chat, and update the list of studies that the forms offer.

Every five minutes the task sends the events since its last run: a promotion, a rollback, a rejection, a request for a
new test set, overfitting, drift, the end of a search, a spent budget. Every developer may know these events.

When: leave it switched on. Name the addresses once in the Variable `easeml_notify_mail`, and the connection of a
chat's incoming webhook in the Variable `easeml_notify_webhook`; the form is for a single run.

Afterwards: the task's result and log list the events that were sent. A server that cannot be reached fails the task;
the next run sends the rest. An event may be sent twice, with the same number. Delete the Variable
`easeml_told_easeml_notify.mail` (or `.webhook`) to start again from the present: earlier events are not sent then.

Needs: the connection of `[easeml] conn_id`; for mails `smtp_default`.

More: docs/operations.md (Notifications).
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from easeml_airflow import params
from easeml_airflow.notifications import MailNotifier, WebhookNotifier
from easeml_airflow.operators import ListStudiesOperator, NotifyOperator

FORM = {
    "events": params.events(),
    "mail": params.mail("Recipients, separated by commas. Empty: the Variable `easeml_notify_mail`."),
    "webhook": params.text(
        "Webhook", "Connection of a chat's webhook. Empty: the Variable `easeml_notify_webhook`.", maxLength=250
    ),
}

with DAG(
    dag_id="easeml_notify",
    schedule=timedelta(minutes=5),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={
        "easeml_conn_id": None,  # that of [easeml] conn_id; a team names the connection with its login
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(minutes=30),
    },
    params=FORM,
    doc_md=params.explained(__doc__, FORM),
    tags=["easeml"],
) as dag:
    chosen = {"events": "{{ params.events | tojson }}"}
    mail = MailNotifier(to="{{ params.mail or var.value.get('easeml_notify_mail', '') }}", **chosen)
    chat = "{{ params.webhook or var.value.get('easeml_notify_webhook', '') }}"
    NotifyOperator(task_id="mail", notifier=mail)
    NotifyOperator(task_id="webhook", notifier=WebhookNotifier(webhook_conn_id=chat, **chosen))
    ListStudiesOperator(task_id="list_studies")
