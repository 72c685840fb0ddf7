"""A scheduler that lives long decides as one that is started now, to the last bit, with other writers."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from property_sizes import at_night

from easeml_core.entities import TrialState
from easeml_core.services.registration.register import pause_study
from easeml_core.services.selection.policy import set_policy
from easeml_core.services.selection.scheduler import LiveScheduler, suggest_trials
from easeml_core.services.studies.candidates import add_candidates
from easeml_core.services.studies.limits import set_study, set_tenant
from easeml_core.services.trials.execution import cancel_trial
from easeml_core.settings.config import POLICIES
from easeml_core.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from easeml_core.store.tables.decisions import SuggestedTrial

STUDIES = 5


# Memory against a new start.


class Story:
    """What people and devices do, at random."""

    def __init__(self, installation: Any, live: LiveScheduler, seed: int, choice: dict[str, Any]) -> None:
        self.installation, self.live, self.choice = installation, live, choice
        self.rng, self.open, self.names = random.Random(seed), [], itertools.count()

    def step(self) -> None:
        often = [self.ask, self.ask, self.ask_elsewhere, self.succeed, self.succeed, self.succeed, self.fail]
        seldom = [self.cancel, self.cancel_running, self.lose, self.pause, self.join, self.weigh, self.two_at_once]
        self.rng.choice(often * 3 + seldom)()

    def ask(self) -> None:
        count, device = self.rng.choice([1, 1, 3]), self.rng.choice([None, "gpu"])
        self.open += self.live.ask(count=count, device=device, request_key=next(self.installation.keys)).trials

    def ask_elsewhere(self) -> None:
        asked = {"count": 1, "request_key": next(self.installation.keys)} | self.choice
        self.open += suggest_trials(self.installation.store, **asked).trials

    def succeed(self) -> None:
        self.take(self.installation.end)

    def fail(self) -> None:
        self.take(lambda trial: self.installation.end(trial, TrialState.FAILED))

    def cancel(self) -> None:
        self.take(lambda trial: cancel_trial(self.installation.store, trial_id=trial.trial_id))

    def cancel_running(self) -> None:
        self.take(lambda trial: self.installation.end(trial, TrialState.CANCELLED))

    def lose(self) -> None:
        def lost(trial: SuggestedTrial) -> None:
            self.installation.begin(trial)
            self.installation.let_run_out(trial)

        self.take(lost)

    def two_at_once(self) -> None:
        """The one that ends first is committed last, and the scheduler may look in between."""
        if len(self.open) > 1:
            early, late = self.open.pop(), self.open.pop()
            with self.installation.store.begin() as tx:
                self.installation.end_in(tx, early)
                self.installation.end(late)
                if self.rng.random() < 0.5:
                    self.ask()

    def take(self, happens: Callable[[SuggestedTrial], Any]) -> None:
        unique = {t.trial_id: t for t in self.open}
        if unique:
            trial = self.rng.choice(list(unique.values()))
            self.open = [t for t in unique.values() if t is not trial]
            happens(trial)

    def pause(self) -> None:
        name = f"h-{self.rng.randrange(STUDIES)}"
        (state,) = self.installation.sql("SELECT state FROM work.studies WHERE name = :name", name=name)[0]
        pause_study(self.installation.store, study=name, paused=state == "ACTIVE")

    def join(self) -> None:
        name = f"h-{self.rng.randrange(STUDIES)}"
        devices = self.rng.choice([None, ["gpu"], ["tpu"]])
        new = {"name": f"new-{next(self.names)}", "kind": "decision_tree", "devices": devices}
        add_candidates(self.installation.store, study=name, candidates=[new])

    def weigh(self) -> None:
        set_study(
            self.installation.store, study=f"h-{self.rng.randrange(STUDIES)}", weight=self.rng.choice([0.5, 1.0, 3.0])
        )


@pytest.mark.parametrize("seed", [0, at_night(1), at_night(2)])
@pytest.mark.parametrize("policy", ["default", *map(at_night, ("hybrid", "mm-gp-ei", "random"))])
def test_memory_is_what_would_be_loaded_anew(policy: str, seed: int, installation: Any) -> None:
    choice = {"policy": policy}
    live = LiveScheduler(installation.store, **choice)
    story = Story(installation, live, seed, choice)
    caught_up = 0
    for _ in range(40):
        story.step()
        caught_up += installation.agrees(live, 4, **choice)
    story.ask()
    assert installation.agrees(live, 100, **choice)
    assert caught_up > 10


@pytest.mark.parametrize("seed", [0, at_night(1), at_night(2)])
def test_memory_is_what_would_be_loaded_anew_under_limits(seed: int, installation: Any) -> None:
    set_study(installation.store, study="h-0", budget_seconds=400.0)
    set_study(installation.store, study="h-1", target_quality=0.7, deadline="2199-12-31T23:59:59")
    set_study(installation.store, study="h-2", priority=3)
    set_tenant(installation.store, tenant="h-3", max_parallel=2)
    set_tenant(installation.store, tenant="h-4", quota_seconds=400.0)
    live = LiveScheduler(installation.store)
    story, caught_up = Story(installation, live, seed, {}), 0
    for _ in range(40):
        story.step()
        caught_up += installation.agrees(live, 4)
    assert caught_up > 3


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_goes_on_from_memory_with_trials_under_way(
    policy: str, installation: Any, loads: list[int]
) -> None:
    live, under_way = LiveScheduler(installation.store, policy=policy), []
    for count in (4, 3, 2):
        under_way += live.ask(count=count, request_key=next(installation.keys)).trials
        for which in (2, 0):
            installation.end(under_way.pop(which))
    assert len(loads) == 1
    assert installation.agrees(live, 100, policy=policy)
    assert installation.sql("SELECT DISTINCT policy FROM work.suggestion_batches") == [(policy,)]


def join_more(installation: Any, count: int) -> None:
    for study in range(STUDIES):
        more = [{"name": f"more-{k}", "kind": "decision_tree"} for k in range(count)]
        add_candidates(installation.store, study=f"h-{study}", candidates=more)


@pytest.mark.parametrize("seed", [0, *map(at_night, (1, 2, 3))])
def test_what_the_guard_owes_follows_the_costs_that_are_predicted_now(
    seed: int, installation: Any, loads: list[int]
) -> None:
    """A trial under way is charged with what it is predicted to take, which each result of its study changes."""
    set_policy(installation.owner, changes={"guard": 0.95}, reason="a test")
    join_more(installation, 10)
    live, rng = LiveScheduler(installation.store), random.Random(seed)
    for trial in live.ask(
        count=12, request_key=next(installation.keys)
    ).trials:  # so many that not each result is a refit
        installation.end(trial)
    under_way = list(live.ask(count=16, request_key=next(installation.keys)).trials)
    for _ in range(6):
        installation.end(under_way.pop(rng.randrange(len(under_way))))
        assert installation.agrees(live, 100)
    assert len(loads) == 7


@pytest.mark.nightly
@pytest.mark.own_database  # which is copied
def test_a_restart_gives_the_same_next_hundred_decisions(installation: Any, loads: list[int]) -> None:
    """The same history in two databases: one scheduler lives on, in the other each decision is a new one's."""
    join_more(installation, 20)
    live, open_trials = LiveScheduler(installation.store), []
    for _ in range(10):
        open_trials += live.ask(count=2, request_key=next(installation.keys)).trials
        installation.end(open_trials.pop(0))
    with copied(installation) as other:
        loads.clear()
        go_on(installation, open_trials, lambda key: live.ask(request_key=key), 100)
        assert loads == []
        go_on(other, open_trials, lambda key: LiveScheduler(other.store).ask(request_key=key), 100)
        assert len(loads) == 100
        assert len(installation.reasons()) == 120
        assert installation.reasons() == other.reasons()


