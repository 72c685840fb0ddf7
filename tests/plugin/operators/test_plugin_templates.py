"""Every operator and sensor with a template string in every template field: the constructor only keeps it."""

import importlib
import inspect

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from easeml_airflow.operators import GateOperator
from easeml_core.errors import ConditionSyntaxError

CASES = {
    "easeml_airflow.operators": {
        "RegisterStudyOperator": {},
        "SuggestTrialsOperator": {},
        "TrainTrialOperator": {"on_failed": "skip"},
        "RunDeviceOperator": {"poll_interval": 1.0},
        "BestModelsOperator": {},
        "FedStudiesOperator": {},
        "FeedOperator": {},
        "GateOperator": {"on_fail": "skip", "deferrable": False},
        "ListDevicesOperator": {},
        "ListStudiesOperator": {},
        "MeterOperator": {"poll_interval": 1.0},
        "MlflowSyncOperator": {},
        "NotifyOperator": {},
        "PauseOnAlertOperator": {},
        "ForcePromotionOperator": {},
        "PromoteModelOperator": {"answer_timeout": 5.0},
        "RefineOperator": {"deferrable": False},
        "RejectedModelOperator": {},
        "ReleaseModelsOperator": {"on_fail": "ignore"},
        "RollbackModelOperator": {"answer_timeout": 5.0},
        "SubmitModelOperator": {},
        "WaitingSubmissionsOperator": {},
        "InferOperator": {},
    },
    "easeml_airflow.sensors": {
        "OverfittingMeterSensor": {},
        "TrialFinishedSensor": {"on_failed": "ignore"},
        "TestSetReadySensor": {"deferrable": False},
        "NewTestSetSensor": {"timeout": 5.0},
    },
}
EVERY = [(package, name, more) for package, names in CASES.items() for name, more in names.items()]


def test_no_operator_is_forgotten():
    for package, names in CASES.items():
        assert set(names) == set(importlib.import_module(package).__all__)


@pytest.mark.parametrize(("package", "name", "more"), EVERY)
def test_a_template_in_every_field_is_kept_stored_and_rendered(package, name, more):
    kind = getattr(importlib.import_module(package), name)
    parameters = [p for p in inspect.signature(kind.__init__).parameters.values() if p.name != "self"]
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters)
    assert "easeml_conn_id" in kind.template_fields
    assert "mode" not in {p.name for p in parameters}
    given = {field: "{{ params." + field + " }}" for field in kind.template_fields}
    with DAG("templates", schedule=None) as dag:
        operator = kind(task_id="t", **given, **more)
    assert {field: getattr(operator, field) for field in given | more} == given | more
    back = DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_dict["t"]
    assert back.task_type == name
    assert {field: getattr(back, field) for field in given} == given
    assert back.operator_extra_links
    operator.render_template_fields({"params": dict.fromkeys(given, "42")})
    assert all(getattr(operator, field) == "42" for field in given)


def test_a_literal_condition_is_read_while_the_dag_is_parsed():
    with DAG("literal", schedule=None):
        GateOperator(task_id="good", study="digits", condition="n - o > 0.02 +/- 0.01")
        with pytest.raises(ConditionSyntaxError, match=r"\^"):
            GateOperator(task_id="bad", study="digits", condition="n - o > 0.02")


@pytest.mark.parametrize("condition", ["{{ params.condition }}", "n > {% if true %}0.8{% endif %}", "", None])
def test_a_templated_or_absent_condition_waits_for_execute(condition):
    assert GateOperator(task_id="gate", study="digits", condition=condition).condition == condition
