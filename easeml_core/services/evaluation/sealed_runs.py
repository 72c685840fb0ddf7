"""Run models on sealed inputs: in a child process without labels, without database, each artifact once.

A model may run for minutes, while no transaction is open and no lock is held: a decision that needs runs stops and
names all of them (``NotRunError``), they are made and stored (``Preparation.run``), and the decision starts again once.

A process that is killed, or runs out of time or memory, is no failure of the model while the model may prove able to
run: the decision postpones the request (``backoff.py``). The open validation rows, where the model is run alone and
with the same limits, distinguish this from a model that cannot run: one that fails there too has failed. Where the open
rows end by such a fault as well, the same must have happened once before, a pause ago. None of this reads a label.

A part of the sealed rows is run a second time (``models/predict.py``): a model whose answers differ from those of
the single rows counts as one that could not be run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import logging
import os
import tempfile
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from easeml_core.data.layout import stored_target
from easeml_core.data.parts import load_open_parts
from easeml_core.errors import (
    ArtifactError,
    ConcurrentUpdateError,
    SchemaVersionError,
    StateError,
    StoreUnavailableError,
    TrainingError,
    TrainingKilled,
    TrainingStarved,
    is_put_off,
)
from easeml_core.metrics.metric import wrong
from easeml_core.models.answers import wanted_of
from easeml_core.models.formats import load_constant
from easeml_core.models.predict import predict_in_child, require_same, right_within, rows_to_repeat
from easeml_core.sandbox.isolation import Sandbox, probe_isolation
from easeml_core.services.evaluation.backoff import Patience
from easeml_core.services.evaluation.model_runs import Computed
from easeml_core.store.tables import sealed, studies
from easeml_core.store.tables.sealed import Predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.entities import DataVersion, Model
    from easeml_core.models.answers import WantedAnswers
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a model that a decision needs.

    Attributes:
        model: The model.
        test_set_id: The sealed set whose inputs it is run on; None for the open validation part.
    """

    model: Model
    test_set_id: int | None

    @property
    def has_code(self) -> bool:
        """Whether code of the model runs; a constant has none, and its duration reveals nothing."""
        return self.model.format != "constant"


class NotRunError(Exception):
    """A decision needs runs of models that have not been made; it must start again after them. Not a failure.

    Attributes:
        runs: All of them, in order.
    """

    def __init__(self, *runs: Run) -> None:
        self.runs = runs
        super().__init__(f"models {', '.join(sorted({str(run.model.id) for run in runs}))} were not run yet")


