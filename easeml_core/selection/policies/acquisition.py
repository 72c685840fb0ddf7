"""What the published policies weigh: expected improvement, GREEDY's candidate set, and upper confidence bounds.

Expected improvement is how much better a tenant is expected to be served after one more trial. Sources: Mockus (1975)
and Jones et al. (1998). What it is worth per second, and to whom, is in ``standings.py``.

GREEDY's two ideas: which tenants are worth serving, and when that question stops helping. Source: Li et al., Ease.ml
(PVLDB 11(5), 2018), section 4.

GP-UCB: upper confidence bounds over finitely many arms, and how wide they are. ``beta`` stands *inside* the square
root, as in the literature: B(k) = mean(k) + sqrt(beta / c_k) std(k). The run index in beta is the tenant's own, counted
from 1, never the global round.

Sources: Srinivas et al. (ICML 2010), Theorem 1, for finitely many arms; Li et al., Ease.ml (PVLDB 11(5), 2018),
sections 3 and 4, for costs and for many tenants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erfcx, ndtr

from easeml_core.errors import InvalidInputError

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
        """The detector after one more round."""
        still = members is not None and members == self.members and not improved
        rounds = self.rounds + 1 if still else 0
        return Freeze(self.patience, members, rounds, self.frozen or rounds >= self.patience)


def beta_of_theorem(*, arms: int, run: int, delta: float) -> float:
    """The beta of the regret bounds: with probability 1 - delta all bounds hold in all rounds.

        beta_t = 2 ln( pi^2 K t^2 / (6 delta) )

    The union bound runs over K arms and all t, since the sum over t of 6 / (pi t)^2 is 1.

    Args:
        arms: K >= 1.
        run: t >= 1.
        delta: Probability that the bounds fail, in (0, 1).

    Example:
        >>> round(beta_of_theorem(arms=8, run=1, delta=0.1), 4)
        9.7595
    """
    _check(arms=arms, run=run, delta=delta)
    return 2 * math.log(math.pi**2 * arms * run**2 / (6 * delta))


def beta_multi_tenant(*, tenants: int, arms: int, run: int, delta: float, max_cost: float) -> float:
    """The beta that makes the bounds of all tenants hold together.

        beta^i_s = 2 c* ln( pi^2 n K* s^2 / (6 delta) )

    Args:
        tenants: n >= 1.
        arms: K* >= 1, the largest number of candidates of any tenant.
        run: s >= 1, the index of the tenant's own run.
        delta: Probability that any bound fails, in (0, 1).
        max_cost: c* > 0, *one* maximum over all tenants; one for each tenant would change whom GREEDY serves.

    Example:
        >>> round(beta_multi_tenant(tenants=10, arms=8, run=1, delta=0.1, max_cost=2.0), 4)
        28.7292
    """
    if not (tenants >= 1 and 0 < max_cost < math.inf):
        message = f"beta needs tenants >= 1 and a finite max_cost > 0, got {tenants!r} and {max_cost!r}"
        raise InvalidInputError(message)
    return max_cost * beta_of_theorem(arms=tenants * arms, run=run, delta=delta)


def _check(*, arms: int, run: int, delta: float) -> None:
    if not (arms >= 1 and run >= 1 and 0 < delta < 1):
        message = f"beta needs arms >= 1, run >= 1 and delta in (0, 1), got {arms!r}, {run!r} and {delta!r}"
        raise InvalidInputError(message)


def ucb(mean: Array, std: Array, *, beta: float, costs: Array | float = 1.0) -> Array:
    """Upper confidence bound of each arm.

        B(k) = mean(k) + sqrt( beta / c_k ) std(k)

    Args:
        mean: Shape ``(n_arms,)``.
        std: Shape ``(n_arms,)``, >= 0.
        beta: >= 0.
        costs: c_k > 0, shape ``(n_arms,)``; 1 for the rule that ignores costs.

    Returns:
        Shape ``(n_arms,)``. Only the ratios c* / c_k matter: the unit of the costs does not.

    Example:
        >>> ucb(np.array([0.5]), np.array([0.1]), beta=8.0, costs=np.array([2.0])).tolist()
        [0.7]
    """
    return np.asarray(mean + np.sqrt(beta / costs) * std, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class BetaSchedule:
    """What the bounds of all tenants have in common; called with the index of a tenant's own run.

    Attributes:
        tenants: n.
        arms: K*.
        max_cost: c*.
        delta: Probability that any bound fails.
        multiplier: Factor > 0 on the theoretical beta; 1 keeps the promise of the theorem, 0.01 to 0.1 often learns
            faster on many candidates.
    """

    tenants: int
    arms: int
    max_cost: float
    delta: float
    multiplier: float = 1.0

    def __call__(self, run: int) -> float:
        """beta^i_s times the multiplier, for the s-th run of a tenant."""
        beta = beta_multi_tenant(
            tenants=self.tenants, arms=self.arms, run=run, delta=self.delta, max_cost=self.max_cost
        )
        return self.multiplier * beta
