"""When to stop and which epoch to keep, by the loss on rows that are held out of the training part.

The validation part has no say in it: were an epoch chosen by it, a candidate with many epochs would have had more tries
than one with few, and the validation part must choose between candidates only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHARE = 0.1
_MOST_ROWS = 5000
LEAST_ROWS = 20
"""A loss on fewer held-out rows says too little to stop by."""


def held_out(rows: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which training rows to learn from, and which to hold out: a tenth at random, at most 5,000.

    Nothing is held out of fewer than 200 rows: then every epoch is trained, and the last one kept.

    Example:
        >>> learn, hold = held_out(300, seed=0)
        >>> len(learn), len(hold), len(held_out(199, seed=0)[1])
        (270, 30, 0)
    """
    count = min(_MOST_ROWS, int(_SHARE * rows))
    count = count if count >= LEAST_ROWS else 0
    order = np.random.default_rng([seed, 0]).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


@dataclass(slots=True)
class BestEpoch:
    """The epoch with the least held-out loss so far.

    Attributes:
        epoch: Its number; 0 before the first.
        loss: Its held-out loss.
    """

    epoch: int = 0
    loss: float = math.inf

    def improves(self, epoch: int, loss: float) -> bool:
        """Take in an epoch; whether it is the best so far. One whose loss is not finite never is.

        Example:
            >>> best = BestEpoch()
            >>> [best.improves(epoch, loss) for epoch, loss in enumerate([0.9, 0.5, float("nan"), 0.5, 0.4], start=1)]
            [True, True, False, False, True]
        """
        if not loss < self.loss:
            return False
        self.epoch, self.loss = epoch, loss
        return True

    def is_over(self, epoch: int, patience: int) -> bool:
        """Whether so many epochs have passed since the best one.

        Example:
            >>> BestEpoch(epoch=4, loss=0.4).is_over(6, patience=3), BestEpoch(epoch=4, loss=0.4).is_over(7, patience=3)
            (False, True)
        """
        return epoch - self.epoch >= patience
