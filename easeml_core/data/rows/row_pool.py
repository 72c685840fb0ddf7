"""All rows that a training part ever had: what is in it, what is left out, and what comes in anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.rows.labeled_pairs import Pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    Hashes = Callable[[NDArray[np.float32]], list[bytes]]


class Pool:
    """Rows by the hash of their inputs, each in the training part or left out of it.

    Args:
        hashes: Gives the hash of each row's inputs.
        validation_inputs: Of the validation part, shape (rows, features): none of these rows comes in.

    Attributes:
        hashes: As given.
        validated: Hashes of the validation part.
        fed: Hash of each row that has come, or whose label was put right, to its feed.
    """

    def __init__(self, hashes: Hashes, validation_inputs: NDArray[np.float32]) -> None:
        self.hashes, self.validated = hashes, frozenset(hashes(validation_inputs))
        self.fed: dict[bytes, int] = {}
        self._place: dict[bytes, int] = {}
        self._inputs: list[Any] = []
        self._labels: list[Any] = []
        self._on: list[bool] = []
        self._was: list[bool] = []

    def __len__(self) -> int:
        """How many rows there are, left out or not."""
        return len(self._on)

    def __contains__(self, example: bytes) -> bool:
        """Whether there is such a row, left out or not."""
        return example in self._place

    @property
    def changed(self) -> bool:
        """Whether the training part is another one by now."""
        return bool(self.fed) or self._on != self._was

    def add(self, pairs: Pairs, *, is_on: bool) -> None:
        """The rows of the training part as it was, or those that it has left out."""
        for inputs, label, example in zip(*pairs, self.hashes(pairs.inputs), strict=True):
            self._append(example, inputs, label, is_on=is_on, was_on=is_on)

    def switch(self, example: bytes, *, is_on: bool) -> None:
        """Switch a row off or on; an unknown one stays unknown."""
        place = self._place.get(example)
        if place is not None:
            self._on[place] = is_on

    def feed(self, feed_id: int, pairs: Pairs, hashes: Sequence[bytes], *, closed: Collection[bytes]) -> None:
        """Add what is new and not closed. A pair may also put right the label of a row that is left out."""
        for inputs, label, example in zip(*pairs, hashes, strict=True):
            place = self._place.get(example)
            if example in self.validated or example in closed:
                continue
            if place is None:
                self._append(example, inputs, label, is_on=True, was_on=False)
            elif not self._on[place] and not np.array_equal(self._labels[place], label, equal_nan=True):
                self._labels[place], self._on[place] = label, True
            else:
                continue
            self.fed[example] = feed_id

    def pairs(self, *, is_on: bool) -> Pairs | None:
        """The rows that are in the training part, or left out, in their order; None for none."""
        chosen = [place for place, on in enumerate(self._on) if on == is_on]
        if not chosen:
            return None
        return Pairs(np.stack([self._inputs[p] for p in chosen]), np.stack([self._labels[p] for p in chosen]))

    def _append(self, example: bytes, inputs: Any, label: Any, *, is_on: bool, was_on: bool) -> None:
        self._place[example] = len(self._on)
        self._inputs.append(inputs)
        self._labels.append(label)
        self._on.append(is_on)
        self._was.append(was_on)
