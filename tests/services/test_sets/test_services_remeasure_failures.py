"""Models that cannot be measured on a new validation set: tried twice, each study in its turn, and requests first.

Programs that hang run in the real sandbox; their limit is a second instead of 120. All others answer in this process.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import StateError
from easeml_core.models import predict
from easeml_core.models.command_model import pack_command
from easeml_core.models.formats import load_predictor
from easeml_core.sandbox.confinement import FAILED
from easeml_core.services.datasets.validation_sets import replace_validation, validation_report
from easeml_core.services.evaluation import sealed_runs
from easeml_core.services.evaluation.reevaluation import measure_next, remeasure
from easeml_core.services.referee import housekeeping
from easeml_core.services.referee.claiming import RefereeLease
from easeml_core.services.referee.housekeeping import Housekeeper
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.store.tables import studies, validation_sets

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

HANGING = ("hang-0", "hang-1")
GONE = ("good", "worse")


@pytest.fixture(autouse=True)
def runs(monkeypatch: Any) -> list[str]:
    """The formats of the models that were run, in this order; programs in the sandbox, for a second each."""
    seen: list[str] = []

    def run(path: Path, form: str, inputs: Any, **_: Any) -> Any:
        seen.append(form)
        if form == "command":
            return predict.predict_in_child(path, form, inputs, time_limit_seconds=1.0)
        return load_predictor(path, form).predict(inputs)

    monkeypatch.setattr(sealed_runs, "predict_in_child", run)
    return seen


@pytest.fixture
def hanging(lab: Any, tmp_path: Path) -> Any:
    """The laboratory with two programs in study ``full`` that never end, and claim that they are the best."""
    for name in HANGING:
        folder, packed = tmp_path / name, tmp_path / f"{name}.zip"
        folder.mkdir()
        (folder / "run.sh").write_text(f"sleep 1000 # {name}\n")
        pack_command(folder, packed, command="sh run.sh")
        lab.hand_in("full", name, packed, kind="command", loss=0.0)
    return lab


@pytest.fixture
def turns(monkeypatch: Any) -> list[tuple[str, str, bool]]:
    """Study, candidate and whether it was measured, of each attempt without requests."""
    seen: list[tuple[str, str, bool]] = []

    def watched(*given: Any, **named: Any) -> Any:
        found = measure_next(*given, **named)
        if found is not None:
            seen.append((found.waiting.study, found.waiting.candidate, found.why is None))
        return found

    monkeypatch.setattr(housekeeping, "measure_next", watched)
    return seen


@pytest.fixture
def gone(lab: Any, bring: Any) -> Callable[[str], None]:
    """Replace the validation set of study ``full``, two of whose models have lost their files; it puts one back."""
    before = {
        name: lab.one("SELECT artifact FROM work.models WHERE id = :id", id=lab.models["full"][name]) for name in GONE
    }

    def put(name: str, artifact: str = "") -> None:
        changed = "UPDATE work.models SET artifact = %s WHERE id = %s"
        lab.as_superuser(changed, artifact or before[name], lab.models["full"][name])

    for name in GONE:
        put(name, f"sha256:{'0' * 64}")
    replace(lab, bring())
    return put


def replace(lab: Any, brought: Any, study: str = "full") -> None:
    replace_validation(lab.referee, lab.artifacts, study=study, inputs=brought.inputs, labels=brought.labels)


def counts(lab: Any, study: str = "full") -> tuple[int, int]:
    """Models that wait, and those that were given up."""
    with lab.worker.begin() as tx:
        study_id = studies.get_study(tx, study).id
        return validation_sets.count_waiting(tx, study_id)[0], validation_sets.count_given_up(tx, study_id)


def failures(lab: Any) -> list[tuple[str, int]]:
    return lab.rows(
        "SELECT c.name, f.tries FROM work.remeasure_failures f JOIN work.models m ON m.id = f.model_id "
        "JOIN work.trials t ON t.id = m.trial_id JOIN work.candidates c ON c.id = t.candidate_id "
        "ORDER BY f.data_version_id, c.name"
    )


def suggested(lab: Any) -> set[str]:
    asked = {"count": 9, "studies_only": ["full"], "request_key": lab.key()}
    return {t.candidate for t in suggest_trials(lab.worker, **asked).trials}


def idle_work_of(lab: Any) -> Housekeeper:
    """As a referee that has just been started: all that it remembers is in the database."""
    lab.end_leases()
    idle_work = Housekeeper(lab.referee, lab.artifacts, RefereeLease(lab.referee), {})
    idle_work._models_due = float("inf")  # nothing of a sealed set here
    return idle_work


@pytest.mark.journey
def test_models_that_hang_are_tried_twice_and_keep_no_other_study_waiting(
    hanging: Any, bring: Any, turns: list[Any], runs: list[str], monkeypatch: Any
) -> None:
    lab = hanging
    monkeypatch.setattr(housekeeping, "_AGAIN_SECONDS", 0.0)
    replace(lab, bring())
    replace(lab, bring(seed=2), "first")
    assert (counts(lab), counts(lab, "first")) == ((5, 0), (3, 0))
    more = [idle_work_of(lab).work() for _ in range(12)]
    assert turns == [
        ("full", "hang-0", False),
        ("first", "good", True),
        ("full", "hang-1", False),
        ("first", "worse", True),
        ("full", "good", True),
        ("first", "rare", True),
        ("full", "worse", True),
        ("full", "rare", True),
        ("full", "hang-0", False),
        ("full", "hang-1", False),
    ]
    assert more == [measured for _, _, measured in turns] + [False, False]
    assert (counts(lab), counts(lab, "first")) == ((0, 2), (0, 0))
    assert suggested(lab).isdisjoint(HANGING)  # failed on the new set, and nothing that was trained is trained again
    assert runs.count("command") == 4  # a time-out is not tried again at once: the next attempt comes after a pause
    assert failures(lab) == [("hang-0", 2), ("hang-1", 2)]


def test_a_request_that_comes_meanwhile_waits_for_the_running_model_alone(
    hanging: Any, bring: Any, monkeypatch: Any, wait_for: Any
) -> None:
    """Another study's requests, filed while a model runs or hangs: all are answered before the next model."""
    lab = hanging
    monkeypatch.setattr(housekeeping, "_AGAIN_SECONDS", 0.0)
    replace(lab, bring())
    filed: list[int] = []
    answered: list[bool] = []

    def watched(*given: Any, **named: Any) -> Any:
        answered.append(all(answer_of(lab.worker, request_id) is not None for request_id in filed))
        found = measure_next(*given, **named)
        if found is not None:  # while it ran, as far as the referee can tell
            asked = {"model_id": lab.models["hidden"]["good"], "request_key": lab.key()}
            filed.append(file_gate_request(lab.worker, study="hidden", **asked))
        return found

    monkeypatch.setattr(housekeeping, "measure_next", watched)
    stop, referee = threading.Event(), Referee(lab.referee, lab.artifacts, poll_seconds=0.1)
    referee._housekeeper._models_due = float("inf")
    thread = threading.Thread(target=referee.run, args=(stop,), daemon=True)
    thread.start()
    wait_for(lambda: len(answered) >= 5)  # after both programs and two others
    stop.set()
    thread.join()
    assert all(answered)


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_one_piece_of_work_runs_one_model(lab: Any, bring: Any, turns: list[Any], monkeypatch: Any, ends: str) -> None:
    replace(lab, bring())

    def run_one(*_: Any, **__: Any) -> Generator[None, None, float]:
        yield
        return 1 if ends == "well" else 1 / 0

    monkeypatch.setattr(housekeeping, "reevaluation_steps", run_one)
    idle_work = Housekeeper(lab.referee, lab.artifacts, RefereeLease(lab.referee), {})
    assert (idle_work.work(), turns) == (ends == "well", [])


