"""The referee's process: answers each request once, in order, and survives bugs, doubles and restarts."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from registering import register_study

from easeml_core.errors import ConcurrentUpdateError, StoreUnavailableError
from easeml_core.services.gate import judge as judging
from easeml_core.services.meter import reading
from easeml_core.services.referee import process as referee
from easeml_core.services.referee import publishing
from easeml_core.services.referee.dispatch import MAX_ATTEMPTS
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request
from easeml_core.services.reports.overview import study_state
from easeml_core.store import schema
from easeml_core.store.database import Store
from easeml_core.store.tables import referee_claims, requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRIVATE = "the referee could not answer this request; its log says why, and nothing of the sealed set was spent"


def file_gate(lab: Any, model: str = "good", study: str = "full") -> int:
    asked = {"study": study, "model_id": lab.models[study][model], "request_key": lab.key()}
    return int(file_gate_request(lab.worker, **asked))


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_a_bug_before_any_label_is_looked_at_is_private_and_spends_nothing(
    lab: Any, monkeypatch: Any, caplog: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(judging, "sealed_predictions", failing(ZeroDivisionError("no such column")))
        answer = lab.gate("good")
    assert (answer.refused, answer.message) == (True, PRIVATE)
    assert "no such column" in caplog.text  # for the referee
    assert lab.one("SELECT count(*) FROM sealed.ledger") == lab.one("SELECT count(*) FROM work.gate_verdicts") == 0
    assert lab.gate("good").step == 1


def test_a_bug_after_the_step_was_written_takes_the_step_back(lab: Any, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "_end_sets", failing(RuntimeError("too late")))
        assert lab.gate("good").message == PRIVATE
    assert lab.one("SELECT count(*) FROM sealed.ledger") == lab.one("SELECT count(*) FROM work.gate_verdicts") == 0


def test_a_refused_database_statement_stays_private_too(lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(judging, "sealed_predictions", lambda tx, *_: tx.exec_driver_sql("SELECT 1 / 0"))
    answer = lab.gate("good")
    assert (answer.refused, answer.message) == (True, PRIVATE)


def test_a_bug_while_sealing_refuses_the_study(bare: Any, monkeypatch: Any) -> None:
    from easeml_core.services.registration import sealing

    monkeypatch.setattr(sealing, "check_split", failing(ZeroDivisionError("no room")))
    answer = bare.register("cancer")
    said = f"{PRIVATE}; correct that and register the study again"
    assert (answer.refused, answer.message) == (True, said)
    assert study_state(bare.worker, study="cancer") == "REFUSED"


def test_a_database_that_is_away_leaves_the_request_for_later(lab: Any, monkeypatch: Any) -> None:
    asked = file_gate(lab)
    with monkeypatch.context() as patch:
        patch.setattr(judging, "judge_predictions", failing(StoreUnavailableError("it is away")))
        with pytest.raises(StoreUnavailableError):
            Referee(lab.referee, lab.artifacts).answer_one()
    assert answer_of(lab.worker, asked) is None
    lab.end_leases()
    assert lab.answer(asked).step == 1


def test_a_lock_in_the_way_puts_a_request_off_and_lets_the_next_one_through(lab: Any, monkeypatch: Any) -> None:
    asked, after = file_gate(lab), lab.key()
    referee = Referee(lab.referee, lab.artifacts)
    with monkeypatch.context() as patch:
        patch.setattr(judging, "judge_predictions", failing(ConcurrentUpdateError("another was first")))
        for _ in range(7):  # more often than an attempt that kills the referee would be forgiven
            referee._claims._aside.clear()
            assert referee.answer_one() == asked
    assert answer_of(lab.worker, asked) is None
    metered = file_meter_request(lab.worker, study="full", model_id=lab.models["full"]["good"], request_key=after)
    assert referee.answer_one() == metered
    assert referee.answer_one() is None  # put off for a while
    assert lab.answer(asked).step == 1  # by another referee, who knows nothing of that


def test_a_request_that_killed_the_referee_too_often_is_given_up(lab: Any) -> None:
    asked = file_gate(lab)
    with lab.referee.begin() as tx:
        for _ in range(MAX_ATTEMPTS):
            requests.note_attempt(tx, asked)
    answer = lab.answer(asked)
    assert answer.refused
    assert "ended 5 times while it worked on this request" in answer.message
    assert lab.gate("good").step == 1


def test_a_row_that_cannot_even_be_read_does_not_end_the_process(lab: Any, monkeypatch: Any) -> None:
    asked = file_gate(lab)
    monkeypatch.setattr(requests, "get_request", failing(ValueError("5000 digits")))
    answer = lab.answer(asked)
    assert (answer.refused, answer.message) == (True, PRIVATE)


def test_requests_are_answered_in_the_order_they_came(lab: Any) -> None:
    asked = [file_gate(lab, model) for model in ("rare", "good", "worse")]
    judge = Referee(lab.referee, lab.artifacts)
    assert [judge.answer_one() for _ in range(4)] == [*asked, None]
    assert [answer_of(lab.worker, a).step for a in asked] == [1, 2, 3]


def test_two_referees_at_once_answer_each_request_once(lab: Any) -> None:
    asked = [file_gate(lab, m, s) for m in ("rare", "worse", "good") for s in ("full", "hidden")]
    together, answered = threading.Barrier(2), list[int]()

    def work() -> None:
        judge = Referee(lab.referee, lab.artifacts)
        together.wait()
        answered.extend(iter(judge.answer_one, None))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answered) == asked
    steps = lab.rows("SELECT test_set_id, array_agg(step ORDER BY step) FROM sealed.ledger GROUP BY 1")
    assert sorted(s for _, s in steps) == [[1, 2, 3], [1, 2, 3]]
    assert lab.one("SELECT count(*) FROM work.answers WHERE refused") == 0


@pytest.fixture
def at_work(lab: Any) -> Iterator[threading.Thread]:
    """A referee in a thread that looks by itself once an hour only."""
    stop = threading.Event()
    thread = threading.Thread(target=Referee(lab.referee, lab.artifacts, poll_seconds=3600).run, args=(stop,))
    thread.start()
    yield thread
    stop.set()
    thread.join(10)
    assert not thread.is_alive()  # it stops on request, in the middle of its wait


def test_a_request_wakes_the_referee(lab: Any, at_work: threading.Thread, wait_for: Any) -> None:
    for model in ("rare", "good"):
        asked = file_gate(lab, model)
        wait_for(lambda asked=asked: answer_of(lab.worker, asked))
    assert at_work.is_alive()


def test_a_bug_outside_of_any_request_is_logged_and_the_work_goes_on(
    lab: Any, monkeypatch: Any, wait_for: Any, caplog: Any
) -> None:
    claim, bugs = referee_claims.claim_request, [RuntimeError("a bug")]

    def claim_or_fail(*given: Any, **more: Any) -> Any:
        if bugs:
            raise bugs.pop()
        return claim(*given, **more)

    monkeypatch.setattr(referee_claims, "claim_request", claim_or_fail)
    asked, stop = file_gate(lab), threading.Event()
    thread = threading.Thread(target=Referee(lab.referee, lab.artifacts).run, args=(stop,))
    thread.start()
    wait_for(lambda: answer_of(lab.worker, asked))
    stop.set()
    thread.join(10)
    assert "the referee goes on" in caplog.text


def test_an_old_schema_is_one_line_with_the_remedy_until_it_is_upgraded(
    lab: Any, monkeypatch: Any, wait_for: Any, caplog: Any
) -> None:
    monkeypatch.setattr(referee, "SCHEMA_SECONDS", 0.1)
    old = "UPDATE work.alembic_version SET version_num = "
    owner, fresh = Store(lab.url("easeml_owner")), Store(lab.url("easeml_referee"))
    asked, stop = file_gate(lab), threading.Event()
    with owner.begin() as tx:
        tx.exec_driver_sql(old + "'r0000'")
    thread = threading.Thread(target=Referee(fresh, lab.artifacts).run, args=(stop,))
    thread.start()
    wait_for(lambda: caplog.text.count("easeml db upgrade") >= 2)
    with owner.begin() as tx:
        tx.exec_driver_sql(old + f"'{schema.REVISION}'")
    wait_for(lambda: answer_of(lab.worker, asked))
    stop.set()
    thread.join(10)
    owner.close()
    fresh.close()
    assert "Traceback" not in caplog.text
    assert "run `easeml db upgrade`" in caplog.text


def test_the_log_tells_that_and_not_what_was_answered(lab: Any, caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG, logger="easeml_core"):
        passed, failed = lab.gate("good").request_id, lab.gate("rare").request_id
        refused = lab.gate("good", reliability=0.5).request_id
    assert [r.getMessage() for r in caplog.records if r.name.startswith("easeml_core")] == [
        f"request {passed} (gate): answered",
        f"request {failed} (gate): answered",
        f"request {refused} (gate): refused",
    ]


def test_a_worker_cannot_play_the_referee(lab: Any) -> None:
    asked = file_gate(lab)
    with pytest.raises(Exception, match="this role may not do that"):
        Referee(lab.worker, lab.artifacts).answer_one()
    assert answer_of(lab.worker, asked) is None


def test_a_bug_of_the_meter_looks_like_a_set_that_has_served(lab: Any, monkeypatch: Any, caplog: Any) -> None:
    """An error may depend on the labels: free of charge it could be used to ask about them."""
    monkeypatch.setattr(reading, "read_submission", failing(ValueError("56 errors")))
    answer = lab.meter("rare")
    assert (answer.refused, answer.message, answer.signal) == (False, "the sealed set is retired", None)
    assert "56 errors" in caplog.text
    assert lab.rows("SELECT answer, report ->> 'why' FROM sealed.ledger") == [("retired", "ValueError: 56 errors")]
    assert lab.one("SELECT state || ' ' || retired_why FROM work.test_sets WHERE id = 2") == "retired signals"


def test_a_study_of_another_kind_waits_its_turn_behind_no_bug(bare: Any, monkeypatch: Any) -> None:
    from easeml_core.services.datasets import access

    load, fails = access.load_source, failing(OSError("disk"))
    monkeypatch.setattr(access, "load_source", lambda s, *t, **n: fails() if "iris" in s else load(s, *t, **n))
    for study, source in (("iris", "sklearn:iris"), ("cancer", "sklearn:breast_cancer")):
        gate = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3}
        meter = {"tolerance": 0.2, "reliability": 0.9, "steps": 4}
        given = {"source": source, "gate": gate, "meter": meter, "request_key": study}
        register_study(bare.worker, tenant="lab", study=study, **given)
    assert bare.answer_all() == 2
    assert [study_state(bare.worker, study=s) for s in ("iris", "cancer")] == ["REFUSED", "ACTIVE"]


HOSTILE = [
    ("gate", '{"condition": 5}'),
    ("gate", '{"condition": "n - o > 0"}'),
    ("gate", '{"reliability": {"x": 1}}'),
    ("promote", "{}"),
    ("promote", '{"gate_request_id": "1; DROP TABLE work.models"}'),
    ("promote", '{"gate_request_id": null}'),
]


@pytest.mark.parametrize(("kind", "arguments"), HOSTILE)
def test_a_request_that_no_code_of_ours_filed_is_survived(kind: str, arguments: str, lab: Any) -> None:
    filed = (
        "INSERT INTO work.requests (request_key, kind, study_id, model_id, arguments) "
        "VALUES ('forged', :kind, 1, 4, CAST(:arguments AS jsonb)) RETURNING id"
    )
    ((asked,),) = lab.rows(filed, store=lab.worker, kind=kind, arguments=arguments)
    answer = lab.answer(asked)
    assert answer.refused or kind == "meter"  # whose arguments are not read
    assert lab.rows("SELECT model_id FROM work.production") == []
    assert lab.gate("good").step == 1
