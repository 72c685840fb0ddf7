"""Models: observations, validation predictions, submissions, and the submissions that wait for the gate.

A model is submitted once, and its submission is kept for ever. A submission waits until a gate request for its model on
the sealed condition is filed: a watcher needs no memory of what it has seen.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from easeml_core.entities import DataVersion, Model, Symbol
from easeml_core.errors import NotFoundError
from easeml_core.formats.encoding import typed_record
from easeml_core.store.database import notify
from easeml_core.store.logins import own_key
from easeml_core.store.rows import change, pack, record, records, row, rows, scalar
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection


def add_observation(
    tx: Connection, *, trial_id: int, quality: float, cost_seconds: float, score: float | None = None
) -> None:
    """Record the result of a succeeded trial; ``score`` is in the unit of the study's metric."""
    change(
        tx,
        "INSERT INTO work.observations (trial_id, quality, cost_seconds, score) VALUES (:id, :quality, :cost, :score)",
        id=trial_id,
        quality=quality,
        cost=cost_seconds,
        score=score,
    )


def add_model(
    tx: Connection,
    *,
    study_id: int,
    data_version_id: int,
    trial_id: int | None,
    format: str,
    artifact: str,
    validation_loss: float,
    submitted: bool = False,
) -> int:
    """Add a trained model and return its id. Neither of a trial nor ``submitted``: the baseline."""
    return int(
        scalar(
            tx,
            "INSERT INTO work.models (study_id, data_version_id, trial_id, format, artifact, validation_loss, "
            "submitted) VALUES (:study_id, :data_version_id, :trial_id, :format, :artifact, :loss, :submitted) "
            "RETURNING id",
            study_id=study_id,
            data_version_id=data_version_id,
            trial_id=trial_id,
            format=format,
            artifact=artifact,
            loss=validation_loss,
            submitted=submitted,
        )
    )


def add_validation_predictions(tx: Connection, model_id: int, labels: NDArray[Any]) -> None:
    """Store the model's predictions on the validation part; ``labels`` has shape ``(n_validation,)``."""
    change(
        tx,
        "INSERT INTO work.predictions (model_id, part, labels) VALUES (:id, 'validation', :labels)",
        id=model_id,
        labels=pack(labels),
    )


_MODEL = "SELECT m.id, m.study_id, m.trial_id, m.format, m.artifact, m.validation_loss FROM work.models m "


def get_model(tx: Connection, study_id: int, model_id: int) -> Model:
    """The study's model with this id."""
    found = record(tx, Model, _MODEL + "WHERE m.id = :id AND m.study_id = :study_id", id=model_id, study_id=study_id)
    if found is None:
        raise _unknown(tx, study_id, model_id)
    return found


def model_and_newest_data(tx: Connection, study_id: int, model_id: int) -> tuple[Model, DataVersion]:
    """Return the study's model with this id, and the study's newest data, read at once."""
    found = row(
        tx,
        "SELECT m.trial_id, m.format, m.artifact AS model_artifact, m.validation_loss, v.* FROM work.models m "
        f"CROSS JOIN LATERAL ({studies.VERSION} WHERE v.study_id = m.study_id ORDER BY v.version DESC LIMIT 1) v "
        "WHERE m.id = :id AND m.study_id = :study_id",
        id=model_id,
        study_id=study_id,
    )
    if found is None:
        return get_model(tx, study_id, model_id), studies.latest_data_version(tx, study_id)
    values = dict(found._mapping)
    of_model = [values.pop(name) for name in ("trial_id", "format", "model_artifact", "validation_loss")]
    return Model(model_id, study_id, *of_model), DataVersion(**values)


def _unknown(tx: Connection, study_id: int, model_id: int) -> NotFoundError:
    known = rows(tx, "SELECT id FROM work.models WHERE study_id = :id ORDER BY id DESC LIMIT 8", id=study_id)
    names = [str(r.id) for r in known]
    remedy = "`easeml model list STUDY` has all" if names else ""
    return NotFoundError(kind="model of this study with id", name=model_id, known=names, remedy=remedy)