def go_on(installation: Any, given: Sequence[SuggestedTrial], ask: Callable[[str], Any], count: int) -> None:
    """So many decisions with the trials of earlier ones under way; the oldest ends before the next is made."""
    open_trials = list(given)
    for number in range(count):
        installation.end(open_trials.pop(0))
        open_trials += ask(f"go on/{number}").trials


class copied:
    """The same database once more."""

    def __init__(self, installation: Any) -> None:
        self.kind = type(installation)
        self.server, self.name = installation.database.server, f"{installation.database.name}_copy"
        for store in (installation.store, installation.owner, installation.database.referee):
            store.close()
        self.server.create_database_from_template(self.name, installation.database.name)
        self.stores = {role: Store(self.server.url(f"easeml_{role}", self.name)) for role in ("worker", "owner")}

    def __enter__(self) -> Any:
        other = object.__new__(self.kind)
        other.store, other.owner = self.stores["worker"], self.stores["owner"]
        other.keys = (f"copy/{n}" for n in itertools.count())
        return other

    def __exit__(self, *_: object) -> None:
        for store in self.stores.values():
            store.close()
        self.server.drop_database(self.name)


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from conftest import Installation
from easeml_core.services.selection.scheduler import LiveScheduler
from easeml_core.store.database import Store
installation = Installation.__new__(Installation)
installation.store = Store(sys.argv[1])
live = LiveScheduler(installation.store)
for number in range(30):
    print(number, flush=True)
    (trial,) = live.ask(request_key=f"night/{number}").trials
    print(number, flush=True)
    with installation.store.begin() as tx:
        (state,) = tx.exec_driver_sql(f"SELECT state FROM work.trials WHERE id = {trial.trial_id}").one()
    if state == "SUGGESTED":
        installation.end(trial)
"""


@pytest.mark.journey
def test_kill_9_between_decisions_changes_none_of_them(installation: Any, tmp_path: Any) -> None:
    """However often the process is killed, the decisions are those of one that was left alone."""
    with copied(installation) as other:
        undisturbed = LiveScheduler(other.store)
        for number in range(30):
            (trial,) = undisturbed.ask(request_key=f"night/{number}").trials
            other.end(trial)
        for kill_after in (24, 37, None):
            run_killed(installation.database.url("easeml_worker"), kill_after)
        assert installation.reasons() == other.reasons()


def run_killed(url: str, kill_after: int | None) -> None:
    folder = __file__.rsplit("/", 2)[0]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, url, folder],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        for count, _ in enumerate(process.stdout):
            if count == kill_after:
                process.kill()
                return
        assert process.wait() == 0
