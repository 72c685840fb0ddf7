"""The routes of the service: feed, refine and infer, for programs that hold a token of Airflow's.

Bodies are JSON and bounded; answers are JSON, errors ``{"error": "..."}`` with our own sentences. Nothing of a body
goes to a log.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from easeml_airflow.web.server.throttling import allow
from easeml_core.encoding import to_json
from easeml_core.errors import (
    EasemlError,
    InvalidInputError,
    NotFoundError,
    SchemaVersionError,
    StoreError,
    WrongRoleError,
)
from easeml_core.services.models.inference import public_answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_airflow.web.server.service import Service
    from easeml_core.entities import JsonObject

MOST_BYTES = 4 * 1024 * 1024

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
# The first that fits; what is in none is a state that does not allow it.
STATUS: tuple[tuple[type[EasemlError], int], ...] = (
    (NotFoundError, 404),
    (InvalidInputError, 400),
    (SchemaVersionError, 500),
    (WrongRoleError, 500),
    (StoreError, 503),
)


class _Unread(Exception):
    """A body that is not looked into: status and sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def create_router(*, service: Service, rights: Callable[..., Any]) -> APIRouter:
    """The routes below ``/api/v1/studies``.

    Args:
        service: What they do.
        rights: ``rights(write=...)`` gives a FastAPI dependency that lets in who may, and gives their name.
    """
    router = APIRouter(prefix="/api/v1/studies/{study}")
    reader, writer = Depends(rights(write=False)), Depends(rights(write=True))
    router.add_api_route("/feed", _post(service.feed, writer), methods=["POST"])
    router.add_api_route("/refine", _post(service.refine, writer), methods=["POST"])
    router.add_api_route("/infer", _post(_infer(service), reader), methods=["POST"])

    @router.get("/refine", dependencies=[reader])
    def get_rows(study: str, off: bool = False, limit: int = 50) -> JSONResponse:
        return _answer(partial(service.rows, study, off=off, limit=limit))

    @router.get("/feeds", dependencies=[reader])
    def get_feeds(study: str) -> JSONResponse:
        return _answer(partial(service.feeds, study))

    @router.get("/requests/{request_id}", dependencies=[reader])
    def get_request(study: str, request_id: int) -> JSONResponse:
        return _answer(partial(service.refreshed, study, request_id))

    return router


def _infer(service: Service) -> Callable[[str, str, JsonObject], object]:
    def answer(study: str, who: str, body: JsonObject) -> object:
        return public_answers(service.infer(study, who, body))

    return answer


def _post(work: Callable[[str, str, JsonObject], object], allowed: Any) -> Callable[..., Any]:
    """A route that reads the body, then works in a thread: the server's own must not wait."""

    async def route(study: str, request: Request, who: str = allowed) -> JSONResponse:
        try:
            body = await _body(request)
        except _Unread as error:
            return _error(error.status, str(error))
        return await run_in_threadpool(_answer, partial(work, study, who[:200], body))

    return route


def _answer(work: Callable[[], object]) -> JSONResponse:
    try:
        return JSONResponse(to_json(work()), headers=_HEADERS)
    except EasemlError as error:
        return _error(next((status for kind, status in STATUS if isinstance(error, kind)), 409), str(error))


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status, headers=_HEADERS)


async def _body(request: Request) -> JsonObject:
    """The body as a JSON object of at most ``MOST_BYTES``."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _Unread(415, "the body must be JSON, with the header 'Content-Type: application/json'")
    allow(request, MOST_BYTES + 1_000_000)  # the service reports the limit itself
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise _Unread(413, f"the body may have at most {MOST_BYTES:,} bytes; send fewer rows at once")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _Unread(400, "the body is no JSON") from error
    if not isinstance(body, dict):
        raise _Unread(400, "the body must be a JSON object")
    return body
