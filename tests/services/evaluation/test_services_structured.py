"""Answers of several numbers: images from images, series from series, anything from itself; trained, gated, metered."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
from desk import Desk
from property_sizes import at_night

from easeml_core.data.layout import Layout
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError
from easeml_core.models.formats import load_constant, save_constant
from easeml_core.services.datasets.feed import feed, file_refresh
from easeml_core.services.datasets.validation_sets import replace_validation
from easeml_core.services.models.inference import infer
from easeml_core.services.models.submission import submit_model
from easeml_core.services.test_sets.upload import seal_test_set
from easeml_core.store.tables import sealed, studies


def images(folder: Any, rows: int = 640) -> None:
    """Bright rectangles in noise, and without it; 8 x 8 pixels."""
    rng = np.random.default_rng(0)
    clean = np.zeros((rows, 8, 8, 1), np.float32)
    for image in clean:
        top, left = rng.integers(0, 5, 2)
        image[top : top + 4, left : left + 4] = 1
    noisy = clean + rng.normal(0, 0.3, clean.shape).astype(np.float32)
    keep(folder / "images", noisy, clean)


def series(folder: Any, rows: int = 640) -> None:
    """A sine of some phase, of 8 to 12 steps; and how it goes on, upside down, of which the end is not always known."""
    rng = np.random.default_rng(1)
    phase, length = rng.uniform(0, 6, rows), rng.integers(8, 13, rows)
    read = np.sin(0.7 * np.arange(12) + phase[:, None]).astype(np.float32)
    read[np.arange(12) >= length[:, None]] = np.nan
    write = -np.sin(0.7 * np.arange(6) + phase[:, None]).astype(np.float32)
    write[: rows // 5, 4:] = np.nan
    keep(folder / "series", read[:, :, None], write[:, :, None])


def rows(folder: Any, rows: int = 640) -> None:
    """Eight columns that are two numbers, each four times, in separate units."""
    shown = np.random.default_rng(2).normal(size=(rows, 2)).repeat(4, axis=1) * [1, 1, 2, 2, 1, 1, 2, 2] + 5
    keep(folder / "rows", shown.astype(np.float32))


def trees(folder: Any, rows: int = 700) -> None:
    """Trees of four leaves with a number; the class is whether the sum below the root's left child is the greater."""
    rng = np.random.default_rng(3)
    table = np.zeros((rows, 7, 3), np.float32)
    table[:, :4, 0] = rng.normal(size=(rows, 4))
    table[:, :4, 1:] = -1
    table[:, 4, 1:], table[:, 5, 1:], table[:, 6, 1:] = (0, 1), (2, 3), (4, 5)
    turned = rng.random(rows) < 0.5
    table[turned, 6, 1:] = (5, 4)
    left, right = table[:, :2, 0].sum(axis=1), table[:, 2:4, 0].sum(axis=1)
    keep(folder / "trees", table, np.where(turned, right > left, left > right).astype(np.int64))


def keep(folder: Any, inputs: Any, targets: Any = None) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "inputs.npy", inputs)
    if targets is not None:
        np.save(folder / "targets.npy", targets)


@pytest.fixture
def desk(bare: Any, tmp_path: Any) -> Desk:
    return Desk(bare, tmp_path / "data", "s")


def candidate(kind: str, **parameters: Any) -> list[dict[str, Any]]:
    return [{"name": kind, "kind": kind, "parameters": parameters}]


STUDIES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "images": (
        images,
        {
            "source": "npy:images",
            "hit": "within:0.2",
            "program": "{input: {[Tensor[8,8,1]], []}, output: {[Tensor[8,8,1]], []}}",
            "candidates": candidate("u_net", epochs=8, learning_rate=0.01),
        },
        "{input: {[Tensor[8,8,1]], []}, output: {[Tensor[8,8,1]], []}}",
    ),
    "series": (
        series,
        {
            "source": "npy:series",
            "hit": "within:0.4",
            "metric": "rmse",
            "candidates": candidate("seq2seq", epochs=15, hidden_width=24, learning_rate=0.01),
        },
        "{input: {[Tensor[1]], [next]}, output: {[Tensor[1]], [next]}}",
    ),
    "rows": (
        rows,
        {
            "source": "npy:rows?target=inputs",
            "hit": "within:0.4",
            "metric": "r2",
            "candidates": candidate("bit_auto_encoder", epochs=10, learning_rate=0.01),
        },
        "{input: {[Tensor[8]], []}, output: {[Tensor[8]], []}}",
    ),
}


