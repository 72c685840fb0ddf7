"""Requests for suggestions: filed by a role that may not suggest, and decided once by the scheduler's process."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from easeml_core.errors import ConfigError, StateError, StoreUnavailableError
from easeml_core.services.selection import scheduler_process as room
from easeml_core.services.selection.scheduler import LiveScheduler, Suggestions, suggest_trials
from easeml_core.services.selection.scheduler_process import SchedulerProcess
from easeml_core.services.selection.suggestions import FiledScheduler, scheduler_for
from easeml_core.store.tables import suggestion_requests

LOGIN = "easeml_t_garden"


def file(installation: Any, key: str, **asked: Any) -> int:
    given = {
        "requested": 1,
        "device": None,
        "studies": None,
        "functions": {},
        "trainers": True,
        "runtimes": None,
    } | asked
    with installation.store.begin() as tx:
        return suggestion_requests.file_suggestion_request(tx, request_key=key, **given)


def found(installation: Any, number: int) -> suggestion_requests.SuggestionRequest:
    with installation.store.begin() as tx:
        return suggestion_requests.get_suggestion_request(tx, number)


def of_login(installation: Any, login: str, *numbers: int) -> None:
    installation.sql(
        "UPDATE work.suggestion_requests SET login = :login WHERE id = ANY(:ids)", login=login, ids=list(numbers)
    )


def garden(installation: Any, *tenants: str) -> None:
    """Let the login have these tenants; each study of the installation has a tenant of its name."""
    for tenant in tenants:
        installation.sql(
            "INSERT INTO work.tenant_logins (login, tenant_id) SELECT :login, id FROM work.tenants WHERE name = :name",
            login=LOGIN,
            name=tenant,
        )


def studies_given(installation: Any, key: str) -> set[str]:
    asked = (
        "SELECT s.name FROM work.suggestion_batches b JOIN work.suggestions g ON g.batch_id = b.id JOIN work.trials t "
        "ON t.id = g.trial_id JOIN work.studies s ON s.id = t.study_id WHERE b.request_key = :key"
    )
    return {name for (name,) in installation.sql(asked, key=key)}


def test_a_waiting_caller_gets_what_the_scheduler_would_give_it(installation: Any) -> None:
    process, stop = SchedulerProcess(installation.owner, poll_seconds=3600), threading.Event()
    thread = threading.Thread(target=process.run, args=(stop,))
    thread.start()
    try:
        caller = FiledScheduler(installation.store, studies_only=["h-1", "h-4"])
        given = caller.ask(count=3, device="gpu", request_key="night")
        assert caller.ask(count=3, device="gpu", request_key="night") == given
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert len(given.trials) == 3
    assert {t.study for t in given.trials} <= {"h-1", "h-4"}
    assert given == suggest_trials(installation.store, count=3, device="gpu", request_key="night")
    assert installation.sql("SELECT requested, count(*) FROM work.suggestion_batches GROUP BY 1") == [(3, 1)]


@pytest.mark.parametrize("dies", [True, False])
def test_a_process_that_ends_between_decision_and_note_decides_nothing_twice(
    dies: bool, installation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = file(installation, "key", requested=2)

    def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError

    with monkeypatch.context() as patched:
        patched.setattr(suggestion_requests, "note_decided", away)
        process = SchedulerProcess(installation.owner)
        with pytest.raises(StoreUnavailableError):
            process.decide_open()
    before = installation.sql("SELECT id FROM work.trials WHERE state = 'SUGGESTED' ORDER BY id")
    assert found(installation, number).decided_at is None
    assert (SchedulerProcess(installation.owner) if dies else process).decide_open() == 1
    assert installation.sql("SELECT id FROM work.trials WHERE state = 'SUGGESTED' ORDER BY id") == before
    assert found(installation, number).refusal is None
    assert process.decide_open() == 0


def test_a_login_that_files_many_requests_delays_no_other(installation: Any) -> None:
    many = [file(installation, f"many/{n}") for n in range(5)]
    of_login(installation, LOGIN, *many)
    few = [file(installation, f"few/{n}") for n in range(2)]
    with installation.owner.begin() as tx:
        order = [r.id for r in suggestion_requests.open_suggestion_requests(tx)]
    assert order == [many[0], few[0], many[1], few[1], *many[2:]]


def test_a_tenants_login_gets_trials_of_its_own_studies_only(installation: Any) -> None:
    garden(installation, "h-2", "h-3")
    for key, studies in (("all", None), ("one", ["h-3"])):
        of_login(installation, LOGIN, file(installation, key, requested=6, studies=studies))
    assert SchedulerProcess(installation.owner).decide_open() == 2
    assert studies_given(installation, "all") == {"h-2", "h-3"}
    assert studies_given(installation, "one") == {"h-3"}


@pytest.mark.parametrize("login", [LOGIN, "easeml_t_gone", "easeml_tenant", "easeml_referee"])
def test_a_login_without_tenants_gets_nothing(login: str, installation: Any) -> None:
    of_login(installation, login, file(installation, "key", requested=3))
    assert SchedulerProcess(installation.owner).decide_open() == 1
    assert studies_given(installation, "key") == set()


@pytest.mark.parametrize("name", ["h-1", "no-such"])
def test_a_refusal_names_no_study_of_another_tenant(name: str, installation: Any) -> None:
    garden(installation, "h-2")
    number = file(installation, "key", studies=["h-2", name])
    of_login(installation, LOGIN, number)
    SchedulerProcess(installation.owner).decide_open()
    refusal = found(installation, number).refusal
    assert refusal is not None
    assert f"{name!r}" in refusal
    assert not {"h-0", "h-1", "h-3", "h-4"} - {name} & set(refusal.replace("'", " ").replace(",", " ").split())
    assert installation.sql("SELECT FROM work.suggestion_batches") == []


def test_a_fault_refuses_one_request_and_the_others_are_decided(
    installation: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, broken, right = file(installation, "1", studies=["nose"]), file(installation, "2"), file(installation, "3")
    ask = LiveScheduler.ask

    def faulty(live: LiveScheduler, *, request_key: str, **asked: Any) -> Suggestions:
        if request_key == "2":
            message = "the secret of another tenant"
            raise ArithmeticError(message)
        return ask(live, request_key=request_key, **asked)

    monkeypatch.setattr(LiveScheduler, "ask", faulty)
    assert SchedulerProcess(installation.owner).decide_open() == 3
    refusals = [found(installation, number).refusal for number in (wrong, broken, right)]
    assert "'nose'" in str(refusals[0])
    assert refusals[1:] == [room._FAULT, None]
    assert "the secret of another tenant" in caplog.text
    with pytest.raises(StateError, match=r"refuses request .*'nose'"):
        FiledScheduler(installation.store, studies_only=["nose"]).ask(request_key="1")


def test_without_a_process_the_error_names_it_and_a_further_try_takes_up_the_request(installation: Any) -> None:
    caller = FiledScheduler(installation.store, wait_seconds=0)
    with pytest.raises(StateError, match="easeml scheduler"):
        caller.ask(count=2, request_key="key")
    SchedulerProcess(installation.owner).decide_open()
    assert len(caller.ask(count=2, request_key="key").trials) == 2
    assert installation.sql("SELECT count(*) FROM work.suggestion_requests") == [(1,)]


def test_schedulers_are_kept_for_what_is_asked_again(installation: Any, loads: list[int]) -> None:
    process = SchedulerProcess(installation.owner)
    for n, functions in enumerate(({}, {"tree": "a"}, {}, {"tree": "a"}, {"tree": "b"}, {"tree": None})):
        file(installation, str(n), functions=functions)
    assert process.decide_open() == 6
    assert (len(loads), len(process._schedulers)) == (4, 4)
    for n in range(room.KEPT + 3):
        file(installation, f"device/{n}", functions={f"f{n}": None})
        process.decide_open()
    assert len(process._schedulers) == room.KEPT


def test_the_database_says_who_decides(installation: Any) -> None:
    assert isinstance(scheduler_for(installation.store, policy="default"), LiveScheduler)
    installation.sql("REVOKE INSERT ON work.suggestions FROM easeml_worker")
    installation.sql("REVOKE INSERT (batch_id, position, trial_id, reasons) ON work.suggestions FROM easeml_worker")
    assert isinstance(scheduler_for(installation.store), FiledScheduler)
    with pytest.raises(ConfigError, match="policy"):
        scheduler_for(installation.store, policy="default")


@pytest.mark.parametrize("asked", [{"count": 0}, {"count": 1001}, {"request_key": ""}, {"device": "a b"}])
def test_what_cannot_be_asked_is_not_filed(asked: dict[str, Any], installation: Any) -> None:
    with pytest.raises(ConfigError):
        FiledScheduler(installation.store).ask(**{"request_key": "key"} | asked)
    assert installation.sql("SELECT FROM work.suggestion_requests") == []
