"""What two models did on one sealed set, as counts: whole numbers decide, rounded means do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Counts of a new and an old model on the same examples; None is what the labels that there are do not tell.

    Attributes:
        examples: N.
        wins: Examples that only the new model has right; None while a disagreement lacks its label.
        losses: Examples that only the old model has right; known exactly when ``wins`` is.
        new_correct: Examples that the new model has right; None while any example lacks its label.
        old_correct: Examples that the old model has right; known exactly when ``new_correct`` is.
        disagreements: Examples on which the predictions differ, right or wrong. Needs no label.
        judged: How many of these the wins and losses are counted among, the first in the set's order; None for all.
            Only where predictions alone have chosen that number (``sampling="on-demand"``).
    """

    examples: int
    wins: int | None
    losses: int | None
    new_correct: int | None
    old_correct: int | None
    disagreements: int
    judged: int | None = None

    def __post_init__(self) -> None:
        if not self._fits():
            message = f"these counts cannot come from one set of examples: {self!r}"
            raise InvalidInputError(message)

    def _fits(self) -> bool:
        if not 0 <= self.disagreements <= self.examples:
            return False
        if self.judged is not None and not (0 <= self.judged <= self.disagreements and self.new_correct is None):
            return False
        if self.wins is None or self.losses is None:
            return self.wins is self.losses is self.new_correct is self.old_correct
        if min(self.wins, self.losses) < 0 or self.wins + self.losses > self.among:
            return False
        if self.new_correct is None or self.old_correct is None:
            return self.new_correct is self.old_correct
        both = self.new_correct - self.wins
        return both >= 0 and both == self.old_correct - self.losses and self.disagreements <= self.examples - both

    @property
    def among(self) -> int:
        """How many disagreements the wins and losses are counted among."""
        return self.disagreements if self.judged is None else self.judged

    def count_of(self, variable: str) -> int:
        """Examples that count for ``n``, ``o`` or ``d``; divided by N it is the estimate.

        Raises:
            InvalidInputError: If labels are missing: what is not measured is never taken as 0.
        """
        return _known(variable, {"n": self.new_correct, "o": self.old_correct, "d": self.disagreements}[variable])

    @property
    def won_and_lost(self) -> tuple[int, int]:
        """Wins and losses, or InvalidInputError where a disagreement lacks its label."""
        return _known("n - o", self.wins), _known("n - o", self.losses)

    def cells(self, *, with_agreements: bool) -> NDArray[np.int64]:
        """How often each of ``condition.OUTCOMES`` was seen, shape ``(5,)``.

        Args:
            with_agreements: Whether it matters if two equal predictions are right. If not, all of them are counted as
                both wrong, and only disagreements need labels.

        Raises:
            InvalidInputError: If a label that matters is missing.
        """
        wins, losses = self.won_and_lost
        both = self.count_of("n") - wins if with_agreements else 0
        agreed = self.examples - self.disagreements
        return np.array([both, wins, losses, agreed - both, self.disagreements - wins - losses], dtype=np.int64)


def count_outcomes(labels: ArrayLike, old: ArrayLike, new: ArrayLike, *, judged: int | None = None) -> Outcomes:
    """Count what the old and the new model got right and where they differ.

    Args:
        labels: True classes, whole numbers >= 0, shape ``(n_examples,)``; a negative one is not known yet.
        old: Predictions of the old model, same shape.
        new: Predictions of the new model, same shape.
        judged: As of ``Outcomes``: whatever is known of further disagreements, and of agreements, is not counted.

    Returns:
        The counts; None for those that a missing label could change.

    Raises:
        ShapeError: If the shapes differ or are not one-dimensional.
        InvalidInputError: If a value is not a whole number.

    Example:
        >>> count_outcomes([0, 1, 2, 3], old=[0, 0, 0, 0], new=[0, 1, 1, 0])
        Outcomes(examples=4, wins=1, losses=0, new_correct=2, old_correct=1, disagreements=2, judged=None)
        >>> count_outcomes([-1, 1, 2, -1], old=[0, 0, 0, 0], new=[0, 1, 1, 0])
        Outcomes(examples=4, wins=1, losses=0, new_correct=None, old_correct=None, disagreements=2, judged=None)
    """
    truth, before, after = predictions_of(labels, old, new)
    unknown, differ = truth < 0, before != after
    apart = first_of(differ, judged)
    new_right, old_right = after == truth, before == truth
    agreements_known = judged is None and not unknown.any()
    decided_known = agreements_known or not (unknown & apart).any()
    return Outcomes(
        examples=int(truth.size),
        wins=int(np.count_nonzero(new_right & apart)) if decided_known else None,
        losses=int(np.count_nonzero(old_right & apart)) if decided_known else None,
        new_correct=int(np.count_nonzero(new_right)) if agreements_known else None,
        old_correct=int(np.count_nonzero(old_right)) if agreements_known else None,
        disagreements=int(np.count_nonzero(differ)),
        judged=judged,
    )


def first_of(mask: NDArray[np.bool_], count: int | None) -> NDArray[np.bool_]:
    """The first so many of the places that a mask marks, or all; same shape."""
    return mask if count is None else np.asarray(mask & (np.cumsum(mask) <= count))


def predictions_of(
    labels: ArrayLike, old: ArrayLike, new: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Labels, old and new predictions as arrays of one shape, or the errors of ``count_outcomes``."""
    truth = _whole_numbers("labels", labels)
    before = _whole_numbers("old predictions", old, expected=truth.shape)
    return truth, before, _whole_numbers("new predictions", new, expected=truth.shape)


def _known(what: str, count: int | None) -> int:
    if count is None:
        message = f"{what} is not known: labels are missing; give the labels that the condition needs"
        raise InvalidInputError(message)
    return count


def _whole_numbers(name: str, values: ArrayLike, expected: tuple[int, ...] | None = None) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or expected not in (None, array.shape):
        raise ShapeError(name, array.shape, str(expected or "(n_examples,)"))
    if array.size and array.dtype.kind not in "iub":
        message = f"{name} must be whole numbers (class indices), got {array.dtype}"
        raise InvalidInputError(message)
    return array.astype(np.int64, copy=False)
