"""Small tables, and what it takes to run a policy on one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from easeml_core.selection.simulate.protocol import Protocol, parse_contestants
from easeml_core.selection.simulate.run import run_repeat
from easeml_core.selection.simulate.tables import Table
from easeml_core.settings.config import SelectionConfig


@pytest.fixture
def make_table() -> Any:
    """A table of random results; every tenant has the first candidate, others are missing in ``gaps`` of cells."""

    def make(*, tenants: Any = 8, candidates: Any = 5, gaps: Any = 0.0, seed: Any = 0) -> Any:
        rng = np.random.default_rng(seed)
        quality = rng.uniform(0, 1, (tenants, candidates))
        quality[:, 1:][rng.uniform(size=(tenants, candidates - 1)) < gaps] = np.nan
        return table_of(quality, rng.lognormal(sigma=2, size=(tenants, candidates)))

    return make


def table_of(quality: Any, cost: Any = None) -> Any:
    """A table with keys t0, t1, ... and candidates c0, c1, ..."""
    quality = np.array(quality, dtype=float)
    cost = np.ones_like(quality) if cost is None else np.array(cost, dtype=float)
    n, k = quality.shape
    return Table(tuple(f"t{i}" for i in range(n)), tuple(f"c{j}" for j in range(k)), quality, cost)


@pytest.fixture(name="table_of")
def table_of_fixture() -> Any:
    return table_of


@pytest.fixture
def contest() -> Any:
    """The policies of these names, on a table's candidates."""

    def make(*names: Any, table: Any, **settings: Any) -> Any:
        return parse_contestants(names, base=SelectionConfig(**settings), candidates=table.candidates)

    return make


@pytest.fixture
def play(contest: Any) -> Any:
    """The course of one policy on one repeat."""

    def run(table: Any, policy: Any, *, repeat: Any = 0, settings: Any = None, **protocol: Any) -> Any:
        [contestant] = contest(policy, table=table, **(settings or {}))
        return run_repeat(table, Protocol(**protocol), contestant, repeat)

    return run


@pytest.fixture
def published(load_table: Any) -> Any:
    """Published tables by short names; percent and costs are put right here."""

    def load(name: Any) -> Any:
        if name == "deeplearning":
            return table_of(load_table("deeplearning/quality_22x8.csv"), load_table("deeplearning/cost_22x8.csv"))
        if name.startswith("tabzilla"):
            files = {"tabzilla18": "104x18.csv", "tabzilla35": "104x35_tuned_and_default.csv"}[name]
            quality, cost = (load_table(f"tabzilla/{what}_{files}") for what in ("accuracy", "train_time_s"))
            return table_of(quality, cost)
        quality = load_table("delgado179/accuracy_percent_121x179.csv") / 100
        return table_of(quality, 1 - np.random.default_rng(0).random(quality.shape) if name == "179u01" else None)

    return load
