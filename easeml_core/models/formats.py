"""Models as files, without pickle: one table format -> loader, and the constant model, the simplest of them.

    skops         scikit-learn pipelines; only types that we name are loaded (``skops_format``)
    lightgbm      boosted trees as LightGBM's text (``lightgbm_format``)
    xgboost       boosted trees as XGBoost's JSON (``xgboost_format``)
    safetensors   networks: weights, and the architecture as JSON in the header (``networks``)
    constant      {"label": 3}, {"number": 2.5} or {"numbers": [0.5, 2.0]}: always the same answer; the baseline before
                  a study has a model
    command       a folder with a program that answers, as an archive (``command_model``); runs in the child alone

A loader raises ArtifactError for a file it does not trust. It does not look at the hash of the file, which is checked
where the file is taken from the store (``store/artifacts/local.py``). Load a tenant's model in a child only
(``predict``). Importing this module imports no library.
"""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from easeml_core.data.layout import MAX_TARGET_NUMBERS
from easeml_core.errors import ArtifactError, TrainingError
from easeml_core.files.local import written_whole

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from easeml_core.entities import JsonObject

FORMATS = {
    "skops": ("easeml_core.models.skops_format", "load_pipeline"),
    "lightgbm": ("easeml_core.models.lightgbm_format", "load_lightgbm"),
    "xgboost": ("easeml_core.models.xgboost_format", "load_xgboost"),
    "safetensors": ("easeml_core.models.networks.network", "load_network"),
    "constant": ("easeml_core.models.formats", "load_constant"),
    "command": ("easeml_core.models.command_model", "load_command"),
}
"""Format -> module and name of its loader."""

_LIBRARIES = {
    "skops": (
        "easeml_core.models.skops_library",
        "sklearn.compose", "sklearn.decomposition", "sklearn.discriminant_analysis", "sklearn.ensemble",
        "sklearn.feature_selection", "sklearn.impute", "sklearn.linear_model", "sklearn.naive_bayes",
        "sklearn.neighbors", "sklearn.neural_network", "sklearn.preprocessing", "sklearn.svm", "sklearn.tree", "pandas",
    ),
    "lightgbm": ("lightgbm",),
    "xgboost": ("xgboost",),
    "safetensors": ("torch", "safetensors.torch"),
}  # fmt: skip
"""Format -> what loading such a model imports: the library of the format, and those that it finds classes in;
an imputer asks for pandas, where it is installed."""

NUMBER_WANTED = "a class number is wanted"
"""End of the message about a model that answers with something else; a caller that knows the classes names them."""

_CONSTANT_BYTES = 32 * MAX_TARGET_NUMBERS
_WORD_LENGTH = 60


class Predictor(Protocol):
    """A trained model in memory.

    It may have ``probabilities(inputs, *, classes)`` as well: float64, shape (rows, classes), column j for label j, or
    None.
    """

    @property
    def format(self) -> str:
        """A key of FORMATS."""

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[Any]:
        """The label of each row (int64), or its number (float64) where a model was trained on numbers.

        Shape (rows,), or (rows, numbers) of answers that are images, series or the like; for inputs of shape (rows,
        features), where NaN is missing.
        """

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.floating]:
        """What the answers come from, one or more numbers a row; not finite means that the model is broken."""

    def save(self, path: Path) -> None:
        """Write the model to ``path``."""


@dataclass(frozen=True, slots=True)
class ConstantPredictor:
    """Always the same answer.

    Attributes:
        answer: A label >= 0, or where numbers are predicted a finite float, or several.
    """

    answer: int | float | tuple[float, ...]
    format: str = "constant"

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[Any]:
        """The answer, once per row: int64, or float64 for numbers; several are not copied for each row."""
        import numpy as np

        answer = np.asarray(self.answer, dtype=np.int64 if isinstance(self.answer, int) else np.float64)
        return np.broadcast_to(answer, (len(inputs), *answer.shape))

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.floating]:
        """One per row."""
        import numpy as np

        return np.ones(len(inputs))

    def save(self, path: Path) -> None:
        """Write ``{"label": n}``, ``{"number": x}`` or ``{"numbers": [x, ...]}``."""
        several = "numbers" if isinstance(self.answer, tuple) else "number"
        path.write_text(json.dumps({"label" if isinstance(self.answer, int) else several: self.answer}))


