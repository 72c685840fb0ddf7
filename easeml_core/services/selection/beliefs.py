"""The scheduler's predictions for a study's candidates, and the compute price above which each study stops.

The numbers are those of a decision, from the same state (``scheduler_state.py``) and functions, but read from a
snapshot without the lock, so that readers do not block the scheduler. Nothing is stored or decided here.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from easeml_core.formats.encoding import typed_record
from easeml_core.selection.blas_threads import one_thread
from easeml_core.selection.surrogate.logit_normal import band, chance_above
from easeml_core.services.selection.scheduler import uncollected
from easeml_core.services.selection.scheduler_state import Memory
from easeml_core.store import callers
from easeml_core.store.queries import compute as store_compute
from easeml_core.store.tables import decisions
from easeml_core.store.tables import studies as store_studies

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.selection.suggestion import Suggestion
    from easeml_core.store.database import Store


REST = 20.0
"""After a long load, the next one waits this many times its duration: a twentieth of one core at most."""

AT_ONCE_SECONDS = 1.0
"""A load or refit up to this long may be repeated at once; after a longer one, the next is made by a thread."""

LONGEST_WAIT_SECONDS = 3.0
"""How long a caller waits for the load of another caller, where there is no earlier answer."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Beliefs:
    """Predictions for one study.

    Attributes:
        policy: The scheduler's.
        price_per_second: Least gain of quality that a second of compute must promise, >= 0.
        weight: Of the study, multiplied by its tenant's.
        best: Best quality on the present data, 0 before the first.
        costs_known: Whether predicted costs rest on any measurement.
        cost_aware: Whether the policy divides by them.
        chosen_by: Why the study's next candidate is the next of all: ``acquisition``, ``guard`` or ``learning``; None
            where another study comes first.
        position: Place of its next candidate among all that could run now, from 1; None where the policy does not
            compare all of them, or nothing of the study can run.
        competing: How many could run now, over all studies.
        studies: How many studies they are of.
        candidates: The next one first, then by acquisition; those that may not run now last.
    """

    policy: str
    price_per_second: float
    weight: float
    best: float
    costs_known: bool
    cost_aware: bool
    chosen_by: str | None
    position: int | None
    competing: int
    studies: int
    candidates: tuple[Expected, ...]

    @property
    def next(self) -> Expected | None:
        """The study's next candidate; None where none may run."""
        first = self.candidates[0] if self.candidates else None
        return first if first is not None and first.rank == 1 else None


@dataclass(frozen=True, slots=True)
class Expected:
    """The prediction for one candidate, on the scale of quality.

    Attributes:
        candidate: Its name.
        rank: Place within the study, from 1; None where it may not run now.
        mean: Expected quality.
        std: Its standard deviation.
        low: Lower end of the band that holds 80 %.
        high: Upper end of it.
        chance: Probability to beat the best so far.
        predicted_cost_seconds: Predicted cost; 1 for all where nothing was ever measured.
        expected_improvement: By how much it is expected to exceed the best, >= 0.
        acquisition: The policy's acquisition value; None where it may not run now.
    """

    candidate: str
    rank: int | None
    mean: float
    std: float
    low: float
    high: float
    chance: float
    predicted_cost_seconds: float
    expected_improvement: float
    acquisition: float | None


def beliefs(store: Store, *, study: str, tx: Connection | None = None) -> Beliefs | None:
    """Return the predictions for a study's candidates, on any kind of device, with any training function."""
    return watch_of(store).of(study, tx)


def watch_of(store: Store) -> Watch:
    """Return the process's ``Watch`` of a store."""
    with _mutex:
        return _watches.setdefault(store, Watch(store))


