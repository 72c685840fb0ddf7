"""A task or an asset for each kind of trigger. No task here gets what it waits for: all stay pending."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from easeml_airflow import assets, sensors

STUDY = "cell"

with DAG("cell_waiting", schedule=None, catchup=False):
    sensors.OverfittingMeterSensor(task_id="alert", study=STUDY, timeout=86400)
    sensors.OverfittingMeterSensor(task_id="alert_of_any_kind", study=STUDY, wait_for="any", kind="both", timeout=86400)
    sensors.NewTestSetSensor(task_id="spent", study=STUDY, purpose="gate", timeout=86400)
    sensors.TestSetReadySensor(task_id="ready", study=STUDY, purpose="direct", timeout=86400)

WATCHED = assets.production_model(STUDY) | assets.submissions(STUDY) | assets.alerts(STUDY) | assets.evidence(STUDY)

with DAG("cell_watching", schedule=WATCHED, catchup=False):
    EmptyOperator(task_id="seen")  # an event starts a run, e.g. the model in production has changed; it needs no worker
