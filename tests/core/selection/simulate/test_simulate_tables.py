"""Tables from CSV files: what is read, and what is refused with line, row, column, value and remedy."""

from __future__ import annotations

import re

import numpy as np
import pytest

from easeml_core.errors import InvalidInputError, ShapeError
from easeml_core.selection.simulate import tables as cells
from easeml_core.selection.simulate.tables import Table, read_table

QUALITY = "dataset,knn,tree\niris,0.9,0.8\nwine,,0.7\n"
COST = "dataset,knn,tree\niris,1.5,20\nwine,2,1e3\n"


@pytest.fixture
def read(tmp_path):
    def run(quality=QUALITY, cost=None):
        def write(name, content):
            path = tmp_path / name
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            return path

        return read_table(write("q.csv", quality), None if cost is None else write("c.csv", cost))

    return run


def refused(read, quality=QUALITY, cost=None):
    """The message, without the folder of the file."""
    with pytest.raises(InvalidInputError) as caught:
        read(quality, cost)
    return re.sub(r"table \S*/", "table ", str(caught.value))


def test_without_costs_all_are_one(read):
    table = read()
    assert (table.tenants, table.candidates) == (("iris", "wine"), ("knn", "tree"))
    np.testing.assert_array_equal(table.quality, [[0.9, 0.8], [np.nan, 0.7]])
    np.testing.assert_array_equal(table.cost, np.ones((2, 2)))


def test_costs_may_come_in_another_order(read):
    table = read(cost="x,tree,knn\nwine,1e3,2\niris,20,1.5\n")
    np.testing.assert_array_equal(table.cost, [[1.5, 20.0], [2.0, 1000.0]])
    np.testing.assert_array_equal(table.with_unit_costs().cost, np.ones((2, 2)))


def test_a_cost_may_be_missing_where_there_is_no_quality(read):
    table = read(cost="d,tree,knn\nwine,1e3,\niris,20,1.5\n")
    np.testing.assert_array_equal(table.cost, [[1.5, 20.0], [np.nan, 1000.0]])


@pytest.mark.parametrize(
    "quality",
    [
        b"\xef\xbb\xbf" + QUALITY.encode(),
        QUALITY.replace("\n", "\r\n"),
        QUALITY.replace("wine", "\n , ,\nwine") + "\n\n",
        QUALITY.replace("dataset", ""),
        QUALITY.replace("0.9", ' "0.9" ').replace(' "', '"').replace('" ', '"'),
        QUALITY.replace(",tree", ", tree "),
    ],
    ids=["byte order mark", "dos", "blank lines", "no name for the keys", "quoted", "blanks"],
)
def test_harmless_differences_do_not_matter(read, quality):
    table = read(quality)
    assert (table.tenants, table.candidates) == (("iris", "wine"), ("knn", "tree"))
    np.testing.assert_array_equal(table.quality, [[0.9, 0.8], [np.nan, 0.7]])


def test_names_may_be_anything_that_csv_can_quote(read):
    table = read('k,"a, b","c ""d"""\n"x\ny",1,0\n')
    assert (table.tenants, table.candidates) == (("x\ny",), ("a, b", 'c "d"'))


