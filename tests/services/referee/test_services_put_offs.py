"""A fault of the machine is never a verdict: the request is put off, keeps its place, and ends after so many times."""

from __future__ import annotations

import errno
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.entities import Symbol
from easeml_core.errors import (
    StoreExhaustedError,
    StoreUnavailableError,
    TrainingError,
    TrainingKilled,
    TrainingStarved,
)
from easeml_core.models.command_model import pack_command
from easeml_core.services.evaluation import sealed_runs
from easeml_core.services.evaluation.backoff import MOST_PUT_OFFS, list_put_off, sentence
from easeml_core.services.gate import judge as judging
from easeml_core.services.operations.doctor import check_put_offs
from easeml_core.services.referee.dispatch import MAX_ATTEMPTS
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request
from easeml_core.store.tables import models, sealed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GATE_SET, METER_SET = 1, 2
KILLED = TrainingKilled("the process was ended by SIGKILL, from outside or because the machine ran out of memory")


class Machine:
    """What happens to children on this machine: errors by what they are asked to predict, else what was kept before.

    No process is started. The model's answers are those that were kept in the laboratory.
    """

    def __init__(self, lab: Any, model: str = "good", study: str = "full") -> None:
        self.lab, self.on_sealed, self.on_open = lab, list[Exception](), list[Exception]()
        self.always: Exception | None = None
        self.runs = list[str]()
        with lab.referee.begin() as tx:
            study_id = lab.rows("SELECT study_id FROM work.models WHERE id = :id", id=lab.models[study][model])[0][0]
            self.identity = models.get_model(tx, study_id, lab.models[study][model]).identity
            sets = [s for (s,) in lab.rows("SELECT id FROM work.test_sets WHERE study_id = :id", id=study_id)]
            self.answers = dict[bytes, int]()
            for set_id in sets:
                labels = sealed.known_predictions(tx, set_id, self.identity)[self.identity].labels
                assert labels is not None
                rows = (np.ascontiguousarray(r, dtype=np.float32).tobytes() for r in sealed.sealed_inputs(tx, set_id))
                self.answers |= dict(zip(rows, map(int, labels), strict=True))
        lab.as_superuser("DELETE FROM sealed.predictions WHERE model = %s", self.identity)

    def predict(self, path: Any, kind: str, inputs: Any, **_: Any) -> Any:
        keys = [np.ascontiguousarray(row, dtype=np.float32).tobytes() for row in inputs]
        is_sealed = all(key in self.answers for key in keys)
        self.runs.append("sealed" if is_sealed else "open")
        errors = self.on_sealed if is_sealed else self.on_open
        if errors:
            raise errors.pop(0)
        if is_sealed and self.always is not None:
            raise self.always
        return np.array([self.answers.get(key, 0) for key in keys], dtype=np.int64)


@pytest.fixture
def make_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    def make(lab: Any, *names: str) -> Machine:
        machine = Machine(lab, *names)
        monkeypatch.setattr(sealed_runs, "predict_in_child", machine.predict)
        return machine

    return make


@pytest.fixture
def machine(lab: Any, make_machine: Callable[..., Machine]) -> Machine:
    return make_machine(lab)


def file(lab: Any, model: str = "good", study: str = "full") -> int:
    asked = {"study": study, "model_id": lab.models[study][model], "request_key": lab.key()}
    return int(file_gate_request(lab.worker, **asked))


def let_pass(lab: Any) -> None:
    """The pauses are over."""
    lab.as_superuser("UPDATE sealed.put_offs SET until = put_off_at + interval '1 ms'")


def pauses(lab: Any, request_id: int) -> list[tuple[bool, str, int]]:
    """Of each time that the request was put off: whether it counts, why, and for how many seconds."""
    found = lab.rows(
        "SELECT bounded, reason, round(extract(epoch FROM until - put_off_at))::int FROM sealed.put_offs "
        "WHERE request_id = :id ORDER BY attempt",
        id=request_id,
    )
    return [tuple(row) for row in found]


def try_again(lab: Any, request_id: int, **options: Any) -> Any:
    """Another process takes up what there is."""
    judge = Referee(lab.referee, lab.artifacts, **options)
    while judge.answer_one() is not None:
        pass
    return answer_of(lab.worker, request_id)


