"""Fixtures that every room may use: a real embedded PostgreSQL, a database as good as new, factories for studies.

The server starts once a test process, on memory where there is room. Databases are copies of a migrated template;
tests use them one after another (``tests/suite/databases.py``).
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import re
import shutil
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import databases as kept_databases
import property_sizes
import pytest
from any_tenant import AnyTenant

from easeml_core.store.database import Store
from easeml_core.store.server.server import MAINTENANCE_DATABASE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.server.server import Server

pytest_plugins = ["forked", "nightly_list", "prepared_server", "rewritten", "times", "warm_children"]
property_sizes.register()
kept_databases.install()

for name in [n for n in os.environ if n.startswith(("EASEML", "AIRFLOW__EASEML"))]:
    del os.environ[name]

# Airflow reads where it lives when it is first imported, and any test module may do that, whatever folder comes first.
HOME = Path(tempfile.mkdtemp(prefix="easeml-airflow-test-"))
for folder in ("dags", "plugins"):
    (HOME / folder).mkdir()

for variable in [name for name in os.environ if name.startswith(("AIRFLOW", "EASEML"))]:
    if variable != "EASEML_DATABASE_URL":
        del os.environ[variable]

os.environ.update(
    {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),  # empty: dag.test() reads the bundle on every call
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__API_AUTH__JWT_SECRET": "x" * 64,
        "AIRFLOW__API__SECRET_KEY": "y" * 32,
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ada:admin,olga:op,uma:user,vic:viewer",
        "AIRFLOW__EASEML__ANSWER_WAIT_SECONDS": "0",  # most tests of a deferral have no referee at work
    }
)


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(HOME, ignore_errors=True)


ROOT = Path(__file__).resolve().parents[1]
PAGES = "tests/browser/"
SHARING = (PAGES, "tests/stack/parts/", "tests/stack/stories/", "tests/services/operations/mirror/")
"""Folders whose tests share a server that takes long to start."""

LONG = (
    PAGES, "tests/services/observable/", *SHARING, "tests/stack/", "tests/plugin/", "tests/core/sandbox/",
    "tests/core/training/", "tests/store/server/", "tests/cli/operations/", "tests/services/", "tests/core/models/",
)  # fmt: skip
"""Folders whose files take longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: begun last, they would keep one process busy while the others have nothing left."""
    items.sort(key=lambda item: next((n for n, folder in enumerate(LONG) if item.nodeid.startswith(folder)), len(LONG)))


LAZY = ("torch._dynamo", "matplotlib.backends.backend_agg", "matplotlib.figure")
"""What libraries import at a first use: before a fork, so that one process does it for all."""


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, Any, Any]:
    """A million objects of the collection stay to the end: none is garbage, and no later look for garbage sees them."""
    gc.disable()
    result = yield
    if session.config.option.processes > 1 and not session.config.option.collectonly:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for module in LAZY:
                importlib.import_module(module)
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # looks for garbage took a twentieth of the processor time
    gc.enable()
    return result


AIRFLOW = re.compile(r"\b(airflow_db|airflow_app|run_dag)\b")
"""What a file names whose tests need Airflow's own database and server (``tests/plugin/conftest.py``)."""


@functools.cache
def group_of(file: str) -> str:
    """What one process runs: a file; a folder whose tests share a server; and all tests that run DAGs: Airflow's server
    takes each process five seconds to import and make.
    """
    for folder in SHARING:
        if file.startswith(folder):
            return folder
    return "airflow" if AIRFLOW.search((ROOT / file).read_text(encoding="utf-8")) else file


def pytest_group_of(item: pytest.Item) -> str:
    return group_of(item.nodeid.partition("::")[0])


def pytest_queue_of(item: pytest.Item) -> str:
    """Journeys wait for servers, and the other tests compute meanwhile, where one run has both (``make test-all``)."""
    return "journeys" if item.get_closest_marker("journey") else "tests"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The same groups where coverage is measured, which forks do not support (``scripts/measuring/test_map.py``)."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByNeeds(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return group_of(str(super()._split_scope(nodeid)))

    return ByNeeds(config, log)


