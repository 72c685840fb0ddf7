"""Factories for the selection tests; each test names only what it is about."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easeml_core.selection.policies.standings import Standing, Standings
from easeml_core.selection.problem import Arms, Past, Problem, Pull
from easeml_core.selection.surrogate.posterior import Belief
from easeml_core.settings.config import POLICIES, SelectionConfig

NAMES = ("bayes", "knn", "tree", "forest", "boosting")
DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "selection"


@pytest.fixture(params=POLICIES)
def policy(request: Any) -> Any:
    return request.param


@pytest.fixture
def make_problem() -> Any:
    """A problem of ``studies`` studies with ``candidates`` candidates, some of them already run."""

    def make(
        *,
        studies: Any = 3,
        candidates: Any = 4,
        runs: Any = 0,
        past: Any = 0,
        seed: Any = 0,
        pending: Any = (),
        **arms: Any,
    ) -> Any:
        rng = np.random.default_rng(seed)
        names = NAMES[:candidates]
        problem_studies = tuple(Arms(10 * (i + 1), 1.0, names, study=f"study-{i}", **arms) for i in range(studies))
        order = [(s.study_id, int(a)) for s in problem_studies for a in rng.permutation(candidates)[:runs]]
        rng.shuffle(order)
        pulls = tuple(
            Pull(s, a, float(rng.uniform(0.4, 0.9)), float(rng.lognormal()), order=t) for t, (s, a) in enumerate(order)
        )
        history = tuple(
            Past(100 + j, names, tuple(rng.uniform(0.4, 0.9, candidates)), tuple(rng.lognormal(size=candidates)))
            for j in range(past)
        )
        return Problem(problem_studies, pulls, tuple(pending), history)

    return make


@pytest.fixture
def make_belief() -> Any:
    """A random Gaussian over ``arms`` arms: qualities of one mean, a covariance of full rank."""

    def make(arms: Any, *, seed: Any = 0, scale: Any = 0.05) -> Any:
        factor = np.random.default_rng(seed).normal(size=(arms, arms)) / np.sqrt(arms)
        return Belief(np.full(arms, 0.6), scale * (factor @ factor.T + 0.3 * np.eye(arms)))

    return make


@pytest.fixture
def make_standings(make_belief: Any) -> Any:
    """Tenants with random priors and costs, before any run."""

    def make(*, tenants: Any = 3, arms: Any = 5, config: Any = None, seed: Any = 0, costs: Any = None) -> Any:
        config = config or SelectionConfig(policy="greedy")
        rng = np.random.default_rng(seed)
        table = costs if costs is not None else rng.lognormal(size=(tenants, arms))
        return Standings(
            [
                Standing(
                    Arms(i, 1.0, tuple(f"c{k}" for k in range(arms))),
                    prior=make_belief(arms, seed=seed + i),
                    costs=table[i],
                    costs_known=True,
                    noise_variance=config.noise_variance,
                )
                for i in range(tenants)
            ],
            config=config,
        )

    return make


@pytest.fixture
def load_table() -> Any:
    """A published table of results, read from beside the checkout; the test is skipped where it is absent."""

    def load(name: Any) -> Any:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"no reference table {name} beside this checkout")
        with path.open(newline="") as lines:
            rows = list(csv.reader(lines))[1:]
        return np.array([[float(cell) if cell else np.nan for cell in row[1:]] for row in rows])

    return load
