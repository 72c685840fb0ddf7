"""The service for programs that hold a token of Airflow's: its routes, and what they do: feed, refine and infer.

Each request of an authorised user is one bounded call of the core. It runs in Airflow's server, so the number of long
requests is limited, and large data are refused. Bodies are JSON and bounded; answers are JSON, errors
``{"error": "..."}`` with our own sentences. Nothing of a body goes to a log.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from easeml_airflow.web.server.request_limits import Turns, allow
from easeml_core.actions.action import action_of, options_of, perform, read, require_may
from easeml_core.actions.studies import ACTIONS
from easeml_core.entities import GivenAnswer
from easeml_core.errors import (
    EasemlError,
    InvalidInputError,
    NotFoundError,
    SchemaVersionError,
    StoreError,
    WrongRoleError,
)
from easeml_core.formats.encoding import to_json, typed_record
from easeml_core.services.datasets.feed import FeedEntry, FeedReceipt, feed, file_refresh, list_feeds, require_refresh
from easeml_core.services.datasets.refine import PairList, SuspiciousPairs, list_pairs, rank_pairs, switch_pairs
from easeml_core.services.models.inference import WarmModels, infer, public_answers
from easeml_core.services.referee.answers import RefreshedAnswer
from easeml_core.services.referee.requests import answer_of
from easeml_core.settings.config import require, require_known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from easeml_core.entities import JsonObject
    from easeml_core.services.models.inference import Inferred
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store


MOST_ROWS = 10_000
MOST_CELLS = 10_000_000
"""Numbers of a study's open data that are read for a list or a switch: 40 MB."""

MOST_ANSWERS = 1_000_000
"""Numbers that a model answers at once: an answer to one row may be an image."""

RANK_SECONDS, RANK_MB = 120.0, 2048
"""What the child may take that looks for wrong labels."""


@typed_record
class Refined:
    """How many rows were switched, and the refresh that was asked for; None for none."""

    study: str
    switched: int
    request_id: int | None


@typed_record
class RefreshAnswer:
    """Whether the referee has answered a refresh, and the facts of its answer; None before."""

    answered: bool
    answer: RefreshedAnswer | GivenAnswer | None


@typed_record
class Feeds:
    """The newest feeds of a study."""

    study: str
    feeds: list[FeedEntry]


@dataclass(frozen=True, slots=True)
class Service:
    """Feed, refine and infer for authorised users.

    Attributes:
        open_store: The database, as ``easeml_worker``.
        open_artifacts: Where models and pairs lie.
        turns: Limits concurrent long requests.
        rankings: Limits searches for wrong labels, which take so long that other requests must not wait for them.
        warm: Models that stay loaded between two questions.
    """

    open_store: Callable[[], Store]
    open_artifacts: Callable[[], ArtifactStore]
    turns: Turns = field(default_factory=Turns)
    rankings: Turns = field(default_factory=lambda: Turns(at_once=1, waiting=4))
    warm: WarmModels = field(default_factory=WarmModels)

    def act(self, kind: type[Any], path: Mapping[str, str], who: str, body: JsonObject) -> Any:
        """Carry out an action: its options are in the path and the body, which may have a ``request_key``, too."""
        known = [one.name for one in options_of(kind) if one.name not in path]
        require_known("body", body, (*known, "request_key"))
        request = read(kind, {name: value for name, value in body.items() if name != "request_key"} | dict(path))
        require_may(request, is_operator=False)
        subject = path.get("study", "")
        with self.turns.taken(subject):
            key = _key(body, who, subject, action_of(kind).name)
            return perform(self.open_store(), request, request_key=key)

    def feed(self, study: str, who: str, body: JsonObject) -> FeedReceipt:
        """``{"pairs": [{"inputs", "label"}], "request_key"}``: the feed."""
        require_known("body", body, ("pairs", "request_key"))
        with self.turns.taken(study):
            return feed(
                self.open_store(),
                self.open_artifacts(),
                study=study,
                pairs=_list(body, "pairs"),
                fed_by=who,
                request_key=_key(body, who, study, "feed"),
            )

    def infer(self, study: str, who: str, body: JsonObject) -> Inferred:
        """``{"inputs": [...], "model", "probabilities"}``: the answers, and the model that gave them."""
        require_known("body", body, ("inputs", "model", "probabilities"))
        wanted = body.get("probabilities", False)
        require(isinstance(wanted, bool), "probabilities", wanted, "true or false")
        with self.turns.taken(study):
            return infer(
                self.open_store(),
                self.open_artifacts(),
                study=study,
                inputs=_list(body, "inputs"),
                model=body.get("model", "production"),
                probabilities=wanted,
                warm=self.warm,
                most_answers=MOST_ANSWERS,
                apart=True,
            )

    def feed_file(self, study: str, who: str, path: Path, *, label: str, request_key: str) -> FeedReceipt:
        """The pairs of a file or folder on this machine, as of ``easeml feed``."""
        with self.turns.taken(study):
            return feed(
                self.open_store(),
                self.open_artifacts(),
                study=study,
                path=path,
                label_column=label,
                fed_by=who,
                request_key=_key({"request_key": request_key}, who, study, "feed"),
            )

    def infer_file(self, study: str, path: Path, *, model: str, probabilities: bool) -> Inferred:
        """The answers to a file or folder on this machine, with the columns that it has."""
        with self.turns.taken(study):
            return infer(
                self.open_store(),
                self.open_artifacts(),
                study=study,
                path=path,
                model=model,
                probabilities=probabilities,
                warm=self.warm,
                most_answers=MOST_ANSWERS,
                apart=True,
            )

    def suspicious(self, study: str, *, limit: int) -> SuspiciousPairs:
        """Rows of the training part whose labels look wrong, the most doubtful first."""
        require(1 <= limit <= MOST_ROWS, "limit", limit, f"1 to {MOST_ROWS:,}")
        with self.rankings.taken(study):
            return rank_pairs(
                self.open_store(),
                self.open_artifacts(),
                study=study,
                limit=limit,
                time_limit_seconds=RANK_SECONDS,
                memory_limit_mb=RANK_MB,
                most_cells=MOST_CELLS,
            )

    def refine(self, study: str, who: str, body: JsonObject) -> Refined:
        """``{"off": [...], "on": [...], "reason", "apply", "request_key"}``: what was switched, and the refresh."""
        require_known("body", body, ("off", "on", "reason", "apply", "request_key"))
        key, wants = _key(body, who, study, "refine"), body.get("apply", False)
        require(isinstance(wants, bool), "apply", wants, "true or false")
        count, request_id = 0, None
        for name in [name for name in ("off", "on") if name in body]:
            with self.turns.taken(study):
                switched = switch_pairs(
                    self.open_store(),
                    self.open_artifacts(),
                    study=study,
                    hashes=_list(body, name),
                    on=name == "on",
                    reason=body.get("reason", ""),
                    switched_by=who,
                    request_key=f"{key}/{name}",
                    most_cells=MOST_CELLS,
                )
            count += switched.switched
        if wants:
            request_id = file_refresh(self.open_store(), study=study, request_key=f"{key}/apply").request_id
        return Refined(study, count, request_id)

    def rows(self, study: str, *, off: bool, limit: int) -> PairList:
        """Rows of the training part."""
        require(1 <= limit <= MOST_ROWS, "limit", limit, f"1 to {MOST_ROWS:,}")
        with self.turns.taken(study):
            store, artifacts = self.open_store(), self.open_artifacts()
            return list_pairs(store, artifacts, study=study, off=off, limit=limit, most_cells=MOST_CELLS)

    def feeds(self, study: str) -> Feeds:
        """Return what was fed, and what became of it."""
        return Feeds(study, list_feeds(self.open_store(), study=study))

    def refreshed(self, study: str, request_id: int) -> RefreshAnswer:
        """Return the referee's answer to a refresh of this study."""
        store = self.open_store()
        require_refresh(store, study=study, request_id=request_id)
        answer = answer_of(store, request_id)
        return RefreshAnswer(answer is not None, answer)


