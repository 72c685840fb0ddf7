"""The lazy packages: every list of names is the same list, and importing them costs nothing."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = [
    "easeml_airflow.operators",
    "easeml_airflow.sensors",
    "easeml_airflow.decorators",
    "easeml_airflow.notifications",
]


def type_checking_names(package):
    """The names that the ``if TYPE_CHECKING`` block imports from our own modules, with their module."""
    tree = ast.parse(Path(package.__file__).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    assert len(blocks) == 1
    return {alias.asname: node.module for node in blocks[0].body for alias in node.names if alias.asname == alias.name}


@pytest.mark.parametrize("path", PACKAGES)
def test_all_lists_of_names_agree(path):
    package = importlib.import_module(path)
    assert type_checking_names(package) == package._MODULES
    assert sorted(package._MODULES) == sorted(package.__all__) == dir(package)


@pytest.mark.parametrize("path", PACKAGES)
def test_every_name_is_found_twice(path):
    """The second look must not find a submodule that took the name's place."""
    package = importlib.import_module(path)
    for name in package.__all__:
        first, second = getattr(package, name), getattr(package, name)
        assert first is second
        assert callable(first)
        assert first.__name__ == name
        assert first.__module__ == package._MODULES[name]


@pytest.mark.parametrize("path", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(path):
    with pytest.raises(AttributeError, match=f"module '{path}' has no attribute 'Nothing'"):
        importlib.import_module(path).Nothing  # noqa: B018


def test_an_import_error_of_our_own_is_not_hidden(monkeypatch):
    package = importlib.import_module("easeml_airflow.operators")
    monkeypatch.setitem(package._MODULES, "Broken", "easeml_airflow.operators.there_is_no_such_module")
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
        package.Broken  # noqa: B018


@pytest.mark.parametrize(
    "path",
    [
        "easeml_airflow.hooks.arguments",
        "easeml_airflow.notifications.base",
        "easeml_airflow.notifications.mail",
        "easeml_airflow.notifications.told",
        "easeml_airflow.notifications.webhook",
        "easeml_airflow.web.server.marks",
    ],
)
def test_the_examples_in_docstrings_hold(path):
    found = doctest.testmod(importlib.import_module(path))
    assert found.attempted > 0
    assert found.failed == 0


def test_the_decorator_with_and_without_parentheses():
    from airflow.sdk import DAG

    from easeml_airflow.decorators import trial

    with DAG("decorated", schedule=None) as dag:

        @trial
        def plain(data, parameters, report):
            """Fit something."""

        @trial(task_id="named", pool="easeml_devices", on_failed="skip", easeml_conn_id="other")
        def fitted(data, parameters, report):
            """Fit something else."""

        plain(trial={"trial_id": 3})
        fitted(4)
    one, two = dag.task_dict["plain"], dag.task_dict["named"]
    assert (one.op_kwargs, one.on_failed, one.doc_md) == ({"trial": {"trial_id": 3}}, "fail", "Fit something.")
    assert (two._trial(), two.on_failed, two.pool, two.easeml_conn_id) == (4, "skip", "easeml_devices", "other")


def test_star_names_match_the_specified_ones():
    operators, sensors, decorators, notifications = (importlib.import_module(p) for p in PACKAGES)
    assert set(operators.__all__) == {
        "RegisterStudyOperator",
        "SuggestTrialsOperator",
        "TrainTrialOperator",
        "RunDeviceOperator",
        "BestModelsOperator",
        "FedStudiesOperator",
        "FeedOperator",
        "ForcePromotionOperator",
        "GateOperator",
        "MeterOperator",
        "PauseOnAlertOperator",
        "PromoteModelOperator",
        "RefineOperator",
        "RollbackModelOperator",
        "SubmitModelOperator",
        "WaitingSubmissionsOperator",
        "InferOperator",
        "MlflowSyncOperator",
        "ListStudiesOperator",
        "NotifyOperator",
    }
    waits = {"OverfittingMeterSensor", "TrialFinishedSensor", "TestSetReadySensor", "NewTestSetSensor"}
    assert set(sensors.__all__) == waits
    assert notifications.__all__ == ["EasemlNotifier", "FunctionNotifier", "MailNotifier", "WebhookNotifier"]
    assert decorators.__all__ == ["trial"]


def test_the_packages_themselves_import_nothing():
    """Not even Airflow: the names come when they are asked for."""
    program = (
        f"import sys\nbefore = set(sys.modules)\nimport {', '.join(PACKAGES)}\n"
        "print(sorted(m for m in set(sys.modules) - before if '.' not in m))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("['easeml_airflow']", "['__future__', 'easeml_airflow']")
