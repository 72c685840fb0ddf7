"""Requests for suggestions: filed by a role that may not suggest, and decided once by the scheduler's process."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from easeml_core.errors import ConfigError, StateError, StoreUnavailableError
from easeml_core.services.operations.checks import check_scheduler
from easeml_core.services.selection import scheduler_process as room
from easeml_core.services.selection.scheduler import LiveScheduler, Suggestions, suggest_trials
from easeml_core.services.selection.scheduler_process import FiledSuggester, SchedulerProcess, suggester_for
from easeml_core.store import logins
from easeml_core.store.database import Store
from easeml_core.store.tables import scheduler_requests

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
        return scheduler_requests.file_suggestion_request(tx, request_key=key, **given).id


def found(installation: Any, number: int) -> scheduler_requests.SuggestionRequest:
    with installation.store.begin() as tx:
        return scheduler_requests.get_suggestion_request(tx, number)


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
        caller = FiledSuggester(installation.store, studies_only=["h-1", "h-4"])
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

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(scheduler_requests, "note_decided", killed)
        process = SchedulerProcess(installation.owner)
        with pytest.raises(KeyboardInterrupt):
            process.decide_open()
    before = installation.sql("SELECT id FROM work.trials WHERE state = 'SUGGESTED' ORDER BY id")
    assert len(before) == 2
    assert found(installation, number).decided_at is None
    assert (SchedulerProcess(installation.owner) if dies else process).decide_open() == 1
    assert installation.sql("SELECT id FROM work.trials WHERE state = 'SUGGESTED' ORDER BY id") == before
    assert found(installation, number).refusal is None
    assert process.decide_open() == 0


def test_a_login_that_files_many_requests_delays_no_other(installation: Any) -> None:
    """Each look takes the oldest request of each login."""
    many = [file(installation, f"many/{n}") for n in range(3)]
    of_login(installation, LOGIN, *many)
    few = [file(installation, f"few/{n}") for n in range(2)]
    looks = []
    process = SchedulerProcess(installation.owner)
    while True:
        with installation.owner.begin() as tx:
            looks.append(scheduler_requests.open_suggestion_requests(tx))
        if not process.decide_open():
            break
    assert looks == [[many[0], few[0]], [many[1], few[1]], [many[2]], []]


def test_two_processes_share_the_requests(installation: Any) -> None:
    first, second = file(installation, "first"), file(installation, "second")
    of_login(installation, LOGIN, second)
    with installation.owner.begin() as tx:
        assert scheduler_requests.hold_open(tx, first)  # another process decides it
        assert SchedulerProcess(installation.owner).decide_open() == 1
    assert [found(installation, n).decided_at is None for n in (first, second)] == [True, False]
    assert SchedulerProcess(installation.owner).decide_open() == 1


def test_a_tenants_login_gets_trials_of_its_own_studies_only(installation: Any) -> None:
    garden(installation, "h-2", "h-3")
    for key, studies in (("all", None), ("one", ["h-3"])):
        of_login(installation, LOGIN, file(installation, key, requested=6, studies=studies))
    assert [SchedulerProcess(installation.owner).decide_open() for _ in range(3)] == [1, 1, 0]
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


def test_a_request_that_meets_faults_rests_and_the_others_are_decided(
    installation: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the end it is refused; its caller hears of no verdict on what it asked, and a further call files it anew."""
    broken = file(installation, "broken")
    of_login(installation, LOGIN, right := file(installation, "right"))
    ask = LiveScheduler.ask

    def faulty(live: LiveScheduler, *, request_key: str, **asked: Any) -> Suggestions:
        if request_key == "broken":
            message = "the secret of another tenant"
            raise AttributeError(message)
        return ask(live, request_key=request_key, **asked)

    process = SchedulerProcess(installation.owner)
    with monkeypatch.context() as patched:
        patched.setattr(LiveScheduler, "ask", faulty)
        assert process.decide_open() == 1
        assert process.decide_open() == 0  # it rests
        assert [found(installation, n).decided_at is None for n in (broken, right)] == [True, False]
        for _ in range(room.MOST_TRIES + 1):
            process._rests.clear()
            process.decide_open()
    assert found(installation, broken).refusal == room.FAULT
    assert "the secret of another tenant" in caplog.text
    caller = FiledSuggester(installation.store, wait_seconds=0)
    with pytest.raises(StoreUnavailableError, match="has not decided"):
        caller.ask(request_key="broken")
    assert process.decide_open() == 1
    assert len(caller.ask(request_key="broken").trials) == 1


