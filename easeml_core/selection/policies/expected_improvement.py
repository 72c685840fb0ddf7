"""Expected improvement: how much better a tenant is expected to be served after one more trial.

Sources: Mockus (1975) and Jones et al. (1998). What it is worth per second, and to whom, is in ``acquisition.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erfcx, ndtr

if TYPE_CHECKING:
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