class NotJudgedError(Exception):
    """A decision needs a result from sealed labels that was not computed; it must start again after it.

    Attributes:
        key: All inputs of the result.
        compute: Computes it, and reads no database.
    """

    def __init__(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> None:
        self.key, self.compute = key, compute
        super().__init__("a decision was not computed yet")


class Preparation:
    """Runs of models for decisions, and their results that the database does not hold.

    Args:
        store: Role ``easeml_referee``.
        artifacts: Where models and data lie.
        computed: What was computed before the decision; None where results of sealed labels are computed within it.

    Attributes:
        patience: Postponements of the request for which runs are made now.
    """

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        computed: Computed | None = None,
    ) -> None:
        self._store, self._artifacts, self._computed = store, artifacts, computed
        self.patience = Patience()
        kept = Computed() if computed is None else computed
        self._losses, self._answers = kept.losses, kept.answers
        self._errors: dict[tuple[str, int | None], Exception] = {}
        self._tasks: dict[int, StudyTask] = {}
        self._inputs: dict[int, tuple[NDArray[Any], bytes]] = {}

    def run(self, missing: NotRunError) -> None:
        """Make the runs that a decision lacked, one after the other; each result is stored before the next run.

        Outside of any transaction. Once a model cannot be run, no other model is: no decision compares with it. An
        error is kept for the decision (``missing``); the runs after it are not made.
        """
        for run, keep in self._made(missing.runs):
            self._noted(run, keep)

    def steps(self, missing: NotRunError) -> Generator[None, None, None]:
        """As ``run``, in one step: nothing is stored before the padded end of all runs together.

        Yields once, however the runs end, where code of a model was run.
        """
        kept: list[tuple[Run, Callable[[], object]]] = []
        try:
            kept.extend(self._made(missing.runs))
        finally:
            if any(run.has_code for run in missing.runs):
                yield
        for run, keep in kept:
            self._noted(run, keep)

    def _made(self, runs: Sequence[Run]) -> Iterator[tuple[Run, Callable[[], object]]]:
        """Make runs; yield each with what stores its result.

        All that the database has for them is read before the first: a transaction between two runs would show when the
        first has ended.
        """
        if not runs or self._noted(runs[0], partial(self._load, runs)) is None:
            return
        unable: Model | None = None
        for run in runs:
            if unable not in (None, run.model):
                return
            found = self._noted(run, partial(self._run_on, run.model, run.test_set_id))
            if found is None:
                return
            could_run, keep = found
            yield run, keep
            unable = unable if could_run else run.model

    def _load(self, runs: Sequence[Run]) -> bool:
        """Read the sets' inputs and the studies' requirements; True."""
        with self._store.begin() as tx:
            self._tasks = {study_id: _task_of(tx, study_id) for study_id in {run.model.study_id for run in runs}}
            sets = {run.test_set_id for run in runs if run.test_set_id is not None}
            self._inputs = {set_id: sealed.inputs_and_secret(tx, set_id) for set_id in sets}
        return True

    def _noted(self, run: Run, work: Callable[[], T]) -> T | None:
        """Do some work of a run; an error of the run is kept for the decision, and None returned."""
        try:
            return work()
        except (StoreUnavailableError, ConcurrentUpdateError, SchemaVersionError):
            raise
        except Exception as error:  # the decision reports it
            self._errors[run.model.identity, run.test_set_id] = error
            return None

    def judged(self, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """Return a result of sealed labels: computed now, or before this decision outside any transaction.

        Its duration depends on the labels, and every role sees how long a transaction or a lock lasts.
        """
        if self._computed is None:
            return compute()
        if key not in self._computed.judged:
            raise NotJudgedError(key, compute)
        found: T = self._computed.judged[key]
        return found

    def missing(self, *runs: Run) -> Exception:
        """Return what a decision without these runs raises: the first error of one, or that they were not made.

        A kill on the validation part, of a request that is not postponed any more, is a model that cannot be run there.
        """
        for run in runs:
            error = self._errors.get((run.model.identity, run.test_set_id))
            if error is not None:
                return _no_loss(run.model) if run.test_set_id is None and self.is_last(error) else error
        return NotRunError(*runs)

    def is_last(self, error: Exception) -> bool:
        """Whether a process was ended, and the request is not postponed any more for that."""
        return isinstance(error, TrainingKilled | TrainingStarved) and not self.patience.allows(error)

    def loss(self, model: Model, data: str) -> float | None:
        """Return the model's loss on the validation part of this data (an artifact), or None when it was not run."""
        return self._losses.get((model.identity, data))

    def answers(self, model: Model, data: str) -> NDArray[Any] | None:
        """Return the model's answers on that part, one for each example, or None when it was not run there."""
        return self._answers.get((model.identity, data))

    def _run_on(self, model: Model, test_set_id: int | None) -> tuple[bool, Callable[[], object]]:
        """Make one run; return whether the model could be run, and what stores the result."""
        if test_set_id is None:
            return True, self._measure(model)
        labels, failure = self._sealed_run(model, test_set_id)
        return labels is not None, partial(_keep, self._store, model, test_set_id, labels=labels, failure=failure)

    def _sealed_run(self, model: Model, test_set_id: int) -> tuple[NDArray[Any] | None, str | None]:
        """As the function of this name; a model whose process was ended has failed if it fails on open rows too."""
        try:
            task = self._tasks[model.study_id]
            files = self._artifacts.of_tenant(task.tenant)
            return _sealed_run(files, model, test_set_id, task, *self._inputs[test_set_id])
        except (TrainingKilled, TrainingStarved) as error:
            failed = self._open_failure(model)
            if failed is None:
                raise
            return None, f"{error}\non the open validation rows too: {failed}"

    def _open_failure(self, model: Model) -> str | None:
        """Return why the model fails on the open validation rows, alone and with the same limits; None if unknown."""
        task = self._tasks[model.study_id]
        artifacts = self._artifacts.of_tenant(task.tenant)
        with artifacts.copy(task.data) as path:
            inputs = load_open_parts(path).validation_inputs
        try:
            with artifacts.copy(model.artifact) as path, _apart():
                predict_in_child(path, model.format, inputs, wanted=task.wanted)
        except (TrainingKilled, TrainingStarved) as error:
            return str(error) if self.patience.put_offs else None
        except TrainingError as error:
            return str(error)
        return None

    def _measure(self, model: Model) -> Callable[[], object]:
        """Run a model on the validation part; return what stores its answers and its loss."""
        task = self._tasks[model.study_id]
        artifacts = self._artifacts.of_tenant(task.tenant)
        with artifacts.copy(task.data) as path:
            parts = load_open_parts(path)
        answers, failure = run_model(artifacts, model, parts.validation_inputs, task.wanted)
        if answers is None:
            # The text may come from what another run of the model has left behind, so it is never shown.
            logger.info("model %d cannot be run on the validation part: %s", model.id, failure)
            raise _no_loss(model)
        key, loss = (model.identity, task.data), float(np.mean(wrong(task.hit, parts.validation_labels, answers)))

        def keep() -> None:
            self._answers[key], self._losses[key] = answers, loss

        return keep


def sealed_predictions(tx: Connection, ready: Preparation, test_set_id: int, *models: Model) -> list[Predictions]:
    """Return the predictions of models on a sealed set, or why they failed; the first that failed is the last listed.

    A model that cannot be run on the inputs has failed on them: that is a property of the submission, so it is stored
    and counted like any other outcome. One whose process was ended again after the last postponement has failed for
    this request only.
    """
    known = sealed.known_predictions(tx, test_set_id, *(model.identity for model in models))
    unknown = {model.identity: Run(model, test_set_id) for model in models if model.identity not in known}
    found: list[Predictions] = []
    for model in models:
        if model.identity in known:
            found.append(known[model.identity])
        else:
            error = ready.missing(unknown[model.identity])
            if isinstance(error, NotRunError):
                raise NotRunError(*unknown.values())
            if not ready.is_last(error):
                raise error
            found.append(Predictions(None, f"put off {ready.patience.put_offs} times; {error}"))
        if found[-1].labels is None:
            break
    return found


def validation_loss(ready: Preparation, model: Model, version: DataVersion) -> float:
    """Return the 0-1 loss of the model on the validation part of this data, measured by the referee, in [0, 1].

    The loss that a worker stored is not trusted here.
    """
    loss = ready.loss(model, version.artifact)
    if loss is None:
        raise ready.missing(Run(model, None))
    return loss


def _no_loss(model: Model) -> StateError:
    return StateError(
        f"model {model.id} cannot be run on the validation part; run it there to see why, and train it again"
    )


def sealed_run_steps(
    store: Store, artifacts: ArtifactStore, model: Model, test_set_id: int
) -> Generator[None, None, None]:
    """Run a model on a sealed set and store its predictions, or why it failed; no transaction is open meanwhile.

    Yields after the run, and stores the result when resumed: a row that is written as soon as the run ends would reveal
    its duration.
    """
    with store.begin() as tx:
        task, (inputs, secret) = _task_of(tx, model.study_id), sealed.inputs_and_secret(tx, test_set_id)
    run = partial(_sealed_run, artifacts.of_tenant(task.tenant), model, test_set_id, task, inputs, secret)
    labels, failure = yield from _stepped(model, run)
    _keep(store, model, test_set_id, labels=labels, failure=failure)


def _sealed_run(
    artifacts: ArtifactStore,
    model: Model,
    test_set_id: int,
    task: StudyTask,
    inputs: NDArray[Any],
    secret: bytes,
) -> tuple[NDArray[Any] | None, str | None]:
    """Return a model's predictions on a sealed set, or None and why it failed.

    The first answers count, and only if a part of the rows gets the same ones a second time.
    """
    labels, failure = run_model(artifacts, model, inputs, task.wanted)
    if labels is not None and model.format != "constant":
        repeated = rows_to_repeat(labels, _repetition_key(secret, model, test_set_id))
        again, failure = run_model(artifacts, model, inputs[repeated], task.wanted)
        failure = failure if again is None else _difference(labels[repeated], again, task.hit)
        labels = labels if failure is None else None
    return labels, failure


@dataclass(frozen=True, slots=True)
class StudyTask:
    """A study's requirements on its models.

    Attributes:
        tenant: Whose it is: where its files lie.
        data: Artifact of its newest data, on whose validation part models are measured.
        wanted: The targets that a model predicts, as that data has them.
        hit: What counts as right.
    """

    tenant: str
    data: str
    wanted: WantedAnswers
    hit: str


def _task_of(tx: Connection, study_id: int) -> StudyTask:
    found = studies.required_answers(tx, study_id)
    return StudyTask(found.tenant, found.artifact, wanted_of(found.task, stored_target(found.layout)), found.hit)


def _keep(store: Store, model: Model, test_set_id: int, *, labels: NDArray[Any] | None, failure: str | None) -> None:
    isolation = None if model.format == "constant" else probe_isolation(Sandbox()).to_json()
    with store.begin() as tx:
        sealed.keep_predictions(tx, test_set_id, model.identity, labels=labels, failure=failure, isolation=isolation)


def _repetition_key(secret: bytes, model: Model, test_set_id: int) -> bytes:
    """Return the key that chooses the rows to run again: unpredictable to users, the same whenever repeated."""
    return hmac.digest(secret, f"repetition|{test_set_id}|{model.identity}".encode(), "sha256")


def _difference(first: NDArray[Any], again: NDArray[Any], hit: str) -> str | None:
    """Return why a model's answers to rows differ from those among all others, or None if they do not."""
    try:
        require_same(first, again, right_within=right_within(hit))
    except TrainingError as error:
        return str(error)
    return None


def _stepped(model: Model, run: Callable[[], T]) -> Generator[None, None, T]:
    """Make a run, and yield before anything follows from it, however it ends.

    A constant runs no code of a user, so its duration reveals nothing.
    """
    try:
        return run()
    finally:
        if model.format != "constant":
            yield


def at_once(steps: Generator[None, None, T]) -> T:
    """Take all steps of some work, one after the other; return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found


def run_model(
    artifacts: ArtifactStore, model: Model, inputs: NDArray[np.float32], wanted: WantedAnswers
) -> tuple[NDArray[Any] | None, str | None]:
    """Return the predictions of a model on a private copy of its file, or None and why it could not be run.

    A failure is tried once more, so that a busy machine is not taken for a broken model; a kill, a time-out or a fault
    of the disk is raised instead. A constant needs no child: its file is a line of JSON.
    """
    failure: str | None = None
    with artifacts.copy(model.artifact) as path:
        for _ in range(2):
            try:
                if model.format == "constant":
                    return wanted.checked(load_constant(path).predict(inputs), len(inputs)), None
                with _apart():
                    return predict_in_child(path, model.format, inputs, wanted=wanted), None
            except (TrainingError, ArtifactError) as error:
                if is_put_off(error):
                    raise
                failure = str(error)
    return None, failure


def side_by_side() -> bool:
    """Whether the sandbox keeps models that run at the same time from each other's processes and files."""
    return {"processes", "files"} <= set(probe_isolation(Sandbox()).kept_from)


_ALONE = threading.Lock()


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Let no other model run meanwhile where they could see each other (``side_by_side``).

    Then models of one account, on this machine, run one after the other, whichever referee starts them.
    """
    if side_by_side():
        yield
        return
    with _ALONE, contextlib.ExitStack() as held:
        path = Path(tempfile.gettempdir()) / f"easeml-models-{os.geteuid()}.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:  # another account has made the file: this process alone keeps the order
            logger.warning("models of other referees on this machine may run beside this one's: %s", error)
        yield
