# Made by scripts/reference.py (make reference) from easeml_core/actions; do not edit.

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from easeml_airflow.operators.base import ActionOperator
from easeml_core.entities import Parameters

class RegisterStudyBase(ActionOperator):
    tenant: str
    study: str
    source: str
    target: str | None
    task: str | None
    metric: str | None
    hit: str | None
    program: str | None
    split: str | None
    grid: str
    weight: float | str
    budget_seconds: float | str | None
    priority: int | str
    deadline: str | datetime | None
    target_quality: float | str | None
    candidates: Sequence[Parameters] | str | None
    gate: Parameters | str | None
    meter: Parameters | str | None
    joint: Parameters | str | None
    direct: Parameters | str | None
    training: Parameters | str | None
    keep: bool
    def __init__(
        self,
        *,
        tenant: str,
        study: str,
        source: str,
        target: str | None = None,
        task: str | None = None,
        metric: str | None = None,
        hit: str | None = None,
        program: str | None = None,
        split: str | None = None,
        grid: str = "one",
        weight: float | str = 1.0,
        budget_seconds: float | str | None = None,
        priority: int | str = 0,
        deadline: str | datetime | None = None,
        target_quality: float | str | None = None,
        candidates: Sequence[Parameters] | str | None = None,
        gate: Parameters | str | None = None,
        meter: Parameters | str | None = None,
        joint: Parameters | str | None = None,
        direct: Parameters | str | None = None,
        training: Parameters | str | None = None,
        keep: bool = False,
        **kwargs: Any,
    ) -> None: ...
