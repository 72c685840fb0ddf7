"""The web application: pages, static files, the stream of news and the service, all closed, and ``/health``.

A mounted application inherits no login from Airflow, so the maker must hand one in. There are no schema or docs
routes, since those would answer without it. Static files come through a route of ours and not through a mount, since
a mount would not ask for the login either.

In whose name a change is made: every change that comes in by a page or the service bears its asker's name.

``/health`` says one word, and is the one route without a login, since a load balancer has none; what was found is for
operators.

Requests are counted and timed. A measurement names the route as it was declared, such as ``/studies/{study}``, never
what a viewer asked for. The time of a request that opened the sealed rows is not measured, since it could tell of them.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as AnyHTTPException

from easeml_airflow.hooks.easeml import connect_metrics, watch_listeners
from easeml_airflow.web import live
from easeml_airflow.web.pages import (
    audit,
    dag_run,
    datasets,
    decision,
    labeling,
    meter,
    new_study,
    submissions,
    timeline,
    use,
)
from easeml_airflow.web.pages.compute import page as compute
from easeml_airflow.web.pages.gate import page as gate
from easeml_airflow.web.pages.overview import page as overview
from easeml_airflow.web.pages.study import page as study
from easeml_airflow.web.server.auth import Role, Viewer, has_token
from easeml_airflow.web.server.request_limits import BoundedBodies, few_of_each
from easeml_airflow.web.server.service import create_router, status_of
from easeml_airflow.web.server.site import HEADERS, HERE, Site, error_page, path_of
from easeml_core.errors import EasemlError, StoreUnavailableError
from easeml_core.formats.encoding import to_json
from easeml_core.services.operations.checks import KeptHealth, installation_health
from easeml_core.services.telemetry import PAGE_REQUESTS, PAGE_SECONDS
from easeml_core.store import callers, logins
from easeml_core.store.callers import acting
from easeml_core.store.refusals import AWAY_ERRORS
from easeml_core.store.roles import PERSON, VIEWER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from easeml_core.services.operations.checks import Health
    from easeml_core.store.database import Store


COUNTED_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STREAM = "/events"
"""A stream's time is that of the page that has it open."""


@dataclass(slots=True)
class _Known:
    """What is known of a request; one object for all threads that work on it."""

    status: int = 500
    has_read_sealed: bool = False


_request: ContextVar[_Known | None] = ContextVar("easeml_measured_request", default=None)


def note_sealed() -> None:
    """Say that the request at hand opens the sealed rows."""
    if (known := _request.get()) is not None:
        known.has_read_sealed = True


class Measured:
    """An application whose answers are counted and timed.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        connect_metrics()
        watch_listeners()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request, and note its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known, begun = _Known(), time.monotonic()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                known.status = message["status"]
            await send(message)

        token = _request.set(known)
        try:
            await self._app(scope, receive, noted)
        finally:
            _request.reset(token)
            seconds = time.monotonic() - begun
            route = getattr(scope.get("route"), "path", "") or "other"
            method = scope["method"] if scope["method"] in COUNTED_METHODS else "other"
            PAGE_REQUESTS.note(1, route=route, method=method, status=f"{known.status // 100}xx")
            if not (known.has_read_sealed or route == STREAM):
                PAGE_SECONDS.note(seconds, route=route, method=method)


_HEALTH_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def health_details(site: Site) -> APIRouter:
    """Return ``/health/details``: what was found, for operators."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/health/details")
    def details(viewer: Viewer = who) -> JSONResponse:
        viewer.require(Role.OPERATOR)
        found = _kept_health(site)()
        return JSONResponse(to_json(found), status_code=_health_status(found), headers=_HEALTH_HEADERS)

    return router


