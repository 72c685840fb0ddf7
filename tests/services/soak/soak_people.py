"""What people do in the soak (``soak.py``): tenants come, limits and candidates change, studies pause and go on."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import made_up_installation
from soak_book import Book, Case, Fairness, Run, cost_of, quality_of
from sqlalchemy import text

from easeml_core.entities import StudyState
from easeml_core.errors import BudgetExhaustedError
from easeml_core.services.registration.register import pause_study
from easeml_core.services.studies.candidates import add_candidates
from easeml_core.services.studies.limits import set_study, set_tenant
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from easeml_core.store.database import Store

SETTINGS = {"training": {"time_limit_seconds": 60.0, "lease_seconds": 7200.0, "max_attempts": 3}}


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    decisions: int
    tenants: int
    candidates: int
    at_once: int = 5  # tenants that arrive together
    devices: int = 12
    processes: int = 3
    fresh: float = 0.05  # of an ask, that a process does it which keeps nothing
    limited: float = 0.3  # of a study, that it has a budget
    change: float = 0.02  # of an ask, that a user changes something before it
    audit_every: int = 250
    compare: float = 0.01  # of an ask, that a new scheduler is asked, too
    past: int = 0  # studies that are over before anything begins: from ten on, the prior is learnt from them alone
    seed: int = 0


class Place:
    """The database, and what every user may do in it."""

    def __init__(self, database: Any) -> None:
        self.store: Store = database.worker
        self.owner: Store = database.owner

    def rows(self, sql: str, **values: Any) -> list[Any]:
        with self.owner.begin() as tx:
            found = tx.execute(text(sql), values)
            return list(found) if found.returns_rows else []

    def arrive(self, key: str, tenants: int, names: list[str]) -> list[str]:
        """Tenants with a study each; the studies' names."""
        with self.owner.begin() as tx:
            made_up_installation.fill(tx, key=key, candidates=names, config=SETTINGS, trials=[], rows=[200] * tenants)
        return [f"{key}-{n}" for n in range(tenants)]

    def remember(self, number: int, names: list[str]) -> None:
        """Studies of an earlier time, with half of their candidates."""
        answer = [
            (study, k, quality_of(f"past-{study}", name, 0), cost_of(f"past-{study}", name, 0))
            for study in range(number)
            for k, name in enumerate(names)
            if (study + k) % 2
        ]
        with self.owner.begin() as tx:
            made_up_installation.fill(
                tx, key="past", candidates=names, config=SETTINGS, trials=answer, rows=[200] * number
            )
            tx.execute(text("UPDATE work.studies SET state = 'PAUSED' WHERE starts_with(name, 'past-')"))

    def one_more(self, name: str, tenant: str, names: list[str]) -> None:
        """One more study of a tenant that is here."""
        with self.owner.begin() as tx:
            owner = studies.add_tenant(tx, name=tenant)
            data = studies.add_data_set(tx, tenant_id=owner, source=f"soak:{name}", target="y")
            given: dict[str, Any] = {"metric": "accuracy", "weight": 1.0, "budget_seconds": None, "request_key": name}
            study = studies.add_study(tx, name=name, tenant_id=owner, data_set_id=data, config=SETTINGS, **given)
            assert study is not None
            studies.add_candidates(tx, study, [{"name": n, "kind": "decision_tree"} for n in names])
            self._version(tx, study)
            studies.set_study_state(tx, study, StudyState.ACTIVE)

    def new_data(self, study_id: int) -> int:
        with self.owner.begin() as tx:
            return self._version(tx, study_id)

    @staticmethod
    def _version(tx: Any, study_id: int) -> int:
        count = text("SELECT count(*) FROM work.data_versions WHERE study_id = :study")
        number = tx.execute(count, {"study": study_id}).scalar_one()
        made: dict[str, Any] = {
            "artifact": "sha256:" + "0" * 64,
            "features": 3,
            "class_names": ["a", "b"],
            "parts": {"train": 200},
        }
        return studies.add_data_version(tx, study_id=study_id, content_hash=f"{study_id}/{number}", **made)

    def case(self, name: str, tenant: str) -> Case:
        """The study as it stands in the database."""
        ((study, version),) = self.rows(
            "SELECT s.id, max(v.id) FROM work.studies s JOIN work.data_versions v ON v.study_id = s.id "
            "WHERE s.name = :name GROUP BY s.id",
            name=name,
        )
        listed = self.rows("SELECT name, devices FROM work.candidates WHERE study_id = :s", s=study)
        return Case(study, name, tenant, version, {r.name: r.devices for r in listed})

    def hold(self, run: Run) -> None:
        """Its worker is at work: a lease of a short reservation must not run out by the clock on the wall."""
        self.rows("UPDATE work.trials SET lease_until = now() + interval '1 day' WHERE id = :id", id=run.id)

    def lose(self, run: Run, seconds: float) -> None:
        """The worker of the trial vanished so long after its claim, just after a heartbeat, and its lease is over."""
        self.rows(
            "UPDATE work.trials SET attempt_started_at = now() - make_interval(secs => :s), "
            "beat_at = now() - interval '1 ms', lease_until = now() - interval '1 ms' WHERE id = :id",
            s=seconds + 0.001,
            id=run.id,
        )


