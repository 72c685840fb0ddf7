"""Bring a model to production without the gate, on a referee's word.

When: something is broken and the gate cannot help. Trigger it with the study, the model and the reason. Then a referee
finds it under "Required Actions", with the gate's last verdict on the model, enters a reason, and approves.

Afterwards: with an approval and a reason the model is in production at once; who approved and why are recorded with
the promotion permanently, and every role can read them. A rejection, an answer of another role, or three days
without an answer promote nothing and change nothing. `easeml model rollback` takes it back.

Needs: the connection of `[easeml] conn_id`, referees who are named in `[easeml] referees` of every component's
configuration, and a referee's process that was started with `--allow-forced`: without that it refuses.

More: docs/operators.md (Promotion without the gate), docs/security.md.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from easeml_airflow import params
from easeml_airflow.operators import ForcePromotionOperator

FORM = {
    "study": params.study("Whose production pointer moves.", required=True),
    "model": Param(
        title="Model",
        type="integer",
        minimum=1,
        description="Number of the model, as `easeml model list STUDY` shows it.",
    ),
    "reason": params.text("Reason", "Why it cannot wait for the gate; the approving referee reads it.", maxLength=500),
}

with DAG(
    dag_id="easeml_forced_promotion",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
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
    ForcePromotionOperator(
        task_id="promote",
        study=params.value(dag, "study"),
        model_id=params.value(dag, "model"),
        reason=params.value(dag, "reason"),
        response_timeout=timedelta(days=3),
    )
