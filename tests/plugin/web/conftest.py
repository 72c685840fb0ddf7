"""A browser's questions to the pages, in this process, as whoever: on a real database, without Airflow's server."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from page_client import Client

from easeml_airflow.web import app as web
from easeml_airflow.web.frame import Site
from easeml_airflow.web.people import Role, Viewer
from easeml_core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="session")
def text_of() -> Callable[[str], str]:
    """What a person reads of a page, without tags and with single spaces."""

    def text(html: str) -> str:
        reader = _Reader()
        reader.feed(html)
        return " ".join(" ".join(reader.words).split())

    return text


def no_login() -> None:
    """Let everybody pass."""


def away() -> Any:
    raise StoreUnavailableError("this server was not given the referee's address")


@pytest.fixture
def client_of() -> Callable[..., Client]:
    """A client of an application with this site."""

    def make(site: Site, *, require_login: Callable[..., Any] = no_login, **more: Any) -> Client:
        return Client(web.create_app(site, require_login=require_login, **more))

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
