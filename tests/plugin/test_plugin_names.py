"""What DAG authors import, and the decorator's two forms."""

import doctest
import importlib

import pytest

PACKAGES = [
    "easeml_airflow.operators",
    "easeml_airflow.sensors",
    "easeml_airflow.decorators",
    "easeml_airflow.notifications",
]


@pytest.mark.parametrize(
    "path",
    [
        "easeml_airflow.hooks.arguments",
        "easeml_airflow.notifications.base",
        "easeml_airflow.notifications.channels",
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
        "RejectedModelOperator",
        "ReleaseModelsOperator",
        "RollbackModelOperator",
        "SubmitModelOperator",
        "WaitingSubmissionsOperator",
        "InferOperator",
        "MlflowSyncOperator",
        "ListDevicesOperator",
        "ListStudiesOperator",
        "NotifyOperator",
    }
    waits = {"OverfittingMeterSensor", "TrialFinishedSensor", "TestSetReadySensor", "NewTestSetSensor"}
    assert set(sensors.__all__) == waits
    assert notifications.__all__ == ["EasemlNotifier", "FunctionNotifier", "MailNotifier", "WebhookNotifier"]
    assert decorators.__all__ == ["trial"]
