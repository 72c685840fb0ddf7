"""Training by a command or in a container image, in any language; ``docs/bring-your-own.md`` has the contract.

The command is run in the unpacked folder of its program; an image is run with docker or podman on the worker::

    COMMAND --data DIR --parameters FILE.json --output DIR [--resume DIR]
    ENTRYPOINT train --data /data --parameters /parameters.json --output /output [--resume /resume]

The output folder joins the program as ``model/``; both together are a model that is a program (``command_model``). Its
quality is measured here on the validation part, in a sandboxed child as the referee does on sealed sets. What the
program reports about itself does not count. An image trains, and that is all: the referee has no containers. So what it
leaves in ``/output`` must be a model that is a program, which runs with what the referee has.

A training program reports on its standard output, one JSON object a line; other lines are dropped.

    {"step": 3, "of": 10, "quality": 0.81, "loss": 0.42, "note": "..."}    how far it is
    {"step": 3, "of": 10, "checkpoint": "epoch-3"}                         OUTPUT/checkpoints/epoch-3 is whole

A checkpoint is a file or folder that the program does not change until it has named the next one. It is packed as the
checkpoint of the job, and a resumed training receives it as a folder.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import ArtifactError, InvalidInputError, TrainingError, TrainingTaskError
from easeml_core.files import local as files
from easeml_core.files.local import written_whole
from easeml_core.models.answers import wanted_of
from easeml_core.models.command_model import MANIFEST, MODEL_FOLDER, pack_command, read_program, run_command
from easeml_core.models.predict import predict_in_child, require_same, rows_to_repeat
from easeml_core.sandbox import child_protocol
from easeml_core.sandbox.child_protocol import LineReader
from easeml_core.sandbox.process import end_children
from easeml_core.training.distributed import NPROC
from easeml_core.training.job import checkpoint_name, remove_older

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts
    from easeml_core.entities import JsonObject, Parameters, Task
    from easeml_core.sandbox.child_protocol import Report
    from easeml_core.training.job import Run


CHECKPOINTS = "checkpoints"
"""The folder of the output that is no part of the model."""

BEGUN, TRAINED = 0.1, 0.8
"""Progress of the job at the beginning of the program and at its end."""

_CHUNK = 65536
_LONGEST_NOTE = 200
_MOST_STEPS = 1_000_000
_MOST_NEWS = 10_000


class ProgramNews:
    """Reads a program's standard output to its end and hands on what it tells.

    Args:
        report: Told how far the program is.
        output: Its output folder.
        run: Knows where a checkpoint goes, and how often.
    """

    def __init__(self, report: Report, output: Path, run: Run) -> None:
        self._report, self._output, self._run = report, output, run
        self._heard = 0
        self._saved = -math.inf

    def __call__(self, output: IO[bytes]) -> None:
        """Read to the end."""
        reader = LineReader(self._take)
        while chunk := os.read(output.fileno(), _CHUNK):
            reader(chunk)

    def _take(self, fields: JsonObject) -> None:
        step, of = _whole(fields.get("step")), _whole(fields.get("of"))
        self._heard += 1
        if step is None or of is None or step > of or self._heard > _MOST_NEWS:  # one that goes wild fills no log
            return
        more: dict[str, float | None] = {"step": step, "of": of, "loss": _number(fields.get("loss"))}
        note = fields.get("note") or f"step {step} of {of}"
        name = fields.get("checkpoint")
        if isinstance(name, str) and time.monotonic() - self._saved >= self._run.checkpoint_seconds:
            why_not = self._keep(name, step)
            self._saved = time.monotonic()
            more |= {} if why_not else {"checkpoint": step}
            note = f"checkpoint {name} was not kept: {why_not}" if why_not else note
        quality = _number(fields.get("quality"))
        known = quality if quality is not None and 0 <= quality <= 1 else None
        self._report(BEGUN + (TRAINED - BEGUN) * step / of, _plain(str(note)), known, **more)

    def _keep(self, name: str, step: int) -> str:
        """Pack a checkpoint; return why it was not packed, empty if it was."""
        if self._run.folder is None:
            return "this job keeps no checkpoints"
        place = self._output / CHECKPOINTS
        source = place / name
        if source.parent != place or name in ("", ".", "..") or place.is_symlink() or source.is_symlink():
            return f"it is to be the name of a file or folder in {CHECKPOINTS}/ of the output"
        try:
            with written_whole(self._run.folder / checkpoint_name(step)) as temporary:
                if source.is_dir():
                    files.pack_folder(source, temporary, extra={}, beneath=self._output)
                else:
                    files.pack_files(temporary, {name: source}, extra={}, beneath=self._output)
        except (InvalidInputError, OSError) as error:
            return str(error)
        remove_older(self._run.folder)
        return ""


def resumed_folder(work: Path, report: Report, run: Run) -> Path | None:
    """The files of the checkpoint that an earlier attempt left, unpacked; None where there is none that can be used."""
    if run.resume is None:
        return None
    folder = work / "resume"
    folder.mkdir()
    try:
        files.unpack(run.resume, folder)
    except ArtifactError as error:
        report(BEGUN, _plain(f"begun anew: {error}"), resumed=False)
        return None
    report(BEGUN, "taken up again", resumed=True)
    return folder


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_LONGEST_NOTE])


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() and 1 <= number <= _MOST_STEPS else None


def _number(value: object) -> float | None:
    """The value as a finite float, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


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
        """Labels (int64) or numbers (float64), shape (rows,)."""
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
    kind: str, parts: OpenParts, parameters: Parameters, *, seed: int, report: Report, run: Run
) -> ProgramPredictor:
    """Unpack the program, run its train command, pack what came out."""
    program = run.files["program"]
    command = read_program(program).train
    work = working_folder()
    folder, output = work / "program", work / "output"
    for place in (folder, output):
        place.mkdir()
    files.unpack(program, folder)
    own = {name: value for name, value in parameters.items() if name != "program"}
    write_contract(work, parts, own, seed)
    arguments = ["--data", str(work / "data"), "--parameters", str(work / "parameters.json"), "--output", str(output)]
    report(BEGUN, f"training by {command[0]}")
    resume = resumed_folder(work, report, run)
    arguments += [] if resume is None else ["--resume", str(resume)]
    news = ProgramNews(report, output, run)
    child_protocol.adopt_orphans()
    child_protocol.keep_to_itself()
    try:
        run_command([*command, *arguments], cwd=folder, take=news, shown=" ".join(command))
    finally:
        end_children()  # nothing of it may use the device further, or change what it has left
    shutil.rmtree(folder)
    folder.mkdir()
    files.unpack(program, folder)  # anew: what the training has left in its own folder is no part of the model
    output.rename(folder / MODEL_FOLDER)
    shutil.rmtree(folder / MODEL_FOLDER / CHECKPOINTS, ignore_errors=True)
    return packed_model(folder, work / "model", parts)


