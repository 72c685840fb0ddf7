"""Forms with a file, read within bounds on disk space and on the number of slow senders and of works."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections import Counter
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import HTTPException
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from easeml_airflow.web.server.throttling import allow, too_large
from easeml_core.data.rows.row_tables import PARQUET
from easeml_core.data.sources.spec import plain_file_name
from easeml_core.errors import ConcurrentUpdateError, InvalidInputError, StateError
from easeml_core.files import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import Request
    from fastapi.responses import Response

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
        """The fields of a form; files among them lie on disk until the request is answered.

        Args:
            request: Of a user whom the route has authorised.
            who: Their name.
            most_bytes: Of the whole form.

        Raises:
            HTTPException: 400 for what is no form, 408 for one that takes too long, 413 for one that is too large.
            ConcurrentUpdateError: Enough others are being read.
        """
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
        """Count one more.

        Raises:
            StateError: That is one too many.
        """
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
    """A field as text without blanks at its ends; empty where it is missing.

    Raises:
        HTTPException: 400 where it is longer.
    """
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
    """Yield the file under its plain name in a separate folder.

    Args:
        file: What came.
        takes_parquet: Whether it may be Parquet: not where it is read in the server's own process, since few bytes of
            it can stand for very many.

    Raises:
        InvalidInputError: It is Parquet, and may not be.
    """
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
