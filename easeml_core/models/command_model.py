"""A model that is a program: a folder with ``command.json`` in an archive, run by the child that predicts.

    command.json     {"command": ["python", "predict.py"]}, and "train": ["python", "train.py"] if it can be trained;
                     each is a program and its arguments, run without a shell in the unpacked folder
    inputs.npy       put beside it: float32, shape (rows, features), NaN is missing
    standard output  the answers: one a line, or one .npy array, shape (rows,); whole numbers where classes are wanted

``python`` is the interpreter that runs this package. An exit status other than 0 is a failure. Call this in a confined
child only: the program has the folder, the environment and the account of the caller, and ends with it. The caller's
parent sets limits on time and memory, and ends a child with all its descendants.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from easeml_core.errors import ArtifactError, InvalidInputError, TrainingError, TrainingKilled, TrainingTaskError
from easeml_core.files import local as files
from easeml_core.models.formats import no_class_number, no_number
from easeml_core.sandbox.child_protocol import FROM_OUTSIDE, names_missing_package

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Taken = TypeVar("Taken")
    import numpy as np
    from numpy.typing import NDArray


MANIFEST, MODEL_FOLDER = "command.json", "model"
_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a packed folder says of itself.

    Attributes:
        command: How it predicts.
        train: How it is trained; empty where it cannot be.
    """

    command: tuple[str, ...]
    train: tuple[str, ...] = ()


def read_manifest(path: Path) -> Manifest:
    """The manifest in an archive."""
    return _opened(path)[0]


def read_program(path: Path) -> Manifest:
    """The manifest of a program that can be trained."""
    manifest, names = _opened(path)
    if not manifest.train:
        message = (
            f'{MANIFEST} of the program {path.name} does not say how it is trained: add "train": ["python", "train.py"]'
        )
        raise ArtifactError(message)
    if any(name.split("/")[0] == MODEL_FOLDER for name in names):
        message = f"the program {path.name} holds {MODEL_FOLDER}/, which is where what it learns is put; leave it out"
        raise ArtifactError(message)
    return manifest


def manifest_of(command: str, train: str | None) -> bytes:
    """The file, from lines as in a shell, without its expansions.

    Example:
        >>> manifest_of("python predict.py 'a b'", None)
        b'{"command": ["python", "predict.py", "a b"]}'
    """
    lines = {"command": command} | ({} if train is None else {"train": train})
    return json.dumps({name: _words(line) for name, line in lines.items()}).encode()


def _opened(path: Path) -> tuple[Manifest, list[str]]:
    """The manifest, and the names of all files."""
    try:
        with zipfile.ZipFile(path) as packed:
            files.check_entries(packed.infolist())
            with packed.open(MANIFEST) as file:
                content = file.read(_BYTES + 1)
            names = packed.namelist()
    except files.ARCHIVE_FAULTS as error:
        message = f"the model file {path.name} is no archive with a {MANIFEST}: {error}"
        raise ArtifactError(message) from error
    return _manifest_in(content, path.name), names


def _manifest_in(content: bytes, name: str) -> Manifest:
    fields: Any = None
    with suppress(ValueError, RecursionError):
        fields = json.loads(content) if len(content) <= _BYTES else None
    known = isinstance(fields, dict) and "command" in fields and set(fields) <= {"command", "train"}
    if not known or not all(_are_words(words) for words in fields.values()):
        message = (
            f'{MANIFEST} of the model file {name} must be {{"command": ["python", "predict.py"]}} or the like, and '
            'may have "train": ["python", "train.py"] beside it'
        )
        raise ArtifactError(message)
    return Manifest(**{field: tuple(words) for field, words in fields.items()})


def _are_words(words: object) -> bool:
    if not isinstance(words, list) or not words:
        return False
    return all(isinstance(word, str) and word and "\0" not in word for word in words)


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        message = f"the command {line!r} cannot be read: {error}"
        raise InvalidInputError(message) from error
    if not words:
        message = "the command is empty; e.g. 'python predict.py'"
        raise InvalidInputError(message)
    return words


_PYTHON = ("python", "python3")
_KILLED = {-number for number in FROM_OUTSIDE} | {128 + signal.SIGKILL, 128 + signal.SIGTERM}
"""Exit statuses of a program that was killed: by Python's count, and by that of shells and container runtimes."""

_TAIL_BYTES = 1500
_NOT_STARTED = (126, 127)  # of shells, env and container runtimes: a program is not executable, or not there
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # here, so that a child that was only just forked has nothing left to load


def run_command(command: Sequence[str], *, cwd: Path, take: Callable[[IO[bytes]], Taken], shown: str = "") -> Taken:
    """Start a program, read what it writes, and wait for its end."""
    program = [sys.executable, *command[1:]] if command[0] in _PYTHON else list(command)
    name = shown or shlex.join(command)
    try:
        process = subprocess.Popen(
            program, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=_die_with_parent,
        )  # fmt: skip
    except OSError as error:
        message = f"the command {name!r} cannot be started: {error.strerror}"
        raise TrainingTaskError(message) from error
    assert process.stdout is not None  # PIPE was asked for
    with process:
        said = _Tail(process.stderr)
        try:
            taken = take(process.stdout)
        except BaseException:
            process.kill()
            raise
        finally:
            said.join()
    if process.returncode:
        message = f"the command {name!r} ended with exit status {process.returncode}{said.words()}"
        if process.returncode in _KILLED:
            raise TrainingKilled(message)
        of_task = process.returncode in _NOT_STARTED or names_missing_package(said.text())
        raise (TrainingTaskError if of_task else TrainingError)(message)
    return taken