def working_folder() -> Path:
    """An empty folder inside that of the job, which is the working directory of the child and goes with it."""
    return Path(tempfile.mkdtemp(prefix="program-", dir=Path.cwd()))


def write_contract(work: Path, parts: OpenParts, own: Parameters, seed: int) -> None:
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
    """Pack a folder with a manifest as a model, and try it: each of its answers must be its own row's alone."""
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


_MOST_PROCESSES = 1024
_GPUS = re.compile(r"[A-Za-z0-9-]+(,[A-Za-z0-9-]+)*")
_WATCH = "easeml_core.training.container_watch"


def fit_container(
    kind: str, parts: OpenParts, parameters: Parameters, *, seed: int, report: Report, run: Run
) -> ProgramPredictor:
    """Run the image on the data, pack what it leaves."""
    runtime, image = parameters["runtime"], parameters["image"]
    found = shutil.which(runtime)
    if found is None:
        message = f"{runtime} is not installed on this worker; give the candidate a device that only such workers offer"
        raise TrainingTaskError(message)
    work, name = working_folder(), f"easeml-{secrets.token_hex(8)}"
    output = work / "output"
    output.mkdir()
    own = {key: value for key, value in parameters.items() if key not in ("image", "runtime")}
    write_contract(work, parts, own, seed)
    report(BEGUN, f"training in {image.partition('@')[0]}")
    resume = resumed_folder(work, report, run)
    command = [found, *arguments_of(runtime, name, image, work, run, resumes=resume is not None)]
    with _watched(found, name):
        run_command(command, cwd=work, take=ProgramNews(report, output, run), shown=f"{runtime} run {image}")
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    if not (output / MANIFEST).is_file():
        message = (
            f"the image left no {MANIFEST} in /output; the referee runs models without their image, so the output must "
            "hold a program that answers without it, and say how it is run"
        )
        raise TrainingError(message)
    return packed_model(output, work / "model", parts)


