# Made by scripts/reference.py (make reference) from easeml_core/actions; do not edit.

from collections.abc import Sequence
from datetime import datetime

from easeml_core.entities import Parameters
from easeml_core.services.registration.register import RegisteredStudy
from easeml_core.store.database import Store

class Actions:
    store: Store
    def register_study(
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
        weight: float = 1.0,
        budget_seconds: float | None = None,
        priority: int = 0,
        deadline: str | datetime | None = None,
        target_quality: float | None = None,
        candidates: Sequence[Parameters] | None = None,
        gate: Parameters | None = None,
        meter: Parameters | None = None,
        joint: Parameters | None = None,
        direct: Parameters | None = None,
        training: Parameters | None = None,
        keep: bool = False,
        request_key: str | None = None,
    ) -> RegisteredStudy: ...
