"""Speed is measured on real decisions, and on no database that holds anything. Times themselves are not judged."""

from __future__ import annotations

import gc
import json
import math
from typing import Any

import made_up_installation as installation
import pytest
import selection_speed
from click.testing import CliRunner
from made_up_installation import make_world
from scale import Messages
from selection_speed import bench_process, bench_select, time_decisions, time_refits

from easeml_core.errors import ConfigError, InvalidInputError, StateError, StoreError
from easeml_core.settings.config import SelectionConfig

SMALL = {"tenants": 4, "candidates": 6, "observations": 2, "decisions": 5, "policy": "mm-gp-ei"}


def is_empty(database: Any) -> bool:
    with database.owner.begin() as tx:
        left = tx.exec_driver_sql("SELECT count(*) FROM work.suggestion_batches").scalar_one()
        return not installation.holds_anything(tx) and left == 0


def test_every_figure_is_there_and_the_database_is_empty_again(database: Any) -> None:
    report = bench_select(**SMALL, database=database.url("easeml_owner"))
    for name in ("decision_microseconds", "committed_decision_milliseconds"):
        assert 0 < report[name]["median"] <= report[name]["p95"] < math.inf
    assert report["cold_start_seconds"] > 0
    assert report["ratio"] == pytest.approx(
        report["refit_all_seconds"] / (report["decision_microseconds"]["median"] * 1e-6)
    )
    protocol = report["protocol"]
    assert protocol["committed_decisions"] == 4 * (6 - 2) - 1  # all that was left to run, less the cold one
    assert (protocol["refitted_tenants"], protocol["database"]) == (4, "the given one")
    assert is_empty(database)


@pytest.mark.nightly
def test_a_database_in_use_is_refused_and_left_as_it_is(database: Any, make_study: Any) -> None:
    make_study("cancer")
    with database.owner.begin() as tx:
        before = tx.exec_driver_sql("SELECT version FROM work.catalogue").one()
    with pytest.raises(StateError, match="holds an installation"):
        bench_select(**SMALL, database=database.url("easeml_owner"))
    with database.owner.begin() as tx:
        assert tx.exec_driver_sql("SELECT version FROM work.catalogue").one() == before
        assert tx.exec_driver_sql("SELECT count(*) FROM work.trials").scalar_one() == 0


@pytest.mark.nightly
def test_the_worker_may_not_fill_a_database(database: Any) -> None:
    with pytest.raises(StoreError, match="permission denied"):
        bench_select(**SMALL, database=database.url("easeml_worker"))
    assert is_empty(database)


@pytest.mark.nightly
def test_rows_are_taken_out_again_when_a_decision_fails(database: Any, monkeypatch: Any) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("selection_speed.LiveScheduler.ask", fails)
    with pytest.raises(ZeroDivisionError):
        bench_select(**SMALL, database=database.url("easeml_owner"))
    assert is_empty(database)


def test_decisions_go_on_until_nothing_is_left() -> None:
    world = make_world(tenants=3, candidates=5, observations=1)
    times = time_decisions(world, config=SelectionConfig(policy="roundrobin"), decisions=1000)
    assert len(times) == 3 * (5 - 1) // 2  # half of the few there are warm up
    assert gc.isenabled()


def test_refits_are_extrapolated(monkeypatch: Any) -> None:
    """On a clock by which the three refits take 6 seconds, all twelve take 24."""
    ticks = iter((10.0, 16.0))
    world = make_world(tenants=12, candidates=6, observations=3)
    monkeypatch.setattr("selection_speed.time.perf_counter", lambda: next(ticks))
    assert time_refits(world, at_least=3) == (24.0, 3)


def test_without_results_there_is_nothing_to_refit() -> None:
    assert time_refits(make_world(tenants=3, candidates=5, observations=0)) == (0.0, 0)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"decisions": 0}, ConfigError), ({"policy": "luck"}, ConfigError), ({"observations": 6}, InvalidInputError)],
)
def test_wrong_arguments_are_refused_before_any_work(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        bench_select(**SMALL | wrong, database="postgresql://nobody@nowhere/nothing")


@pytest.mark.nightly
def test_a_new_process_decides_on_several_data_versions(database: Any) -> None:
    report = bench_process(tenants=8, candidates=8, observations=9, database=database.url("easeml_owner"))
    assert min(report["cold_processor_seconds"], report["cold_seconds"]) > 0
    assert min(*report["next_processor_milliseconds"].values(), *report["next_milliseconds"].values()) > 0
    assert report["resident_mb"] > 10
    assert report["protocol"]["trials"] == 72
    assert is_empty(database)


SIZES = ("--tenants", "3", "--candidates", "5", "--observations", "2", "--decisions", "4")


@pytest.mark.nightly
def test_the_script_measures_on_a_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASEML_DATABASE_URL", "nonsense")
    done = CliRunner().invoke(selection_speed.main, [*SIZES, "--policy", "mm-gp-ei", "--json"], catch_exceptions=False)
    report = json.loads(done.stdout)
    assert list(report)[:5] == [
        "decision_microseconds",
        "refit_all_seconds",
        "ratio",
        "cold_start_seconds",
        "committed_decision_milliseconds",
    ]
    assert report["protocol"]["database"].startswith("a temporary server with durable commits")


@pytest.mark.nightly
def test_the_script_prints_a_table(database: Any) -> None:
    asked = [*SIZES, "--policy", "roundrobin", "--database", database.url("easeml_owner")]
    text = CliRunner().invoke(selection_speed.main, asked, catch_exceptions=False).stdout
    for words in ("decision in memory", "extrapolated from 3 tenants", "cold start", "committed decision", "the given"):
        assert words in text


def test_messages_of_a_long_simulation_are_all_counted(database: Any) -> None:
    """A server sends no more of them than the listener's socket has room for until somebody reads."""
    with Messages(database.url("easeml_owner")) as heard, database.worker.begin() as tx:
        sent = "SELECT pg_notify('easeml', repeat('x', 1000) || i) FROM generate_series(1, 5000) i"
        assert len(tx.exec_driver_sql(sent).all()) == 5000
    assert heard.count == 5000