PERCENT = "it by 100"


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        (
            QUALITY.replace("0.8", "good"),
            "quality table q.csv, line 2 (row 'iris'), column 'tree': 'good' is not a finite number such as 0.87; "
            "leave the cell empty where the candidate is not available",
        ),
        (QUALITY.replace("0.8", "nan"), "line 2 (row 'iris'), column 'tree': 'nan' is not a finite number"),
        (QUALITY.replace("0.8", "NA"), "'NA' is not a finite number"),
        (QUALITY.replace("0.8", "inf"), "'inf' is not a finite number"),
        (QUALITY.replace("0.8", "1e999"), "'1e999' is not a finite number"),
        (QUALITY.replace("0.8", "0_8"), "'0_8' is not a finite number"),
        (QUALITY.replace("0.8", '"0,8"'), "'0,8' is not a finite number such as 0.87"),
        (QUALITY.replace("0.8", "-0.1"), "line 2 (row 'iris'), column 'tree': -0.1 is no quality; qualities lie in"),
        (QUALITY.replace("0.8", "1.2"), "1.2 is no quality; qualities lie in [0, 1], higher is better"),
        (
            "d,knn,tree\niris,0.9,88\nwine,75.5,99.9\n",
            "line 2 (row 'iris'), column 'tree': 88 is above 1, and 3 of 4 qualities are: the table seems to be in "
            "percent; divide it by 100",
        ),
        (QUALITY.replace(",0.7", ","), "line 3 (row 'wine'): it has no quality at all; remove the row"),
        (QUALITY.replace("wine", "iris"), "lines 2 and 3 both have the key 'iris'; give every row its own"),
        (QUALITY.replace("wine", ""), "line 3: the first column is empty; give every row its key there"),
        (QUALITY.replace("tree", "knn"), "columns 2 and 3 are both called 'knn'; rename one of them"),
        (QUALITY.replace("tree", ""), "column 3 has no name in the header"),
        (QUALITY.replace("0.8", "0.8,"), "line 2: it has 4 cells, the header has 3; give every row one cell"),
        (QUALITY.replace("0.9,", ""), "line 2: it has 2 cells, the header has 3"),
        (QUALITY.replace(",", ";"), "its cells seem to be separated by ';': save it with commas"),
        (QUALITY.replace(",", "\t"), "its cells seem to be separated by '\\t': save it with commas"),
        ("", "it needs a header line with a key column and at least one candidate"),
        ("dataset\niris\n", "it needs a header line with a key column and at least one candidate"),
        ("d,knn\n", "it has no rows below the header; give one row for each tenant"),
        ('d,knn\niris,"0.9\n', "is not well-formed CSV at line 2: unexpected end of data"),
        (b"d,knn\nM\xfcller,0.9\n", "is not UTF-8 (byte 7); give a CSV file in UTF-8"),
        (QUALITY.encode("utf-16"), "is not UTF-8 (byte 0); give a CSV file in UTF-8"),
        (b"d,knn\n\0,0.9\n", "is not text: it holds a zero byte"),
        ("d,knn\niris," + "9" * 2000 + "\n", "line 2: a cell has more than 1,000 characters; shorten it"),
        ("d," + ",".join(f"c{i}" for i in range(5001)) + "\n", "it has 5,001 columns, at most 5,000 are possible"),
        (QUALITY.replace("0.8", "x" * 900), f"{'x' * 40 + '...'!r} is not a finite number"),
        (QUALITY.replace("0.8", "\x1b[2J"), "'\\x1b[2J' is not a finite number"),
    ],
)
def test_what_is_wrong_with_a_quality_table(read, quality, message):
    assert message in refused(read, quality)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (
            COST.replace("20", ""),
            "cost table c.csv, line 2 (row 'iris'), column 'tree': it is empty where the quality table has a quality; "
            "give the cost of the trial",
        ),
        (COST.replace("20", "0"), "line 2 (row 'iris'), column 'tree': 0 is no cost; costs are positive"),
        (COST.replace("20", "-3"), "-3 is no cost"),
        (COST.replace("20", "1e300"), "1e+300 is no cost; costs are positive, from 1e-12 to 1e+12"),
        (COST.replace("20", "1e-300"), "1e-300 is no cost"),
        (COST.replace("20", "slow"), "'slow' is not a finite number such as 0.87; give the cost of every trial"),
        (COST.replace("wine", "whine"), "it has no row 'wine', which the quality table has; both tables must have"),
        (COST.replace("tree", "forest"), "it has no column 'tree', which the quality table has"),
        (COST + "beer,1,1\n", "its row 'beer' is not in the quality table; both tables must have the same rows"),
        ("d,knn,tree,svm\niris,1,1,1\nwine,1,1,1\n", "its column 'svm' is not in the quality table"),
    ],
)
def test_what_is_wrong_with_a_cost_table(read, cost, message):
    assert message in refused(read, cost=cost)


def test_a_wrong_cost_is_named_by_its_own_file_also_in_another_order(read):
    message = refused(read, cost="x,tree,knn\nwine,-1,2\niris,20,1.5\n")
    assert "line 2 (row 'wine'), column 'tree': -1 is no cost" in message
    message = refused(read, cost="x,tree,knn\nwine,1,2\niris,20,\n")
    assert "line 3 (row 'iris'), column 'knn': it is empty where the quality table has a quality" in message


@pytest.mark.parametrize(("path", "reason"), [("nowhere.csv", "No such file"), (".", "Is a directory"), ("\0", "used")])
def test_what_cannot_be_opened(tmp_path, path, reason):
    with pytest.raises(InvalidInputError, match=reason):
        read_table(tmp_path / path)


def test_large_files_are_refused(read, monkeypatch):
    monkeypatch.setattr(cells, "MAX_CELLS", 3)
    assert "it has more than 3 cells" in refused(read)


def test_endless_files_are_refused_too():
    from pathlib import Path

    with pytest.raises(InvalidInputError, match="is larger than 64 MB"):
        read_table(Path("/dev/zero"))


def test_arrays_must_fit_the_names():
    with pytest.raises(ShapeError, match=r"cost must have shape \(1, 2\)"):
        Table(("a",), ("x", "y"), np.ones((1, 2)), np.ones((2, 1)))
