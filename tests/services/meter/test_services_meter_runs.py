"""What a reading lets run: all at once, the open part first, nothing twice, and nothing for a submission not read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import ArtifactError
from easeml_core.services.evaluation.sealed_runs import NotRunError, Preparation, Run
from easeml_core.services.referee import dispatch
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_meter_request
from easeml_core.services.reports.submissions import submissions_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OPEN = "open part"
METER = {"ranges": (-0.2, 0.3), "tolerance": 0.19, "reliability": 0.8, "steps": 4, "ambiguous": 4}
GATE = {"condition": "n > 0.5 +/- 0.3", "reliability": 0.8, "steps": 2, "estimator": "paper"}
JOINT = {"reliability": 0.9, "gate_share": 0.25}


class Study:
    """A study with two meters; ``ran`` collects what models run on, ``looks`` counts the decisions that begin."""

    def __init__(self, lab: Any, folder: Path, monkeypatch: Any, **changes: Any) -> None:
        self.lab, self.folder = lab, folder
        given: dict[str, Any] = {"gate": GATE, "meter": METER, "direct": {"share": 0.5}}
        answer = lab.register("study", **given | changes)
        assert not answer.refused, answer.message
        sql = "SELECT t.purpose, t.id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id WHERE s.name = :n"
        self.sets = dict(lab.rows(sql, n="study"))
        self.ran: list[str] = []
        self.looks = 0
        self.end: dict[str, BaseException] = {}
        self._watch(monkeypatch)

    def _watch(self, monkeypatch: Any) -> None:
        run, decide = Preparation._run_on, dispatch.meter
        names = {None: OPEN} | {set_id: purpose for purpose, set_id in self.sets.items()}

        def watched(ready: Preparation, model: Any, test_set_id: int | None) -> Any:
            self.ran.append(names[test_set_id])
            if self.ran[-1] in self.end:
                raise self.end[self.ran[-1]]
            return run(ready, model, test_set_id)

        def counted(*given: Any) -> Any:
            self.looks += 1
            return decide(*given)

        monkeypatch.setattr(Preparation, "_run_on", watched)
        monkeypatch.setattr(dispatch, "meter", counted)

    def model(self, number: int, text: str = '{"label": 0}') -> int:
        path = self.folder / f"model-{number}"
        path.write_text(text + " " * number)
        return int(self.lab.hand_in("study", path.name, path, kind="constant", loss=0.5))

    def submit(self, model: int, **asked: Any) -> Any:
        """The answer; ``ran`` and ``looks`` are of this submission alone."""
        self.ran, self.looks = [], 0
        return self.lab.meter(model, "study", **asked)

    def entries(self) -> list[str]:
        sql = "SELECT t.purpose FROM sealed.ledger l JOIN work.test_sets t ON t.id = l.test_set_id ORDER BY l.id"
        return [purpose for (purpose,) in self.lab.rows(sql)]

    def predicted(self) -> list[str]:
        """The study's sets on which a model has run."""
        sql = "SELECT test_set_id FROM sealed.predictions WHERE test_set_id = ANY (:ids) ORDER BY test_set_id"
        names = {set_id: purpose for purpose, set_id in self.sets.items()}
        return [names[set_id] for (set_id,) in self.lab.rows(sql, ids=list(names))]

    def plan(self, purpose: str, **changes: Any) -> None:
        """Change what one set was planned for."""
        sql = "UPDATE work.test_sets SET plan = plan || %s::jsonb WHERE id = %s"
        self.lab.as_superuser(sql, json.dumps(changes), self.sets[purpose])

    def end_team(self, purpose: str, *, team: int) -> None:
        """Let the ledger say that the team had its last answer on this set."""
        sql = (
            "INSERT INTO sealed.ledger (test_set_id, step, steps, request_id, cache_key, answer, log_level, log_cost, "
            "report, system, system_step, system_steps) SELECT %s, 1, steps, (SELECT min(id) FROM work.requests), "
            "'another', '1', -4, 0, %s::jsonb, 'meter', 1, steps FROM work.test_sets WHERE id = %s"
        )
        report = json.dumps({"ends": True} | ({} if team == 1 else {"team": team}))
        self.lab.as_superuser(sql, self.sets[purpose], report, self.sets[purpose])