def test_a_request_whose_decision_ends_the_process_ends_it_a_few_times(
    installation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = file(installation, "poison")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveScheduler, "ask", killed)
    for _ in range(room.MOST_TRIES):
        with pytest.raises(KeyboardInterrupt):
            SchedulerProcess(installation.owner).decide_open()
    assert SchedulerProcess(installation.owner).decide_open() == 1
    assert found(installation, number).refusal == room.FAULT


def test_what_the_asker_can_correct_is_refused_and_may_be_asked_again(installation: Any) -> None:
    number = file(installation, "key", studies=["nose"])
    process = SchedulerProcess(installation.owner)
    assert process.decide_open() == 1
    assert "'nose'" in str(found(installation, number).refusal)
    caller = FiledSuggester(installation.store, studies_only=["h-4"], wait_seconds=0)
    with pytest.raises(StoreUnavailableError):
        caller.ask(request_key="key")  # filed anew, with the study's right name
    process.decide_open()
    assert [t.study for t in caller.ask(request_key="key").trials] == ["h-4"]
    file(installation, "wrong", studies=["nose"])
    stop = threading.Event()
    thread = threading.Thread(target=process.run, args=(stop,))
    thread.start()
    try:
        with pytest.raises(StateError, match=r"refuses request .*'nose'"):
            FiledSuggester(installation.store, studies_only=["nose"]).ask(request_key="wrong")
    finally:
        stop.set()
        thread.join(30)


def test_a_request_whose_caller_has_gone_is_refused_and_the_next_caller_files_it_anew(installation: Any) -> None:
    number = file(installation, "key")
    installation.sql("UPDATE work.suggestion_requests SET filed_at = filed_at - interval '10 minutes'")
    process, stop = SchedulerProcess(installation.owner), threading.Event()
    caller = FiledSuggester(installation.store)
    thread = threading.Thread(target=process.run, args=(stop,))
    thread.start()
    try:
        assert len(caller.ask(request_key="key").trials) == 1
    finally:
        stop.set()
        thread.join(30)
    assert found(installation, number).refusal == room.STALE
    assert installation.sql("SELECT count(*) FROM work.suggestion_requests") == [(2,)]


def test_a_caller_that_is_stopped_waits_no_longer(installation: Any) -> None:
    caller = FiledSuggester(installation.store, should_stop=lambda: True)
    assert caller.ask(request_key="key").trials == ()


def test_without_a_process_the_error_names_it_and_a_further_try_takes_up_the_request(installation: Any) -> None:
    caller = FiledSuggester(installation.store, wait_seconds=0)
    with pytest.raises(StoreUnavailableError, match="easeml scheduler"):
        caller.ask(count=2, request_key="key")
    SchedulerProcess(installation.owner).decide_open()
    assert len(caller.ask(count=2, request_key="key").trials) == 2
    assert installation.sql("SELECT count(*) FROM work.suggestion_requests") == [(1,)]


def test_decided_requests_are_forgotten_and_their_keys_still_answered(installation: Any) -> None:
    file(installation, "key", requested=2)
    process = SchedulerProcess(installation.owner)
    process.decide_open()
    installation.sql("UPDATE work.suggestion_requests SET decided_at = decided_at - interval '8 days'")
    with installation.owner.begin() as tx:
        assert scheduler_requests.forget_old_requests(tx) == 1
    file(installation, "key", requested=2)
    assert process.decide_open() == 1
    assert installation.sql("SELECT count(*) FROM work.trials WHERE state = 'SUGGESTED'") == [(2,)]


