"""Waiting without polling: one LISTEN connection per event loop, shared by all waiting coroutines.

A thousand waiters cost one connection and no thread. A slow poll is the safety net for a lost notification,
and every waiter looks again after the connection was broken.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import math
import random
import select
import threading
import time
import weakref
from typing import TYPE_CHECKING, TypeVar

import psycopg2

from easeml_core.errors import StoreUnavailableError
from easeml_core.store.database import CHANNEL, NEWS_CHANNEL
from easeml_core.store.refusals import refused_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

T = TypeVar("T")

_LONGEST_PAUSE_SECONDS = 5.0
_LOOKS_A_SECOND = 50.0
"""Of all waiters of a loop together, where nothing wakes them: so many take some tenth of a core, a thread looks in
turn for all of them, and a look whose turn does not come is late for who is notified."""

_QUIET_SECONDS = 0.2
"""Pause of a waiter after a wake-up without a result: any role may notify, and waiters of a loop look in turn."""

_STOP_SECONDS = 0.5
"""Longest delay until a ``BlockingListener`` sees that it must stop."""

_listeners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Listener]] = weakref.WeakKeyDictionary()


on_reopened: Callable[[], object] | None = None
"""Called when a listener has opened a connection in place of one that broke; what measures a process sets it."""


class Listener:
    """The one LISTEN connection of an event loop; opened by the first waiter, closed by the last.

    ``looking`` lets one waiter look at a time: all together they use one connection of the store and one thread,
    however many wake at once. ``waiting`` is how many there are.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg2.extensions.connection | None = None
        self._descriptor = -1
        self._waiters: dict[str, set[asyncio.Event]] = collections.defaultdict(set)
        self._opening = asyncio.Lock()
        self._is_broken = False
        self.looking = asyncio.Lock()
        self.waiting = 0

    @classmethod
    def of(cls, dsn: str) -> Listener:
        """Return the running loop's listener for this database."""
        mine = _listeners.setdefault(asyncio.get_running_loop(), {})
        return mine.setdefault(dsn, cls(dsn))

    async def ensure_open(self) -> None:
        """Open the connection when there is none."""
        async with self._opening:
            if self._connection is None:
                connection = await asyncio.to_thread(_opened, self._dsn, CHANNEL, NEWS_CHANNEL)
                self._connection = connection
                self._descriptor = connection.fileno()  # kept: a broken connection has no fileno() any more
                asyncio.get_running_loop().add_reader(self._descriptor, self._readable)
                if self._is_broken and on_reopened is not None:
                    on_reopened()
                self._is_broken = False

    @contextlib.asynccontextmanager
    async def subscribed(self, topic: str, event: asyncio.Event | None = None) -> AsyncIterator[asyncio.Event]:
        """An event, or the one given, that is set whenever the topic is notified; ``study:*`` is that of any study."""
        event = event or asyncio.Event()
        self._waiters[topic].add(event)
        try:
            yield event
        finally:
            self._waiters[topic].discard(event)
            if not self._waiters[topic]:
                del self._waiters[topic]
            if not self._waiters:
                self._close()
                self._forget()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count one more waiter."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def _readable(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            connection.poll()  # in the loop; does not block
        except psycopg2.Error:
            self._close()
            self._is_broken = True
            woken = [e for events in self._waiters.values() for e in events]  # something may be lost: all look again
        else:
            topics = [n.payload for n in connection.notifies]
            connection.notifies.clear()
            asked = {name for topic in topics for name in (topic, f"{topic.partition(':')[0]}:*")}
            woken = [e for topic in asked for e in self._waiters.get(topic, ())]
        for event in woken:
            event.set()

    def _forget(self) -> None:
        """A lock knows the loop it was used in, which would otherwise live as long as this object."""
        mine = _listeners.get(asyncio.get_running_loop(), {})
        if mine.get(self._dsn) is self:
            del mine[self._dsn]

    def _close(self) -> None:
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._connection.close()
            self._connection = None


class BlockingListener:
    """A blocking listener for a process that does nothing else while it waits.

    Args:
        dsn: Address of the database.
        channels: The channels to listen to.
    """

    def __init__(self, dsn: str, *channels: str) -> None:
        self._dsn, self._channels = dsn, channels

    def __enter__(self) -> BlockingListener:
        """Open the connection."""
        self._connection = _opened(self._dsn, *self._channels)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Return when something was notified, ``stop`` is set, or the time is over."""
        deadline = time.monotonic() + seconds
        try:
            while not stop.is_set():
                self._connection.poll()  # first: what was read together with an earlier answer is on no socket any more
                if self._connection.notifies:
                    self._connection.notifies.clear()
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                select.select([self._connection], [], [], min(left, _STOP_SECONDS))
        except psycopg2.Error as error:
            raise StoreUnavailableError(str(error).strip()) from error


def wait_here(
    dsn: str, channel: str, look: Callable[[], T | None], *, seconds: float, poll_seconds: float = math.inf
) -> T | None:
    """Wait in this thread until ``look`` finds something, or the time is over.

    The listener opens after one look and before the next, so nothing is missed and what is there costs no connection.
    """
    deadline, never = time.monotonic() + seconds, threading.Event()
    if (found := look()) is not None or seconds <= 0:
        return found
    with BlockingListener(dsn, channel) as listener:
        while (found := look()) is None and (left := deadline - time.monotonic()) > 0:
            listener.wait(min(left, poll_seconds), never)
    return found


def _opened(dsn: str, *channels: str) -> psycopg2.extensions.connection:
    try:
        return _listening(dsn, *channels)
    except psycopg2.OperationalError as error:
        raise refused_connection(error, dsn) from error


def _listening(dsn: str, *channels: str) -> psycopg2.extensions.connection:
    connection = psycopg2.connect(
        dsn,
        connect_timeout=5,
        application_name="easeml-listener",
        keepalives_idle=30,
        keepalives_interval=10,
        options="-c statement_timeout=30000",
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        for channel in channels:
            cursor.execute(f"LISTEN {channel}")
    return connection


async def until(
    dsn: str,
    topics: str | Sequence[str],
    look: Callable[[], T | None],
    *,
    poll_seconds: float = 60.0,
    rest_seconds: float = _QUIET_SECONDS,
) -> T:
    """Wait until ``look`` finds something.

    The subscription begins before the first look, so nothing that happens between two looks is lost. A waiter that was
    woken for nothing looks again after a rest.
    """
    listener, failures, rest, woken = Listener.of(dsn), 0, 0.0, asyncio.Event()
    async with contextlib.AsyncExitStack() as subscriptions:
        subscriptions.enter_context(listener.counted())
        for topic in (topics,) if isinstance(topics, str) else topics:
            await subscriptions.enter_async_context(listener.subscribed(topic, woken))
        while True:
            woken.clear()
            try:
                await listener.ensure_open()
                async with listener.looking:
                    found = await asyncio.to_thread(look)
            except StoreUnavailableError:
                failures += 1
                pause = min(_LONGEST_PAUSE_SECONDS, 0.5 * 2 ** min(failures, 9))  # 2**1100 is no float any more
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the load
                continue
            if found is not None:
                return found
            failures = 0
            with contextlib.suppress(TimeoutError):
                longest = max(poll_seconds, listener.waiting / _LOOKS_A_SECOND)
                async with asyncio.timeout(longest * random.uniform(0.8, 1.2)):  # noqa: S311 - spreads the load
                    await asyncio.sleep(rest)
                    await woken.wait()
            rest = rest_seconds if woken.is_set() else 0.0