@pytest.fixture
def make(lab: Any, tmp_path: Path, monkeypatch: Any) -> Callable[..., Study]:
    return lambda **changes: Study(lab, tmp_path, monkeypatch, **changes)


@pytest.fixture
def study(make: Any) -> Study:
    found: Study = make()
    return found


# All at once.


def test_all_runs_of_a_reading_are_made_between_two_looks(study: Study) -> None:
    answer = study.submit(study.model(1))
    assert (study.ran, study.looks) == ([OPEN, "meter", "direct"], 2)
    assert study.entries() == ["meter", "direct"]
    attempts = study.lab.rows("SELECT survived FROM sealed.attempts WHERE request_id = :id", id=answer.request_id)
    assert sorted(attempts) == [(False,), (True,)]  # the one that decided could not say so


def test_an_answer_from_the_ledger_lets_nothing_run(study: Study) -> None:
    model = study.model(1)
    first = study.submit(model)
    again = study.submit(model)
    assert (study.ran, study.looks) == ([], 1)
    assert replace(again, request_id=0, cached=False) == replace(first, request_id=0)


def test_what_ran_for_the_gate_runs_on_the_open_part_alone(make: Any) -> None:
    bound = {"condition": "n - o > 0 +/- 0.2", "adaptivity": "full", "steps": 3}
    meter = {"ranges": (0.2, 0.6), "tolerance": 0.3, "steps": 4, "ambiguous": 2, "tail": "hoeffding"}
    shared = make(gate=bound, meter=meter, joint=JOINT, direct=None)
    model = shared.model(1)
    shared.lab.gate(model, "study")
    assert "joint" in shared.ran
    assert shared.submit(model).signal is not None
    assert (shared.ran, shared.looks) == ([OPEN], 2)


# The open part first.


def test_a_model_that_fails_on_the_open_part_sees_no_sealed_inputs_and_spends_nothing(study: Study) -> None:
    broken = study.model(1, "no model at all")
    answer = study.submit(broken)
    assert answer.refused
    assert f"model {broken} cannot be run" in answer.message
    assert (study.ran, study.looks) == ([OPEN], 2)
    assert (study.predicted(), study.entries()) == ([], [])


def test_an_error_of_a_sealed_run_ends_the_preparation_and_spends_nothing(study: Study) -> None:
    model = study.model(1)
    study.end = {"meter": ArtifactError("the file is gone")}
    assert study.submit(model).refused
    assert (study.ran, study.predicted(), study.entries()) == ([OPEN, "meter"], [], [])
    study.end = {"direct": ArtifactError("the file is gone")}
    assert study.submit(model).refused
    assert (study.ran, study.predicted(), study.entries()) == ([OPEN, "meter", "direct"], ["meter"], [])
    study.end = {}
    assert study.submit(model).direct_signal is not None
    assert study.ran == [OPEN, "direct"]


@pytest.mark.parametrize(
    ("killed", "kept", "then"),
    [
        (OPEN, [], [OPEN, "meter", "direct"]),
        ("meter", [], [OPEN, "meter", "direct"]),
        ("direct", ["meter"], [OPEN, "direct"]),
    ],
)
def test_a_referee_killed_in_the_middle_has_spent_nothing(
    study: Study, killed: str, kept: list[str], then: list[str]
) -> None:
    """What an earlier run said on a sealed set stays, and is not asked again."""
    asked = {"study": "study", "model_id": study.model(1), "request_key": "night/1"}
    request_id = file_meter_request(study.lab.worker, **asked)
    study.end = {killed: SystemExit()}
    with pytest.raises(SystemExit):
        Referee(study.lab.referee, study.lab.artifacts).answer_one()
    assert answer_of(study.lab.worker, request_id) is None
    assert (study.predicted(), study.entries()) == (kept, [])
    study.lab.end_leases()
    study.end, study.ran = {}, []
    answer = study.lab.answer(request_id)
    assert study.ran == then
    assert (answer.signal, answer.direct_signal) != (None, None)
    assert (study.entries(), study.predicted()) == (["meter", "direct"], ["meter", "direct"])
    assert study.lab.one("SELECT max(step) FROM sealed.ledger") == 1


