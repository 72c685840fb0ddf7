"""Observations, models and validation predictions: what a trial leaves behind, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.entities import Model
from easeml_core.errors import NotFoundError
from easeml_core.store.rows import change, pack, row, rows, scalar

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection


def add_observation(
    tx: Connection, *, trial_id: int, quality: float, cost_seconds: float, score: float | None = None
) -> None:
    """Record what a succeeded trial told; ``score`` is by the study's metric, in its unit."""
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
    """A trained model; its id. ``submitted``: it was handed in. Neither of a trial nor handed in: the baseline."""
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
    """Keep what the model predicted on the validation part; ``labels`` has shape ``(n_validation,)``."""
    change(
        tx,
        "INSERT INTO work.predictions (model_id, part, labels) VALUES (:id, 'validation', :labels)",
        id=model_id,
        labels=pack(labels),
    )


_MODEL = "SELECT m.id, m.study_id, m.trial_id, m.format, m.artifact, m.validation_loss FROM work.models m "


def get_model(tx: Connection, study_id: int, model_id: int) -> Model:
    """The study's model with this id.

    Raises:
        NotFoundError: When the study has no such model; names those it has.
    """
    found = row(tx, _MODEL + "WHERE m.id = :id AND m.study_id = :study_id", id=model_id, study_id=study_id)
    if found is None:
        known = rows(tx, "SELECT id FROM work.models WHERE study_id = :id ORDER BY id DESC LIMIT 8", id=study_id)
        names = [str(r.id) for r in known]
        remedy = "`easeml model list STUDY` has all" if names else ""
        raise NotFoundError(kind="model of this study with id", name=model_id, known=names, remedy=remedy)
    return Model(**found._mapping)


def best_model(tx: Connection, study_id: int) -> Model | None:
    """The model of the best observation; the cheaper, then the older one of equals."""
    found = row(
        tx,
        _MODEL + "JOIN work.observations o ON o.trial_id = m.trial_id WHERE m.study_id = :id "
        "AND m.data_version_id = (SELECT id FROM work.data_versions WHERE study_id = :id "
        "ORDER BY version DESC LIMIT 1) ORDER BY o.quality DESC, o.cost_seconds, m.id LIMIT 1",
        id=study_id,
    )
    return None if found is None else Model(**found._mapping)


def observed_quality(tx: Connection, model_id: int) -> float:
    """Quality that the trial of this model was observed with, by its study's metric, in [0, 1]."""
    query = "SELECT o.quality FROM work.models m JOIN work.observations o ON o.trial_id = m.trial_id WHERE m.id = :id"
    return float(scalar(tx, query, id=model_id))


def best_model_so_far(tx: Connection, study_id: int) -> Model | None:
    """As ``best_model``, on the newest data on which anything was observed: while new data wait to be trained on."""
    found = row(
        tx,
        _MODEL + "JOIN work.observations o ON o.trial_id = m.trial_id JOIN work.data_versions v "
        "ON v.id = m.data_version_id WHERE m.study_id = :id "
        "ORDER BY v.version DESC, o.quality DESC, o.cost_seconds, m.id LIMIT 1",
        id=study_id,
    )
    return None if found is None else Model(**found._mapping)


def origin(tx: Connection, model_id: int) -> dict[str, Any]:
    """``{"candidate", "data_version"}`` of a model: what was trained, None if it was not by a trial, on which data."""
    found = row(
        tx,
        "SELECT c.name AS candidate, v.version AS data_version FROM work.models m "
        "JOIN work.data_versions v ON v.id = m.data_version_id LEFT JOIN work.trials t ON t.id = m.trial_id "
        "LEFT JOIN work.candidates c ON c.id = t.candidate_id WHERE m.id = :id",
        id=model_id,
    )
    if found is None:
        raise NotFoundError(kind="model", name=model_id)
    return dict(found._mapping)


def record_of_model(tx: Connection, study_id: int, model_id: int) -> dict[str, Any]:
    """Return what a model is and what trained it: its file, and the executor of the attempt that ended its trial.

    What has ended stays as it is (``work.trials_forward``), and so do candidates: the record cannot be changed later.

    Args:
        tx: Any role.
        study_id: Its study.
        model_id: The model.

    Raises:
        NotFoundError: When the study has no such model; names those it has.
    """
    get_model(tx, study_id, model_id)
    (found,) = rows(
        tx,
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
    return dict(found._mapping)


def baseline_model(tx: Connection, study_id: int) -> Model:
    """The majority-class model that stands in while nothing is in production yet."""
    found = row(
        tx,
        _MODEL + "JOIN work.data_versions v ON v.id = m.data_version_id WHERE m.study_id = :id AND m.trial_id IS NULL "
        "AND NOT m.submitted ORDER BY v.version DESC LIMIT 1",
        id=study_id,
    )
    if found is None:
        raise NotFoundError(
            kind="baseline of study with id", name=study_id, remedy="wait until the referee has sealed its data"
        )
    return Model(**found._mapping)


def trial_report(tx: Connection, trial_id: int) -> dict[str, Any]:
    """State, quality, cost, failure and model of a trial as plain JSON.

    Raises:
        NotFoundError: There is no such trial.
    """
    found = row(
        tx,
        "SELECT t.id AS trial_id, s.name AS study, c.name AS candidate, t.state, o.quality, o.score, s.metric, "
        "t.cost_seconds, t.failure, t.failure_kind, m.id AS model_id "
        "FROM work.trials t JOIN work.studies s ON s.id = t.study_id "
        "JOIN work.candidates c ON c.id = t.candidate_id LEFT JOIN work.observations o ON o.trial_id = t.id "
        "LEFT JOIN work.models m ON m.trial_id = t.id WHERE t.id = :id",
        id=trial_id,
    )
    if found is None:
        raise NotFoundError(kind="trial", name=trial_id, remedy="list them with `easeml study show STUDY`")
    return dict(found._mapping)
