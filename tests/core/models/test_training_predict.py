"""Stored models answer in a child: the same labels, under limits, and nothing but one whole number per row is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import skops.io
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline

from easeml_core.errors import MachineError, ShapeError, TrainingError, TrainingKilled, TrainingStarved
from easeml_core.models import predict
from easeml_core.models.answers import array_from_bytes, array_to_bytes
from easeml_core.models.formats import save_constant, save_model
from easeml_core.models.predict import predict_in_child
from easeml_core.sandbox import isolation
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.trainers import trainer_of

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.data.parts import OpenParts


@pytest.mark.parametrize("kind", ["decision_tree", "torch_mlp", "lightgbm", "xgboost"])
def test_the_child_gives_the_labels_of_the_model(kind: str, digits: OpenParts, tmp_path: Path) -> None:
    model = trainer_of(kind).fit(digits, {}, seed=0, report=silent)
    model_format = save_model(model, tmp_path / "model")
    labels = predict_in_child(tmp_path / "model", model_format, digits.validation_inputs)
    assert labels.dtype == np.int64
    assert np.array_equal(labels, model.predict(digits.validation_inputs))


@pytest.fixture
def constant(tmp_path: Path) -> Path:
    save_constant(tmp_path / "model", 2)
    return tmp_path / "model"


def test_more_rows_than_a_pipe_holds(constant: Path) -> None:
    labels = predict_in_child(constant, "constant", np.zeros((300_000, 3)))
    assert np.array_equal(labels, np.full(300_000, 2))


def test_no_rows_no_child(tmp_path: Path) -> None:
    assert predict_in_child(tmp_path / "absent", "constant", np.zeros((0, 3))).tolist() == []


def test_inputs_must_be_a_table(constant: Path) -> None:
    with pytest.raises(ShapeError, match=r"inputs must have shape \(rows, features\)"):
        predict_in_child(constant, "constant", np.zeros(3))


def test_a_model_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    skops.io.dump(Pipeline([("a", DummyClassifier())]), tmp_path / "model")
    with pytest.raises(TrainingError) as caught:
        predict_in_child(tmp_path / "model", "skops", np.zeros((2, 2)))
    assert str(caught.value) == "the model file model holds steps that are not trusted: sklearn.dummy.DummyClassifier"


def test_wrong_width_is_the_models_failure(digits: OpenParts, tmp_path: Path) -> None:
    save_model(trainer_of("decision_tree").fit(digits, {}, seed=0, report=silent), tmp_path / "model")
    with pytest.raises(TrainingError, match="X has 3 features, but SimpleImputer is expecting 64 features"):
        predict_in_child(tmp_path / "model", "skops", np.zeros((2, 3)))


@pytest.mark.cold  # a warm child may have answered before the first look at its limits
def test_limits(constant: Path) -> None:
    # The machine's, before the child can load it; the model's, where the machine is so busy that it has.
    with pytest.raises((MachineError, TrainingStarved), match="out of time: not finished after 1e-06 s"):
        predict_in_child(constant, "constant", np.zeros((2, 3)), time_limit_seconds=1e-6)
    with pytest.raises(TrainingError, match="out of memory"):
        predict_in_child(constant, "constant", np.zeros((1_000_000, 30), np.float32), memory_limit_mb=64)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (array_to_bytes(np.zeros(3, np.int64)), r"it gave int64 of shape \(3,\)"),
        (array_to_bytes(np.zeros((4, 1), np.int64)), r"it gave int64 of shape \(4, 1\)"),
        (array_to_bytes(np.zeros(4)), r"it gave float64 of shape \(4,\)"),
        (array_to_bytes(np.zeros(4, np.int64))[:-3], "its answer is no array"),
        (b"", "its answer is no array"),
        (b"hello", "its answer is no array"),
        (b"x" * 100_000, "it wrote 100,000 bytes"),
    ],
)
def test_any_other_answer_is_refused(answer: bytes, message: str, constant: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "liar.py").write_text(
        "import sys\nfrom easeml_core.sandbox import child_protocol\nchild_protocol.prepare(int(sys.argv[1]))\n"
        f"sys.stdin.buffer.read()\nsys.stdout.buffer.write({answer!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(predict, "CHILD", "liar")
    with pytest.raises(TrainingError, match=f"must answer with 4 whole numbers, one per row; {message}"):
        predict_in_child(constant, "constant", np.zeros((4, 3)))


def test_an_array_of_objects_is_not_unpickled(constant: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "liar.py").write_text(
        "import sys\nimport numpy as np\nfrom easeml_core.sandbox import child_protocol\n"
        "child_protocol.prepare(int(sys.argv[1]))\n"
        "class Bomb:\n    def __reduce__(self):\n        return (print, ('unpickled',))\n"
        "sys.stdin.buffer.read()\n"
        "np.lib.format.write_array(sys.stdout.buffer, np.array([Bomb()] * 4), allow_pickle=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(predict, "CHILD", "liar")
    with pytest.raises(TrainingError, match="its answer is no array"):
        predict_in_child(constant, "constant", np.zeros((4, 3)))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 9999999999)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': {}, 'fortran_order': False, 'shape': (True,)}",
        "{[]: 1}",
        "((((",
        "'''",
        "\x00",
        "[" * 5000,
    ],
    ids=["80 TB", "overflow", "negative", "no type", "unhashable", "open", "a string", "zero", "deep"],
)
def test_a_header_made_to_hurt_is_a_failure_of_the_model(header: str) -> None:
    """It must not be the reader's error: the referee would refuse the request without spending a step."""
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode("latin1") + bytes(16)
    with pytest.raises(ValueError, match="the bytes are no array"):
        array_from_bytes(content)


@pytest.mark.parametrize("error", [TrainingKilled("by SIGKILL"), TrainingStarved("out of time")])
def test_a_kill_before_the_model_is_loaded_is_the_machines(error: Exception, monkeypatch: Any, tmp_path: Path) -> None:
    """Nothing of the model has run: whether the child says that it is confined decides whose fault an end may be."""

    def run(*_: Any, on_output: Any, **__: Any) -> float:
        on_output(said)
        raise error

    monkeypatch.setattr("easeml_core.models.predict.run_child", run)
    for said, kind in ((b"", MachineError), (b"confined\n", type(error))):
        with pytest.raises(type(error) if said else MachineError) as caught:
            predict_in_child(tmp_path / "model", "skops", np.zeros((2, 2)), sandbox=None)
        assert type(caught.value) is kind


def test_a_probe_that_is_killed_says_nothing_of_the_machine(monkeypatch: Any) -> None:
    """Else a loaded machine would go on with weaker sandboxes for as long as the process lives."""

    def run(*_: Any, **__: Any) -> float:
        said = "by SIGKILL"
        raise TrainingKilled(said)

    isolation._probed.cache_clear()
    monkeypatch.setattr(isolation, "run_child", run)
    with pytest.raises(MachineError, match="no child can be started to run models: by SIGKILL"):
        isolation.probe_isolation(isolation.Sandbox())
    monkeypatch.undo()
    assert isinstance(isolation.probe_isolation(isolation.Sandbox()), isolation.Isolation)
