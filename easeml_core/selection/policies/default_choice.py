"""The choice of the ``default`` policy between two refits: what each arm of each tenant is worth, and which runs next.

A function of the finished trials in the order of their end and of those under way in the order of their start; nothing
depends on what was asked in between.

The guard is a lower bound of every tenant's share of the compute.

Every second of compute entitles each tenant that is not finished to a part of it,

    entitlement_i = g w_i sum over seconds c of  c / W

with g the guard's share, w_i the tenant's weight and W the weights of the unfinished. What was spent before a tenant
came, or came back, entitles it to nothing, nor is it charged with it. A tenant whose entitlement is ahead of what it
was charged by at least the cost of the trial it would get, gets that trial; of several, the one that is furthest ahead.

*Bound.* Let n tenants of equal weight always have something to run, and no trial cost more than c_max. Then no tenant
is ever behind g times its equal share by more than

    c_max + (1 + 1/n) g / (1 - g) c_max

at the default g = .1 one longest trial and a ninth of another. Where the trial that a tenant waits for changes only
when it has been served (one device, known costs, no shared candidates), the first c_max is the cost of that trial.

Proof. Only starts matter, since a trial under way is charged in full. Let B_i be how far i is behind, and s the last
decision up to now at which no tenant was owed a trial: there B_i <= c_max for all i. Let C be the compute that was
started from then on: one trial of any tenant, and owed ones. A tenant that is owed a trial is behind by its whole
cost, so it is not ahead afterwards, and what i was owed since s is at most B_i(s) plus what i became entitled to.
Over all tenants, C - c_max <= n c_max + g C, hence C <= (n + 1) c_max / (1 - g). Since s, B_i has grown by at most g
C / n.

When tenants finish, the others' shares grow: then n + 1 counts those at s and the dividing n those now. A tenant that
its own limits keep waiting is owed, later, what has built up. Where costs are predicted, the errors of the
predictions come on top until a trial has ended.

Everything is counted from finished trials in the order of their end, and from those under way in the order of their
start, so a restarted scheduler owes what it owed before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from easeml_core.selection.limits import Limits
from easeml_core.selection.policies import acquisition
from easeml_core.selection.problem import SharedArms
from easeml_core.selection.scheduler_interface import Choice, Forecast, Pair
from easeml_core.selection.surrogate import logit_normal
from easeml_core.selection.surrogate.posterior import LatentPosterior
from easeml_core.selection.surrogate.prior import DEGREES_OF_FREEDOM

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from easeml_core.selection.costs.learn import StudyCosts
    from easeml_core.selection.limits import Mask
    from easeml_core.selection.problem import Problem
    from easeml_core.selection.surrogate.posterior import Array, Belief
    from easeml_core.settings.config import SelectionConfig

LEAST = 1e-290
"""Added to every expected improvement: arms without any are still told apart by their cost, and run last."""

_LEAST = np.array(LEAST)
"""As an array without dimensions, which an operation takes faster than a number."""

LEARNING_SHARE = 0.3
"""Share of the compute that goes to the cheapest trials anywhere while there is hardly any past."""

_ROUNDING = 1e-9
"""Far beyond the rounding of a sum of positive numbers, as a part of it."""


class _Board:
    """For one kind of device: the best arm of every tenant, and what it is worth per second."""

    def __init__(self, tenants: int) -> None:
        self.rate = np.zeros(tenants)
        self.arm = np.zeros(tenants, dtype=np.intp)
        self.next_cost = np.full(tenants, np.inf)
        self.gain = np.zeros(tenants)
        self.cheapest = np.full(tenants, np.inf)
        self.due = np.full(tenants, np.inf)
        self.rates: list[Array] = [np.empty(0)] * tenants
        self.dirty = set(range(tenants))


class Lessons:
    """What the cheapest trials have taken of the compute.

    Kept by eighths of an octave of cost, so that most questions are answered without going through all trials; every
    sum runs in an order that a rebuilt scheduler repeats.
    """

    def __init__(self) -> None:
        """Start before any trial."""
        self._costs: list[float] = []
        self._total = 0.0
        self._sums = np.zeros(2 * MIDDLE)
        self._asked, self._below = 0, 0.0  # the step that was asked about last, and about the sum of those below it

    def record(self, cost: float) -> None:
        """Take in what a trial took."""
        self._costs.append(cost)
        self._total += cost
        step = _step(cost)
        self._sums[step] += cost
        if step < self._asked:
            self._below += cost

    def are_enough(self, price: float, further: Sequence[float], share: float) -> bool:
        """Whether trials that cost at most ``price``, further ones included, have taken more than a share of all."""
        step = _step(price)
        extra = sum(cost for cost in further if cost <= price)
        limit = share * (self._total + sum(further)) - extra
        if step != self._asked:
            self._asked, self._below = step, float(np.add.reduce(self._sums[:step]))
        if self._below * (1 - _ROUNDING) > limit:
            return True
        if (self._below + self._sums.item(step)) * (1 + _ROUNDING) < limit:
            return False
        # Too close for a sum in the order of the questions, which a rebuilt scheduler does not repeat.
        surely = float(np.add.reduce(self._sums[:step]))
        if surely > limit:
            return True
        if surely + float(self._sums[step]) <= limit:
            return False
        return sum(cost for cost in self._costs if cost <= price) > limit


MIDDLE = 1024
"""Where a cost of 1 lies among the eighths of an octave; the ends hold whatever is beyond 2^-128 and 2^128."""


def _step(cost: float) -> int:
    """Which eighth of an octave a cost lies in."""
    return min(max(math.floor(8 * math.log2(cost)) + MIDDLE, 0), 2 * MIDDLE - 1)


class DefaultChoice:
    """All tenants' posteriors, costs, limits and guard, and what they make of every arm."""

    def __init__(
        self,
        problem: Problem,
        *,
        config: SelectionConfig,
        priors: Sequence[Belief],
        costs: StudyCosts,
        learning: bool,
    ) -> None:
        """Start before any trial."""
        degrees = DEGREES_OF_FREEDOM if config.tenant_scale else math.inf
        self._config, self._costs, self._learning = config, costs, learning
        self._posteriors = [
            LatentPosterior(prior, noise_variance=config.noise_variance, degrees_of_freedom=degrees) for prior in priors
        ]
        self._weights = [arms.weight for arms in problem.studies]
        self._best = [0.0] * len(priors)
        self._left = [np.ones(len(arms.names)) for arms in problem.studies]
        self._shut = [np.ones(len(arms.names)) for arms in problem.studies]  # 1 where left, infinite where not
        self._restricts_price = config.price_per_second > 0
        self._to_finish = [set(range(len(arms.names))) for arms in problem.studies]
        self._limits = Limits(
            problem.studies,
            charges=[self._charges(i) for i in range(len(priors))],
            quotas=problem.quotas,
            pulls=problem.pulls,
        )
        self._guard = Guard(config.guard, np.array(self._weights), [arms.joined for arms in problem.studies])
        self._shared = SharedArms(problem.studies)
        self._improvement: list[Array | None] = [None] * len(priors)
        self._boards: dict[str | None, _Board] = {}
        self._devices: dict[tuple[int, int], str | None] = {}
        self._lessons = Lessons()

    # -- what happens -------------------------------------------------------------------------------------------------

    def start(self, tenant: int, arm: int, *, device: str | None = None) -> None:
        """Take in that a trial is under way."""
        self._devices[tenant, arm] = device
        self._limits.start(tenant, arm)
        self._guard.start(tenant, arm, self._costs.of(tenant, device).item(arm))
        for i, k in self._shared.of(tenant, arm):
            self._left[i][k], self._shut[i][k] = 0.0, math.inf
            if self._config.believe:
                self._posteriors[i].believe(k)
                self._improvement[i] = None
            self._touch(i)

    def record(
        self, tenant: int, arm: int, quality: float | None, cost_seconds: float, *, device: str | None = None
    ) -> None:
        """Take in a finished trial, started before or not."""
        self._devices.pop((tenant, arm), None)
        self._limits.finish(tenant, arm, quality, cost_seconds)
        for came in self._guard.finish(tenant, arm, cost_seconds):
            self._touch(came)
        if self._learning:
            self._lessons.record(cost_seconds)
        if quality is not None and self._costs.observe(tenant, arm, cost_seconds, device):
            self._learn_cost(tenant)
        for i, k in self._shared.of(tenant, arm):
            self._found(i, k, quality)
            if i != tenant:
                self._limits.found(i, quality)

    def set_seconds_left(self, tenant: int, seconds: float) -> None:
        """Take in how long it is now to the deadline of a tenant that has one."""
        self._limits.set_seconds_left(tenant, seconds)
        self._touch(tenant)

    def charge(self, tenant: int, seconds: float) -> None:
        """Take in what a tenant has used beside the costs of its trials, such as the starts of their processes."""
        self._limits.charge(tenant, seconds)
        self._touch(tenant)

    def _learn_cost(self, tenant: int) -> None:
        """Charge what is under way, and what may be, with the costs that are predicted now.

        A scheduler that is rebuilt while a trial is under way knows no earlier prediction of its cost.
        """
        if self._limits.is_limited(tenant):
            self._limits.charges[tenant] = self._charges(tenant)
        for k in self._guard.under_way(tenant):
            self._guard.start(tenant, k, float(self._costs.of(tenant, self._devices.get((tenant, k)))[k]))

    def _found(self, tenant: int, arm: int, quality: float | None) -> None:
        self._left[tenant][arm], self._shut[tenant][arm] = 0.0, math.inf
        self._to_finish[tenant].discard(arm)
        if not self._to_finish[tenant]:
            self._guard.retire(tenant)
        if quality is None:
            self._posteriors[tenant].forget(arm)
        else:
            latent = logit_normal.logit_of(quality) if self._config.link == "logit" else quality
            self._posteriors[tenant].observe(arm, latent)
            self._best[tenant] = max(self._best[tenant], quality)
        self._improvement[tenant] = None
        self._touch(tenant)

    def _touch(self, tenant: int) -> None:
        if not self._boards:
            return
        touched: Iterable[int] = self._limits.touched(tenant)
        if self._shared:
            touched = {j for i in touched for j in self._shared.partners(i)}
        for board in self._boards.values():
            board.dirty.update(touched)

    def _charges(self, tenant: int) -> Array:
        costs = self._costs.of(tenant)
        return costs if self._costs.known else np.zeros_like(costs)

    # -- what may run -------------------------------------------------------------------------------------------------

    def left(self, tenant: int, device: str | None = None) -> Mask:
        """Arms of a tenant that may run now, whatever they are worth, shape ``(n_arms,)``."""
        allowed, left = self._limits.allowed(tenant, device=device), self._left[tenant] > 0
        return left if allowed is None else left & allowed

    def free(self, device: str | None = None) -> tuple[Mask, ...]:
        """Arms of each tenant that may run now; none of a tenant while one of a higher priority has any."""
        left = [self.left(tenant, device) for tenant in range(len(self._left))]
        first = self._limits.first_class(np.array([mask.any() for mask in left], dtype=bool))
        return tuple(mask & is_first for mask, is_first in zip(left, first, strict=True))

    def costs(self, tenant: int, device: str | None = None) -> Array:
        """Seconds of each arm, known or predicted, > 0, shape ``(n_arms,)``; not to be written to."""
        return self._costs.of(tenant, device)

    # -- what is it worth ---------------------------------------------------------------------------------------------

    def improvement(self, tenant: int) -> Array:
        """EI of each arm, on the scale of quality, shape ``(n_arms,)``."""
        found = self._improvement[tenant]
        if found is None:
            posterior, best = self._posteriors[tenant], self._best[tenant]
            if self._config.link == "logit":
                if posterior.under_way:
                    best = max(best, float(expit(posterior.promised)))
                found = logit_normal.expected_improvement(posterior.mean, posterior.std, best=best)
            else:
                best = max(best, posterior.promised)
                found = acquisition.expected_improvement(posterior.mean, posterior.std, best=best)
            self._improvement[tenant] = found
        return found

    def forecast(self, tenant: int, arm: int, *, device: str | None = None) -> Forecast:
        """What is expected of one trial now."""
        posterior = self._posteriors[tenant]
        mean = float(posterior.mean[arm])
        std = math.sqrt(max(float(posterior.variance[arm]), 0.0)) * posterior.scale
        if self._config.link == "logit":
            mean, std = logit_normal.moments(mean, std)
        return Forecast(
            mean=mean,
            std=std,
            predicted_cost_seconds=float(self._costs.of(tenant, self._devices.get((tenant, arm), device))[arm]),
            cost_known=self._costs.known,
            expected_improvement=float(self.improvement(tenant)[arm]),
            best=self._best[tenant],
        )

    def _promise(self, tenant: int) -> tuple[Array, Array]:
        """EI of each arm, and the same weighted, over all studies that one trial of it serves; to be written to."""
        promise = self.improvement(tenant)
        value = self._weights[tenant] * promise
        groups = self._shared.groups(tenant)
        if groups:
            promise = promise.copy()
        for arm, others in groups:
            for j, k in others:
                if j != tenant:
                    promise[arm] += self.improvement(j)[k]
                    value[arm] += self._weights[j] * self.improvement(j)[k]
        return promise, value

    def _score(self, board: _Board, tenant: int, device: str | None) -> None:
        """Put one tenant's best arm on the board."""
        promise, value = self._promise(tenant)
        costs = self._costs.of(tenant, device)
        value += _LEAST
        rates = value / costs if self._config.cost_aware else value.copy()
        rates *= self._left[tenant]
        if self._restricts_price:
            rates[promise < self._config.price_per_second * costs] = 0.0
        allowed = self._limits.allowed(tenant, device=device)
        if allowed is not None:
            rates[~allowed] = 0.0
        arm = int(rates.argmax())
        rate, cost = rates.item(arm), costs.item(arm)
        board.rates[tenant], board.arm[tenant] = rates, arm
        board.rate[tenant], board.next_cost[tenant] = rate, cost
        board.due[tenant] = self._guard.due(tenant, cost) if rate > 0 else math.inf
        if self._config.objective > 0:
            board.gain[tenant] = value[rates > 0].max(initial=0.0)
        if self._learning:
            by_left = allowed is None and not self._restricts_price
            prices = costs * (self._shut[tenant] if by_left else np.where(rates > 0, 1.0, np.inf))
            board.cheapest[tenant] = prices[prices.argmin()]

    # -- what runs next -----------------------------------------------------------------------------------------------

    def worth(self, tenant: int, *, device: str | None = None) -> Array:
        """What the arms of a tenant are worth per second, by which ``choose`` goes; -inf where one may not run."""
        rates = self._board(device).rates[tenant]
        return np.where(rates > 0, rates, -np.inf)

    def stops_above(self, tenant: int, *, device: str | None = None) -> float:
        """The highest price of a second at which a trial of the tenant would still run; -inf where none may at any.

        A tenant that has as many trials under way as it may has not stopped: its next one only waits.
        """
        promise, value = self._promise(tenant)
        may_run = (value + LEAST) * self._left[tenant] > 0
        allowed = self._limits.allowed(tenant, device=device, once_free=True)
        if allowed is not None:
            may_run &= allowed
        with np.errstate(over="ignore"):  # a cost next to nothing: worth it at any price
            return float((promise / self._costs.of(tenant, device))[may_run].max(initial=-math.inf))

    def _board(self, device: str | None) -> _Board:
        """The board of a kind of device, up to date."""
        board = self._boards.get(device)
        if board is None:
            board = self._boards[device] = _Board(len(self._posteriors))
        for tenant in sorted(board.dirty):
            self._score(board, tenant, device)
        board.dirty.clear()
        return board

    def choose(self, device: str | None = None) -> Choice | None:
        """The next trial for a free device, or None."""
        board = self._board(device)
        # Methods such as ``any`` and ``sum`` go through Python: on a thousand tenants they take longer than the loop.
        rates, cheapest = board.rate, board.cheapest
        if not len(rates) or not rates.item(rates.argmax()) > 0:
            return None
        if self._limits.by_priority or self._config.objective > 0:
            first = self._limits.first_class(rates > 0)
            rates, cheapest = np.where(first, rates, 0.0), np.where(first, cheapest, np.inf)
            rates = self._dialled(board, first, rates)
        if not self._guard.owes_nothing(board.due.item(board.due.argmin())):
            owed = self._guard.owed(board.rate > 0, board.next_cost)
            if owed is not None:
                return self._choice(board, rates, owed, int(board.arm[owed]), guarded=True)
        if self._learning and (lesson := self._lesson(board, cheapest, device)) is not None:
            return self._choice(board, rates, *lesson, learning=True)
        tenant = int(rates.argmax())
        return self._choice(board, rates, tenant, board.arm.item(tenant))

    def _dialled(self, board: _Board, first: Mask, rates: Array) -> Array:
        """The rates in the eyes of the objective.

            J = (1 - d) mean_i w_i loss_i + d max_i w_i loss_i

        whose slope in tenant i's loss is w_i ((1 - d) / n + d [i is the worst off]). The worst off is the one with the
        most to expect of a single trial.
        """
        dial = self._config.objective
        if dial == 0:
            return rates
        scaled = (1 - dial) * rates
        worst = int(np.where(first, board.gain, -1.0).argmax())
        scaled[worst] += dial * len(rates) * rates[worst]
        return scaled

    def _lesson(self, board: _Board, cheapest: Array, device: str | None) -> tuple[int, int] | None:
        """Return the cheapest trial there is, while the cheapest ones have taken little of the compute.

        Whatever ran and was no dearer counts as a lesson, so nothing has to be remembered but the trials themselves.
        """
        tenant = int(cheapest.argmin())
        price = cheapest.item(tenant)
        under_way = [self._costs.of(i, kind).item(k) for (i, k), kind in self._devices.items()]
        if self._lessons.are_enough(price, [*under_way, price], LEARNING_SHARE):
            return None
        costs = np.where(board.rates[tenant] > 0, self._costs.of(tenant, device), np.inf)
        return tenant, int(costs.argmin())

    def _choice(
        self, board: _Board, rates: Array, tenant: int, arm: int, *, guarded: bool = False, learning: bool = False
    ) -> Choice:
        """The choice with its runner-up: the best by the same rates, were this trial not there."""
        chosen = Pair(tenant, arm, board.rates[tenant].item(arm))
        left, arms = board.rate.copy(), {}
        for i, k in self._shared.of(tenant, arm):
            own = board.rates[i].copy()
            own[k] = 0.0
            arms[i] = int(own.argmax())
            left[i] = own[arms[i]]
        scaled = left
        if rates is not board.rate:
            scaled = np.divide(rates, board.rate, out=np.zeros_like(left), where=board.rate > 0) * left
        rival = int(scaled.argmax())
        if not scaled.item(rival) > 0:  # only a lower priority is left
            rival = int(left.argmax())
        second = Pair(rival, arms[rival] if rival in arms else board.arm.item(rival), left.item(rival))
        return Choice(chosen, second if second.acquisition > 0 else None, guarded=guarded, learning=learning)


