"""The published promises as numbers: how much regret a policy may have had by now, with probability 1 - delta.

The classic regret of a round is what a tenant misses by the arm of its *last* run, f* - f(a); the ease.ml regret what
it misses by its *best* run. The second is never larger, so a bound on the first is one on both. The bounds suppose that
qualities are drawn from the prior and observed with its noise, that the prior's variances are at most 1, and beta of
the theorems (multiplier 1). Of the classic regret they speak only where arms may run again: once run arms are dropped,
as the scheduler does, a tenant that has found the best arm still runs worse ones. There the ease.ml regret keeps the
bounds of GP-UCB and ROUNDROBIN, and those of GREEDY and HYBRID under ``greedy_from_best``: with

    best - reached <= max( 0, B(a) - f(a) ) <= 2 sqrt(beta / c) std(a)

the proofs go through. As published GREEDY compares tenants by their last run, and a bad last run after a good one makes
its estimate larger than that; a test finds the ease.ml regret far below the bound all the same.

The constant behind MM-GP-EI's bound is not published: ``mm_gp_ei_order`` is what its regret is proportional to at most.

Sources: [S] Srinivas et al. (ICML 2010), Theorem 1 and Lemma 5.4; [L] Li et al., Ease.ml (PVLDB 11(5), 2018), section
4; [Y] Yu et al. (AISTATS 2019); [N] Nemhauser, Wolsey and Fisher (1978), greedy maximisation. Letters: K arms, n
tenants, T rounds, Inf information gain in nats.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError
from easeml_core.selection.surrogate.posterior import Belief, Posterior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.selection.surrogate.posterior import Array

MOST_ARMS = 12
"""MIU tries all subsets of a tenant's arms: 2^12 of them at most."""


def information_gain(cov: Array, arms: Sequence[int], *, noise_variance: float) -> float:
    """What observations at these arms tell about the qualities.

        Inf(A) = 1/2 ln det( I + Sigma_A / sigma^2 )

    Args:
        cov: Sigma, shape ``(n_arms, n_arms)``.
        arms: Observed arms, each as often as it was observed.
        noise_variance: sigma^2 > 0.

    Returns:
        Nats, >= 0.

    Example:
        >>> round(information_gain(np.eye(2), [0, 1], noise_variance=0.5), 4)
        1.0986
    """
    index = np.asarray(arms, dtype=np.intp)
    gram = np.eye(len(index)) + cov[np.ix_(index, index)] / noise_variance
    return 0.5 * float(np.linalg.slogdet(gram)[1])


def maximal_information_gain(cov: Array, rounds: int, *, noise_variance: float, repeats: bool = True) -> float:
    """An upper bound on Inf(T), the information gain of the best T observations; exact up to a few percent.

    The best T observations are hard to find, but Inf is concave in how often each arm is observed, w. With v_k the
    posterior variance of arm k after the greedy choice A (always the arm with the largest variance), its derivative is
    v_k / (2 sigma^2), so for any other choice w'

        Inf(w') <= Inf(A) + sum over k of (w'_k - w_k) v_k / (2 sigma^2)

    whose right side is largest at the arms with the largest v. With ``repeats`` all T go to the largest one, without it
    each arm counts once. The greedy guarantee, Inf(T) <= Inf(A) / (1 - 1/e) [N], is used where it is better.

    Args:
        cov: Sigma, shape ``(n_arms, n_arms)``.
        rounds: T >= 0; without repeats more than K count as K.
        noise_variance: sigma^2 > 0.
        repeats: Whether an arm may be observed more than once.
    """
    rounds = rounds if repeats else min(rounds, len(cov))
    posterior = Posterior(Belief(np.zeros(len(cov)), cov), noise_variance=noise_variance)
    counts, gain = np.zeros(len(cov)), 0.0
    for _ in range(rounds):
        arm = int(np.where(repeats | (counts == 0), posterior.variance, -math.inf).argmax())
        gain += 0.5 * math.log1p(float(posterior.variance[arm]) / noise_variance)
        posterior.observe(arm, 0.0)
        counts[arm] += 1
    variance = np.sort(np.maximum(posterior.variance, 0.0))[::-1]
    most = rounds * variance[0] if repeats else variance[:rounds].sum()
    excess = (most - counts @ np.maximum(posterior.variance, 0.0)) / (2 * noise_variance)
    return min(gain + max(float(excess), 0.0), gain / (1 - 1 / math.e))


def c1(noise_variance: float) -> float:
    """C1 = 8 / ln(1 + 1 / sigma^2): sum over t of 4 sigma_{t-1}(a_t)^2 <= C1 Inf(T) [S, Lemma 5.4].

    Raises:
        InvalidInputError: If the noise variance is not positive.
    """
    if not noise_variance > 0:
        message = (
            f"noise_variance must be > 0, got {noise_variance!r}; without noise the gain of information is infinite"
        )
        raise InvalidInputError(message)
    return 8 / math.log1p(1 / noise_variance)


