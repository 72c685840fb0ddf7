"""Regression: what will a flat cost? Candidates are compared by R2; a price that is at most 20 off is right."""

from datetime import timedelta

from airflow.sdk import DAG, task_group
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import operators as easeml

NIGHTLY = CronTriggerTimetable("0 1 * * *", timezone="UTC", run_immediately=timedelta())

with DAG("flats", schedule=NIGHTLY, catchup=False):
    register = easeml.RegisterStudyOperator(
        task_id="register",
        tenant="homes",
        study="flats",
        source="csv:flats.csv",
        target="price",
        metric="r2",
        hit="within:20",
        gate={"condition": "n - o > 0.1 +/- 0.1", "steps": 4},
        meter={"tolerance": 0.1},
        keep=True,
    )
    suggest = easeml.SuggestTrialsOperator(task_id="suggest", studies=["flats"], count=4)
    train = easeml.TrainTrialOperator.partial(task_id="train", pool="easeml_devices").expand(trial=suggest.output)
    best = easeml.BestModelsOperator(task_id="best", studies=["flats"], trigger_rule="all_done")

    @task_group
    def release(study, model_id, quality):
        gate = easeml.GateOperator(task_id="gate", study=study, model_id=model_id)
        asked = gate.output["request_id"]
        easeml.PromoteModelOperator(task_id="promote", study=study, model_id=model_id, gate_request_id=asked)

    register >> suggest
    train >> best
    release.expand_kwargs(best.output)
