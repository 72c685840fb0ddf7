"""``easeml costs`` and ``easeml bench select`` from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store import benchmark

if TYPE_CHECKING:
    from pathlib import Path

TABLE = "tenant,knn,forest,network\n" + "".join(f"t{i},{i + 1},{5 * (i + 1)},{40 * (i + 1)}\n" for i in range(8))


def test_a_table_of_costs_is_reported_on(run: Any, nowhere: Path) -> None:
    (nowhere / "costs.csv").write_text(TABLE)
    report = run("costs", "--history", "costs.csv", "--json").json
    assert (report["tenants"], report["candidates"], report["trials"], report["folds"]) == (8, 3, 24, 8)
    assert [e["own"] for e in report["errors"]] == [0, 1, 2]
    text = run("costs", "--history", "costs.csv").text
    assert "8 tenants, 3 candidates, 24 trials; intervals of 80%" in text
    assert "Half within x" in text


def test_a_bad_table_is_an_error_with_its_place(run: Any, nowhere: Path) -> None:
    (nowhere / "costs.csv").write_text(TABLE.replace("t3,4,", "t3,-4,"))
    answer = run("costs", "--history", "costs.csv")
    assert answer.status == 2
    assert "row 't3', column 'knn': a cost must be a number of seconds > 0" in answer.err
    assert run("costs", "--history", "missing.csv").status == 2


def test_an_installations_own_history_is_reported_on(ask: Any, database: Any) -> None:
    assert "0 measured trials of 0 studies: too few" in ask("costs").text
    ended = [(i, k, 0.5, 2.0**i * 10**k) for i in range(5) for k in range(3)]
    with database.owner.begin() as tx:
        benchmark.fill(tx, key="b", candidates=("a", "b", "c"), config={}, trials=ended, rows=[100] * 5)
    assert ask("costs", "--json").json["trials"] == 15
    assert "5 tenants, 3 candidates, 15 trials" in ask("costs").text


def test_speed_is_measured_on_a_server_of_its_own(run: Any) -> None:
    sizes = ("--tenants", "3", "--candidates", "5", "--observations", "2", "--decisions", "4")
    report = run("bench", "select", *sizes, "--policy", "mm-gp-ei", "--json", EASEML_DATABASE_URL="nonsense").json
    assert list(report)[:5] == [
        "decision_microseconds",
        "refit_all_seconds",
        "ratio",
        "cold_start_seconds",
        "committed_decision_milliseconds",
    ]
    assert report["protocol"]["database"].startswith("a temporary server with durable commits")


def test_speed_is_told_in_words_too(run: Any, database: Any) -> None:
    sizes = ("--tenants", "3", "--candidates", "5", "--observations", "2", "--decisions", "4")
    text = run("bench", "select", *sizes, "--policy", "roundrobin", "--database", database.url("easeml_owner")).text
    for words in ("decision in memory", "extrapolated from 3 tenants", "cold start", "committed decision", "the given"):
        assert words in text
