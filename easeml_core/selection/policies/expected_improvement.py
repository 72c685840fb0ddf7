"""Expected improvement: how much better a tenant is expected to be served after one more trial.

Sources: Mockus (1975) and Jones et al. (1998). What it is worth per second, and to whom, is in ``standings.py``.

GREEDY's two ideas, as plain functions: which tenants are worth serving, and when that question stops helping.

Source: Li et al., Ease.ml (PVLDB 11(5), 2018), section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erfcx, ndtr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.selection.surrogate.posterior import Array


def tau(u: Array | float) -> Array:
    """Expected positive part of a normal variable with mean u and variance 1.

        tau(u) = u Phi(u) + phi(u)

    with Phi and phi the distribution function and density of the standard normal.

    Numerics: for u << 0 the two terms cancel, and from about u = -8 on the plain sum has no correct digit. There
    Phi(u) = phi(u) m(-u) is used, with the Mills ratio m(x) = sqrt(pi / 2) erfcx(x / sqrt 2), so that
    tau(u) = phi(u) (1 + u m(-u)) stays accurate until phi itself underflows near u = -38.

    Example:
        >>> float(tau(0.0).round(5)), float(tau(1.0).round(5))
        (0.39894, 1.08332)
    """
    u = np.asarray(u, dtype=np.float64)
    density = np.exp(-0.5 * u**2) / math.sqrt(2 * math.pi)
    left = np.minimum(u, 0.0)
    mills = math.sqrt(math.pi / 2) * erfcx(-left / math.sqrt(2))
    return np.asarray(np.where(u < 0, density * (1 + left * mills), u * ndtr(u) + density), dtype=np.float64)


def expected_improvement(mean: Array, std: Array, *, best: float) -> Array:
    """Expected amount by which each arm exceeds the best quality so far.

        EI(k) = std(k) tau( (mean(k) - best) / std(k) )

    Args:
        mean: Posterior mean, shape ``(n_arms,)``.
        std: Posterior standard deviation, shape ``(n_arms,)``, >= 0.
        best: Best quality *observed* by the tenant; 0 before its first observation.

    Returns:
        Shape ``(n_arms,)``, >= 0; max(mean - best, 0) where the std is 0.

    Example:
        >>> float(expected_improvement(np.array([0.0]), np.array([1.0]), best=0.5)[0].round(4))
        0.1978
    """
    gain = mean - best
    positive = std > 0
    safe = np.where(positive, std, 1.0)
    return np.where(positive, safe * tau(np.where(positive, gain / safe, 0.0)), np.maximum(gain, 0.0))


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
