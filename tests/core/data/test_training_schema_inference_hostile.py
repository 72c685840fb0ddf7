"""Hostile data: refused as the sources refuse them, or kept inside the comments of a program."""

from __future__ import annotations

import csv
import os
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from inference_data import FLOWERS, arrays, picture, row_of, written

from easeml_core.data.inference.infer import infer_program
from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.programs.schema import MAX_LENGTH, Schema

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOSTILE = [
    "a\nb",
    "} # x",
    "nodes:",
    "input:",
    "\x1b[2J",
    "\u2028x",
    "'",
    '"',
    "é",
    "no",
    "1st",
    "A B",
    "a b",
    "*&!",
    "日本",
]


def test_hostile_names_and_words_stay_in_their_comments(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*HOSTILE, "x" * 5000, "kind"])
        writer.writerows([[*HOSTILE[n:], *HOSTILE[:n], "x" * 5000, HOSTILE[n]] for n in range(len(HOSTILE))])
    found = infer_program(path)
    assert all(note.isprintable() and len(note) < 3000 for note in found.notes)
    assert row_of(found) == "5a"
    assert isinstance(found.program.input, Schema)  # all columns have the same words
    assert len(found.classes) == len(HOSTILE)


@pytest.mark.parametrize("word", [0, 1])
def test_the_text_of_the_widest_table_reads_back(tmp_path: Path, word: int) -> None:
    path = tmp_path / "data.csv"
    columns = 2000
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([f"{'é' * 200} {n}" for n in range(columns)])
        writer.writerows(
            [f"{'w' * 500 if word else ''}{n}{n % 2}" for n in range(row, columns + row)] for row in (0, 1)
        )
    found = infer_program(path, task="classification")
    assert len(found.text) < MAX_LENGTH
    assert row_of(found) == "5a"


INPUTS, TARGETS = np.ones((4, 2)), np.array([0, 1, 0, 1])


def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "data.csv")
    return tmp_path / "data.csv"


def shortened(tmp_path: Path) -> Path:
    path = arrays(tmp_path / "arrays", INPUTS, TARGETS)
    (path / "inputs.npy").write_bytes((path / "inputs.npy").read_bytes()[:-1])
    return path


def huge(tmp_path: Path) -> Path:
    path = arrays(tmp_path / "arrays", INPUTS, TARGETS)
    with (path / "inputs.npy").open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
        np.lib.format.write_array_header_1_0(file, header)
    return path


def linked(tmp_path: Path) -> Path:
    path = arrays(tmp_path / "arrays", INPUTS, TARGETS)
    (path / "inputs.npy").rename(tmp_path / "elsewhere.npy")
    (path / "inputs.npy").symlink_to(tmp_path / "elsewhere.npy")
    return path


def lone(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", INPUTS)
    return tmp_path / "x.npy"


def one_kind(tmp_path: Path) -> Path:
    picture(tmp_path / "pets" / "cat" / "a.png", (4, 4))
    return tmp_path / "pets"


def bomb(tmp_path: Path) -> Path:
    """An image whose header claims 10,000 million pixels."""
    path = one_kind(tmp_path)
    (path / "dog").mkdir()
    body = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    (path / "dog" / "b.png").write_bytes(start + (path / "cat" / "a.png").read_bytes()[33:])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pipe, "is not a regular file"),
        (lambda t: arrays(t / "a", INPUTS.astype(object), TARGETS), "holds object; allowed: numbers"),
        (lambda t: arrays(t / "a", INPUTS, TARGETS.astype(object)), "holds object; allowed: numbers or text"),
        (shortened, "its header and its length do not fit together"),
        (lambda t: arrays(t / "a", INPUTS, TARGETS[:3]), "has 4 inputs and 3 targets"),
        (lambda t: arrays(t / "a", INPUTS, np.array([0.5, np.nan, 1, 2])), "has no target in some row"),
        (huge, "has 1,000,000,000,000 values"),
        (linked, "cannot be read"),
        (lone, "is one array; allowed: "),
        (one_kind, "has one sub-folder"),
        (bomb, "claims too many pixels"),
    ],
)
def test_hostile_files_and_folders_are_refused_as_by_the_sources(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        infer_program(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a first line of column names"),
        ("x\n1\n2\n", "it has 1 column; a target and at least one more"),
        ("id,step,y\n1,1,1\n1,2,1\n", "it has 1 column beside id and step"),
        ("x,y\n1,2\n", "has 1 row; at least 2"),
        ("x,y\n1,2\n1\n", "line 3 has 1 cells, the header has 2"),
        ("x,y\n1,a\n2,a\n", "target 'y' has the same value in all rows"),
        ("x,y\n1,\n2,\n", "target 'y' has no value in all rows"),
        ("x,z,y\n,1,a\nNaN,2,b\n", "column 1, 'x', has no value in any row that has a target"),
        ("x,y\n1e999,a\n2,b\n", "column 1, 'x', holds a number that is infinite or beyond 3.4e38"),
        ("x,y\n1,1e39\n2,2.5\n", "target 'y' holds a number that is infinite"),
        ("x,y\n" + "".join(f"{n},w{n}\n" for n in range(51)), "51 different values, at most 50 classes"),
        (",".join(f"c{n}" for n in range(2001)) + "\n", "more than 2,000 columns"),
        ("," * 10_000_000, "more than 2,000 columns"),
        ("x,y\n1,\0\n", "zero byte"),
        ('x,y\n1,"' + "z" * 131_073 + '"\n2,a\n', "field larger than"),
        ("id,step,x,kind\na,1,1,u\na,1,2,u\n", "repeats a step of its series"),
        ("id,step,x,kind\na,1,1,u\n,2,2,v\n", "column 'id' is empty in row 2"),
        ("id,step,x,kind\na,one,1,u\nb,2,2,v\n", "step column 'step' has words"),
        ("id,step,x,kind\na,1,one,u\nb,2,2,v\n", "column 3 holds words"),
        ("id,step,x,kind\na,1,1,u\na,2,2,v\n", "another target than its series before"),
    ],
)
def test_hostile_tables_are_refused_as_by_the_sources(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        infer_program(written(tmp_path, text))


def test_what_was_asked_for_is_checked(tmp_path: Path) -> None:
    path = written(tmp_path, FLOWERS)
    for target, task, message in (
        ("nowhere", None, "there is no column 'nowhere'"),
        ("kind>3", None, "is a column of words"),
        ("kind", "regression", "is a column of words"),
        ("size>2", "regression", "regression needs a column of numbers"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            infer_program(path, target=target, task=task)
    with pytest.raises(ConfigError, match="task must be"):
        infer_program(path, task="guess")
    folder = arrays(tmp_path / "arrays", np.ones((4, 2)), np.array([0, 1, 0, 1]))
    with pytest.raises(InvalidInputError, match="brings its own target"):
        infer_program(folder, target="x")
    pets = one_kind(tmp_path)
    with pytest.raises(InvalidInputError, match="brings classes to predict"):
        infer_program(pets, task="regression")
    for name, message in (("a.zip", "of no known kind"), ("a\nb.csv", "cannot be printed"), ("a?rows=5", "question")):
        with pytest.raises(InvalidInputError, match=message):
            infer_program(written(tmp_path, FLOWERS, name))
    with pytest.raises(InvalidInputError, match="cannot be read: No such file"):
        infer_program(tmp_path / "missing.csv")
