"""Untrusted CSV files: good, damaged, hostile; errors never show content of the file."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data.sources import csv_files
from easeml_core.data.sources.csv_files import read_csv
from easeml_core.data.sources.load import load_source
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2"


def written(tmp_path: Path, content: bytes | str) -> str:
    path = tmp_path / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return f"csv:{path}"


def test_a_good_file(tmp_path: Path) -> None:
    text = '\ufeffx, colour ,y\r\n1,"red, or not",a\r\n\r\n,blue,b\r\n2.5,"line\nbreak",a\r\n'
    table = load_source(written(tmp_path, text), "y")
    assert table.feature_names == ("x", "colour=blue", "colour=line\nbreak", "colour=red, or not")
    assert table.labels.tolist() == [0, 1, 0]
    assert table.image_shape is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "needs a first line of column names"),
        (b"x,y\n", "has 0 rows below the header"),
        (b"x,y\n1,2\n", "has 1 row below the header"),
        (b"x,,y\n1,2,3\n", "needs a first line of column names"),
        (b"x,x,y\n1,2,3\n", "needs a first line of column names"),
        (b"x,y\n1,2\n1,2,hunter2\n", "line 3 has 3 cells, the header has 2"),
        (b"x,y\n1,2\nhunter2\n", "line 3 has 1 cells, the header has 2"),
        (b"x,y\n1,\xff\n3,4\n", r"is not UTF-8 \(byte 6\)"),
        ("x,y\n1,2\n3,4\n".encode("utf-16"), "is not UTF-8"),
        (b"x,y\n1,\x00\n3,4\n", "holds a zero byte"),
        (b'x,y\n1,"hunter2\n3,4\n', "not well-formed CSV at line 3"),
        (b'x,y\n1,"a"hunter2\n3,4\n', "not well-formed CSV at line 2"),
        (b"x,y\n1," + b"a" * 200_000 + b"\n", "not well-formed CSV at line 2: field larger"),
        (b"x,y\n1e999,a\n2,b\n", "row 1, column 1 is infinite"),
        (b"x,y\nhunter2,a\nhunter3,a\n", "labels are all the same"),
        (b"hunter2,x\n1,2\n3,4\n", "no column 'y' to predict among the 2 columns"),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8"),
        (b",".join(b"c%d" % i for i in range(2001)) + b"\n", "more than 2,000 columns"),
    ],
)
def test_what_is_no_table_is_refused_with_the_place_but_without_the_content(tmp_path, content, message) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_source(written(tmp_path, content), "y")
    assert SECRET not in str(caught.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "MAX_BYTES", 10)
    with pytest.raises(InvalidInputError, match="is larger than"):
        load_source(written(tmp_path, "x,y\n1,2\n3,4\n"), "y")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("csv:rows.csv", "must be named by an absolute path"),
        ("csv:../rows.csv", "must be named by an absolute path"),
        ("csv:/no/such/file.csv", "cannot be read: No such file"),
        ("csv:/tmp", "is not a regular file|cannot be read: Is a directory"),
        ("csv:/dev/zero", "is not a regular file"),
        ("csv:/tmp/a\0b", "holds characters that cannot be printed"),
        ("csv:/tmp/a\nb", "holds characters that cannot be printed"),
    ],
)
def test_what_is_no_file_is_refused(name, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_source(name, "y")


@pytest.mark.timeout(20)
def test_a_named_pipe_does_not_make_us_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInputError, match="is not a regular file"):
        load_source(f"csv:{tmp_path / 'pipe'}", "y")


@pytest.mark.parametrize("place", ["header", "row"])
def test_ten_million_columns_are_refused_before_they_are_taken_apart(place, tmp_path, monkeypatch) -> None:
    wide = b"a," * 10_000_000 + b"a\n"
    made = []
    real = csv.reader

    def counting(lines, **options):
        return real((made.append(len(line)) or line for line in lines), **options)

    monkeypatch.setattr(csv, "reader", counting)
    spec = written(tmp_path, wide + b"1,2\n" if place == "header" else b"x,y\n1,2\n" + wide)
    with pytest.raises(InvalidInputError, match=f"has more than 2,000 columns at line {1 if place == 'header' else 3}"):
        load_source(spec, "y")
    assert max(made, default=0) < 10


@pytest.mark.parametrize("columns", [1999, 2000])
def test_as_many_columns_as_allowed_are_read_quoted_or_not(columns: int, tmp_path) -> None:
    names = [f'"c,{i}"' for i in range(columns - 1)]
    rows = ["\n".join([",".join([*(f'"{i}"' for _ in names), "ab"[i % 2]])]) for i in range(4)]
    notes = 'a ""quoted"", \n, comma' * 3
    header = ",".join([*names, "y"])
    table = load_source(written(tmp_path, "\n".join([header, *rows])), "y")
    assert table.inputs.shape == (4, columns - 1)
    text = f'x,note,y\n1,"{notes}{"," * 3000}\n{"," * 3000}",a\n2,b,b\n'  # commas in a cell are no columns
    assert load_source(written(tmp_path, text), "y").labels.tolist() == [0, 1]


@given(content=st.binary(max_size=300) | st.text(alphabet='xy,"\n\r1.a ', max_size=120).map(str.encode))
@settings(deadline=None, max_examples=examples(300))
def test_no_content_raises_anything_else(tmp_path_factory, content: bytes) -> None:
    spec = written(tmp_path_factory.mktemp("any"), b"x,y\n" + content)
    try:
        table = load_source(spec, "y")
    except InvalidInputError:
        return
    assert table.inputs.shape == (len(table.labels), len(table.feature_names))


def test_a_huge_cell_is_refused_whatever_limit_this_process_has_set_for_csv(tmp_path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"x,y\n1," + b"a" * 200_000 + b"\n3,4\n")
    before = csv.field_size_limit(10**7)
    try:
        with pytest.raises(InvalidInputError, match="not well-formed CSV at line 2: field larger than 131,072"):
            read_csv(path)
    finally:
        csv.field_size_limit(before)
