"""Submit a model: a file, a program, or the version of a DAG bundle; and list submissions.

The model is run on the open validation part, and on a part of that again, in the same kind of sandbox and by the same
rules as later by the referee: what cannot run there is refused here and costs nothing of a sealed set. ``best_models``
gives the models that a nightly run submits.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.parts import load_open_parts
from easeml_core.entities import Study, StudyState, Task
from easeml_core.errors import ArtifactError, ConcurrentUpdateError, InvalidInputError, StateError, TrainingError
from easeml_core.files.local import scratch_folder
from easeml_core.formats.encoding import typed_record
from easeml_core.metrics.metric import wrong
from easeml_core.models.answers import wanted_of
from easeml_core.models.command_model import pack_command
from easeml_core.models.formats import FORMATS, NUMBER_WANTED
from easeml_core.models.predict import predict_in_child, require_same, right_within, rows_to_repeat
from easeml_core.sandbox.isolation import Sandbox
from easeml_core.services.studies.columns import class_numbers
from easeml_core.settings.config import require
from easeml_core.settings.limits import LONGEST_TEXT
from easeml_core.store.database import savepoint
from easeml_core.store.rows import clean
from easeml_core.store.tables import models, requests, studies
from easeml_core.store.tables import models as submissions
from easeml_core.store.tables import models as waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.data.parts import OpenParts
    from easeml_core.entities import DataVersion
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.models import BestModel, SubmissionOfKey, SubmissionRow, WaitingSubmission


LARGEST_BYTES = 2 << 30
"""Largest size of a model's file."""

_OPEN_PART = "the open validation part of study {study!r}"
_MOST_CLASSES = 10
_BUNDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_VERSION = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, slots=True)
class _Handed:
    """The validated submission and the content hash of its file; a request key stands for all of it."""

    study: str
    format: str
    message: str
    bundle: str | None
    bundle_version: str | None
    artifact: str

    @property
    def kind(self) -> str:
        if self.bundle is not None:
            return "bundle"
        return "command" if self.format == "command" else "artifact"

    def same_as(self, earlier: SubmissionOfKey) -> bool:
        return all(getattr(earlier, name) == getattr(self, name) for name in self.__slots__)


@typed_record
class Submitted:
    """A model that was handed in; its quality on the open validation part, in [0, 1]."""

    submission_id: int
    model_id: int
    study: str
    validation_quality: float


@typed_record
class ListedSubmission:
    """A submission and how far it is.

    Attributes:
        submission_id: Its number.
        study: The study.
        model_id: The model.
        kind: ``artifact``, ``command`` or ``bundle``.
        format: Of the model's file.
        message: What is new about it.
        bundle: Name of the DAG bundle, or None.
        bundle_version: Its commit, or None.
        submitted_at: When.
        submitted_by: By whom.
        in_production: Whether it is.
        validation_quality: On the open validation part, in [0, 1].
        state: ``in production``, ``handed in`` (no gate request), ``waiting``, ``refused`` (and never
            judged), or the symbol that was released last: ``pass``, ``fail`` or ``withheld``.
    """

    submission_id: int
    study: str
    model_id: int
    kind: str
    format: str
    message: str
    bundle: str | None
    bundle_version: str | None
    submitted_at: datetime
    submitted_by: str
    in_production: bool
    validation_quality: float
    state: str


def submit_model(
    store: Store,
    artifacts: ArtifactStore,
    *,
    study: str,
    path: str | Path,
    format: str,
    message: str,
    command: str | None = None,
    bundle: str | None = None,
    bundle_version: str | None = None,
    request_key: str,
    sandbox: Sandbox | None = None,
) -> Submitted:
    """Hand a model in for a study.

    Args:
        store: Role ``easeml_worker``.
        artifacts: Where models lie.
        study: The study; it must be active.
        path: The model's file; for the format ``command`` a folder, a program or a packed folder.
        format: A key of ``models.formats.FORMATS``, e.g. ``skops`` or ``command``.
        message: What is new about it, 1 to 2000 characters; kept for ever and public.
        command: For the format ``command``: the command line, as in a shell; None where the folder has it.
        bundle: Name of the DAG bundle whose run has made the model; when the model is promoted, its version is.
        bundle_version: That version, a git commit of 7 to 64 hexadecimal digits; together with ``bundle``.
        request_key: The same key with the same content gives the same answer.
        sandbox: In which the model is tried; None for the default.

    Raises:
        NotFoundError: There is no such study.
        StateError: It is not active.
        ConfigError: An argument is not one of those allowed.
        InvalidInputError: The key was used for other content, the file cannot be read or is too large, or the model
            cannot be run on the open validation part, names unknown classes, or answers rows differently among fewer
            others. Nothing was spent.
    """
    words = _checked(format, message, command, bundle, bundle_version, request_key)
    with scratch_folder("submission") as folder:
        copy = Path(folder) / "model"
        _take(Path(path), copy, format, command)
        with copy.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        handed = _Handed(study, format, words, bundle, bundle_version, artifact=f"sha256:{digest}")
        with store.begin() as tx:
            earlier = submissions.submission_of_key(tx, request_key)
            if earlier is not None:
                return _again(earlier, handed, request_key)
            found, version = _open_study(tx, study)
        artifacts = artifacts.of_tenant(found.tenant)
        with artifacts.staged(version.artifact) as data:
            parts = load_open_parts(data.path)
        try:
            loss = _validation_loss(copy, handed, found, parts, sandbox or Sandbox())
        except (TrainingError, ArtifactError) as error:
            with store.begin() as tx:
                reason = _in_short(error, studies.class_names(tx, version.id))
            where = _OPEN_PART.format(study=study)
            message = f"the model cannot be run on {where}: {reason}; nothing was spent"
            raise InvalidInputError(message) from error
        _keep(artifacts, copy, handed)
    return _record(store, handed, found, version, loss, request_key)


