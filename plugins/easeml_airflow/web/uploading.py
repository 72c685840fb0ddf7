"""Forms with a file, read within bounds: nobody fills a disk, and no crowd of slow senders holds the server up."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections import Counter
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import HTTPException
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from easeml_core.errors import ConcurrentUpdateError, StateError
from easeml_core.training.upload_names import plain_file_name

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from fastapi import Request

AT_ONCE = 4
PATIENCE_SECONDS = 900.0
MOST_FIELDS = 2200
"""One for each column of the widest table, and some."""


class Intake:
    """Takes forms of one server.

    Args:
        at_once: How many are read at the same time.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = at_once

    async def form(self, request: Request, *, most_bytes: int) -> FormData:
        """The fields of a form; files among them lie on disk until the request is answered.

        Raises:
            HTTPException: 400 for what is no form, 408 for one that takes too long, 413 for one that is too large.
            ConcurrentUpdateError: Enough others are being read.
        """
        said = request.headers.get("content-length", "")
        if said.isdecimal() and int(said) > most_bytes:
            raise _too_large(most_bytes)
        if self._free < 1:
            message = "other files are being taken; try again in a minute"
            raise ConcurrentUpdateError(message)
        self._free -= 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await _parsed(request, most_bytes)
        except TimeoutError as error:
            raise HTTPException(408, f"the file took longer than {PATIENCE_SECONDS:g} s to come; try again") from error
        except MultiPartException as error:
            raise HTTPException(400, f"the form cannot be read: {error.message}") from error
        finally:
            self._free += 1


class DayLimit:
    """How many files of one tenant a server takes in a day.

    Args:
        most: So many.
    """

    def __init__(self, most: int) -> None:
        self._most, self._day, self._taken = most, date.min, Counter[str]()
        self._lock = threading.Lock()

    def take(self, tenant: str, today: date) -> None:
        """Count one more.

        Raises:
            StateError: That is one too many.
        """
        with self._lock:
            if self._day != today:
                self._day, self._taken = today, Counter()
            if self._taken[tenant] >= self._most:
                message = f"{self._most:,} files of tenant {tenant!r} came today, so none more is taken; try tomorrow"
                raise StateError(message)
            self._taken[tenant] += 1


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
    """The file of a field; None where nobody chose one."""
    value = form.get(name)
    return value if isinstance(value, UploadFile) and value.filename else None


@contextmanager
def on_disk(file: UploadFile) -> Iterator[Path]:
    """The file under its own plain name in a folder of its own, for the block."""
    with tempfile.TemporaryDirectory(prefix="easeml-brought-") as folder:
        path = Path(folder) / plain_file_name(file.filename or "")
        with path.open("wb") as writer:
            file.file.seek(0)
            shutil.copyfileobj(file.file, writer)
        yield path


async def _parsed(request: Request, most_bytes: int) -> FormData:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    stream = _bounded(request, most_bytes)
    if kind == "multipart/form-data":
        return await MultiPartParser(request.headers, stream, max_files=1, max_fields=MOST_FIELDS).parse()
    if kind == "application/x-www-form-urlencoded":
        return await FormParser(request.headers, stream).parse()
    raise HTTPException(400, "this takes a form")


async def _bounded(request: Request, most_bytes: int) -> AsyncGenerator[bytes, None]:
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > most_bytes:
            raise _too_large(most_bytes)
        yield chunk


def _too_large(most_bytes: int) -> HTTPException:
    return HTTPException(413, f"a file may have at most {most_bytes / 1e6:,.0f} MB here")
