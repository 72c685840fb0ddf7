"""How well costs can be predicted: from a CSV file, and from an installation's own trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_up_installation
import pytest

from easeml_core.errors import InvalidInputError
from easeml_core.selection.costs.learn import Measured, cost_report
from easeml_core.services.selection.backtest import read_costs, report_cost_table, report_costs


def write(folder: Path, text: str) -> Path:
    path = folder / "costs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_of_costs_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "tenant,knn,forest\nlab,1.5,\nward,2e3, 7\n\n")
    assert read_costs(path) == [Measured(0, "knn", 1.5), Measured(1, "knn", 2000.0), Measured(1, "forest", 7.0)]
    assert report_cost_table(path) == cost_report(read_costs(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tenant,knn\nlab,-1\n", "row 'lab', column 'knn': a cost must be a number of seconds > 0.*got '-1'"),
        ("tenant,knn\nlab,0\n", "got '0'"),
        ("tenant,knn\nlab,nan\n", "got 'nan'"),
        ("tenant,knn\nlab,inf\n", "got 'inf'"),
        ("tenant,knn\nlab,fast\n", "got 'fast'"),
        ("tenant,knn\nlab,1,2\n", "row 'lab' has 3 cells, the header has 2"),
        ("tenant,knn,knn\nlab,1,2\n", "these names are repeated: knn"),
        ("tenant,knn\n", "at least one tenant"),
        ("", "must have a header row"),
    ],
)
def test_what_is_no_table_of_costs_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_costs(write(tmp_path, text))


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.csv", "missing.csv"):
        with pytest.raises(InvalidInputError, match=r"cannot be read|is not UTF-8"):
            read_costs(tmp_path / name)


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="larger than 64 MB"):
        read_costs(Path("/dev/zero"))


def test_an_installation_reports_on_its_own_trials(database: Any) -> None:
    """The same as for the trials by hand: with their rows, and without those that failed or are under way."""
    names = ("knn", "forest", "network")
    trials = [(i, k, 0.5, float((1 + i) * 10**k + k)) for i in range(6) for k in range(3)]
    rows = [100 * (1 + i) for i in range(6)]
    with database.owner.begin() as tx:
        made_up_installation.fill(tx, key="b", candidates=names, config={}, trials=trials[:-2], rows=rows)
        ended = "state = 'FAILED', failure = 'crash', cost_seconds = 9, finished_at = now()"
        ids = "(SELECT s.id, c.id, v.id FROM work.studies s, work.candidates c, work.data_versions v WHERE "
        ids += "c.study_id = s.id AND v.study_id = s.id AND s.name = 'b-5' AND c.name <> 'knn')"
        tx.exec_driver_sql(f"INSERT INTO work.trials (study_id, candidate_id, data_version_id) {ids}")
        tx.exec_driver_sql(f"UPDATE work.trials SET {ended} WHERE id = (SELECT max(id) FROM work.trials)")
        (first,) = tx.exec_driver_sql("SELECT min(id) FROM work.studies").one()
    expected = [Measured(first + i, names[k], seconds, None, float(rows[i])) for i, k, _, seconds in trials[:-2]]
    assert report_costs(database.worker) == cost_report(expected)
    assert report_costs(database.worker).errors


def test_an_empty_installation_reports_nothing(store: Any) -> None:
    assert (report_costs(store).trials, report_costs(store).errors) == (0, ())
