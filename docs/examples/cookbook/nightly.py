"""Nightly: one round for one study, then the gate; what passes is in production in the morning."""

from datetime import timedelta

from airflow.sdk import DAG, task_group
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import operators as easeml

NIGHTLY = CronTriggerTimetable("0 1 * * *", timezone="UTC", run_immediately=timedelta())

with DAG("cookbook_nightly", schedule=NIGHTLY, catchup=False, max_active_runs=1):
    suggest = easeml.SuggestTrialsOperator(task_id="suggest", studies=["flowers"], count=4)
    train = easeml.TrainTrialOperator.partial(task_id="train", pool="easeml_devices").expand(trial=suggest.output)
    best = easeml.BestModelsOperator(task_id="best", studies=["flowers"], trigger_rule="all_done")

    @task_group
    def release(study, model_id, quality):
        """Judge the best model; promote it on a pass, read the meter in any case."""
        gate = easeml.GateOperator(task_id="gate", study=study, model_id=model_id)
        asked = gate.output["request_id"]
        easeml.PromoteModelOperator(task_id="promote", study=study, model_id=model_id, gate_request_id=asked)
        easeml.MeterOperator(task_id="meter", study=study, model_id=model_id)

    train >> best
    release.expand_kwargs(best.output)
