"""Rows for measuring speed: valid ones, and gone again without a trace."""

from __future__ import annotations

from typing import Any

from easeml_core.config import TrainingConfig
from easeml_core.services.suggestion import suggest_trials
from easeml_core.store import benchmark, studies, trials

NAMES = ("a", "b", "c")
CONFIG = {"training": TrainingConfig().to_json()}
TABLES = ("tenants", "data_sets", "studies", "data_versions", "data_parts", "candidates", "trials", "observations")
MADE = ("suggestion_batches", "suggestions")


def fill(database: Any, key: str = "bench-1") -> None:
    ended = [(1, 2, 0.25, 8.0), (0, 0, 0.5, 4.0), (1, 1, 0.75, 2.0)]
    with database.owner.begin() as tx:
        benchmark.fill(tx, key=key, candidates=NAMES, config=CONFIG, trials=ended, rows=[10, 20])
        benchmark.analyse(tx)


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
    assert [(by_study[o["study_id"]].name[-1], o["candidate"], o["quality"], o["cost_seconds"]) for o in told] == [
        ("1", "c", 0.25, 8.0),
        ("0", "a", 0.5, 4.0),
        ("1", "b", 0.75, 2.0),
    ]
    assert {o["state"] for o in told} == {"SUCCEEDED"}


def test_services_work_on_them_and_everything_goes_again(database: Any) -> None:
    fill(database)
    found = suggest_trials(database.worker, count=9, policy="mm-gp-ei", request_key="bench-1-0")["trials"]
    assert {(t["study"], t["candidate"]) for t in found} == {("bench-1-0", "b"), ("bench-1-0", "c"), ("bench-1-1", "a")}
    with database.owner.begin() as tx:
        assert benchmark.holds_anything(tx)
        benchmark.clear(tx, key="bench-1")
    assert set(counts(database).values()) == {0}
    with database.owner.begin() as tx:
        assert not benchmark.holds_anything(tx)


def test_rows_of_another_key_stay(database: Any) -> None:
    fill(database, "bench-1")
    before = counts(database)
    fill(database, "bench-11")
    with database.owner.begin() as tx:
        benchmark.clear(tx, key="bench-11")
    assert counts(database) == before
    fill(database, "bench-11")
    with database.owner.begin() as tx:
        benchmark.clear(tx, key="bench-1")
    assert counts(database) == before