def modules_of(format: str) -> tuple[str, ...]:
    """What a process imports that saves, loads or asks a model of this format, for the server that forks it.

    Example:
        >>> modules_of("constant")
        ('easeml_core.models.answers', 'easeml_core.models.formats')
    """
    module, _ = FORMATS.get(format, ("easeml_core.models.formats", ""))
    ours = dict.fromkeys(("easeml_core.models.answers", "easeml_core.models.formats", module))
    return (*ours, *_LIBRARIES.get(format, ()))


def save_model(predictor: Predictor, path: Path) -> str:
    """Write a model to ``path``, whole or not at all; gives its format."""
    with written_whole(path) as temporary:
        predictor.save(temporary)
    return predictor.format


def save_constant(path: Path, answer: float | tuple[float, ...]) -> None:
    """Write the model that always answers the same: a label >= 0 such as the majority class (an int), or numbers.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "baseline.json"
        >>> save_constant(path, 2)
        >>> path.read_text()
        '{"label": 2}'
        >>> save_constant(path, 2.5)
        >>> load_constant(path).answer
        2.5
    """
    save_model(ConstantPredictor(answer), path)


def load_predictor(path: Path, format: str) -> Predictor:
    """The model in a file."""
    if format not in FORMATS:
        message = f"there is no model format {format!r}; known formats: {', '.join(FORMATS)}"
        raise ArtifactError(message)
    if not path.is_file():
        message = f"the model file {path.name} is missing"
        raise ArtifactError(message)
    module, name = FORMATS[format]
    predictor: Predictor = getattr(importlib.import_module(module), name)(path)
    return predictor


def no_class_number(answer: str) -> TrainingError:
    """The error about a model that gives this, the first of its answers that is no whole number.

    Example:
        >>> str(no_class_number("yes"))
        "the model answered 'yes'; a class number is wanted"
    """
    return TrainingError(f"the model answered {_shown(answer)}; {NUMBER_WANTED}")


def no_number(answer: str) -> TrainingError:
    """The error about a model that gives this, the first of its answers that is no number, where numbers are wanted."""
    return TrainingError(f"the model answered {_shown(answer)}; a number is wanted")


def _shown(answer: str) -> str:
    return repr(answer if len(answer) <= _WORD_LENGTH else answer[:_WORD_LENGTH] + "...")


def load_constant(path: Path) -> ConstantPredictor:
    """The constant model in a file; ArtifactError if it is none of the forms that ``ConstantPredictor`` writes."""
    with path.open("rb") as file:
        content = file.read(_CONSTANT_BYTES + 1)
    try:
        fields = json.loads(content) if len(content) <= _CONSTANT_BYTES else None
    except (ValueError, RecursionError):
        fields = None
    answer = _constant_in(fields) if isinstance(fields, dict) and len(fields) == 1 else None
    if answer is None:
        message = (
            f'the model file {path.name} is no constant model: it must be {{"label": n}} with a whole n >= 0, '
            '{"number": x} with a finite x, or {"numbers": [x, ...]}'
        )
        raise ArtifactError(message)
    return ConstantPredictor(answer)


def _constant_in(fields: JsonObject) -> int | float | tuple[float, ...] | None:
    label, number, numbers = fields.get("label"), fields.get("number"), fields.get("numbers")
    if isinstance(numbers, list):
        fits = 1 <= len(numbers) <= MAX_TARGET_NUMBERS and all(_is_number(n) for n in numbers)
        return tuple(numbers) if fits else None
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < 2**31:
        return label
    return number if _is_number(number) else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and math.isfinite(value)
