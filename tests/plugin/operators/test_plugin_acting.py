"""A task's changes bear its name in the audit: the DAG, the run and the task, as Airflow tells its own process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk.execution_time.context import context_to_airflow_vars

from easeml_airflow.hooks.easeml import task_actor
from easeml_core.store.callers import Actor

PARTS = ("AIRFLOW_CTX_DAG_ID", "AIRFLOW_CTX_DAG_RUN_ID", "AIRFLOW_CTX_TASK_ID")


def test_a_task_is_named_by_what_airflow_puts_into_its_environment(monkeypatch):
    told = context_to_airflow_vars(
        {
            "task_instance": SimpleNamespace(dag_id="nightly", task_id="pause", try_number=2),
            "dag_run": SimpleNamespace(run_id="scheduled__1", logical_date=None, team_name=None),
        },
        in_env_var_format=True,
    )
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert task_actor() == Actor("nightly/scheduled__1/pause", "task", try_number=2)


@pytest.mark.parametrize("tried", ["", "0", "-1", "two", "99999999999", "2\n"])
def test_a_try_that_is_no_number_is_left_out(monkeypatch, tried):
    for name in PARTS:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AIRFLOW_CTX_TRY_NUMBER", tried)
    assert task_actor() == Actor("x/x/x", "task")


@pytest.mark.parametrize("missing", PARTS)
def test_outside_of_tasks_nobody_is_named(monkeypatch, missing):
    for name in PARTS:
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv(missing)
    assert task_actor() is None
