"""A scheduler that is rebuilt from its trials goes on as if nothing had happened: every figure, bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import at_night, examples
from threadpoolctl import threadpool_limits

from easeml_core.selection.problem import Arms, Past, Pending, Problem, Pull
from easeml_core.selection.suggestion import scheduler_for
from easeml_core.settings.config import SelectionConfig

NAMES = tuple(f"candidate-{k}" for k in range(9))
TENANTS = 12


class Installation:
    """What is true of every trial, and what has happened so far."""

    def __init__(self, seed, *, past, kinds=(None,), learnt=True, **arms):
        self.rng = np.random.default_rng(seed)
        self.qualities = self.rng.uniform(0.3, 0.99, (TENANTS + past, 9))
        self.costs = np.exp(self.rng.normal(0, 1.5, (TENANTS + past, 9)))
        self.kinds, self.learnt = kinds, learnt
        history = tuple(
            Past(100 + j, NAMES, tuple(self.qualities[-1 - j]), tuple(self.costs[-1 - j])) for j in range(past)
        )
        weights = self.rng.lognormal(size=TENANTS)
        studies = tuple(Arms(10 * i, float(weights[i]), NAMES, rows=100 + 50 * i, **arms) for i in range(TENANTS))
        self.problem = Problem(studies, history=history)
        self.finished, self.running = [], {}

    def build(self, config):
        """A scheduler, from what is stored."""
        pulls = tuple(
            Pull(10 * i, k, quality, cost, order=order, device=kind)
            for order, (i, k, quality, cost, kind) in enumerate(self.finished)
        )
        pending = tuple(Pending(10 * i, k, device=kind) for (i, k), kind in self.running.items())
        known = None if self.learnt else {10 * i: self.costs[i] for i in range(TENANTS)}
        problem = dataclasses.replace(self.problem, pulls=pulls, pending=pending)
        return scheduler_for(problem, config=config, known_costs=known)

    def start(self, schedulers, tenant, arm, kind):
        self.running[tenant, arm] = kind
        for scheduler in schedulers:
            scheduler.start(tenant, arm, device=kind)

    def finish(self, schedulers, *, which, fails):
        tenant, arm = list(self.running)[which % len(self.running)]
        kind = self.running.pop((tenant, arm))
        cost = float(self.costs[tenant, arm]) * (3.0 if kind == "cpu" else 1.0) * (0.2 if fails else 1.0)
        quality = None if fails else float(self.qualities[tenant, arm])
        self.finished.append((tenant, arm, quality, cost, kind))
        for scheduler in schedulers:
            scheduler.record(tenant, arm, quality, cost, device=kind)

    def drive(self, schedulers, steps, *, devices, fail=0.15, asked_in_between=True):
        """Random starts and ends on some devices; the choices, which all schedulers have to agree on."""
        chosen = []
        for _ in range(steps):
            kind = self.kinds[int(self.rng.integers(len(self.kinds)))]
            if len(self.running) < devices:
                choices = [scheduler.choose(device=kind) for scheduler in schedulers]
                assert all(choice == choices[0] for choice in choices), choices
                if choices[0] is not None:
                    pair = choices[0].chosen
                    assert len({scheduler.forecast(pair.tenant, pair.arm) for scheduler in schedulers}) == 1
                    self.start(schedulers, pair.tenant, pair.arm, kind)
                    chosen.append(choices[0])
                    continue
            elif asked_in_between and self.rng.uniform() < 0.3:
                for scheduler in schedulers:
                    scheduler.choose(device=kind)
            if not self.running:
                break
            self.finish(schedulers, which=int(self.rng.integers(99)), fails=self.rng.uniform() < fail)
        return chosen


def shared_keys(seed):
    """Every third arm of every study is shared."""
    return tuple(f"key-{k}" if k % 3 == seed % 3 else None for k in range(9))


@settings(deadline=None, max_examples=examples(30, least=4))
@given(
    seed=st.integers(0, 2**32 - 1),
    past=st.sampled_from((0, 3, 12)),
    learnt=st.booleans(),
    kinds=st.sampled_from(((None,), ("cpu", "gpu"))),
    devices=st.integers(1, 5),
    steps=st.integers(0, 90),
    limited=st.booleans(),
    shares=st.booleans(),
    switches=st.sampled_from(
        ({}, {"guard": 0.4}, {"objective": 0.7}, {"price_per_second": 1e-3}, {"believe": False}, {"cost_aware": False})
    ),
)
def test_the_next_decisions_are_the_same(seed, past, learnt, kinds, devices, steps, limited, shares, switches):
    """Learnt costs and known ones, a cold start and a long past, several devices, failures, limits, shared trials."""
    arms = {"budget_seconds": 8.0, "max_parallel": 2} if limited else {}
    arms |= {"shared": shared_keys(seed)} if shares else {}
    world = Installation(seed, past=past, kinds=kinds, learnt=learnt, **arms)
    config = SelectionConfig(**switches)
    first = world.build(config)
    world.drive([first], steps, devices=devices)
    world.drive([first, world.build(config)], 60, devices=devices)


BY_DAY = [(0, True, 1, 0.1), (12, False, 4, 0.1), (3, True, 4, 0.8)]
"""Each past, each device count and each guard at least once; at night every combination."""


@pytest.mark.parametrize(
    ("past", "learnt", "devices", "guard"),
    [
        *BY_DAY,
        *(
            at_night(*history, *limits)
            for history in ((0, True), (0, False), (3, True), (12, True), (12, False))
            for limits in ((1, 0.1), (4, 0.1), (4, 0.8))
            if (*history, *limits) not in BY_DAY
        ),
    ],
)
def test_a_hundred_decisions_after_a_restart(past, learnt, devices, guard):
    """Three restarts on the way; the first scheduler and all its successors agree to the end."""
    world, config = Installation(past + devices, past=past, learnt=learnt, kinds=("cpu", "gpu")), SelectionConfig()
    config = evolve(config, guard=guard)
    schedulers, decisions = [world.build(config)], []
    for steps in (17, 40, 60, 400):
        decisions += world.drive(schedulers, steps, devices=devices)
        schedulers.append(world.build(config))
    assert len(decisions) == 9 * TENANTS
    assert schedulers[0].choose() is None


def test_what_was_asked_and_when_does_not_matter():
    """One scheduler is asked before every event, the other never before the end: refits happen lazily."""
    world, config = Installation(5, past=0, kinds=("cpu", "gpu")), SelectionConfig()
    asked, silent = world.build(config), world.build(config)
    for step in range(40):
        choice = asked.choose(device="cpu")
        asked.choose(device="gpu")
        world.start([asked, silent], choice.chosen.tenant, choice.chosen.arm, "cpu")
        if step % 3:
            world.finish([asked, silent], which=step, fails=step % 7 == 0)
    assert asked.choose(device="gpu") == silent.choose(device="gpu")
    assert asked.forecast(3, 4) == silent.forecast(3, 4)


def test_a_trial_may_end_on_a_device_that_was_not_known_when_it_started():
    """The kind reported with the result is stored with it, so a restarted scheduler knows no other."""
    world, config = Installation(8, past=0, kinds=("cpu", "gpu")), SelectionConfig()
    scheduler = world.build(config)
    for arm in range(6):
        for tenant in range(4):
            scheduler.start(tenant, arm)
            world.running[tenant, arm] = "cpu" if arm % 2 else "gpu"
            world.finish([scheduler], which=0, fails=False)
    decisions = world.drive([scheduler, world.build(config)], 60, devices=2)
    assert len(decisions) > 20


def test_the_number_of_threads_changes_no_bit():
    """Sums of a matrix product depend on how many threads shared them; a scheduler learns with one."""
    rng = np.random.default_rng(0)
    names = tuple(f"m{k}" for k in range(40))
    past = tuple(
        Past(-i - 1, names, tuple(rng.uniform(0.3, 0.95, 40)), tuple(rng.lognormal(size=40))) for i in range(60)
    )
    problem = Problem((Arms(1, 1.0, names),), history=past)
    means = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            scheduler = scheduler_for(problem, config=SelectionConfig())
            means.append([scheduler.forecast(0, k) for k in range(40)])
    assert means[0] == means[1]