# The majority-class model stands in while nothing is in production yet.
_BASELINE = (
    "SELECT b.id FROM work.models b JOIN work.data_versions v ON v.id = b.data_version_id WHERE b.study_id = :study_id "
    "AND b.trial_id IS NULL AND NOT b.submitted ORDER BY v.version DESC LIMIT 1"
)
_STANDING = f"coalesce((SELECT p.model_id FROM work.production p WHERE p.study_id = :study_id), ({_BASELINE}))"


def model_and_standing(tx: Connection, study_id: int, model_id: int) -> tuple[Model, Model]:
    """The study's model with this id, and the one in production, or the baseline before the first promotion."""
    query = _MODEL + f"WHERE m.study_id = :study_id AND m.id IN (:id, {_STANDING}) ORDER BY m.id = :id DESC"
    found = records(tx, Model, query, id=model_id, study_id=study_id)
    if not found or found[0].id != model_id:
        raise _unknown(tx, study_id, model_id)
    # One row: the model itself stands, or there is no baseline, which baseline_model refuses.
    return found[0], found[-1] if len(found) == 2 else standing_model(tx, study_id)


def standing_model(tx: Connection, study_id: int) -> Model:
    """The model that stands: in production, before the first promotion the baseline."""
    found = record(tx, Model, _MODEL + f"WHERE m.id = {_STANDING}", study_id=study_id)
    return baseline_model(tx, study_id) if found is None else found


# A result that the referee has measured and that did not hold makes no model the best one. Nor is a model the best one
# whose file retention has removed: it can be neither judged nor asked.
_HOLDS = """m.removed_at IS NULL
AND NOT EXISTS (SELECT FROM work.quality_checks q WHERE q.trial_id = m.trial_id AND q.outcome = 'not held')"""


def best_model(tx: Connection, study_id: int) -> Model | None:
    """The model of the best observation; the cheaper, then the older one of equals."""
    return record(
        tx,
        Model,
        _MODEL + "JOIN work.observations o ON o.trial_id = m.trial_id WHERE m.study_id = :id "
        "AND m.data_version_id = (SELECT id FROM work.data_versions WHERE study_id = :id "
        f"ORDER BY version DESC LIMIT 1) AND {_HOLDS} ORDER BY o.quality DESC, o.cost_seconds, m.id LIMIT 1",
        id=study_id,
    )


@typed_record
class BestModel:
    """The best model of a study; its quality in [0, 1] on the validation part."""

    study: str
    model_id: int
    quality: float


# The same file under another id is the same model (``Model.identity``). The ledger answers a question again that it has
# answered: the same file against the same one on the same set. Looked up study by study: of a join, the planner expects
# so few rows that it compares each study with the verdicts of all.
_BEST_TO_JUDGE = f"""
WITH chosen AS MATERIALIZED (
  SELECT s.id, s.name FROM work.studies s
  WHERE s.state = 'ACTIVE' AND (CAST(:names AS text[]) IS NULL OR s.name = ANY (CAST(:names AS text[])))),
newest AS MATERIALIZED (
  SELECT DISTINCT ON (v.study_id) v.study_id, v.id, c.name FROM work.data_versions v
  JOIN chosen c ON c.id = v.study_id ORDER BY v.study_id, v.version DESC),
best AS MATERIALIZED (
  SELECT DISTINCT ON (m.study_id) m.study_id, n.name, m.id, m.format, m.artifact, o.quality FROM newest n
  JOIN work.models m ON m.study_id = n.study_id AND m.data_version_id = n.id
  JOIN work.observations o ON o.trial_id = m.trial_id WHERE {_HOLDS}
  ORDER BY m.study_id, o.quality DESC, o.cost_seconds, m.id),
compared AS (
  SELECT b.*, w.format AS standing_format, w.artifact AS standing_artifact,
         p.model_id IS NOT NULL AND (w.format, w.artifact) = (b.format, b.artifact) AS stands
  FROM best b LEFT JOIN work.production p ON p.study_id = b.study_id
  LEFT JOIN LATERAL (
    SELECT z.id FROM work.models z JOIN work.data_versions y ON y.id = z.data_version_id
    WHERE p.model_id IS NULL AND z.study_id = b.study_id AND z.trial_id IS NULL AND NOT z.submitted
    ORDER BY y.version DESC LIMIT 1) baseline ON true
  LEFT JOIN work.models w ON w.id = coalesce(p.model_id, baseline.id))
SELECT c.name AS study, c.id AS model_id, c.quality FROM compared c
WHERE NOT c.stands AND NOT coalesce((
  SELECT true FROM work.gate_verdicts g JOIN work.test_sets t ON t.id = g.test_set_id
  JOIN work.models j ON j.id = g.model_id JOIN work.models i ON i.id = g.incumbent_id
  WHERE g.study_id = c.study_id AND g.planned AND g.symbol = 'fail' AND t.state = 'live'
  AND (j.format, j.artifact) = (c.format, c.artifact)
  AND (i.format, i.artifact) = (c.standing_format, c.standing_artifact) LIMIT 1), false)
ORDER BY c.name
"""


