"""Files with new examples: read within bounds, encoded as the study's data was, wrong places named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data.columns import column_of_texts, table_of_columns
from easeml_core.data.rows import row_tables
from easeml_core.data.rows.row_tables import class_indices, encode, read_examples, text_blocks
from easeml_core.data.sources import csv_files
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "new.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_rows_keep_their_keys_lines_and_cells(put: Any) -> None:
    file = read_examples(put('\ufeffx,example,y\n1,a,=2+3\n\n" 2","b ","x\ny"\n3,c,\n'))
    assert file.keys == ("a", "b", "c")
    assert dict(file.columns) == {"x": ("1", " 2", "3"), "y": ("=2+3", "x\ny", "")}
    assert file.lines == (2, 5, 6)  # a cell may run over lines; the last one counts


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "needs a first line of column names"),
    "no key": ("x,y\n1,2\n", "needs a column 'example' .* its columns are 'x', 'y'"),
    "no rows": ("example,x\n", "has no row below the header"),
    "two columns of a name": ("example,x,x\n1,2,3\n", "each different and none empty"),
    "unnamed column": ("example,\n1,2\n", "each different and none empty"),
    "short row": ("example,x\na,1\nb\n", "line 3 has 1 cells, the header has 2"),
    "long row": ("example,x\na,1,2\n", "line 2 has 3 cells"),
    "same key": ("example,x\na,1\nb,1\na ,2\n", r"line 4 \(example 'a'\): the key is that of line 2 too"),
    "no name": ("example,x\n ,1\n", "line 2 .*: a key must be 1 to 200 printable characters"),
    "control character": ("example,x\na\x1b[2J,1\n", "a key must be 1 to 200 printable characters"),
    "long key": (f"example,x\n{'k' * 201},1\n", "a key must be 1 to 200 printable characters"),
    "zero byte": ("example,x\na\0,1\n", "holds a zero byte"),
    "not utf-8": (b"example,x\n\xff,1\n", r"is not UTF-8 \(byte 10\)"),
    "bad quotes": ('example,x\n"a"b,1\n', "is not well-formed CSV at line 2"),
    "endless quote": ('example,x\n"a,1\n', "is not well-formed CSV"),
    "huge cell": (f"example,x\na,{'9' * 140_000}\n", "is not well-formed CSV|more than 131,072 characters"),
    "wide": ("example," + ",".join(f"c{i}" for i in range(2001)) + "\n", "has more than 2,000 columns"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_a_sentence(case: str, put: Any) -> None:
    content, message = HOSTILE[case]
    with pytest.raises(InvalidInputError, match=message):
        read_examples(put(content))


def test_only_plain_files_of_bounded_size_are_read(tmp_path: Path, put: Any, monkeypatch: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("pipe", "is not a regular file"),
        (".", "cannot be read|not a regular"),
        ("none", "No such"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            read_examples(tmp_path / name)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_examples(tmp_path / "a\0b")
    monkeypatch.setattr(csv_files, "MAX_BYTES", 10)
    with pytest.raises(InvalidInputError, match="is larger than"):
        read_examples(put("example,x\na,1\n"))


def test_a_file_of_any_size_is_read_in_blocks_of_whole_rows(tmp_path: Path, put: Any, monkeypatch: Any) -> None:
    path = put("a,b\n" + "".join(f'{i},"{i}\n"\n' for i in range(11)))
    monkeypatch.setattr(csv_files, "MAX_BYTES", 40)
    found = list(text_blocks(path, most_cells=8, width=1))
    assert [len(block.lines) for block in found] == [4, 4, 3]
    assert [line for block in found for line in block.lines] == list(range(3, 25, 2))
    assert [cell for block in found for cell in block.columns["b"]] == [f"{i}\n" for i in range(11)]
    assert [len(block.lines) for block in text_blocks(path, most_cells=8, width=100)] == [1] * 11
    for content, message in (
        ("a,b\n1,2\n3\n", "line 3 has 1 cells, the header has 2"),
        (b"a,b\n1,2\n\xff,1\n", "is not UTF-8"),
        ("a,b\n1,2\n\0,1\n", "holds a zero byte"),
        ("a,b\n1,2\n1," + "1" * 50, "a line without an end"),
        ("a,b\n", "has no row below the header"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            list(text_blocks(put(content), most_cells=2, width=1))
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(InvalidInputError, match=r"none.* cannot be read"):
            list(text_blocks(tmp_path / name, most_cells=2, width=1))
    (tmp_path / "x.parquet").write_bytes(b"no Parquet")
    with pytest.raises(InvalidInputError, match="is no Parquet file"):
        list(text_blocks(tmp_path / "x.parquet", most_cells=2, width=1))


@given(st.data())
@settings(max_examples=examples(40), deadline=None)
def test_new_rows_are_encoded_as_the_studys_table_was(tmp_path_factory: Any, data: Any) -> None:
    """The table of all rows is the reference; any of its rows, brought again, must have the very same inputs."""
    words = st.sampled_from(["red", "blue", "a=b", "=1+1", ""])
    numbers = st.sampled_from(["1", "-0.0", "2.5", "", "1e-3"])
    rows = data.draw(st.lists(st.tuples(numbers, words, words), min_size=3, max_size=12, unique=True))
    columns = dict(zip(("size", "colour", "mark=up"), map(list, zip(*rows, strict=True)), strict=True))
    target = [str(i % 2) for i in range(len(rows))]
    try:
        table = table_of_columns(
            {n: column_of_texts(c) for n, c in columns.items()} | {"t": column_of_texts(target)}, "t"
        )
    except InvalidInputError:  # one class is left after equal rows were dropped
        return
    path = tmp_path_factory.mktemp("rows") / "new.csv"
    lines = [f"{i},{','.join(row)}" for i, row in enumerate(rows)]
    path.write_text("\n".join(["example,size,colour,mark=up", *lines]) + "\n")
    found = encode(read_examples(path), feature_names=table.feature_names, features=len(table.feature_names))
    assert {row.tobytes() for row in table.inputs} == {row.tobytes() for row in found}


def test_a_parquet_file_is_read_as_a_csv_file_of_the_same_cells(put: Any, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(
        pyarrow.table(
            {
                "example": pyarrow.array([7, 8, 9]),
                "n": pyarrow.array([0.1, None, 1e30], pyarrow.float32()),
                "c": ["red", None, " blue"],
                "b": [True, False, None],
            }
        ),
        tmp_path / "new.parquet",
    )
    found, expected = (
        read_examples(tmp_path / "new.parquet"),
        read_examples(put("example,n,c,b\n7,0.1,red,1\n8,,,0\n9,1e+30,blue,\n")),
    )
    assert (found.keys, dict(found.columns)) == (expected.keys, dict(expected.columns))
    assert found.place(1) == "example '8'"
    encoded = [encode(file, feature_names=("b", "n", "c=red", "c=blue"), features=4) for file in (found, expected)]
    np.testing.assert_array_equal(*encoded)
    with pytest.raises(InvalidInputError, match=r"parquet, example '7': 'red' is no class of the study"):
        class_indices(found, "c", ("green", "blue"))
    (tmp_path / "no.parquet").write_bytes(b"example,x\na,1\n")
    with pytest.raises(InvalidInputError, match="is no Parquet file that can be read"):
        read_examples(tmp_path / "no.parquet")


def test_words_come_as_words_or_as_columns_and_unknown_ones_are_zeros(put: Any) -> None:
    names = ("n", "c=red", "c=blue")
    words = read_examples(put("example,c,n\na,red,1\nb,green,\nc, blue ,3\n"))
    expected = np.array([[1, 1, 0], [np.nan, 0, 0], [3, 0, 1]], dtype=np.float32)
    found = encode(words, feature_names=names, features=3)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
    columns = read_examples(put("example,c=red,c=blue,n\na,1,0,1\nb,0,0,\nc,0,1,3\n"))
    np.testing.assert_array_equal(encode(columns, feature_names=names, features=3), expected)


def test_columns_must_be_the_studys(put: Any) -> None:
    names = ("n", "c=red")
    cases = {
        "the study's columns 'c=red' are missing": "example,n\na,1\n",
        "'extra' are none of the study's inputs; leave .* the slices is named with --slices 'extra'": (
            "example,n,c,extra\na,1,red,1\n"
        ),
        r"line 3 \(example 'b'\): column 'n' must be a number or empty, got '=1\+1'": "example,n,c\na,1,red\nb,=1+1,\n",
        "column 'n' must be a number or empty, got '1_0'": "example,n,c\na,1_0,red\n",
        "column 'n' must be a number or empty, got 'inf'": "example,n,c\na,inf,red\n",
        r"line 2 .*: column 'n' is beyond 3.4e38": "example,n,c\na,1e39,red\n",
    }
    for message, content in cases.items():
        with pytest.raises(InvalidInputError, match=message):
            encode(read_examples(put(content)), feature_names=names, features=2)
    beside = read_examples(put("example,n,c,ward\na,1,red,north\n"))
    assert encode(beside, feature_names=names, features=2, beside="ward").tolist() == [[1, 1]]
    assert encode(beside, feature_names=names, features=2, beside="ward").shape == (1, 2)


def test_without_names_the_columns_count_in_their_order(put: Any) -> None:
    file = read_examples(put("b,example,a\n1,x,2\n"))
    assert encode(file, feature_names=None, features=2).tolist() == [[1, 2]]
    with pytest.raises(
        InvalidInputError, match=r"has 2 columns of inputs, the study's data has 3; the names .* not kept"
    ):
        encode(file, feature_names=None, features=3)


def test_too_many_cells_are_refused_before_they_are_made(put: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(row_tables, "MAX_CELLS", 3)
    with pytest.raises(InvalidInputError, match="has more than 3 cells"):
        encode(read_examples(put("example,a,b\nx,1,2\ny,1,2\n")), feature_names=None, features=2)


@pytest.mark.parametrize(
    ("class_names", "cells", "expected"),
    [
        (("cat", "dog"), ["dog", " cat ", "1", "0"], [1, 0, 1, 0]),
        (("1", "2", "3"), ["1", "2.0", "3"], [0, 1, 2]),
        (("0.5", "cat"), [".5", "cat"], [0, 1]),
        (("size <= 3", "size > 3"), ["size > 3", "0"], [1, 0]),
    ],
)
def test_labels_are_names_or_indices_of_classes(
    class_names: tuple[str, ...], cells: list[str], expected: list[int], put: Any
) -> None:
    rows = "".join(f"{i},{cell}\n" for i, cell in enumerate(cells))
    file = read_examples(put("example,label\n" + rows))
    assert class_indices(file, "label", class_names).tolist() == expected


@pytest.mark.parametrize(
    ("class_names", "cell"),
    [(("cat", "dog"), "2"), (("cat", "dog"), "-1"), (("cat", "dog"), "1.5"), (("1", "2", "3"), "0"), (("a", "b"), "")],
)
def test_an_index_is_no_label_where_a_class_is_named_by_a_number(
    class_names: tuple[str, ...], cell: str, put: Any
) -> None:
    file = read_examples(put(f"example,label\nx,{cell}\n"))
    with pytest.raises(InvalidInputError, match=r"line 2 \(example 'x'\): .* is no class of the study; it has"):
        class_indices(file, "label", class_names)
