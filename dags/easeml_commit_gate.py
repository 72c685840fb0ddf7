"""Judge one model by hand: does it hold the condition on the study's sealed test set?

Give the study and the number of the model; empty means the study's best. Condition, reliability and adaptivity may be
left empty: then those hold that the set was sealed for. The condition is read before anything is asked of the referee,
so that a typing mistake costs nothing; the error shows where. A pass on the sealed condition is promoted to production;
one on a condition of your own is advice, and its promotion is refused. A failure stops here: its task fails, and
nothing downstream of it runs. The overfitting meter reads in any case.

Needs: the connection `easeml_default` and the referee's process.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param, task

from easeml_airflow.operators import GateOperator, MeterOperator, PromoteModelOperator

with DAG(
    dag_id="easeml_commit_gate",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    default_args={
        "easeml_conn_id": "easeml_default",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=1),
    },
    params={
        "study": Param(type="string", minLength=1, description="Whose sealed set judges."),
        "model": Param(
            None, type=["null", "integer"], minimum=1, description="Number of the model; empty for the study's best."
        ),
        "condition": Param(
            None, type=["null", "string"], description="Such as `n - o > 0.02 +/- 0.01`; empty for the sealed one."
        ),
        "reliability": Param(
            None,
            type=["null", "number"],
            exclusiveMinimum=0,
            exclusiveMaximum=1,
            description="1 - delta; empty for the sealed one.",
        ),
        "adaptivity": Param(
            None,
            type=["null", "string"],
            enum=[None, "none", "full", "firstChange"],
            description="What the developer learns; empty for the sealed one.",
        ),
    },
    doc_md=__doc__,
    tags=["easeml"],
) as dag:

    @task(retries=0)
    def check_condition(condition: str | None) -> str | None:
        """Read the condition; a mistake fails this task with a caret under it."""
        from easeml_core.gate.condition import parse_condition

        return str(parse_condition(condition)) if condition else None

    study, model_id = dag.param("study"), dag.param("model")
    checked = check_condition(dag.param("condition"))
    gate = GateOperator(
        task_id="gate",
        study=study,
        model_id=model_id,
        condition=checked,
        reliability=dag.param("reliability"),
        adaptivity=dag.param("adaptivity"),
    )
    PromoteModelOperator(
        task_id="promote",
        study=study,
        model_id=gate.output["model_id"],
        gate_request_id=gate.output["request_id"],
    )
    checked >> MeterOperator(task_id="meter", study=study, model_id=model_id)
