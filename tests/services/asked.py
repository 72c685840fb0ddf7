"""A study whose live gate set asks people for labels, and a request that waits for some of them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.sources.load import load_source
from easeml_core.entities import SealedSetPurpose
from easeml_core.services.referee.requests import file_gate_request
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.test_sets.upload import seal_test_set
from easeml_core.store.tables import labels, models, sealed, studies, test_sets, trials

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 300


class Asked:
    """``study`` was made by ``make_study`` from ``source``; its gate set is followed by one without labels."""

    def __init__(self, database: Any, artifacts: Any, folder: Path, study: str, source: str) -> None:
        self.database, self.artifacts, self.folder, self.study = database, artifacts, folder, study
        with database.referee.begin() as tx:
            self.study_id = studies.get_study(tx, study).id
            sets = test_sets.list_sets(tx, self.study_id)
        first = next(found for found in sets if found.purpose == SealedSetPurpose.GATE)
        retire_test_set(database.referee, test_set=str(first.id))
        table, rng = load_source(source), np.random.default_rng(1)
        chosen = rng.choice(len(table.labels), ROWS, replace=False)
        self.values = (table.inputs[chosen] + rng.uniform(0.01, 0.02, (ROWS, table.inputs.shape[1]))).astype(np.float32)
        path = self.write([["example", *table.feature_names], *([f"<p{i}>", *v] for i, v in enumerate(self.values))])
        sealed_now = seal_test_set(database.referee, artifacts, study=study, inputs=path, name="autumn")
        self.set_id: int = sealed_now.test_set_id
        with database.referee.begin() as tx:
            self.keys = sealed.sealed_keys(tx, self.set_id)
        self.request_id = file_gate_request(
            database.worker, study=study, model_id=self.model(), request_key=f"gate/{study}"
        )

    def write(self, rows: list[list[Any]]) -> Path:
        path = self.folder / f"{self.study}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        return path

    def model(self) -> int:
        """A model that a worker could have handed in."""
        path = self.folder / f"{self.study}.model"
        path.write_text('{"label": 0}')
        artifact = self.artifacts.put(path)
        with self.database.worker.begin() as tx:
            ids: dict[str, Any] = {
                "study_id": self.study_id,
                "data_version_id": studies.latest_data_version(tx, self.study_id).id,
            }
            candidate = studies.list_candidates(tx, self.study_id)[0].id
            trial = trials.add_trial(tx, candidate_id=candidate, **ids)
            return models.add_model(
                tx, trial_id=trial, format="constant", artifact=artifact, validation_loss=0.5, **ids
            )

    def want(self, positions: Any) -> None:
        with self.database.referee.begin() as tx:
            labels.want(tx, request_id=self.request_id, test_set_id=self.set_id, positions=np.array(positions))

    def known(self) -> np.ndarray:
        with self.database.referee.begin() as tx:
            return labels.known_labels(tx, self.set_id)

    def is_open(self) -> bool:
        with self.database.referee.begin() as tx:
            return bool(labels.open_wanted(tx))
