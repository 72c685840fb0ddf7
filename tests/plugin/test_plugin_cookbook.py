"""The DAGs of docs/cookbook.md and bring-your-own.md: they load, are short, stand there as they are, and run."""

import ast
import csv
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pendulum
import pytest

from easeml_core.data.sources.load import load_source

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "examples" / "cookbook"
FILES = sorted(FOLDER.glob("*.py"))
PAGES = [ROOT / "docs" / name for name in ("cookbook.md", "bring-your-own.md")]
DAGS = [
    "cookbook_approval",
    "cookbook_backfill",
    "cookbook_batch_inference",
    "cookbook_botany",
    "cookbook_gpu_pool",
    "cookbook_harbour",
    "cookbook_label",
    "cookbook_mixed",
    "cookbook_nightly",
    "cookbook_on_new_data",
    "cookbook_on_promotion",
]
CANDIDATES = [{"name": "bayes", "kind": "gaussian_naive_bayes"}]
EASY = {"condition": "n > 0.5 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 3}
REJECTED = {
    "chosen_options": ["Reject"],
    "params_input": {},
    "responded_at": datetime(2026, 1, 1, tzinfo=UTC),
    "responded_by_user": {"id": "7", "name": "ada"},
}


@pytest.fixture
def recipe():
    """A DAG of the cookbook by its name, read anew: a run in this process keeps what it was given."""
    from airflow.dag_processing.dagbag import DagBag

    return lambda name: DagBag(dag_folder=str(FOLDER)).dags[name]


@pytest.fixture
def flowers(connected, make_study, referee):
    """The study that the cookbook is about, on real data."""
    return make_study("flowers", candidates=CANDIDATES, gate=EASY)


def states(run):
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def test_all_load_without_error():
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(FOLDER))
    assert bag.import_errors == {}
    assert sorted(bag.dags) == DAGS
    assert not any(dag.catchup for dag in bag.dags.values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_recipe_is_short_stands_on_the_page_and_imports_what_a_dag_may(path):
    source = path.read_text(encoding="utf-8")
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert source in re.findall(r"```python\n(.*?)```", pages, re.DOTALL)
    assert len(source.splitlines()) <= 40
    modules = {n.module for n in ast.parse(source).body if isinstance(n, ast.ImportFrom)}
    allowed = {"datetime", "airflow.sdk", "airflow.timetables.interval", "airflow.timetables.trigger"}
    allowed |= {"easeml_airflow", "easeml_airflow.assets", "easeml_airflow.decorators"}
    asking = {"easeml_airflow.hooks.easeml", "easeml_core.services.models.promotion"}
    assert modules <= allowed | asking | {"airflow.providers.standard.operators.hitl"}


@pytest.mark.journey
def test_a_team_s_night_asks_the_gate_a_person_says_no_and_the_next_night_promotes(
    run_dag, recipe, flowers, store, monkeypatch
):
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    from easeml_core.services.reports.overview import overview

    ended = states(run_dag(recipe("cookbook_botany")))
    assert ended == {"train": "success", "best": "success", "gate": "success"}
    (study,) = overview(store).tenants
    assert (study.trials, study.production_model_id) == (1, None)  # that DAG promotes nothing
    monkeypatch.setattr(ApprovalOperator, "execute", lambda self, context: self.execute_complete(context, REJECTED))
    asked = states(run_dag(recipe("cookbook_approval")))
    assert (asked["gate"], asked["approve"], asked["promote"]) == ("success", "success", "skipped")
    night = states(run_dag(recipe("cookbook_nightly")))
    assert night["train"] == "skipped"  # every candidate has run
    assert night["release.promote"] == night["release.meter"] == "success"
    (study,) = overview(store).tenants
    assert study.production_model_id is not None
    assert states(run_dag(recipe("cookbook_approval")))["gate"] == "skipped"  # the best model is in production


def rows_of(path):
    """New rows in the form that the recipes read: the study's columns, and ``species``."""
    table = load_source("sklearn:breast_cancer")
    names = ("malignant", "benign")
    moved = table.inputs[:8] * np.random.default_rng(3).uniform(0.99, 1.01, (8, 30))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*table.feature_names, "species"])
        writer.writerows([*row, names[label]] for row, label in zip(moved.tolist(), table.labels[:8], strict=True))
    return str(path)


def test_new_rows_make_a_new_version_and_train_on_it(run_dag, recipe, flowers, tmp_path, store):
    from easeml_core.services.reports.overview import overview

    dag = recipe("cookbook_on_new_data")
    dag.task_dict["feed"].path = rows_of(tmp_path / "labelled.csv")
    assert states(run_dag(dag)) == {"feed": "success", "refine": "success", "train": "success"}
    (study,) = overview(store).tenants
    assert study.trials == 1


