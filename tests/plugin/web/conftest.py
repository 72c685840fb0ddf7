"""A browser's questions to the pages, in this process, as whoever: on a real database, without Airflow's server."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from page_client import Client

from easeml_airflow.web import app as web
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from fastapi import FastAPI


@pytest.fixture(autouse=True)
def time_to_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of the gate leaves sizes for the next look that take long; here the machine may be full."""
    monkeypatch.setattr("easeml_airflow.web.pages.gate.sizes.BUDGET_SECONDS", 600.0)


def no_login() -> None:
    """Let everybody pass."""


asked_site: ContextVar[Site] = ContextVar("asked_site")


class SharedSite(Site):
    """The site of an application that all tests share: a request brings its own, with the state that belongs to it."""

    @property
    def service(self) -> Any:
        return asked_site.get().service

    def one(self, kind: type[Any], make: Any = None) -> Any:
        return asked_site.get().one(kind, make)


class SiteClient(Client):
    """Asks the application that all tests share about one site."""

    def __init__(self, app: Any, site: Site) -> None:
        super().__init__(app)
        self.site = site

    def request(self, method: str, path: str, **asked: Any) -> httpx.Response:
        before = asked_site.set(self.site)
        try:
            return super().request(method, path, **asked)
        finally:
            asked_site.reset(before)


def away() -> Any:
    raise StoreUnavailableError("this server was not given the referee's address")


@pytest.fixture(scope="session")
def shared_app() -> FastAPI:
    """The application that all tests without a login of their own share: it takes a third of a second to make."""
    site = SharedSite(
        lambda: asked_site.get().open_store(),
        lambda: asked_site.get().open_artifacts(),
        lambda: asked_site.get().open_sealed(),
        lambda: asked_site.get().viewer(),
        lambda store, viewer: asked_site.get().needs_of(store, viewer),
        lambda store: asked_site.get().queue_of(store),
    )
    return web.create_app(site, require_login=no_login)


@pytest.fixture
def client_of(shared_app: FastAPI) -> Callable[..., Client]:
    """A client of an application with this site."""

    def make(site: Site, *, require_login: Callable[..., Any] = no_login) -> Client:
        if require_login is no_login:
            return SiteClient(shared_app, site)
        return Client(web.create_app(site, require_login=require_login))

    return make


@pytest.fixture
def ask_as(database: Any, artifacts: Any, client_of: Callable[..., Client]) -> Callable[..., Client]:
    """``ask_as("ada", "operator")``: a client on this test's database as somebody with these roles.

    ``rights(study, tenant, write=...)`` says what they may do with a study; by default all. The referee's store is
    there for referees only, as it would be for a server that holds no address otherwise.
    """

    def make(name: str, *roles: str, rights: Any = lambda _study, _tenant, *, write: True) -> Client:
        viewer = Viewer(name, frozenset(Role(role) for role in roles), rights)
        sealed = (lambda: database.referee) if viewer.is_labeler else away
        return client_of(Site(lambda: database.worker, lambda: artifacts, sealed, lambda: viewer))

    return make
