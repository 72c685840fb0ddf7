"""A soak: a made-up installation in which everything happens that can happen, and every decision is judged.

Real are the database, the scheduler, and whatever changes rows: claims, ends, controls. Made up are the trainings:
qualities and costs are drawn, and a virtual clock says who ends next, so nothing sleeps. ``Book`` and ``Fairness`` are
what an outside observer knows; ``audit`` asks the database alone.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import random
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from soak_book import GUARD, Book, Fairness, Run, cost_of, quality_of
from soak_people import Changes, Place, Plan
from sqlalchemy import text

from easeml_core.entities import TrialState
from easeml_core.errors import NotFoundError, TrialStateError
from easeml_core.selection.blas_threads import one_thread
from easeml_core.services.selection.policy import set_policy
from easeml_core.services.selection.scheduler import LiveScheduler
from easeml_core.services.selection.scheduler_state import Memory
from easeml_core.services.trials.execution import cancel_trial, claim
from easeml_core.store.database import Store
from easeml_core.store.tables import decisions, leases, models
from easeml_core.store.tables.capacity import outlook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easeml_core.store.tables.decisions import SuggestedTrial

KINDS = (None, "cpu", "gpu")


class Watch:
    """What every decision believed that trials take: those under way before it, and its own."""

    def __init__(self) -> None:
        self.under_way: dict[int, float] = {}
        self.chosen: dict[tuple[int, str], float] = {}
        self.loads = 0
        self._suggest, self._load = Memory.suggest, LiveScheduler.load

    def suggest(self, memory: Memory, device: str | None) -> Any:
        for number, trial in memory.open.items():
            if trial.place is not None:
                self.under_way[number] = memory.scheduler.forecast(*trial.place).predicted_cost_seconds
        found = self._suggest(memory, device)
        if found is not None:
            place = memory._index[found.study_id], found.arm
            name = memory.menus[found.study_id].names[found.arm]
            forecast = memory.scheduler.forecast(*place, device=device)
            self.chosen[found.study_id, name] = forecast.predicted_cost_seconds
        return found

    def load(self, live: LiveScheduler, *given: Any) -> Memory:
        self.loads += 1
        return self._load(live, *given)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        with (
            patch.object(Memory, "suggest", lambda memory, device: self.suggest(memory, device)),
            patch.object(LiveScheduler, "load", lambda live, *given: self.load(live, *given)),
        ):
            yield


class _Undone(Exception):
    """What was tried out is rolled back."""


class Devices:
    """Devices at work: each asks, starts what it is given, and ends it on the virtual clock, or vanishes."""

    def __init__(self, place: Place, book: Book, fairness: Fairness, plan: Plan, figures: Counter[str]) -> None:
        self.place, self.book, self.fairness, self.plan, self.figures = place, book, fairness, plan, figures
        self.rng, self.keys = random.Random(f"devices {plan.seed}"), (f"ask/{n}" for n in itertools.count())
        self.live = [LiveScheduler(place.store) for _ in range(plan.processes)]
        self.running: list[tuple[float, int, int, Run, str]] = []
        self.busy, self.clock, self.is_closing = Counter[int](), 0.0, False
        self.watch = Watch()

    # -- asks ---------------------------------------------------------------------------------------------------------

    def ask(self, device: int) -> bool:
        """Whether it was given anything."""
        kind, key = KINDS[device % 3], next(self.keys)
        count = 3 if kind is None else 1  # those drive rounds, the others are streams
        live = self.live[device % len(self.live)]
        if self.rng.random() < self.plan.fresh:
            live = LiveScheduler(self.place.store)
        elif self.rng.random() < 0.002:
            live = self.live[device % len(self.live)] = LiveScheduler(self.place.store)
            self.figures["restarts"] += 1
        is_compared = self.rng.random() < self.plan.compare
        expected = self._of_a_new_one(count, kind, key) if is_compared else None
        loads = self.watch.loads
        with self.watch.watching():
            answer = live.ask(count=count, device=kind, request_key=key)
        self.figures["asks"] += 1
        if expected is not None:
            assert [tuple(r) for r in self.place.rows(_SUGGESTED, key=key)] == expected
            self.figures["compared, from memory" if self.watch.loads == loads else "compared, loaded anew"] += 1
        self._refresh()
        believed, self.watch.under_way = self.watch.under_way, {}
        self.fairness.predict({n: c for n, c in believed.items() if n in self.book.runs and self.book.runs[n].is_open})
        given = self.place.rows(_GIVEN, key=key)
        assert [g.id for g in given] == [t.trial_id for t in answer.trials]
        assert given or answer.message.startswith("nothing to train")
        for found in given:
            self._begin(device, kind, key, self._judged(found, kind))
        return bool(given)

    def _of_a_new_one(self, count: int, kind: str | None, key: str) -> list[Any]:
        """What a new scheduler would say now; nothing of it is kept."""
        with contextlib.suppress(_Undone), self.place.store.begin() as tx:
            LiveScheduler(self.place.store)._answer(tx, None, count, kind, key)
            shown = [tuple(r) for r in tx.execute(text(_SUGGESTED), {"key": key})]
            raise _Undone
        return shown

    def _refresh(self) -> None:
        """Trials that no worker holds, after an ask."""
        left = {r.id: r for r in self.book.runs.values() if r.is_left} if self.figures["left"] else {}
        for number, state, attempt, lost, limit in self.place.rows(_STATES, ids=list(left)) if left else []:
            run, case = left[number], self.book.cases[left[number].study]
            assert abs(lost - run.lost) < 0.01, run
            run.lost, run.limit = lost, limit
            if state == "SUGGESTED":
                assert attempt < 3
                assert not run.was_cancelled or attempt == 0
                continue
            late = case.deadline is not None and case.deadline <= datetime.now(UTC)
            assert state == "CANCELLED" if run.was_cancelled else state in ("FAILED", "CANCELLED"), run
            assert run.was_cancelled or late or attempt >= 3 or limit is not None, (run, state)
            self._withdrawn(run)
            self.figures["left"] -= 1
            self.figures["given up"] += 1

    def _judged(self, found: Any, kind: str | None) -> Run:
        """The trial, after everything that must hold for a decision has been asked."""
        case = self.book.cases[found.study]
        owner = self.book.owners[case.tenant]
        assert all(math.isfinite(number) for number in _numbers(found.reasons)), found
        assert found.reasons["sentence"], found
        assert not case.paused, found
        assert case.deadline is None or found.created_at < case.deadline, found
        devices = case.candidates[found.candidate]
        assert devices is None or kind is None or kind in devices, found
        run = self.book.runs.get(found.id)
        if run is not None:
            assert (run.is_left, run.is_open) == (True, True), found
            run.is_left, run.limit = False, found.limit_seconds
            self.figures["left"] -= 1
            self.figures["given again"] += 1
        else:
            reasons = found.reasons
            assert {"mean", "std", "acquisition", "expected_improvement", "best", "runner_up"} <= reasons.keys()
            assert found.candidate not in case.present, found
            assert found.data_version_id == case.version, found
            assert case.target is None or case.best < case.target, found
            assert owner.parallel is None or owner.open < owner.parallel, found
            predicted = self.watch.chosen.pop((case.id, found.candidate))
            priority = {"is_guarded": reasons["guarded"], "priority": case.priority}
            self.fairness.judge(case.name, predicted, **priority)
            cost = cost_of(case.name, found.candidate, case.version)
            run = Run(found.id, case.name, found.candidate, case.version, predicted, cost, found.limit_seconds)
            self.book.start(run)
            self.figures["decisions"] += 1
        assert self.book.seconds_left(case) >= -1e-6, found
        return run

    # -- starts and ends ----------------------------------------------------------------------------------------------

    def _begin(self, device: int, kind: str | None, key: str, run: Run) -> None:
        often = ["succeed"] * 84 + ["fail"] * 8 + ["cancel"] * 3
        seldom = [] if self.is_closing else ["lose"] * 2 + ["vanish", "cancel at once", "cancel and lose"]
        happens = self.rng.choice(often + seldom)
        seconds = min(run.cost, math.inf if run.limit is None else run.limit - run.lost)
        self.busy[device] += 1
        self.figures[happens] += 1
        if happens not in ("vanish", "cancel at once"):
            lease = claim(self.place.store, trial_id=run.id, request_key=key)
            if lease is None:
                self._withdrawn(run)
                happens = "used up"
            else:
                run.attempt = lease.attempt
                self.place.hold(run)
                seconds *= self.rng.random() if happens in ("lose", "cancel and lose") else 1.0
        heapq.heappush(self.running, (self.clock + seconds, run.id, device, run, happens))

    def end_next(self) -> int:
        """The trial that ends next ends; the device that is free then, or -1."""
        self.clock, _, device, run, happens = heapq.heappop(self.running)
        self.busy[device] -= 1
        {"lose": self._lose, "cancel and lose": self._lose, "vanish": self._vanish}.get(happens, self._end)(
            run, happens
        )
        return -1 if self.busy[device] else device

    def _end(self, run: Run, happens: str) -> None:
        store = self.place.store
        if happens.startswith("cancel"):
            cancel_trial(store, trial_id=run.id)
        if happens in ("cancel at once", "used up"):
            if run.is_open:
                self._withdrawn(run)
            return
        state = {"succeed": TrialState.SUCCEEDED, "fail": TrialState.FAILED}.get(happens, TrialState.CANCELLED)
        quality = quality_of(run.study, run.candidate, run.version) if happens == "succeed" else None
        failure = "it crashed" if state == TrialState.FAILED else None
        this: dict[str, Any] = {"trial_id": run.id, "attempt": run.attempt}
        with store.begin() as tx:
            done = leases.finish_trial(tx, state=state, cost_seconds=run.cost, failure=failure, **this)
            if not done:
                assert run.limit is not None
                assert run.lost + run.cost > run.limit - 1e-3, run
                assert leases.end_overrun(tx, why="it took too long", **this)
            elif quality is not None:
                models.add_observation(tx, trial_id=run.id, quality=quality, cost_seconds=run.cost)
        if done:
            with self.fairness.jump(anew=False):
                self.book.end(run, spent=run.cost, quality=quality)
                self.fairness.ledger.finish(run)
        else:
            run.lost = run.limit or 0.0
            self.figures["overrun"] += 1
            self._withdrawn(run)

    def _withdrawn(self, run: Run) -> None:
        """It ended and taught nothing."""
        with self.fairness.jump():
            self.book.end(run, spent=None)

    def _lose(self, run: Run, happens: str) -> None:
        if happens == "cancel and lose":
            cancel_trial(self.place.store, trial_id=run.id)
            run.was_cancelled = True
        seconds = self.clock % 1 * min(run.cost, math.inf if run.limit is None else run.limit - run.lost)
        self.place.lose(run, seconds)
        run.lost, run.is_left = run.lost + seconds, True
        self.figures["left"] += 1

    def _vanish(self, run: Run, _: str) -> None:
        self.place.rows("UPDATE work.trials SET lease_until = now() - interval '1 s' WHERE id = :id", id=run.id)
        run.is_left = True
        self.figures["left"] += 1


def soak(database: Any, plan: Plan) -> tuple[Counter[str], Fairness]:
    """So many decisions, and on until nothing is left; every one of them is judged."""
    with one_thread():  # threads that wait for one another take most of the time where others compute, too
        return _soak(database, plan)


def _soak(database: Any, plan: Plan) -> tuple[Counter[str], Fairness]:
    place, book, figures = Place(database), Book(), Counter[str]()
    fairness = Fairness(book)
    set_policy(place.owner, changes={"guard": GUARD}, reason="a soak")
    changes = Changes(place, book, fairness, plan, figures)
    devices = Devices(place, book, fairness, plan, figures)
    if plan.past:
        place.remember(plan.past, changes.names(0))
    changes.arrive(max(plan.at_once, plan.tenants // 2))
    idle = list(range(plan.devices))
    while idle or devices.running:
        _people(changes, devices, plan, figures)
        devices.rng.shuffle(idle)
        idle = [device for device in idle if not devices.ask(device)]
        if devices.running:
            idle += [device for device in [devices.end_next()] if device >= 0]
        elif devices.is_closing:
            break
        elif figures["decisions"] < plan.decisions:
            changes.arrive(1)
        if figures["asks"] // plan.audit_every > figures["audits"]:
            figures["audits"] += 1
            audit(place, book)
    assert len(idle) == plan.devices
    figures["loads"] = devices.watch.loads
    audit(place, book, is_over=True)
    return figures, fairness


def _people(changes: Changes, devices: Devices, plan: Plan, figures: Counter[str]) -> None:
    """Arrivals in the first two thirds, changes all the time, and the end."""
    wanted = plan.tenants / 2 * (1 + 1.5 * figures["decisions"] / plan.decisions)
    if changes.here < min(wanted, plan.tenants):
        changes.arrive(min(plan.at_once, plan.tenants - changes.here))
    if figures["decisions"] >= plan.decisions:
        devices.is_closing = True
        changes.close()
    elif changes.rng.random() < plan.change:
        changes.one()


def work(url: str, key: str) -> None:
    """A process that asks, claims and ends, until nothing is left; killed, it goes on under the same key.

    It prints a line at every step, so that a test can kill it there.
    """
    store = Store(url)
    live = LiveScheduler(store)
    for number in itertools.count():
        request = f"{key}/{number}"
        print(request, flush=True)
        with store.begin() as tx:
            is_old = _is_made(tx, request)
        given = live.ask(request_key=request).trials
        print("told", flush=True)
        if given:
            _work_on(store, given[0], request)
        elif not is_old:
            with store.begin() as tx:
                if outlook(tx, None).under_way == 0:
                    return


def _is_made(tx: Any, request: str) -> bool:
    try:
        decisions.batch_of_request(tx, request)
    except NotFoundError:
        return False
    return True


def _work_on(store: Store, trial: SuggestedTrial, request: str) -> None:
    number, study, candidate = trial.trial_id, trial.study, trial.candidate
    try:
        lease = claim(store, trial_id=number, request_key=request)
    except TrialStateError:  # it ran out, and another worker has it
        return
    print("claimed", flush=True)
    if lease is None:
        return
    cost, fails = cost_of(study, candidate, 1), random.Random(number).random() < 0.2
    state, failure = (TrialState.FAILED, "it crashed") if fails else (TrialState.SUCCEEDED, None)
    this: dict[str, Any] = {"trial_id": number, "attempt": lease.attempt}
    with store.begin() as tx:
        if not leases.finish_trial(tx, state=state, cost_seconds=cost, failure=failure, **this):
            leases.end_overrun(tx, why="it took too long", **this)
        elif not fails:
            models.add_observation(tx, trial_id=number, quality=quality_of(study, candidate, 1), cost_seconds=cost)
    print("ended", flush=True)


def audit(place: Place, book: Book | None, *, is_over: bool = False) -> None:
    """What the database itself says; with a book, that both agree."""
    for what, sql in _NEVER.items():
        assert place.rows(sql) == [], what
    if is_over:
        assert place.rows("SELECT id, state FROM work.trials WHERE state IN ('SUGGESTED', 'RUNNING')") == []
    if book is not None:
        found = place.rows(
            "SELECT id, state IN ('SUGGESTED', 'RUNNING') AS is_open, cost_seconds, limit_seconds FROM work.trials "
            f"WHERE study_id NOT IN ({_PAST})"
        )
        shown = [(r.id, r.is_open, r.spent, r.limit) for r in book.runs.values()]
        assert sorted(tuple(r) for r in found) == sorted(shown)
        lost = dict(tuple(r) for r in place.rows("SELECT id, lost_seconds FROM work.trials WHERE lost_seconds > 0"))
        assert all(abs(lost.get(r.id, 0.0) - r.lost) < 0.01 or r.is_left for r in book.runs.values())


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for v in value.values() for n in _numbers(v)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


_CHARGED = (
    "sum(CASE WHEN t.finished_at IS NULL THEN t.limit_seconds ELSE t.lost_seconds + coalesce(t.cost_seconds, 0) END)"
)
_PAST = "SELECT id FROM work.studies WHERE starts_with(name, 'past-')"
_BARE = "count(*) FILTER (WHERE t.finished_at IS NULL AND t.limit_seconds IS NULL) > 0"
_NEVER = {
    "a candidate ran twice": """SELECT candidate_id FROM work.trials
      GROUP BY candidate_id, data_version_id HAVING count(*) > 1""",
    "a budget is exceeded": f"""SELECT s.name, {_CHARGED} FROM work.studies s JOIN work.trials t ON t.study_id = s.id
      WHERE s.budget_seconds > 0 GROUP BY s.id HAVING {_CHARGED} > s.budget_seconds + 1e-6 OR {_BARE}""",
    "a quota is exceeded": f"""SELECT o.name, {_CHARGED} FROM work.tenants o JOIN work.studies s ON s.tenant_id = o.id
      JOIN work.trials t ON t.study_id = s.id WHERE o.quota_seconds > 0
      GROUP BY o.id HAVING {_CHARGED} > o.quota_seconds + 1e-6 OR {_BARE}""",
    "too many at once": """SELECT o.name FROM work.tenants o JOIN work.studies s ON s.tenant_id = o.id
      JOIN work.trials t ON t.study_id = s.id AND t.finished_at IS NULL
      GROUP BY o.id HAVING count(*) > o.max_parallel""",
    "a trial without a suggestion": f"""SELECT id FROM work.trials WHERE study_id NOT IN ({_PAST})
      AND NOT EXISTS (SELECT FROM work.suggestions g WHERE g.trial_id = trials.id)""",
    "more than was asked for": """SELECT b.id FROM work.suggestion_batches b
      JOIN work.suggestions g ON g.batch_id = b.id
      GROUP BY b.id HAVING count(*) > b.requested""",
    "a success that tells nothing": """SELECT t.id FROM work.trials t LEFT JOIN work.observations o ON o.trial_id = t.id
      WHERE (t.state = 'SUCCEEDED') <> (o.trial_id IS NOT NULL) OR o.cost_seconds <> t.cost_seconds""",
    "attempts beyond the last": "SELECT id FROM work.trials WHERE attempt > 3",
}
_SUGGESTED = """SELECT s.name, c.name, t.limit_seconds, g.reasons FROM work.suggestion_batches b
JOIN work.suggestions g ON g.batch_id = b.id JOIN work.trials t ON t.id = g.trial_id
JOIN work.studies s ON s.id = t.study_id JOIN work.candidates c ON c.id = t.candidate_id
WHERE b.request_key = :key ORDER BY g.position"""
_GIVEN = """SELECT t.id, s.name AS study, c.name AS candidate, t.data_version_id, t.limit_seconds, b.created_at,
  g.reasons
FROM work.suggestion_batches b JOIN work.suggestions g ON g.batch_id = b.id JOIN work.trials t ON t.id = g.trial_id
JOIN work.studies s ON s.id = t.study_id JOIN work.candidates c ON c.id = t.candidate_id
WHERE b.request_key = :key ORDER BY g.position"""
_STATES = "SELECT id, state, attempt, lost_seconds, limit_seconds FROM work.trials WHERE id = ANY(:ids)"
