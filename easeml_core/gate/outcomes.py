"""What two models did on one sealed set, as counts: whole numbers decide, rounded means do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Counts of a new and an old model on the same examples.

    Attributes:
        examples: N.
        wins: Examples that only the new model has right.
        losses: Examples that only the old model has right.
        new_correct: Examples that the new model has right.
        old_correct: Examples that the old model has right.
        disagreements: Examples on which the predictions differ, right or wrong.
    """

    examples: int
    wins: int
    losses: int
    new_correct: int
    old_correct: int
    disagreements: int

    def __post_init__(self) -> None:
        both = self.new_correct - self.wins
        fits = (
            min(self.wins, self.losses, both) >= 0
            and both == self.old_correct - self.losses
            and self.wins + self.losses <= self.disagreements <= self.examples - both
        )
        if not fits:
            message = f"these counts cannot come from one set of examples: {self!r}"
            raise InvalidInputError(message)

    def count_of(self, variable: str) -> int:
        """Examples that count for ``n``, ``o`` or ``d``; divided by N it is the estimate."""
        return {"n": self.new_correct, "o": self.old_correct, "d": self.disagreements}[variable]


def count_outcomes(labels: ArrayLike, old: ArrayLike, new: ArrayLike) -> Outcomes:
    """Count what the old and the new model got right and where they differ.

    Args:
        labels: True classes, whole numbers, shape ``(n_examples,)``.
        old: Predictions of the old model, same shape.
        new: Predictions of the new model, same shape.

    Returns:
        The counts.

    Raises:
        ShapeError: If the shapes differ or are not one-dimensional.
        InvalidInputError: If a value is not a whole number.

    Example:
        >>> count_outcomes([0, 1, 2, 3], old=[0, 0, 0, 0], new=[0, 1, 1, 0])
        Outcomes(examples=4, wins=1, losses=0, new_correct=2, old_correct=1, disagreements=2)
    """
    truth = _whole_numbers("labels", labels)
    before = _whole_numbers("old predictions", old, expected=truth.shape)
    after = _whole_numbers("new predictions", new, expected=truth.shape)
    old_right, new_right = before == truth, after == truth
    return Outcomes(
        examples=int(truth.size),
        wins=int(np.count_nonzero(new_right & ~old_right)),
        losses=int(np.count_nonzero(old_right & ~new_right)),
        new_correct=int(np.count_nonzero(new_right)),
        old_correct=int(np.count_nonzero(old_right)),
        disagreements=int(np.count_nonzero(before != after)),
    )


def _whole_numbers(name: str, values: ArrayLike, expected: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or expected not in (None, array.shape):
        raise ShapeError(name, array.shape, str(expected or "(n_examples,)"))
    if array.size and array.dtype.kind not in "iub":
        message = f"{name} must be whole numbers (class indices), got {array.dtype}"
        raise InvalidInputError(message)
    return array