def test_schedulers_are_kept_for_what_is_asked_again(installation: Any, loads: list[int]) -> None:
    """Of each login a few: none can make the process forget those of others."""
    process = SchedulerProcess(installation.owner)
    for n, functions in enumerate(({}, {"tree": "a"}, {}, {"tree": "a"}, {"tree": None})):
        file(installation, str(n), functions=functions)
        assert process.decide_open() == 1
    assert (len(loads), len(process._schedulers)) == (3, 3)
    for n in range(room.KEPT_OF_LOGIN + 2):
        of_login(installation, LOGIN, file(installation, f"many/{n}", functions={f"f{n}": None}))
        process.decide_open()
    assert len(process._schedulers) == 2 * room.KEPT_OF_LOGIN
    file(installation, "again")
    process.decide_open()
    assert loads[3 + room.KEPT_OF_LOGIN + 2 :] == []


def test_too_many_offers_are_refused(installation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_OFFERS", 4)
    most, more = (
        file(installation, f"key-{n}", studies=["h-1", "h-2"], functions={f"f{i}": None for i in range(n)})
        for n in (2, 3)
    )
    process = SchedulerProcess(installation.owner)
    assert [process.decide_open(), process.decide_open()] == [1, 1]  # one of a login at a time
    assert found(installation, most).refusal is None
    assert "fewer studies" in str(found(installation, more).refusal)


def test_the_database_says_who_decides(installation: Any) -> None:
    assert isinstance(suggester_for(installation.store, policy="default"), LiveScheduler)
    installation.sql("REVOKE INSERT ON work.suggestions FROM easeml_worker")
    installation.sql("REVOKE INSERT (batch_id, position, trial_id, reasons) ON work.suggestions FROM easeml_worker")
    assert isinstance(suggester_for(installation.store), FiledSuggester)
    with pytest.raises(ConfigError, match="policy"):
        suggester_for(installation.store, policy="default")


@pytest.mark.parametrize("asked", [{"count": 0}, {"count": 1001}, {"request_key": ""}, {"device": "a b"}])
def test_what_cannot_be_asked_is_not_filed(asked: dict[str, Any], installation: Any) -> None:
    with pytest.raises(ConfigError):
        FiledSuggester(installation.store).ask(**{"request_key": "key"} | asked)
    assert installation.sql("SELECT FROM work.suggestion_requests") == []


def test_a_burst_of_forged_notifications_costs_a_look_or_two(installation: Any, monkeypatch: Any) -> None:
    """Any role may notify; what a notification says is not read."""
    looks, original = [], SchedulerProcess.decide_open
    monkeypatch.setattr(SchedulerProcess, "decide_open", lambda *given: looks.append(1) or original(*given))
    process, stop = SchedulerProcess(installation.owner, poll_seconds=60.0), threading.Event()
    thread = threading.Thread(target=process.run, args=(stop,))
    thread.start()
    try:
        FiledSuggester(installation.store).ask(request_key="before")
        before = len(looks)
        installation.sql("SELECT pg_notify('easeml_scheduler', 'suggestions:' || k) FROM generate_series(1, 2000) k")
        FiledSuggester(installation.store).ask(request_key="after")
        assert len(looks) - before <= 8  # a look that finds nothing after each that finds something
    finally:
        stop.set()
        thread.join(30)


@pytest.mark.own_database
def test_the_roles_can_do_what_they_must_and_each_login_gets_its_own(installation: Any, database: Any) -> None:
    """Logins as `easeml tenant login` makes them, a device, and the process under the role easeml_scheduler."""
    administrator = Store(database.url("postgres"))
    with administrator.begin() as tx:
        logins.run(tx, logins.statements(tx, LOGIN, "secret"))
        tenants = [n for (n,) in installation.sql("SELECT id FROM work.tenants WHERE name IN ('h-2', 'h-3')")]
        logins.map_login(tx, LOGIN, tenants)
    stores = [
        Store(database.owner.address_of(LOGIN, "secret")),
        *(Store(database.url(f"easeml_{role}")) for role in ("device", "scheduler")),
    ]
    tenant, device, scheduler = stores
    process, stop = SchedulerProcess(scheduler), threading.Event()
    thread = threading.Thread(target=process.run, args=(stop,))
    thread.start()
    try:
        for _ in range(2):
            own = suggester_for(tenant, functions={"tree": "a"}).ask(count=3, request_key="night/1")
            assert {t.study for t in own.trials} == {"h-2", "h-3"}
        assert len(suggester_for(device).ask(count=2, device="gpu", request_key="night/1").trials) == 2
        with pytest.raises(StateError, match="study of this login 'h-1'"):
            suggester_for(tenant, studies_only=["h-1"]).ask(request_key="night/2")
        with scheduler.begin() as tx:
            assert scheduler_requests.forget_old_requests(tx) == 0
    finally:
        stop.set()
        thread.join(30)
        for store in stores:
            store.close()
        with administrator.begin() as tx:
            tx.exec_driver_sql(f"DELETE FROM work.tenant_logins WHERE login = '{LOGIN}'")
            logins.run(tx, logins.end_statements(LOGIN))
        administrator.close()
    assert not thread.is_alive()


def test_a_process_that_runs_is_known_to_every_role_until_it_ends_or_falls_silent(installation: Any) -> None:
    def life() -> scheduler_requests.SchedulerLife:
        with installation.store.begin() as tx:
            return scheduler_requests.scheduler_life(tx)

    def check(logins: int = 1) -> tuple[str, str]:
        with installation.store.begin() as tx:
            found = check_scheduler(tx, logins)
        return found.state, found.found

    assert (life().alive, life().beat_seconds, check(0)[0]) == (0, None, "ok")
    assert check() == ("warning", "no scheduler runs; 0 requests for suggestions wait")
    file(installation, "asked", requested=1)
    assert check()[0] == check(0)[0] == "failed"
    process, stop = SchedulerProcess(installation.owner, poll_seconds=3600), threading.Event()
    thread = threading.Thread(target=process.run, args=(stop,))
    thread.start()
    try:
        FiledSuggester(installation.store).ask(request_key="asked")
        assert (life().alive, life().waiting) == (1, 0)
        assert process.is_alive
        assert check() == ("ok", "1 process of `easeml scheduler` at work; 0 requests for suggestions wait")
    finally:
        stop.set()
        thread.join(30)
    assert life().alive == 0
    with installation.owner.begin() as tx:
        number = scheduler_requests.note_beat(tx, None)
    installation.sql(
        "UPDATE work.scheduler_beats SET started_at = now() - interval '2 h', beat_at = now() - interval '1 h'"
    )
    assert (life().alive, check()[0]) == (0, "warning")
    with installation.owner.begin() as tx:
        assert scheduler_requests.note_beat(tx, number) == number
    assert life().alive == 1


def test_a_decision_is_a_span_below_that_of_the_task_that_asked(
    installation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, kept = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    caller = FiledSuggester(installation.store, wait_seconds=0.0)
    with (
        provider.get_tracer("airflow").start_as_current_span("task_run.suggest") as task,
        pytest.raises(StoreUnavailableError, match="has not decided request"),
    ):
        caller.ask(request_key="night")
    assert SchedulerProcess(installation.owner).decide_open() == 1  # elsewhere, with no span that is current
    decided = next(span for span in kept.get_finished_spans() if span.name == "easeml.suggest")
    asked = task.get_span_context()
    assert (decided.context.trace_id, decided.parent.span_id) == (asked.trace_id, asked.span_id)
    assert caller.ask(request_key="night").trials  # a further ask, which is not traced, gets the same trials
