"""The sensors for DAG authors; each is imported on first use, so that parsing a DAG stays cheap."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easeml_airflow.sensors.new_test_set import NewTestSetSensor as NewTestSetSensor
    from easeml_airflow.sensors.overfitting_meter import OverfittingMeterSensor as OverfittingMeterSensor
    from easeml_airflow.sensors.test_set_ready import TestSetReadySensor as TestSetReadySensor
    from easeml_airflow.sensors.trial_finished import TrialFinishedSensor as TrialFinishedSensor

_MODULES = {
    "NewTestSetSensor": "easeml_airflow.sensors.new_test_set",
    "OverfittingMeterSensor": "easeml_airflow.sensors.overfitting_meter",
    "TestSetReadySensor": "easeml_airflow.sensors.test_set_ready",
    "TrialFinishedSensor": "easeml_airflow.sensors.trial_finished",
}

__all__ = ["NewTestSetSensor", "OverfittingMeterSensor", "TestSetReadySensor", "TrialFinishedSensor"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
