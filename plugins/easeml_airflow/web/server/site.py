"""What every page has: its frame, its viewer, its sources of facts, and its error page.

A page is a module in ``pages/`` with ``routes(site)``, ``TAB`` or ``STUDY_TAB``, and frozen views, and a template. The
developer's page has a different module and template than the referee's, never the same one with parts hidden.

Content comes from bounded reads of the store, by the installation's connection.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from easeml_airflow import settings
from easeml_airflow.hooks.easeml import WORKER, EasemlHook
from easeml_airflow.web.server import formats
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.service import Service
from easeml_core.entities import StudyState
from easeml_core.errors import EasemlError, NotFoundError, StoreUnavailableError
from easeml_core.services.operations.checks import KeptLook
from easeml_core.services.referee.place_in_queue import Queue, waiting_texts
from easeml_core.settings import limits
from easeml_core.store.database import Store
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from easeml_core.entities import Study
    from easeml_core.store.artifacts.local import ArtifactStore


STATEMENT_TIMEOUT_SECONDS = 5.0
"""The read runs in the server's own process, so it may not hold a thread of it for long."""

REFEREE_VARIABLE = "EASEML_REFEREE_DATABASE_URL"
"""The address of the role ``easeml_referee``: a setting of the API server's own process, never a connection of Airflow,
which any task may ask for."""

_lock = threading.Lock()
_open: dict[str, tuple[str, Store]] = {}


def open_store() -> Store:
    """The database, as the role that the connection names."""
    try:
        hook = EasemlHook()
        url = hook.url
    except NotFoundError as error:  # to who looks at a page the database is away, not the page
        raise StoreUnavailableError(str(error)) from error
    return _store(WORKER, url, hook.source)


def open_sealed() -> Store:
    """The database, as ``easeml_referee``: for the referee's pages only."""
    url = os.environ.get(REFEREE_VARIABLE, "")
    if not url:
        message = (
            f"this API server was not given the referee's address ({REFEREE_VARIABLE}), so it shows nothing of sealed "
            "sets; set it for the API server alone, or use `easeml ledger`, `easeml labels` and `easeml test-set` there"
        )
        raise StoreUnavailableError(message)
    return _store("easeml_referee", url, REFEREE_VARIABLE)


def open_artifacts() -> ArtifactStore:
    """Where models and data lie."""
    return EasemlHook().get_artifacts()


def tenant_of(study: str) -> str:
    """The study's tenant; an empty text where there is no such study, which is no tenant's name."""
    with open_store().begin() as tx:
        try:
            return studies.get_study(tx, study).tenant
        except NotFoundError:
            return ""


def _store(role: str, url: str, source: str) -> Store:
    """One store a role while its address stays the same; an edited connection takes effect at once."""
    with _lock:
        known, store = _open.get(role, ("", None))
        if store is None or known != url:
            if store is not None:
                store.close()
            limit = STATEMENT_TIMEOUT_SECONDS
            store = Store(
                url, statement_timeout_seconds=limit, lock_timeout_seconds=0.8 * limit, needs=role, source=source
            )
            _open[role] = (url, store)
        return store


HERE = Path(__file__).parents[1]
State = TypeVar("State")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "script-src 'self'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'self'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
"""Style attributes are lengths of charts, computed here; they never hold a user's text."""

Reason = Annotated[str, Form(max_length=limits.LONGEST_TEXT)]
"""Of a form: why a change is made, for the audit; may be empty."""


@dataclass(frozen=True, slots=True)
class Tab:
    """One entry of a navigation.

    Attributes:
        path: Where it leads, below the application's own path; of a study's page below the study's path.
        word: What it says.
        roles: Who sees it; empty for every user.
    """

    path: str
    word: str
    roles: frozenset[Role] = frozenset()

    def is_for(self, viewer: Viewer) -> bool:
        """Return whether the viewer sees it; what a viewer may not see is absent."""
        return not self.roles or bool(self.roles & viewer.roles)


NO_QUEUE = Queue("", frozenset())


