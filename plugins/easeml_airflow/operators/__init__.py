"""The operators for DAG authors; each is imported on first use, so that parsing a DAG stays cheap."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easeml_airflow.operators.datasets import FedStudiesOperator as FedStudiesOperator
    from easeml_airflow.operators.datasets import FeedOperator as FeedOperator
    from easeml_airflow.operators.datasets import RefineOperator as RefineOperator
    from easeml_airflow.operators.gate import GateOperator as GateOperator
    from easeml_airflow.operators.meter import MeterOperator as MeterOperator
    from easeml_airflow.operators.meter import PauseOnAlertOperator as PauseOnAlertOperator
    from easeml_airflow.operators.mlflow_sync import MlflowSyncOperator as MlflowSyncOperator
    from easeml_airflow.operators.models import BestModelsOperator as BestModelsOperator
    from easeml_airflow.operators.models import InferOperator as InferOperator
    from easeml_airflow.operators.models import SubmitModelOperator as SubmitModelOperator
    from easeml_airflow.operators.models import WaitingSubmissionsOperator as WaitingSubmissionsOperator
    from easeml_airflow.operators.notify import NotifyOperator as NotifyOperator
    from easeml_airflow.operators.promotion import ForcePromotionOperator as ForcePromotionOperator
    from easeml_airflow.operators.promotion import PromoteModelOperator as PromoteModelOperator
    from easeml_airflow.operators.promotion import RollbackModelOperator as RollbackModelOperator
    from easeml_airflow.operators.studies import ListStudiesOperator as ListStudiesOperator
    from easeml_airflow.operators.studies import RegisterStudyOperator as RegisterStudyOperator
    from easeml_airflow.operators.trials import RunDeviceOperator as RunDeviceOperator
    from easeml_airflow.operators.trials import SuggestTrialsOperator as SuggestTrialsOperator
    from easeml_airflow.operators.trials import TrainTrialOperator as TrainTrialOperator

_MODULES = {
    "BestModelsOperator": "easeml_airflow.operators.models",
    "FedStudiesOperator": "easeml_airflow.operators.datasets",
    "FeedOperator": "easeml_airflow.operators.datasets",
    "ForcePromotionOperator": "easeml_airflow.operators.promotion",
    "GateOperator": "easeml_airflow.operators.gate",
    "InferOperator": "easeml_airflow.operators.models",
    "ListStudiesOperator": "easeml_airflow.operators.studies",
    "MeterOperator": "easeml_airflow.operators.meter",
    "MlflowSyncOperator": "easeml_airflow.operators.mlflow_sync",
    "NotifyOperator": "easeml_airflow.operators.notify",
    "PauseOnAlertOperator": "easeml_airflow.operators.meter",
    "PromoteModelOperator": "easeml_airflow.operators.promotion",
    "RefineOperator": "easeml_airflow.operators.datasets",
    "RegisterStudyOperator": "easeml_airflow.operators.studies",
    "RollbackModelOperator": "easeml_airflow.operators.promotion",
    "RunDeviceOperator": "easeml_airflow.operators.trials",
    "SubmitModelOperator": "easeml_airflow.operators.models",
    "SuggestTrialsOperator": "easeml_airflow.operators.trials",
    "TrainTrialOperator": "easeml_airflow.operators.trials",
    "WaitingSubmissionsOperator": "easeml_airflow.operators.models",
}

__all__ = [
    "BestModelsOperator",
    "FedStudiesOperator",
    "FeedOperator",
    "ForcePromotionOperator",
    "GateOperator",
    "InferOperator",
    "ListStudiesOperator",
    "MeterOperator",
    "MlflowSyncOperator",
    "NotifyOperator",
    "PauseOnAlertOperator",
    "PromoteModelOperator",
    "RefineOperator",
    "RegisterStudyOperator",
    "RollbackModelOperator",
    "RunDeviceOperator",
    "SubmitModelOperator",
    "SuggestTrialsOperator",
    "TrainTrialOperator",
    "WaitingSubmissionsOperator",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
