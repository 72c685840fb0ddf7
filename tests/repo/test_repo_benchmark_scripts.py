"""The scripts behind docs/benchmarks.md: what is measured is kept, clocks are kept to, sources bring rows unchanged."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Import a script by name; those that nothing else has imported are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in {path.stem for path in FOLDER.glob("*.py")} - before:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["binary_tables"])
def test_scripts_say_how_they_are_used(script: Any, name: str) -> None:
    said = CliRunner().invoke(script(name).main, ["--help"])
    assert said.exit_code == 0
    assert "--json" in said.output


def test_published_cells_are_those_of_the_script(script: Any) -> None:
    binary = script("binary_tables")
    cells = binary.read_cells(binary.RESULTS)
    wanted = [(table.name, kind) for table in binary.TABLES for kind in binary.CANDIDATES]
    assert [(cell.table, cell.candidate) for cell in cells] == wanted


def test_a_matrix_is_filled_once(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = script("binary_tables")
    monkeypatch.setattr(binary, "CANDIDATES", {"gaussian_naive_bayes": {}, "decision_tree": {}})
    tables, path = binary.TABLES[:1], tmp_path / "cells.csv"
    kept = binary.Cell("breast_cancer", "decision_tree", 0.5, 1.0, 1.0, 569, 30)
    binary.write_cells(path, [kept])
    assert binary.fill(path, tables) == []
    bayes, tree = binary.read_cells(path)
    assert tree == kept
    assert (bayes.candidate, bayes.rows, bayes.features) == ("gaussian_naive_bayes", 569, 30)
    assert 0.85 < bayes.quality < 1
    assert min(bayes.cost_seconds, bayes.cpu_seconds) > 0
    before = path.read_text()
    assert binary.fill(path, tables) == []
    assert path.read_text() == before


def test_a_cell_that_fails_is_left_out_and_said(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = script("binary_tables")
    monkeypatch.setattr(binary, "CANDIDATES", {"no_such_kind": {}})
    path = tmp_path / "cells.csv"
    (failed,) = binary.fill(path, binary.TABLES[:1])
    assert failed.startswith("breast_cancer, no_such_kind: ")
    assert binary.read_cells(path) == []


def test_a_race_counts_improvements_until_its_time_is_over(script: Any) -> None:
    race = script("five_data").Race(1000.0)
    assert race.top == -math.inf
    for score in (0.5, 0.4, 0.9):
        race.note(score, lambda rows, answer=score: answer)
    assert race.tried == 3
    assert [score for _, score in race.climb] == [0.5, 0.9]
    assert race.best(None) == 0.9
    assert race.seconds_to(0.5) == race.climb[0][0] <= race.seconds_to(0.6)
    assert race.seconds_to(0.95) is None
    race.seconds = 0.0
    race.note(1.0, lambda rows: 1)
    assert (race.tried, race.top) == (3, 0.9)


@pytest.mark.parametrize(("load", "scheme"), [("digits", "images"), ("waves", "npy")])
def test_a_source_brings_back_the_rows_that_were_written(script: Any, tmp_path: Path, load: str, scheme: str) -> None:
    from easeml_core.data.sources.load import load_source

    data = script("five_data")
    raw = load_source("sklearn:digits?rows=80") if load == "digits" else data.waves(rows=80, steps=16)
    given, test = data.cut(raw)
    assert (len(given.labels), len(test.labels)) == (60, 20)
    spec = data.write_source(tmp_path / "source", given, raw.layout)
    assert spec == f"{scheme}:source"
    found = load_source(f"{scheme}:{tmp_path / 'source'}")
    assert found.layout == raw.layout

    def sorted_rows(inputs: Any, labels: Any) -> Any:
        rows = np.column_stack([np.rint(inputs * 255) if scheme == "images" else inputs, labels])
        return rows[np.lexsort(rows.T)]

    np.testing.assert_array_equal(sorted_rows(found.inputs, found.labels), sorted_rows(given.inputs, given.labels))


def test_waves_are_of_four_forms_of_one_strength(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = script("five_data")
    monkeypatch.setattr(data, "NOISE", 0.0)
    found = data.waves(rows=2000, steps=240)
    assert sorted(np.unique(found.labels)) == [0, 1, 2, 3]
    for label in range(4):
        assert found.inputs[found.labels == label].std() == pytest.approx(1, abs=0.02)


def test_a_function_of_ones_own_is_one_that_the_product_keeps(script: Any, tmp_path: Path) -> None:
    from sklearn.pipeline import make_pipeline

    from easeml_core.models.skops_format import PipelinePredictor, load_pipeline

    data = script("five_data")
    raw = data.waves(rows=80, steps=8)
    from easeml_core.data.parts import OpenParts, split_parts

    parts = split_parts(raw, sizes={"validation": 20}, rng=np.random.default_rng(0))
    open_parts = OpenParts(*parts.train, *parts.validation, parts.classes, parts.layout)
    smallest = data.KINDS["function"].candidates[0]["parameters"]
    model = data.noisy_copies_and_boosting(open_parts, smallest, lambda *_, **__: None)
    PipelinePredictor(make_pipeline(model)).save(tmp_path / "model")
    assert load_pipeline(tmp_path / "model").predict(parts.validation.inputs).shape == (20,)
