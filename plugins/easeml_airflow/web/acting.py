"""In whose name a change is made: every change that comes in by a page or the service bears its asker's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Depends, Request

from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import path_of
from easeml_core.store.actors import acting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from easeml_airflow.web.server.site import Site


def in_their_name(site: Site) -> Callable[..., Any]:
    """A FastAPI dependency around each change; a look is nobody's act.

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
