"""Users' programs through the whole product: trained, measured, and judged by the gate on a sealed set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from easeml_core.errors import AlreadyExistsError, InvalidInputError
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.candidates import add_candidates, bring_program
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from easeml_core.store.tables.trials import TrialReport

AWK = Path(__file__).parents[3] / "docs" / "examples" / "awk"


def trained(database: Any, artifacts: Any, candidate: str) -> TrialReport:
    found = suggest_trials(database.worker, count=5, request_key="k").trials
    (trial,) = [t for t in found if t.candidate == candidate]
    report = run_trial(database.worker, artifacts, trial_id=trial.trial_id, request_key="w")
    assert (report.state, report.failure) == ("SUCCEEDED", None)
    return report


def judged(database: Any, artifacts: Any, model_id: int) -> Any:
    filed = file_gate_request(database.worker, study="cancer", model_id=model_id, request_key="gate")
    Referee(database.referee, artifacts).answer_one()
    answer = answer_of(database.worker, filed)
    assert answer is not None
    return answer


def divide_alike(database: Any) -> None:
    """Let the rows be divided by the same secret each time: they are few, and so each run judges the same."""
    with database.owner.begin() as tx:
        tx.execute(text("UPDATE sealed.installation SET secret = '5eed5eed-5eed-4eed-8eed-5eed5eed5e05'"))


def test_a_shell_program_is_trained_and_passes_the_gate(make_study: Any, database: Any, artifacts: Any) -> None:
    program = bring_program(artifacts, AWK)
    divide_alike(database)
    make_study(candidates=[{"name": "middles", "kind": "command", "parameters": {"program": program, "power": 1}}])
    report = trained(database, artifacts, "middles")
    assert report.quality > 0.8
    answer = judged(database, artifacts, report.model_id)
    assert (answer.refused, answer.symbol) == (False, "pass")


MEAN = {
    "train.py": """
import sys
from pathlib import Path
import numpy as np
data, output = (Path(sys.argv[sys.argv.index(name) + 1]) for name in ("--data", "--output"))
x, y = np.load(data / "train_inputs.npy").astype(float), np.load(data / "train_labels.npy").astype(float)
np.save(output / "line.npy", np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0])
""",
    "predict.py": """
import numpy as np
x = np.load("inputs.npy").astype(float)
for number in np.c_[x, np.ones(len(x))] @ np.load("model/line.npy"):
    print(repr(float(number)))
""",
    "command.json": '{"train": ["python", "train.py"], "command": ["python", "predict.py"]}',
}


def test_a_program_that_predicts_numbers_is_judged_by_its_hits(
    make_study: Any, database: Any, artifacts: Any, tmp_path: Path
) -> None:
    (tmp_path / "line").mkdir()
    for name, content in MEAN.items():
        (tmp_path / "line" / name).write_text(content)
    program = bring_program(artifacts, tmp_path / "line")
    divide_alike(database)
    make_study(
        source="sklearn:diabetes", task="regression", metric="r2", hit="within:60",
        candidates=[{"name": "line", "kind": "command", "parameters": {"program": program}}],
    )  # fmt: skip
    report = trained(database, artifacts, "line")
    assert report.quality > 0.55  # r2 = 0.45 is 1 / 1.55; of the best constant .5
    answer = judged(database, artifacts, report.model_id)
    assert (answer.refused, answer.symbol) == (False, "pass")


def test_a_space_joins_whole_or_not_at_all(make_study: Any, database: Any) -> None:
    make_study(candidates=[{"name": "tree", "kind": "decision_tree"}])
    space = {"kind": "decision_tree", "space": {"max_depth": {".int": [2, 30]}}, "count": 4}
    for refused, error in (
        ([space, {"name": "tree", "kind": "decision_tree", "parameters": {"max_depth": 7}}], AlreadyExistsError),
        ([space, {"name": "x", "kind": "decision_tree", "parameters": {"max_depth": 0}}], InvalidInputError),
    ):
        with pytest.raises(error):
            add_candidates(database.worker, study="cancer", candidates=refused)
    with database.worker.begin() as tx:
        assert [c.name for c in studies.list_candidates(tx)] == ["tree"]
    shown = add_candidates(database.worker, study="cancer", candidates=[space])
    assert [t.added for t in shown] == [True] * 4
    again = add_candidates(database.worker, study="cancer", candidates=[space])
    assert again == [replace(t, added=False) for t in shown]
