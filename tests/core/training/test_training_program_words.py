"""What a program may be, say, answer and be given: all within bounds, whatever it is."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import (
    ArtifactError,
    ConfigError,
    InvalidInputError,
    TrainingError,
)
from easeml_core.models.command_model import load_command, pack_command, read_program
from easeml_core.models.formats import load_predictor
from easeml_core.training.command_training import ProgramNews
from easeml_core.training.job import Run
from easeml_core.training.trainers import TRAINERS

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
REFERENCE = "sha256:" + 64 * "0"
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
LINES = st.binary(max_size=50) | st.dictionaries(
    st.sampled_from(["step", "of", "quality", "loss", "note", "checkpoint"]), ANY_JSON | st.integers(1, 9)
).map(lambda fields: json.dumps(fields).encode())


@settings(max_examples=examples(200), deadline=None)
@given(lines=st.lists(LINES, max_size=8))
def test_whatever_a_program_says_is_progress_or_nothing(lines: list[bytes]) -> None:
    reported: list[tuple[float, str, float | None, dict[str, float | None]]] = []
    reading, writing = os.pipe()
    os.write(writing, b"\n".join(lines) + b"\n")
    os.close(writing)
    with os.fdopen(reading, "rb") as output:
        ProgramNews(lambda *news, **more: reported.append((*news, more)), Path("/nowhere"), Run())(output)
    assert len(reported) <= sum(line.count(b"\n") + 1 for line in lines)
    for progress, note, quality, more in reported:
        assert 0.1 <= progress <= 0.8
        assert note.isprintable()
        assert quality is None or 0 <= quality <= 1
        assert 1 <= more["step"] <= more["of"]
        assert "checkpoint" not in more


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"command.json": '{"command": ["a"]}'}, "does not say how it is trained"),
        ({"command.json": '{"command": ["a"], "train": ["b"]}', "model/w": "1"}, "holds model/, which is where"),
        ({"command.json": '{"command": ["a"], "train": []}'}, r"command\.json of the model file program must be"),
        ({"command.json": '{"train": ["a"]}'}, r"command\.json of the model file program must be"),
        ({"x": ""}, r"is no archive with a command\.json"),
    ],
)
def test_what_is_no_program_is_refused(files: dict[str, str], words: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "program", "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    with pytest.raises(ArtifactError, match=words):
        read_program(tmp_path / "program")


def test_a_program_may_be_handed_in_as_a_model_too(tmp_path: Path) -> None:
    """A developer who trains by hand submits the same folder."""
    folder = tmp_path / "mine"
    shutil.copytree(EXAMPLES / "awk", folder)
    (folder / "model").mkdir()
    (folder / "model" / "middles").write_text("2 2\n4 0 0\n7 9 9\n")
    pack_command(folder, tmp_path / "model", command=None)
    predictor = load_predictor(tmp_path / "model", "command")
    assert predictor.predict(np.array([[1, 1], [8, np.nan]], dtype=np.float32)).tolist() == [4, 7]


def test_how_to_train_alone_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="how it predicts is not"):
        pack_command(EXAMPLES / "awk", tmp_path / "program", command=None, train="sh train.sh")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print(1, 'x', 3)", "the model answered 'x'; a number is wanted"),
        ("print(1, 'nan', 3)", "some of its answers are not finite"),
        ("print(1, 2)", r"must answer with 3 numbers, one a line or as \.npy; it gave float64 of shape \(2,\)"),
        ("import sys, numpy as np\nnp.lib.format.write_array(sys.stdout.buffer, np.array([1j] * 3))", "complex128"),
    ],
)
def test_numbers_that_are_none(code: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "predict.py").write_text(code)
    pack_command(tmp_path / "predict.py", tmp_path / "model", command="python predict.py")
    with pytest.raises(TrainingError, match=words):
        load_command(tmp_path / "model").numbers(np.zeros((3, 1), dtype=np.float32))


@pytest.mark.parametrize(
    ("kind", "parameters", "error", "words"),
    [
        ("command", {}, ConfigError, r"command\.program must be sha256:"),
        ("command", {"program": "x"}, ConfigError, "as `easeml candidate pack FOLDER` prints it, got 'x'"),
        (
            "command",
            {"program": REFERENCE, "a": float("nan")},
            ConfigError,
            r"command\.a must be text, a finite number",
        ),
        ("command", {"program": REFERENCE, "a": "\0"}, ConfigError, r"command\.a must be text"),
        ("command", {"program": REFERENCE, "a": "\ud800"}, ConfigError, r"command\.a must be text"),
        ("command", {"program": REFERENCE, "a": {1, 2}}, ConfigError, r"command\.a must be text"),
        ("command", {"program": REFERENCE, "a\n": 1}, InvalidInputError, "1 to 100 printable characters"),
        ("command", {"program": REFERENCE} | {f"p{n}": "x" * 100 for n in range(40)}, InvalidInputError, "3,000 bytes"),
        ("container", {"image": "lab/trainer:latest"}, ConfigError, "NAME@sha256:<64 hex digits>"),
        ("container", {"image": f"-v@{REFERENCE}"}, ConfigError, "NAME@sha256:<64 hex digits>"),
        ("container", {"image": f"a@{REFERENCE}", "runtime": "/bin/sh"}, ConfigError, "one of docker, podman"),
    ],
)
def test_parameters_are_bounded(kind: str, parameters: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        TRAINERS[kind].parameters(parameters)


def test_own_parameters_that_cannot_end_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigError, match=r"function\.a must be text"):
        TRAINERS["function"].parameters({"a": deep})
    assert TRAINERS["function"].parameters({"a": (1, 2), "b": {"c": None}}) == {"a": [1, 2], "b": {"c": None}}
