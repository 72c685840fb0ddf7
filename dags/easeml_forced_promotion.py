"""Bring a model to production without the gate, on a person's word.

When: something is broken and the gate cannot help. Trigger it with the study and the model; then somebody approves
under "Required Actions" and types the reason.

Afterwards: with an approval and a reason the model is in production at once; who approved and why are recorded with
the promotion, for ever, and everybody can read them. A rejection, an approval without a reason, or three days without
an answer promote nothing and leave nothing behind. `easeml model rollback` takes it back.

Needs: the connection `easeml_default`, and a referee that was started with `--allow-forced`: without that it refuses.

More: docs/operators.md (Promotion without the gate), docs/security.md.
"""

from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

from easeml_airflow import params
from easeml_airflow.operators import PromoteModelOperator

FORM = {
    "study": params.study("Whose production pointer moves.", required=True),
    "model": Param(
        title="Model",
        type="integer",
        minimum=1,
        description="Number of the model, as `easeml model list STUDY` shows it.",
    ),
}
BODY = """
The gate has **not** judged this model for you: whoever approves answers for it.

* **Approve**, with the reason in the field: the model is in production at once. Your name, as Airflow's login knows it,
  and your reason are recorded with the promotion, for ever, where everybody can read them.
* **Reject**: nothing is promoted. So it is after three days without an answer, and without a reason.
"""

with DAG(
    dag_id="easeml_forced_promotion",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params=FORM,
    doc_md=params.explained(__doc__, FORM),
    tags=["easeml"],
) as dag:
    approve = ApprovalOperator(
        task_id="approve",
        subject="Promote model {{ params.model }} of study {{ params.study }} without the gate?",
        body=BODY,
        params={
            "why": Param(
                "",
                title="Reason",
                type="string",
                format="multiline",
                maxLength=500,
                description="Why the gate is passed by. Without a reason nothing is promoted.",
            )
        },
        response_timeout=timedelta(days=3),
    )
    approve >> PromoteModelOperator(
        task_id="promote",
        easeml_conn_id="easeml_default",
        study=dag.param("study"),
        model_id=dag.param("model"),
        force=True,
        approval=approve.task_id,
        execution_timeout=timedelta(hours=1),
    )
