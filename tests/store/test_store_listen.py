"""Waiting without polling: woken by the database, by one connection for all, and nothing is slept through."""

from __future__ import annotations

import asyncio
import gc
import select
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from waiting import at_rest

from easeml_core.errors import NotFoundError, StoreUnavailableError
from easeml_core.store import listen
from easeml_core.store.database import REFEREE_CHANNEL, notify
from easeml_core.store.listen import BlockingListener, Listener, until, wait_here
from easeml_core.store.rows import change, scalar
from easeml_core.store.server.cluster import free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SOON = 30.0
"""Seconds within which a waiter must be woken, however full the machine is; the slow poll of the tests is sixty."""


class Board:
    """Something to wait for: tenants by name, each announced as ``study:<name>``."""

    def __init__(self, database: Any, ask: Any) -> None:
        self.database, self.ask, self.looks = database, ask, 0

    def put(self, name: str) -> None:
        with self.database.worker.begin() as tx:
            change(tx, "INSERT INTO work.tenants (name) VALUES (:name)", name=name)
            notify(tx, f"study:{name}")

    def look(self, name: str) -> int | None:
        self.looks += 1
        with self.database.worker.begin() as tx:
            return scalar(tx, "SELECT id FROM work.tenants WHERE name = :name", name=name)

    def wait(self, name: str, look: Callable[[], Any] | None = None) -> Awaitable[Any]:
        return until(self.database.worker.dsn, f"study:{name}", look or (lambda: self.look(name)))

    def connections(self, application: str = "easeml%") -> int:
        ((count,),) = self.ask(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE %s",
            self.database.name,
            application,
        )
        return int(count)

    async def reach(self, listeners: int, looks: int = 0) -> None:
        """Until so many listeners are connected and so many looks were taken."""
        deadline = time.monotonic() + SOON
        while (self.connections("easeml-listener"), self.looks >= looks) != (listeners, True):
            assert time.monotonic() < deadline, f"{self.connections('easeml-listener')} listeners, {self.looks} looks"
            await asyncio.sleep(0.02)


@pytest.fixture
def board(database: Any, ask: Any) -> Board:
    return Board(database, ask)


def test_what_is_there_already_needs_no_waiting(board: Board) -> None:
    board.put("iris")
    assert asyncio.run(asyncio.wait_for(board.wait("iris"), SOON)) == 1
    assert board.looks == 1


def test_a_waiter_is_woken_within_a_second(board: Board) -> None:
    async def scene() -> None:
        waiter = asyncio.ensure_future(board.wait("iris"))
        await board.reach(1, looks=1)
        await at_rest()
        await asyncio.to_thread(board.put, "iris")
        assert await asyncio.wait_for(waiter, SOON) == 1

    asyncio.run(scene())
    assert board.looks == 2


def test_only_those_who_wait_for_the_topic_look(board: Board) -> None:
    async def scene() -> None:
        iris, wine = (asyncio.ensure_future(board.wait(name)) for name in ("iris", "wine"))
        await board.reach(1, looks=2)
        await asyncio.to_thread(board.put, "digits")
        await asyncio.to_thread(board.put, "wine")
        await asyncio.wait_for(wine, SOON)
        assert (board.looks, iris.done()) == (3, False)
        iris.cancel()

    asyncio.run(scene())


def test_a_wake_for_nothing_is_one_look(board: Board) -> None:
    async def scene() -> None:
        waiter = asyncio.ensure_future(board.wait("iris"))
        await board.reach(1, looks=1)
        for looks in (2, 3):
            with board.database.worker.begin() as tx:
                notify(tx, "study:iris")
            await board.reach(1, looks=looks)
            await at_rest()
            assert board.looks == looks  # and back to sleep
        waiter.cancel()

    asyncio.run(scene())


