"""Data elsewhere are fetched before the decision: beside other requests, each tenant in its turn, safe from kills."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from killed import die, killed_in
from registering import register_study
from tables_elsewhere import ACTIVE, GATE, METER, prefixes, table

from easeml_core.files.cache import FileCache
from easeml_core.services.datasets import access, fetching
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.store.database import Store
from easeml_core.store.external_query import NamedQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from web_server import Web


class Office:
    """Files requests to seal studies and starts referees that may read the web server."""

    def __init__(self, lab: Any, web: Web, cache: Path) -> None:
        self.lab, self.web, self.cache = lab, web, cache

    def file(self, study: str, tenant: str, source: str = "") -> int:
        """Register; without a source a separate table at a separate address."""
        path = f"/{tenant}/{study}.csv"
        self.web.files.setdefault(path, table(seed=len(self.web.files) + 10).encode())
        given = {"gate": GATE, "meter": METER, "request_key": self.lab.key()}
        given |= {"target": "" if source.startswith("sklearn") else "label"}
        source = source or f"url:http://{self.web.host}{path}"
        return int(register_study(self.lab.worker, tenant=tenant, study=study, source=source, **given).request_id)

    def referee(self, **duties: Any) -> Referee:
        duties = {"cache": FileCache(self.cache, limit_mb=100), **prefixes(f"http://{self.web.host}"), **duties}
        return Referee(self.lab.referee, self.lab.artifacts, **duties)

    def said(self, request_id: int) -> str | None:
        answer = answer_of(self.lab.worker, request_id)
        return None if answer is None else str(answer.message)

    def gets(self) -> list[str]:
        """The studies whose tables were asked for, in order."""
        return [path.rpartition("/")[2].removesuffix(".csv") for method, path, _ in self.web.asked if method == "GET"]


@pytest.fixture
def office(bare: Any, web: Web, tmp_path: Path) -> Iterator[Office]:
    yield Office(bare, web, tmp_path / "cache")
    web.release.set()


def test_others_are_answered_while_a_slow_server_is_waited_for(office: Office) -> None:
    office.web.hold_after = [1000]
    slow, here = office.file("slow", "lab"), office.file("here", "other", "sklearn:breast_cancer")
    elsewhere, behind = office.file("elsewhere", "third"), office.file("behind", "lab")
    referee = office.referee()
    assert sorted(filter(None, (referee.answer_one(), referee.answer_one()))) == [here, elsewhere]
    assert office.web.held.wait(60)
    assert (office.said(slow), office.said(behind)) == (None, None)
    assert "behind" not in office.gets()  # a tenant has one fetch at a time
    office.web.release.set()
    assert [referee.answer_one(), referee.answer_one(), referee.answer_one()] == [slow, behind, None]
    assert office.said(slow) == ACTIVE.replace("table", "slow")
    assert office.gets() == ["slow", "elsewhere", "slow", "behind"]  # the second time from where it broke off


def test_a_referee_that_runs_goes_on_as_soon_as_the_data_are_there(office: Office, wait_for: Any) -> None:
    office.web.hold_after = [1000]
    slow, here = office.file("slow", "lab"), office.file("here", "other", "sklearn:breast_cancer")
    stop = threading.Event()
    running = threading.Thread(target=office.referee(poll_seconds=3600.0).run, args=(stop,))
    running.start()
    try:
        wait_for(lambda: office.said(here))
        assert office.said(slow) is None
        office.web.release.set()
        wait_for(lambda: office.said(slow))  # woken, since the next look without that is in an hour
    finally:
        stop.set()
        running.join()


def test_a_referee_that_stops_waits_for_no_server(office: Office) -> None:
    office.web.hold_after = [1000]
    slow = office.file("slow", "lab")
    stop = threading.Event()
    running = threading.Thread(target=office.referee().run, args=(stop,))
    running.start()
    assert office.web.held.wait(60)
    stop.set()
    running.join(60)
    assert not running.is_alive()
    office.web.release.set()
    assert office.referee().answer_one() == slow
    assert office.said(slow) == ACTIVE.replace("table", "slow")


def test_whose_turn_is_longest_ago_comes_first(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MOST_FETCHES", 1)
    office.web.hold_after = [1000]
    asked = {f"many-{n}": office.file(f"many-{n}", "lab") for n in range(3)}
    asked["few"] = office.file("few", "other")
    referee = office.referee()
    assert referee._answer_ready() is None  # all have asked by now, and the first one is held
    assert office.web.held.wait(60)
    office.web.release.set()
    assert [referee.answer_one() for _ in range(4)] == [asked[name] for name in ("many-0", "few", "many-1", "many-2")]
    assert office.gets() == ["many-0", "many-0", "few", "many-1", "many-2"]


def test_what_another_referee_decides_is_let_go(office: Office) -> None:
    office.web.hold_after = [1000]
    slow = office.file("slow", "lab")
    first = office.referee()
    assert first._answer_ready() is None
    assert office.web.held.wait(60)
    office.web.release.set()
    assert first._fetches.wait(60)
    assert first._fetches.requests() == [slow]
    office.lab.end_leases()  # the first one is frozen for so long
    assert office.referee().answer_one() == slow
    assert first.answer_one() is None
    assert first._fetches.requests() == []
    assert [entry for entry in first._duties.cache.entries() if first._duties.cache.is_used(entry)] == []


def test_what_was_changed_after_it_was_fetched_is_not_decided_on(office: Office) -> None:
    changed = office.file("changed", "lab")
    referee = office.referee()
    office.web.hold_after = [1000]
    assert referee._answer_ready() is None
    assert office.web.held.wait(60)
    office.web.release.set()
    assert referee._fetches.wait(60)
    (entry,) = FileCache(office.cache, limit_mb=100).entries()
    entry.path.write_bytes(table(seed=99).encode())
    assert referee.answer_one() == changed
    assert "what was fetched was changed on the referee's machine" in str(office.said(changed))


def test_data_of_another_address_are_never_decided_on(office: Office) -> None:
    moved = office.file("moved", "lab")
    office.web.files["/lab/next.csv"] = table(seed=5, rows=590).encode()
    office.web.hold_after = [1000]
    referee = office.referee()
    assert referee._answer_ready() is None
    assert office.web.held.wait(60)
    source = f"url:http://{office.web.host}/lab/next.csv"  # as where a study is registered again
    office.lab.as_superuser("ALTER TABLE work.data_sets DISABLE TRIGGER USER")
    office.lab.as_superuser("UPDATE work.data_sets SET source = %s", source)
    office.web.release.set()
    assert referee.answer_one() == moved
    assert office.gets() == ["moved", "moved", "next"]
    assert office.said(moved) == "study moved is active; rows: train 189, validation 88, gate 254, meter 59"  # of 590


def drip(server: socket.socket) -> None:
    """Answer every connection with a header that never ends, a byte at a time."""
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client, contextlib.suppress(OSError):
            client.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while True:
                client.sendall(b"x")
                threading.Event().wait(0.02)


def test_a_server_that_is_slow_in_its_headers_is_cut_off(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "FETCH_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        asked = office.file("drip", "lab", f"url:http://{host}/drip.csv")
        assert office.referee(**prefixes(f"http://{host}")).answer_one() == asked
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert "the file cannot be fetched: it took longer than 0.5 s; register the study again" in str(office.said(asked))


@pytest.fixture
def kill(office: Office) -> Callable[[str], None]:
    """Let a referee be killed, by a signal that cannot be caught, where it would call this function; its lease ends."""

    def run(place: str) -> None:
        def referee() -> None:
            setattr(fetching, place, die)
            url = office.lab.url("easeml_referee")
            reach = prefixes(f"http://{office.web.host}") | {"queries": {"rows": NamedQuery("rows", url, "SELECT 1")}}
            given = {"cache": FileCache(office.cache, limit_mb=100)} | reach
            Referee(Store(url), office.lab.artifacts, **given).answer_one()

        killed_in(referee)
        office.lab.end_leases()

    return run


ATTEMPTS = "SELECT survived FROM sealed.attempts ORDER BY attempt"


def test_a_kill_between_fetch_and_decision_loses_nothing_and_counts_nothing_twice(
    office: Office, kill: Callable[[str], None]
) -> None:
    asked = office.file("killed", "lab")
    kill("study_table")  # with the file fetched, in the transaction that decides
    assert office.said(asked) is None
    assert office.lab.rows(ATTEMPTS) == [(True,), (False,)]  # the fetch cost nothing, the decision killed
    assert office.lab.one("SELECT count(*) FROM work.data_versions") == 0
    assert office.referee().answer_one() == asked
    assert office.said(asked) == ACTIVE.replace("table", "killed")
    assert office.gets() == ["killed"]
    assert office.lab.rows("SELECT count(*) FROM work.data_versions UNION ALL SELECT count(*) FROM work.answers") == [
        (1,),
        (1,),
    ]


def test_only_a_fetch_that_may_kill_counts_as_an_attempt(office: Office, kill: Callable[[str], None]) -> None:
    office.file("file", "lab")
    kill("fetch")
    assert office.lab.rows(ATTEMPTS) == [(True,)]
    assert office.referee().answer_one() is not None
    asked = office.file("rows", "lab", "sql:rows")
    kill("fetch")
    counted = f"SELECT survived FROM sealed.attempts WHERE request_id = {asked} ORDER BY attempt"
    assert office.lab.rows(counted) == [(True,), (False,)]  # the rows of a query pass through the memory