@pytest.mark.journey
@pytest.mark.parametrize("what", ["images", at_night("series"), at_night("rows")])
def test_such_answers_are_trained_gated_metered_and_promoted(what: str, desk: Desk) -> None:
    write, given, program = STUDIES[what]
    write(desk.data / "lab")
    answer = desk.register(**given)
    assert answer.message.startswith("study s is active"), answer
    assert desk.program() == program
    report = desk.train(given["candidates"][0]["name"])
    assert report.state == "SUCCEEDED", report
    assert report.quality > 0.7
    losses = dict(desk.lab.rows("SELECT coalesce(trial_id, 0), validation_loss FROM work.models"))
    assert losses[0] > 0.8  # the same answer for every row is right for few
    gate = desk.gate(report.model_id)
    assert gate.symbol == "pass"
    assert not desk.promote(report.model_id, gate).refused
    assert desk.meter(report.model_id).signal >= 1
    errors = desk.lab.one("SELECT report ->> 'errors' FROM sealed.ledger WHERE system = 'meter'")
    examples = desk.lab.one("SELECT rows FROM work.test_sets WHERE purpose = 'meter'")
    assert int(errors) < 0.4 * examples


def test_sealed_labels_baseline_and_answers_are_of_one_shape(desk: Desk) -> None:
    series(desk.data / "lab")
    given = {"source": "npy:series", "hit": "within:0.4", "task": "regression"}
    answer = desk.register(**given)
    assert not answer.refused, answer
    assert desk.candidates() == ["seq2seq", "bit_auto_encoder"]
    parts = desk.lab.open_parts("s")
    assert (parts.task, parts.target_layout, parts.classes) == (Task.REGRESSION, Layout("series", (6, 1)), 0)
    with desk.lab.referee.begin() as tx:
        labels = [sealed.sealed_labels(tx, set_id) for (set_id,) in desk.lab.rows("SELECT id FROM sealed.test_sets")]
        version = studies.latest_data_version(tx, 1)
    assert [(found.dtype, found.shape[1:]) for found in labels] == [(np.float32, (6,))] * 2
    assert version.layout == {"kind": "series", "shape": [12, 1], "target": {"kind": "series", "shape": [6, 1]}}
    ((artifact,),) = desk.lab.rows("SELECT artifact FROM work.models")
    with desk.lab.artifacts.copy(artifact) as path:
        constant = load_constant(path).predict(parts.validation_inputs)
    medians = np.nanmedian(parts.train_labels, axis=0).astype(np.float64)
    np.testing.assert_array_equal(constant, np.tile(medians, (len(constant), 1)))


def test_a_model_of_such_answers_is_handed_in_and_judged(desk: Desk, tmp_path: Any) -> None:
    rows(desk.data / "lab")
    desk.register(source="npy:rows?target=inputs", hit="within:2.5", task="regression")
    assert desk.candidates() == ["bit_auto_encoder"]
    given = {"study": "s", "format": "constant"}
    lab = desk.lab
    for name, answer in {"five": (5.0,) * 8, "one": 5.0, "few": (5.0,) * 7}.items():
        save_constant(tmp_path / name, answer)
    handed = submit_model(
        lab.worker, lab.artifacts, path=tmp_path / "five", message="always five", request_key="1", **given
    )
    targets = lab.open_parts("s").validation_labels
    right = np.sqrt(((targets - 5.0) ** 2).mean(axis=1)) <= 2.5
    assert handed.validation_quality == pytest.approx(right.mean())
    assert 0.5 < right.mean() < 1
    for name in ("one", "few"):
        with pytest.raises(InvalidInputError, match="must answer with 96 rows of 8 numbers each; it gave float64"):
            submit_model(lab.worker, lab.artifacts, path=tmp_path / name, message="x", request_key=name, **given)
    assert desk.gate(handed.model_id).symbol == "fail"  # no better than the median of each column
    shown = infer(lab.worker, lab.artifacts, study="s", inputs=[[1.0] * 8], model=handed.model_id)
    assert shown.labels == [[5.0] * 8]


def test_a_row_to_itself_is_what_row_seven_is_for(desk: Desk) -> None:
    rows(desk.data / "lab")
    given = {"source": "npy:rows?target=inputs", "hit": "within:0.5"}
    desk.register(**given, program="{input: {[Tensor[8]], []}, output: {[Tensor[8]], []}}")
    assert desk.candidates() == ["bit_auto_encoder"]