# Nothing for a submission that is not read.


def came_too_late(study: Any, model_id: int) -> bool:
    """The reason for a missing signal that a developer sees."""
    shown = submissions_report(study.lab.worker, study="study").submissions
    return next(entry.meter_too_late for entry in shown if entry.model_id == model_id)


def test_a_team_without_an_answer_left_lets_nothing_run(make: Any) -> None:
    study = make(meter=METER | {"steps": 2, "teams": 2}, direct=None)
    assert study.submit(study.model(1), team=1).submissions_left == 0
    late = study.model(2)
    answer = study.submit(late, team=1)
    assert (answer.refused, "team 1 has no" in answer.message) == (True, True)
    assert came_too_late(study, late)
    assert (study.ran, study.looks) == ([], 1)
    assert study.submit(study.model(3), team=2).signal is not None
    assert study.ran == [OPEN, "meter"]


def test_a_shared_set_that_has_ended_lets_nothing_run(make: Any) -> None:
    bound = {"condition": "n - o > 0 +/- 0.2", "adaptivity": "full", "steps": 3}
    meter = {"ranges": (0.2, 0.6), "tolerance": 0.3, "steps": 4, "ambiguous": 2, "tail": "hoeffding"}
    study = make(gate=bound, meter=meter, joint=JOINT, direct=None)
    assert study.submit(study.model(1)).signal is not None
    sql = "UPDATE work.test_sets SET plan = jsonb_set(plan, '{gate,steps}', '1') WHERE id = %s"
    study.lab.gate(study.model(2), "study")
    study.lab.as_superuser(sql, study.sets["joint"])  # the verdict was the last one, and the set is live still
    late = study.model(3)
    answer = study.submit(late)
    assert "share has ended" in answer.message
    assert came_too_late(study, late)
    assert (study.ran, study.looks) == ([], 1)


def test_a_second_sample_that_is_not_read_lets_nothing_run_on_it(make: Any) -> None:
    study = make(meter=METER | {"teams": 2})
    ours = study.lab.one("SELECT plan -> 'ranges' FROM work.test_sets WHERE id = :id", id=study.sets["direct"])
    study.plan("direct", ranges=[0.1, 0.3])
    assert study.submit(study.model(1), team=1).direct_signal is None
    assert study.ran == [OPEN, "meter"]
    study.plan("direct", ranges=ours)
    study.end_team("direct", team=1)
    assert study.submit(study.model(2), team=1).direct_signal is None
    assert study.ran == [OPEN, "meter"]
    assert study.submit(study.model(3), team=2).direct_signal is not None
    assert study.ran == [OPEN, "meter", "direct"]


def test_a_second_sample_that_came_later_is_read_for_a_submission_that_is_known(study: Study) -> None:
    """The meter set answers from its ledger; what the other one needs is run for it."""
    model = study.model(1)
    ours = study.lab.one("SELECT plan -> 'ranges' FROM work.test_sets WHERE id = :id", id=study.sets["direct"])
    study.plan("direct", ranges=[0.1, 0.3])
    assert study.submit(model).direct_signal is None
    study.plan("direct", ranges=ours)
    answer = study.submit(model)
    assert (answer.cached, answer.direct_signal is not None) == (True, True)
    assert study.ran == [OPEN, "direct"]
    assert study.entries() == ["meter", "direct"]


def test_what_is_missing_is_the_first_error_or_all_that_was_not_run(study: Study) -> None:
    from easeml_core.store.tables import models, studies

    model_id = study.model(1)
    with study.lab.referee.begin() as tx:
        model = models.get_model(tx, studies.get_study(tx, "study").id, model_id)
    ready = Preparation(study.lab.referee, study.lab.artifacts)
    of_open, of_meter, of_direct = (Run(model, on) for on in (None, study.sets["meter"], study.sets["direct"]))
    missing = ready.missing(of_open, of_meter)
    assert isinstance(missing, NotRunError)
    assert missing.runs == (of_open, of_meter)
    study.end = {"meter": ArtifactError("gone")}
    ready.run(missing)
    assert ready.missing(of_open, of_meter, of_direct) is study.end["meter"]
    assert isinstance(ready.missing(of_open, of_direct), NotRunError)
