"""One way to train a model: its name, the rules of its parameters, the data it takes, and where its code is.

Standard library only, so that a form or a DAG may list the kinds at no cost: what trains is imported when it trains.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from easeml_core.entities import Task
from easeml_core.errors import TrainingError
from easeml_core.training.layout import KINDS
from easeml_core.training.parameters import complete

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.training.formats import Predictor
    from easeml_core.training.layout import Layout
    from easeml_core.training.parameters import Rule
    from easeml_core.training.parts import OpenParts
    from easeml_core.training.progress import Report

CLASSES: frozenset[str] = frozenset({Task.CLASSIFICATION})
NUMBERS: frozenset[str] = frozenset({Task.REGRESSION})
BOTH = CLASSES | NUMBERS
ANY_LAYOUT: frozenset[str] = frozenset(KINDS)

_EXTRAS = {"lightgbm": "boosting", "xgboost": "boosting", "torch": "torch"}
_INSTEAD = {Task.CLASSIFICATION: "random_forest", Task.REGRESSION: "random_forest or ridge_regression"}


@dataclass(frozen=True, slots=True)
class Trainer:
    """One way to train a model.

    Attributes:
        kind: The name that candidates use.
        summary: One line for a form.
        library: The package that it needs, as it is imported.
        rules: Name of each parameter to its rule.
        tasks: Kinds of targets that it learns.
        layouts: Kinds of layout that it takes; a family of tables takes all of them, flattened.
        default_layouts: Those for which it is tried when a study names no candidates.
        colours: How many channels an image must have; None for any.
        least_side: How many pixels each side of an image must have, >= 1.
        fitter: ``module:function`` that trains: (kind, parts, complete parameters, *, seed, report) -> predictor.
    """

    kind: str
    summary: str
    library: str = "sklearn"
    rules: Mapping[str, Rule] = field(default_factory=dict)
    tasks: frozenset[str] = CLASSES
    layouts: frozenset[str] = ANY_LAYOUT
    default_layouts: frozenset[str] = ANY_LAYOUT
    colours: int | None = None
    least_side: int = 1
    fitter: str = "easeml_core.training.estimators:fit_estimator"

    @property
    def requires(self) -> str:
        """The extra of our distribution that brings the library; empty when it is always there."""
        return _EXTRAS.get(self.library, "")

    def is_available(self) -> bool:
        """Whether the library is installed; nothing is imported."""
        return importlib.util.find_spec(self.library) is not None

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, checked and completed; InvalidInputError names what is allowed."""
        return complete(self.kind, self.rules, given)

    def misfit(self, layout: Layout, task: Task) -> str:
        """Why it cannot learn from such data; empty if it can.

        Example:
            >>> from easeml_core.training.layout import table_layout
            >>> Trainer("forest", "").misfit(table_layout(3), Task.REGRESSION)
            'forest learns classes, these data have numbers to predict'
        """
        if task not in self.tasks:
            learns, has = ("numbers", "classes") if task == Task.CLASSIFICATION else ("classes", "numbers")
            return f"{self.kind} learns {learns}, these data have {has} to predict"
        if layout.kind not in self.layouts:
            return f"{self.kind} needs {_plural(self.layouts)}, these data are a {layout.kind}"
        if layout.kind == "image":
            return self._misfit_image(layout)
        return ""

    def _misfit_image(self, layout: Layout) -> str:
        height, width, channels = layout.shape
        if self.colours is not None and channels != self.colours:
            return f"{self.kind} takes images of {self.colours} channel(s), these have {channels}"
        if min(height, width) < self.least_side:
            least = self.least_side
            return f"{self.kind} takes images of at least {least} x {least} pixels, these have {height} x {width}"
        return ""

    def fit(self, parts: OpenParts, parameters: Mapping[str, Any], *, seed: int, report: Report) -> Predictor:
        """Train on the train part.

        Args:
            parts: The open parts of the data.
            parameters: As the user gave them.
            seed: Of everything random.
            report: Told how far it is.

        Raises:
            InvalidInputError: If a parameter is not allowed.
            TrainingError: If the library is absent, the data do not suit, or training diverged.
        """
        complete_parameters = self.parameters(parameters)
        if not self.is_available():
            message = f"{self.kind} needs {self.library}: pip install 'easeml-airflow[{self.requires}]'"
            raise TrainingError(message)
        misfit = self.misfit(parts.layout, parts.task)
        if misfit:
            message = f"{misfit}; use a kind such as {_INSTEAD[parts.task]}"
            raise TrainingError(message)
        module, _, name = self.fitter.partition(":")
        fit = getattr(importlib.import_module(module), name)
        predictor: Predictor = fit(self.kind, parts, complete_parameters, seed=seed, report=report)
        return predictor


def _plural(layouts: frozenset[str]) -> str:
    return " or ".join({"table": "tables", "image": "images", "series": "series"}[name] for name in sorted(layouts))
