"""Public facts for other systems: an external registry of models, and the lineage of data and models.

In any role. Of sealed sets only the symbol of a released verdict is here.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from easeml_core.entities import FailureKind, JsonObject, Parameters, TrialState
from easeml_core.formats.encoding import typed_record
from easeml_core.store.rows import records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


_STUDIES = """
SELECT s.id, s.name AS study, t.name AS tenant, s.metric, p.model_id AS production_model_id,
       (SELECT count(*) FROM work.trials x WHERE x.study_id = s.id AND x.finished_at IS NOT NULL) AS ended,
       (SELECT count(*) FROM work.quality_checks q WHERE q.study_id = s.id) AS checked
FROM work.studies s JOIN work.tenants t ON t.id = s.tenant_id LEFT JOIN work.production p ON p.study_id = s.id
WHERE s.state <> 'ARCHIVED' AND (s.name = ANY (CAST(:names AS text[])) OR CAST(:names AS text[]) IS NULL)
ORDER BY t.name, s.name
"""

_ENDED = """
SELECT t.id AS trial_id, c.name AS candidate, c.kind, c.parameters, t.state, t.failure, t.attempt, t.device,
       t.failure_kind, t.executor AS implementation, t.executor_details,
       t.reevaluates, d.version AS data_version, o.quality, t.cost_seconds,
       coalesce(t.started_at, t.suggested_at) AS started_at, t.finished_at,
       q.outcome AS checked, q.measured, q.checked_at
FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id JOIN work.data_versions d ON d.id = t.data_version_id
LEFT JOIN work.observations o ON o.trial_id = t.id LEFT JOIN work.quality_checks q ON q.trial_id = t.id
WHERE t.study_id = :id AND t.finished_at IS NOT NULL AND t.id > :after ORDER BY t.id LIMIT :limit
"""

_LET_OUT = """
SELECT m.id AS model_id, m.trial_id, m.format, m.artifact, 1 - m.validation_loss AS quality, d.version AS data_version,
       m.created_at, v.passed
FROM work.models m JOIN work.data_versions d ON d.id = m.data_version_id
CROSS JOIN LATERAL (
  SELECT coalesce(bool_or(symbol = 'pass'), false) AS passed FROM work.gate_verdicts
  WHERE study_id = :id AND model_id = m.id AND planned) v
WHERE m.study_id = :id AND (v.passed OR EXISTS (
  SELECT FROM work.promotions WHERE study_id = :id AND model_id = m.id)) ORDER BY m.id
"""


@typed_record
class MirroredStudy:
    """A study, the model in production (None for none), how many trials have ended, and how many were checked."""

    id: int
    study: str
    tenant: str
    metric: str
    production_model_id: int | None
    ended: int
    checked: int

    @property
    def progress(self) -> str:
        """Both numbers in words; they only grow."""
        return f"{self.ended}, {self.checked} checked"


@typed_record
class MirroredTrial:
    """An ended trial; ``reevaluates`` is the trial whose model it evaluated again, None where it trained one.

    ``checked`` is what the referee has found at ``checked_at``, where it has measured the stated quality anew.
    """

    trial_id: int
    candidate: str
    kind: str
    parameters: Parameters
    state: TrialState
    failure: str | None
    attempt: int
    device: str | None
    failure_kind: FailureKind | None
    implementation: str | None
    executor_details: JsonObject | None
    reevaluates: int | None
    data_version: int
    quality: float | None
    cost_seconds: float | None
    started_at: datetime
    finished_at: datetime
    checked: Literal["held", "not held", "unmeasurable"] | None
    measured: float | None
    checked_at: datetime | None


@typed_record
class ReleasedModel:
    """A model that has passed the gate on its sealed condition, or was in production; ``quality`` is on open rows."""

    model_id: int
    trial_id: int | None
    format: str
    artifact: str
    quality: float
    data_version: int
    created_at: datetime
    passed: bool


def mirrored_studies(tx: Connection, names: Sequence[str] | None = None) -> list[MirroredStudy]:
    """Return studies by tenant and name; archived ones are left out, and stay as they were mirrored."""
    return records(tx, MirroredStudy, _STUDIES, names=None if names is None else list(names))


def ended_trials(tx: Connection, study_id: int, *, after_id: int = 0, limit: int = 500) -> list[MirroredTrial]:
    """Return ended trials of the study with an id above ``after_id``, by id, at most ``limit``; only checks change."""
    return records(tx, MirroredTrial, _ENDED, id=study_id, after=after_id, limit=limit)


def models_let_out(tx: Connection, study_id: int) -> list[ReleasedModel]:
    """Return the study's models that have passed the gate on its sealed condition, or been in production; by id."""
    return records(tx, ReleasedModel, _LET_OUT, id=study_id)


@typed_record
class TrialLineage:
    """A trial, the data that it was trained on, and the model that it made.

    Attributes:
        trial_id: The trial.
        study: Name of its study.
        candidate: Name of what it trains.
        state: Of the trial.
        data: Hash of the file of the training and validation data, ``sha256:...``.
        data_version: Number of the version of the data in its study, from 1.
        train_rows: Rows that are trained on.
        model_id: The model; None where there is none.
        model: Hash of the model's file; None where there is none.
    """

    trial_id: int
    study: str
    candidate: str
    state: TrialState
    data: str
    data_version: int
    train_rows: int
    model_id: int | None
    model: str | None


@typed_record
class ModelLineage:
    """A model.

    Attributes:
        model_id: The model.
        study: Name of its study.
        candidate: What trained it; None for a submitted model and for the baseline.
        model: Hash of its file, ``sha256:...``.
    """

    model_id: int
    study: str
    candidate: str | None
    model: str


def trial_lineage(tx: Connection, trial_ids: Sequence[int]) -> list[TrialLineage]:
    """Return the trials of these numbers that there are, in their order."""
    return records(
        tx,
        TrialLineage,
        "SELECT t.id AS trial_id, s.name AS study, c.name AS candidate, t.state, v.artifact AS data, "
        "v.version AS data_version, p.rows AS train_rows, m.id AS model_id, m.artifact AS model "
        "FROM work.trials t JOIN work.studies s ON s.id = t.study_id JOIN work.candidates c ON c.id = t.candidate_id "
        "JOIN work.data_versions v ON v.id = t.data_version_id "
        "JOIN work.data_parts p ON p.data_version_id = v.id AND p.part = 'train' "
        "LEFT JOIN work.models m ON m.trial_id = t.id WHERE t.id = ANY(:ids) ORDER BY t.id",
        ids=list(trial_ids),
    )


def model_lineage(tx: Connection, model_ids: Sequence[int]) -> list[ModelLineage]:
    """Return the models of these numbers that there are, in their order."""
    return records(
        tx,
        ModelLineage,
        "SELECT m.id AS model_id, s.name AS study, c.name AS candidate, m.artifact AS model FROM work.models m "
        "JOIN work.studies s ON s.id = m.study_id LEFT JOIN work.trials t ON t.id = m.trial_id "
        "LEFT JOIN work.candidates c ON c.id = t.candidate_id WHERE m.id = ANY(:ids) ORDER BY m.id",
        ids=list(model_ids),
    )