@pytest.mark.journey
def test_a_failure_outlives_the_referee_and_rests_from_its_end_on(
    hanging: Any, bring: Any, turns: list[Any], monkeypatch: Any
) -> None:
    lab, ended = hanging, []
    run = sealed_runs.predict_in_child

    def timed(*given: Any, **named: Any) -> Any:
        try:
            return run(*given)
        finally:
            ended.append(lab.one("SELECT clock_timestamp()"))

    monkeypatch.setattr(sealed_runs, "predict_in_child", timed)
    replace(lab, bring())
    assert not idle_work_of(lab).work()
    ((tried_at, reason),) = lab.rows("SELECT tried_at, reason FROM work.remeasure_failures")
    assert tried_at > ended[0]
    assert "cannot be run" in reason
    assert [idle_work_of(lab).work() for _ in range(5)] == [False, True, True, True, False]
    assert [name for _, name, _ in turns] == [*HANGING, "good", "worse", "rare"]
    assert (counts(lab), failures(lab)) == ((2, 0), [("hang-0", 1), ("hang-1", 1)])
    lab.as_superuser("UPDATE work.remeasure_failures SET tried_at = tried_at - interval '100 s'")
    assert not idle_work_of(lab).work()
    assert len(turns) == 5
    lab.as_superuser("UPDATE work.remeasure_failures SET tried_at = tried_at - interval '1000 s' WHERE model_id = "
                     "(SELECT max(id) FROM work.models WHERE format = 'command')")  # fmt: skip
    assert not idle_work_of(lab).work()
    assert turns[5:] == [("full", "hang-1", False)]
    assert lab.one("SELECT max(tried_at) FROM work.remeasure_failures") > ended[-1]


