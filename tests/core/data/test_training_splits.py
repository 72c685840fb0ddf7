"""Dividing rows by chance, by group, by time: no row twice, no group in two parts, no later row before another."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data.columns import table_of_columns
from easeml_core.data.parts import content_hash, split_parts
from easeml_core.data.sources.load import load_source
from easeml_core.data.sources.spec import check_source
from easeml_core.data.split_spec import ROWS, Split, check_split
from easeml_core.data.splits import divided, group_numbers, times_of
from easeml_core.data.table import RawTable, make_table, sample_rows
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError, ShapeError

if TYPE_CHECKING:
    from pathlib import Path

PARTS = ("gate", "meter", "joint", "direct", "validation")
SIZES = st.fixed_dictionaries({name: st.integers(0, 12) for name in PARTS[:4]} | {"validation": st.integers(1, 12)})
GROUP, TIME = Split("group", "g"), Split("time", "t")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def divide(split: Split, values: Any, sizes: dict[str, int], seed: int) -> dict[str, set[int]] | None:
    """The parts, or None where no row would be left for training; whatever holds for all kinds is asserted."""
    try:
        found = divided(split, values, sizes, len(values), rng(seed))
    except InvalidInputError:
        return None
    again = divided(split, values, sizes, len(values), rng(seed))
    assert {name: rows.tolist() for name, rows in found.items()} == {n: rows.tolist() for n, rows in again.items()}
    everybody = np.concatenate(list(found.values()))
    assert sorted(everybody.tolist()) == list(range(len(values)))  # every row once
    assert list(found) == [*sizes, "train"]
    assert all(len(found[name]) >= size for name, size in sizes.items())
    assert all(not len(found[name]) for name, size in sizes.items() if not size)
    return {name: set(rows.tolist()) for name, rows in found.items()}


@given(
    groups=st.lists(st.integers(0, 15), min_size=60, max_size=120),
    sizes=SIZES, seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(deadline=None, max_examples=examples(150))
def test_no_group_is_in_two_parts(groups: list[int], sizes: dict[str, int], seed: int) -> None:
    values = np.array(groups)
    found = divide(GROUP, values, sizes, seed)
    if found is None:
        return
    seen = [{groups[row] for row in rows} for rows in found.values()]
    assert sum(map(len, seen)) == len(set(groups))
    largest = max(groups.count(g) for g in groups)
    assert all(len(found[name]) < size + largest for name, size in sizes.items() if size)  # no more than it must


@given(
    times=st.lists(st.integers(0, 40), min_size=60, max_size=120),
    sizes=SIZES, seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(deadline=None, max_examples=examples(150))
def test_training_is_before_validation_is_before_what_is_sealed(
    times: list[int], sizes: dict[str, int], seed: int
) -> None:
    found = divide(TIME, np.array(times), sizes, seed)
    if found is None:
        return
    windows = [
        [times[row] for name in names for row in found[name]]
        for names in (["train"], ["direct", "validation"], ["gate", "meter", "joint"])
    ]
    windows = [window for window in windows if window]
    for before, after in itertools.pairwise(windows):
        assert max(before) < min(after)  # and so no time is in two windows


def test_rows_that_are_all_different_in_time_give_exactly_what_was_asked() -> None:
    sizes = {"gate": 7, "meter": 3, "joint": 0, "direct": 2, "validation": 5}
    found = divide(TIME, np.arange(100.0), sizes, 1)
    assert found is not None
    assert {name: len(found[name]) for name in sizes} == sizes
    assert found["gate"] | found["meter"] == set(range(90, 100))
    assert found["gate"] != set(range(90, 97))  # which of them is left to chance


def test_groups_of_one_row_are_a_uniform_sample() -> None:
    # As for chance: each of 20 rows is sealed in a quarter of 2,000 splits; off by 150 with probability < 3e-10 each.
    counts = np.zeros(20)
    generator = rng(3)
    for _ in range(2000):
        counts[divided(GROUP, np.arange(20), {"gate": 5, "validation": 1}, 20, generator)["gate"]] += 1
    assert np.all(np.abs(counts - 500) < 150)


def test_chance_divides_as_it_always_did() -> None:
    order = rng(5).permutation(10)
    found = divided(ROWS, None, {"gate": 3, "validation": 2}, 10, rng(5))
    assert [found[name].tolist() for name in found] == [order[:3].tolist(), order[3:5].tolist(), order[5:].tolist()]


FORMS = {
    None: ROWS,
    "": ROWS,
    " rows ": ROWS,
    "group:patient": Split("group", "patient"),
    "group: patient id ?keep=yes": Split("group", "patient id", keep=True),
    "time:day?keep=no": Split("time", "day"),
    "time:a:b?c": Split("time", "a:b?c"),
}


@pytest.mark.parametrize("text", FORMS)
def test_a_split_is_written_so(text: str | None) -> None:
    assert check_split(text) == FORMS[text]
    assert check_split(str(check_split(text))) == FORMS[text]


@pytest.mark.parametrize(
    "text", ["row", "group", "group:", "group: ", "date:day", "time:a\nb", "group:" + "a" * 1000, 3]
)
def test_other_forms_are_refused(text: Any) -> None:
    with pytest.raises(InvalidInputError, match="split must be rows, group:COLUMN or time:COLUMN"):
        check_split(text)


def test_checking_a_split_loads_no_numpy() -> None:
    look = "import sys; import easeml_core.data.sources.spec; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("source", ["sklearn:digits", "images:photos", "npy:arrays"])
def test_what_has_no_columns_is_divided_by_chance_alone(source: str) -> None:
    with pytest.raises(InvalidInputError, match=r"split 'group:g': source .* has no columns to divide rows by"):
        check_source(source, split="group:g")
    assert check_source(source, split="rows").scheme == source.partition(":")[0]


COLUMNS = {
    "x": np.array([1.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
    "g": np.array(["b", "a", "a", "c", None, "b"], dtype=object),
    "t": np.array(["mon", "tue", "wed", "mon", "tue", "mon"], object),
    "y": np.array(["p", "p", "q", "q", None, "q"], dtype=object),
}  # fmt: skip


def test_the_column_divides_and_is_no_input_unless_it_is_kept() -> None:
    table = table_of_columns(COLUMNS, "y", split=check_split("group:g"))  # the row without a group has no target
    assert not [name for name in table.feature_names if name.startswith("g")]
    assert table.split_values is not None
    assert len(table.split_values) == len(table.labels) == 5
    kept = table_of_columns(COLUMNS, "y", split=check_split("group:g?keep=yes"))
    assert {"g=a", "g=b", "g=c"} <= set(kept.feature_names)
    assert kept.split_values is not None
    assert kept.split_values.tolist() == [1, 0, 0, 2, 1]


def test_times_are_numbers_or_iso_text_in_any_zone() -> None:
    texts = np.array(["2024-03-01", "2024-01-01T00:00:00Z", "2023-12-31 23:00:00-02:00"], dtype=object)
    assert times_of(texts, "t").tolist() == [1709251200.0, 1704067200.0, 1704070800.0]
    assert times_of(np.array([3.0, -1.0]), "t").tolist() == [3.0, -1.0]
    with pytest.raises(InvalidInputError, match="in row 2 a text that is no time") as caught:
        times_of(np.array(["2024-03-01", "secret"], dtype=object), "t")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("column", [np.array(["a", None], dtype=object), np.array([1.0, np.nan])])
def test_every_row_needs_a_group(column: Any) -> None:
    with pytest.raises(InvalidInputError, match="column 'g' gives row 2 no group to split by"):
        group_numbers(column, "g")


@pytest.mark.parametrize(
    ("split", "message"), [("group:z", "'z' is not among the 4 columns"), ("group:y", "'y' is the target")]
)
def test_the_column_must_be_there_and_not_be_the_target(split: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        table_of_columns(COLUMNS, "y", split=check_split(split))


def grouped(rows: int = 200) -> RawTable:
    labels = np.arange(rows) % 2
    values = np.arange(rows) // 4
    return make_table(
        np.arange(rows, dtype=float)[:, None], labels, class_names=("a", "b"), feature_names=("x",), split_values=values
    )


def test_parts_of_a_table_keep_groups_whole() -> None:
    parts = split_parts(grouped(), sizes={"gate": 30, "meter": 21, "validation": 10}, rng=rng(), split=GROUP)
    groups = [
        {int(x) // 4 for x in part.inputs[:, 0]} for part in (parts.train, parts.validation, parts.gate, parts.meter)
    ]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 50
    assert [len(part.labels) for part in (parts.gate, parts.meter, parts.validation)] == [32, 24, 12]


def test_a_class_that_training_never_sees_is_refused() -> None:
    table = make_table(
        np.arange(40.0)[:, None], np.arange(40) // 30, class_names=("old", "new"), feature_names=("x",),
        split_values=np.arange(40.0),
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match="leaves no training row of class 'new'"):
        split_parts(table, sizes={"gate": 8, "validation": 4}, rng=rng(), split=TIME)


def test_one_group_of_almost_all_rows_is_refused() -> None:
    table = make_table(
        np.arange(40.0)[:, None], np.arange(40) % 2, class_names=("a", "b"), feature_names=("x",),
        split_values=np.array([0] * 39 + [1]),
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match="groups are too large, no row is left for training"):
        split_parts(table, sizes={"gate": 8, "validation": 4}, rng=rng(1), split=GROUP)


def test_a_split_without_values_is_refused() -> None:
    table = make_table(np.arange(20.0)[:, None], np.arange(20) % 2, class_names=("a", "b"), feature_names=("x",))
    with pytest.raises(InvalidInputError, match="needs data with columns"):
        split_parts(table, sizes={"gate": 3, "validation": 4}, rng=rng(), split=GROUP)
    with pytest.raises(ShapeError, match="split_values"):
        make_table([[1.0], [2.0]], [0, 1], class_names=("a", "b"), feature_names=("x",), split_values=np.arange(3))


def test_what_divides_rows_goes_with_them_and_into_the_hash() -> None:
    table = grouped()
    sample = sample_rows(table, 50)
    assert sample.split_values is not None
    assert sample.split_values.tolist() == [int(x) // 4 for x in sample.inputs[:, 0]]
    plain = make_table(table.inputs, table.labels, class_names=("a", "b"), feature_names=("x",))
    assert content_hash(plain) != content_hash(table)


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines))
    return str(path)


def test_series_are_divided_by_a_column_that_they_have_one_value_of(tmp_path: Path) -> None:
    lines = [f"{i},{step},{i + step},{'p' if i % 2 else 'q'},{i // 3}" for i in range(12) for step in range(3)]
    path = write(tmp_path / "s.csv", ["id,step,v,y,site", *lines])
    table = load_source(f"series:{path}", "y", split="group:site")
    assert table.layout.shape == (3, 1)
    assert table.split_values is not None
    assert table.split_values.tolist() == [i // 3 for i in range(12)]
    lines[1] = lines[1].removesuffix("0") + "1"
    path = write(tmp_path / "s.csv", ["id,step,v,y,site", *lines])
    with pytest.raises(InvalidInputError, match="row 2 below the header has another group than its series before"):
        load_source(f"series:{path}", "y", split="group:site")


def test_a_file_of_numbers_is_divided_by_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["day,x,y", *(f"2024-01-{day:02},{day % 7},{day * 1.5}" for day in range(1, 31))])
    table = load_source(f"csv:{path}", "y", Task.REGRESSION, split="time:day?keep=no")
    parts = split_parts(table, sizes={"gate": 2, "validation": 1}, rng=rng(), split=check_split("time:day"))
    assert float(parts.train.labels.max()) < float(parts.validation.labels.min()) < float(parts.gate.labels.min())
