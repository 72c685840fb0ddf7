"""``/health``: alive and ready, without a login; what was found is for operators.

A load balancer has no login, so ``/health`` is the one route without one. It says one word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from easeml_airflow.web.server.auth import Role, Viewer
from easeml_core.encoding import to_json
from easeml_core.services.operations.installation_health import KeptHealth, installation_health

if TYPE_CHECKING:
    from easeml_airflow.web.server.site import Site
    from easeml_core.services.operations.installation_health import Health

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def routes(site: Site) -> APIRouter:
    """Return ``/health/details``: what was found, for operators."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/health/details")
    def details(viewer: Viewer = who) -> JSONResponse:
        viewer.require(Role.OPERATOR)
        found = _kept(site)()
        return JSONResponse(to_json(found), status_code=_status(found), headers=_HEADERS)

    return router


def open_route(site: Site) -> APIRoute:
    """Return ``/health``: 200 with ``ok`` or ``degraded``, 503 with ``failed``, and nothing else, without a login."""

    def health() -> JSONResponse:
        found = _kept(site)()
        return JSONResponse({"status": found.status}, status_code=_status(found), headers=_HEADERS)

    return APIRoute("/health", health, methods=["GET"])


def _status(found: Health) -> int:
    return 200 if found.ready else 503


def _kept(site: Site) -> KeptHealth:
    def look() -> Health:
        return installation_health(site.open_store, lambda: site.open_artifacts().place)

    return site.one(KeptHealth, lambda: KeptHealth(look))
