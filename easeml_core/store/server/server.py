"""The embedded PostgreSQL server: a real server whose programs come in a wheel, started by its owner.

It listens on loopback only, on a free port, without a Unix socket, and requires a generated password.
``Server.owned`` is for the launcher, which starts it and stops it; all other processes connect by ``Server.url``. The
parts lie beside: ``place.py`` (where, locks and secrets, who runs it, the wheel), ``cluster.py`` (data directory and
process), ``roles.py`` (who may what).

``throwaway_server`` starts one for tests and trials: fast, in memory where there is room, gone at the end of a block.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import psycopg2
from psycopg2 import errors as postgres_errors

from easeml_core.errors import AlreadyExistsError, NotFoundError, StateError, StoreUnavailableError
from easeml_core.files.local import write_durably
from easeml_core.store import roles
from easeml_core.store.server.cluster import (
    LOOPBACK,
    START_SECONDS,
    SUPERUSER,
    Cluster,
    Postmaster,
    checked_settings,
    find_postmaster,
    free_port,
)
from easeml_core.store.server.place import (
    DATA,
    SecretFile,
    checked_home,
    default_home,
    find_programs,
    locked,
    make_home,
    new_password,
    owner_lock,
    place_of,
    server_account,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor


__all__ = ["Server", "default_home"]

MAINTENANCE_DATABASE = "postgres"
LAUNCH_ATTEMPTS = 5
PAUSE_SECONDS = 0.5
LOOK_SECONDS = 0.05
CONNECT_SECONDS = 5
START_LOCK = "start.lock"
_OWNER_LOCK, _PORT, _SECRETS = "owner.lock", "port", "secrets.json"


class Server:
    """The embedded server of one home; making the object touches nothing.

    Any number of objects and processes may use one home: they all mean the same server.

    Args:
        home: Folder for everything the server keeps; made at the first start.
        settings: Settings of ``postgresql.conf``; those of the process that starts the server apply.

    Raises:
        InvalidInputError: If the path or a setting is not allowed.
    """

    def __init__(self, home: Path | str, **settings: str | int) -> None:
        self.home = checked_home(home)
        self._settings = checked_settings(settings)
        self._secrets = SecretFile(self.home / _SECRETS)

    @property
    def place(self) -> Path:
        """The folder of data and programs: the home, unless the server's account cannot reach it."""
        return place_of(self.home)

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.place / DATA

    @property
    def port(self) -> int:
        """The port it listens on, or listened on when it last ran."""
        try:
            return int((self.home / _PORT).read_text())
        except FileNotFoundError:
            message = f"the embedded server of {self.home} was never started; run `easeml db start`"
            raise StateError(message) from None
        except (OSError, ValueError) as error:
            message = f"{self.home / _PORT} cannot be read: {error}"
            raise StateError(message) from error

    @property
    def secrets(self) -> Mapping[str, str]:
        """All generated secrets by name: a password per role, and whatever ``secret`` was asked for."""
        return self._secrets.read()

    def secret(self, name: str, make: Callable[[], str] = new_password) -> str:
        """A generated secret that stays the same from start to start, e.g. Airflow's fernet key."""
        make_home(self.home)
        return self._secrets.get_or_make(name, make)

    def url(self, role: str, database: str) -> str:
        """The address by which a role reaches a database, password included: never log it."""
        # Nothing to quote: generated passwords are of letters, digits, "-" and "_".
        port, password = self.port, self._secrets[role]
        return f"postgresql+psycopg2://{role}:{password}@{LOOPBACK}:{port}/{database}"

    def connect(self, role: str = SUPERUSER, database: str = MAINTENANCE_DATABASE) -> Connection:
        """A connection outside transactions (autocommit), for administration; the caller closes it."""
        port, password = self.port, self._secrets[role]
        try:
            connection = psycopg2.connect(
                host=LOOPBACK,
                port=port,
                user=role,
                password=password,
                dbname=database,
                connect_timeout=CONNECT_SECONDS,
                sslmode="disable",  # the wheel is built without; a PGSSLMODE of the caller must not ask for it
                gssencmode="disable",
            )
        except psycopg2.OperationalError as error:
            message = f"no connection to {database!r} as {role!r} at {LOOPBACK}:{port}: {str(error).strip()}"
            raise StoreUnavailableError(message) from error
        connection.autocommit = True
        return connection

    def alive(self) -> bool:
        """Whether this home's server answers; another one on the same port does not count."""
        try:
            if find_postmaster(self.data) is None:  # another program may have the port by now
                return False
            self.connect().close()
        except (StateError, StoreUnavailableError, PermissionError):
            return False
        return True

    def start(self) -> Self:
        """Start the server, or adopt the one that runs already; returns when it answers.

        The next start repairs what a killed start left at any point. Simultaneous starts give one server.
        """
        make_home(self.home)
        with locked(self.home / START_LOCK):
            if not self.alive():
                self._bring_up()
        return self

    def stop(self) -> None:
        """Stop the server if it runs, whichever process started it."""
        if not self.home.exists():
            return
        make_home(self.home)  # is there; but is it ours?
        with locked(self.home / START_LOCK):
            if find_postmaster(self.data) is not None:
                self._cluster().halt()

    @contextmanager
    def owned(self) -> Iterator[Self]:
        """Start the server, keep it for the length of a block, then stop it: what a launcher does.

        A server left by a killed owner is adopted. The lock ends with the process, however that ends.
        """
        make_home(self.home)
        with owner_lock(self.home / _OWNER_LOCK, f"the embedded server of {self.home}"):
            try:
                yield self.start()
            finally:
                self.stop()

    def ensure_installation(self) -> None:
        """Make roles, databases and schemas as ``roles.py`` says, where they are missing; safe to call at any time."""
        with self._administering() as cursor, roles.installing(cursor):
            roles.ensure_roles(cursor, self.secret)
            roles.ensure_databases(cursor)
            with self._administering(roles.EASEML_DATABASE) as inside:
                roles.ensure_schemas(inside)

    def create_database_from_template(self, name: str, template: str) -> None:
        """Copy a database, with the owner and the doors of ``easeml``: a fresh one for each test."""
        with self._administering() as cursor:
            try:
                roles.copy_database(cursor, name, template)
            except postgres_errors.DuplicateDatabase as error:
                raise AlreadyExistsError(kind="database", name=name) from error
            except postgres_errors.InvalidCatalogName as error:
                raise NotFoundError(kind="database", name=template) from error
            except postgres_errors.ObjectInUse as error:
                message = f"database {template!r} cannot be copied while connections to it are open; close them first"
                raise StateError(message) from error

    def drop_database(self, name: str) -> None:
        """Drop a database if it is there, and close the connections to it."""
        with self._administering() as cursor:
            roles.drop_database(cursor, name)

    def _cluster(self) -> Cluster:
        """The data directory with all that is needed to run it; the caller holds the start lock."""
        account = server_account(self.data)
        place = settle(self.home, account)
        return Cluster(place, account, find_programs(account, place))

    def _bring_up(self) -> None:
        """Make the data if there are none, and launch until the server answers."""
        cluster = self._cluster()
        if not cluster.data.exists():
            cluster.create(self.secret(SUPERUSER), sync=self._settings.get("fsync") != "off")
        if SUPERUSER not in self.secrets:
            message = f"{self.home / _SECRETS} lacks the password of the data in {cluster.data}; restore it from a copy"
            raise StateError(message)
        cluster.check_version()
        for _ in range(LAUNCH_ATTEMPTS):
            if self._launch(cluster) and self._becomes_alive():
                return
            time.sleep(PAUSE_SECONDS)  # another took the port, or orphans of a killed server still hold the data
        message = f"the embedded server of {self.home} does not start: {cluster.last_words()}"
        raise StateError(message)

    def _launch(self, cluster: Cluster) -> Postmaster | None:
        """The running postmaster, launched if there is none yet; its port is remembered."""
        if find_postmaster(cluster.data) is None:
            cluster.launch(self._choose_port(), self._settings)
        postmaster = find_postmaster(cluster.data)
        if postmaster is not None:
            write_durably(self.home / _PORT, f"{postmaster.port}\n")
        return postmaster

    def _choose_port(self) -> int:
        """The remembered port if it is still free, so that addresses stay valid; any free one otherwise."""
        with contextlib.suppress(StateError):
            if remembered := free_port(self.port):
                return remembered
        port = free_port()
        if port is None:
            message = f"no port is free on {LOOPBACK}"
            raise StateError(message)
        return port

    def _becomes_alive(self) -> bool:
        """Wait while the server starts or recovers from a crash; false as soon as it is gone."""
        deadline = time.monotonic() + START_SECONDS
        while not self.alive():
            if find_postmaster(self.data) is None or time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    @contextmanager
    def _administering(self, database: str = MAINTENANCE_DATABASE) -> Iterator[Cursor]:
        """A superuser's cursor outside transactions."""
        with closing(self.connect(database=database)) as connection, connection.cursor() as cursor:
            yield cursor