def health_route(site: Site) -> APIRoute:
    """Return ``/health``: 200 with ``ok`` or ``degraded``, 503 with ``failed``, and nothing else, without a login."""

    def health() -> JSONResponse:
        found = _kept_health(site)()
        return JSONResponse({"status": found.status}, status_code=_health_status(found), headers=_HEALTH_HEADERS)

    return APIRoute("/health", health, methods=["GET"])


def _health_status(found: Health) -> int:
    return 200 if found.ready else 503


def _kept_health(site: Site) -> KeptHealth:
    def look() -> Health:
        return installation_health(site.open_store, lambda: site.open_artifacts().place)

    return site.one(KeptHealth, lambda: KeptHealth(look))


def in_their_name(site: Site) -> Callable[..., Any]:
    """Return a FastAPI dependency that records the user of each change.

    It must be asynchronous: only then is what it sets still set where the route runs.
    """
    who = Depends(site.viewer)

    async def named(request: Request, viewer: Viewer = who) -> AsyncIterator[None]:
        if request.method in ("GET", "HEAD"):
            yield
            return
        with acting(viewer.name, door="service" if path_of(request).startswith("/api/") else "page"):
            yield

    return named


def with_their_rights(site: Site) -> Callable[..., Any]:
    """Return a FastAPI dependency with which a request touches the rows and files of the viewer's tenants alone.

    That holds where tenants have logins; operators and referees reach all rows. The referee's address is for referees,
    and for labelers on their pages, in any installation. It must be asynchronous, as ``in_their_name``.
    """
    who = Depends(site.viewer)

    async def reaching(request: Request, viewer: Viewer = who) -> AsyncIterator[None]:
        labels = Role.LABELER in viewer.roles and path_of(request).startswith("/labels")
        token = _may_read_sealed.set(viewer.is_referee or labels)
        try:
            if viewer.sees_all:
                yield
                return
            only_looks = request.method in ("GET", "HEAD")
            reach = await run_in_threadpool(reach_of, site, viewer, VIEWER if only_looks else PERSON)
            with callers.reaching(reach):
                yield
        finally:
            _may_read_sealed.reset(token)

    return reaching


_may_read_sealed: ContextVar[bool] = ContextVar("easeml_may_read_sealed", default=False)


def sealed_of(site: Site) -> Callable[[], Store]:
    """Return what opens the database as ``easeml_referee``, for requests of those who may read what is sealed."""

    def opened() -> Store:
        if not _may_read_sealed.get():
            message = "only the referee may see or do this, and labelers what is to be labeled"
            raise HTTPException(status_code=403, detail=message)
        note_sealed()
        return site.open_sealed()

    return opened


def reach_of(site: Site, viewer: Viewer, role: str) -> callers.Reach | None:
    """Return what a request of the viewer may touch; None where the database keeps no tenants apart."""
    with site.open_store().begin(writes=False) as tx:
        if not logins.are_pages_apart(tx, role):
            return None
        known = logins.studies_by_tenant(tx)
    # A tenant without a study is asked about as one for whom a study is registered.
    may = {
        write: tuple(
            number
            for (number, tenant), studies in known.items()
            if any(viewer.rights(study, tenant, write=write) for study in studies or [""])
        )
        for write in (False, True)
    }
    reads = tuple(sorted({*may[False], *may[True]}))
    hidden = frozenset(tenant for number, tenant in known if number not in reads)
    return callers.Reach(reads, may[True] if role == PERSON else None, hidden)


PAGES: tuple[Any, ...] = (
    overview,
    new_study,
    labeling,
    compute,
    audit,
    study,
    timeline,
    submissions,
    gate,
    meter,
    datasets,
    use,
    decision,
    dag_run,
)
"""The modules of the pages, in the order of their tabs."""

AIRFLOW_REFUSES = "Forbidden"
NO_PLUGINS = (
    "your role in Airflow may not see plugins, and these pages are one; an administrator of Airflow can grant the "
    "right to read Plugins"
)
"""Message in place of Airflow's one word."""

