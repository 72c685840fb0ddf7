"""Values of the domain, frozen, for every layer. Standard library only.

``docs/glossary.md`` explains each term. Nothing here reads a clock, a file or a database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003  # the store reads the annotations of rows
from enum import StrEnum
from typing import Any, TypeAlias

Parameters: TypeAlias = Mapping[str, Any]
"""A JSON object that a user writes, whose keys this package does not fix: the parameters of a candidate."""

JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object as it was received or stored, before it is decoded into a class."""


class StudyState(StrEnum):
    """REGISTERED until its sealed sets exist, then ACTIVE; REFUSED when they could not be made; ARCHIVED from any."""

    REGISTERED = "REGISTERED"
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    REFUSED = "REFUSED"
    ARCHIVED = "ARCHIVED"


class Task(StrEnum):
    """What is predicted of a row: one of some classes, or a number."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class TrialState(StrEnum):
    """States only move forward, but for a lost lease, which sets RUNNING back to SUGGESTED."""

    SUGGESTED = "SUGGESTED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Verdict(StrEnum):
    """What the evidence says of a condition; the mode turns UNKNOWN into a bit."""

    PASS = "PASS"  # noqa: S105 - a symbol
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


class Symbol(StrEnum):
    """The one thing that a developer learns of a verdict; WITHHELD under adaptivity ``none``."""

    PASS = "pass"  # noqa: S105 - a symbol
    FAIL = "fail"
    WITHHELD = "withheld"


class Mode(StrEnum):
    """Which error is promised not to happen: ``fp-free`` (UNKNOWN fails) or ``fn-free`` (UNKNOWN passes)."""

    FP_FREE = "fp-free"
    FN_FREE = "fn-free"


class Adaptivity(StrEnum):
    """What the developer learns between submissions; the last two go beyond the paper (``stats/adaptivity.py``).

    Written with the cap behind it, ``upTo:3``; see ``config.parse_adaptivity``.
    """

    NONE = "none"
    FULL = "full"
    FIRST_CHANGE = "firstChange"
    UP_TO = "upTo"
    RECYCLE = "recycle"


class SealedSetPurpose(StrEnum):
    """Which system may draw on a sealed set.

    JOINT serves gate and meter, out of one ledger. DIRECT is a hidden sample of the validation distribution: a second
    meter reads it, to tell tuning from drift.
    """

    GATE = "gate"
    METER = "meter"
    JOINT = "joint"
    DIRECT = "direct"


class SealedSetState(StrEnum):
    """The life of a sealed set: planned, sealed, live, retired, released."""

    PLANNED = "planned"
    SEALED = "sealed"
    LIVE = "live"
    RETIRED = "retired"
    RELEASED = "released"


class RequestKind(StrEnum):
    """What can be asked of the referee."""

    SEAL = "seal"
    GATE = "gate"
    METER = "meter"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    FORCE = "force"
    REFRESH = "refresh"


class AlertKind(StrEnum):
    """What an alert is about: a reading beyond the overfitting budget, a sealed set that has served, or drift."""

    OVERFITTING = "overfitting"
    NEW_TEST_SET = "new-test-set"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing that could be trained: a trainer ``kind`` and its parameters.

    ``devices`` are the kinds of device that it may run on, None for any. ``withdrawn_at`` is since when it is not
    suggested any more; None where it is.
    """

    id: int
    study_id: int
    name: str
    kind: str
    parameters: Parameters = field(default_factory=dict)
    devices: Sequence[str] | None = None
    withdrawn_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DataVersion:
    """One content of a data set: content hash, rows and artifact of each open part.

    ``layout`` is what a row stands for, ``{"kind", "shape"}``; None for versions older than that.
    """

    id: int
    study_id: int
    version: int
    content_hash: str
    train_rows: int
    validation_rows: int
    features: int
    classes: int
    artifact: str
    layout: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who shares the devices, with its limits and what it has of them now.

    ``max_parallel`` open trials at once, ``quota_seconds`` device seconds over all studies; None for no limit.
    ``used_seconds`` is what ended trials took, ``reserved_seconds`` what open ones may still take. Of its results the
    referee has measured ``checked_results`` anew; ``not_held`` of them were false (``unacknowledged`` of these await
    an operator), ``unmeasurable`` could not be run. ``archived_at`` is since when it is archived, None where it is not.
    """

    id: int
    name: str
    weight: float
    max_parallel: int | None
    quota_seconds: float | None
    used_seconds: float
    reserved_seconds: float
    open_trials: int
    studies: int
    checked_results: int = 0
    not_held: int = 0
    unacknowledged: int = 0
    unmeasurable: int = 0
    archived_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """One model-selection problem of one tenant: data, metric, candidates, limits.

    Candidates are compared by ``metric``. On sealed sets each answer is right or wrong: ``hit`` is ``accuracy``, or
    ``within:T`` where numbers are predicted. ``program`` says what goes in and what comes out, once that is known.

    ``seconds_left`` is the time until ``deadline`` by the database's clock, negative afterwards; ``joined_at`` is when
    it became active last, or its newest data came.
    """

    id: int
    name: str
    tenant: str
    state: StudyState
    source: str
    target: str
    metric: str
    weight: float
    budget_seconds: float | None
    config: JsonObject
    priority: int = 0
    deadline: datetime | None = None
    seconds_left: float | None = None
    target_quality: float | None = None
    joined_at: datetime | None = None
    task: Task = Task.CLASSIFICATION
    hit: str = "accuracy"
    program: str | None = None


def implementation_of(kind: str, name: str, parameters: Parameters) -> str:
    """Return what trains a candidate, and the only thing that may: ``work.candidates.implementation`` says the same.

    Args:
        kind: The trainer's kind.
        name: The candidate's name; that of a training function is what it begins with, up to a hyphen.
        parameters: The candidate's; they name the program of a command and the image of a container.

    Example:
        >>> implementation_of("function", "tree-depth3", {}), implementation_of("linear_svm", "svm", {"C": 1})
        ('function:tree', 'trainer:linear_svm')
    """
    brought = {"function": name.partition("-")[0]}
    brought |= {"command": parameters.get("program", ""), "container": parameters.get("image", "")}
    return f"{kind}:{brought[kind]}" if kind in brought else f"trainer:{kind}"


def implementation_text(implementation: str) -> str:
    """Name an implementation in a sentence.

    Example:
        >>> implementation_text("function:tree"), implementation_text("trainer:linear_svm")
        ("the training function 'tree' (@trial)", 'the trainer linear_svm')
    """
    kind, _, name = implementation.partition(":")
    if kind == "function":
        return f"the training function {name!r} (@trial)"
    return f"the {'program' if kind == 'command' else 'image' if kind == 'container' else 'trainer'} {name}"


@dataclass(frozen=True, slots=True)
class Executor:
    """What a worker executes when it claims a trial: stated with the claim, kept with the attempt.

    Attributes:
        implementation: As of ``implementation_of``; a claim is refused where the candidate names another one.
        code_version: Version of this package that trains.
        function: Module and qualified name of a training function; None for everything else.
        source_hash: ``sha256:<hex>`` of its source text; None for everything else.
        source: What was hashed: ``text``, or ``bytecode`` where the text cannot be read.
        dag_version: Version of the DAG bundle that holds the function; None where bundles have none.
        resumed_from: Version of this package that wrote the checkpoint which this attempt was given; None for the same
            one, and for none.
    """

    implementation: str
    code_version: str
    function: str | None = None
    source_hash: str | None = None
    source: str | None = None
    dag_version: str | None = None
    resumed_from: str | None = None

    @property
    def details(self) -> dict[str, str]:
        """All but the implementation, as JSON."""
        names = ("code_version", "function", "source_hash", "source", "dag_version", "resumed_from")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class FailureKind(StrEnum):
    """What a failed trial speaks of: the candidate that was tried, or the task that executed it."""

    CANDIDATE = "candidate"
    TASK = "task"


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of one candidate on one data version, with the lease of its worker.

    ``limit_seconds`` is reserved for all its attempts together, None where nothing limits it; ``lost_seconds`` is what
    lost attempts have taken of it. ``retries`` is the trial that failed because of its task and whose place this one
    takes. ``executor`` is what executes the newest attempt, with the ``details`` of ``Executor``.
    ``excused`` of its attempts were lost to restarts of the installation, or handed back by a living worker.
    """

    id: int
    study_id: int
    study: str
    candidate_id: int
    candidate: str
    kind: str
    parameters: Parameters
    data_version_id: int
    state: TrialState
    attempt: int
    failure: str | None
    cancel_requested: bool
    lease_key: str | None
    lease_until: datetime | None
    device: str | None = None
    limit_seconds: float | None = None
    lost_seconds: float = 0.0
    failure_kind: str | None = None
    retries: int | None = None
    executor: str | None = None
    executor_details: JsonObject | None = None
    last_key: str | None = None
    excused: int = 0

    @property
    def implementation(self) -> str:
        """What trains its candidate, and the only thing that may."""
        return implementation_of(self.kind, self.candidate, self.parameters)

    @property
    def counted_attempts(self) -> int:
        """Attempts that count against the trial, >= 0."""
        return self.attempt - self.excused

    @property
    def function(self) -> str | None:
        """The training function that it needs; None for none."""
        return self.implementation.partition(":")[2] if self.kind == "function" else None


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """The referee's answer to a request; answers with facts are in ``services/referee/answers.py``.

    Attributes:
        request_id: The request.
        kind: Of the request.
        study: Name of its study.
        model_id: The model that it is about; None for requests about a study.
        refused: Whether the request was refused.
        message: What to tell the user.
    """

    request_id: int
    kind: RequestKind
    study: str
    model_id: int | None
    refused: bool
    message: str


@dataclass(frozen=True, slots=True)
class Model:
    """A trained artifact: where it lies, which file format, which content hash."""

    id: int
    study_id: int
    trial_id: int | None
    format: str
    artifact: str
    validation_loss: float

    @property
    def identity(self) -> str:
        """What decides its predictions: the file, and the format that it is read as."""
        return f"{self.format} {self.artifact}"
