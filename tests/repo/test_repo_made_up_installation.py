"""The simulated installation of benchmarks: valid, of the size that was asked for, and deleted without a trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

import made_up_installation
import numpy as np
import pytest
from made_up_installation import make_world

from easeml_core.errors import InvalidInputError
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.settings.config import TrainingConfig
from easeml_core.store.tables import studies, trials


def test_it_has_the_size_that_was_asked_for():
    world = make_world(tenants=7, candidates=5, observations=3)
    assert (world.qualities.shape, world.costs.shape, len(world.names), len(world.rows)) == ((7, 5), (7, 5), 5, 7)
    assert Counter(i for i, _ in world.runs) == dict.fromkeys(range(7), 3)
    assert len(set(world.runs)) == 21
    assert ((world.qualities > 0) & (world.qualities < 1)).all()
    assert (world.costs > 0).all()


def test_a_scheduler_is_told_what_has_run_and_nothing_else():
    world = make_world(tenants=7, candidates=5, observations=3)
    problem = world.problem()
    assert [(p.study_id, p.arm) for p in problem.in_order()] == list(world.runs)
    assert [(p.quality, p.cost_seconds) for p in problem.pulls] == [
        (world.qualities[place], world.costs[place]) for place in world.runs
    ]
    assert [(a.names, a.rows) for a in problem.studies] == [(world.names, rows) for rows in world.rows]


def test_it_is_the_same_for_the_same_seed():
    one, same, other = (make_world(tenants=4, candidates=5, observations=2, seed=s) for s in (1, 1, 2))
    assert (one.runs, one.rows) == (same.runs, same.rows)
    np.testing.assert_array_equal(one.costs, same.costs)
    assert not np.array_equal(one.qualities, other.qualities)


def test_candidates_that_are_good_for_one_tenant_tend_to_be_for_another():
    """Else there would be nothing to learn across tenants, and all policies would be alike."""
    logits = np.log(1 / (1 / make_world(tenants=200, candidates=40, observations=1).qualities - 1))
    assert np.corrcoef(logits)[np.triu_indices(200, 1)].mean() > 0.3


def test_what_is_more_than_the_candidates_ran_on_earlier_data(database: Any):
    world = make_world(tenants=2, candidates=3, observations=7)
    assert sorted(world.runs[:6]) == sorted(world.runs[6:12]) == [(i, k) for i in range(2) for k in range(3)]
    ended = [(i, k, float(world.qualities[i, k]), float(world.costs[i, k])) for i, k in world.runs]
    with database.owner.begin() as tx:
        made_up_installation.fill(tx, key="b", candidates=world.names, config=CONFIG, trials=ended, rows=world.rows)
        held = (
            "SELECT count(*) FROM work.trials t JOIN work.data_versions v ON v.id = t.data_version_id GROUP BY version"
        )
        assert tx.exec_driver_sql(f"{held} ORDER BY version").scalars().all() == [6, 6, 2]


@pytest.mark.parametrize("sizes", [(0, 5, 0), (3, 0, 0), (3, 5, 5), (3, 5, -1)])
def test_other_sizes_are_refused(sizes):
    with pytest.raises(InvalidInputError, match="observations >= 0 and no multiple of candidates"):
        make_world(tenants=sizes[0], candidates=sizes[1], observations=sizes[2])


NAMES = ("a", "b", "c")
CONFIG = {"training": TrainingConfig().to_json()}
TABLES = ("tenants", "data_sets", "studies", "data_versions", "data_parts", "candidates", "trials", "observations")
MADE = ("suggestion_batches", "suggestions")


def fill(database: Any, key: str = "bench-1") -> None:
    ended = [(1, 2, 0.25, 8.0), (0, 0, 0.5, 4.0), (1, 1, 0.75, 2.0)]
    with database.owner.begin() as tx:
        made_up_installation.fill(tx, key=key, candidates=NAMES, config=CONFIG, trials=ended, rows=[10, 20])
        made_up_installation.analyse(tx)


def counts(database: Any) -> dict[str, int]:
    with database.owner.begin() as tx:
        return {t: tx.exec_driver_sql(f"SELECT count(*) FROM work.{t}").scalar_one() for t in TABLES + MADE}


def test_the_rows_are_those_that_were_asked_for(database: Any) -> None:
    fill(database)
    with database.worker.begin() as tx:
        told, sizes = trials.outcomes(tx), studies.training_rows(tx)
        listed = studies.list_studies(tx)
    by_study = {study.id: study for study in listed}
    assert [(s.name, s.state, sizes[v]) for s, v in zip(listed, sorted(sizes), strict=True)] == [
        ("bench-1-0", "ACTIVE", 10),
        ("bench-1-1", "ACTIVE", 20),
    ]
    assert [(by_study[o.study_id].name[-1], o.candidate, o.quality, o.cost_seconds) for o in told] == [
        ("1", "c", 0.25, 8.0),
        ("0", "a", 0.5, 4.0),
        ("1", "b", 0.75, 2.0),
    ]
    assert {o.state for o in told} == {"SUCCEEDED"}


def test_services_work_on_them_and_everything_goes_again(database: Any) -> None:
    fill(database)
    found = suggest_trials(database.worker, count=9, policy="mm-gp-ei", request_key="bench-1-0").trials
    assert {(t.study, t.candidate) for t in found} == {("bench-1-0", "b"), ("bench-1-0", "c"), ("bench-1-1", "a")}
    with database.owner.begin() as tx:
        assert made_up_installation.holds_anything(tx)
        made_up_installation.clear(tx, key="bench-1")
    assert set(counts(database).values()) == {0}
    with database.owner.begin() as tx:
        assert not made_up_installation.holds_anything(tx)


def test_rows_of_another_key_stay(database: Any) -> None:
    fill(database, "bench-1")
    before = counts(database)
    fill(database, "bench-11")
    with database.owner.begin() as tx:
        made_up_installation.clear(tx, key="bench-11")
    assert counts(database) == before
    fill(database, "bench-11")
    with database.owner.begin() as tx:
        made_up_installation.clear(tx, key="bench-1")
    assert counts(database) == before
