"""``infer``: map inputs to outputs with a model of a study: that in production, the best so far, or a named one.

A ``WarmModels`` keeps a few models loaded between calls and drops the least recently used one for another.
"""

from __future__ import annotations

import csv
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import UNSET, UnsetType

from easeml_core.data.rows.row_files import read_rows, rows_in_blocks
from easeml_core.data.rows.row_format import rows_of_json
from easeml_core.entities import StudyState
from easeml_core.errors import InvalidInputError, StateError
from easeml_core.files.local import written_whole
from easeml_core.formats.csv_text import GuardedWriter
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.models.answers import probabilities_of
from easeml_core.models.predict import predict_in_child
from easeml_core.models.warm_model import ModelGoneError, WarmModel
from easeml_core.sandbox.isolation import Sandbox, probe_isolation
from easeml_core.services.studies.columns import answers_of_study, row_form
from easeml_core.store.tables import models, releases, studies
from easeml_core.store.tables.model_life import removed_why

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TextIO

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.data.rows.row_format import RowForm, Rows
    from easeml_core.entities import Model
    from easeml_core.models.answers import WantedAnswers
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.models import Origin


PRODUCTION, BEST = "production", "best"
_LONGEST_ID = 18


@typed_record
class Latency:
    """Duration of an answer in milliseconds, the start of the process included."""

    total_ms: float
    ms_per_row: float


@typed_record
class Inferred:
    """The answers of one model.

    Attributes:
        study: The study.
        model_id: Which model has answered.
        model: ``production``, ``best`` or ``named``.
        candidate: What was trained; None for a model that was handed in.
        data_version: Version of the data that it was trained on.
        labels: Names of classes, or numbers, or lists of them where an answer is an image, a series or the like.
        columns: What the rows came with, by name.
        probabilities: Of each row, class to probability; None where not requested.
        latency: Duration of the call.
    """

    study: str
    model_id: int
    model: str
    candidate: str | None
    data_version: int
    labels: list[Any]
    columns: dict[str, list[str]]
    probabilities: list[dict[str, float]] | None
    latency: Latency


@typed_record
class InferredAnswers:
    """The answers of one model without the caller's columns; fields as of ``Inferred``.

    ``probabilities`` are left out where there are none, and ``labels`` where they were written to a file.
    """

    study: str
    model_id: int
    model: str
    candidate: str | None
    data_version: int
    labels: list[Any] | UnsetType = field(default=UNSET, kw_only=True)
    probabilities: list[dict[str, float]] | UnsetType = field(default=UNSET, kw_only=True)
    latency: Latency = field(kw_only=True)


@typed_record
class InferenceResult(InferredAnswers):
    """What a task gives: the answers, how many rows there are, and the file of the answers or None."""

    rows: int = field(kw_only=True)
    answers: str | None = field(kw_only=True)


def public_answers(found: Inferred) -> InferredAnswers:
    """Return the answers without the caller's columns, which may have any content."""
    facts = row_of(found)
    del facts["columns"]
    return InferredAnswers(**facts | {"probabilities": UNSET if found.probabilities is None else found.probabilities})


def infer(
    store: Store,
    artifacts: ArtifactStore,
    *,
    study: str,
    inputs: Sequence[Any] | None = None,
    path: Path | None = None,
    model: str | int = PRODUCTION,
    probabilities: bool = False,
    warm: WarmModels | None = None,
    most_answers: int | None = None,
    apart: bool = False,
) -> Inferred:
    """The answers of one model to some inputs.

    The model runs in a separate process, confined as far as this machine allows. The start of that process is most of
    the time of a single answer; ``latency`` has the whole time.
    """
    began = time.perf_counter()
    if (inputs is None) == (path is None):
        message = "give inputs, or the path of a file"
        raise InvalidInputError(message)
    asked = _asked(store, artifacts, study, model, probabilities=probabilities)
    if apart:
        _require_apart(asked.model)
    form = asked.form
    rows = rows_of_json(inputs or [], form, labelled=False, origin="inputs") if path is None else read_rows(path, form)
    asked_numbers = len(rows.inputs) * max(1, asked.wanted.numbers, len(form.class_names) if probabilities else 0)
    if most_answers is not None and asked_numbers > most_answers:
        message = (
            f"the answer would have {asked_numbers:,} numbers, more than {most_answers:,}; send fewer rows at once"
        )
        raise InvalidInputError(message)
    if warm is not None:
        return _answered(asked, rows, partial(warm.answer, asked.artifacts, asked.model), began)
    with asked.artifacts.copy(asked.model.artifact) as file:
        return _answered(asked, rows, _in_child(asked, file), began)


