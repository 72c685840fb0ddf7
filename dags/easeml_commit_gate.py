"""Continuous integration: judge every model that is handed in, as soon as it is handed in; promote what passes.

A submission starts a run, by whatever way it comes; the run judges all that waits for the gate, on the condition that
the test set was sealed for. The overfitting meter reads in any case.

When: leave it switched on. By hand: name a study, and a model or none for the study's best. A condition of your own
is read before anything is asked, so that a typing mistake costs nothing.

Afterwards: a pass is in production, and DAGs that are scheduled on `production_model(study)` run. A failure is a red
task `gate`, and production stays as it is. A verdict may wait for labels: then `gate` waits, and nothing is lost.

Needs: the connection of `[easeml] conn_id`, the referee's process, and a triggerer.

More: docs/gate.md, docs/submissions.md, docs/operators.md.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, task, task_group

from easeml_airflow import params
from easeml_airflow.assets import submissions
from easeml_airflow.operators import GateOperator, MeterOperator, PromoteModelOperator, WaitingSubmissionsOperator

FORM = {
    "study": params.study("Whose sealed set judges. Empty: all that waits for the gate."),
    "model": params.optional("Model", "Number of the model. Empty: the study's best.", "integer", minimum=1),
    "condition": params.condition(),
    "reliability": params.reliability(),
    "adaptivity": params.adaptivity(),
}

with DAG(
    dag_id="easeml_commit_gate",
    schedule=[submissions()],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=64,  # one that waits for labels must not keep the others from the gate
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

    @task(retries=0)
    def check_condition(condition: str | None) -> str | None:
        """Read the condition; a mistake fails this task with a caret under it."""
        from easeml_core.gate.condition import parse_condition

        return str(parse_condition(condition)) if condition else None

    @task
    def to_judge(waiting, params=None):  # Airflow gives params; 3.1 wants a default for it
        """The model of the form; without a study, all that waits."""
        if params["study"]:
            return [{"study": params["study"], "model_id": params["model"]}]
        return [{"study": submission["study"], "model_id": submission["model_id"]} for submission in waiting]

    checked = check_condition(params.value(dag, "condition"))

    @task_group(default_args={"map_index_template": "{{ task.study }}: {{ task.model_id }}"})
    def judge(study, model_id):
        """Gate, promotion and meter of one model."""
        own = {name: params.value(dag, name) for name in ("reliability", "adaptivity")} | {"condition": checked}
        gate = GateOperator(task_id="gate", study=study, model_id=model_id, **own)
        judged = {"model_id": gate.output["model_id"], "gate_request_id": gate.output["request_id"]}
        PromoteModelOperator(task_id="promote", study=study, **judged)
        checked >> MeterOperator(task_id="meter", study=study, model_id=model_id)

    waiting = WaitingSubmissionsOperator(task_id="waiting", study=params.value(dag, "study"))
    judge.expand_kwargs(to_judge(waiting=waiting.output))
