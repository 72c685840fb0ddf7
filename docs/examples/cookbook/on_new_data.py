"""By an asset: whenever another DAG has written new rows, they are fed, and the study trains again."""

from airflow.sdk import DAG, Asset, task
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import operators as easeml

ROWS = Asset("flowers_labelled", uri="file:///srv/lake/flowers/labelled.csv")

with DAG("cookbook_label", schedule=CronTriggerTimetable("0 20 * * *", timezone="UTC"), catchup=False):

    @task(outlets=[ROWS])
    def collect():
        """Put the day's labelled rows where the asset says; what the task tells is that they are there."""

    collect()

with DAG("cookbook_on_new_data", schedule=[ROWS], catchup=False, max_active_runs=1):
    feed = easeml.FeedOperator(
        task_id="feed", study="flowers", path="/srv/lake/flowers/labelled.csv", label_column="species"
    )
    refine = easeml.RefineOperator(task_id="refine", study="flowers")
    train = easeml.RunDeviceOperator(task_id="train", pool="easeml_devices", studies=["flowers"], until=3600)
    feed >> refine >> train
