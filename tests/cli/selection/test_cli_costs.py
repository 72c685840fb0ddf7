"""``easeml costs`` from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import made_up_installation

if TYPE_CHECKING:
    from pathlib import Path

TABLE = "tenant,knn,forest,network\n" + "".join(f"t{i},{i + 1},{5 * (i + 1)},{40 * (i + 1)}\n" for i in range(8))


def test_a_table_of_costs_is_reported_on(run: Any, nowhere: Path, recorded: Any) -> None:
    (nowhere / "costs.csv").write_text(TABLE)
    report = run("costs", "--history", "costs.csv", "--json").json
    assert (report["tenants"], report["candidates"], report["trials"], report["folds"]) == (8, 3, 24, 8)
    assert [e["own"] for e in report["errors"]] == [0, 1, 2]
    recorded(run("costs", "--history", "costs.csv").recorded(), "costs")


def test_a_bad_table_is_an_error_with_its_place(run: Any, nowhere: Path) -> None:
    (nowhere / "costs.csv").write_text(TABLE.replace("t3,4,", "t3,-4,"))
    answer = run("costs", "--history", "costs.csv")
    assert answer.status == 2
    assert "row 't3', column 'knn'" in answer.err
    assert run("costs", "--history", "missing.csv").status == 2


def test_an_installations_own_history_is_reported_on(ask: Any, database: Any) -> None:
    assert "too few" in ask("costs").text
    ended = [(i, k, 0.5, 2.0**i * 10**k) for i in range(5) for k in range(3)]
    with database.owner.begin() as tx:
        made_up_installation.fill(tx, key="b", candidates=("a", "b", "c"), config={}, trials=ended, rows=[100] * 5)
    assert ask("costs", "--json").json["trials"] == 15
    assert "5 tenants, 3 candidates, 15 trials" in ask("costs").text
