"""A model that is a program: a folder with ``command.json`` in an archive, run by the child that predicts.

    command.json     {"command": ["python", "predict.py"]}: a program and its arguments, run in the unpacked folder
    inputs.npy       put beside it: float32, shape (rows, features), NaN is missing
    standard output  the labels: one whole number a line, or one .npy array of whole numbers, shape (rows,)

``python`` is the interpreter that runs this package. Any other end than status 0 is a failure. Nothing here is safe by
itself: it must be called in a child that has been confined.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from easeml_core.errors import ArtifactError, InvalidInputError, TrainingError
from easeml_core.training import archive
from easeml_core.training.formats import no_class_number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANIFEST, INPUTS = "command.json", "inputs.npy"
_MANIFEST_BYTES = 10_000
_PYTHON = ("python", "python3")
_NPY_MAGIC = b"\x93NUMPY"
_BYTES_PER_LABEL, _BYTES_MORE = 24, 4096
_TAIL_BYTES = 1500


@dataclass(frozen=True, slots=True)
class CommandPredictor:
    """A program in an archive.

    Attributes:
        path: The archive.
        command: Program and arguments.
    """

    path: Path
    command: tuple[str, ...]
    format: str = "command"

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """What the program answers, shape (rows,).

        Raises:
            ArtifactError: If the archive cannot be unpacked.
            TrainingError: If the program fails, or does not answer with one whole number per row.
        """
        import numpy as np

        folder = Path(tempfile.mkdtemp(prefix="submission-"))
        try:
            archive.unpack(self.path, folder)
            np.save(folder / INPUTS, np.ascontiguousarray(inputs, dtype=np.float32), allow_pickle=False)
            answer = self._run(folder, limit=_BYTES_MORE + _BYTES_PER_LABEL * len(inputs))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return _labels(answer, len(inputs))

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.floating]:
        """The labels: a program gives nothing else."""
        return self.predict(inputs).astype("float64")

    def save(self, path: Path) -> None:
        """Copy the archive."""
        shutil.copyfile(self.path, path)

    def _run(self, folder: Path, *, limit: int) -> bytes:
        program = [sys.executable, *self.command[1:]] if self.command[0] in _PYTHON else list(self.command)
        shown = shlex.join(self.command)
        try:
            process = subprocess.Popen(
                program, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            message = f"the command {shown!r} cannot be started: {error.strerror}"
            raise TrainingError(message) from error
        with process:
            said = _Tail(process.stderr)
            answer = process.stdout.read(limit + 1) if process.stdout else b""
            if len(answer) > limit:
                process.kill()
            said.join()
        if len(answer) > limit:
            message = f"the command wrote more than {limit:,} bytes to standard output; it must write labels only"
            raise TrainingError(message)
        if process.returncode:
            message = f"the command {shown!r} ended with exit status {process.returncode}{said.words()}"
            raise TrainingError(message)
        return answer


class _Tail(threading.Thread):
    """The last words of a program, read while it speaks, so that it never waits; for whoever may know its inputs."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        self._pipe, self._kept = pipe, b""
        self.start()

    def run(self) -> None:
        while self._pipe is not None and (chunk := os.read(self._pipe.fileno(), 65536)):
            self._kept = (self._kept + chunk)[-_TAIL_BYTES:]

    def words(self) -> str:
        """The last line, which most often tells what went wrong; then all that was kept, if that is more."""
        words = self._kept.decode(errors="replace").strip()
        lines = words.splitlines()
        more = f"\n{words}" if len(lines) > 1 else ""
        return f": {lines[-1].strip()}{more}" if words else " and said nothing on standard error"


def load_command(path: Path) -> CommandPredictor:
    """The program in an archive; nothing of it is run here.

    Raises:
        ArtifactError: If it is no archive, not one that would be unpacked, or says no command.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            archive.check_entries(packed.infolist())
            with packed.open(MANIFEST) as file:
                content = file.read(_MANIFEST_BYTES + 1)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        message = f"the model file {path.name} is no archive with a {MANIFEST}: {error}"
        raise ArtifactError(message) from error
    return CommandPredictor(path, _command_in(content, path.name))


def pack_command(source: Path, target: Path, *, command: str | None) -> None:
    """Pack a folder, or a single program file, for handing in; the same content gives the same bytes.

    Args:
        source: A folder, a file, or an archive that was packed before (which is taken as it is).
        target: The archive to write.
        command: As in a shell, without its expansions, e.g. ``python predict.py``; None where the folder has a
            ``command.json``.

    Raises:
        InvalidInputError: If no command is given, or two are, or the folder holds what cannot be packed.
        ArtifactError: If an archive was given that cannot be used.
    """
    manifest = {} if command is None else {MANIFEST: _manifest(command)}
    if source.is_dir():
        if not manifest and not (source / MANIFEST).is_file():
            message = f"{source} has no {MANIFEST}; say how it is run with --command, e.g. 'python predict.py'"
            raise InvalidInputError(message)
        archive.pack_folder(source, target, extra=manifest)
    elif manifest:
        archive.pack_files(target, {source.name: source}, extra=manifest)
    else:
        if not zipfile.is_zipfile(source):
            message = f"{source} is no archive; say how it is run with --command, e.g. 'python {source.name}'"
            raise InvalidInputError(message)
        shutil.copyfile(source, target)
    load_command(target)


def _manifest(command: str) -> bytes:
    try:
        words = shlex.split(command)
    except ValueError as error:
        message = f"the command {command!r} cannot be read: {error}"
        raise InvalidInputError(message) from error
    if not words:
        message = "the command is empty; e.g. 'python predict.py'"
        raise InvalidInputError(message)
    return json.dumps({"command": words}).encode()


def _command_in(content: bytes, name: str) -> tuple[str, ...]:
    fields: Any = None
    with suppress(ValueError, RecursionError):
        fields = json.loads(content) if len(content) <= _MANIFEST_BYTES else None
    words = fields.get("command") if isinstance(fields, dict) and len(fields) == 1 else None
    if not isinstance(words, list) or not words or not all(isinstance(w, str) and w and "\0" not in w for w in words):
        message = f'{MANIFEST} of the model file {name} must be {{"command": ["python", "predict.py"]}} or the like'
        raise ArtifactError(message)
    return tuple(words)


def _labels(answer: bytes, rows: int) -> NDArray[np.int64]:
    import numpy as np

    from easeml_core.training.npy import array_from_bytes

    message = f"the command must answer with {rows:,} whole numbers, one a line or as .npy"
    try:
        if answer.startswith(_NPY_MAGIC):
            labels = array_from_bytes(answer)
        else:
            labels = np.array([_number(line) for line in answer.split()], dtype=np.int64)
    except (ValueError, OverflowError, EOFError) as error:
        raise TrainingError(message + "; its answer is neither") from error
    if labels.dtype.kind in "US" and labels.size:
        raise no_class_number(str(labels.ravel()[0]))
    if labels.shape != (rows,) or labels.dtype.kind not in "iu":
        raise TrainingError(message + f"; it gave {labels.dtype} of shape {labels.shape}")
    return labels.astype(np.int64)


def _number(word: bytes) -> int:
    try:
        return int(word)
    except ValueError as error:
        raise no_class_number(word.decode(errors="replace")) from error