@dataclass
class Database:
    """One test's database, as each role sees it."""

    server: Server
    name: str
    owner: Store
    worker: Store
    referee: Store

    def url(self, role: str) -> str:
        return self.server.url(role, self.name)


@pytest.fixture
def recorded(file_regression: Any, request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``recorded(text, "name")`` fails unless a text that people read is that of ``texts/name.txt`` beside the test.

    ``pytest FILE --regen-all`` records the texts of a file anew; the difference is read before it is committed.
    """

    def check(text: str, name: str) -> None:
        file_regression.check(text, fullpath=request.path.parent / "texts" / f"{name}.txt", encoding="utf-8")

    return check


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where the browser is; without one a person's tests are skipped, and those of CI fail.

    The build that has no windows takes half the processor time: it draws none of its own pages.
    """
    found = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if found is None:
        told = "there is no chromium on this machine; `make browser` installs it"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    return found


@contextmanager
def one_administrator(server: Server) -> Iterator[None]:
    """Let all databases be made and dropped over one connection: to connect costs as much as half of a drop."""
    kept = server.connect()
    connecting = server._administering

    @contextmanager
    def administering(database: str = MAINTENANCE_DATABASE) -> Iterator[Any]:
        if database != MAINTENANCE_DATABASE or os.getpid() != owner:
            with connecting(database) as cursor:
                yield cursor
        else:
            with kept.cursor() as cursor:
                yield cursor

    owner = os.getpid()
    server._administering = administering  # type: ignore[method-assign]  # one connection for all
    yield
    kept.close()


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running server with roles and a migrated ``easeml`` database to copy from."""
    from prepared_server import installed_server  # a plugin, which is not to be imported before pytest does so

    with installed_server(request.config) as running, one_administrator(running):
        yield running


@pytest.fixture(scope="session")
def all_databases(server: Server) -> kept_databases.Databases:
    """The databases of this process, which tests use one after another."""
    return kept_databases.Databases(server)


@pytest.fixture
def databases(all_databases: kept_databases.Databases, request: pytest.FixtureRequest) -> kept_databases.Databases:
    """Where a test takes databases from: copies of a template, as good as new; those of a journey are new."""
    all_databases.is_own = any(request.node.get_closest_marker(mark) for mark in ("own_database", "journey"))
    return all_databases


@pytest.fixture
def database(server: Server, databases: kept_databases.Databases) -> Iterator[Database]:
    """A database with the current schema, in which nothing is."""
    name = databases.take("easeml")
    stores = {role: Store(server.url(f"easeml_{role}", name)) for role in ("owner", "worker", "referee")}
    yield Database(server, name, **stores)
    for store in stores.values():
        store.close()
    databases.give_back(name)


@pytest.fixture
def store(database: Database) -> Store:
    """The database as Airflow's tasks see it."""
    return database.worker


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    """An empty artifact store."""
    return AnyTenant(tmp_path / "artifacts")


SMALL = {
    "gate": {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 3},
    "meter": {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4},
}


@pytest.fixture
def make_study(database: Database, artifacts: ArtifactStore) -> Callable[..., str]:
    """Register a study on real data and let the referee seal it; its name. Name only what matters."""
    from registering import register_study

    from easeml_core.services.referee.process import Referee
    from easeml_core.services.referee.requests import answer_of

    def make(study: str = "cancer", **changes: Any) -> str:
        settings = {"tenant": "lab", "source": "sklearn:breast_cancer", "request_key": f"register/{study}"} | SMALL
        filed = register_study(database.worker, study=study, **settings | changes)
        referee = Referee(database.referee, artifacts)
        while answer_of(database.worker, filed.request_id) is None:
            if referee.answer_one() is None:
                time.sleep(0.02)  # another referee, at work in this test, has it
        return study

    return make
