"""Parquet files: the same table as from CSV, types that are refused, files made to hurt."""

from __future__ import annotations

import decimal
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data.sources import parquet_files
from easeml_core.data.sources.load import load_source
from easeml_core.data.sources.parquet_files import read_parquet
from easeml_core.errors import InvalidInputError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

if TYPE_CHECKING:
    from pathlib import Path


def put(tmp_path: Path, columns, **options) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        {
            "x": pa.array([1, None, 3], pa.int32()),
            "flag": pa.array([True, False, None]),
            "price": pa.array([decimal.Decimal("1.5"), None, decimal.Decimal("2")]),
            "colour": pa.array(["red", " ", None]).dictionary_encode(),
            "half": pa.array(np.array([0.5, 1, np.nan], np.float16)),
            "y": pa.array(["a", "b", "a"], pa.large_string()),
        },
    )
    table = load_source(f"parquet:{path}", "y")
    assert table.feature_names == ("x", "flag", "price", "colour=red", "half")
    nan = np.nan
    np.testing.assert_array_equal(table.inputs, [[1, 1, 1.5, 1, 0.5], [nan, 0, nan, 0, 1], [3, nan, 2, 0, nan]])
    assert table.labels.tolist() == [0, 1, 0]


@given(
    numbers=st.lists(st.none() | st.floats(allow_infinity=False, allow_nan=False, width=32), min_size=2, max_size=20),
    words=st.lists(st.none() | st.text(alphabet="abc d\né", max_size=5), min_size=20, max_size=20),
    options=st.sampled_from(
        [{}, {"compression": "zstd"}, {"use_dictionary": False}, {"row_group_size": 3}, {"version": "1.0"}]
    ),
)
@settings(deadline=None, max_examples=examples(60))
def test_what_is_written_is_read_back(tmp_path_factory, numbers, words, options) -> None:
    words = words[: len(numbers)]
    table = pa.table({"n": pa.array(numbers, pa.float64()), "w": pa.array(words, pa.string())})
    columns = read_parquet(put(tmp_path_factory.mktemp("p"), table, **options))
    assert [None if n != n else n for n in columns["n"].tolist()] == numbers
    assert columns["w"].tolist() == [None if w is None else w.strip() or None for w in words]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [[1], [2]], "y": [0, 1]}, r"column of type list<.*\(number 1\); allowed: numbers and text"),
        ({"y": [0, 1], "x": [b"a", b"b"]}, r"type binary \(number 2\)"),
        ({"y": [0, 1], "x": [{"a": 1}, {"a": 2}]}, r"type struct<.* \(number 2\)"),
        ({"y": [0, 1], "x": pa.array([0, 1], pa.timestamp("s"))}, r"type timestamp\[.*\(number 2\)"),
        ({"y": [1], "x": [1]}, "has 1 row; at least 2"),
        ({"y": [0, 1], "": [1, 2]}, "needs names for its columns"),
        (pa.table([pa.array([0, 1]), pa.array([1, 2])], names=["y", "y"]), "needs names for its columns"),
        ({"y": [0, 1], "x": pa.nulls(2)}, "column 2 has no value"),
        ({"y": [0, 1], "x": [float("nan")] * 2}, "column 2 has no value"),
        ({"y": [1, 1], "x": [1, 2]}, "labels are all the same"),
        ({"z": [1, 1], "x": [1, 2]}, "no column 'y' to predict"),
    ],
)
def test_what_makes_no_table_is_refused(columns, message, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_source(f"parquet:{put(tmp_path, columns)}", "y")


def test_regression(tmp_path: Path) -> None:
    path = put(tmp_path, {"x": [1, 2, 3], "y": [0.5, None, 9.0]})
    assert load_source(f"parquet:{path}", "y", "regression").labels.tolist() == [0.5, 9]


def test_a_small_file_of_far_too_many_cells_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "_columns", lambda *_: pytest.fail("read"))
    path = put(tmp_path, {"x": np.zeros(50_000_001), "y": np.zeros(50_000_001, bool)})
    assert path.stat().st_size < 2_000_000
    with pytest.raises(InvalidInputError, match="more than 100,000,000 cells"):
        load_source(f"parquet:{path}", "y")


