"""What trials read and made, and what a model is: names, hashes and sizes that the study's tenant knows.

Nothing here is about sealed sets, qualities or verdicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.entities import TrialState
from easeml_core.store.rows import records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


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
