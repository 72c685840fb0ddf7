"""Batch inference: each night one model, that in production, answers all files of a table, each of any size."""

from datetime import timedelta

from airflow.sdk import DAG, Asset, task
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import operators as easeml

ROWS, ANSWERS = "/srv/lake/flowers/rows", "/srv/lake/flowers/answers"  # where every worker reaches them
NIGHTLY = CronTriggerTimetable("0 4 * * *", timezone="UTC", run_immediately=timedelta())

with DAG("cookbook_batch_inference", schedule=NIGHTLY, catchup=False, max_active_runs=1):

    @task
    def model():
        """The number of the model in production: one that is promoted meanwhile answers the next night."""
        from easeml_airflow.hooks.easeml import EasemlHook
        from easeml_core.services.models.promotion import in_production

        now = in_production(EasemlHook().get_store(), study="flowers")
        return now[0].model_id if now else "production"  # which fails, and says what to do

    @task
    def files():
        """A task for each file: two at a time, and each is tried again by itself."""
        from pathlib import Path

        return [{"path": str(p), "answers": f"{ANSWERS}/{p.stem}.csv"} for p in sorted(Path(ROWS).glob("*.parquet"))]

    answer = easeml.InferOperator.partial(
        task_id="answer", study="flowers", model=model(), retries=2, max_active_tis_per_dagrun=2
    ).expand_kwargs(files())

    @task(outlets=[Asset("flowers_answered", uri=f"file://{ANSWERS}")])
    def done(answers):
        """Whatever is scheduled on the asset goes on; a file without its answers has ended the run as failed."""
        print(f"{sum(answer['rows'] for answer in answers):,} rows by model {answers[0]['model_id']}")

    done(answer.output)
