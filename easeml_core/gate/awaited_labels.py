"""Which labels a condition can need, and which are needed next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.gate.outcomes import first_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.gate.clauses import Condition
    from easeml_core.gate.decision import Decision


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """The labels that a verdict waits for.

    Attributes:
        positions: In the set's order, rising, at least one, shape ``(n_wanted,)``.
    """

    positions: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """How far one condition has come.

    Attributes:
        decision: What can be said now; final if nothing is wanted.
        used: Positions of the labels that it rests on.
        wanted: Positions of the labels that it waits for, rising.
        refuses: Whether it ends the judgement although others still want labels. Under ``fixed``: predictions alone
            refuse, whatever the labels are. Under ``early``: it was closed at a boundary, and does not pass.
    """

    decision: Decision
    used: NDArray[np.int64]
    wanted: NDArray[np.int64]
    refuses: bool = False


def wanted_of(
    condition: Condition, old: NDArray[np.int64], new: NDArray[np.int64], *, judged: int | None = None
) -> NDArray[np.bool_]:
    """Which examples' labels can matter to a condition, from predictions alone: shape ``(n_examples,)``.

    None for d alone; where the weights of n and o cancel, an example on which the models agree adds 0 whatever its
    label, so only disagreements, the first ``judged`` of them where so many do; else all.
    """
    if not condition.needs_labels:
        return np.zeros(old.shape, dtype=np.bool_)
    return np.ones(old.shape, dtype=np.bool_) if condition.needs_agreements else first_of(old != new, judged)