def best_to_judge(tx: Connection, studies: Sequence[str] | None = None) -> list[BestModel]:
    """Return the best models (``best_model``) of active studies that a gate would tell something new about, by study.

    Left out: a model that is in production, and one that the live gate set has rejected in comparison with the model
    that stands now.
    """
    return records(tx, BestModel, _BEST_TO_JUDGE, names=None if studies is None else list(studies))


def best_model_so_far(tx: Connection, study_id: int) -> Model | None:
    """As ``best_model``, on the newest data on which anything was observed: while new data wait to be trained on."""
    return record(
        tx,
        Model,
        _MODEL + "JOIN work.observations o ON o.trial_id = m.trial_id JOIN work.data_versions v "
        f"ON v.id = m.data_version_id WHERE m.study_id = :id AND {_HOLDS} "
        "ORDER BY v.version DESC, o.quality DESC, o.cost_seconds, m.id LIMIT 1",
        id=study_id,
    )


@typed_record
class Origin:
    """The origin of a model: its candidate, None where no trial trained it, and the version of the data."""

    candidate: str | None
    data_version: int


def origin(tx: Connection, model_id: int) -> Origin:
    """Return the origin of a model."""
    found = record(
        tx,
        Origin,
        "SELECT c.name AS candidate, v.version AS data_version FROM work.models m "
        "JOIN work.data_versions v ON v.id = m.data_version_id LEFT JOIN work.trials t ON t.id = m.trial_id "
        "LEFT JOIN work.candidates c ON c.id = t.candidate_id WHERE m.id = :id",
        id=model_id,
    )
    if found is None:
        raise NotFoundError(kind="model", name=model_id)
    return found


@typed_record
class ModelRecord:
    """A model and the executor that trained it.

    Attributes:
        study: Its study.
        model_id: Its number.
        origin: ``trial``, ``handed in`` or ``baseline``.
        trial_id: The trial that trained it, or None; then ``candidate`` and what follows from it are None too.
        candidate: What was trained.
        data_version: Version of the data.
        format: Of its file.
        artifact: Content hash of its file.
        validation_quality: Share of right answers on the validation part.
        quality: By the study's metric, in [0, 1]; None where no trial has observed it.
        created_at: When it was added.
        kind: Of the candidate.
        parameters: Of the candidate.
        implementation: What executed the attempt that ended the trial.
        executor_details: What it stated of itself (``entities.Executor``); None where no record was kept.
        attempt: Number of that attempt.
        request_key: Of that attempt.
    """

    study: str
    model_id: int
    origin: str
    trial_id: int | None
    candidate: str | None
    data_version: int
    format: str
    artifact: str
    validation_quality: float
    quality: float | None
    created_at: datetime
    kind: str | None
    parameters: dict[str, object] | None
    implementation: str | None
    executor_details: dict[str, object] | None
    attempt: int | None
    request_key: str | None