AIRFLOW_AWAY = (
    "the database of Airflow cannot be reached, so no login can be checked; nothing is lost, and trainings go on; "
    "start the database, then look again"
)
"""Message where the login itself fails for want of a database."""

KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def create_app(site: Site, *, require_login: Callable[..., Any], rights: Callable[..., Any] | None = None) -> FastAPI:
    """Make the application."""
    site = replace(
        site,
        tabs=[page.TAB for page in PAGES if hasattr(page, "TAB")],
        study_tabs=[page.STUDY_TAB for page in PAGES if hasattr(page, "STUDY_TAB")],
    )
    app = FastAPI(
        title="Ease.ml",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(require_login)],
    )
    site = replace(site, open_sealed=sealed_of(site))
    app.add_middleware(BoundedBodies)
    app.add_middleware(Measured)
    few, named = Depends(few_of_each(site.viewer)), Depends(in_their_name(site))
    apart = Depends(with_their_rights(site))
    for page in PAGES:
        app.include_router(page.routes(site), dependencies=[Depends(own_page), few, named, apart])
    app.include_router(live.routes(site), dependencies=[apart])
    app.include_router(health_details(site), dependencies=[few])
    app.router.routes.append(health_route(site))  # the application's login is a dependency of what it includes
    app.add_api_route("/static/{name}", static, methods=["GET"], response_class=FileResponse)
    if rights is not None:
        service = create_router(service=site.service, rights=rights)
        app.include_router(service, dependencies=[named, apart])
    _tell_errors(app, site)
    return app


def own_page(request: Request) -> None:
    """Refuse a change that another site made the browser request; programs with a token have no browser.

    Browsers say where a request comes from in ``Sec-Fetch-Site``, or, over plain HTTP, in ``Origin``.
    """
    if request.method in ("GET", "HEAD") or has_token(request):
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    is_own = site == "same-origin" or (site is None and origin is not None and _is_here(origin, request))
    if not is_own:
        raise HTTPException(status_code=403, detail="this change did not come from a page of Ease.ml; do it there")


def _is_here(origin: str, request: Request) -> bool:
    return urlsplit(origin).netloc == request.headers.get("host", "")


def static(name: str) -> FileResponse:
    """A file of the pages, by its exact name."""
    known = {path.name: path for path in (HERE / "static").iterdir()}
    if name not in known:
        raise HTTPException(status_code=404, detail=f"there is no file {name!r}")
    path = known[name]
    headers = HEADERS | {"Cache-Control": "private, max-age=300"}
    return FileResponse(path, media_type=KINDS[path.suffix], headers=headers)


def _tell_errors(app: FastAPI, site: Site) -> None:
    """Errors as a page to people, as JSON to programs."""

    def answer(request: Request, status: int, message: str) -> Response:
        if path_of(request).startswith(("/api/", "/static/", "/events")) or has_token(request):
            return JSONResponse({"error": message}, status_code=status, headers={"Cache-Control": "no-store"})
        return error_page(site, request, status, message)

    @app.exception_handler(EasemlError)
    def of_ours(request: Request, error: EasemlError) -> Response:
        return answer(request, status_of(error), str(error))

    def of_driver(request: Request, error: Exception) -> Response:
        """Answer where Airflow's own database is away, which its login asks: a page that says so, no bare 500."""
        return answer(request, status_of(StoreUnavailableError()), AIRFLOW_AWAY)

    for kind in (*AWAY_ERRORS, ConnectionError):
        app.add_exception_handler(kind, of_driver)

    @app.exception_handler(AnyHTTPException)
    def of_http(request: Request, error: AnyHTTPException) -> Response:
        message = NO_PLUGINS if error.detail == AIRFLOW_REFUSES else str(error.detail)
        return answer(request, error.status_code, message)

    @app.exception_handler(RequestValidationError)
    def of_values(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return answer(request, 400, f"{first['loc'][-1]}: {first['msg']}")
