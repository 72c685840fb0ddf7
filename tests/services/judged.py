"""A sealed study whose models answer on the sealed sets as a test wants, so that verdicts and signals follow.

No model is run: its answers are kept as an earlier run would have kept them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import text

from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request
from easeml_core.store.rows import pack
from easeml_core.store.tables import models, sealed, studies

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.store.artifacts.local import ArtifactStore


class Judged:
    """One study in one database; ``database`` has ``worker``, ``referee``, ``server`` and ``name``."""

    def __init__(self, database: Any, artifacts: ArtifactStore, study: str) -> None:
        self.database, self.artifacts, self.study = database, artifacts, study

    def hand_in(self, message: str, folder: Path, *, loss: float) -> int:
        """A model that was handed in; its id."""
        path = folder / "model"
        path.write_text('{"label": 0}' + " " * len(list(self.artifacts.root.rglob("*"))))  # different content
        artifact = self.artifacts.put(path)
        with self.database.worker.begin() as tx:
            study = studies.get_study(tx, self.study)
            version = studies.latest_data_version(tx, study.id)
            model_id = models.add_model(
                tx,
                study_id=study.id,
                data_version_id=version.id,
                trial_id=None,
                format="constant",
                artifact=artifact,
                validation_loss=loss,
                submitted=True,
            )
            said: dict[str, Any] = {"kind": "artifact", "message": message, "bundle": None, "bundle_version": None}
            ids: dict[str, Any] = {"study_id": study.id, "study": study.name, "model_id": model_id}
            models.add_submission(tx, **ids, **said, request_key=f"submit/{model_id}")
        return model_id

    def let_answer(self, model_id: int | None, *, wrong: int) -> None:
        """Let a model (None: the baseline) answer wrongly on so many examples of every sealed set, the last ones."""
        with self.database.referee.begin() as tx:
            study = studies.get_study(tx, self.study)
            model = (
                models.baseline_model(tx, study.id) if model_id is None else models.get_model(tx, study.id, model_id)
            )
            for set_id in self.sets(tx):
                answers = np.array(sealed.sealed_labels(tx, set_id), dtype=np.int64)
                answers[len(answers) - wrong :] ^= 1
                sealed.keep_predictions(tx, set_id, model.identity, labels=answers, failure=None)

    def sets(self, tx: Any) -> list[int]:
        query = text(
            "SELECT t.id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id WHERE s.name = :name "
            "ORDER BY t.id"
        )
        return list(tx.execute(query, {"name": self.study}).scalars())

    def gate(self, model_id: int) -> Any:
        """Ask the gate and let the referee answer."""
        asked: dict[str, Any] = {"study": self.study, "model_id": model_id, "request_key": f"gate/{model_id}"}
        return self.answer(file_gate_request(self.database.worker, **asked))

    def meter(self, model_id: int) -> Any:
        """Ask the meter and let the referee answer."""
        asked: dict[str, Any] = {"study": self.study, "model_id": model_id, "request_key": f"meter/{model_id}"}
        return self.answer(file_meter_request(self.database.worker, **asked))

    def answer(self, request_id: int) -> Any:
        judge = Referee(self.database.referee, self.artifacts)
        while judge.answer_one() is not None:
            pass
        found = answer_of(self.database.worker, request_id)
        assert found is not None
        return found

    def report(self, request_id: int) -> dict[str, Any]:
        """What the ledger says of a request, in full."""
        with self.database.referee.begin() as tx:
            query = text("SELECT report FROM sealed.ledger WHERE request_id = :id")
            return dict(tx.execute(query, {"id": request_id}).scalar_one())

    def forget_labels(self, set_id: int) -> None:
        """Let the labels of a set be asked for when they are needed."""
        with contextlib.closing(self.database.server.connect(database=self.database.name)) as opened:
            cursor = opened.cursor()
            cursor.execute("SET session_replication_role = replica")  # past the trigger that keeps a live set as it is
            cursor.execute("SELECT rows FROM work.test_sets WHERE id = %s", [set_id])
            nothing = pack(np.full(cursor.fetchone()[0], -1, dtype=np.int64))
            cursor.execute("UPDATE sealed.test_sets SET labels = %s WHERE id = %s", [nothing, set_id])
            cursor.execute("UPDATE work.test_sets SET labels_on_demand = true WHERE id = %s", [set_id])
            opened.commit()
