"""One way to train a model: its name, the rules of its parameters, the data it takes, and where its code is.

Standard library only, so that a form or a DAG may list the kinds at no cost: what trains is imported when it trains.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easeml_core.data.layout import KINDS
from easeml_core.entities import Parameters, Task
from easeml_core.errors import TrainingError, TrainingTaskError
from easeml_core.models.formats import modules_of
from easeml_core.training.parameters import checked_own, complete
from easeml_core.training.run_options import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.data.layout import Layout
    from easeml_core.data.parts import OpenParts
    from easeml_core.models.formats import Predictor
    from easeml_core.sandbox.progress import Report
    from easeml_core.training.parameters import Rule

CLASSES: frozenset[str] = frozenset({Task.CLASSIFICATION})
NUMBERS: frozenset[str] = frozenset({Task.REGRESSION})
BOTH = CLASSES | NUMBERS
ANY_LAYOUT: frozenset[str] = frozenset(KINDS)
A_VALUE: frozenset[str] = frozenset({"value"})

_EXTRAS = {"lightgbm": "boosting", "xgboost": "boosting", "torch": "torch", "torchvision": "torch"}
_FORMATS = {
    "sklearn": "skops", "lightgbm": "lightgbm", "xgboost": "xgboost", "torch": "safetensors",
    "torchvision": "safetensors",
}  # fmt: skip
_ON_PROCESSORS = ("sklearn", "lightgbm", "xgboost")
"""Libraries whose trainers compute on processors alone."""

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
        answers: What it answers with: ``value`` for one class or number, or kinds of layout of several numbers a row.
        least_side: How many pixels each side of an image must have, >= 1.
        gives_chances: Whether its models give the probabilities of the classes, which some metrics need.
        own_parameters: Whether it takes parameters of the tenant's own beside those of the rules.
        files: Those of the rules that are references of artifacts; the job is given the files (``TrainingJob.files``).
        takes_run: Whether the fitter is given ``run`` (``run_options.Run``) as well.
        fitter: ``module:function`` that trains: (kind, parts, complete parameters, *, seed, report) -> predictor.
    """

    kind: str
    summary: str
    library: str = "sklearn"
    rules: Mapping[str, Rule] = field(default_factory=dict)
    tasks: frozenset[str] = CLASSES
    layouts: frozenset[str] = ANY_LAYOUT
    default_layouts: frozenset[str] = ANY_LAYOUT
    answers: frozenset[str] = A_VALUE
    least_side: int = 1
    gives_chances: bool = True
    own_parameters: bool = False
    files: tuple[str, ...] = ()
    takes_run: bool = False
    fitter: str = "easeml_core.training.estimators:fit_estimator"

    @property
    def requires(self) -> str:
        """The extra of our distribution that brings the library; empty when it is always there."""
        return _EXTRAS.get(self.library, "")

    @property
    def modules(self) -> tuple[str, ...]:
        """What training and saving imports, for the server that forks the process."""
        own = (self.fitter.partition(":")[0], "easeml_core.data.parts", "easeml_core.metrics.metric")
        # The first optimizer imports this, although nothing is compiled.
        compiler = ("torch._dynamo",) if self.library in ("torch", "torchvision") else ()
        return (*own, *modules_of(_FORMATS.get(self.library, "")), *compiler)

    @property
    def joins_ranks(self) -> bool:
        """Whether it trains on several devices, a process (rank) for each (``distributed``): the networks."""
        return self.takes_run and not self.own_parameters

    @property
    def uses_gpu(self) -> bool:
        """Whether it may train on a GPU where one is visible: networks, and programs, of which nothing is known."""
        return self.own_parameters or self.library not in _ON_PROCESSORS

    @property
    def distributes(self) -> bool:
        """Whether a trial of it may hold several devices; a program starts its own processes."""
        return self.joins_ranks or self.own_parameters

    def is_available(self) -> bool:
        """Whether the library is installed; nothing is imported."""
        return importlib.util.find_spec(self.library) is not None

    def parameters(self, given: Parameters) -> Parameters:
        """All parameters, checked and completed; InvalidInputError names what is allowed."""
        if not self.own_parameters:
            return complete(self.kind, self.rules, given)
        own = {name: value for name, value in given.items() if name not in self.rules}
        ruled = {name: value for name, value in given.items() if name in self.rules}
        return {**complete(self.kind, self.rules, ruled), **checked_own(self.kind, own)}

    def misfit(self, layout: Layout, task: Task, target: Layout | None = None) -> str:
        """Why it cannot learn from such data; empty if it can.

        Args:
            layout: What a row stands for.
            task: What is predicted.
            target: What an answer stands for; None for one class or number a row.

        Example:
            >>> from easeml_core.data.layout import table_layout
            >>> Trainer("forest", "").misfit(table_layout(3), Task.REGRESSION)
            'forest learns classes, these data have numbers to predict'
        """
        if task not in self.tasks:
            learns, has = ("numbers", "classes") if task == Task.CLASSIFICATION else ("classes", "numbers")
            return f"{self.kind} learns {learns}, these data have {has} to predict"
        if ("value" if target is None else target.kind) not in self.answers:
            return f"{self.kind} answers with {_answers(self.answers)}, these data have {_targets(target)} as target"
        if layout.kind not in self.layouts:
            article = "an" if layout.kind == "image" else "a"
            return f"{self.kind} needs {_plural(self.layouts)}, these data are {article} {layout.kind}"
        if layout.kind == "image":
            return self._misfit_image(layout)
        return ""

    def _misfit_image(self, layout: Layout) -> str:
        height, width, _ = layout.shape
        if min(height, width) < self.least_side:
            least = self.least_side
            return f"{self.kind} takes images of at least {least} x {least} pixels, these have {height} x {width}"
        return ""

    def fit(
        self,
        parts: OpenParts,
        parameters: Parameters,
        *,
        seed: int,
        report: Report,
        run: Run = Run(),  # noqa: B008 - frozen
    ) -> Predictor:
        """Train on the train part.

        Args:
            parts: The open parts of the data.
            parameters: As the user gave them.
            seed: Of everything random.
            report: Told how far it is.
            run: What else a fitter may need that ``takes_run``.

        Raises:
            InvalidInputError: If a parameter is not allowed.
            TrainingTaskError: If the library is absent.
            TrainingError: If the data do not suit, or training diverged.
        """
        complete_parameters = self.parameters(parameters)
        if not self.is_available():
            message = f"{self.kind} needs {self.library}: pip install 'easeml-airflow[{self.requires}]'"
            raise TrainingTaskError(message)
        misfit = self.misfit(parts.layout, parts.task, parts.target_layout)
        if misfit:
            instead = "bit_auto_encoder" if parts.target_layout else _INSTEAD[parts.task]
            message = f"{misfit}; use a kind such as {instead}"
            raise TrainingError(message)
        module, _, name = self.fitter.partition(":")
        fit = getattr(importlib.import_module(module), name)
        more = {"run": run} if self.takes_run else {}
        predictor: Predictor = fit(self.kind, parts, complete_parameters, seed=seed, report=report, **more)
        return predictor


def _plural(layouts: frozenset[str]) -> str:
    names = {"table": "tables", "image": "images", "series": "series", "tree": "trees"}
    return " or ".join(names[name] for name in sorted(layouts))


def _answers(answers: frozenset[str]) -> str:
    names = {"table": "rows of numbers", "image": "images", "series": "series", "value": "one class or number a row"}
    return " or ".join(names[name] for name in sorted(answers))


def _targets(target: Layout | None) -> str:
    if target is None:
        return "one class or number a row"
    article = "an" if target.kind == "image" else "a"
    return f"{target.features:,} numbers a row" if target.kind == "table" else f"{article} {target.kind}"
