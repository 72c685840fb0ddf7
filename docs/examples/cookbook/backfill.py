"""Backfill: each day's file is fed once, in the order of days; a past day may be run again without harm."""

import pendulum
from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from easeml_airflow import operators as easeml

DAILY = CronDataIntervalTimetable("0 0 * * *", timezone="UTC")

with DAG(
    "cookbook_backfill",
    schedule=DAILY,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,  # past days: airflow backfill create ... --reprocess-behavior failed, because of depends_on_past
    max_active_runs=1,
):
    feed = easeml.FeedOperator(
        task_id="feed",
        study="flowers",
        path="/srv/lake/flowers/{{ ds }}.csv",
        label_column="species",
        depends_on_past=True,
    )
    refine = easeml.RefineOperator(task_id="refine", study="flowers", max_active_tis_per_dag=1)
    feed >> refine
