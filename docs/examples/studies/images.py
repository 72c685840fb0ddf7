"""Images: what is on a picture? From the tenant's folder, with a folder for each class, to a model in production."""

from datetime import timedelta

from airflow.sdk import DAG, task_group
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import operators as easeml

NETWORKS = [
    {"name": "small", "kind": "torch_cnn", "parameters": {"epochs": 12}},
    {"name": "squeezenet", "kind": "squeezenet", "parameters": {"epochs": 3}},
    {"kind": "torch_mlp", "space": {"hidden_width": {".choice": [32, 128]}, "epochs": 12}},
]

NIGHTLY = CronTriggerTimetable("0 1 * * *", timezone="UTC", run_immediately=timedelta())

with DAG("digits", schedule=NIGHTLY, catchup=False):
    register = easeml.RegisterStudyOperator(
        task_id="register",
        tenant="post",
        study="digits",
        source="images:digits",
        candidates=NETWORKS,
        gate={"condition": "n - o > 0.3 +/- 0.1", "steps": 4},
        meter={"tolerance": 0.1},
        keep=True,
    )
    suggest = easeml.SuggestTrialsOperator(task_id="suggest", studies=["digits"], count=4)
    train = easeml.TrainTrialOperator.partial(task_id="train", pool="easeml_devices").expand(trial=suggest.output)
    best = easeml.BestModelsOperator(task_id="best", studies=["digits"], trigger_rule="all_done")

    @task_group
    def release(study, model_id, quality):
        asked = easeml.GateOperator(task_id="gate", study=study, model_id=model_id).output["request_id"]
        easeml.PromoteModelOperator(task_id="promote", study=study, model_id=model_id, gate_request_id=asked)

    register >> suggest
    train >> best
    release.expand_kwargs(best.output)
