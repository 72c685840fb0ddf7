"""A model that is a program: a folder with ``command.json`` in an archive, run by the child that predicts.

    command.json     {"command": ["python", "predict.py"]}: see ``command_manifest``
    inputs.npy       put beside it: float32, shape (rows, features), NaN is missing
    standard output  the answers: one a line, or one .npy array, shape (rows,); whole numbers where classes are wanted

``python`` is the interpreter that runs this package. Any other end than status 0 is a failure. Nothing here is safe by
itself: it must be called in a child that has been confined.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from easeml_core import archive
from easeml_core.errors import InvalidInputError, TrainingError
from easeml_core.models.command_manifest import MANIFEST, manifest_of, read_manifest
from easeml_core.models.command_run import run_command
from easeml_core.models.formats import no_class_number, no_number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
        """The labels that the program answers, shape (rows,).

        Raises:
            ArtifactError: If the archive cannot be unpacked.
            TrainingError: If the program fails, or does not answer with one whole number per row.
        """
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
            archive.unpack(self.path, folder)
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
    """The program in an archive; nothing of it is run here, and how it is trained is not looked at.

    Raises:
        ArtifactError: If it is no archive, not one that would be unpacked, or says no command.
    """
    return CommandPredictor(path, read_manifest(path).command)


def pack_command(source: Path, target: Path, *, command: str | None, train: str | None = None) -> None:
    """Pack a folder, or a single program file, for handing in; the same content gives the same bytes.

    Args:
        source: A folder, a file, or an archive that was packed before (which is taken as it is).
        target: The archive to write.
        command: As in a shell, without its expansions, e.g. ``python predict.py``; None where the folder has a
            ``command.json``.
        train: Likewise how it is trained, where it can be.

    Raises:
        InvalidInputError: If no command is given, or two are, or the folder holds what cannot be packed.
        ArtifactError: If an archive was given that cannot be used.
    """
    if command is None and train is not None:
        message = "how it is trained is given, and how it predicts is not; give both, e.g. 'python predict.py'"
        raise InvalidInputError(message)
    manifest = {} if command is None else {MANIFEST: manifest_of(command, train)}
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


def _labels(answer: bytes, rows: int) -> NDArray[np.int64]:
    import numpy as np

    from easeml_core.sandbox.array_pipe import array_from_bytes

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

    from easeml_core.sandbox.array_pipe import array_from_bytes

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
