"""Bring a model to production without the gate, on a person's word.

For the case that something is broken and the gate cannot help. Trigger it with the study and the model; somebody
approves under "Required Actions" and types the reason. Who it was and why are recorded with the promotion, for ever.
A rejection, or three days without an answer, promotes nothing.

Needs: the connection `easeml_default`, and a referee that was started with `--allow-forced`: without that it refuses.
"""

from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

from easeml_airflow.operators import PromoteModelOperator

with DAG(
    dag_id="easeml_forced_promotion",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "study": Param(type="string", minLength=1, description="Whose production pointer moves."),
        "model": Param(type="integer", minimum=1, description="Number of the model."),
    },
    doc_md=__doc__,
    tags=["easeml"],
) as dag:
    approve = ApprovalOperator(
        task_id="approve",
        subject="Promote model {{ params.model }} of study {{ params.study }} without the gate?",
        body="Your name and your reason are recorded with the promotion.",
        params={"why": Param("", type="string", maxLength=500, description="Why the gate is passed by.")},
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
