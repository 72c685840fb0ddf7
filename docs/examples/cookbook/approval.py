"""A model that has passed the gate is promoted once a user has approved it."""

from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, task
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import operators as easeml

MONDAYS = CronTriggerTimetable("0 6 * * 1", timezone="UTC")

THREE_DAYS = timedelta(days=3)  # for the answer, too: an older ApprovalOperator takes no limit itself

with DAG("cookbook_approval", schedule=MONDAYS, catchup=False, max_active_runs=1, dagrun_timeout=THREE_DAYS):
    best = easeml.BestModelsOperator(task_id="best", studies=["flowers"])

    @task.short_circuit
    def news(found):
        """Where the best model is in production already the list is empty, and all that follows is skipped."""
        return found

    gate = easeml.GateOperator(task_id="gate", study="flowers")  # of the best model; a failure asks for no approval
    approve = ApprovalOperator(
        task_id="approve",
        subject="Model {{ ti.xcom_pull(task_ids='gate')['model_id'] }} of flowers has passed. Promote it?",
    )
    promote = easeml.PromoteModelOperator(
        task_id="promote",
        study="flowers",
        model_id=gate.output["model_id"],
        gate_request_id=gate.output["request_id"],
    )
    news(best.output) >> gate >> approve >> promote
