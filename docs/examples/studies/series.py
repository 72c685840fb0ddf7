"""Series: which machine needs care? From a CSV file with a line per step to a model in production."""

from datetime import timedelta

from airflow.sdk import DAG, task_group
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import operators as easeml

PROGRAM = "{input: {[Tensor[2]], [next]}, output: {[Category[2]], []}}"

NIGHTLY = CronTriggerTimetable("0 1 * * *", timezone="UTC", run_immediately=timedelta())

with DAG("machines", schedule=NIGHTLY, catchup=False):
    register = easeml.RegisterStudyOperator(
        task_id="register",
        tenant="plant",
        study="machines",
        source="series:machines.csv?id=machine&step=minute",
        target="worn",
        program=PROGRAM,
        gate={"condition": "n > 0.6 +/- 0.1", "steps": 4},
        meter={"tolerance": 0.1},
        keep=True,
    )
    suggest = easeml.SuggestTrialsOperator(task_id="suggest", studies=["machines"], count=4)
    train = easeml.TrainTrialOperator.partial(task_id="train", pool="easeml_devices").expand(trial=suggest.output)
    best = easeml.BestModelsOperator(task_id="best", studies=["machines"], trigger_rule="all_done")

    @task_group
    def release(study, model_id, quality):
        gate = easeml.GateOperator(task_id="gate", study=study, model_id=model_id)
        asked = gate.output["request_id"]
        easeml.PromoteModelOperator(task_id="promote", study=study, model_id=model_id, gate_request_id=asked)

    register >> suggest
    train >> best
    release.expand_kwargs(best.output)
