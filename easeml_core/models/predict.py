"""Predict with a stored model in a child process without labels, database or secrets; and predict some rows again.

A submitted model may run any code. It reads the inputs from a pipe and writes one answer per row to another; limits on
time and memory end it. It runs in a sandbox: a dedicated account, no network, no other processes, no other files, as
far as this machine allows (``sandbox.isolation.probe_isolation``).

The statistics of gate and meter assume that each example is answered independently. A program sees all rows at once, so
an answer could depend on the others (ranks, means of the batch, the number of rows) or on chance. So some rows are
predicted again, in a smaller batch and another order. The check is not a proof: it misses a dependence that a random
part of the rows shows as well as all rows, or that touches few rows.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import MachineError, ShapeError, TrainingError, TrainingKilled, TrainingStarved
from easeml_core.files.local import scratch_folder
from easeml_core.models.answers import A_CLASS, array_from_bytes, array_to_bytes
from easeml_core.models.formats import modules_of
from easeml_core.sandbox.confinement import FAILED, MADE
from easeml_core.sandbox.isolation import Sandbox, confinement_of
from easeml_core.sandbox.process import Limits, run_child

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from easeml_core.models.answers import WantedAnswers


MOST_ROWS = 1000
"""How many rows are asked again at most: it bounds what the second run costs."""

ROWS_PER_CHANGE = 500
"""One changed answer is let through for so many full rows.

Rounding may differ with the number of rows and tip an argmax that was all but even. None did in millions of answers of
every kind that is trained here (docs/gate.md), so this is for programs of others. It gives little away: a share of
1 / 500 would have a chance of exp(-2) not to be among 1,000 rows at all.
"""


_ROUNDING, _ROUNDING_NEAR_ZERO = 1e-4, 1e-6
"""Numbers that differ by less count as the same, since models reckon with 32 bits: a share of the number itself, and of
the largest one for those near 0."""

_OF_RIGHT, _FLOAT32 = 1 / 20, 5e-7
"""But by no more than this share of how far off a right number may be: one huge answer, or targets that are large
beside that, would let a program answer as it likes. Four roundings of a number of 32 bits are always let through."""


def rows_to_repeat(labels: NDArray[Any], key: bytes) -> NDArray[np.int64]:
    """Which rows are asked again, in their new order.

    At most half of them: a model that looks at how many there are is asked about another number. And three of four, as
    far as there are, from every other class that it has answered: means and ranks of these rows are not those of all,
    while in a random half of few rows they often are.

    Example:
        >>> [len(rows_to_repeat(np.zeros(rows), b"key")) for rows in (0, 1, 7, 1999, 50_000)]
        [0, 1, 4, 1000, 1000]
    """
    rng = np.random.default_rng(np.frombuffer(key, dtype=np.uint8))
    labels = labels if labels.ndim == 1 else np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    size = min(MOST_ROWS, (len(labels) + 1) // 2)
    order = rng.permutation(len(labels))
    often = rng.permutation(np.unique(labels))[::2]
    is_often = np.isin(labels[order], often)
    many, few = order[is_often], order[~is_often]
    fewer = max(size - len(many), min(size // 4, len(few)))
    return rng.permutation(np.concatenate([many[: size - fewer], few[:fewer]])).astype(np.int64)


def right_within(hit: str) -> float:
    """How far off a right answer may be; infinite where it is a class.

    Example:
        >>> right_within("within:0.5"), right_within("accuracy")
        (0.5, inf)
    """
    return float(hit.partition(":")[2] or math.inf)


def require_same(first: NDArray[Any], again: NDArray[Any], *, right_within: float = math.inf) -> None:
    """Compare the answers to the same rows; numbers may differ by rounding, as the order of sums may."""
    others = ~_close(first, again, right_within) if first.dtype.kind == "f" else first != again
    changed = int(np.count_nonzero(others.reshape(len(others), -1).any(axis=1)))
    if changed > len(first) // ROWS_PER_CHANGE:
        message = (
            f"its answers depend on which examples it sees, or change from run to run: {changed:,} of {len(first):,} "
            "were others when the same rows came among fewer and in another order"
        )
        raise TrainingError(message)


def _close(first: NDArray[Any], again: NDArray[Any], right_within: float) -> NDArray[np.bool_]:
    size = np.abs(first)
    rounding = _ROUNDING * size + _ROUNDING_NEAR_ZERO * np.max(size, initial=0.0)
    allowed = np.maximum(np.minimum(rounding, _OF_RIGHT * right_within), _FLOAT32 * size)
    with np.errstate(over="ignore"):  # infinitely far from each other is far enough
        return np.asarray(np.abs(again - first) <= allowed)


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
    """The answers that a model gives."""
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
                loads=(*modules_of(format), "easeml_core.models.answers"),
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