def ledger(lab: Any) -> list[Any]:
    return list(lab.rows("SELECT test_set_id, step, request_id, answer FROM sealed.ledger ORDER BY id"))


def test_a_kill_spends_nothing_keeps_the_order_of_the_set_and_lets_other_studies_go_on(
    lab: Any, machine: Machine
) -> None:
    machine.on_sealed = [KILLED]
    first, second, other = file(lab), file(lab, "rare"), file(lab, "rare", "first")
    assert lab.answer_all() == 2  # the first was put off, the other study's was decided
    assert [answer_of(lab.worker, r) is None for r in (first, second, other)] == [True, True, False]
    assert machine.runs == ["sealed", "open"]
    assert pauses(lab, first) == [(True, "TrainingKilled", 60)]
    assert [row for row in ledger(lab) if row[0] == GATE_SET] == []
    assert lab.one("SELECT count(*) FROM sealed.predictions WHERE model = :m", m=machine.identity) == 0
    assert lab.answer_all() == 0  # another process finds the pause in the database
    let_pass(lab)
    assert lab.answer_all() == 2
    assert [row for row in ledger(lab) if row[0] == GATE_SET] == [
        (GATE_SET, 1, first, "pass"),
        (GATE_SET, 2, second, "fail"),
    ]
    assert lab.one("SELECT count(*) FROM sealed.attempts WHERE NOT survived AND request_id = :id", id=first) == 1


@pytest.mark.parametrize("error", [KILLED, TrainingStarved("out of time: not finished after 120 s")])
def test_after_so_many_times_it_is_a_fail_that_uses_its_step_and_blocks_nobody(
    lab: Any, machine: Machine, error: Exception
) -> None:
    machine.always = error
    asked, after = file(lab), file(lab, "rare")
    for _ in range(MOST_PUT_OFFS):
        assert try_again(lab, asked) is None
        let_pass(lab)
    answer = try_again(lab, asked)
    assert answer is not None
    assert (answer.message, answer.refused) == ("step 1 of 3: fail", False)
    ((report,),) = lab.rows("SELECT report FROM sealed.ledger WHERE request_id = :id", id=asked)
    assert report["failure"].startswith(f"put off {MOST_PUT_OFFS} times; {error}")
    found = lab.rows("SELECT reason FROM sealed.put_offs WHERE request_id = :id", id=asked)
    assert found == [(type(error).__name__,)] * MOST_PUT_OFFS  # a word of ours: nothing that a model says
    assert answer_of(lab.worker, after).message == "step 2 of 3: fail"
    machine.always = None  # the failure was that request's alone: on a new question the model is run
    assert lab.one("SELECT count(*) FROM sealed.predictions WHERE model = :m", m=machine.identity) == 0


def test_pauses_grow_and_their_number_is_a_setting(lab: Any, machine: Machine) -> None:
    machine.always = KILLED
    asked = file(lab)
    for n in range(3):
        assert try_again(lab, asked, put_offs=3) is None
        assert pauses(lab, asked)[n] == (True, "TrainingKilled", 60 * 2**n)
        lab.as_superuser("UPDATE sealed.put_offs SET until = put_off_at + interval '1 ms' WHERE until > now()")
    assert try_again(lab, asked, put_offs=3).message == "step 1 of 3: fail"


@pytest.mark.parametrize(
    ("on_open", "times"),
    [
        (TrainingError("the process crashed with exit status 1"), 0),
        (KILLED, 1),  # of a machine that kills everything for a minute nothing follows yet
        (TrainingStarved("out of time"), 1),
    ],
)
def test_a_model_that_fails_on_the_open_rows_too_has_failed(
    lab: Any, machine: Machine, on_open: Exception, times: int
) -> None:
    machine.always = KILLED
    asked = file(lab)
    for _ in range(times):
        machine.on_open = [on_open]
        assert try_again(lab, asked) is None
        let_pass(lab)
    machine.on_open = [on_open]
    assert try_again(lab, asked).message == "step 1 of 3: fail"
    assert len(pauses(lab, asked)) == times
    with lab.referee.begin() as tx:
        failure = sealed.known_predictions(tx, GATE_SET, machine.identity)[machine.identity].failure
    assert f"on the open validation rows too: {on_open}" in failure