REFUSED = {
    "a task of classes": ({}, "has targets of shape .*; they must be numbers, and the task regression"),
    "other images": (
        {"hit": "within:1", "program": "{input: {[Tensor[8,8,1]], []}, output: {[Tensor[4,4,1]], []}}"},
        "differ in the shape of an answer: 4 x 4 x 1 in the program, 8 x 8 x 1 in the data",
    ),
    "one number": (
        {"program": "{input: {[Tensor[8,8,1]], []}, output: {[Tensor[1]], []}}", "hit": "within:1"},
        "differ in answers: one class or number in the program, image in the data",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_data_that_are_not_what_was_said_are_refused(what: str, desk: Desk) -> None:
    images(desk.data / "lab", 60)
    given, why = REFUSED[what]
    answer = desk.register(source="npy:images", **given)
    assert answer.refused
    assert re.search(why, answer.message), answer.message


def test_labels_in_a_table_are_refused_where_an_answer_is_several_numbers(desk: Desk, tmp_path: Any) -> None:
    rows(desk.data / "lab")
    desk.register(source="npy:rows?target=inputs", hit="within:0.5", task="regression")
    lab, labels = desk.lab, tmp_path / "x.csv"
    labels.write_text("example,label\n1,2\n")
    np.save(tmp_path / "x.npy", np.ones((1, 8)))
    given: dict[str, Any] = {"study": "s", "inputs": tmp_path / "x.npy", "labels": labels}
    for bring in (replace_validation, seal_test_set):
        with pytest.raises(InvalidInputError, match=r"is 8 numbers \(table\), .*; bring a folder of inputs.npy"):
            bring(lab.referee, lab.artifacts, **given)


@pytest.mark.journey
def test_a_tree_is_trained_gated_and_promoted(desk: Desk) -> None:
    trees(desk.data / "lab")
    answer = desk.register(
        source="npy:trees?layout=tree", program="{input: {[Tensor[1]], [left, right]}, output: {[Category[2]], []}}"
    )
    assert not answer.refused, answer
    assert desk.candidates() == ["tree_rnn"]
    report = desk.train("tree_rnn")
    assert report.quality > 0.85, report
    gate = desk.gate(report.model_id)
    assert gate.symbol == "pass"
    assert not desk.promote(report.model_id, gate).refused


def test_pairs_with_answers_of_several_numbers_are_fed(desk: Desk) -> None:
    """From a folder and one by one; what is unknown stays so, and what does not fit is refused with the shape."""
    series(desk.data / "lab")
    desk.register(**STUDIES["series"][1])
    before = desk.lab.open_parts("s")
    rng = np.random.default_rng(9)
    inputs, targets = rng.normal(size=(3, 12, 1)).astype(np.float32), rng.normal(size=(3, 6, 1)).astype(np.float32)
    targets[1, 4:] = np.nan
    keep(desk.data / "new", inputs, targets)
    given = {"study": "s", "fed_by": "ann"}
    bring = partial(feed, desk.lab.worker, desk.lab.artifacts, **given)
    assert bring(path=desk.data / "new", request_key="folder").rows == 3
    pair = {"inputs": [0.5] * 12, "label": [1, 2, 3, 4, None, None]}
    assert bring(pairs=[pair], request_key="pair").rows == 1
    answer = desk.answer(file_refresh(desk.lab.worker, study="s", request_key="refresh").request_id)
    assert (answer.refused, answer.train_rows) == (False, len(before.train_labels) + 4)
    after = desk.lab.open_parts("s")
    wanted = np.concatenate([targets.reshape(3, 6), np.array([[1, 2, 3, 4, np.nan, np.nan]], np.float32)])
    np.testing.assert_array_equal(after.train_labels[-4:], wanted)
    np.testing.assert_array_equal(after.train_inputs[-4:-1], inputs.reshape(3, 12))
    for label, words in (([1, 2], r"pairs: must be labels of 6 numbers each .* got shape \(1, 2\)"), (7, "got shape")):
        with pytest.raises(InvalidInputError, match=words):
            bring(pairs=[pair | {"label": label}], request_key="wrong")
    with pytest.raises(InvalidInputError, match="at least one that is known in every row"):
        bring(pairs=[pair | {"label": [None] * 6}], request_key="unknown")
    columns = ",".join(f"input_{n}" for n in range(12))
    (desk.data / "new.csv").write_text(f"{columns},label\n{','.join('1' * 12)},5\n")
    with pytest.raises(InvalidInputError, match=r"bring a folder of inputs\.npy and targets\.npy, or pairs"):
        bring(path=desk.data / "new.csv", request_key="csv")
