"""What is asked of a model for each row: a class, numbers, or the probability of each class; its check, and its bytes.

Questions and answers go through pipes as arrays in numpy's own format; numpy's functions for files want one that can
seek.
"""

from __future__ import annotations

import io
import tokenize
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.entities import JsonObject, Task
from easeml_core.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.data.layout import Layout
    from easeml_core.models.formats import Predictor


_NUMBER, _PROBABILITIES = "number", "probabilities"


@dataclass(frozen=True, slots=True)
class WantedAnswers:
    """One answer a row.

    Attributes:
        kind: ``class`` (int64), ``number`` (float64) or ``probabilities`` (float64, a column for each class).
        classes: Number of classes where probabilities are wanted, else 0.
        numbers: Of a row, where the answer is an image, a series or the like, flattened (float64); 0 for a single one.
    """

    kind: str = "class"
    classes: int = 0
    numbers: int = 0

    @property
    def most_bytes(self) -> int:
        """Of the answer to one row."""
        return 8 * max(1, self.classes, self.numbers)

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {"kind": self.kind, "classes": self.classes, "numbers": self.numbers}

    @classmethod
    def from_json(cls, values: JsonObject) -> WantedAnswers:
        """From what ``to_json`` gave."""
        return cls(str(values["kind"]), int(values["classes"]), int(values["numbers"]))

    def asked(self, predictor: Predictor, inputs: NDArray[np.float32]) -> NDArray[Any]:
        """What the model answers."""
        if self.kind == _NUMBER:
            numbers = getattr(predictor, "numbers", predictor.predict)  # a program has its own way to be asked for them
            return np.asarray(numbers(inputs), dtype=np.float64)
        if self.kind != _PROBABILITIES:
            return predictor.predict(inputs)
        ask = getattr(predictor, "probabilities", None)
        found = None if ask is None else ask(inputs, classes=self.classes)
        if found is None:
            message = f"a model of the format {predictor.format} gives no probabilities here"
            raise TrainingError(message)
        return np.asarray(found, dtype=np.float64)

    def checked(self, answer: NDArray[Any], rows: int) -> NDArray[Any]:
        """The answer itself, if it is one for each row."""
        columns = self.classes if self.kind == _PROBABILITIES else self.numbers
        shape = (rows, columns) if columns else (rows,)
        dtype = np.dtype(np.int64 if self.kind == "class" else np.float64)
        if answer.shape != shape or answer.dtype != dtype:
            message = f"{self.demand(rows)}; it gave {answer.dtype} of shape {answer.shape}"
            raise TrainingError(message)
        if not np.isfinite(answer).all():
            message = f"{self.demand(rows)}; some of its answers are not finite"
            raise TrainingError(message)
        return answer

    def demand(self, rows: int) -> str:
        """What the model must answer, in words."""
        if self.numbers:
            return f"the model must answer with {rows:,} rows of {self.numbers:,} numbers each"
        what = {_NUMBER: "numbers", _PROBABILITIES: f"rows of {self.classes} probabilities"}.get(
            self.kind, "whole numbers"
        )
        return f"the model must answer with {rows:,} {what}, one per row"


A_CLASS, A_NUMBER = WantedAnswers(), WantedAnswers(_NUMBER)


def wanted_of(task: Task, target: Layout | None = None) -> WantedAnswers:
    """What is asked of a model that predicts classes, or numbers; several a row with a target layout.

    Example:
        >>> from easeml_core.data.layout import Layout
        >>> wanted_of(Task.REGRESSION, Layout("image", (8, 8, 1))).numbers
        64
    """
    if target is not None:
        return WantedAnswers(_NUMBER, numbers=target.features)
    return A_NUMBER if task == Task.REGRESSION else A_CLASS


def probabilities_of(classes: int) -> WantedAnswers:
    """The probability of each of so many classes, >= 2."""
    return WantedAnswers(_PROBABILITIES, classes)


_UNREADABLE = (
    ValueError, EOFError, TypeError, LookupError, AttributeError, SyntaxError, RecursionError, MemoryError,
    OverflowError, tokenize.TokenError,
)  # fmt: skip
"""What numpy raises on headers that were made by hand."""


def array_to_bytes(array: NDArray[Any]) -> bytes:
    """The array in .npy form; an array of Python objects is refused (ValueError), since it would be a pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def array_from_bytes(content: bytes) -> NDArray[Any]:
    """Return the array in .npy bytes, without unpickling.

    The bytes may be hostile: a header that claims more than memory holds, or that numpy cannot parse, is refused.

    Example:
        >>> array_from_bytes(array_to_bytes(np.array([1, 2, 3]))).tolist()
        [1, 2, 3]
    """
    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except _UNREADABLE as error:
        message = f"the bytes are no array: {type(error).__name__}"
        raise ValueError(message) from error
    return array