def test_the_model_that_stands_is_not_the_submissions_fault(lab: Any, make_machine: Any) -> None:
    passed = lab.gate("good")
    assert not lab.promote(passed.request_id).refused
    machine = make_machine(lab, "good")
    machine.always = KILLED
    asked = file(lab, "worse")
    for _ in range(2):
        assert try_again(lab, asked, put_offs=2) is None
        let_pass(lab)
    answer = try_again(lab, asked, put_offs=2)
    assert answer.refused
    assert "cannot be run on the sealed inputs; roll it back" in answer.message
    machine.always = None
    assert lab.answer(file(lab, "worse")).step == 2  # nothing was spent, and nothing is kept of it


def test_a_reading_is_put_off_too(lab: Any, machine: Machine) -> None:
    machine.on_open, machine.on_sealed = [KILLED], [KILLED]
    asked = {"study": "full", "model_id": lab.models["full"]["good"], "request_key": lab.key()}
    asked_id = file_meter_request(lab.worker, **asked)
    for _ in range(2):  # on the validation part, then on the sealed set
        assert try_again(lab, asked_id) is None
        let_pass(lab)
    assert not try_again(lab, asked_id).refused
    assert [reason for _, reason, _ in pauses(lab, asked_id)] == ["TrainingKilled"] * 2


def test_a_validation_part_on_which_every_run_is_killed_refuses_and_spends_nothing(lab: Any, machine: Machine) -> None:
    machine.on_open = [KILLED] * 3
    asked = {"study": "full", "model_id": lab.models["full"]["good"], "request_key": lab.key()}
    asked_id = file_meter_request(lab.worker, **asked)
    for _ in range(2):
        assert try_again(lab, asked_id, put_offs=2) is None
        let_pass(lab)
    answer = try_again(lab, asked_id, put_offs=2)
    assert answer.refused
    assert "cannot be run on the validation part" in answer.message
    assert ledger(lab) == []


