"""Attacks as DAG code has the means for: its tenant's connection, our operators, and its own SQL.

What each role may do by SQL is in ``tests/store/rights/test_store_tenants.py``; this is the way that a task has.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

from easeml_airflow import operators
from easeml_airflow.hooks.easeml import EasemlHook
from easeml_core.errors import EasemlError
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.logins import make_login
from easeml_core.store.database import Store
from easeml_core.store.rows import change
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.own_database

TEAM = "easeml_team_mallory"
CANDIDATES = [{"name": f"tree-{k}", "kind": "decision_tree", "parameters": {"max_depth": k}} for k in (1, 2, 3)]
SQL = {
    "results for another": "INSERT INTO work.observations (trial_id, quality, cost_seconds) VALUES (:trial, .999, 1)",
    "bare suggestions": "INSERT INTO work.trials (study_id, candidate_id, data_version_id) VALUES (1, 1, 1)",
    "the weight of another": "UPDATE work.studies SET weight = 1e-6 WHERE name = 'zeppelin'",
    "the deadline of another": "UPDATE work.studies SET deadline = now() WHERE name = 'zeppelin'",
    "the state of another": "UPDATE work.studies SET state = 'PAUSED' WHERE name = 'zeppelin'",
    "the own weight": "UPDATE work.tenants SET weight = 1e6",
    "advisory locks": "SELECT pg_advisory_lock(1)",
    "a study's row": "SELECT 1 FROM work.studies WHERE name = 'zeppelin' FOR UPDATE",
    "the own study's row": "SELECT 1 FROM work.studies FOR UPDATE",
    "another role": "SET ROLE easeml_worker",
    "sealed labels": "SELECT * FROM sealed.examples",
    "a candidate of another": "INSERT INTO work.candidates (study_id, name, kind) VALUES (1, 'x', 'decision_tree')",
    "a row that no code reads": "INSERT INTO work.change_requests (study_id, change) VALUES (1, 'pause')",
}
"""By SQL of the task's own. Each is refused, and the error says where the rights of the role are."""


def by_operators(trial: int) -> dict[str, Any]:
    """What the operators are asked for; each raises."""
    own: dict[str, Any] = {"easeml_conn_id": TEAM}
    about: dict[str, Any] = {"study": "zeppelin", **own}
    pair = {"input": [1.0] * 30, "label": 0}
    return {
        "to train a trial of another": operators.TrainTrialOperator(task_id="a", trial=trial, **own),
        "to judge a model of another": operators.GateOperator(task_id="b", model_id=1, **about),
        "to meter a model of another": operators.MeterOperator(task_id="c", model_id=1, **about),
        "to promote a model of another": operators.PromoteModelOperator(
            task_id="d", model_id=1, gate_request_id=1, **about
        ),
        "to put a model of another back": operators.RollbackModelOperator(task_id="e", why="x", **about),
        "to feed another": operators.FeedOperator(task_id="f", pairs=[pair], **about),
        "to switch rows of another off": operators.RefineOperator(task_id="g", off=["00" * 32], reason="x", **about),
    }


@pytest.fixture
def rival_trial(connected: Any, artifacts: Any, make_study: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A trial of a tenant, another tenant, and Airflow's connection of the other one's team."""
    make_study("zeppelin", tenant="lab", candidates=CANDIDATES)
    (trial,) = suggest_trials(connected.worker, count=1, request_key="night/1").trials
    with connected.worker.begin() as tx:
        studies.add_tenant(tx, name="mallory")
    administrator = Store(connected.url("postgres"))
    made = make_login(administrator, name="mallory", tenants=["mallory"])
    url = urlsplit(connected.owner.address_of(made.login.login, made.password))
    known = {
        "conn_type": "easeml",
        "host": url.hostname,
        "port": url.port,
        "login": made.login.login,
        "password": unquote(url.password or ""),
        "schema": url.path.lstrip("/"),
        "extra": {"artifacts": str(artifacts.root)},
    }
    monkeypatch.setenv(f"AIRFLOW_CONN_{TEAM.upper()}", json.dumps(known))
    EasemlHook().get_artifacts()  # the provider's first use says which place it is
    yield trial.trial_id
    administrator.close()


def test_a_task_is_refused_whatever_it_tries(rival_trial: int, connected: Any) -> None:
    before, found, store = rows_of_rival(connected), dict[str, str](), EasemlHook(TEAM).get_store()
    for name, sql in SQL.items():
        try:
            with store.begin() as tx:
                change(tx, sql, **({"trial": rival_trial} if ":trial" in sql else {}))
            found[name] = "allowed"
        except EasemlError as error:
            found[name] = str(error)
    for name, operator in by_operators(rival_trial).items():
        ti = SimpleNamespace(
            dag_id="mallory", run_id="night", task_id=operator.task_id, map_index=-1, try_number=1, xcom_push=print
        )
        try:
            operator.execute({"ti": ti})
            found[name] = "allowed"
        except Exception as error:
            found[name] = str(error)
    with store.begin() as tx:  # allowed, and no more than a wake-up: the payload is never read
        change(tx, "SELECT pg_notify('easeml_scheduler', 'suggestions:1'), pg_notify('easeml', 'answer:1')")
    assert {name for name, said in found.items() if said == "allowed"} == set()
    assert {name: found[name] for name in SQL if "docs/security.md lists the rights" not in found[name]} == {}
    assert {name: found[name] for name in found.keys() - SQL.keys() if "there is no" not in found[name]} == {}
    assert rows_of_rival(connected) == before


def rows_of_rival(database: Any) -> list[Any]:
    with database.owner.begin() as tx:
        asked = (
            "SELECT s.*, t.*, o.* FROM work.studies s JOIN work.trials t ON t.study_id = s.id "
            "LEFT JOIN work.observations o ON o.trial_id = t.id WHERE s.name = 'zeppelin' ORDER BY t.id"
        )
        return [tuple(map(str, row)) for row in tx.exec_driver_sql(asked)]
