"""Conditions on parts of the set: each must hold too, and all conditions share the level.

Which example belongs to which slice must be known from its input, or be fixed before the labels are looked at. Given
which examples are in a slice, they are a random sample of it; so its condition is judged as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from easeml_core.gate.clauses import Condition


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """A part of the set and the condition that must hold on it.

    Attributes:
        name: As in the column that tells the slices.
        condition: The parsed condition.
        members: Positions of its examples in the set's order, rising, shape ``(n_members,)``.
    """

    name: str
    condition: Condition
    members: NDArray[np.int64]


def slices_of(conditions: Sequence[tuple[str, Condition]], names: ArrayLike) -> tuple[Slice, ...]:
    """Find the examples of each slice.

    Args:
        conditions: Pairs (slice, condition), each slice once.
        names: The slice of every example, text, shape ``(n_examples,)``; other names than those asked for are allowed.

    Returns:
        The slices, in the order given.

    Raises:
        InvalidInputError: If a slice has no example: a condition that cannot be measured must not pass.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> slices_of([("young", parse_condition("n > 0.8 +/- 0.1"))], ["old", "young", "young"])[0].members
        array([1, 2])
    """
    column = np.asarray(names)
    found = []
    for name, condition in conditions:
        members = np.flatnonzero(column == name)
        if not members.size:
            known = ", ".join(repr(str(n)) for n in np.unique(column)[:8])
            message = f"slice {name!r} has no examples; slices of this set: {known or 'none'}"
            raise InvalidInputError(message)
        found.append(Slice(name, condition, members))
    return tuple(found)
