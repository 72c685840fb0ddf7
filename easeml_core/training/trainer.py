"""One way to train a model: its name, the rules of its parameters, the data it takes, and where its code is.

A rule is a default, an allowed range and a check. A tenant's own parameters are any JSON within bounds, with two rules
for what such a candidate is made of. Standard library only, so that a form or a DAG may list the kinds at no cost: what
trains is imported when it trains.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import re
import reprlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from easeml_core.data.layout import KINDS
from easeml_core.entities import Parameters, Task
from easeml_core.errors import InvalidInputError, TrainingError, TrainingTaskError
from easeml_core.models.formats import modules_of
from easeml_core.settings.config import require
from easeml_core.training.job import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.data.layout import Layout
    from easeml_core.data.parts import OpenParts
    from easeml_core.entities import Parameters
    from easeml_core.models.formats import Predictor
    from easeml_core.sandbox.child_protocol import Report


class Rule(Protocol):
    """What every rule offers: its default, and a check that gives the value in its own type."""

    @property
    def default(self) -> Any:
        """The value when none is given."""

    def check(self, name: str, value: object) -> Any:
        """The value in the rule's type; ConfigError with the allowed range if it is outside."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number in [low, high]."""

    default: int
    low: int
    high: int

    def check(self, name: str, value: object) -> int:
        """The value as an int.

        Example:
            >>> Whole(5, 1, 100).check("n_neighbors", 7)
            7
        """
        number = _number(value)
        fits = number.is_integer() and self.low <= number <= self.high
        require(fits, name, value, f"a whole number from {self.low:,} to {self.high:,}")
        return int(number)


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number in (above, high]; ``high`` may be infinite."""

    default: float
    above: float = 0.0
    high: float = math.inf

    def check(self, name: str, value: object) -> float:
        """The value as a float.

        Example:
            >>> Real(1.0).check("C", 10)
            10.0
        """
        number = _number(value)
        top = "finite" if math.isinf(self.high) else f"<= {self.high:g}"
        fits = math.isfinite(number) and self.above < number <= self.high
        require(fits, name, value, f"a number > {self.above:g} and {top}")
        return number


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    default: str
    words: tuple[str, ...]

    def check(self, name: str, value: object) -> str:
        """The word itself.

        Example:
            >>> Choice("uniform", ("uniform", "distance")).check("weights", "distance")
            'distance'
        """
        require(value in self.words, name, value, "one of " + ", ".join(self.words))
        return str(value)


def _number(value: object) -> float:
    """The value as a float; not-a-number for what is no number.

    A form sends 7.0 for 7, which is meant; True is an int in Python, which is a mistake.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf


def complete(kind: str, rules: Mapping[str, Rule], given: Parameters) -> Parameters:
    """All parameters of a trainer: those given, checked, and the defaults of the rest.

    Example:
        >>> complete("rbf_svm", {"C": Real(1.0)}, {"C": 2})
        {'C': 2.0}
    """
    unknown = sorted(set(given) - set(rules))
    if unknown:
        allowed = ", ".join(rules) or "none"
        message = f"{kind} has no parameter {unknown[0]!r}; allowed: {allowed}"
        raise InvalidInputError(message)
    return {name: rule.check(f"{kind}.{name}", given.get(name, rule.default)) for name, rule in rules.items()}


MOST_BYTES = 3000
"""Of a candidate's own parameters as JSON; the database takes 4,000 with all that stands beside them."""

_LONGEST_NAME = 100
_ARTIFACT = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,300}@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """The reference of a file in the artifact store; there is no default."""

    default: None = None

    def check(self, name: str, value: object) -> str:
        """The reference itself.

        Example:
            >>> Artifact().check("program", "sha256:" + 64 * "0")[:10]
            'sha256:000'
        """
        fits = isinstance(value, str) and _ARTIFACT.fullmatch(value) is not None
        require(fits, name, value, "sha256:<64 hex digits>, as `easeml candidate pack FOLDER` prints it")
        return str(value)


@dataclass(frozen=True, slots=True)
class Image:
    """A container image by its digest, so that a candidate stays what it was; there is no default."""

    default: None = None

    def check(self, name: str, value: object) -> str:
        """The image's name itself.

        Example:
            >>> Image().check("image", "registry.example/lab/trainer@sha256:" + 64 * "0")[:25]
            'registry.example/lab/trai'
        """
        fits = isinstance(value, str) and _IMAGE.fullmatch(value) is not None
        require(fits, name, value, "NAME@sha256:<64 hex digits>, as `docker images --digests` shows it; no tag alone")
        return str(value)


def checked_own(kind: str, given: Parameters) -> Parameters:
    """Parameters as JSON gives them back.

    Example:
        >>> checked_own("command", {"layers": (64, 32), "rate": 0.1})
        {'layers': [64, 32], 'rate': 0.1}
    """
    checked = {name: _checked(kind, name, value) for name, value in given.items()}
    size = len(json.dumps(checked, ensure_ascii=False).encode())
    if size > MOST_BYTES:
        message = f"the parameters of a candidate of kind {kind} may have {MOST_BYTES:,} bytes as JSON, got {size:,}"
        raise InvalidInputError(message)
    return checked


def _checked(kind: str, name: object, value: object) -> Any:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        message = (
            f"a parameter of {kind} has a name of 1 to {_LONGEST_NAME} printable characters, got {reprlib.repr(name)}"
        )
        raise InvalidInputError(message)
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()  # half a pair of surrogates cannot be stored, nor can the character 0
        fits = len(text) <= MOST_BYTES and "\\u0000" not in text.replace("\\\\", "")
    except (TypeError, ValueError, RecursionError):
        fits = False
    allowed = f"text, a finite number, true, false, null, or lists and mappings of these; at most {MOST_BYTES:,} bytes"
    require(fits, f"{kind}.{name}", reprlib.repr(value), allowed)
    return json.loads(text)


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
        takes_run: Whether the fitter is given ``run`` (``job.Run``) as well.
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
        """Train on the train part."""
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
