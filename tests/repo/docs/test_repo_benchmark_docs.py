"""docs/benchmarks.md shows what the files of results say, and those are whole."""

from __future__ import annotations

import csv
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from doc_pages import Page, parse
from figures import benchmarks as catalogue

if TYPE_CHECKING:
    from pathlib import Path

_PAGE = Page("benchmarks.md")


def test_figures_of_the_script_and_of_the_page_are_the_same() -> None:
    assert sorted(_PAGE.blocks) == sorted(catalogue.FIGURES)


@pytest.mark.parametrize(
    ("name", "maker"),
    [("binary-matrix", "matrix"), ("rungs", "rungs")],
)
def test_tables_of_results_are_those_of_the_files(name: str, maker: str) -> None:
    assert _PAGE.blocks[name].strip() == getattr(catalogue, maker)()


def test_every_policy_has_a_row() -> None:
    cells = {line.split("|")[1].strip() for line in _PAGE.blocks["binary-policies"].splitlines() if "|" in line}
    assert {f"`{policy}`" for policy in catalogue.POLICIES} <= cells


def test_the_matrix_is_whole_and_can_be_replayed(tmp_path: Path) -> None:
    from easeml_core.selection.simulate.tables import read_table

    catalogue.prepare(tmp_path)
    found = read_table(tmp_path / "binary.csv", tmp_path / "binary-cost.csv")
    assert len(found.tenants) >= 17
    assert found.candidates == tuple(catalogue.SHORT)
    assert found.quality.min() >= 0  # no cell is empty
    assert (found.quality.max(axis=1) - found.quality.min(axis=1)).min() > 0.01  # candidates differ on every table
    assert len(set(found.quality.argmax(axis=1))) >= 4  # and no candidate is the best one everywhere


def test_a_gap_in_the_matrix_is_a_gap_in_both_tables(tmp_path: Path, monkeypatch: Any) -> None:
    rows = [("x", "a", ".5"), ("x", "b", ".6"), ("y", "b", ".7")]
    lines = [dict(zip(("table", "candidate", "quality"), row, strict=True)) | {catalogue.COST: "2"} for row in rows]
    monkeypatch.setattr(catalogue, "rows_of", lambda _: lines)
    catalogue.prepare(tmp_path)
    read = [list(csv.reader((tmp_path / name).open())) for name in ("binary.csv", "binary-cost.csv")]
    assert read[0] == [["table", "a", "b"], ["x", ".5", ".6"], ["y", "", ".7"]]
    assert read[1] == [["table", "a", "b"], ["x", "2", "2"], ["y", "", "2"]]


@pytest.mark.parametrize("command", sorted(set(_PAGE.commands)))
def test_every_command_of_the_page_parses(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for word in shlex.split(command):
        if word.endswith(".csv"):
            (tmp_path / word).touch()
    assert parse(command)["policies"]