def _list(body: JsonObject, name: str) -> list[Any]:
    given = body.get(name)
    shown = f"{len(given)} entries" if isinstance(given, list) else given
    is_fine = isinstance(given, list) and 1 <= len(given) <= MOST_ROWS
    require(is_fine, name, shown, f"a list of 1 to {MOST_ROWS:,} entries")
    assert isinstance(given, list)
    return given


def _key(body: JsonObject, who: str, study: str, what: str) -> str:
    """Return the request key, which includes the user's name, so that no user can repeat another user's request."""
    given = body.get("request_key") or str(uuid.uuid4())
    is_fine = isinstance(given, str) and given.isprintable() and len(given) <= 200
    require(is_fine, "request_key", given, "at most 200 printable characters")
    return f"api/{who}/{study}/{what}/{given}"


MOST_BYTES = 4 * 1024 * 1024

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
STATUS: tuple[tuple[type[EasemlError], int], ...] = (
    (NotFoundError, 404),
    (InvalidInputError, 400),
    (SchemaVersionError, 500),
    (WrongRoleError, 500),
    (StoreError, 503),
)


def status_of(error: EasemlError) -> int:
    """The status of an answer for an error of ours: the first that fits; others are a state that does not allow it."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 409)


class _Unread(Exception):
    """A body that is not looked into: status and sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def create_router(*, service: Service, rights: Callable[..., Any]) -> APIRouter:
    """The routes below ``/api/v1``: actions by their definitions, and what is done with the rows of a study."""
    router, prefix = APIRouter(prefix="/api/v1"), "/studies/{study}"
    reader, writer = Depends(rights(write=False)), Depends(rights(write=True))
    for kind in (kind for kind in ACTIONS if action_of(kind).route):
        router.add_api_route(action_of(kind).route, _post_action(service, kind, writer), methods=["POST"])
    router.add_api_route(f"{prefix}/feed", _post(service.feed, writer), methods=["POST"])
    router.add_api_route(f"{prefix}/refine", _post(service.refine, writer), methods=["POST"])
    router.add_api_route(f"{prefix}/infer", _post(_infer(service), reader), methods=["POST"])

    @router.get(f"{prefix}/refine", dependencies=[reader])
    def get_rows(study: str, off: bool = False, limit: int = 50) -> JSONResponse:
        return _answer(partial(service.rows, study, off=off, limit=limit))

    @router.get(f"{prefix}/feeds", dependencies=[reader])
    def get_feeds(study: str) -> JSONResponse:
        return _answer(partial(service.feeds, study))

    @router.get(prefix + "/requests/{request_id}", dependencies=[reader])
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


def _post_action(service: Service, kind: type[Any], allowed: Any) -> Callable[..., Any]:
    """A route of an action, for users who may write for the study in its path."""

    async def route(request: Request, who: str = allowed) -> JSONResponse:
        try:
            body = await _body(request)
        except _Unread as error:
            return _error(error.status, str(error))
        path = dict(request.path_params)
        return await run_in_threadpool(_answer, partial(service.act, kind, path, who[:200], body))

    return route


def _answer(work: Callable[[], object]) -> JSONResponse:
    try:
        return JSONResponse(to_json(work()), headers=_HEADERS)
    except EasemlError as error:
        return _error(status_of(error), str(error))


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