def infer_into(
    store: Store,
    artifacts: ArtifactStore,
    *,
    study: str,
    path: Path,
    answers: Path,
    model: str | int = PRODUCTION,
    probabilities: bool = False,
) -> InferenceResult:
    """Write the answers of one model to the rows of a file or folder into a CSV file, whole or not at all.

    A table of any size is read, answered and written some rows at a time (``rows_in_blocks``); a new process answers
    each block. The model is chosen once.
    """
    began, rows = time.perf_counter(), 0
    asked = _asked(store, artifacts, study, model, probabilities=probabilities)
    with (
        asked.artifacts.copy(asked.model.artifact) as file,
        written_whole(answers) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as written,
    ):
        for block in rows_in_blocks(path, asked.form):
            found = _answered(asked, block, _in_child(asked, file), began)
            write_answers_to(written, found, is_first=rows == 0)
            rows += len(found.labels)
    facts = row_of(public_answers(found)) | {"labels": UNSET, "probabilities": UNSET, "latency": _latency(began, rows)}
    return InferenceResult(**facts, rows=rows, answers=str(answers))


_Ask: TypeAlias = "Callable[[WantedAnswers, NDArray[np.float32]], NDArray[Any]]"


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who answers what: a model of a study, and the form of inputs and answers; ``word`` is how it was asked for."""

    study: str
    word: str
    model: Model
    origin: Origin
    artifacts: ArtifactStore
    form: RowForm
    wanted: WantedAnswers
    probabilities: bool


def _asked(store: Store, artifacts: ArtifactStore, study: str, model: str | int, *, probabilities: bool) -> _Asked:
    """Return the model that is asked, whose file is there; errors as of ``infer``."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        if found.state is StudyState.ARCHIVED:
            message = f"study {study!r} is archived, so that no model of it answers; `easeml study restore {study}`"
            raise StateError(message)
        artifacts = artifacts.of_tenant(found.tenant)
        form = row_form(tx, artifacts, studies.latest_data_version(tx, found.id))
        wanted = answers_of_study(tx, found.id)
        chosen = _model(tx, found.id, study, model)
        if (why := removed_why(tx, chosen.id)) is not None:
            message = f"the file of model {chosen.id} was removed on {why}; train it again, or ask another model"
            raise StateError(message)
        origin = models.origin(tx, chosen.id)
    if probabilities and not form.class_names:
        message = f"study {study!r} predicts numbers, which have no probabilities"
        raise InvalidInputError(message)
    word = str(model) if model in (PRODUCTION, BEST) else "named"
    return _Asked(study, word, chosen, origin, artifacts, form, wanted, probabilities)


def _in_child(asked: _Asked, file: Path) -> _Ask:
    """Return how a model in a file is asked, with a process for each question."""
    return lambda wanted, inputs: predict_in_child(file, asked.model.format, inputs, wanted=wanted)


def _answered(asked: _Asked, rows: Rows, ask: _Ask, began: float) -> Inferred:
    names = asked.form.class_names
    answers = ask(asked.wanted, rows.inputs)
    chances = ask(probabilities_of(len(names)), rows.inputs) if asked.probabilities else None
    labels = [_name(names, int(label)) for label in answers] if names else answers.tolist()
    return Inferred(
        study=asked.study,
        model_id=asked.model.id,
        model=asked.word,
        candidate=asked.origin.candidate,
        data_version=asked.origin.data_version,
        labels=labels,
        columns={name: list(cells) for name, cells in rows.columns.items()},
        probabilities=None if chances is None else [dict(zip(names, map(float, row), strict=True)) for row in chances],
        latency=_latency(began, len(labels)),
    )