@dataclass(frozen=True)
class Site:
    """What the pages share.

    Attributes:
        open_store: The database, as ``easeml_worker``.
        open_artifacts: Where models and data lie.
        open_sealed: The database, as ``easeml_referee``; raises StoreUnavailableError on a server without that address.
        viewer: FastAPI dependency that gives who asks.
        needs_of: How many things wait for this person; the bar shows it.
        queue_of: The state of the referees' queue; every page says where no referee runs.
        tabs: The pages that are not about one study.
        study_tabs: The pages about one study.
    """

    open_store: Callable[[], Store]
    open_artifacts: Callable[[], ArtifactStore]
    open_sealed: Callable[[], Store]
    viewer: Callable[..., Viewer]
    needs_of: Callable[[Store, Viewer], int] = field(default=lambda _store, _viewer: 0)
    queue_of: Callable[[Store], Queue] = field(default=lambda _store: NO_QUEUE)
    tabs: Sequence[Tab] = ()
    study_tabs: Sequence[Tab] = ()
    _kept: dict[type, Any] = field(default_factory=dict, repr=False, compare=False)
    # A field, so that what is set before `create_app` copies the site with its tabs still holds afterwards.

    @cached_property
    def service(self) -> Service:
        """Feed, refine and infer: one for pages and programs, so that they share turns and loaded models."""
        return Service(self.open_store, self.open_artifacts)

    def one(self, kind: type[State], make: Callable[[], State] | None = None) -> State:
        """Return this application's only object of a class that keeps state between requests."""
        if kind not in self._kept:
            self._kept.setdefault(kind, (make or kind)())  # of two that come at once, the first one is kept
        found: State = self._kept[kind]
        return found

    def page(
        self, request: Request, viewer: Viewer, template: str, /, *, status: int = 200, **shown: Any
    ) -> HTMLResponse:
        """A page in its frame."""
        study, queued = shown.get("study"), self._queue(viewer)
        frame = {
            "base": base_of(request),
            "path": path_of(request),
            "viewer": viewer,
            "tabs": [tab for tab in self.tabs if tab.is_for(viewer)],
            "study_tabs": [tab for tab in self.study_tabs if study and tab.is_for(viewer)],
            "study_path": path_of_study(_handle(study)) if study else "",
            "refresh": settings.page_refresh_seconds(),
            "read_at": datetime.now(UTC),
            "needs_count": self._needs(viewer),
            "no_referee": queued.no_referee,
            "requests": self._requests(study) if study and study.id in queued.studies else (),
        }
        html = templates().get_template(template).render(**frame, **shown)
        return HTMLResponse(html, status_code=status, headers=HEADERS)

    def study(self, viewer: Viewer, name: str, *, change: bool = False) -> Study:
        """Return the study, if the viewer may see it, or change it."""
        with self.open_store().begin() as tx:
            try:
                found = studies.get_study(tx, name)
            except NotFoundError:
                found = None
        if found is None or not viewer.sees(found.name, found.tenant):
            raise no_study(name)
        if change and not viewer.changes(found.name, found.tenant):
            raise HTTPException(status_code=403, detail=f"you may look at {name!r}, not change it; its tenant may")
        return found

    def _needs(self, viewer: Viewer) -> int | None:
        """How many things wait for this person; None where that cannot be said."""
        if not viewer.name:
            return None
        try:
            return self.needs_of(self.open_store(), viewer)
        except EasemlError:
            return None  # the page itself says what is away

    def _queue(self, viewer: Viewer) -> Queue:
        """The state of the referees' queue; empty where it cannot be read."""
        if not viewer.name:
            return NO_QUEUE
        try:
            return self.one(_KeptQueue, lambda: _KeptQueue(lambda: self.queue_of(self.open_store())))()
        except EasemlError:
            return NO_QUEUE  # the page itself says what is away

    def _requests(self, study: Study) -> Sequence[str]:
        """Describe the requests of the study that wait, each with its place in the queue."""
        try:
            return waiting_texts(self.open_store(), study.id)
        except EasemlError:
            return ()  # the page itself says what is away


class _KeptQueue(KeptLook[Queue]):
    """Keeps the state of the queue, so that a page of a study that waits for nothing takes no statement more."""


def no_study(name: str) -> HTTPException:
    """Return the answer where there is no such study, or the viewer may not even know of it: the same in both cases."""
    return HTTPException(status_code=404, detail=f"there is no study {name!r} that you may see")


def base_of(request: Request) -> str:
    """Where this application lies, Airflow's own base path included, without a slash at the end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def path_of(request: Request) -> str:
    """What was asked for below ``base_of``, beginning with a slash."""
    return request.url.path.removeprefix(base_of(request)) or "/"


def moved(request: Request, path: str) -> RedirectResponse:
    """After a change that worked: the page to look at, below ``base_of``; loading it again changes nothing twice."""
    return RedirectResponse(f"{base_of(request)}{path}", status_code=303, headers={"Cache-Control": "no-store"})


def path_of_study(study: str) -> str:
    """The study's page, below ``base_of``."""
    return f"/studies/{quote(study, safe='')}"


def _handle(study: Study) -> str:
    """Return what means this study in an address: another one may have the name of an archived study."""
    return f"{study.name}@{study.id}" if study.state is StudyState.ARCHIVED else study.name


def desk_path(study: str) -> str:
    """The study's labelling desk, below ``base_of``."""
    return f"/labels/{quote(study, safe='')}"


def error_page(site: Site, request: Request, status: int, message: str) -> HTMLResponse:
    """Return the error page: what happened, what still holds, what to do; in the frame of a user without rights."""
    may_again = request.method == "GET" and status in (401, 409, 429, 503)
    facts = {"message": message, "asked": status, "may_again": may_again}
    return site.page(request, Viewer(""), "error.html", status=status, **facts)


@cache
def templates() -> Environment:
    """The templates; every text in them is escaped, and an undefined name is an error."""
    packages = sorted(page for page in (HERE / "pages").iterdir() if page.is_dir())
    made = Environment(
        loader=FileSystemLoader([HERE / "templates", *packages]),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= formats.FILTERS
    made.globals["bounds"] = limits
    return made