def record_of_model(tx: Connection, study_id: int, model_id: int) -> ModelRecord:
    """Return what a model is and what trained it: its file, and the executor of the attempt that ended its trial.

    Neither ended trials (``work.trials_forward``) nor candidates change, so the record is final.
    """
    get_model(tx, study_id, model_id)
    (found,) = records(
        tx,
        ModelRecord,
        "SELECT s.name AS study, m.id AS model_id, CASE WHEN m.trial_id IS NOT NULL THEN 'trial' WHEN m.submitted THEN "
        "'handed in' ELSE 'baseline' END AS origin, m.trial_id, c.name AS candidate, v.version AS data_version, "
        "m.format, m.artifact, 1 - m.validation_loss AS validation_quality, o.quality, m.created_at, c.kind, "
        "c.parameters, t.executor AS implementation, t.executor_details, t.attempt, t.last_key AS request_key "
        "FROM work.models m JOIN work.studies s ON s.id = m.study_id "
        "JOIN work.data_versions v ON v.id = m.data_version_id LEFT JOIN work.trials t ON t.id = m.trial_id "
        "LEFT JOIN work.candidates c ON c.id = t.candidate_id LEFT JOIN work.observations o ON o.trial_id = t.id "
        "WHERE m.id = :id",
        id=model_id,
    )
    return found


def baseline_model(tx: Connection, study_id: int) -> Model:
    """The majority-class model that stands in while nothing is in production yet."""
    found = record(
        tx,
        Model,
        _MODEL + "JOIN work.data_versions v ON v.id = m.data_version_id WHERE m.study_id = :id AND m.trial_id IS NULL "
        "AND NOT m.submitted ORDER BY v.version DESC LIMIT 1",
        id=study_id,
    )
    if found is None:
        raise NotFoundError(
            kind="baseline of study with id", name=study_id, remedy="wait until the referee has sealed its data"
        )
    return found


MOST = 1000
"""Largest number of rows of one query."""


def add_submission(
    tx: Connection,
    *,
    study_id: int,
    study: str,
    model_id: int,
    kind: str,
    message: str,
    bundle: str | None,
    bundle_version: str | None,
    request_key: str,
) -> int | None:
    """Record a submission and notify listeners of the study and of all studies (topic ``submission:*``)."""
    submission_id = scalar(
        tx,
        "INSERT INTO work.submissions (study_id, model_id, kind, message, bundle, bundle_version, request_key) "
        "VALUES (:study_id, :model_id, :kind, :message, :bundle, :bundle_version, :request_key)"
        "ON CONFLICT ON CONSTRAINT submissions_request_key DO NOTHING RETURNING id",
        study_id=study_id,
        model_id=model_id,
        kind=kind,
        message=message,
        bundle=bundle,
        bundle_version=bundle_version,
        request_key=own_key(tx, request_key),
    )
    if submission_id is None:
        return None
    notify(tx, f"submission:{study}", "submission:*")
    return int(submission_id)


@typed_record
class SubmissionOfKey:
    """The submission of a request key."""

    submission_id: int
    study: str
    model_id: int
    kind: str
    message: str
    bundle: str | None
    bundle_version: str | None
    format: str
    artifact: str
    validation_loss: float


def submission_of_key(tx: Connection, request_key: str) -> SubmissionOfKey | None:
    """Return the submission of this key, or None."""
    return record(
        tx,
        SubmissionOfKey,
        "SELECT u.id AS submission_id, s.name AS study, u.model_id, u.kind, u.message, u.bundle, u.bundle_version, "
        "m.format, m.artifact, m.validation_loss FROM work.submissions u JOIN work.studies s ON s.id = u.study_id "
        "JOIN work.models m ON m.id = u.model_id WHERE u.request_key = :key",
        key=own_key(tx, request_key),
    )


