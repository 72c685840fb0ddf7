"""Validation parts: how often each was used, the meter's readings, and the models that are evaluated again on it.

``same_training_as`` of a data version names the first version with the same training part: only its validation part is
new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.entities import JsonObject, Model, SealedSetPurpose
from easeml_core.settings.config import SetConfig, set_config
from easeml_core.store.rows import change, row, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class ValidationPart:
    """The validation part of one data version, and its use.

    Attributes:
        id: Of the data version.
        version: Its number in the study, from 1.
        training_id: The first data version with the same training part.
        content_hash: Of the data version.
        artifact: Where its open parts lie.
        rows: Rows of the validation part, >= 1.
        created_at: Since when it is in use.
        trials: Observations that were made on it, models measured anew among them.
        rungs: Times that a trial was ended or went on by its quality on it, before its end.
        submissions: Models that were handed in on it.
        nights: Days (UTC) on which it was observed.
    """

    id: int
    version: int
    training_id: int
    content_hash: str
    artifact: str
    rows: int
    created_at: datetime
    trials: int
    rungs: int
    submissions: int
    nights: int

    def looks(self) -> dict[str, int]:
        """How often models were chosen by it, by kind."""
        return {name: getattr(self, name) for name in ("trials", "rungs", "submissions", "nights")}


class Reading(NamedTuple):
    """A signal of the meter, 1..m, and the team that it was given to.

    It is that of the second validation sample where there is one, since drift has no part in it. ``plan`` is that of
    the study's meter set, whose ranges the second sample has as well.
    """

    signal: int
    team: int
    plan: SetConfig


@dataclass(frozen=True, slots=True)
class Waiting:
    """A trained model that the newest validation part has not measured.

    Attributes:
        model: As it was trained.
        trial_id: The trial that trained it.
        candidate_id: Its candidate.
        candidate: Name of that.
        study: Name of the study.
        data_version_id: The newest data version of the study.
        version: Its number.
        artifact: Where its open parts lie.
        quality: What was observed on the part that the trial knew.
        tries: How often it could not be measured on the newest part, >= 0.
    """

    model: Model
    trial_id: int
    candidate_id: int
    candidate: str
    study: str
    data_version_id: int
    version: int
    artifact: str
    quality: float
    tries: int = 0


_PARTS = """
SELECT v.id, v.version, coalesce(v.same_training_as, v.id) AS training_id, v.content_hash, v.artifact, p.rows,
       v.created_at, count(o.trial_id) AS trials,
       (SELECT count(*) FROM work.rungs g JOIN work.trials x ON x.id = g.trial_id
        WHERE x.data_version_id = v.id AND g.hoped IS NOT NULL) AS rungs,
       (SELECT count(*) FROM work.models m WHERE m.data_version_id = v.id AND m.submitted) AS submissions,
       count(DISTINCT (o.observed_at AT TIME ZONE 'UTC')::date) AS nights
FROM work.data_versions v JOIN work.data_parts p ON p.data_version_id = v.id AND p.part = 'validation'
LEFT JOIN work.trials t ON t.data_version_id = v.id LEFT JOIN work.observations o ON o.trial_id = t.id
WHERE v.study_id = :id GROUP BY v.id, p.rows ORDER BY v.version
"""


def validation_parts(tx: Connection, study_id: int) -> list[ValidationPart]:
    """All validation parts of a study, oldest first; the last one is in use."""
    return [ValidationPart(**r._mapping) for r in rows(tx, _PARTS, id=study_id)]


def readings(tx: Connection, study_id: int, part: ValidationPart) -> list[Reading]:
    """Return the meter's readings of models evaluated on this part, oldest first.

    Repeated answers are not counted. A reading without a data version is from before a second version existed.
    """
    found = rows(
        tx,
        "SELECT coalesce(r.direct_signal, r.signal) AS signal, r.team, t.purpose, t.plan "
        "FROM work.meter_readings r JOIN work.test_sets t ON t.id = r.test_set_id "
        "WHERE r.study_id = :id AND r.signal IS NOT NULL AND NOT r.cached "
        "AND (r.data_version_id = :part OR (r.data_version_id IS NULL AND :version = 1)) "
        "ORDER BY r.read_at, r.request_id",
        id=study_id,
        part=part.id,
        version=part.version,
    )
    return [Reading(r.signal, r.team, set_config(SealedSetPurpose(r.purpose), r.plan)) for r in found]


def split_message(tx: Connection, study_id: int) -> str | None:
    """Return the referee's message when it split the study's data: rows of each part, and what was left out."""
    found = row(
        tx,
        "SELECT a.message FROM work.requests r JOIN work.answers a ON a.request_id = r.id WHERE r.study_id = :id "
        "AND r.kind = 'seal' AND NOT a.refused ORDER BY r.id LIMIT 1",
        id=study_id,
    )
    return None if found is None else str(found.message)


REMEASURE_TRIES = 2
"""Unrequested evaluations of a model on a validation part; after that its candidate counts as failed on it."""

# Only of the newest data, only where its training part is older, and only candidates that it does not know. A model
# whose file was removed cannot be measured: its candidate is trained again (``model_life.lost_candidates``).
_WAITING = """
FROM (SELECT DISTINCT ON (study_id) id, study_id, version, artifact, same_training_as FROM work.data_versions
      ORDER BY study_id, version DESC) n