def arguments_of(runtime: str, name: str, image: str, work: Path, run: Run, *, resumes: bool) -> list[str]:
    """Return the arguments of the container runtime.

    The container has the data, no network, a writable output folder only, no capabilities, and the job's limits, since
    the container is no child process whose memory could be counted.
    """
    mounts = {"data": "/data,readonly", "parameters.json": "/parameters.json,readonly", "output": "/output"}
    mounts |= {"resume": "/resume,readonly"} if resumes else {}
    limits = {
        "memory": f"{run.memory_limit_mb}m",
        "memory-swap": f"{run.memory_limit_mb}m",
        "cpus": str(run.threads * int(os.environ.get(NPROC, "1"))),
        "pids-limit": str(_MOST_PROCESSES),
    }
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return [
        *("run", "--rm", "--name", name, "--network", "none", "--read-only", "--tmpfs", "/tmp"),  # noqa: S108 - in the container
        *("--log-driver", "none"),  # what it says is read here; the runtime would keep all of it on the disk as well
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{os.getuid()}:{os.getgid()}"),
        *(("--userns", "keep-id") if runtime == "podman" else ()),
        *(word for limit, value in limits.items() for word in (f"--{limit}", value)),
        *(word for variable in threads for word in ("--env", f"{variable}={run.threads}")),
        *(("--env", NPROC) if NPROC in os.environ else ()),
        *(w for source, to in mounts.items() for w in ("--mount", f"type=bind,source={work / source},target={to}")),
        *_gpus(runtime, os.environ.get("CUDA_VISIBLE_DEVICES", "")),
        *(image, "train", "--data", "/data", "--parameters", "/parameters.json", "--output", "/output"),
        *(("--resume", "/resume") if resumes else ()),
    ]


def _gpus(runtime: str, visible: str) -> list[str]:
    """The GPUs of the job's slot, as its environment names them; none where it names none."""
    if not _GPUS.fullmatch(visible):
        return []
    if runtime == "docker":
        return ["--gpus", f'"device={visible}"']  # in quotes, since a comma would end the value
    return [word for gpu in visible.split(",") for word in ("--device", f"nvidia.com/gpu={gpu}")]


@contextlib.contextmanager
def _watched(runtime: str, name: str) -> Iterator[None]:
    """Remove the container when this process ends in any way; killing the runtime's command would leave it running.

    A separate process waits for the end of a pipe that only this one holds, and then removes the container.
    """
    watch = subprocess.Popen(
        [sys.executable, "-P", "-m", _WATCH, runtime, name],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    if watch.wait() != 0:  # it is ready, in a process that is no child of ours any more
        message = f"the process that watches the container did not start: exit status {watch.returncode}"
        raise TrainingError(message)
    try:
        yield
    finally:
        assert watch.stdin is not None  # PIPE was asked for
        watch.stdin.close()
