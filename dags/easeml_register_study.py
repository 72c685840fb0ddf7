"""Register a study: name the tenant, the data, the target, the metric and the budget; it joins the next round.

The task waits until the referee has split the data and sealed the test sets. It fails at once, with the figure that
would do, when the data has too few rows for the gate and the meter that were asked for.

When: once for each study. Only the first three fields are needed; every other has a default that serves.

Afterwards: `easeml_nightly_retraining` and `easeml_stream` train it, and the forms offer its name. What was
registered stays; weight, budget, deadline and priority are changed with `easeml study set`.

Needs: the connection of `[easeml] conn_id` and the referee's process, which must be able to read the data.

More: docs/studies.md, docs/data.md, docs/gate.md.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from easeml_airflow.operators import ListStudiesOperator, RegisterStudyOperator
from easeml_airflow.params import explained, params_of, value

FORM = params_of(RegisterStudyOperator.action, leaves=("keep", "training"), source="sklearn:digits")

with DAG(
    dag_id="easeml_register_study",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    default_args={
        "easeml_conn_id": None,  # that of [easeml] conn_id; a team names the connection with its login
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=1),
    },
    params=FORM,
    doc_md=explained(__doc__, FORM),
    tags=["easeml"],
) as dag:
    register = RegisterStudyOperator(task_id="register", **{name: value(dag, name) for name in dag.params})
    register >> ListStudiesOperator(task_id="list_studies")