JOIN work.data_versions e ON e.study_id = n.study_id AND e.id <> n.id
  AND coalesce(e.same_training_as, e.id) = n.same_training_as
JOIN work.trials t ON t.data_version_id = e.id AND t.reevaluates IS NULL
JOIN work.studies s ON s.id = n.study_id
WHERE NOT EXISTS (SELECT FROM work.trials x WHERE x.candidate_id = t.candidate_id AND x.data_version_id = n.id)
  AND NOT EXISTS (SELECT FROM work.models m WHERE m.trial_id = t.id AND m.removed_at IS NOT NULL)
  AND s.state <> 'ARCHIVED' AND (CAST(:study_id AS bigint) IS NULL OR n.study_id = :study_id)
"""
# The quality is what a worker claims: it orders the models of a study, never the studies, which take turns. Nor can a
# worker move the times that the turns go by.
_MODELS = f"""
WITH waiting AS (
  SELECT t.id AS trial_id, t.candidate_id, s.name AS study, n.study_id, n.id AS data_version_id, n.version,
         n.artifact AS data
  {_WAITING} AND t.state = 'SUCCEEDED'),
turns AS (
  SELECT w.study_id, greatest(
    (SELECT max(o.observed_at) FROM work.trials t JOIN work.observations o ON o.trial_id = t.id
     WHERE t.study_id = w.study_id AND t.reevaluates IS NOT NULL),
    (SELECT max(f.tried_at) FROM work.remeasure_failures f WHERE f.study_id = w.study_id)) AS last
  FROM (SELECT DISTINCT study_id FROM waiting) w)
SELECT m.id, m.study_id, m.trial_id, m.format, m.artifact, m.validation_loss, w.candidate_id, c.name AS candidate,
       w.study, w.data_version_id, w.version, w.data, o.quality, coalesce(f.tries, 0) AS tries
FROM waiting w JOIN turns ON turns.study_id = w.study_id
JOIN work.models m ON m.trial_id = w.trial_id JOIN work.observations o ON o.trial_id = w.trial_id
JOIN work.candidates c ON c.id = w.candidate_id
LEFT JOIN work.remeasure_failures f ON f.model_id = m.id AND f.data_version_id = w.data_version_id
WHERE w.trial_id <> ALL(CAST(:skip AS bigint[]))
  AND (f.tries IS NULL OR :by_hand
       OR (f.tries < :most AND f.tried_at <= clock_timestamp() - make_interval(secs => :rest)))
