"""A desk at which a study is registered, answered by the referee, trained, judged and promoted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registering import register_study

from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request, file_promotion
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.tables import studies, trials

if TYPE_CHECKING:
    from easeml_core.services.referee.answers import VerdictAnswer
    from easeml_core.store.tables.trials import TrialReport

GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "estimator": "paper"}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4}


class Desk:
    """Registers one study of the tenant ``lab``, whose files lie in a data folder, and lets the referee answer."""

    def __init__(self, lab: Any, data: Any, name: str) -> None:
        self.lab, self.data, self.name = lab, data, name

    def register(self, **changes: Any) -> Any:
        given = {"tenant": "lab", "study": self.name, "gate": GATE, "meter": METER, "request_key": self.lab.key()}
        return self.answer(register_study(self.lab.worker, **given | changes).request_id)

    def answer(self, request_id: int) -> Any:
        while Referee(self.lab.referee, self.lab.artifacts, data=self.data).answer_one() is not None:
            pass
        answer = answer_of(self.lab.worker, request_id)
        assert answer is not None
        return answer

    def train(self, candidate: str) -> TrialReport:
        with self.lab.worker.begin() as tx:
            study = studies.get_study(tx, self.name)
            version = studies.latest_data_version(tx, study.id)
            found = next(c for c in studies.list_candidates(tx, study.id) if c.name == candidate)
            trial_id = trials.add_trial(tx, study_id=study.id, candidate_id=found.id, data_version_id=version.id)
        return run_trial(self.lab.worker, self.lab.artifacts, trial_id=trial_id, request_key=self.lab.key())

    def gate(self, model_id: int) -> Any:
        return self._ask(file_gate_request, model_id)

    def meter(self, model_id: int) -> Any:
        return self._ask(file_meter_request, model_id)

    def promote(self, model_id: int, gate: VerdictAnswer) -> Any:
        return self._ask(file_promotion, model_id, gate_request_id=gate.request_id)

    def _ask(self, file: Any, model_id: int, **more: Any) -> Any:
        asked = {"study": self.name, "model_id": model_id, "request_key": self.lab.key()}
        return self.answer(file(self.lab.worker, **asked | more))

    def study(self) -> Any:
        with self.lab.worker.begin() as tx:
            return studies.get_study(tx, self.name)

    def candidates(self) -> list[str]:
        return [name for (name,) in self.lab.rows("SELECT name FROM work.candidates ORDER BY id")]

    def program(self) -> str:
        return str(self.lab.one("SELECT program FROM work.studies"))