def _die_with_parent() -> None:
    """Between fork and exec: nothing but one call of the kernel, since locks may be held by threads that are gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Tail(threading.Thread):
    """The end of a program's output, read while it runs, so that it never blocks. It may hold parts of the inputs."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        self._pipe, self._kept = pipe, b""
        self.start()

    def run(self) -> None:
        while self._pipe is not None and (chunk := os.read(self._pipe.fileno(), 65536)):
            self._kept = (self._kept + chunk)[-_TAIL_BYTES:]

    def text(self) -> str:
        """All that was kept."""
        return self._kept.decode(errors="replace").strip()

    def words(self) -> str:
        """The last line, which most often tells what went wrong; then all that was kept, if that is more."""
        words = self.text()
        lines = words.splitlines()
        more = f"\n{words}" if len(lines) > 1 else ""
        return f": {lines[-1].strip()}{more}" if words else " and said nothing on standard error"


INPUTS = "inputs.npy"
_NPY_MAGIC = b"\x93NUMPY"
_BYTES_PER_ANSWER, _BYTES_MORE = 24, 4096


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
        """The labels that the program answers, shape (rows,)."""
        return _labels(self._answer(inputs), len(inputs))

    def numbers(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """The numbers that it answers where no classes are predicted, shape (rows,); errors as ``predict``."""
        return _numbers(self._answer(inputs), len(inputs))

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.floating]:
        """The labels: a program gives nothing else."""
        return self.predict(inputs).astype("float64")

    def save(self, path: Path) -> None:
        """Copy the archive."""
        shutil.copyfile(self.path, path)

    def _answer(self, inputs: NDArray[np.float32]) -> bytes:
        import numpy as np

        folder = Path(tempfile.mkdtemp(prefix="submission-"))
        limit = _BYTES_MORE + _BYTES_PER_ANSWER * len(inputs)
        try:
            files.unpack(self.path, folder)
            np.save(folder / INPUTS, np.ascontiguousarray(inputs, dtype=np.float32), allow_pickle=False)
            return run_command(self.command, cwd=folder, take=partial(_bounded, limit=limit))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _bounded(output: IO[bytes], *, limit: int) -> bytes:
    """All that a program writes; TrainingError if that is more than ``limit`` bytes."""
    answer = output.read(limit + 1)
    if len(answer) > limit:
        message = f"the command wrote more than {limit:,} bytes to standard output; it must write labels only"
        raise TrainingError(message)
    return answer


def load_command(path: Path) -> CommandPredictor:
    """The program in an archive; nothing of it is run here, and how it is trained is not looked at."""
    return CommandPredictor(path, read_manifest(path).command)


def pack_command(source: Path, target: Path, *, command: str | None, train: str | None = None) -> None:
    """Pack a folder, or a single program file, for handing in; the same content gives the same bytes."""
    if command is None and train is not None:
        message = "how it is trained is given, and how it predicts is not; give both, e.g. 'python predict.py'"
        raise InvalidInputError(message)
    manifest = {} if command is None else {MANIFEST: manifest_of(command, train)}
    if source.is_dir():
        if not manifest and not (source / MANIFEST).is_file():
            message = f"{source} has no {MANIFEST}; say how it is run with --command, e.g. 'python predict.py'"
            raise InvalidInputError(message)
        files.pack_folder(source, target, extra=manifest)
    elif manifest:
        files.pack_files(target, {source.name: source}, extra=manifest)
    else:
        if not zipfile.is_zipfile(source):
            message = f"{source} is no archive; say how it is run with --command, e.g. 'python {source.name}'"
            raise InvalidInputError(message)
        shutil.copyfile(source, target)
    load_command(target)


def _labels(answer: bytes, rows: int) -> NDArray[np.int64]:
    import numpy as np

    from easeml_core.models.answers import array_from_bytes

    message = f"the command must answer with {rows:,} whole numbers, one a line or as .npy"
    try:
        if answer.startswith(_NPY_MAGIC):
            labels = array_from_bytes(answer)
        else:
            labels = np.array([_whole(line) for line in answer.split()], dtype=np.int64)
    except (ValueError, OverflowError, EOFError) as error:
        raise TrainingError(message + "; its answer is neither") from error
    if labels.dtype.kind in "US" and labels.size:
        raise no_class_number(str(labels.ravel()[0]))
    if labels.shape != (rows,) or labels.dtype.kind not in "iu":
        raise TrainingError(message + f"; it gave {labels.dtype} of shape {labels.shape}")
    return labels.astype(np.int64)


def _whole(word: bytes) -> int:
    try:
        return int(word)
    except ValueError as error:
        raise no_class_number(word.decode(errors="replace")) from error


def _numbers(answer: bytes, rows: int) -> NDArray[np.float64]:
    import numpy as np

    from easeml_core.models.answers import array_from_bytes

    message = f"the command must answer with {rows:,} numbers, one a line or as .npy"
    found: NDArray[Any]
    try:
        if answer.startswith(_NPY_MAGIC):
            found = array_from_bytes(answer)
        else:
            found = np.array([_real(word) for word in answer.split()], dtype=np.float64)
    except (ValueError, EOFError) as error:
        raise TrainingError(message + "; its answer is neither") from error
    if found.shape != (rows,) or found.dtype.kind not in "iuf":
        raise TrainingError(message + f"; it gave {found.dtype} of shape {found.shape}")
    numbers = found.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise TrainingError(message + "; some of its answers are not finite")
    return numbers


def _real(word: bytes) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise no_number(word.decode(errors="replace")) from error