ORDER BY turns.last NULLS FIRST, w.study_id, coalesce(f.tries, 0), o.quality DESC, w.trial_id LIMIT :limit
"""


def waiting_models(
    tx: Connection,
    study_id: int | None = None,
    *,
    skip: Sequence[int] = (),
    limit: int = 1,
    rest_seconds: float | None = 0.0,
) -> list[Waiting]:
    """Models that the newest validation part of their study has not measured.

    Those of the study come first in which the last attempt, whatever came of it, is longest ago; of these, those that
    have failed least often, the best ones first.
    """
    found = rows(
        tx,
        _MODELS,
        study_id=study_id,
        skip=list(skip),
        limit=limit,
        by_hand=rest_seconds is None,
        most=REMEASURE_TRIES,
        rest=rest_seconds or 0.0,
    )
    return [
        Waiting(
            model=Model(r.id, r.study_id, r.trial_id, r.format, r.artifact, r.validation_loss),
            trial_id=r.trial_id,
            candidate_id=r.candidate_id,
            candidate=r.candidate,
            study=r.study,
            data_version_id=r.data_version_id,
            version=r.version,
            artifact=r.data,
            quality=r.quality,
            tries=r.tries,
        )
        for r in found
    ]


_GIVEN_UP = """EXISTS (
SELECT FROM work.models m JOIN work.remeasure_failures f ON f.model_id = m.id
WHERE m.trial_id = t.id AND f.data_version_id = n.id AND f.tries >= :most)"""


def count_waiting(tx: Connection, study_id: int) -> tuple[int, int]:
    """Models that wait to be measured, and trials on earlier data that have not ended: theirs are measured then.

    A model that was given up waits no more (``count_given_up``).
    """
    found = row(
        tx,
        f"SELECT count(*) FILTER (WHERE t.state = 'SUCCEEDED' AND NOT {_GIVEN_UP}) AS models, "
        f"count(*) FILTER (WHERE t.state IN ('SUGGESTED', 'RUNNING')) AS open {_WAITING}",
        study_id=study_id,
        most=REMEASURE_TRIES,
    )
    assert found is not None
    return int(found.models), int(found.open)


def count_given_up(tx: Connection, study_id: int) -> int:
    """Models that failed REMEASURE_TRIES times on the newest part: their candidates count as failed on it."""
    asked = f"SELECT count(*) {_WAITING} AND t.state = 'SUCCEEDED' AND {_GIVEN_UP}"
    return int(scalar(tx, asked, study_id=study_id, most=REMEASURE_TRIES))


def add_failure(tx: Connection, waiting: Waiting, reason: str) -> int:
    """Keep that a model could not be measured, after the attempt; how often that is by now."""
    return int(
        scalar(
            tx,
            "INSERT INTO work.remeasure_failures AS f (model_id, data_version_id, study_id, reason) "
            "VALUES (:model, :version, :study, :reason) ON CONFLICT ON CONSTRAINT remeasure_failures_pkey "
            "DO UPDATE SET tries = f.tries + 1, reason = excluded.reason, tried_at = clock_timestamp() RETURNING tries",
            model=waiting.model.id,
            version=waiting.data_version_id,
            study=waiting.model.study_id,
            reason=reason[:2000],
        )
    )


def add_remeasurement(tx: Connection, waiting: Waiting, *, quality: float, seconds: float) -> int | None:
    """Add the trial that holds the model's quality on the newest validation part; return its id.

    Its cost is that of measuring. That of its observation is what training has cost, since an observation says what a
    candidate is worth, at which price.
    """
    added = row(
        tx,
        "INSERT INTO work.trials (study_id, candidate_id, data_version_id, state, started_at, finished_at, "
        "cost_seconds, reevaluates) SELECT t.study_id, t.candidate_id, :version, 'SUCCEEDED', "
        "clock_timestamp() - make_interval(secs => :seconds), clock_timestamp(), :seconds, t.id FROM work.trials t "
        "WHERE t.id = :trial AND :version = (SELECT id FROM work.data_versions WHERE study_id = t.study_id "
        "ORDER BY version DESC LIMIT 1) ON CONFLICT ON CONSTRAINT trials_once_per_data_key DO NOTHING RETURNING id",
        version=waiting.data_version_id,
        trial=waiting.trial_id,
        seconds=seconds,
    )
    if added is None:
        return None
    change(
        tx,
        "INSERT INTO work.observations (trial_id, quality, cost_seconds) "
        "SELECT :id, :quality, cost_seconds FROM work.observations WHERE trial_id = :trial",
        id=added.id,
        quality=quality,
        trial=waiting.trial_id,
    )
    return int(added.id)


def hidden_from(tx: Connection, study_id: int, hashes: Sequence[bytes]) -> dict[bytes, int]:
    """Which of the examples lie in a set of this study's tenant that is not released: hash to set; for the referee."""
    found = rows(
        tx,
        _HIDDEN.format(what="e.hash, min(e.test_set_id) AS id", same="=", end="GROUP BY e.hash"),
        id=study_id,
        hashes=list(hashes),
    )
    return {bytes(r.hash): int(r.id) for r in found}


