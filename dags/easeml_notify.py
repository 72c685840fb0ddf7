"""Tell people what happens in all studies, by mail and by chat; and keep the list of studies that the forms offer.

Every five minutes the news since the last look are told: a promotion, a rollback, a rejection, a new test set that is
needed, overfitting, drift, a search that has ended, a budget that is spent. Only what every developer may know.

When: leave it switched on. Name the addresses once in the Variable `easeml_notify_mail`, and the connection of a
chat's incoming webhook in the Variable `easeml_notify_webhook`; the form is for a single run.

Afterwards: what was told stands in the task's result and log. A server that is away turns the task red; the next run
tells what was left out. An event may come twice, with the same number. Delete the Variable
`easeml_told_easeml_notify.mail` (or `.webhook`) to begin anew: what has happened before is no news then.

Needs: the connection `easeml_default`; for mails `smtp_default`.

More: docs/notifications.md.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from easeml_airflow import params
from easeml_airflow.notifications import MailNotifier, WebhookNotifier
from easeml_airflow.operators import ListStudiesOperator, NotifyOperator

FORM = {
    "events": params.events(),
    "mail": params.mail("Whom to tell; addresses with commas between. Empty: the Variable `easeml_notify_mail`."),
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
        "easeml_conn_id": "easeml_default",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(minutes=30),
    },
    params=FORM,
    doc_md=params.explained(__doc__, FORM),
    tags=["easeml"],
) as dag:
    told = {"events": "{{ params.events | tojson }}"}
    mail = MailNotifier(to="{{ params.mail or var.value.get('easeml_notify_mail', '') }}", **told)
    chat = "{{ params.webhook or var.value.get('easeml_notify_webhook', '') }}"
    NotifyOperator(task_id="mail", notifier=mail)
    NotifyOperator(task_id="webhook", notifier=WebhookNotifier(webhook_conn_id=chat, **told))
    ListStudiesOperator(task_id="list_studies")