class Watch:
    """A process's copy of the scheduler's state, updated at each question; safe to share between threads."""

    def __init__(self, store: Store) -> None:
        """Load nothing yet; the store's role is ``easeml_worker``."""
        self._store = weakref.ref(store)
        self._mutex = threading.Lock()
        self._memory: Memory | None = None
        self._answers: dict[Hashable, Any] = {}
        self._current: set[Hashable] = set()
        self._looked_at: datetime | None = None
        self._rests_until = 0.0
        self._took = 0.0
        self._is_preparing = False

    def of(self, study: str, tx: Connection | None = None) -> Beliefs | None:
        """As ``beliefs``; during the pause after a long load, the last answer."""
        return self.ask(("study", study), lambda memory: _beliefs_of(memory, study), tx)

    def ask(self, question: Hashable, answer: Callable[[Memory], T], tx: Connection | None = None) -> T | None:
        """Answer a question from the present state."""
        store, is_known = self._store(), question in self._answers
        wait = 0.0 if is_known and self._is_preparing else LONGEST_WAIT_SECONDS
        if store is None or not self._mutex.acquire(timeout=wait):
            return self._answers.get(question)
        is_handed_over = False
        try:
            own = tx if tx is not None and not callers.is_viewer(tx) else None
            with callers.reaching(None), store.snapshot() if own is None else nullcontext(own) as look:
                memory, self._memory = self._memory, None  # thrown away unless it could catch up
                memory = self._caught_up(look, memory)
                if memory is None and is_known and time.monotonic() < self._rests_until:
                    return self._answers.get(question)
                is_ready = memory is not None and not memory.scheduler.needs_refit
                must_wait = is_known and not is_ready and self._took > AT_ONCE_SECONDS
                if not must_wait:
                    self._memory = memory = self._ready(look, memory)
            if must_wait:
                self._is_preparing = is_handed_over = True
                self._start_preparing(store, memory)
            elif memory is not None and question not in self._current:
                with one_thread():
                    self._answers[question] = answer(memory)
                self._current.add(question)
            return self._answers.get(question)
        finally:
            if not is_handed_over:
                self._mutex.release()

    def _start_preparing(self, store: Store, memory: Memory | None) -> None:
        """Let a thread load or refit, and release the lock that this caller has taken."""
        try:
            threading.Thread(target=self._prepare, args=(store, memory), daemon=True).start()
        except RuntimeError:  # no thread can be started: the next caller tries again
            self._is_preparing = False
            self._mutex.release()
            raise

    def _prepare(self, store: Store, memory: Memory | None) -> None:
        """Load or refit for the callers that have an earlier answer; after a fault, the next try waits."""
        began = time.monotonic()
        try:
            with callers.reaching(None), store.snapshot() as look:
                self._memory = self._ready(look, memory)
        except BaseException:  # which Python writes to the log of the process
            took = max(time.monotonic() - began, AT_ONCE_SECONDS)
            self._rests_until = time.monotonic() + REST * took
            raise
        finally:
            self._is_preparing = False
            self._mutex.release()

    def _caught_up(self, tx: Connection, memory: Memory | None) -> Memory | None:
        """The state with what has changed taken in; None where everything must be loaded."""
        if memory is None:
            return None
        seen = decisions.glance(tx, last=memory.last_trial, known=list(memory.open))
        is_older = self._looked_at is not None and seen.now < self._looked_at  # a later look came first
        if is_older or memory.is_current(seen):
            return memory
        self._current.clear()
        self._looked_at = seen.now
        with one_thread():
            return memory if memory.catch_up(seen) else None

    def _ready(self, tx: Connection, memory: Memory | None) -> Memory:
        """The state, loaded where there is none, with costs and priors learnt from its results."""
        if memory is not None and not memory.scheduler.needs_refit:
            return memory
        began = time.monotonic()
        with uncollected(), one_thread():
            if memory is not None:
                memory.scheduler.refit()
                self._took = time.monotonic() - began
                return memory
            functions = decisions.training_functions(tx)
            seen = decisions.glance(tx)
            memory = Memory.load(tx, seen, policy=None, studies_only=None, functions=functions)
            memory.scheduler.refit()
        self._took = time.monotonic() - began
        self._rests_until = time.monotonic() + (REST * self._took if self._took > AT_ONCE_SECONDS else 0.0)
        self._answers.clear()
        self._current.clear()
        self._looked_at = seen.now
        return memory


_mutex = threading.Lock()
_watches: weakref.WeakKeyDictionary[Store, Watch] = weakref.WeakKeyDictionary()


def _beliefs_of(memory: Memory, study: str) -> Beliefs | None:
    tenant = next((i for i, arms in enumerate(memory.arms) if arms.study == study), None)
    return None if tenant is None else _beliefs(memory, tenant)


def _beliefs(memory: Memory, tenant: int) -> Beliefs:
    first = memory.suggest(None)
    is_ours = first is not None and first.study_id == memory.arms[tenant].study_id
    worth = memory.scheduler.worth(tenant)
    order = _order(worth, first.arm if first is not None and is_ours else None)
    best = memory.scheduler.forecast(tenant, 0).best
    others = [memory.scheduler.worth(i) for i in range(len(memory.arms))]
    can_run = [int((values > -math.inf).sum()) for values in others]
    return Beliefs(
        policy=memory.config.policy,
        price_per_second=memory.config.price_per_second,
        weight=memory.arms[tenant].weight,
        best=best,
        costs_known=memory.costs_known,
        cost_aware=memory.config.cost_aware,
        chosen_by=_chosen_by(first) if first is not None and is_ours else None,
        position=1 if is_ours else _position(memory, tenant, others),
        competing=sum(can_run),
        studies=sum(count > 0 for count in can_run),
        candidates=tuple(_expected(memory, tenant, arm, rank, best) for rank, arm in enumerate(order, start=1)),
    )


