"""Tables in files: the same table as in memory, whatever the size of a block, and mapped where a process trains."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easeml_core.data import mapped, parts
from easeml_core.data.inference.column_stats import parquet_blocks
from easeml_core.data.mapped import mapped_arrays
from easeml_core.data.sources import parquet_files
from easeml_core.data.sources.load import load_source
from easeml_core.data.sources.parquet_files import read_large_parquet
from easeml_core.data.split_spec import check_split
from easeml_core.data.table import RawTable, content_hash
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MAPPED_BLOCK_CELLS", 64)


def columns_of(rows: int = 300) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    found: dict[str, Any] = {f"x{i}": rng.normal(size=rows) for i in range(5)}
    found["x1"][::7] = np.nan
    found["x2"] = np.where(found["x2"] > 0, 0.0, -0.0)
    found["group"] = np.arange(rows) // 3
    found["kind"] = np.where(found["x0"] > 0, "yes", "no").astype(object)
    found["kind"][5] = None
    for name in found:
        found[name][-40:] = found[name][:40]  # rows that repeat
    return found


def written(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table({n: pa.array(c, from_pandas=True) for n, c in columns.items()}), path, row_group_size=70)
    return path


def read(path: Path, **given: Any) -> RawTable:
    return read_large_parquet(path, "kind", None, check_split(given.pop("split", None)))


def test_a_table_in_a_file_is_the_table_in_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", columns_of())
    for split in (None, "group:group", "group:group?keep=yes"):
        large = read(path, split=split)
        small = load_source(f"parquet:{path}", "kind", split=split)
        assert mapped.is_mapped(large.inputs)
        assert content_hash(large) == content_hash(small)
        for name in ("duplicates", "class_names", "program", "feature_names", "task", "layout"):
            assert getattr(large, name) == getattr(small, name)
        assert large.duplicates > 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"word": np.array(["a", "b"] * 150, dtype=object)}, "has text in column 8; a file of this size needs numbers"),
        ({"x3": np.full(300, 1e39)}, "row 1, column 4 is infinite"),
        ({"x3": np.full(300, np.nan)}, "column 4 of the inputs has no value"),
        ({"kind": np.full(300, "yes", dtype=object)}, "the labels are all the same"),
    ],
)
def test_what_is_refused_in_memory_is_refused_in_a_file(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read(written(tmp_path / "a.parquet", columns_of() | change))


def test_a_file_of_too_many_rows_or_too_large_groups_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.parquet", columns_of())
    for name, message in {
        "MOST_STREAMED_ROWS": "has 300 rows, at most 10 are allowed in a file of this size",
        "MOST_STREAMED_CELLS": "has more than 10 cells",
        "MAX_GROUP_BYTES": r"has a row group of [\d,]+ bytes, at most 10 are .*\(row_group_size\)",
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(parquet_files, name, 10)
            patch.setattr(parquet_files, "_blocks", None)
            with pytest.raises(InvalidInputError, match=message):
                read(path)
    (tmp_path / "b.parquet").write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InvalidInputError, match="is no Parquet file"):
        read(tmp_path / "b.parquet")


def test_the_parts_of_a_large_table_are_mapped_where_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = read(written(tmp_path / "a.parquet", columns_of()))
    sizes = {"gate": 20, "validation": 30}
    in_memory = parts.split_parts(
        replace(table, inputs=np.array(table.inputs)), sizes=sizes, rng=np.random.default_rng(0)
    )
    cut = parts.split_parts(table, sizes=sizes, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(cut.gate.inputs, in_memory.gate.inputs)
    np.testing.assert_array_equal(cut.validation.inputs, in_memory.validation.inputs)
    np.testing.assert_array_equal(
        *(np.unique(np.column_stack([one.train.inputs, one.train.labels]), axis=0) for one in (cut, in_memory))
    )
    parts.save_open_parts(tmp_path / "small.npz", cut)
    monkeypatch.setattr(parts, "LARGE_CELLS", 1000)
    monkeypatch.setattr("easeml_core.data.mapped._LEAST_MAPPED", 4000)
    parts.save_open_parts(tmp_path / "large.npz", cut)
    parts.save_open_parts(tmp_path / "again.npz", cut)
    assert (tmp_path / "large.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    with np.load(tmp_path / "large.npz") as file:  # numpy, and earlier versions, read it likewise
        np.testing.assert_array_equal(file["train_inputs"], cut.train.inputs)
        assert set(mapped_arrays(tmp_path / "large.npz", file.zip)) == {"train_inputs"}
    for name in ("small.npz", "large.npz"):
        found = parts.load_open_parts(tmp_path / name)
        assert mapped.is_mapped(found.train_inputs) == (name == "large.npz")
        assert found.train_inputs.flags.aligned
        np.testing.assert_array_equal(found.train_inputs, cut.train.inputs)
        np.testing.assert_array_equal(found.validation_labels, cut.validation.labels)


def described(path: Path) -> dict[str, Any]:
    names, blocks = parquet_blocks(path)
    found = list(blocks)
    return {name: np.concatenate([block[name].column for block in found]) for name in names}


def test_a_large_file_is_read_and_described_by_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.parquet", columns_of())
    small, small_columns = load_source(f"parquet:{path}", "kind"), described(path)
    monkeypatch.setattr(parquet_files, "MAX_BYTES", 100)
    large = load_source(f"parquet:{path}", "kind")
    assert mapped.is_mapped(large.inputs)
    assert content_hash(large) == content_hash(small)
    assert len(load_source(f"parquet:{path}?rows=50", "kind").labels) == 50
    for name, column in described(path).items():
        np.testing.assert_array_equal(column, small_columns[name])


def test_a_part_that_is_not_held_in_memory_cannot_be_changed() -> None:
    parts.require_in_memory(200_000, 1_000)
    with pytest.raises(InvalidInputError, match="has 200,001,000 numbers; only one of at most 200,000,000"):
        parts.require_in_memory(200_001, 1_000)
