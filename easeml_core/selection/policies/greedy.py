"""GREEDY's two ideas, as plain functions: which tenants are worth serving, and when that question stops helping.

Source: Li et al., Ease.ml (PVLDB 11(5), 2018), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.selection.surrogate.posterior import Array


def candidate_set(confidence: Array) -> NDArray[np.bool_]:
    """Tenants whose empirical confidence bound is at least the average.

        V = { i active : sigma~^i >= (1 / n_active) sum over active j of sigma~^j }

    Args:
        confidence: sigma~ of the *active* tenants, shape ``(n_active,)``; a finished tenant in the average would make
            it too high.

    Returns:
        Boolean, shape ``(n_active,)``; never all false. Numerics: the rounded average of equal numbers can lie above
        all of them, so the threshold is never above the largest.

    Example:
        >>> candidate_set(np.array([0.3, 0.1, 0.25])).tolist()
        [True, False, True]
    """
    return np.asarray(confidence >= min(confidence.mean(), confidence.max()))


@dataclass(frozen=True, slots=True)
class Freeze:
    """Detects that GREEDY is stuck: V the same and no tenant better off, for ``patience`` rounds in a row.

    Confidence bounds stop being informative when kernel or noise are misjudged; then HYBRID turns to round robin and
    stays there.

    Attributes:
        patience: s_freeze >= 1; ``math.inf`` never freezes.
        members: V of the round before; None when it was not defined.
        rounds: Rounds without change, up to now.
        frozen: Whether it has happened.
    """

    patience: float
    members: frozenset[int] | None = None
    rounds: int = 0
    frozen: bool = False

    def after(self, members: frozenset[int] | None, *, improved: bool) -> Freeze:
        """The detector after one more round.

        Args:
            members: V after the round; None while some active tenant has not had its first run.
            improved: Whether the served tenant's best quality rose.
        """
        still = members is not None and members == self.members and not improved
        rounds = self.rounds + 1 if still else 0
        return Freeze(self.patience, members, rounds, self.frozen or rounds >= self.patience)