class Changes:
    """What people do: each changes the database through the services, and then the book."""

    def __init__(self, place: Place, book: Book, fairness: Fairness, plan: Plan, figures: Counter[str]) -> None:
        self.place, self.book, self.fairness, self.plan, self.figures = place, book, fairness, plan, figures
        self.rng, self.numbers = random.Random(f"changes {plan.seed}"), itertools.count()
        self.here = 0

    def arrive(self, tenants: int) -> None:
        """Tenants come, some with limits, some with a second study."""
        first = next(self.numbers)
        names = self.names(first % 3)
        cases = [self.place.case(n, n) for n in self.place.arrive(f"n{first}", tenants, names)]
        for case in [c for c in cases if self.rng.random() < 0.2]:
            self.place.one_more(f"{case.name}-b", case.tenant, names)
            cases.append(self.place.case(f"{case.name}-b", case.tenant))
        with self.fairness.jump():
            for case in cases:
                case.since = len(self.fairness.ledger.ends)
                self.book.add(case)
        self.here += tenants
        self.figures["arrivals"] += len(cases)
        for case in cases:
            self.limit(case)

    def names(self, menu: int) -> list[str]:
        """Candidates of one of three menus, of which three quarters are the same."""
        return [f"c{menu}-{k}" if k % 4 == 0 else f"c-{k}" for k in range(self.plan.candidates)]

    def limit(self, case: Case) -> None:
        rng = self.rng
        roomy = 5.0 * self.plan.candidates
        changes: list[tuple[float, Callable[[], Any]]] = [
            (self.plan.limited, lambda: self.study(case, budget_seconds=rng.uniform(0.3, 1.5) * roomy)),
            (0.3, lambda: self.study(case, priority=rng.choice([-1, -1, 1]))),
            (0.1, lambda: self.study(case, target_quality=rng.uniform(0.6, 0.97))),
            (0.1, lambda: self.study(case, deadline=datetime.now(UTC) + timedelta(days=1))),
            (0.2, lambda: self.tenant(case, max_parallel=rng.randint(1, 3))),
            (self.plan.limited / 10, lambda: self.tenant(case, quota_seconds=rng.uniform(0.5, 1.5) * roomy)),
            (0.2, lambda: self.tenant(case, weight=rng.choice([0.5, 2.0]))),
        ]
        for chance, change in changes:
            if rng.random() < chance:
                change()

    def one(self) -> None:
        """Something happens to some study."""
        case = self.rng.choice(list(self.book.cases.values()))
        often = [self.limit, self.limit, self.pause, self.pause, self.join, self.weigh]
        self.rng.choice([*often, *often, self.unlimit, self.unlimit, self.late, self.renew])(case)
        self.figures["changes"] += 1

    def study(self, case: Case, **changes: Any) -> None:
        """Set it for one that is allowed it; a limit below the present use must be refused."""
        budget = changes.get("budget_seconds")
        if self._set(lambda: set_study(self.place.store, study=case.name, **changes), budget):
            names = {"budget_seconds": "budget", "target_quality": "target"}
            with self.fairness.jump():
                for name, value in changes.items():
                    setattr(case, names.get(name, name), value)
                self._limits_of([case])

    def tenant(self, case: Case, **changes: Any) -> None:
        owner = self.book.owners[case.tenant]
        limit = changes.get("quota_seconds", changes.get("max_parallel"))
        if self._set(lambda: set_tenant(self.place.store, tenant=case.tenant, **changes), limit):
            names = {"quota_seconds": "quota", "max_parallel": "parallel"}
            with self.fairness.jump():
                for name, value in changes.items():
                    setattr(owner, names.get(name, name), value)
                self._limits_of(owner.cases)

    def _set(self, change: Callable[[], Any], limit: float | None) -> bool:
        try:
            change()
        except BudgetExhaustedError:
            assert limit is not None
            self.figures["limits refused"] += 1
            return False
        return True

    def _limits_of(self, cases: list[Case]) -> None:
        """Open trials of a study with a new budget have got a reservation."""
        reserved = "SELECT id, limit_seconds FROM work.trials WHERE study_id = ANY(:ids)"
        for number, limit in self.place.rows(reserved, ids=[case.id for case in cases]):
            self.book.runs[number].limit = limit

    def unlimit(self, case: Case) -> None:
        self.study(case, budget_seconds=None, target_quality=None, deadline=None)
        self.tenant(case, quota_seconds=None, max_parallel=None)

    def late(self, case: Case) -> None:
        """Its deadline is over, or will be before anything could end."""
        self.study(case, deadline=datetime.now(UTC) + timedelta(seconds=self.rng.choice([-1.0, 0.05, 1.0])))
        self.figures["deadlines"] += 1

    def pause(self, case: Case) -> None:
        pause_study(self.place.store, study=case.name, paused=not case.paused)
        with self.fairness.jump():
            case.paused = not case.paused
            if not case.paused:
                case.since = len(self.fairness.ledger.ends)
        self.figures["pauses" if case.paused else "resumed"] += 1

    def join(self, case: Case) -> None:
        name, devices = f"new-{next(self.numbers)}", self.rng.choice([None, None, ["gpu"], ["cpu", "gpu"]])
        new = {"name": name, "kind": "decision_tree", "devices": devices}
        add_candidates(self.place.store, study=case.name, candidates=[new])
        with self.fairness.jump():
            case.candidates[name] = devices
            if devices is None:
                case.free.add(name)
        self.figures["candidates added"] += 1

    def weigh(self, case: Case) -> None:
        self.study(case, weight=self.rng.choice([0.5, 1.0, 2.0]))

    def renew(self, case: Case) -> None:
        version = self.place.new_data(case.id)
        with self.fairness.jump():
            case.since = len(self.fairness.ledger.ends)
            case.start_over(version)
        self.figures["new data"] += 1

    def close(self) -> None:
        """No more work than can be ended: a study with much left is paused, unless a trial of it waits for a device."""
        for case in self.book.cases.values():
            waits = any(r.is_left for r in [*case.past, *case.present.values()])
            if waits if case.paused else not waits and len(case.free) > 2:
                self.pause(case)
