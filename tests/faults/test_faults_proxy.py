"""The proxy of the fault harness stops, cuts and silences what a test asks for, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from fault_proxy import LOOPBACK, Loop, Moment, Proxy, Trap, Weather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def proxy(database: Any) -> Iterator[Proxy]:
    with Loop() as loop:
        made = Proxy(loop, lambda: database.server.port)
        yield made
        made.close()


@pytest.fixture
def connect(database: Any, proxy: Proxy) -> Callable[[], Any]:
    """Connect over the proxy."""
    secrets = database.server.secrets

    def open_one() -> Any:
        given = {"user": "easeml_owner", "password": secrets["easeml_owner"], "dbname": database.name}
        return closing(psycopg2.connect(host=LOOPBACK, port=proxy.port, connect_timeout=5, **given))

    return open_one


def tenants(database: Any) -> int:
    with closing(database.server.connect(database=database.name)) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM work.tenants")
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize(("moment", "goes_on", "kept", "fails"), [
    (Moment.BEFORE, False, 0, True), (Moment.AFTER, False, 0, True), (Moment.AT_COMMIT, False, 0, True),
    (Moment.COMMITTED, False, 1, True), (Moment.BEFORE, True, 1, False), (Moment.COMMITTED, True, 1, False),
])  # fmt: skip
def test_a_trap_stops_where_it_says(
    database: Any, proxy: Proxy, connect: Any, moment: Moment, goes_on: bool, kept: int, fails: bool
) -> None:
    sprung: list[int] = []

    def spring() -> bool:
        sprung.append(tenants(database))  # what is committed while the connection is held
        return goes_on

    proxy.set_trap(Trap(re.compile(rb"INSERT INTO work\.tenants"), moment, spring))
    error = None
    try:
        with connect() as opened, opened.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.execute("INSERT INTO work.tenants (name) VALUES ('lab')")
            opened.commit()
    except psycopg2.Error as found:
        error = found
    assert (error is not None) == fails
    assert sprung == [int(moment is Moment.COMMITTED)]
    assert tenants(database) == kept
    assert not proxy.is_trap_set


def test_a_cut_ends_in_the_middle_of_a_message_and_the_next_connection_works(proxy: Proxy, connect: Any) -> None:
    with connect() as opened, opened.cursor() as cursor:
        proxy.set_weather(Weather(cut_after=500))
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT repeat('x', 10000)")
    with connect() as opened, opened.cursor() as cursor:
        cursor.execute("SELECT length(repeat('x', 10000))")
        assert cursor.fetchone() == (10000,)


@pytest.mark.parametrize("kind", ["silent", "half open"])
def test_a_silent_network_holds_and_then_goes_on_or_fails(proxy: Proxy, connect: Any, kind: str) -> None:
    heard: list[str] = []

    def ask(cursor: Any) -> None:
        try:
            cursor.execute("SELECT 1")
            heard.append("answer")
        except psycopg2.OperationalError:
            heard.append("error")

    with connect() as opened, opened.cursor() as cursor:
        proxy.set_weather(Weather(silent=True)) if kind == "silent" else proxy.half_open()
        thread = threading.Thread(target=ask, args=(cursor,))
        thread.start()
        thread.join(0.3)
        assert heard == []
        proxy.set_weather(Weather())
        thread.join(10)
    assert heard == ["answer" if kind == "silent" else "error"]


def test_who_refuses_or_resets_ends_connections(proxy: Proxy, connect: Any) -> None:
    with connect() as opened, opened.cursor() as cursor:
        proxy.set_weather(Weather(refuses=True))
        proxy.reset_all()
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")
        with pytest.raises(psycopg2.OperationalError):
            connect()
    proxy.set_weather(Weather())
    with connect() as opened, opened.cursor() as cursor:
        cursor.execute("SELECT 1")


def test_the_end_of_the_loop_leaves_no_task_to_be_logged_later(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server((LOOPBACK, 0)) as server, Loop() as loop:
        made = Proxy(loop, lambda: int(server.getsockname()[1]))
        with socket.create_connection((LOOPBACK, made.port)):
            server.accept()[0].close()
            made.set_weather(Weather(silent=True))  # one connection is open at the end, and one has not begun
            with socket.create_connection((LOOPBACK, made.port)):
                loop.run(asyncio.sleep(0))
                del made
    tasks = asyncio.all_tasks(loop.loop)
    del loop
    gc.collect()
    assert (tasks, caplog.messages) == (set(), [])