def _latency(began: float, rows: int) -> Latency:
    total = 1000 * (time.perf_counter() - began)
    return Latency(round(total, 1), round(total / rows, 4))


def write_answers(path: Path, answers: Inferred) -> None:
    """Write the answer of ``infer`` as a CSV file: the rows' columns, the answer, then probabilities."""
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        write_answers_to(file, answers)


def write_answers_to(file: TextIO, answers: Inferred, *, guard: bool = False, is_first: bool = True) -> None:
    """As ``write_answers``, into an open file."""
    columns, chances = answers.columns, answers.probabilities
    classes = list(chances[0]) if chances else []
    write = GuardedWriter(file).row if guard else csv.writer(file, lineterminator="\n").writerow
    if is_first:
        write([*columns, "answer", *(f"p({name})" for name in classes)])
    for row, label in enumerate(answers.labels):
        shown = [f"{chances[row][name]:.6g}" for name in classes] if chances else []
        write([*(column[row] for column in columns.values()), label, *shown])


def _model(tx: Connection, study_id: int, study: str, model: str | int) -> Model:
    if model == PRODUCTION:
        standing = releases.production_model(tx, study_id)
        if standing is None:
            message = (
                f"study {study!r} has no model in production yet; promote one first, or ask the best one so far "
                "(`easeml infer --model best`)"
            )
            raise StateError(message)
        return standing
    if model == BEST:
        best = models.best_model_so_far(tx, study_id)
        if best is None:
            message = f"study {study!r} has no trained model yet; train one first (`easeml study show {study}`)"
            raise StateError(message)
        return best
    is_named = isinstance(model, str) and model.isdecimal() and len(model) <= _LONGEST_ID
    if isinstance(model, bool) or not (isinstance(model, int) or is_named):
        message = f"model must be {PRODUCTION!r}, {BEST!r} or the id of a model, got {model!r}"
        raise InvalidInputError(message)
    return models.get_model(tx, study_id, int(model))


def _require_apart(model: Model) -> None:
    """Refuse programs without a sandbox: a process of the same account may open our files below ``/proc``."""
    if model.format != "command":
        return
    found = probe_isolation(Sandbox())
    if found.account is None and {"processes", "files"} & set(found.reaches()):
        message = (
            f"model {model.id} is a program, and this machine cannot keep it from the secrets of the server that would "
            f"run it ({found}); ask it elsewhere with `easeml infer`, or allow user namespaces here"
        )
        raise StateError(message)


def _name(names: Sequence[str], label: int) -> str:
    """Return the class with this number; a submitted model may give any."""
    if 0 <= label < len(names):
        return names[label]
    message = f"the model answered {label}, which is no class of the study; there are {len(names)}"
    raise StateError(message)


class WarmModels:
    """Loaded models of a process that answers many calls, such as a server.

    Args:
        most: Models loaded at the same time, >= 1; each has a separate process.
        options: Further arguments of ``WarmModel``.
    """

    def __init__(self, *, most: int = 4, **options: Any) -> None:
        self._most, self._options = most, options
        self._models: OrderedDict[tuple[int, str, WantedAnswers], WarmModel] = OrderedDict()
        self._lock = threading.Lock()

    def answer(
        self, artifacts: ArtifactStore, model: Model, wanted: WantedAnswers, inputs: NDArray[np.float32]
    ) -> NDArray[Any]:
        """As ``predict_in_child``; errors as of ``WarmModel.ask``. A process that has ended is started again."""
        try:
            return self._loaded(artifacts, model, wanted).ask(inputs)
        except ModelGoneError:
            return self._loaded(artifacts, model, wanted).ask(inputs)

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            for model in self._models.values():
                model.close()
            self._models.clear()

    def _loaded(self, artifacts: ArtifactStore, model: Model, wanted: WantedAnswers) -> WarmModel:
        # A program may remember its inputs: two studies that have the same file have a process each.
        key = model.study_id, model.identity, wanted
        with self._lock:
            found = self._models.pop(key, None)
            if found is None or found.is_gone:
                found = WarmModel(partial(artifacts.copy, model.artifact), model.format, wanted, **self._options)
            self._models[key] = found
            while len(self._models) > self._most:
                self._models.popitem(last=False)[1].close()
            return found