# Such a server may lose everything with the machine, so it need not wait for a disk. Its passwords are random and die
# with it, so that one iteration of their hash suffices: a log-in takes 2 ms in place of 19 ms.
FAST_SETTINGS: Mapping[str, str | int] = MappingProxyType(
    {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "scram_iterations": 1}
)
PREFIX = "easeml-throwaway-"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it are made by mkdtemp
ROOMY_BYTES = 1 << 30  # containers often have 64 MB, in which one cluster hardly fits
YOUNG_SECONDS = 60
_LOCK = "in-use.lock"


@contextmanager
def throwaway_server(**settings: str | int) -> Iterator[Server]:
    """Start a separate server, with nothing installed in it."""
    with throwaway_folder() as folder, Server(folder / "home", **{**FAST_SETTINGS, **settings}).owned() as server:
        yield server


@contextmanager
def throwaway_folder() -> Iterator[Path]:
    """A folder for one home or more, reachable for the server's account.

    At the end the servers of all our homes in it are stopped, and all is removed. What killed processes could not
    remove is swept away here too.
    """
    parent = SHARED_MEMORY if _is_roomy(SHARED_MEMORY) else Path(tempfile.gettempdir())
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    folder.chmod(0o711)
    with owner_lock(folder / _LOCK, f"the throw-away folder {folder}"):
        try:
            yield folder
        finally:
            _remove(folder)


def sweep_throwaways() -> None:
    """Stop the servers and remove the folders that killed processes of this account left, wherever they may lie."""
    for parent in {SHARED_MEMORY, Path(tempfile.gettempdir())}:
        if parent.is_dir():
            _sweep(parent)


def _is_roomy(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOMY_BYTES


def _sweep(parent: Path) -> None:
    """Remove the folders of dead processes; a young one may be about to be locked."""
    for folder in parent.glob(f"{PREFIX}*"):
        # Another sweeper was faster, it is in use, or its server does not stop.
        with contextlib.suppress(FileNotFoundError, StateError):
            about = folder.stat()
            if about.st_uid == os.geteuid() and time.time() - about.st_mtime > YOUNG_SECONDS:
                with owner_lock(folder / _LOCK, f"the throw-away folder {folder}"):
                    _remove(folder)


def _remove(folder: Path) -> None:
    homes = [lock.parent for lock in folder.rglob(START_LOCK) if lock.stat().st_uid == os.geteuid()]
    for server in map(Server, homes):
        server.stop()
        shutil.rmtree(server.place, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
