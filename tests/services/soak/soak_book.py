"""What an outside observer of the soak (``soak.py``) knows, with a separate count of entitlements."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

GUARD = 0.4
LEAST_COST, MOST_COST = 2.0, 8.0
GAP = timedelta(seconds=90)  # a deadline that is further away than any trial is predicted to take forbids nothing


def quality_of(study: str, candidate: str, version: int) -> float:
    """In (0, 1), the same in every process; every third study is nearly solved by anything."""
    level = random.Random(study).choice([0.3, 0.6, 0.95])
    return min(max(random.Random(f"{study} {candidate} {version}").gauss(level, (1 - level) / 5), 0.01), 0.99)


def cost_of(study: str, candidate: str, version: int) -> float:
    """Seconds in [LEAST_COST, MOST_COST]: of the candidate, the study, and chance."""
    speed, size = random.Random(study).uniform(-0.3, 0.3), random.Random(candidate).uniform(0.8, 1.9)
    noise = random.Random(f"cost {study} {candidate} {version}").gauss(0, 0.2)
    return min(max(math.exp(size + speed + noise), LEAST_COST), MOST_COST)


@dataclass
class Run:
    """A trial."""

    id: int
    study: str
    candidate: str
    version: int
    predicted: float
    cost: float
    limit: float | None
    lost: float = 0.0
    spent: float | None = None  # seconds of a finished attempt
    quality: float | None = None
    is_open: bool = True
    is_left: bool = False  # no worker holds it
    was_cancelled: bool = False
    attempt: int = 0

    @property
    def charge(self) -> float:
        """Seconds that it counts for in a budget: reserved while it is open, taken afterwards."""
        if self.is_open:
            return math.inf if self.limit is None else self.limit
        return self.lost + (self.spent or 0.0)


@dataclass
class Case:
    """A study: what it may, what it has."""

    id: int
    name: str
    tenant: str
    version: int
    candidates: dict[str, list[str] | None]
    weight: float = 1.0
    priority: int = 0
    budget: float | None = None
    deadline: datetime | None = None
    target: float | None = None
    paused: bool = False
    since: int = 0  # how many trials had ended when it came, came back, or got new data
    best: float = 0.0
    open: int = 0
    present: dict[str, Run] = field(default_factory=dict)
    past: list[Run] = field(default_factory=list)
    free: set[str] = field(default_factory=set)  # untried candidates that run anywhere

    def start_over(self, version: int) -> None:
        """New data: everything may run again."""
        self.past += self.present.values()
        self.version, self.present, self.best = version, {}, 0.0
        self.free = {c for c, devices in self.candidates.items() if devices is None}

    @property
    def charge(self) -> float:
        return math.fsum(r.charge for r in itertools.chain(self.past, self.present.values()))

    @property
    def is_over(self) -> bool:
        passed = self.deadline is not None and self.deadline <= datetime.now(UTC)
        return passed or (self.target is not None and self.best >= self.target)


@dataclass
class Owner:
    """A tenant."""

    weight: float = 1.0
    parallel: int | None = None
    quota: float | None = None
    cases: list[Case] = field(default_factory=list)

    @property
    def open(self) -> int:
        return sum(case.open for case in self.cases)


class Book:
    """Everything that an outside observer knows."""

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}
        self.owners: dict[str, Owner] = {}
        self.runs: dict[int, Run] = {}

    def add(self, case: Case) -> None:
        case.start_over(case.version)
        self.cases[case.name] = case
        self.owners.setdefault(case.tenant, Owner()).cases.append(case)

    def weight(self, case: Case) -> float:
        return case.weight * self.owners[case.tenant].weight

    def start(self, run: Run) -> None:
        case = self.cases[run.study]
        self.runs[run.id] = case.present[run.candidate] = run
        case.free.discard(run.candidate)
        case.open += 1

    def end(self, run: Run, *, spent: float | None, quality: float | None = None) -> None:
        case = self.cases[run.study]
        run.is_open, run.is_left, run.spent, run.quality = False, False, spent, quality
        case.open -= 1
        if run.version == case.version:
            case.best = max(case.best, quality or 0.0)

    def may_run(self, case: Case, room: float) -> bool:
        """Whether the study may surely run one of its candidates, on any device, of at most ``room`` seconds."""
        owner = self.owners[case.tenant]
        if case.paused or not case.free or case.is_over:
            return False
        if case.deadline is not None and case.deadline < datetime.now(UTC) + GAP:
            return False
        if owner.parallel is not None and owner.open >= owner.parallel:
            return False
        return self.seconds_left(case) >= room

    @staticmethod
    def open_runs(case: Case) -> list[Run]:
        """Trials under way on the present data."""
        return [r for r in case.present.values() if r.is_open] if case.open else []

    def seconds_left(self, case: Case) -> float:
        owner = self.owners[case.tenant]
        of_study = math.inf if case.budget is None else case.budget - case.charge
        of_owner = math.inf if owner.quota is None else owner.quota - math.fsum(c.charge for c in owner.cases)
        return min(of_study, of_owner)


class Ledger:
    """How far each active study is behind its floor: g w_i sum(c / W) less what it was charged, from the book alone."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.ends: dict[int, Run] = {}  # trials that ended with a cost, in the order of their end
        self.rebuild()

    def rebuild(self) -> None:
        """As if the studies that are active now had had their present weights ever since they came."""
        self.rate = 0.0
        self.charged: dict[Any, float] = {}
        self.left: dict[Any, set[str]] = {}
        self.from_rate: dict[Any, float] = {}
        for case in self.book.cases.values():
            withdrawn = {c for c, r in case.present.items() if not r.is_open and r.spent is None}
            arms = case.candidates.keys() - withdrawn
            if not case.paused and arms:
                self.charged[case.name], self.left[case.name] = 0.0, set(arms)
        self.weights = {name: self.book.weight(self.book.cases[name]) for name in self.charged}
        self._weigh()
        for number, run in enumerate(self.ends.values()):
            self._join(number)
            self._take(run)
        self._join(len(self.ends))

    def _join(self, ended: int) -> None:
        """A tenant that came after so many ends is entitled, and charged, from here on."""
        for name in self.charged.keys() - self.from_rate.keys():
            if self.book.cases[name].since <= ended:
                self.from_rate[name], self.charged[name] = self.rate, 0.0
                self._weigh()

    def _weigh(self) -> None:
        """The weights of those that are there and have something left to run, else of all."""
        there = [w for name, w in self.weights.items() if name in self.from_rate and self.left[name]]
        self.unfinished = sum(there) if there else sum(self.weights.values())

    def finish(self, run: Run) -> None:
        self.ends[run.id] = run
        self._take(run)

    def _take(self, run: Run) -> None:
        if run.study not in self.charged or run.version != self.book.cases[run.study].version:
            return
        assert run.spent is not None
        self.rate += GUARD * run.spent / self.unfinished
        self.charged[run.study] += run.spent
        self.left[run.study].discard(run.candidate)
        if not self.left[run.study]:
            self._weigh()

    def lags(self) -> dict[str, float]:
        """Seconds that each study is behind; trials under way count as predicted."""
        cases = ((name, self.book.cases[name]) for name in self.charged)
        under = {name: math.fsum(r.predicted for r in self.book.open_runs(case)) for name, case in cases}
        rate = self.rate + GUARD * sum(under.values()) / self.unfinished if self.charged else 0.0
        owed = {name: self.weights[name] * (rate - self.from_rate[name]) for name in self.charged}
        return {name: owed[name] - self.charged[name] - under[name] for name in self.charged}