def test_a_full_disk_puts_off_as_often_as_it_takes(lab: Any, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    asked, other = file(lab), file(lab, "rare", "first")
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryDirectory", failing(full))
        for n in range(MOST_PUT_OFFS + 4):
            assert try_again(lab, asked) is None
            assert pauses(lab, asked)[n] == (False, "ENOSPC", min(15 * 2**n, 600))
            lab.as_superuser("UPDATE sealed.put_offs SET until = put_off_at + interval '1 ms' WHERE until > now()")
    assert answer_of(lab.worker, other).step == 1
    assert try_again(lab, asked).message == "step 1 of 3: pass"


def test_no_memory_while_judging_puts_off_and_is_a_fail_in_the_end(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = file(lab)
    with monkeypatch.context() as patch:
        patch.setattr(judging, "judge_predictions", failing(MemoryError("no room")))
        assert try_again(lab, asked, put_offs=1) is None
        let_pass(lab)
        assert try_again(lab, asked, put_offs=1).message == "step 1 of 3: fail"
    assert pauses(lab, asked) == [(True, "MemoryError", 0)]


@pytest.mark.parametrize("error", [StoreUnavailableError("it is away"), StoreExhaustedError("disk full")])
def test_a_database_that_fails_often_has_not_killed_the_referee(
    lab: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked, judge = file(lab), Referee(lab.referee, lab.artifacts)
    with monkeypatch.context() as patch:
        patch.setattr(judging, "judge_predictions", failing(error))
        for _ in range(MAX_ATTEMPTS + 2):
            if isinstance(error, StoreExhaustedError):
                assert judge.answer_one() == asked
            else:
                with pytest.raises(StoreUnavailableError):
                    judge.answer_one()
            let_pass(lab)
    assert judge.answer_one() == asked
    assert answer_of(lab.worker, asked).message == "step 1 of 3: pass"


def test_two_referees_that_meet_the_same_fault_count_it_once(lab: Any, machine: Machine) -> None:
    from easeml_core.store.tables import requests

    asked = file(lab)
    with lab.referee.begin() as tx:
        attempts = [requests.note_attempt(tx, asked).number for _ in range(2)]
    counted = []
    for attempt in attempts:
        with lab.referee.begin() as tx:
            said = {"bounded": True, "reason": "TrainingKilled", "seconds": 60.0}
            counted.append(requests.put_off(tx, asked, attempt, **said))
    assert counted == [True, False]
    assert lab.one("SELECT count(*) FROM sealed.attempts WHERE survived") == 2


def test_the_referee_s_status_and_doctor_list_what_is_put_off_and_no_other_role_does(
    lab: Any, machine: Machine
) -> None:
    machine.on_sealed = [KILLED]
    first, _, disk = file(lab), file(lab, "rare"), file(lab, "rare", "first")
    assert try_again(lab, first, put_offs=3) is None
    assert answer_of(lab.worker, disk) is not None  # decided requests are not listed
    assert check_put_offs(lab.url("easeml_worker")).state == "skipped"
    assert list_put_off(lab.worker) is None
    (one,) = list_put_off(lab.referee) or ()
    assert (one.request_id, one.kind, one.study, one.times, one.most) == (first, "gate", "full", 1, 3)
    let_pass(lab)
    machine.on_sealed = [OSError(errno.ENOSPC, "injected")]
    assert try_again(lab, first, put_offs=3) is None
    found = check_put_offs(lab.url("easeml_referee"))
    assert found.state == "warning"
    until = lab.one("SELECT max(until) FROM sealed.put_offs").astimezone(UTC)
    assert found.found == (
        f"request {first} (gate, study 'full') is put off for ENOSPC (the database, a disk or the operating system), "
        f"time 1, of any number; next try at {until:%Y-%m-%d %H:%M:%S} UTC"
    )
    assert "(a kill, a time-out or a lack of memory), time 1 of 3; next try" in sentence(one)
    let_pass(lab)
    assert try_again(lab, first) is not None
    assert check_put_offs(lab.url("easeml_referee")).state == "ok"


def test_what_a_developer_sees_of_it_depends_on_no_label(make_lab: Any, make_machine: Any) -> None:
    """Two installations that differ in sealed labels alone: the same tries, pauses, states and answers, but the symbol.

    The model's process is killed three times; then it answers.
    """
    seen = []
    for flip in (False, True):
        lab = make_lab()
        if flip:
            lab.relabel(GATE_SET, lambda labels: 1 - labels)
        machine = make_machine(lab)
        machine.on_sealed = [KILLED] * 3
        asked, news = file(lab), []
        for _ in range(4):
            answer = try_again(lab, asked)
            news.append((answer is None, pauses(lab, asked)))
            let_pass(lab)
        shown = replace(answer, symbol=Symbol.WITHHELD, message=answer.message.replace(answer.symbol, ""))
        seen.append((answer.symbol, shown, news, machine.runs))
    assert [symbol for symbol, *_ in seen] == ["pass", "fail"]
    assert seen[0][1:] == seen[1][1:]


KILLS_ITSELF = """
import os, signal
import numpy as np
x = np.load('inputs.npy')
if len(x) == {rows}:
    os.kill(os.getppid() if os.getpid() == 1 else os.getpid(), signal.SIGKILL)
print(*(x[:, 20] < 16.8).astype(int), sep='\\n')
"""


def test_a_real_program_that_kills_itself_where_its_inputs_say_so(lab: Any, tmp_path: Path) -> None:
    """It can say as much about sealed inputs as ``put_offs`` allows, and uses its step."""
    rows = lab.one("SELECT rows FROM work.test_sets WHERE id = :id", id=GATE_SET)
    (tmp_path / "predict.py").write_text(KILLS_ITSELF.format(rows=rows))
    pack_command(tmp_path / "predict.py", tmp_path / "model", command="python predict.py")
    model_id = lab.hand_in("full", "program", tmp_path / "model", kind="command", loss=0.1)
    asked = file_gate_request(lab.worker, study="full", model_id=model_id, request_key=lab.key())
    assert try_again(lab, asked, put_offs=1) is None
    assert pauses(lab, asked) == [(True, "TrainingKilled", 60)]
    let_pass(lab)
    assert try_again(lab, asked, put_offs=1).message == "step 1 of 3: fail"
    assert lab.gate("rare").step == 2


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail
