"""Inference: answers by the model in production, the best or a named one, and every input that it cannot take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from registering import register_study

from easeml_core.data.rows import row_files
from easeml_core.data.sources import csv_files
from easeml_core.data.sources.load import load_source
from easeml_core.errors import InvalidInputError, NotFoundError, ShapeError, StateError, TrainingError
from easeml_core.formats.encoding import row_of, to_json
from easeml_core.models.formats import load_predictor
from easeml_core.services.models import inference
from easeml_core.services.models.inference import infer, infer_into, public_answers, write_answers

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("malignant", "benign")


@pytest.fixture
def producing(lab: Any) -> Any:
    """The study ``full`` has a model in production."""
    assert lab.promote(lab.gate("good").request_id).promoted
    return lab


def test_the_model_in_production_answers_with_class_names(producing: Any) -> None:
    rows = producing.open_parts().validation_inputs[:20]
    missing = [[None] * 30, [float("nan")] * 30]
    answer = infer(producing.worker, producing.artifacts, study="full", inputs=[*rows.tolist(), *missing])
    artifact = producing.one("SELECT artifact FROM work.models WHERE id = 2")
    labels = load_predictor(producing.artifacts.path(artifact), "skops").predict(
        np.vstack([rows, np.full((2, 30), np.nan)])
    )
    latency = answer.latency
    assert (
        row_of(answer).items()
        >= {
            "study": "full",
            "model_id": 2,
            "model": "production",
            "candidate": "good",
            "data_version": 1,
            "labels": [CLASSES[i] for i in labels],
            "columns": {},
        }.items()
    )
    assert len(set(answer.labels)) == 2
    assert latency.total_ms >= latency.ms_per_row > 0


def test_the_best_and_a_named_model_answer_too(lab: Any) -> None:
    row = lab.open_parts().validation_inputs[:1].tolist()
    asked = {"study": "full", "inputs": row}
    best = infer(lab.worker, lab.artifacts, model="best", **asked)
    assert (best.model, best.model_id, best.candidate) == ("best", lab.models["full"]["good"], "good")
    rare = infer(lab.worker, lab.artifacts, model=str(lab.models["full"]["rare"]), **asked)
    assert (rare.model, rare.candidate, rare.labels) == ("named", "rare", ["malignant"])
    with pytest.raises(NotFoundError, match="with id 6"):
        infer(lab.worker, lab.artifacts, model=6, **asked)
    for wrong in ("worst", True, "-1", None):
        with pytest.raises(InvalidInputError, match="'production', 'best' or"):
            infer(lab.worker, lab.artifacts, model=wrong, **asked)


@pytest.mark.journey
def test_probabilities_are_those_of_the_model(lab: Any) -> None:
    rows = lab.open_parts().validation_inputs[:3]
    shown = infer(lab.worker, lab.artifacts, study="full", inputs=rows.tolist(), model="best", probabilities=True)
    path = lab.artifacts.path(lab.one("SELECT artifact FROM work.models WHERE id = :id", id=shown.model_id))
    expected = load_predictor(path, "skops").probabilities(rows, classes=2)
    assert [list(entry) for entry in shown.probabilities] == [list(CLASSES)] * 3
    found = [[entry[name] for name in CLASSES] for entry in shown.probabilities]
    assert np.allclose(found, expected, atol=1e-12)
    with pytest.raises(TrainingError, match="gives no probabilities"):
        infer(
            lab.worker,
            lab.artifacts,
            study="full",
            inputs=rows.tolist(),
            model=lab.models["full"]["rare"],
            probabilities=True,
        )


def test_a_file_is_asked_about_and_its_other_columns_are_kept(lab: Any, tmp_path: Path) -> None:
    names, rows = load_source("sklearn:breast_cancer").feature_names, lab.open_parts().validation_inputs[:12]
    table = tmp_path / "rows.csv"
    lines = [",".join(["patient", *reversed(names)])]
    lines += [",".join([f"p{i}", *map(str, row[::-1])]) for i, row in enumerate(rows)]
    table.write_text("\n".join(lines))
    shown = infer(lab.worker, lab.artifacts, study="full", model="best", path=table)
    path = lab.artifacts.path(lab.one("SELECT artifact FROM work.models WHERE id = :id", id=shown.model_id))
    assert shown.labels == [CLASSES[i] for i in load_predictor(path, "skops").predict(rows)]
    assert shown.columns["patient"] == [f"p{i}" for i in range(12)]
    odd = replace(shown, columns={"note": ["\ud800"]})  # JSON may hold it, and UTF-8 cannot
    answers = to_json(public_answers(odd))
    assert answers["labels"] == shown.labels
    assert not answers.keys() & {"columns", "probabilities"}
    with pytest.raises(InvalidInputError, match="give inputs"):
        infer(lab.worker, lab.artifacts, study="full", model="best")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_of_any_size_is_answered_in_blocks(ending: str, lab: Any, tmp_path: Path, monkeypatch: Any) -> None:
    names, rows = load_source("sklearn:breast_cancer").feature_names, lab.open_parts().validation_inputs[:12]
    table, keys = tmp_path / f"rows.{ending}", [f"p{i}" for i in range(12)]
    if ending == "csv":
        lines = [",".join([key, *map(str, row)]) for key, row in zip(keys, rows, strict=True)]
        table.write_text("\n".join([",".join(["patient", *names]), *lines]))
    else:
        parquet, columns = pytest.importorskip("pyarrow.parquet"), dict(zip(names, rows.T, strict=True))
        parquet.write_table(pytest.importorskip("pyarrow").table({"patient": keys, **columns}), table, row_group_size=7)
    asked = {"study": "full", "model": "best", "path": table}
    write_answers(tmp_path / "whole.csv", infer(lab.worker, lab.artifacts, **asked))
    blocks, predict = [], inference.predict_in_child
    monkeypatch.setattr(inference, "predict_in_child", lambda *a, **k: blocks.append(len(a[2])) or predict(*a, **k))
    monkeypatch.setattr(row_files, "_BLOCK_CELLS", 5 * 31)
    monkeypatch.setattr(csv_files, "MAX_BYTES", 2000)
    told = infer_into(lab.worker, lab.artifacts, **asked, answers=tmp_path / "blocks.csv")
    assert table.stat().st_size > 2000
    assert (tmp_path / "blocks.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert max(blocks) == 5
    assert (sum(blocks), told.rows, told.answers) == (12, 12, str(tmp_path / "blocks.csv"))
    assert told.model_id == lab.models["full"]["good"]
    assert "labels" not in to_json(told)


def test_where_a_row_cannot_be_answered_no_answers_are_left(lab: Any, tmp_path: Path, monkeypatch: Any) -> None:
    names, table = load_source("sklearn:breast_cancer").feature_names, tmp_path / "rows.csv"
    table.write_text("\n".join([",".join(names), *[",".join("1" * 30)] * 4, ",".join("x" * 30)]))
    monkeypatch.setattr(row_files, "_BLOCK_CELLS", 2 * 30)
    monkeypatch.setattr(inference, "predict_in_child", lambda _, __, rows, **___: np.zeros(len(rows), np.int64))
    asked = {"study": "full", "model": "best", "path": table, "answers": tmp_path / "answers.csv"}
    with pytest.raises(InvalidInputError, match=r"line 6 .*'mean radius'"):
        infer_into(lab.worker, lab.artifacts, **asked)
    assert [path.name for path in tmp_path.glob("*answers*")] == []


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ([[0.0] * 29], ShapeError, r"inputs must have shape \(n >= 1, 30\), got \(1, 29\)"),
        ([0.0] * 30, ShapeError, r"inputs must have shape \(n >= 1, 30\), got \(30,\)"),
        ([], InvalidInputError, "at least one row"),
        ([[0.0] * 30, [0.0]], InvalidInputError, "the same length"),
        ([["a"] * 30], InvalidInputError, "the same length"),
        ([[float("-inf")] * 30], InvalidInputError, r"at most 3\.4e38 in size .* None or NaN is missing"),
        ([[1e300] * 30], InvalidInputError, r"at most 3\.4e38 in size .* None or NaN is missing"),
    ],
)
def test_what_is_no_table_of_the_right_width_is_refused(inputs: Any, error: Any, words: str, producing: Any) -> None:
    with pytest.raises(error, match=words):
        infer(producing.worker, producing.artifacts, study="full", inputs=inputs)


def test_without_a_model_in_production_there_is_no_answer(lab: Any, bare: Any) -> None:
    with pytest.raises(StateError, match=r"'first' .*promote one"):
        infer(lab.worker, lab.artifacts, study="first", inputs=np.zeros((1, 30)).tolist())
    with pytest.raises(NotFoundError, match="study 'fool'"):
        infer(lab.worker, lab.artifacts, study="fool", inputs=[[0.0]])
    register_study(bare.worker, tenant="lab", study="iris", source="sklearn:iris", request_key="k")
    with pytest.raises(NotFoundError, match="split and sealed"):
        infer(bare.worker, bare.artifacts, study="iris", inputs=[[0.0] * 4])