class Fairness:
    """The guard's bound (``selection/policies/default_choice.py``), for studies that may run at a decision.

    While a tenant is owed a trial every decision is the guard's. Since the last one that was not, no runnable tenant is
    behind by more than

        c_max + J_i + w_i / W g / (1 - g) ((n + 1) c_max + J)

    which for equal weights and J = 0 is the guard's bound. J_i is what study i has fallen behind since then by anything
    but compute: it arrived, was resumed, could not run, weights changed, a trial was withdrawn, or a prediction was in
    error. J is their sum, and the cost of what was given to those that perhaps could not run.
    """

    def __init__(self, book: Book) -> None:
        self.book, self.ledger = book, Ledger(book)
        self.longest = MOST_COST
        self.jumped = defaultdict[str, float](float)
        self.others, self.could = 0.0, set[str]()
        self.worst, self.worst_share, self.in_quiet, self.guarded = 0.0, 0.0, 0.0, 0

    @contextmanager
    def jump(self, *, anew: bool = True) -> Iterator[None]:
        """Something changes that is not compute; ``anew``: what is counted, too."""
        before = self.ledger.lags()
        yield
        if anew:
            self.ledger.rebuild()
        for name, lag in self.ledger.lags().items():
            self.jumped[name] += max(0.0, lag - max(before.get(name, 0.0), 0.0))

    def predict(self, predicted: dict[int, float]) -> None:
        """What the trials under way are believed to take now: only here the scheduler's word is taken."""
        self.longest = max([self.longest, *predicted.values()])
        with self.jump(anew=False):
            for number, seconds in predicted.items():
                self.book.runs[number].predicted = seconds

    def judge(self, study: str, predicted: float, *, is_guarded: bool, priority: int) -> None:
        """One decision, before its trial is under way."""
        self.longest = max(self.longest, predicted)
        lags = self.ledger.lags()
        able = {n for n in lags if self.book.may_run(self.book.cases[n], 4 * self.longest)}
        for name in able - self.could:
            self.jumped[name] += max(0.0, lags[name])
        self.could = able
        if is_guarded:
            self.guarded += 1
            assert lags[study] >= predicted - 1e-6, f"{study} is owed no trial of {predicted} s, but {lags[study]} s"
            self.others += 0.0 if study in able else predicted
            furthest = max((lags[name] for name in able), default=0.0) - self.longest
            assert lags[study] - predicted >= furthest - 1e-6, f"{study} was not furthest ahead"
        else:
            best = max((self.book.cases[n].priority for n in able), default=priority)
            assert priority >= best, f"{study} of priority {priority} before one of {best}"
            self.jumped.clear()
            self.others = 0.0
        self._bound({n: lags[n] for n in able}, 0.0 if not is_guarded else GUARD / (1 - GUARD))

    def _bound(self, lags: dict[str, float], factor: float) -> None:
        """No tenant is behind by more than is allowed; by c_max alone where none was owed a trial."""
        built_up = factor * ((len(self.ledger.charged) + 1) * self.longest + sum(self.jumped.values()) + self.others)
        for name, lag in lags.items():
            part = self.ledger.weights[name] / self.ledger.unfinished
            bound = self.longest + self.jumped[name] + part * built_up
            assert lag <= bound + 1e-6, f"{name} is {lag:.1f} s behind, {bound:.1f} s are allowed"
            self.worst, self.worst_share = max(self.worst, lag), max(self.worst_share, lag / bound)
            if not self.jumped[name]:
                self.in_quiet = max(self.in_quiet, lag)