def test_a_flood_of_wakes_for_nothing_is_a_few_looks_and_the_real_one_is_found(board: Board) -> None:
    async def scene() -> None:
        waiter = asyncio.ensure_future(board.wait("iris"))
        await board.reach(1, looks=1)
        begun = time.monotonic()
        while time.monotonic() < begun + 1 or board.looks < 3:
            await asyncio.to_thread(nudge, board)
        assert 3 <= board.looks <= 3 + (time.monotonic() - begun) / 0.2  # 1 at first, then 1 at once and 5 a second
        nudge(board)
        await asyncio.to_thread(board.put, "iris")
        assert await asyncio.wait_for(waiter, SOON) == 1

    asyncio.run(scene())


def test_the_first_look_after_the_quiet_is_at_once(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = 2.0
    monkeypatch.setattr(listen, "_QUIET_SECONDS", quiet)

    async def scene() -> None:
        waiter = asyncio.ensure_future(board.wait("iris"))
        await board.reach(1, looks=1)
        await asyncio.to_thread(nudge, board)  # for nothing, and soon after the first look
        await board.reach(1, looks=2)
        await asyncio.sleep(1.1 * quiet)
        await asyncio.to_thread(board.put, "iris")
        assert await asyncio.wait_for(waiter, 0.9 * quiet) == 1

    asyncio.run(scene())


def nudge(board: Board) -> None:
    with board.database.worker.begin() as tx:
        notify(tx, "study:iris")


def test_200_waiters_share_two_connections(board: Board) -> None:
    async def scene() -> None:
        names = [f"study-{n}" for n in range(200)]
        waiters = [asyncio.ensure_future(board.wait(name)) for name in names]
        most = 0
        while board.looks < 200:
            most = max(most, board.connections())
            await asyncio.sleep(0.02)
        with board.database.owner.begin(check_schema=False) as tx:  # its own connection is not one of theirs
            own = 1
            for name in names:
                change(tx, "INSERT INTO work.tenants (name) VALUES (:name)", name=name)
                notify(tx, f"study:{name}")
        begun = time.monotonic()
        while not all(w.done() for w in waiters):
            most = max(most, board.connections() - own)
            await asyncio.sleep(0.02)
        assert sorted(w.result() for w in waiters) == list(range(1, 201))
        assert most <= 2
        assert time.monotonic() - begun < SOON  # one query each; seen 0.3 s

    asyncio.run(scene())


def test_the_last_waiter_closes_the_connection(board: Board) -> None:
    async def scene() -> None:
        first, last = (asyncio.ensure_future(board.wait(name)) for name in ("iris", "wine"))
        await board.reach(1, looks=2)
        listener = Listener.of(board.database.worker.dsn)
        await asyncio.to_thread(board.put, "iris")
        await asyncio.wait_for(first, SOON)
        await board.reach(1)
        assert Listener.of(board.database.worker.dsn) is listener
        last.cancel()
        await asyncio.gather(last, return_exceptions=True)
        await board.reach(0)
        await asyncio.to_thread(board.put, "wine")
        assert await asyncio.wait_for(board.wait("wine"), SOON)  # and the next one opens it again
        await board.reach(0)

    asyncio.run(scene())


def test_a_killed_listener_comes_back_and_everybody_looks_again(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    reopened: list[int] = []
    monkeypatch.setattr(listen, "on_reopened", lambda: reopened.append(1))

    async def scene() -> None:
        waiters = [asyncio.ensure_future(board.wait(name)) for name in ("iris", "wine", "digits")]
        await board.reach(1, looks=3)
        listener = Listener.of(board.database.worker.dsn)
        kill_listeners(board)
        await board.reach(1, looks=6)
        await asyncio.to_thread(board.put, "wine")
        assert await asyncio.wait_for(waiters[1], SOON) == 1
        for waiter in waiters:
            waiter.cancel()
        await board.reach(0)
        await listener.ensure_open()  # the page of a person keeps the object; this connection replaces none
        listener._close()

    asyncio.run(scene())
    assert reopened == [1]  # what a triggerer counts; the first connection is none


def test_what_happens_while_nobody_listens_is_found(board: Board) -> None:
    """The connection breaks and the event comes before the new one listens: its message reaches no listener."""

    async def scene() -> None:
        waiter = asyncio.ensure_future(board.wait("iris"))
        await board.reach(1, looks=1)
        await at_rest()
        kill_listeners(board)  # the loop has no chance to notice before the next line is done
        board.put("iris")
        assert await asyncio.wait_for(waiter, SOON) == 1

    asyncio.run(scene())


def kill_listeners(board: Board) -> None:
    board.ask(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s "
        "AND application_name = 'easeml-listener'",
        board.database.name,
    )


def test_a_look_at_intervals_finds_what_nothing_announces(board: Board) -> None:
    looks = iter([None, None, None, 1])
    assert wait_here(board.database.worker.dsn, "study", lambda: next(looks), seconds=5.0, poll_seconds=0.01) == 1


def test_an_event_between_the_look_and_the_wait_is_not_slept_through(board: Board) -> None:
    def look() -> int | None:
        found = board.look("iris")
        if found is None:
            board.put("iris")  # just after the look has seen that nothing is there
        return found

    assert asyncio.run(asyncio.wait_for(board.wait("iris", look), SOON)) == 1
    assert board.looks == 2


def test_the_subscription_stands_before_the_first_look(board: Board) -> None:
    """Else an event between the first look and the subscription would be lost."""
    seen = []

    def look() -> int | None:
        seen.append(board.connections("easeml-listener"))
        return 1

    asyncio.run(asyncio.wait_for(board.wait("iris", look), SOON))
    assert seen == [1]


def test_a_lost_message_is_made_up_for_by_the_slow_poll(board: Board) -> None:
    async def scene() -> None:
        waiter = asyncio.ensure_future(
            until(board.database.worker.dsn, "study:iris", lambda: board.look("iris"), poll_seconds=0.2)
        )
        await board.reach(1, looks=1)
        with board.database.worker.begin() as tx:
            change(tx, "INSERT INTO work.tenants (name) VALUES ('iris')")  # without a notification
        assert await asyncio.wait_for(waiter, SOON) == 1

    asyncio.run(scene())


def test_errors_of_the_look_pass_through_and_leave_nothing_open(board: Board) -> None:
    def look() -> int | None:
        raise NotFoundError(kind="trial", name=7)

    async def scene() -> None:
        with pytest.raises(NotFoundError, match="there is no trial 7"):
            await board.wait("iris", look)
        await board.reach(0)

    asyncio.run(scene())


def away_for(board: Board, failures: int) -> Callable[[], int]:
    def look() -> int:
        board.looks += 1
        if board.looks > failures:
            return 5
        raise StoreUnavailableError

    return look


@pytest.mark.parametrize("failures", [1, 1100])
def test_a_database_that_is_away_is_waited_for(board: Board, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    """1,100 failures take an hour and a half in life; the pause must not grow beyond what a float can hold."""
    monkeypatch.setattr(listen, "_LONGEST_PAUSE_SECONDS", 0)
    assert asyncio.run(asyncio.wait_for(board.wait("iris", away_for(board, failures)), 60)) == 5


def test_pauses_grow_while_the_database_is_away(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses, sleep = list[float](), asyncio.sleep

    async def at_once(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(listen.asyncio, "sleep", at_once)
    assert asyncio.run(board.wait("iris", away_for(board, 5))) == 5
    whole = [1.0, 2.0, 4.0, 5.0, 5.0]
    assert all(0.8 <= pause / one <= 1.2 for pause, one in zip(pauses, whole, strict=True)), pauses


def test_an_address_where_nobody_listens_is_tried_again(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "_LONGEST_PAUSE_SECONDS", 0)
    opened, good = [], listen._listening

    def at_the_third(dsn: str, *channels: str) -> Any:
        opened.append(dsn)
        return good(f"postgresql://127.0.0.1:{free_port()}/no" if len(opened) < 3 else dsn, *channels)

    monkeypatch.setattr(listen, "_listening", at_the_third)
    board.put("iris")
    assert asyncio.run(asyncio.wait_for(board.wait("iris"), SOON)) == 1
    assert (len(opened), board.looks) == (3, 1)


def test_a_slow_look_does_not_stop_the_loop(board: Board) -> None:
    looks, goes_on = threading.Event(), threading.Event()

    def look() -> bool:
        looks.set()
        return goes_on.wait(SOON)

    async def scene() -> None:
        waiter = asyncio.ensure_future(board.wait("iris", look))
        assert await asyncio.to_thread(looks.wait, SOON)
        assert not waiter.done()
        goes_on.set()  # while it looks, and by the loop
        assert await asyncio.wait_for(waiter, SOON) is True

    asyncio.run(scene())


def test_a_loop_that_is_over_is_not_kept_in_memory(board: Board) -> None:
    board.put("iris")
    loops = []

    async def scene() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(board.wait("iris") for _ in range(5)))

    asyncio.run(scene())
    gc.collect()
    assert loops[0]() is None
    assert len(listen._listeners) == 0


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


def seconds(listener: BlockingListener, limit: float, stop: threading.Event) -> float:
    begun = time.monotonic()
    listener.wait(limit, stop)
    return time.monotonic() - begun


def call(database: Any) -> None:
    with database.worker.begin() as tx:
        notify(tx, "request:1", channel=REFEREE_CHANNEL)


def test_a_blocking_listener_wakes_at_once(database: Any, stop: threading.Event) -> None:
    with BlockingListener(database.referee.dsn, REFEREE_CHANNEL) as listener:
        timer = threading.Timer(0.2, call, [database])
        timer.start()
        assert 0.15 < seconds(listener, 60, stop) < SOON
        timer.join()
        assert seconds(listener, 0.1, stop) >= 0.1  # one call is heard once


def test_a_blocking_listener_finds_what_came_while_its_owner_worked(database: Any, stop: threading.Event) -> None:
    with BlockingListener(database.referee.dsn, REFEREE_CHANNEL) as listener:
        with database.worker.begin() as tx:  # of one transaction, so that the server sends both at once
            notify(tx, "request:1", channel=REFEREE_CHANNEL)
            notify(tx, "request:2", channel=REFEREE_CHANNEL)
        select.select([listener._connection], [], [], SOON)  # they have arrived, and none has been read
        assert seconds(listener, 60, stop) < SOON
        assert seconds(listener, 0.1, stop) >= 0.1  # two calls before one look are one


def test_a_blocking_listener_knows_its_channel_only(database: Any, stop: threading.Event) -> None:
    with BlockingListener(database.referee.dsn, REFEREE_CHANNEL) as listener:
        with database.worker.begin() as tx:
            notify(tx, "study:iris")
        assert seconds(listener, 0.3, stop) >= 0.3


def test_a_blocking_listener_stops_when_asked_and_when_the_time_is_over(database: Any, stop: threading.Event) -> None:
    with BlockingListener(database.referee.dsn, REFEREE_CHANNEL) as listener:
        assert 0.2 <= seconds(listener, 0.2, stop) < SOON
        assert seconds(listener, 0, stop) < SOON
        timer = threading.Timer(0.1, stop.set)
        timer.start()
        assert seconds(listener, 60, stop) < SOON
        timer.join()
        assert seconds(listener, 60, stop) < SOON


def test_a_blocking_listener_that_was_cut_off_says_so(board: Board, stop: threading.Event) -> None:
    with BlockingListener(board.database.referee.dsn, REFEREE_CHANNEL) as listener:
        kill_listeners(board)
        with pytest.raises(StoreUnavailableError, match=r"terminating connection|closed"):
            listener.wait(60, stop)
        with pytest.raises(StoreUnavailableError, match="closed"):
            listener.wait(60, stop)


def test_a_blocking_listener_without_a_database_says_so() -> None:
    with pytest.raises(StoreUnavailableError, match="refused"):
        BlockingListener(f"postgresql://127.0.0.1:{free_port()}/easeml", REFEREE_CHANNEL).__enter__()


pytestmark = pytest.mark.own_database  # connections are counted