def _order(worth: Any, first: int | None) -> list[int]:
    """Arms, best first and ties in their order; the one that is chosen in fact before all."""
    order: list[int] = (-worth).argsort(kind="stable").tolist()
    return order if first is None else [first, *(arm for arm in order if arm != first)]


def _chosen_by(first: Suggestion) -> str:
    return "guard" if first.guarded else "learning" if first.learning else "acquisition"


def _position(memory: Memory, tenant: int, others: Sequence[Any]) -> int | None:
    """Return the place of the study's best candidate among those of all studies, from 1; priorities come first."""
    best = float(others[tenant].max())
    if memory.config.policy != "default" or best == -math.inf:
        return None
    priority = memory.arms[tenant].priority
    ahead = 0
    for arms, worth in zip(memory.arms, others, strict=True):
        if arms.priority >= priority:
            ahead += int((worth > (-math.inf if arms.priority > priority else best)).sum())
    return ahead + 1


def _expected(memory: Memory, tenant: int, arm: int, rank: int, best: float) -> Expected:
    forecast = memory.scheduler.forecast(tenant, arm)
    worth = float(memory.scheduler.worth(tenant)[arm])
    may_run = worth > -math.inf
    low, high = band(forecast.mean, forecast.std)
    return Expected(
        candidate=memory.arms[tenant].names[arm],
        rank=rank if may_run else None,
        mean=forecast.mean,
        std=forecast.std,
        low=low,
        high=high,
        chance=chance_above(best, forecast.mean, forecast.std),
        predicted_cost_seconds=forecast.predicted_cost_seconds,
        expected_improvement=forecast.expected_improvement,
        acquisition=worth if may_run else None,
    )


DAY = timedelta(days=1)
MOST_AN_HOUR = 1e9
"""Upper limit of a shown price, of quality for an hour; a cost near zero would give more."""


@typed_record
class StoppingPrice:
    """The price above which a study stops, of quality for an hour of a device, and its device seconds of a day."""

    study: str
    stops_above: float
    seconds_day: float


@typed_record
class StoppingPrices:
    """The price above which each active study stops.

    Attributes:
        price_per_hour: The present price, of quality for an hour of a device, >= 0.
        policy: The policy in force.
        is_heeded: Whether the policy uses the price.
        costs_known: Whether predicted costs rest on any measurement.
        studies: Those that have something left to run, the highest price first.
        without: How many have not.
    """

    price_per_hour: float
    policy: str
    is_heeded: bool
    costs_known: bool
    studies: tuple[StoppingPrice, ...]
    without: int


def stopping_prices(store: Store, *, studies: Collection[str] | None = None) -> StoppingPrices | None:
    """Return the price above which each active study stops, highest first."""
    found: tuple[StoppingPrices, Mapping[str, float]] | None = watch_of(store).ask("prices", _prices)
    if found is None:
        return None
    prices, every = found
    with store.begin(writes=False) as tx:  # what the page has asked for, and the database lets it know
        seen = {name for name, _ in store_studies.names_and_tenants(tx)} if callers.is_viewer(tx) else None
    if studies is not None:
        seen = set(studies) if seen is None else seen & set(studies)
    limits = {study: limit for study, limit in every.items() if seen is None or study in seen}
    left = {study: limit for study, limit in limits.items() if limit > -math.inf}
    with store.begin() as tx:
        used = store_compute.seconds_of_studies(tx, since=datetime.now(UTC) - DAY, names=list(left))
    most = MOST_AN_HOUR if prices.is_heeded else math.inf
    entries = [StoppingPrice(s, min(3600 * p, most), used.get(s, 0.0)) for s, p in left.items()]
    entries.sort(key=lambda e: (-e.stops_above, e.study))
    return replace(prices, studies=tuple(entries), without=len(limits) - len(left))


def _prices(memory: Memory) -> tuple[StoppingPrices, Mapping[str, float]]:
    """Return the settings, and the limit of every study for a second of a device."""
    config = memory.config
    kinds = _kinds(memory)
    limits = {
        arms.study: max(memory.scheduler.stops_above(tenant, device=kind) for kind in kinds)
        for tenant, arms in enumerate(memory.arms)
    }
    prices = StoppingPrices(
        price_per_hour=3600 * config.price_per_second,
        policy=config.policy,
        is_heeded=config.policy == "default",
        costs_known=memory.costs_known,
        studies=(),
        without=0,
    )
    return prices, limits


def _kinds(memory: Memory) -> set[str | None]:
    """Return the kinds of device that trials ran on or must run on: a study goes on where it pays on one of them."""
    named = {kind for arms in memory.problem.studies for kinds in arms.devices for kind in kinds or ()}
    return memory.kinds | named or {None}
