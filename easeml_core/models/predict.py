"""Predict with a stored model in a child process without labels, database or secrets.

A submitted model may run any code. It reads the inputs from a pipe and writes one answer per row to another; limits on
time and memory end it. It runs in a sandbox: a dedicated account, no network, no other processes, no other files, as
far as this machine allows (``sandbox.isolation.probe_isolation``).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import MachineError, ShapeError, TrainingError, TrainingKilled, TrainingStarved
from easeml_core.files import scratch_folder
from easeml_core.models.answers import A_CLASS
from easeml_core.models.formats import modules_of
from easeml_core.sandbox.array_pipe import array_from_bytes, array_to_bytes
from easeml_core.sandbox.isolation import Sandbox, confinement_of
from easeml_core.sandbox.namespaces import FAILED, MADE
from easeml_core.sandbox.process import Limits, run_child

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from easeml_core.models.answers import WantedAnswers

logger = logging.getLogger(__name__)

CHILD = "easeml_core.models.predict_child"
_HEADER_BYTES = 4096


def predict_in_child(
    artifact_path: Path,
    format: str,
    inputs: ArrayLike,
    *,
    time_limit_seconds: float = 120.0,
    memory_limit_mb: int = 4096,
    sandbox: Sandbox | None = Sandbox(),  # noqa: B008 - frozen
    wanted: WantedAnswers = A_CLASS,
) -> NDArray[Any]:
    """The answers that a model gives.

    Args:
        artifact_path: The model's file.
        format: A key of ``formats.FORMATS``.
        inputs: Numbers, shape (rows, features), taken as float32; NaN is missing.
        time_limit_seconds: Wall seconds of the whole child, > 0.
        memory_limit_mb: Resident megabytes of the child; and, on top, of the files that it writes.
        sandbox: What the child is kept from; None for nothing but its environment and limits.
        wanted: What is asked of it.

    Returns:
        int64 labels, shape (rows,), or what else is wanted.

    Raises:
        ShapeError: If the inputs are not a table.
        TrainingError: If the model is not loaded (with the reason), fails, exceeds a limit, or does not give exactly
            one whole number per row, or what else is wanted. Its text may hold what the model has written: show it
            only to roles that may know the inputs.
        TrainingKilled: If its process was killed, from outside or by the model itself.
        TrainingStarved: If it ran out of time, or found no memory.
        MachineError: If the sandbox cannot be made any more, or the process did not live until it was; the model was
            not run.
        ConfigError: If the sandbox's account does not exist.
    """
    rows = np.ascontiguousarray(inputs, dtype=np.float32)
    if rows.ndim != 2:
        name = "inputs"
        raise ShapeError(name, rows.shape, "(rows, features)")
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    answer = _Bounded(len(MADE) + _HEADER_BYTES + wanted.most_bytes * len(rows))

    def feed(pipe: IO[bytes]) -> None:
        pipe.write(array_to_bytes(rows))

    arguments = [str(artifact_path.resolve()), format, json.dumps(wanted.to_json())]
    confinement = None if sandbox is None else confinement_of(sandbox, memory_mb=memory_limit_mb)
    if confinement is not None:
        arguments.append(json.dumps(confinement.to_json()))
    try:
        with scratch_folder("predict", ignore_cleanup_errors=True) as folder:
            run_child(
                CHILD,
                arguments,
                cwd=Path(folder),
                limits=Limits(time_limit_seconds, memory_limit_mb),
                on_output=answer.take,
                on_poll=_nothing,
                feed=feed,
                loads=(*modules_of(format), "easeml_core.sandbox.array_pipe"),
                warm=confinement is not None and confinement.is_apart,
            )
    except TrainingError as error:
        if not answer.content.startswith(MADE):
            _not_the_models_fault(error)
        raise
    except RecursionError as error:  # where the files part is missing: what it left cannot be walked through
        message = "the model left folders too deep to be removed"
        raise TrainingError(message) from error
    return _answers(answer, len(rows), wanted)


class _Bounded:
    """Bytes up to a limit; whatever comes after is counted and dropped."""

    def __init__(self, limit: int) -> None:
        self.limit, self.seen, self.content = limit, 0, bytearray()

    def take(self, chunk: bytes) -> None:
        """Keep what fits."""
        self.seen += len(chunk)
        self.content += chunk[: self.limit - len(self.content)]


def _not_the_models_fault(error: TrainingError) -> None:
    """Raise MachineError for a sandbox that cannot be made, or a kill before the model is loaded.

    Only for a child that has not written MADE yet. A model that forges these words later must still fail: a refusal
    without a step spent, chosen by its inputs, would release information about them.
    """
    if isinstance(error, TrainingKilled | TrainingStarved):
        ended = str(error).splitlines()[0]
        message = f"the process that was to load the model ended before it did ({ended}); the model was not judged"
        raise MachineError(message) from error
    if str(error).startswith(FAILED):
        logger.error("%s", error)
        message = "the sandbox in which models are run could not be made as before; the model was not judged, try again"
        raise MachineError(message) from error


def _nothing() -> None:
    """Do nothing: there is no lease to check."""


def _answers(answer: _Bounded, rows: int, wanted: WantedAnswers) -> NDArray[Any]:
    message = wanted.demand(rows)
    if answer.seen > answer.limit:
        message += f"; it wrote {answer.seen:,} bytes"
        raise TrainingError(message)
    try:
        found = array_from_bytes(bytes(answer.content.removeprefix(MADE)))
    except (ValueError, EOFError) as error:
        message += "; its answer is no array"
        raise TrainingError(message) from error
    return wanted.checked(found, rows)
