"""The example DAGs: they load, have the shape that they promise, and use public names only."""

import ast
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import jinja2
import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.execution_time import macros
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import assets, decorators, notifications, operators, sensors
from easeml_airflow.hooks.easeml import EasemlHook

NAMES = [
    "easeml_commit_gate",
    "easeml_feed_retraining",
    "easeml_forced_promotion",
    "easeml_night_at_scale",
    "easeml_nightly_retraining",
    "easeml_notify",
    "easeml_overfitting_watch",
    "easeml_register_study",
    "easeml_stream",
    "easeml_test_set_watch",
]
NIGHTLY = ("easeml_feed_retraining", "easeml_night_at_scale", "easeml_nightly_retraining")
OURS = {package.__name__ for package in (assets, decorators, notifications, operators, sensors)}
FORMS = {"easeml_airflow.params", "easeml_airflow.study_form"}
ALLOWED_IMPORTS = {"datetime", "pendulum", "airflow.sdk", "airflow.timetables.trigger", "easeml_airflow"} | OURS | FORMS


def edges(dag: DAG):
    return {(task.task_id, below) for task in dag.tasks for below in task.downstream_task_ids}


def test_all_load_without_error_and_are_named_like_their_files(dag_bag, root):
    assert dag_bag.import_errors == {}
    assert sorted(dag_bag.dags) == NAMES == sorted(path.stem for path in (root / "dags").glob("*.py"))


def test_the_bundle_and_the_command_have_the_same_dags_with_the_schedules_that_airflow_sees(dag_bag, root):
    from easeml_airflow.bundles import ExampleDagBundle
    from easeml_core.services.operations.example_dags import example_dags

    assert ExampleDagBundle(name="easeml").path == root / "dags"
    told = {dag.dag_id: dag.schedule for dag in example_dags()}
    assert told == {name: described(dag_bag.dags[name].schedule) for name in NAMES}


def described(schedule):
    """What `easeml dags copy` says of a schedule, from the object that the file gives to Airflow."""
    if isinstance(schedule, CronTriggerTimetable):
        kept = schedule.serialize()
        return f"{kept['expression']} ({kept['timezone']})"
    if isinstance(schedule, timedelta):
        return f"every {schedule.seconds // 60} minutes"
    if isinstance(schedule, list):
        assert schedule == [assets.submissions()]
        return "on submissions()"
    return schedule or "by hand"


@pytest.mark.parametrize("name", NAMES)
def test_each_explains_itself_and_is_safe_to_leave_alone(dag_bag, name):
    dag = dag_bag.dags[name]
    assert not dag.catchup
    assert dag.tags == {"easeml"}
    if name in NIGHTLY:
        assert dag.start_date is None  # with one, switching the DAG on would at once run the night that is past
    else:
        assert dag.start_date.isoformat() == "2026-01-01T00:00:00+00:00"
    if any(task.pool == "easeml_devices" for task in dag.tasks):
        assert dag.max_active_tasks >= 1000, "the pool alone says how many devices train"
    for task in dag.tasks:
        limits = (task.execution_timeout, getattr(task, "timeout", None), getattr(task, "response_timeout", None))
        assert any(limits)
        assert task.task_id in ("check_condition", "raise_alert") or task.retries == 2