def _checked(
    format: str, message: str, command: str | None, bundle: str | None, version: str | None, request_key: str
) -> str:
    """Check what the caller says; the message without what cannot be stored."""
    require(format in FORMATS, "format", format, f"one of {', '.join(FORMATS)}")
    words = clean(message).strip() if isinstance(message, str) else ""
    require(0 < len(words) <= LONGEST_TEXT, "message", message, f"words of 1 to {LONGEST_TEXT:,} characters")
    require(bool(request_key), "request_key", request_key, "not empty; it makes the call repeatable")
    require(command is None or format == "command", "command", command, "given with the format 'command' only")
    together = (bundle is None) == (version is None)
    require(together, "bundle_version", version, "given together with bundle, and bundle with it")
    if bundle is not None and version is not None:
        named = _BUNDLE.fullmatch(bundle) is not None
        require(named, "bundle", bundle, "1 to 100 of letters, digits, '_', '.', '-', beginning with a letter or digit")
        is_commit = _VERSION.fullmatch(version) is not None
        require(is_commit, "bundle_version", version, "a git commit: 7 to 64 of 0-9, a-f")
    return words


def _open_study(tx: Connection, study: str) -> tuple[Study, DataVersion]:
    found = studies.get_study(tx, study)
    if found.state != StudyState.ACTIVE:
        message = f"study {study!r} is {found.state}; models can be handed in while it is ACTIVE"
        raise StateError(message)
    return found, studies.latest_data_version(tx, found.id)


def _take(path: Path, copy: Path, format: str, command: str | None) -> None:
    """Make a private copy of the model's file, which must not change between the trial run and its storage."""
    try:
        if format == "command":
            pack_command(path, copy, command=command)
            return
        # Do not wait for the other end of a pipe; a device has no end.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            plain = stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_BYTES
            require(plain, "path", str(path), f"a plain file of at most {LARGEST_BYTES:,} bytes")
            with copy.open("wb") as writer:
                shutil.copyfileobj(file, writer)
    except FileNotFoundError as error:
        message = (
            f"{path} cannot be handed in: no such file on the host {socket.gethostname()}; a file that another task "
            "has written is on that task's host: run both tasks there, or name a folder that all hosts mount"
        )
        raise InvalidInputError(message) from error
    except (OSError, ArtifactError) as error:
        message = f"{path} cannot be handed in: {error}"
        raise InvalidInputError(message) from error


def _validation_loss(copy: Path, handed: _Handed, study: Study, parts: OpenParts, sandbox: Sandbox) -> float:
    """Return the 0-1 loss on the open validation part, in [0, 1]."""
    inputs, where = parts.validation_inputs, _OPEN_PART.format(study=handed.study)
    wanted = wanted_of(study.task, parts.target_layout)
    answers = predict_in_child(copy, handed.format, inputs, sandbox=sandbox, wanted=wanted)
    if study.task == Task.CLASSIFICATION:
        _require_classes(answers, parts.classes, where)
    if handed.format != "constant":
        repeated = rows_to_repeat(answers, handed.artifact.encode())
        again = predict_in_child(copy, handed.format, inputs[repeated], sandbox=sandbox, wanted=wanted)
        _require_same(answers[repeated], again, study.hit, where)
    return float(np.mean(wrong(study.hit, parts.validation_labels, answers)))


def _require_classes(labels: NDArray[np.int64], classes: int, where: str) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        message = (
            f"the model must answer with classes from 0 to {classes - 1}; row {outside[0]} of {where} got "
            f"{labels[outside[0]]}; nothing was spent"
        )
        raise InvalidInputError(message)