_SURELY = 1 - 1e-9
"""Far beyond the rounding of a few sums: a rate below this part of what is due is below it in exact numbers, too."""


class Guard:
    """Who is owed a trial.

    Attributes:
        share: g in [0, 1).
        charged: Seconds of each tenant's finished trials since it came, shape ``(n_tenants,)``.
    """

    def __init__(self, share: float, weights: Array, joined: Sequence[int] = ()) -> None:
        """Start with no compute spent."""
        self.share = share
        self.charged = np.zeros(len(weights))
        self._weights = weights
        self._to_come = sorted((ended, tenant) for tenant, ended in enumerate(joined) if ended > 0)[::-1]
        self._away = np.zeros(len(weights), dtype=bool)
        self._away[[tenant for _, tenant in self._to_come]] = True
        self._finished = np.zeros(len(weights), dtype=bool)
        self._unfinished = self._weight_of_unfinished()
        self._ended = 0
        self._rate = 0.0
        self._joined_at = np.zeros(len(weights))
        self._under_way: dict[tuple[int, int], float] = {}
        self._committed = np.zeros(len(weights))

    def start(self, tenant: int, arm: int, cost: float) -> None:
        """Charge a trial under way with its predicted cost."""
        self._under_way[tenant, arm] = cost
        self._commit(tenant)

    def under_way(self, tenant: int) -> list[int]:
        """The tenant's trials under way."""
        return [arm for i, arm in self._under_way if i == tenant] if self._committed[tenant] else []

    def finish(self, tenant: int, arm: int, cost: float) -> Sequence[int]:
        """Charge a finished trial with its measured cost; return the tenants that have come with its end."""
        self._rate += self.share * cost / self._unfinished
        self.charged[tenant] += cost
        if self._under_way.pop((tenant, arm), None) is not None:
            self._commit(tenant)
        self._ended += 1
        if not (self._to_come and self._to_come[-1][0] <= self._ended):
            return ()
        came = []
        while self._to_come and self._to_come[-1][0] <= self._ended:
            came.append(self._to_come.pop()[1])
            self._join(came[-1])
        return came

    def _join(self, tenant: int) -> None:
        """From here on the tenant is entitled, and charged."""
        self._away[tenant] = False
        self._joined_at[tenant], self.charged[tenant] = self._rate, 0.0
        self._unfinished = self._weight_of_unfinished()

    def retire(self, tenant: int) -> None:
        """A tenant has no arm left that has not run: it is owed nothing any more."""
        if not self._finished[tenant]:
            self._finished[tenant] = True
            self._unfinished = self._weight_of_unfinished()

    def _weight_of_unfinished(self) -> float:
        """Return W; that of all tenants if none is unfinished, so that W > 0."""
        there = self._weights[~(self._finished | self._away)]
        return float(there.sum()) if len(there) else float(self._weights.sum())

    def owed(self, waiting: NDArray[np.bool_], next_cost: Array) -> int | None:
        """The tenant that is served out of turn, or None.

        Args:
            waiting: Which tenants have something that may run, shape ``(n_tenants,)``.
            next_cost: Seconds of the trial that each would get, same shape.
        """
        if self.share == 0:
            return None
        ahead = self._rate_now() - self._joined_at
        ahead *= self._weights
        ahead -= self.charged
        ahead -= self._committed
        ahead -= next_cost
        np.putmask(ahead, ~waiting, -np.inf)
        tenant = int(ahead.argmax())
        return tenant if ahead[tenant] > 0 else None

    def due(self, tenant: int, next_cost: float) -> float:
        """Return the rate from which on the tenant is owed a trial of so many seconds, but for rounding.

        It changes with a start, an end and the coming of the tenant only, and with the costs that are predicted for it.
        """
        taken = self.charged.item(tenant) + self._committed.item(tenant) + next_cost
        return self._joined_at.item(tenant) + taken / self._weights.item(tenant)

    def owes_nothing(self, least_due: float) -> bool:
        """Whether ``owed`` is None, by the least ``due`` of the tenants that wait; False where it is too close."""
        return self.share == 0 or self._rate_now() < least_due * _SURELY

    def _rate_now(self) -> float:
        """Return what a weight of 1 was entitled to since the beginning, trials under way included."""
        return self._rate + self.share * sum(self._under_way.values()) / self._unfinished

    def _commit(self, tenant: int) -> None:
        self._committed[tenant] = sum(cost for (i, _), cost in self._under_way.items() if i == tenant)
