"""A TCP proxy between one part of the installation and PostgreSQL: it delays, cuts and silences, at a statement or not.

It reads the client's half of PostgreSQL's protocol (version 3, chapter "Message Flow") as far as statements go, so a
trap can stop at a named statement, at its answer, or at the commit that follows. All proxies of a process share a
thread with an event loop; every public method may be called from another thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import socket
import struct
import threading
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
LOOPBACK = "127.0.0.1"
_CHUNK = 65_536
_SLICE = 1_024
"""Bytes that are sent at once where the bandwidth is limited."""

_ENCRYPTION = (80877103, 80877104)
"""Codes of SSLRequest and GSSENCRequest, which a second message without a type follows."""

_READY = re.compile(rb"Z\x00\x00\x00\x05[ITE]\Z")
_COMMIT, _ROLLBACK = re.compile(rb"\s*COMMIT\b", re.IGNORECASE), re.compile(rb"\s*ROLLBACK\s*(\x00|\Z)", re.IGNORECASE)


class Moment(StrEnum):
    """Where a trap stops a connection."""

    BEFORE = "before"
    """The server has not received the statement."""

    AFTER = "after"
    """The server has executed it, the client has no answer."""

    AT_COMMIT = "at commit"
    """The server has not received the commit of the statement's transaction."""

    COMMITTED = "committed"
    """The server has committed, the client has no answer."""


@dataclass(frozen=True, slots=True)
class Trap:
    """One stop at one statement.

    Attributes:
        pattern: Searched in the text of the statement.
        moment: Where it stops.
        spring: Called once in a separate thread while the connection is stopped. True lets the connection go on,
            False ends it.
        skip: How many matches pass first.
    """

    pattern: re.Pattern[bytes]
    moment: Moment
    spring: Callable[[], bool]
    skip: int = 0


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network does to every connection; the default is nothing.

    Attributes:
        latency: Seconds by which each message is late, in each direction, >= 0.
        bandwidth: Bytes a second in each direction, > 0.
        silent: Whether nothing passes, while both ends remain open.
        refuses: Whether new connections are reset.
        cut_after: After so many further bytes a connection is reset, in the middle of a message; None for never.
    """

    latency: float = 0.0
    bandwidth: float = math.inf
    silent: bool = False
    refuses: bool = False
    cut_after: int | None = None


@dataclass(slots=True, eq=False)
class _Link:
    """The two ends of one connection, and what a trap waits for on it."""

    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    awaits_commit: bool = False
    holds_answer: bool = False
    answer: bytearray = field(default_factory=bytearray)

    def abort(self) -> None:
        """Reset both ends."""
        _reset(self.client[1])
        _reset(self.server[1])


class Loop:
    """The thread of the proxies; a context manager."""

    def __enter__(self) -> Loop:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end_tasks())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        with contextlib.suppress(RuntimeError):
            self.loop.close()

    async def _end_tasks(self) -> None:
        """A task that is pending when it is collected is logged, in the middle of whatever a later test does."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Run a coroutine there and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)


