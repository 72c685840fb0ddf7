"""DAGs of a few lines that show what a stack does: one of three numbers, one with a gate, and one that waits."""

TINY = '''
"""Tiny."""
import os
import pendulum
from airflow.sdk import Param, dag, task

@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), params={"n": Param(2, type="integer")})
def tiny():
    @task
    def numbers(params=None):
        return list(range(params["n"]))

    @task(pool="easeml_devices")
    def double(x):
        return 2 * x

    @task
    def secrets():
        """What a task could give away: its environment, and the connection it is meant to have."""
        from airflow.sdk import BaseHook

        connection = BaseHook.get_connection("easeml_default")
        return {"environment": dict(os.environ), "login": connection.login, "extra": connection.extra_dejson}

    double.expand(x=numbers())
    secrets()

tiny()
'''

JUDGED = '''
"""Stands where the nightly DAG would: a gate that answers as it is told, and what depends on it."""
import pendulum
from airflow.sdk import DAG, Param, task, task_group
from airflow.sdk.exceptions import AirflowFailException

with DAG("judged", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None,
         params={"outcomes": Param([], type="array")}) as dag:
    @task
    def best_models(params=None):
        return params["outcomes"]

    @task
    def gate(outcome, ti=None):
        facts = {"study": f"study-{outcome}", "model_id": 7, "message": "step 1 of 8"}
        for name, value in (facts if outcome == "refused" else facts | {"symbol": outcome}).items():
            ti.xcom_push(key=name, value=value)
        if outcome != "pass":
            raise AirflowFailException(f"the answer was {outcome}")

    @task
    def promote(outcome):
        return True

    @task
    def meter(outcome, ti=None):
        ti.xcom_push(key="signal", value=2)

    @task_group
    def release(outcome):
        gate(outcome) >> promote(outcome)
        meter(outcome)

    release.expand(outcome=best_models())
'''

HELD = '''
"""A task that runs until it is let go, as a training does, and notes each process that ran it."""
import pendulum
from airflow.sdk import dag, task

@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"))
def held():
    @task
    def hold():
        import os, time
        from pathlib import Path

        home = Path(os.environ["AIRFLOW_HOME"])
        with (home / "held-by").open("a") as file:
            print(os.getpid(), file=file)
        while not (home / "let-go").exists():
            time.sleep(0.2)
        return "held"

    @task
    def after(word):
        return word

    after(hold())

held()
'''

DAGS = {"tiny.py": TINY, "judged.py": JUDGED, "held.py": HELD}
