"""The web application behind the page: a route for the page, one for its static files, and the service; all closed.

A mounted application inherits no login from Airflow, so the maker must hand one in. There are no schema or docs
routes, since those would answer without it. Static files come through a route of ours and not through a mount, since
a mount would not ask for the login either.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from easeml_airflow import settings
from easeml_airflow.web.view import Page, columns, page_of
from easeml_core.errors import EasemlError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi import APIRouter

HERE = Path(__file__).parent
STATIC = {
    "tokens.css": "text/css",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "mark.svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def create_app(
    *,
    get_overview: Callable[[], Mapping[str, Any]],
    require_login: Callable[..., Any],
    service: APIRouter | None = None,
) -> FastAPI:
    """Make the application.

    Args:
        get_overview: Gives the facts of ``services.overview``; may raise EasemlError, which the page then shows.
        require_login: FastAPI dependency that answers 401 or 403 to whoever may not see the page.
        service: The routes of ``web/api.py``, which ask for the same login, and for more.
    """
    app = FastAPI(
        title="Ease.ml",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(require_login)],
    )

    @app.get("/", response_class=HTMLResponse)
    def show(study: str = "") -> HTMLResponse:
        try:
            page = page_of(get_overview(), read_at=datetime.now(UTC))
        except EasemlError as error:
            return HTMLResponse(render(error=str(error)), status_code=503, headers=HEADERS)
        return HTMLResponse(render(page=page, study=study), headers=HEADERS)

    @app.get("/static/{name}", response_class=FileResponse)
    def static(name: str) -> FileResponse:
        if name not in STATIC:
            message = f"there is no file {name!r}"
            raise HTTPException(status_code=404, detail=message)
        headers = HEADERS | {"Cache-Control": "private, max-age=300"}
        return FileResponse(HERE / "static" / name, media_type=STATIC[name], headers=headers)

    if service is not None:
        app.include_router(service)
    return app


def render(*, page: Page | None = None, error: str = "", study: str = "") -> str:
    """The page as HTML, with the row of one study marked; every text in it is escaped."""
    shown = {"page": page, "error": error, "study": study, "columns": columns()}
    return _templates().get_template("overview.html").render(refresh=settings.page_refresh_seconds(), **shown)


def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE / "pages"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
    )
