"""Limits of long requests and of request bodies.

A few long requests run at the same time, one for each study, and few wait: a waiting request holds one of the threads
that Airflow's server shares, and a tenant's model may take as long as its limit allows. A request body is small until
its route has authorised the user and raises the bound: the framework reads a form before it checks the login, so
without a bound any client could fill the server's disk or memory.

Forms with a file are read within bounds on disk space and on the number of slow senders and of works.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Depends, HTTPException
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from easeml_airflow.web.server.auth import Viewer
from easeml_core.data.rows.row_tables import PARQUET
from easeml_core.data.sources.spec import plain_file_name
from easeml_core.errors import ConcurrentUpdateError, InvalidInputError, StateError
from easeml_core.files.local import scratch_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fastapi import Request
    from fastapi.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


MOST_OF_ONE = 10
"""Pages that one person is answered at the same time: a quarter of the threads, and as many as a browser asks for."""


class Turns:
    """The turns of one server.

    Args:
        at_once: How many work at the same time, >= 1.
        waiting: How many more wait, of all studies together, >= 0; of one study half of them.
        patience_seconds: How long each waits.
    """

    def __init__(self, at_once: int = 2, waiting: int = 8, patience_seconds: float = 10.0) -> None:
        self._at_once, self._waiting, self._patience = at_once, waiting, patience_seconds
        self._working = Counter[str]()
        self._queued = Counter[str]()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, study: str) -> Iterator[None]:
        """One turn for a study, for as long as the block."""
        self._take(study)
        try:
            yield
        finally:
            with self._changed:
                self._working[study] -= 1
                self._working += Counter()  # forgets who has none
                self._changed.notify_all()

    def _take(self, study: str) -> None:
        with self._changed:
            if not self._is_free(study):
                self._wait(study)
            self._working[study] += 1

    def _is_free(self, study: str) -> bool:
        return self._working.total() < self._at_once and not self._working[study]

    def _wait(self, study: str) -> None:
        message = "other requests are worked on; try again"
        if self._queued.total() >= self._waiting or self._queued[study] >= self._waiting // 2:
            raise ConcurrentUpdateError(message)
        self._queued[study] += 1
        try:
            if not self._changed.wait_for(lambda: self._is_free(study), self._patience):
                raise ConcurrentUpdateError(message)
        finally:
            self._queued[study] -= 1
            self._queued += Counter()


def few_of_each(viewer: Callable[..., Viewer]) -> Callable[..., Any]:
    """A FastAPI dependency that answers 429 to a person of whom ``MOST_OF_ONE`` other requests are worked on."""
    who, working = Depends(viewer), Counter[str]()

    async def place(viewer: Viewer = who) -> AsyncIterator[None]:
        if working[viewer.name] >= MOST_OF_ONE:
            message = f"{MOST_OF_ONE} other requests of yours are worked on; wait for them"
            raise HTTPException(status_code=429, detail=message)
        working[viewer.name] += 1
        try:
            yield
        finally:
            working[viewer.name] -= 1

    return place


USUAL_BYTES = 100_000
"""Enough for every form without a file, and its longest text."""

_KEY = "easeml.allowance"


@dataclass(slots=True)
class _Allowance:
    """Bytes that a request may send."""

    most_bytes: int = USUAL_BYTES


class BoundedBodies:
    """An application whose requests send ``USUAL_BYTES``, or what their route has allowed; more ends in 413.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request, and count what it sends."""
        allowance, seen = _Allowance(), 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > allowance.most_bytes:
                raise too_large(allowance.most_bytes)
            return message

        scope[_KEY] = allowance
        await self._app(scope, counted, send)


def allow(request: Request, most_bytes: int) -> None:
    """Let a request send more: for routes that know who asks, before they read it."""
    request.scope[_KEY].most_bytes = most_bytes


def too_large(most_bytes: int) -> HTTPException:
    """What is answered to who sends more."""
    return HTTPException(413, f"a form or a file may have at most {most_bytes / 1e6:,.3g} MB here")


AT_ONCE, OF_ONE = 8, 2
"""Forms with files that are read or worked on at the same time, and those of one person among them."""

PATIENCE_SECONDS, LEAST_BYTES_A_SECOND = 30.0, 300_000
"""How long a small form may take to come, and the pace of a large one."""

MOST_FIELDS = 2200
"""One for each column of the widest table, and some."""


class Intake:
    """Takes forms of one server: a person who sends slowly, or much work, takes no more places than one person has.

    Args:
        at_once: How many are read or worked on at the same time.
        of_one: How many of one person.
    """

    def __init__(self, at_once: int = AT_ONCE, of_one: int = OF_ONE) -> None:
        self._at_once, self._of_one = at_once, of_one
        self._taken = Counter[str]()

    async def form(self, request: Request, *, who: str, most_bytes: int) -> FormData:
        """The fields of a form; files among them lie on disk until the request is answered."""
        with self._place(who):
            return await _read(request, most_bytes)

    async def answer(
        self, request: Request, work: Callable[[FormData], Response], *, who: str, most_bytes: int
    ) -> Response:
        """Read a form as ``form`` does, work on it in a thread, and let go of its files and of its place."""
        with self._place(who):
            form = await _read(request, most_bytes)
            try:
                return await run_in_threadpool(work, form)
            finally:
                await form.close()

    @contextmanager
    def _place(self, who: str) -> Iterator[None]:
        if self._taken.total() >= self._at_once or self._taken[who] >= self._of_one:
            message = "other files are being taken; try again in a minute"
            raise ConcurrentUpdateError(message)
        self._taken[who] += 1
        try:
            yield
        finally:
            self._taken[who] -= 1
            self._taken += Counter()  # forgets who has none


class DayLimit:
    """How many files of one tenant, and of one person, a server takes in a day: a name of a tenant costs nothing.

    Args:
        most: So many.
    """

    def __init__(self, most: int) -> None:
        self._most, self._day, self._taken = most, date.min, Counter[tuple[str, str]]()
        self._lock = threading.Lock()

    def take(self, who: str, tenant: str, today: date) -> None:
        """Count one more."""
        owners = ("tenant", tenant), ("user", who)
        with self._lock:
            if self._day != today:
                self._day, self._taken = today, Counter()
            for kind, name in owners:
                if self._taken[kind, name] >= self._most:
                    message = f"{self._most:,} files of {kind} {name!r} came today, so none more is taken; try tomorrow"
                    raise StateError(message)
            self._taken.update(owners)


def text_of(form: FormData, name: str, *, most: int = 1000) -> str:
    """A field as text without blanks at its ends; empty where it is missing."""
    value = form.get(name)
    text = value.strip() if isinstance(value, str) else ""
    if len(text) > most:
        raise HTTPException(400, f"{name} has {len(text):,} characters, at most {most:,} are allowed")
    return text


def file_of(form: FormData, name: str) -> UploadFile | None:
    """Return the file of a field; None if none was chosen."""
    value = form.get(name)
    return value if isinstance(value, UploadFile) and value.filename else None


@contextmanager
def on_disk(file: UploadFile, *, takes_parquet: bool = False) -> Iterator[Path]:
    """Yield the file under its plain name in a separate folder."""
    with scratch_folder("brought") as folder:
        path = Path(folder) / plain_file_name(file.filename or "")
        if path.suffix.lower() in PARQUET and not takes_parquet:
            message = f"{path.name}: no Parquet file is read here; bring CSV, or give it to a command of `easeml`"
            raise InvalidInputError(message)
        with path.open("wb") as writer:
            file.file.seek(0)
            shutil.copyfileobj(file.file, writer)
        yield path


async def _read(request: Request, most_bytes: int) -> FormData:
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most_bytes:
        raise too_large(most_bytes)
    patience = PATIENCE_SECONDS + most_bytes / LEAST_BYTES_A_SECOND
    try:
        async with asyncio.timeout(patience):
            return await _parsed(request, most_bytes)
    except TimeoutError as error:
        raise HTTPException(408, f"the file took longer than {patience:.0f} s to come; try again") from error
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from error


async def _parsed(request: Request, most_bytes: int) -> FormData:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    allow(request, most_bytes)
    if kind == "multipart/form-data":
        return await MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=MOST_FIELDS).parse()
    if kind == "application/x-www-form-urlencoded":
        return await FormParser(request.headers, request.stream(), max_fields=MOST_FIELDS).parse()
    raise HTTPException(400, "this takes a form")