def test_a_model_that_was_given_up_is_measured_by_hand(lab: Any, gone: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(housekeeping, "_AGAIN_SECONDS", 0.0)
    idle_work = idle_work_of(lab)
    assert [idle_work.work() for _ in range(6)] == [False, False, True, False, False, False]
    assert (counts(lab), failures(lab)) == ((0, 2), [("good", 2), ("worse", 2)])
    assert validation_report(lab.worker, lab.artifacts, "full").given_up == 2
    gone("good")
    assert not idle_work.work()
    lines: list[str] = []
    done = remeasure(lab.referee, lab.artifacts, "full", log=lines.append)
    assert [m.candidate for m in done.measured] == ["good"]
    assert [m.candidate for m in done.failed] == ["worse"]
    assert (done.left, done.given_up, counts(lab)) == (0, 1, (0, 1))
    assert failures(lab) == [("good", 2), ("worse", 3)]
    assert [line.rpartition("(")[2] for line in lines] == ["1 of 2)", "2 of 2)"]
    gone("worse")
    assert [m.candidate for m in remeasure(lab.referee, lab.artifacts, "full").measured] == ["worse"]
    assert counts(lab) == (0, 0)


@pytest.mark.usefixtures("gone")
def test_another_validation_set_is_another_chance(lab: Any, bring: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(housekeeping, "_AGAIN_SECONDS", 0.0)
    for _ in range(5):
        idle_work_of(lab).work()
    assert counts(lab) == (0, 2)
    replace(lab, bring(60, seed=2))
    assert counts(lab) == (3, 0)
    for _ in range(5):
        idle_work_of(lab).work()
    assert (counts(lab), failures(lab)) == ((0, 2), [("good", 2), ("worse", 2)] * 2)


def test_a_sandbox_that_cannot_be_made_is_no_model_s_failure(hanging: Any, bring: Any, monkeypatch: Any) -> None:
    lab = hanging
    replace(lab, bring())

    def broken(*_: Any, **__: Any) -> None:
        raise predict.TrainingError(FAILED + " network")

    monkeypatch.setattr(predict, "run_child", broken)
    with pytest.raises(StateError, match="the sandbox"):
        remeasure(lab.referee, lab.artifacts, "full")
    assert not idle_work_of(lab).work()
    assert (failures(lab), counts(lab)) == ([], (5, 0))


def test_an_error_that_nobody_has_thought_of_counts_and_tells_nothing(
    lab: Any, bring: Any, turns: list[Any], monkeypatch: Any, caplog: Any
) -> None:
    replace(lab, bring())
    answer = sealed_runs.predict_in_child
    faults = iter([ValueError("SECRET")])

    def once(*given: Any, **named: Any) -> Any:
        for fault in faults:
            raise fault
        return answer(*given)

    monkeypatch.setattr(sealed_runs, "predict_in_child", once)
    idle_work = idle_work_of(lab)
    assert [idle_work.work() for _ in range(3)] == [False, True, True]
    assert [name for _, name, _ in turns] == ["good", "worse", "rare"]
    reason = lab.one("SELECT reason FROM work.remeasure_failures")
    assert "ValueError" in reason
    assert "SECRET" not in reason
    assert "SECRET" in caplog.text
