"""Training by a command, in any language: the contract of ``docs/bring-your-own.md``, seen from our side.

The command is run in the unpacked folder of its program::

    COMMAND --data DIR --parameters FILE.json --output DIR [--resume DIR]

What it leaves in the output folder joins the program as ``model/``; both together are an ordinary model that is a
program (``command_model``). Its quality is measured here, by asking that model about the validation part as the referee
asks it about sealed sets: in a child of its own, in a sandbox. Nothing that the program says about itself counts.
"""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core import archive
from easeml_core.errors import TrainingError
from easeml_core.models.answers import wanted_of
from easeml_core.models.command_manifest import MODEL_FOLDER, read_program
from easeml_core.models.command_model import pack_command
from easeml_core.models.command_run import run_command
from easeml_core.models.predict import predict_in_child
from easeml_core.models.repeatability import require_same, rows_to_repeat
from easeml_core.sandbox import child_guard
from easeml_core.sandbox.process import end_children
from easeml_core.training.program_news import BEGUN, CHECKPOINTS, ProgramNews, resumed_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts
    from easeml_core.entities import Task
    from easeml_core.sandbox.progress import Report
    from easeml_core.training.run_options import Run

_ARRAYS = ("train_inputs", "train_labels", "validation_inputs", "validation_labels")


@dataclass(slots=True)
class ProgramPredictor:
    """What a program has become by training: an archive that is asked in a child, once for the same inputs.

    Attributes:
        path: The archive.
        task: What is predicted.
    """

    path: Path
    task: Task
    format: str = "command"
    _asked: NDArray[np.float32] | None = field(default=None, repr=False)
    _answers: NDArray[Any] | None = field(default=None, repr=False)

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[Any]:
        """Labels (int64) or numbers (float64), shape (rows,).

        Raises:
            TrainingError: If the program fails, or does not give one answer per row.
        """
        if self._answers is None or self._asked is not inputs:
            answers = predict_in_child(self.path, self.format, inputs, wanted=wanted_of(self.task))
            self._asked, self._answers = inputs, answers
        return self._answers

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.floating]:
        """The answers: a program gives nothing else."""
        return self.predict(inputs).astype(np.float64)

    def save(self, path: Path) -> None:
        """Copy the archive."""
        shutil.copyfile(self.path, path)


def fit_command(
    kind: str, parts: OpenParts, parameters: Mapping[str, Any], *, seed: int, report: Report, run: Run
) -> ProgramPredictor:
    """Unpack the program, run its train command, pack what came out.

    Args:
        kind: ``command``.
        parts: The open parts of the data.
        parameters: ``program``, and the tenant's own.
        seed: Told to the program in ``data.json``.
        report: Told what the program tells.
        run: Knows the program's file, and the checkpoint to go on from.

    Raises:
        TrainingError: If the program fails, or what it has become does not answer.
        ArtifactError: If the archive is none, or not of a program that can be trained.
    """
    program = run.files["program"]
    command = read_program(program).train
    work = working_folder()
    folder, output = work / "program", work / "output"
    for place in (folder, output):
        place.mkdir()
    archive.unpack(program, folder)
    own = {name: value for name, value in parameters.items() if name != "program"}
    write_contract(work, parts, own, seed)
    arguments = ["--data", str(work / "data"), "--parameters", str(work / "parameters.json"), "--output", str(output)]
    report(BEGUN, f"training by {command[0]}")
    resume = resumed_folder(work, report, run)
    arguments += [] if resume is None else ["--resume", str(resume)]
    news = ProgramNews(report, output, run)
    child_guard.adopt_orphans()
    child_guard.keep_to_itself()
    try:
        run_command([*command, *arguments], cwd=folder, take=news, shown=" ".join(command))
    finally:
        end_children()  # nothing of it may use the device further, or change what it has left
    shutil.rmtree(folder)
    folder.mkdir()
    archive.unpack(program, folder)  # anew: what the training has left in its own folder is no part of the model
    output.rename(folder / MODEL_FOLDER)
    shutil.rmtree(folder / MODEL_FOLDER / CHECKPOINTS, ignore_errors=True)
    return packed_model(folder, work / "model", parts)


def working_folder() -> Path:
    """An empty folder inside that of the job, which is the working directory of the child and goes with it."""
    return Path(tempfile.mkdtemp(prefix="program-", dir=Path.cwd()))


def write_contract(work: Path, parts: OpenParts, own: Mapping[str, Any], seed: int) -> None:
    """Write ``data/`` and ``parameters.json`` as the contract says."""
    folder = work / "data"
    folder.mkdir()
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(parts, name), allow_pickle=False)
    about = {
        "task": str(parts.task),
        "classes": parts.classes,
        "layout": {"kind": parts.layout.kind, "shape": list(parts.layout.shape)},
        "features": parts.layout.features,
        "train_rows": len(parts.train_labels),
        "validation_rows": len(parts.validation_labels),
        "seed": seed,
    }
    (folder / "data.json").write_text(json.dumps(about))
    (work / "parameters.json").write_text(json.dumps(own))


def packed_model(folder: Path, target: Path, parts: OpenParts) -> ProgramPredictor:
    """Pack a folder with a manifest as a model, and try it: each of its answers must be its own row's alone.

    Raises:
        InvalidInputError: If the folder has no manifest, or holds what cannot be packed, or too much.
        ArtifactError: If the manifest says no command.
        TrainingError: If the program does not answer, or answers a row by the others.
    """
    pack_command(folder, target, command=None)
    predictor = ProgramPredictor(target, parts.task)
    answers = predictor.predict(parts.validation_inputs)
    rows = rows_to_repeat(answers, secrets.token_bytes(16))
    again = predict_in_child(target, predictor.format, parts.validation_inputs[rows], wanted=wanted_of(parts.task))
    try:
        require_same(answers[rows], again)
    except TrainingError as error:
        message = f"no gate would judge this model: {error}; let each answer come from its own row alone"
        raise TrainingError(message) from error
    return predictor