@typed_record
class SubmissionRow:
    """A submission with what was released about it.

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
        validation_loss: On the open validation part, in [0, 1].
        asked: Gate requests about it.
        answered: Those with an answer.
        refused: Whether all answers so far were refusals, if there were any.
        symbol: Of the last verdict on the sealed condition that has left; None without one.
        in_production: Whether it is.
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
    validation_loss: float
    asked: int
    answered: int
    refused: bool
    symbol: Symbol | None
    in_production: bool


def list_submissions(tx: Connection, study_id: int | None = None) -> list[SubmissionRow]:
    """Submissions of one study, or of all, the newest first, with what was released about each; at most MOST.

    A refusal is no verdict and takes none back.
    """
    return records(
        tx,
        SubmissionRow,
        "SELECT u.id AS submission_id, s.name AS study, u.model_id, u.kind, m.format, u.message, u.bundle, "
        "u.bundle_version, u.submitted_at, u.submitted_by, m.validation_loss, "
        "(SELECT count(*) FROM work.requests r WHERE r.model_id = u.model_id AND r.kind = 'gate') AS asked, "
        "(SELECT count(*) FROM work.requests r JOIN work.answers a ON a.request_id = r.id "
        "WHERE r.model_id = u.model_id AND r.kind = 'gate') AS answered, "
        "coalesce(last.refused, false) AS refused, last.symbol, "
        "EXISTS (SELECT FROM work.production p WHERE p.study_id = u.study_id AND p.model_id = u.model_id) "
        "AS in_production "
        "FROM work.submissions u JOIN work.studies s ON s.id = u.study_id JOIN work.models m ON m.id = u.model_id "
        "LEFT JOIN LATERAL (SELECT a.refused, v.symbol FROM work.requests r "
        "JOIN work.answers a ON a.request_id = r.id LEFT JOIN work.gate_verdicts v ON v.request_id = r.id "
        "WHERE r.model_id = u.model_id AND r.kind = 'gate' AND r.arguments ->> 'condition' IS NULL "
        "ORDER BY a.refused, r.id DESC LIMIT 1) last ON true "
        "WHERE CAST(:study_id AS bigint) IS NULL OR u.study_id = :study_id ORDER BY u.id DESC LIMIT :most",
        study_id=study_id,
        most=MOST,
    )


@typed_record
class ProductionVersion:
    """Which version of a DAG bundle stands in production for a study."""

    study: str
    model_id: int
    bundle: str
    bundle_version: str


@typed_record
class WaitingSubmission:
    """A submission that no gate was asked about since it came."""

    submission_id: int
    study: str
    model_id: int


def production_versions(tx: Connection) -> list[ProductionVersion]:
    """Which version of a DAG bundle stands in production, by study; studies without one are left out."""
    return records(
        tx,
        ProductionVersion,
        "SELECT s.name AS study, p.model_id, u.bundle, u.bundle_version FROM work.production p "
        "JOIN work.studies s ON s.id = p.study_id JOIN work.submissions u ON u.model_id = p.model_id "
        "WHERE u.kind = 'bundle' AND s.state <> 'ARCHIVED' ORDER BY s.name",
    )


def waiting_submissions(tx: Connection, study_id: int | None = None) -> list[WaitingSubmission]:
    """Submissions without a gate request, the oldest first.

    A request on another condition than the sealed one is advice and leaves the submission waiting.
    """
    return records(
        tx,
        WaitingSubmission,
        "SELECT u.id AS submission_id, s.name AS study, u.model_id FROM work.submissions u "
        "JOIN work.studies s ON s.id = u.study_id "
        "WHERE (CAST(:study_id AS bigint) IS NULL OR u.study_id = :study_id) AND s.state <> 'ARCHIVED' AND NOT EXISTS "
        "(SELECT FROM work.requests r WHERE r.kind = 'gate' AND r.study_id = u.study_id AND r.model_id = u.model_id "
        "AND r.arguments ->> 'condition' IS NULL) "
        "ORDER BY u.id LIMIT :most",
        study_id=study_id,
        most=MOST,
    )
