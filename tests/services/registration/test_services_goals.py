"""What a study is after: numbers are predicted, gated and metered by hits; programs call for candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from desk import Desk
from registering import register_study

from easeml_core.data.inference.infer import infer_program
from easeml_core.data.inference.result import spec_of
from easeml_core.entities import Task
from easeml_core.errors import AlreadyExistsError, InvalidInputError, NotFoundError, ProgramError
from easeml_core.models.formats import load_constant, load_predictor, save_constant
from easeml_core.programs.language import parse_program
from easeml_core.programs.schema import Schema
from easeml_core.services.datasets.validation_sets import ReplacedValidation, replace_validation
from easeml_core.services.evaluation.reevaluation import remeasure
from easeml_core.services.models.submission import submit_model
from easeml_core.services.registration.register import Goal, checked_goal
from easeml_core.store.tables import sealed
from easeml_core.training.trainers import default_candidates

LINE = {"source": "csv:y.csv", "target": "y", "metric": "rmse", "hit": "within:0.1"}
TABLE = "{input: {[Tensor[2]], []}, output: {[Category[2]], []}}"


def write_line(folder: Any, rows: int = 600) -> None:
    """Numbers that a line explains but for noise of .1, with a spread of some 2.2."""
    values = np.random.default_rng(3).normal(size=(rows, 2))
    targets = 2 * values[:, 0] - values[:, 1] + np.random.default_rng(4).normal(scale=0.1, size=rows)
    (folder / "lab").mkdir(parents=True)
    for name, cells in {"y": targets, "sign": np.where(targets > 0, "up", "down")}.items():
        lines = [f"{a:.6f},{b:.6f},{cell}" for (a, b), cell in zip(values, cells, strict=True)]
        (folder / "lab" / f"{name}.csv").write_text("\n".join([f"a,b,{name}", *lines]))


@pytest.fixture
def desk(bare: Any, tmp_path: Any) -> Desk:
    write_line(tmp_path / "data")
    return Desk(bare, tmp_path / "data", "line")


@pytest.mark.journey
def test_a_study_of_numbers_is_trained_gated_metered_and_promoted(desk: Desk) -> None:
    lab = desk.lab
    ridge = {"name": "ridge", "kind": "ridge_regression"}
    answer = desk.register(**LINE, candidates=[ridge])
    assert not answer.refused, answer.message
    study = desk.study()
    assert (study.task, study.metric, study.hit) == (Task.REGRESSION, "rmse", "within:0.1")
    assert study.program == "{input: {[a :: Tensor[1], b :: Tensor[1]], []}, output: {[y :: Tensor[1]], []}}"
    report = desk.train("ridge")
    assert report.state == "SUCCEEDED"
    # rmse .1 at a spread of about 2.2: the map is 1 / (1 + (rmse / spread)^2).
    assert 0.99 < report.quality < 1
    assert (report.metric, report.score) == ("rmse", pytest.approx(0.1, abs=0.03))  # in the unit of the target
    losses = dict(lab.rows("SELECT coalesce(trial_id, 0), validation_loss FROM work.models"))
    # Of normal errors of .1, 68.3 % are within .1; the median of the targets is within .1 of few.
    assert losses[report.trial_id] == pytest.approx(0.317, abs=0.15)
    assert losses[0] > 0.9
    gate = desk.gate(report.model_id)
    assert gate.symbol == "pass"
    promoted = desk.promote(report.model_id, gate)
    assert not promoted.refused
    reading = desk.meter(report.model_id)
    assert reading.signal == 1
    errors = lab.one("SELECT report ->> 'errors' FROM sealed.ledger WHERE system = 'meter'")
    assert 0.1 < int(errors) / 60 < 0.6


def test_the_sealed_labels_and_the_baseline_are_numbers(desk: Desk) -> None:
    desk.register(**LINE)
    lab, parts = desk.lab, desk.lab.open_parts("line")
    ((artifact,),) = lab.rows("SELECT artifact FROM work.models")
    with lab.artifacts.copy(artifact) as path:
        assert load_constant(path).answer == pytest.approx(float(np.median(parts.train_labels)))
    with lab.referee.begin() as tx:
        labels = [sealed.sealed_labels(tx, set_id) for (set_id,) in lab.rows("SELECT id FROM sealed.test_sets")]
    assert [found.dtype for found in labels] == [np.float32, np.float32]
    names = [name for (name,) in lab.rows("SELECT name FROM work.candidates ORDER BY id")]
    assert names == [c["name"] for c in default_candidates(parts.layout, Task.REGRESSION)]


def test_a_model_of_numbers_is_handed_in(desk: Desk, tmp_path: Any) -> None:
    desk.register(**LINE)
    save_constant(tmp_path / "half", 0.5)
    given = {"study": "line", "format": "constant", "message": "always a half", "request_key": "hand in"}
    handed = submit_model(desk.lab.worker, desk.lab.artifacts, path=tmp_path / "half", **given)
    targets = desk.lab.open_parts("line").validation_labels
    assert handed.validation_quality == pytest.approx(float(np.mean(np.abs(targets - 0.5) <= 0.1)))


GOALS: dict[str, tuple[dict[str, Any], Goal]] = {
    "nothing said": ({}, Goal(Task.CLASSIFICATION, "accuracy", "accuracy", None)),
    "another metric": ({"metric": "auc"}, Goal(Task.CLASSIFICATION, "auc", "accuracy", None)),
    "hits alone": ({"metric": "within:.50"}, Goal(Task.REGRESSION, "within:0.5", "within:0.5", None)),
    "a task": ({"task": "regression", "hit": "within:2"}, Goal(Task.REGRESSION, "r2", "within:2.0", None)),
    "one's own metric": (
        {"metric": "shop.metrics:profit", "hit": "within:1"},
        Goal(Task.REGRESSION, "shop.metrics:profit", "within:1.0", None),
    ),
    "a program": ({"program": TABLE}, Goal(Task.CLASSIFICATION, "accuracy", "accuracy", TABLE)),
    "images from images": (
        {"program": "{input:{[Tensor[8,8,1]],[]},output:{[Tensor[4,4,3]],[]}}", "hit": "within:.1"},
        Goal(
            Task.REGRESSION,
            "r2",
            "within:0.1",
            "{input: {[Tensor[8,8,1]], []}, output: {[Tensor[4,4,3]], []}}",
        ),
    ),
    "several numbers": (
        {"program": "{input:{[Tensor[8]],[]},output:{[Tensor[8]],[]}}", "hit": "within:1"},
        Goal(Task.REGRESSION, "r2", "within:1.0", "{input: {[Tensor[8]], []}, output: {[Tensor[8]], []}}"),
    ),
    "scores": (
        {"program": "{input:{[Tensor[8,8,1]],[]},output:{[Tensor[10]],[]}}"},
        Goal(
            Task.CLASSIFICATION,
            "accuracy",
            "accuracy",
            "{input: {[Tensor[8,8,1]], []}, output: {[Tensor[10]], []}}",
        ),
    ),
}


@pytest.mark.parametrize("what", GOALS)
def test_what_follows_from_what_was_said(what: str) -> None:
    said, goal = GOALS[what]
    assert checked_goal(**said) == goal


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no tolerance": ({"metric": "rmse"}, InvalidInputError, r"give hit 'within:T'.*compared by rmse"),
    "a contradiction": (
        {"task": "classification", "metric": "r2"},
        InvalidInputError,
        "not all say the same: task classification: classification; metric r2: regression",
    ),
    "a program of classes": (
        {"program": TABLE, "hit": "within:1"},
        InvalidInputError,
        "the program: classification; hit within:1: regression",
    ),
    "a hit that is none": ({"task": "regression", "hit": "rmse"}, InvalidInputError, "the gate cannot take"),
    "no such metric": ({"metric": "precision"}, NotFoundError, "there is no metric 'precision'; known: 'accuracy'"),
    "no such task": ({"task": "ranking"}, InvalidInputError, "classification"),
    "a mistyped program": ({"program": "{input {"}, ProgramError, r"\^"),
    "images without a tolerance": (
        {"program": "{input:{[Tensor[8,8,1]],[]},output:{[Tensor[8,8,1]],[]}}"},
        InvalidInputError,
        "give hit 'within:T'.*compared by r2",
    ),
    "images as classes": (
        {"program": "{input:{[Tensor[8,8,1]],[]},output:{[Tensor[8,8,1]],[]}}", "metric": "accuracy"},
        InvalidInputError,
        "the program: regression; metric accuracy: classification",
    ),
    "an output of two fields": (
        {"program": "{input:{[Tensor[8]],[]},output:{[Tensor[8], Tensor[2]],[]}}"},
        InvalidInputError,
        "neither one class nor one number",
    ),
    "an output of matrices": (
        {"program": "{input:{[Tensor[8]],[]},output:{[Tensor[8,8]],[]}}"},
        InvalidInputError,
        r"the output has fields Tensor\[8,8\] and 0 links; data of this shape cannot be brought",
    ),
    "three links": (
        {"program": "{input:{[Tensor[8]],[a,b,c]},output:{[Tensor[2]],[]}}"},
        InvalidInputError,
        "3 links; data of this shape cannot be brought",
    ),
    "a tree to be predicted": (
        {"program": "{input:{[Tensor[8]],[left,right]},output:{[Tensor[2]],[left,right]}}"},
        InvalidInputError,
        "what is predicted is no tree",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_meant_is_refused(what: str) -> None:
    said, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        checked_goal(**said)


def test_a_program_calls_for_the_candidates_of_its_template(desk: Desk) -> None:
    source = {"source": "csv:sign.csv", "target": "sign"}
    program = "{input: {[a :: Tensor[1], b :: Tensor[1]], []}, output: {[Category[2]], []}}"
    answer = desk.register(**source, program=program)
    assert not answer.refused
    names = [name for (name,) in desk.lab.rows("SELECT name FROM work.candidates ORDER BY id")]
    assert names[:3] == ["hist_gradient_boosting", "random_forest", "extra_trees"]
    assert desk.study().program == program


def write_stays(folder: Any, rows: int = 900) -> None:
    """Patients of a hospital, of whom two columns have the same words, with a group and a time."""
    rng = np.random.default_rng(5)
    ages = rng.normal(60, 9, rows)
    words = rng.choice(["red", "green"], (rows, 2))
    lines = [
        f"{age:.4f},{a},{b},p{n % 300},{n},{'ill' if age > 60 else 'well'}"
        for n, (age, (a, b)) in enumerate(zip(ages, words, strict=True))
    ]
    (folder / "lab" / "stays.csv").write_text("\n".join(["Age (years),left,right,patient,day,state", *lines]) + "\n")


SPLITS = (None, "group:patient", "time:day", "time:day?keep=yes")


@pytest.mark.parametrize("split", SPLITS)
def test_a_study_keeps_the_program_that_is_inferred_from_its_file(split: str | None, desk: Desk) -> None:
    write_stays(desk.data)
    trees = [{"name": "tree", "kind": "decision_tree"}]
    answer = desk.register(source="csv:stays.csv", target="state", split=split, candidates=trees)
    assert not answer.refused, answer.message
    found = infer_program(desk.data / "lab" / "stays.csv", target="state", split=split)
    assert isinstance(found.program.input, Schema)  # two columns share their words
    assert desk.program() == found.report().program == str(parse_program(found.text))


def test_a_study_of_series_keeps_the_program_that_is_inferred_from_its_file(desk: Desk) -> None:
    rng = np.random.default_rng(6)
    starts = rng.normal(size=900)
    lines = [
        f"m{n},{day},{start + day},{'up' if start > 0 else 'down'}" for n, start in enumerate(starts) for day in (1, 2)
    ]
    (desk.data / "lab" / "stock.csv").write_text("\n".join(["machine,day,heat,state", *lines]) + "\n")
    trees = [{"name": "tree", "kind": "decision_tree"}]
    answer = desk.register(source="series:stock.csv?id=machine&step=day", target="state", candidates=trees)
    assert not answer.refused, answer.message
    found = infer_program(desk.data / "lab" / "stock.csv", id_column="machine", step_column="day")
    assert (found.target, spec_of(found.source)) == ("state", "series:stock.csv?id=machine&step=day")
    assert desk.program() == str(found.program)


DIFFERENT = {
    "the number of classes": "{input: {[Tensor[2]], []}, output: {[Category[3]], []}}",
    "rows": "{input: {[Tensor[2]], [next]}, output: {[Category[2]], []}}",
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_a_program_that_the_data_do_not_fit_is_refused(what: str, desk: Desk) -> None:
    answer = desk.register(source="csv:sign.csv", target="sign", program=DIFFERENT[what])
    assert answer.refused
    assert f" differ in {what}: " in answer.message


def test_candidates_are_compared_by_the_metric_and_gated_by_hits(desk: Desk) -> None:
    tree = {"name": "tree", "kind": "decision_tree"}
    desk.register(source="csv:sign.csv", target="sign", metric="log_loss", candidates=[tree])
    report = desk.train("tree")
    ((quality, loss),) = desk.lab.rows(
        "SELECT o.quality, m.validation_loss FROM work.models m JOIN work.observations o ON o.trial_id = m.trial_id"
    )
    assert report.quality == quality
    assert quality != pytest.approx(1 - loss)


@pytest.mark.journey
def test_models_are_measured_anew_by_the_studys_metric(desk: Desk, tmp_path: Any) -> None:
    tree = {"name": "tree", "kind": "decision_tree"}
    desk.register(source="csv:sign.csv", target="sign", metric="log_loss", candidates=[tree])
    desk.train("tree")
    replaced = replace_part(desk, tmp_path, ["up", "down"])
    assert replaced.to_measure == 1
    ((candidate, quality),) = measured(desk)
    parts = desk.lab.open_parts("line")
    ((artifact,),) = desk.lab.rows("SELECT DISTINCT artifact FROM work.models WHERE format = 'skops'")
    predictor = load_predictor(desk.lab.artifacts.path(artifact), "skops")
    chances = predictor.probabilities(parts.validation_inputs, classes=2)
    expected = np.exp(-sklearn.metrics.log_loss(parts.validation_labels, chances))
    assert (candidate, quality) == ("tree", pytest.approx(expected))


@pytest.mark.journey
def test_numbers_are_brought_as_validation_data(desk: Desk, tmp_path: Any) -> None:
    desk.register(**LINE, candidates=[{"name": "ridge", "kind": "ridge_regression"}])
    desk.train("ridge")
    replace_part(desk, tmp_path, ["1.5", "-0.25"])
    assert set(desk.lab.open_parts("line").validation_labels.tolist()) == {1.5, -0.25}
    assert [candidate for candidate, _ in measured(desk)] == ["ridge"]


def replace_part(desk: Desk, folder: Any, labels: list[str]) -> ReplacedValidation:
    values = np.random.default_rng(8).normal(size=(300, 2))
    rows = [f"{i},{a:.6f},{b:.6f}" for i, (a, b) in enumerate(values)]
    (folder / "inputs.csv").write_text("\n".join(["example,a,b", *rows]))
    (folder / "labels.csv").write_text("\n".join(["example,label", *(f"{i},{labels[i % 2]}" for i in range(300))]))
    files = {"inputs": folder / "inputs.csv", "labels": folder / "labels.csv"}
    return replace_validation(desk.lab.referee, desk.lab.artifacts, study="line", **files)


def measured(desk: Desk) -> list[tuple[str, float]]:
    found = remeasure(desk.lab.referee, desk.lab.artifacts, "line")
    return [(entry.candidate, entry.quality) for entry in found.measured]


def test_a_study_that_is_there_is_kept_where_that_is_wanted(desk: Desk) -> None:
    first = desk.register(source="csv:sign.csv", target="sign")
    given = {"tenant": "lab", "study": "line", "source": "csv:y.csv", "target": "y", "metric": "r2", "hit": "within:1"}
    with pytest.raises(AlreadyExistsError, match="choose another name"):
        register_study(desk.lab.worker, request_key="again", **given)
    kept = register_study(desk.lab.worker, request_key="again", keep=True, **given)
    assert (kept.study_id, kept.request_id) == (1, first.request_id)
    assert desk.study().task == Task.CLASSIFICATION
    with pytest.raises(AlreadyExistsError, match="another tenant's"):
        register_study(desk.lab.worker, request_key="again", keep=True, **given | {"tenant": "other"})
    assert desk.lab.rows("SELECT name FROM work.tenants") == [("lab",)]


def test_a_study_that_is_kept_says_what_it_has_otherwise(desk: Desk, recorded: Any) -> None:
    """A function or a setting that an author adds to the DAG is not added to the study that is there."""
    tree = {"name": "tree", "kind": "function", "parameters": {"depth": 3}}
    given: dict[str, Any] = {"tenant": "lab", "study": "line", "source": "csv:sign.csv", "target": "sign"}
    given |= {"gate": {"steps": 4}, "meter": {"ranges": [0.1, 0.2]}, "candidates": [tree], "keep": True}
    register_study(desk.lab.worker, request_key="first", **given)
    assert register_study(desk.lab.worker, request_key="second", **given).differs == ()
    deeper = [{**tree, "parameters": {"depth": 5}}, {"name": "linie", "kind": "function"}]
    given |= {"candidates": deeper, "gate": {"steps": 5}, "budget_seconds": 60.0, "grid": "full"}
    kept = register_study(desk.lab.worker, request_key="third", **given)
    recorded("\n".join(kept.differs), "study_that_is_kept")
    assert desk.lab.rows("SELECT name FROM work.candidates") == [("tree",)]


def test_spaces_and_grids_become_candidates_that_are_stored(desk: Desk) -> None:
    forest = {"kind": "random_forest", "space": {"max_depth": {".int": [2, 20]}}, "count": 3, "devices": ["cpu"]}
    network = {"name": "net", "kind": "torch_mlp", "parameters": {"epochs": 1}}
    desk.register(source="csv:sign.csv", target="sign", candidates=[forest, network], grid="rates")
    found = desk.lab.rows("SELECT name, kind, parameters, devices FROM work.candidates ORDER BY id")
    assert [(kind, devices) for _, kind, _, devices in found] == [
        *[("random_forest", ["cpu"])] * 3,
        *[("torch_mlp", None)] * 5,
    ]
    assert len({parameters["max_depth"] for _, _, parameters, _ in found[:3]}) == 3
    assert [name for name, *_ in found[3:5]] == ["net-lr0.1", "net-lr0.01"]
    assert {parameters["epochs"] for _, _, parameters, _ in found[3:]} == {1}