def hidden_by_others(tx: Connection, study_id: int, hashes: Sequence[bytes]) -> int:
    """Count the examples in unreleased sets of other tenants; for the referee's role."""
    return int(
        scalar(tx, _HIDDEN.format(what="count(DISTINCT e.hash)", same="<>", end=""), id=study_id, hashes=list(hashes))
    )


_HIDDEN = """
SELECT {what} FROM sealed.examples e JOIN work.test_sets t ON t.id = e.test_set_id
JOIN work.studies s ON s.id = e.study_id
WHERE e.hash = ANY (:hashes) AND t.state <> 'released'
AND s.tenant_id {same} (SELECT tenant_id FROM work.studies WHERE id = :id) {end}
"""


class UncheckedResult(NamedTuple):
    """A trial's result that the referee may measure anew, and what that needs.

    Attributes:
        trial_id: The trial.
        study_id: Its study.
        quality: What its task has stated, in [0, 1].
        model: The model that it has handed in.
        artifact: The open parts of the data that it was measured on.
        layout: Of that data.
    """

    trial_id: int
    study_id: int
    quality: float
    model: Model
    artifact: str
    layout: JsonObject | None


def unchecked_trials(tx: Connection) -> list[int]:
    """Ids of succeeded trials whose result the referee has not measured, its own evaluations left out. Ascending."""
    return list(
        scalar(
            tx,
            "SELECT coalesce(array_agg(t.id ORDER BY t.id), '{}') FROM work.trials t WHERE t.state = 'SUCCEEDED' "
            "AND t.reevaluates IS NULL AND NOT EXISTS (SELECT FROM work.quality_checks q WHERE q.trial_id = t.id) "
            "AND NOT EXISTS (SELECT FROM work.models m WHERE m.trial_id = t.id AND m.removed_at IS NOT NULL) "
            "AND NOT EXISTS (SELECT FROM work.studies s WHERE s.id = t.study_id AND s.state = 'ARCHIVED')",
        )
    )


def unchecked_result(tx: Connection, trial_id: int) -> UncheckedResult:
    """Return the result of a succeeded trial."""
    found = row(
        tx,
        "SELECT m.id, m.study_id, m.trial_id, m.format, m.artifact, m.validation_loss, o.quality, "
        "v.artifact AS data, v.layout FROM work.models m JOIN work.observations o ON o.trial_id = m.trial_id "
        "JOIN work.data_versions v ON v.id = m.data_version_id WHERE m.trial_id = :id",
        id=trial_id,
    )
    assert found is not None  # a trial succeeds with its model and its observation
    model = Model(found.id, found.study_id, found.trial_id, found.format, found.artifact, found.validation_loss)
    return UncheckedResult(trial_id, found.study_id, found.quality, model, found.data, found.layout)


def add_quality_check(
    tx: Connection, result: UncheckedResult, *, measured: float | None, tolerance: float, reason: str | None
) -> str | None:
    """Record what measuring a result has found; its outcome, or None where another referee has recorded one."""
    found = scalar(
        tx,
        "INSERT INTO work.quality_checks (trial_id, study_id, model_id, claimed, measured, tolerance, reason) "
        "VALUES (:trial, :study, :model, :claimed, :measured, :tolerance, :reason) "
        "ON CONFLICT ON CONSTRAINT quality_checks_pkey DO NOTHING RETURNING outcome",
        trial=result.trial_id,
        study=result.study_id,
        model=result.model.id,
        claimed=result.quality,
        measured=measured,
        tolerance=tolerance,
        reason=None if reason is None else reason[:500],
    )
    return None if found is None else str(found)