def _in_short(error: Exception, class_names: Sequence[str]) -> str:
    """Return the error's first line, which has the model's last one; the rest is its traceback. For open data only."""
    first = str(error).strip().partition("\n")[0]
    return f"{first}: {class_numbers(class_names, most=_MOST_CLASSES)}" if first.endswith(NUMBER_WANTED) else first


def _require_same(labels: NDArray[Any], again: NDArray[Any], hit: str, where: str) -> None:
    try:
        require_same(labels, again, right_within=right_within(hit))
    except TrainingError as error:
        message = (
            f"the model cannot be judged by {where}: {error}; let each answer come from its own row alone (what is "
            "learnt from many rows belongs into the model's file), and fix what is drawn at random; nothing was spent"
        )
        raise InvalidInputError(message) from error


def _keep(artifacts: ArtifactStore, copy: Path, handed: _Handed) -> None:
    reference = artifacts.put(copy)
    if reference != handed.artifact:
        message = "the file that was handed in changed while it was tried; hand it in again"
        raise ArtifactError(message)


def _record(
    store: Store, handed: _Handed, study: Study, version: DataVersion, loss: float, request_key: str
) -> Submitted:
    with store.begin() as tx:
        earlier = submissions.submission_of_key(tx, request_key)
        if earlier is not None:
            return _again(earlier, handed, request_key)
        try:
            with savepoint(tx):
                made = _added(tx, handed, study, version, loss, request_key)
        except ConcurrentUpdateError:  # a retry ran beside the first try, which was faster: one model, one submission
            earlier = submissions.submission_of_key(tx, request_key)
            if earlier is None:
                raise
            return _again(earlier, handed, request_key)
    return made


def _added(
    tx: Connection, handed: _Handed, study: Study, version: DataVersion, loss: float, request_key: str
) -> Submitted:
    model_id = models.add_model(
        tx,
        study_id=study.id,
        data_version_id=version.id,
        trial_id=None,
        format=handed.format,
        artifact=handed.artifact,
        validation_loss=loss,
        submitted=True,
    )
    submission_id = submissions.add_submission(
        tx,
        study_id=study.id,
        study=study.name,
        model_id=model_id,
        kind=handed.kind,
        message=handed.message,
        bundle=handed.bundle,
        bundle_version=handed.bundle_version,
        request_key=request_key,
    )
    if submission_id is None:
        message = f"the request key {request_key!r} has just handed in a model"
        raise ConcurrentUpdateError(message)
    return Submitted(submission_id, model_id, study.name, 1.0 - loss)


def _again(earlier: SubmissionOfKey, handed: _Handed, request_key: str) -> Submitted:
    if not handed.same_as(earlier):
        message = (
            f"request key {request_key!r} has handed in something else (submission {earlier.submission_id} of study "
            f"{earlier.study!r}); {requests.NEW_KEY}"
        )
        raise InvalidInputError(message)
    return Submitted(earlier.submission_id, earlier.model_id, earlier.study, 1.0 - earlier.validation_loss)


def list_submissions(store: Store, *, study: str | None = None) -> list[ListedSubmission]:
    """Return submissions with their state, the newest first; at most 1000."""
    with store.begin() as tx:
        found = submissions.list_submissions(tx, None if study is None else studies.get_study(tx, study).id)
    return [_listed(entry) for entry in found]


def _listed(entry: SubmissionRow) -> ListedSubmission:
    if entry.in_production:
        state = "in production"
    elif entry.asked > entry.answered:
        state = "waiting"
    elif entry.symbol is not None:
        state = str(entry.symbol)
    else:
        state = "refused" if entry.refused else "handed in"
    return ListedSubmission(
        submission_id=entry.submission_id,
        study=entry.study,
        model_id=entry.model_id,
        kind=entry.kind,
        format=entry.format,
        message=entry.message,
        bundle=entry.bundle,
        bundle_version=entry.bundle_version,
        submitted_at=entry.submitted_at,
        submitted_by=entry.submitted_by,
        in_production=entry.in_production,
        validation_quality=1.0 - entry.validation_loss,
        state=state,
    )


def waiting_submissions(store: Store, *, study: str | None = None) -> list[WaitingSubmission]:
    """Submissions that no gate was asked about since they came, the oldest first; at most 1000."""
    with store.begin() as tx:
        return waiting.waiting_submissions(tx, None if study is None else studies.get_study(tx, study).id)


def best_models(store: Store, *, studies_only: Sequence[str] | None = None) -> list[BestModel]:
    """Best model of every active study about which a gate would tell something new, by study name.

    Left out are models that are in production, and models that the live gate set has rejected in comparison with what
    stands now: asked again, it would repeat its answer.
    """
    with store.begin() as tx:
        if studies_only is not None:
            studies.require_studies(tx, studies_only)
        return models.best_to_judge(tx, studies_only)