@pytest.mark.parametrize("name", NAMES)
def test_each_uses_public_names_only_and_is_short(root, name):
    text = (root / "dags" / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 95
    tree = ast.parse(text)
    assert {node.module for node in tree.body if isinstance(node, ast.ImportFrom)} <= ALLOWED_IMPORTS
    assert {a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names} <= ALLOWED_IMPORTS


@pytest.mark.parametrize("name", NAMES)
def test_each_uses_the_connection_that_the_installation_names(dag_bag, name, monkeypatch):
    monkeypatch.setenv("AIRFLOW__EASEML__CONN_ID", "other")
    kept = [getattr(task, "partial_kwargs", vars(task)) for task in dag_bag.dags[name].tasks]
    used = [EasemlHook(a["easeml_conn_id"]).easeml_conn_id for a in kept if "easeml_conn_id" in a]
    assert set(used) == {"other"}


def test_the_night_goes_in_rounds_and_then_releases_each_study_by_itself(dag_bag):
    dag = dag_bag.dags["easeml_nightly_retraining"]
    assert edges(dag) == {
        ("suggest_1", "train_1"),
        ("train_1", "suggest_2"),
        ("suggest_2", "train_2"),
        ("train_2", "suggest_3"),
        ("suggest_3", "train_3"),
        ("train_3", "best_models"),
        ("best_models", "release.gate"),
        ("best_models", "release.promote"),
        ("best_models", "release.meter"),
        ("release.gate", "release.promote"),
    }
    for number in (1, 2, 3):
        train = dag.task_dict[f"train_{number}"]
        assert isinstance(train, MappedOperator)
        assert train.pool == "easeml_devices"
        # A failed trial, or a round without trials (which skips), must stop neither the next round nor the release.
        assert dag.task_dict[f"suggest_{number}"].trigger_rule == "all_done"
    assert dag.task_dict["best_models"].trigger_rule == "all_done"
    assert dag.max_active_runs == 1
    assert dag.schedule == CronTriggerTimetable("0 1 * * *", timezone="UTC", run_immediately=timedelta())
    # The gate blocks what is downstream of it.
    assert dag.task_dict["release.promote"].trigger_rule == "all_success"


@pytest.mark.parametrize("name", ["easeml_commit_gate", "easeml_feed_retraining", "easeml_nightly_retraining"])
def test_the_gate_judges_studies_that_withhold_verdicts_too(dag_bag, name):
    """A gate that says what a failure does to its task is refused under adaptivity none."""
    (gate,) = (task for task in dag_bag.dags[name].tasks if task.task_type == "GateOperator")
    assert gate.on_fail is None


def test_new_pairs_retrain_only_the_studies_that_they_touch(dag_bag):
    dag = dag_bag.dags["easeml_feed_retraining"]
    assert edges(dag) == {
        ("fed_studies", "refresh"),
        ("fed_studies", "devices"),
        ("fed_studies", "train"),
        ("fed_studies", "best_models"),
        ("live_devices", "devices"),
        ("devices", "train"),
        ("refresh", "train"),
        ("train", "best_models"),
        ("best_models", "release.gate"),
        ("best_models", "release.promote"),
        ("best_models", "release.meter"),
        ("release.gate", "release.promote"),
    }
    rules = {name: dag.task_dict[name].trigger_rule for name in ("devices", "train", "best_models", "release.promote")}
    assert rules.pop("release.promote") == "all_success"  # the gate blocks what is downstream of it
    assert set(rules.values()) == {"all_done_min_one_success"}
    assert dag.task_dict["devices"].python_callable([], ["gpu"]) == []  # nothing was fed
    assert dag.task_dict["devices"].python_callable(["digits"], ["gpu"]) == ["gpu"]
    assert dag.schedule == CronTriggerTimetable("30 0 * * *", timezone="UTC", run_immediately=timedelta())


def test_the_commit_gate_runs_for_each_submission_and_by_hand(dag_bag):
    dag = dag_bag.dags["easeml_commit_gate"]
    assert edges(dag) == {
        ("waiting", "to_judge"),
        ("check_condition", "judge.gate"),
        ("check_condition", "judge.meter"),
        ("to_judge", "judge.gate"),
        ("to_judge", "judge.promote"),
        ("to_judge", "judge.meter"),
        ("judge.gate", "judge.promote"),
    }
    assert list(dag.params) == ["study", "model", "condition", "reliability", "adaptivity"]
    assert set(dag.params.dump().values()) == {None}  # an event fills in no form
    (asset,) = dag.schedule
    assert (asset.name, asset.uri) == ("Ease.ml: models handed in for any study", "easeml://submissions/")
    (watcher,) = asset.watchers
    assert watcher.trigger.serialize()[0] == "easeml_airflow.triggers.submissions.SubmissionsTrigger"
    assert dag.max_active_runs > 16  # one that waits for labels keeps no other from the gate


def test_a_forced_promotion_is_one_task_that_asks_a_person(dag_bag):
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    (promote,) = dag_bag.dags["easeml_forced_promotion"].tasks
    assert isinstance(promote, ApprovalOperator)
    assert promote.defaults is None  # a time-out approves nothing
    assert list(promote.params) == ["why"]


def test_the_registration_form_asks_for_everything_that_the_operator_takes(dag_bag):
    dag = dag_bag.dags["easeml_register_study"]
    assert edges(dag) == {("register", "list_studies")}
    assert set(dag.params) == set(dag.task_dict["register"].template_fields) - {"easeml_conn_id", "training"}


@pytest.mark.parametrize("name", ["easeml_overfitting_watch", "easeml_test_set_watch"])
def test_the_watch_waits_in_the_triggerer(dag_bag, name):
    dag = dag_bag.dags[name]
    pausing = {("watch", "may_pause"), ("may_pause", "pause")} if name == "easeml_overfitting_watch" else set()
    assert edges(dag) == {("watch", "raise_alert")} | pausing
    assert dag.task_dict["watch"].deferrable
    assert dag.max_active_runs == 1
    assert "study" not in dag.params  # while a run waits for one study, for a day at most, none watches the others


def test_news_are_told_by_two_tasks_that_do_not_wait_for_each_other(dag_bag):
    dag = dag_bag.dags["easeml_notify"]
    assert edges(dag) == set()
    assert set(dag.task_dict) == {"mail", "webhook", "list_studies"}
    assert dag.schedule == timedelta(minutes=5)
    assert dag.max_active_runs == 1  # two at a time would tell everything twice
    assert isinstance(dag.task_dict["mail"].notifier, notifications.MailNotifier)
    assert isinstance(dag.task_dict["webhook"].notifier, notifications.WebhookNotifier)


RELEASE = {("train", "best_models"), ("best_models", "release")}


@pytest.mark.parametrize(
    ("name", "task", "more"), [("easeml_stream", "run_device", set()), ("easeml_night_at_scale", "train", RELEASE)]
)
def test_the_stream_is_one_task_a_device_in_their_pool(dag_bag, name, task, more):
    dag = dag_bag.dags[name]
    assert edges(dag) == {("devices", task)} | more
    run = dag.task_dict[task]
    assert isinstance(run, MappedOperator)
    assert run.pool == "easeml_devices"
    assert dag.max_active_runs == 1
    assert (dag.schedule is None) is (name not in NIGHTLY)
    if more:  # a failed device does not keep back what the others have trained
        assert dag.task_dict["best_models"].trigger_rule == "all_done"
        assert isinstance(dag.task_dict["release"], MappedOperator)
    # The longest stream that the form allows, and a trial after it, fit into the task's time.
    longest = timedelta(minutes=dag.params.get_param("time_limit_minutes").schema["maximum"])
    assert run.execution_timeout > longest


@pytest.mark.parametrize(
    ("name", "hours_ago", "left"),
    [
        *[("easeml_night_at_scale", hours_ago, left) for hours_ago, left in ((0, 3600), (0.75, 900), (2, 0))],
        *[("easeml_feed_retraining", hours_ago, left) for hours_ago, left in ((0, 28800), (7.75, 900), (9, 0))],
    ],
)
def test_a_further_try_of_a_device_has_the_rest_of_the_night_s_time(dag_bag, name, hours_ago, left):
    template = dag_bag.dags[name].task_dict["train"].partial_kwargs["until"]
    begun = datetime.now(UTC) - timedelta(hours=hours_ago)
    names = {"params": {"time_limit_minutes": 60}, "dag_run": SimpleNamespace(start_date=begun), "macros": macros}
    assert float(jinja2.Template(template).render(names)) == pytest.approx(left, abs=30)


@pytest.mark.parametrize(("name", "longest"), [("easeml_night_at_scale", 10), ("easeml_feed_retraining", 8)])
def test_a_night_leaves_time_for_a_last_trial_and_for_the_release(dag_bag, name, longest):
    dag = dag_bag.dags[name]
    train = dag.task_dict["train"].execution_timeout
    assert timedelta(hours=longest) < train < dag.dagrun_timeout
