"""A DAG for each team, with separate studies, pool and budget, from one list."""

from airflow.sdk import DAG
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import operators as easeml

TEAMS = {
    "botany": {"studies": ["flowers"], "pool": "botany_devices", "hour": 1},
    "harbour": {"studies": ["ships", "tides"], "pool": "harbour_devices", "hour": 2},
}


def night_of(team, studies, pool, hour):
    """One team's night: its studies on its devices, an hour at most; nothing of another team's is looked at."""
    nightly = CronTriggerTimetable(f"0 {hour} * * *", timezone="UTC")
    with DAG(f"cookbook_{team}", schedule=nightly, catchup=False, max_active_runs=1, tags=[team]) as dag:
        train = easeml.RunDeviceOperator(task_id="train", pool=pool, studies=studies, until=3600)
        best = easeml.BestModelsOperator(task_id="best", studies=studies, trigger_rule="all_done")
        gate = easeml.GateOperator.partial(task_id="gate", on_fail="skip")
        train >> best
        gate.expand_kwargs(best.output.map(lambda found: {"study": found["study"], "model_id": found["model_id"]}))
    return dag


for name, settings in TEAMS.items():
    globals()[f"cookbook_{name}"] = night_of(name, **settings)