def test_long_text_that_is_repeated_is_not_unpacked(tmp_path: Path) -> None:
    # 300,000 times 100,000 characters: 30 GB as plain strings, one word in the dictionary.
    word = pa.DictionaryArray.from_arrays(np.arange(300_000, dtype=np.int32) % 2, ["a" * 100_000, "b"])
    path = put(tmp_path, {"w": word, "x": np.arange(300_000), "y": np.arange(300_000) % 2})
    columns = read_parquet(path)
    assert columns["w"][0] is columns["w"][2]
    longer = pa.DictionaryArray.from_arrays(np.zeros(10, np.int32), ["a" * 200_000])
    with pytest.raises(InvalidInputError, match="a cell of more than 131,072 characters"):
        read_parquet(put(tmp_path, {"w": longer}))


def forged(path: Path, claims: int = 1000) -> Path:
    """The file, in which every size above a megabyte is said to be a small one; a number keeps its length in bytes."""
    content, about = path.read_bytes(), pq.ParquetFile(path).metadata
    length = int.from_bytes(content[-8:-4], "little")
    footer, group = content[-8 - length : -8], about.row_group(0)
    sizes = {group.total_byte_size, *(group.column(i).total_uncompressed_size for i in range(group.num_columns))}
    for size in (size for size in sizes if size > 1 << 20):
        true, said = varint(size), varint(claims)
        padded = bytes([byte | 0x80 for byte in said]) + bytes([0x80] * (len(true) - len(said) - 1)) + b"\0"
        assert true in footer
        footer = footer.replace(true, padded)
    path.write_bytes(content[: -8 - length] + footer + content[-8:])
    return path


def varint(number: int) -> bytes:
    """As Thrift's compact protocol writes a number >= 0: zigzag, then seven bits a byte."""
    left, found = number << 1, []
    while left > 0x7F:
        found.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*found, left])


def test_a_word_is_measured_before_it_is_text_whatever_the_file_says_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "MAX_BYTES", 1 << 20)  # so many are set aside for the file itself
    path = put(tmp_path, {"w": ["A" * (8 << 20), "x"], "y": ["a", "b"]}, compression="zstd", write_statistics=False)
    forged(path)
    assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size == 1000
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError, match="a cell of more than 131,072 characters"):
            read_parquet(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_the_words_of_all_columns_count_and_those_that_no_cell_names_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"{number:010d}" for number in range(1000)]
    few = pa.DictionaryArray.from_arrays(np.arange(20, dtype=np.int32) % 2, words)
    path = put(tmp_path, {"a": few, "b": few, "y": np.arange(20)})
    monkeypatch.setattr(parquet_files, "MAX_UNPACKED", 3000)
    monkeypatch.setattr(parquet_files, "described", lambda *_, **__: (["a", "b", "y"], ["text", "text", "numbers"]))
    assert read_parquet(path)["b"].tolist() == words[:2] * 10
    monkeypatch.setattr(parquet_files, "MAX_UNPACKED", 39)
    other = pa.DictionaryArray.from_arrays(np.arange(20, dtype=np.int32) % 2, words[2:])
    with pytest.raises(InvalidInputError, match="more than 39 bytes of different texts"):
        read_parquet(put(tmp_path, {"a": few, "b": other, "y": np.arange(20)}))


@pytest.mark.parametrize("limit", ["MAX_UNPACKED", "MAX_BYTES", "MAX_COLUMNS"])
def test_limits(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, {"x": [1, 2], "y": [0, 1]})
    monkeypatch.setattr(parquet_files, limit, 1)
    with pytest.raises(InvalidInputError, match=r"bytes unpacked|is larger than|more than 1 columns"):
        read_parquet(path)


@given(content=st.binary(max_size=40), place=st.integers(0, 1500), cut=st.integers(0, 1500))
@settings(deadline=None, max_examples=examples(300))
def test_no_content_raises_anything_else(tmp_path_factory, content, place, cut) -> None:
    path = put(tmp_path_factory.mktemp("any"), {"x": [1.0, 2, 3], "w": ["a", "b", "a"], "y": [0, 1, 1]})
    good = path.read_bytes()
    path.write_bytes((good[:place] + content + good[place + len(content) :])[: cut or None])
    try:
        load_source(f"parquet:{path}", "y")
    except InvalidInputError:
        return


def test_without_pyarrow_the_way_to_get_it_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, {"x": [1, 2], "y": [0, 1]})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InvalidInputError, match=r"pip install 'easeml-airflow\[parquet\]'"):
        load_source(f"parquet:{path}", "y")