class Proxy:
    """The way of one part to the server.

    Args:
        loop: Where it runs.
        target: Port of the server on loopback, asked for anew with each connection.
    """

    def __init__(self, loop: Loop, target: Callable[[], int]) -> None:
        self._loop, self._target = loop, target
        self._weather, self._trap = Weather(), None
        self._links: set[_Link] = set()
        self._silenced: list[asyncio.StreamWriter] = []  # client ends whose server ends are gone
        self.passed = 0
        self._server, self._clear, self._guard = loop.run(self._listen())
        self.port = int(self._server.sockets[0].getsockname()[1])

    _trap: Trap | None

    async def _listen(self) -> tuple[asyncio.Server, asyncio.Event, asyncio.Lock]:
        clear = asyncio.Event()
        clear.set()
        return await asyncio.start_server(self._serve, LOOPBACK, 0), clear, asyncio.Lock()

    # -- what is done to it --------------------------------------------------------------------------------------------

    def set_weather(self, weather: Weather) -> None:
        """Let the network behave so from now on; ``Weather()`` heals it, and resets what was left half open."""
        self._loop.run(self._set_weather(weather))

    async def _set_weather(self, weather: Weather) -> None:
        self._weather = weather
        self._clear.clear() if weather.silent else self._clear.set()
        if weather == Weather():
            for writer in self._silenced:
                _reset(writer)
            self._silenced.clear()

    def reset_all(self) -> None:
        """Reset every open connection."""
        self._loop.run(self._reset_all())

    async def _reset_all(self) -> None:
        for link in list(self._links):
            link.abort()

    def half_open(self) -> None:
        """Close the server's end of every connection; the clients hear nothing of it until the weather is set."""
        self._loop.run(self._half_open())

    async def _half_open(self) -> None:
        for link in list(self._links):
            self._silenced.append(link.client[1])
            self._links.discard(link)
            _reset(link.server[1])

    def set_trap(self, trap: Trap | None) -> None:
        """Stop at a statement, once; None takes the trap away."""
        self._trap = trap

    @property
    def is_trap_set(self) -> bool:
        """Whether a trap waits."""
        return self._trap is not None

    def close(self) -> None:
        """End all connections and listen no more."""
        self._loop.run(self._close())

    async def _close(self) -> None:
        self._server.close()
        await self._set_weather(Weather())
        await self._reset_all()

    # -- one connection ------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # at the end of the loop; the streams of 3.11 would log it
            await self._relay(reader, writer)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._weather.refuses:
            _reset(writer)
            return
        await self._clear.wait()
        try:
            server = await asyncio.open_connection(LOOPBACK, self._target())
        except (OSError, RuntimeError):
            _reset(writer)
            return
        link = _Link((reader, writer), server)
        self._links.add(link)
        try:
            await asyncio.gather(self._from_client(link), self._from_server(link))
        except (OSError, asyncio.IncompleteReadError, _CutError):
            pass
        finally:
            if link in self._links:  # else its client waits for ever
                self._links.discard(link)
                link.abort()

    async def _from_client(self, link: _Link) -> None:
        reader, writer = link.client[0], link.server[1]
        typed = False
        while True:
            head = await reader.readexactly(5 if typed else 4)
            body = await reader.readexactly(struct.unpack("!I", head[-4:])[0] - 4)
            if not typed:
                typed = struct.unpack("!I", body[:4])[0] not in _ENCRYPTION
            elif head[:1] in (b"Q", b"P"):
                await self._watch(link, body)
            await self._pass(writer, head + body)

    async def _watch(self, link: _Link, statement: bytes) -> None:
        """Look whether the trap stops at this statement, and wait there."""
        trap = self._trap
        if trap is None:
            return
        if link.awaits_commit:
            if _ROLLBACK.match(statement):
                link.awaits_commit = False
            if not _COMMIT.match(statement):
                return
            link.awaits_commit = False
        elif trap.pattern.search(statement):
            if trap.skip:
                self._trap = replace(trap, skip=trap.skip - 1)
                return
            if trap.moment in (Moment.AT_COMMIT, Moment.COMMITTED):
                link.awaits_commit = True
                return
        else:
            return
        if trap.moment in (Moment.AFTER, Moment.COMMITTED):
            link.holds_answer = True
        else:
            await self._spring()

    async def _spring(self) -> None:
        async with self._guard:
            trap, self._trap = self._trap, None
        if trap is not None and not await asyncio.get_running_loop().run_in_executor(None, trap.spring):
            raise _CutError

    async def _from_server(self, link: _Link) -> None:
        reader, writer = link.server[0], link.client[1]
        while chunk := await reader.read(_CHUNK):
            if link.holds_answer:
                link.answer += chunk
                if not _READY.search(link.answer):
                    continue
                link.holds_answer = False
                await self._spring()
                chunk = bytes(link.answer)
                link.answer.clear()
            await self._pass(writer, chunk)
        raise _CutError  # the server has closed: so does the client's end

    async def _pass(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Send data as the weather allows."""
        if (weather := self._weather).latency:
            await asyncio.sleep(weather.latency)
        await self._clear.wait()
        size = _SLICE if math.isfinite(self._weather.bandwidth) else max(1, len(data))
        for start in range(0, len(data), size):
            part = data[start : start + size]
            await asyncio.sleep(len(part) / self._weather.bandwidth)
            left = self._weather.cut_after
            if left is not None:
                self._weather = replace(self._weather, cut_after=max(0, left - len(part)))
                if left < len(part):
                    writer.write(part[:left])
                    await writer.drain()
                    self._weather = replace(self._weather, cut_after=None)
                    raise _CutError
            self.passed += len(part)
            writer.write(part)
        await writer.drain()


class _CutError(Exception):
    """This connection is to end."""


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset in place of an orderly end."""
    with contextlib.suppress(OSError, AttributeError):
        end = writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