def test_each_file_of_a_table_is_answered_by_the_same_model(run_dag, recipe, flowers, tmp_path, store):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = load_source("sklearn:breast_cancer").feature_names
    (tmp_path / "rows").mkdir()
    (tmp_path / "answers").mkdir()
    for part in range(2):
        columns = {"patient": [f"{part}-{i}" for i in range(3)]} | {name: [1.0, None, 3.0] for name in names}
        parquet.write_table(pyarrow.table(columns), tmp_path / "rows" / f"part-{part}.parquet")
    with store.begin() as tx:
        baseline = tx.exec_driver_sql("SELECT min(id) FROM work.models").scalar()
    dag = recipe("cookbook_batch_inference")
    asks, lists = (dag.task_dict[name].python_callable for name in ("model", "files"))
    lists.__globals__.update(ROWS=str(tmp_path / "rows"), ANSWERS=str(tmp_path / "answers"))
    dag.task_dict["model"].python_callable = lambda: baseline
    assert asks() == "production"  # there is none yet
    run = run_dag(dag)
    assert set(states(run).values()) == {"success"}
    for part in range(2):
        with (tmp_path / "answers" / f"part-{part}.csv").open(encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        assert [(row["patient"], row["answer"]) for row in found] == [(f"{part}-{i}", "benign") for i in range(3)]


def test_a_day_that_is_run_again_feeds_nothing_twice(run_dag, recipe, flowers, tmp_path):
    rows_of(tmp_path / "2026-03-01.csv")
    versions = []
    for _ in range(2):
        dag = recipe("cookbook_backfill")
        dag.task_dict["feed"].path = str(tmp_path / "{{ ds }}.csv")
        run = run_dag(dag, logical_date=pendulum.datetime(2026, 3, 1, tz="UTC"))
        assert states(run) == {"feed": "success", "refine": "success"}
        (refined,) = [ti for ti in run.get_task_instances() if ti.task_id == "refine"]
        versions.append(refined.xcom_pull(task_ids="refine")["version"])
    assert versions == [2, None]  # nothing was new


def test_what_passed_waits_for_a_person(recipe):
    dag = recipe("cookbook_approval")
    edges = {(task.task_id, below) for task in dag.tasks for below in task.downstream_task_ids}
    chain = {("best", "news"), ("news", "gate"), ("gate", "approve"), ("approve", "promote")}
    assert edges == chain | {("gate", "promote")}
    assert dag.task_dict["promote"].trigger_rule == "all_success"
    assert dag.task_dict["approve"].defaults is None  # a time-out approves nothing


def test_a_monday_without_a_better_model_asks_nobody_and_ends_green(run_dag, recipe, flowers):
    run = run_dag(recipe("cookbook_approval"))
    skipped = dict.fromkeys(("gate", "approve", "promote"), "skipped")
    assert states(run) == {"best": "success", "news": "success", **skipped}
    assert run.state == "success"


def test_airflow_takes_the_command_that_backfills(run_dag, recipe, flowers, tmp_path):
    """Its own reader and its own checks; without ``--reprocess-behavior`` it refuses this DAG."""
    from airflow.cli.cli_parser import get_parser
    from airflow.models.backfill import InvalidReprocessBehavior, ReprocessBehavior, _do_dry_run
    from airflow.utils.session import create_session

    (line,) = re.findall(r"^airflow (backfill create .*)$", PAGES[0].read_text(encoding="utf-8"), re.MULTILINE)
    read = get_parser().parse_args(line.split())
    rows_of(tmp_path / "2026-03-01.csv")
    dag = recipe(read.dag_id)
    dag.task_dict["feed"].path = str(tmp_path / "{{ ds }}.csv")
    run_dag(dag, logical_date=pendulum.datetime(2026, 3, 1, tz="UTC"))  # so Airflow knows it
    asked = {"dag_id": read.dag_id, "from_date": read.from_date, "to_date": read.to_date, "reverse": False}
    with create_session() as session:
        chosen = ReprocessBehavior(read.reprocess_behavior)
        days = list(_do_dry_run(**asked, reprocess_behavior=chosen, dag_run_conf=None, session=session))
        assert len(days) == 31
        with pytest.raises(InvalidReprocessBehavior):
            list(_do_dry_run(**asked, reprocess_behavior=ReprocessBehavior.NONE, dag_run_conf=None, session=session))


def test_each_device_of_the_pools_is_a_task(recipe):
    tasks = recipe("cookbook_gpu_pool").tasks
    assert sorted((t.device, t.pool, t.queue) for t in tasks) == sorted(
        [("gpu", "easeml_gpus", "gpu")] * 2 + [("cpu", "easeml_cpus", "cpu")] * 4
    )


# Checking what a function returned walks through all loaded modules, and some of Airflow's warn when looked at.
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_one_task_trains_each_candidate_with_what_it_names(run_dag, recipe, connected, referee, store):
    done = run_dag(recipe("cookbook_mixed"))
    assert states(done) == {"register": "success", "suggest": "success", "train": "success"}
    with store.begin() as tx:
        found = tx.exec_driver_sql(
            "SELECT c.name, t.state, t.executor, t.executor_details ->> 'function' FROM work.trials t "
            "JOIN work.candidates c ON c.id = t.candidate_id ORDER BY c.name"
        ).all()
    told = {name: (state, executor, (function or "").rpartition(".")[2]) for name, state, executor, function in found}
    lines = [name for name in told if name.startswith("line-")]
    assert len(lines) == 2
    assert told == {
        **dict.fromkeys(lines, ("SUCCEEDED", "function:line", "line")),
        "bayes": ("SUCCEEDED", "trainer:gaussian_naive_bayes", ""),
        "tree": ("SUCCEEDED", "function:tree", "tree"),
    }