def gp_ucb_bound(*, total_cost: float, beta: float, gain: float, noise_variance: float) -> float:
    """Theorem 1: the cost-weighted regret of one tenant under GP-UCB.

        sum over t of c_t ( f* - f(a_t) )  <=  sqrt( sum of c_t ) sqrt( C1 beta_T Inf(T) )

    Args:
        total_cost: Sum of the costs of the T runs; T for unit costs.
        beta: beta_T of the last run, c* included (``beta_multi_tenant`` of one tenant).
        gain: Inf(T).
        noise_variance: sigma^2 > 0.
    """
    return math.sqrt(total_cost * c1(noise_variance) * beta * gain)


def round_robin_bound(*, tenants: int, rounds: int, beta: float, gain: float, noise_variance: float) -> float:
    """The regret of all tenants together under ROUNDROBIN with GP-UCB, unit costs.

        R_T <= n^(3/2) sqrt( C1 beta T Inf( ceil(T / n) ) )

    Counted from each tenant's first run on: before it a tenant misses f*, whatever the policy.

    Args:
        tenants: n.
        rounds: T.
        beta: The largest beta of any tenant (``beta_multi_tenant``).
        gain: Inf( ceil(T / n) ), the largest of any tenant.
        noise_variance: sigma^2 > 0.
    """
    return math.sqrt(tenants**3 * c1(noise_variance) * beta * rounds * gain)


def greedy_bound(*, tenants: int, rounds: int, beta: float, gains: Sequence[float], noise_variance: float) -> float:
    """The regret of all tenants together under GREEDY, unit costs.

        R_T <= n sqrt( C1 beta T sum over i of Inf^i(T_i) )

    Counted from the end of the warm-up on; noise of the observations may add its own sum, since GREEDY compares what
    was observed.

    Args:
        tenants: n.
        rounds: T.
        beta: The largest beta of any tenant.
        gains: Inf^i(T_i) of each tenant, T_i its runs.
        noise_variance: sigma^2 > 0.
    """
    return tenants * math.sqrt(c1(noise_variance) * beta * rounds * math.fsum(gains))


def hybrid_bound(*, greedy: float, round_robin: float) -> float:
    """HYBRID is GREEDY and then ROUNDROBIN: the larger of the two bounds."""
    return max(greedy, round_robin)


def miu(blocks: Sequence[Array], runs: int) -> float:
    """Maximum incremental uncertainty of the candidates of tenants that share none.

        MIU_s = max over S of size s and S' in S of size s - 1 of sqrt( det G_S / det G_S' )
        MIU   = sum of MIU_s over s = 2..runs

    The root is the standard deviation of one candidate when s - 1 others are known exactly. Others of other tenants
    tell nothing about it, so the s - 1 come from there first, and from its own tenant as far as there are no more.

    Args:
        blocks: Covariance of each tenant's arms, shape ``(n_arms, n_arms)``, at most MOST_ARMS arms.
        runs: How many candidates were run, at most all.

    Raises:
        InvalidInputError: If a tenant has more than MOST_ARMS arms.

    Example:
        >>> miu([np.eye(2), np.eye(2)], 4)
        3.0
    """
    sizes = [len(block) for block in blocks]
    if max(sizes) > MOST_ARMS:
        message = f"MIU tries all subsets of a tenant's arms: at most {MOST_ARMS} of them, got {max(sizes)}"
        raise InvalidInputError(message)
    stds = [_largest_stds(block) for block in blocks]
    total = sum(sizes)
    return math.fsum(
        max(own[max(0, s - 1 - (total - size))] for own, size in zip(stds, sizes, strict=True) if s <= total)
        for s in range(2, runs + 1)
    )


def _largest_stds(cov: Array) -> list[float]:
    """The largest standard deviation of any arm when r others are known, for r = 0..K-1."""
    arms = range(len(cov))
    return [max(_std(cov, k, known) for known in combinations(arms, r) for k in arms if k not in known) for r in arms]


def _std(cov: Array, arm: int, known: tuple[int, ...]) -> float:
    """The standard deviation of an arm when others are known exactly."""
    index = list(known)
    across = cov[arm, index]
    explained = across @ np.linalg.solve(cov[np.ix_(index, index)], across) if index else 0.0
    return math.sqrt(max(float(cov[arm, arm] - explained), 0.0))


def mm_gp_ei_order(*, tenants: int, devices: int, miu: float) -> float:
    """What MM-GP-EI's regret, summed over tenants and integrated over time, is proportional to at most [Y].

        ( MIU(T, G) + M ) N^2 / M

    The factor, in which time and cost enter, is not published: no number of measurements can break this promise.

    Args:
        tenants: N.
        devices: M.
        miu: MIU(T, G).
    """
    return (miu + devices) * tenants**2 / devices
