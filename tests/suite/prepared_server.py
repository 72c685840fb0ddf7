"""The database server of the tests is made once, while tests are collected; each process starts a copy of its files.

To make a cluster, its roles and its schema takes seven seconds of processor time. With ``pytest --processes`` a child
does so on the second processor during the collection, which uses one; elsewhere the server is made where it is needed.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reaper import reaper

from easeml_core.store import schema
from easeml_core.store.database import Store
from easeml_core.store.server.place import place_of
from easeml_core.store.server.server import FAST_SETTINGS, Server, throwaway_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "5eed5eed-5eed-4eed-8eed-5eed5eed5e16"
"""The secret of the tests' installations, from which it follows which rows are sealed, and which are like others."""

HOME = "home"
SETTINGS = {**FAST_SETTINGS, "autovacuum": "off"}
"""No plan depends on when a vacuum came by."""

_prepared = pytest.StashKey[Path]()


class Preparation:
    """The child that makes the server, and the folder in which it does."""

    def __init__(self, config: pytest.Config) -> None:
        self._config, self._held = config, ExitStack()
        self._child: subprocess.Popen[bytes] | None = None

    def pytest_sessionstart(self) -> None:
        folder = self._held.enter_context(throwaway_folder())
        reaper().removes(folder)
        self._config.stash[_prepared] = folder / HOME
        self._child = subprocess.Popen((sys.executable, __file__, folder / HOME))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        assert self._child is not None  # the session has started
        if not any("server" in getattr(item, "fixturenames", ()) for item in session.items):
            self._child.kill()
            self._child.wait()
        elif self._child.wait():
            raise pytest.UsageError("the database server of the tests cannot be made, for the reason above")

    def pytest_unconfigure(self) -> None:
        if self._child is not None and self._child.poll() is None:  # the collection failed
            self._child.kill()
            self._child.wait()
        self._held.close()


def pytest_configure(config: pytest.Config) -> None:
    if config.option.processes > 1 and not config.option.collectonly:
        config.pluginmanager.register(Preparation(config), "prepared server")


@contextmanager
def installed_server(config: pytest.Config) -> Iterator[Server]:
    """Start a server that has the roles, and the schema in ``easeml``, as only the tests of this process use it."""
    prepared = config.stash.get(_prepared, None)
    with throwaway_folder() as folder:
        reaper().removes(folder)
        home = folder / HOME
        if prepared is None or place_of(prepared) != prepared:  # its data lie elsewhere: one copy, no more
            make(home)
        else:
            subprocess.run(("cp", "--archive", prepared, home), check=True)  # with its owners, whom shutil leaves out
        with Server(home, **SETTINGS).owned() as running:
            yield running


def make(home: Path) -> None:
    """Make a server's files, with the present schema and the secret of the tests; it does not run then."""
    with Server(home, **SETTINGS).owned() as running:
        running.ensure_installation()
        owner = Store(running.url("easeml_owner", "easeml"))
        schema.upgrade(owner)
        owner.close()
        with closing(running.connect(database="easeml")) as opened, opened.cursor() as cursor:
            cursor.execute("UPDATE sealed.installation SET secret = %s", [SECRET])
            opened.commit()
    (home / "port").unlink()  # each copy has a port of its own


if __name__ == "__main__":
    make(Path(sys.argv[1]))
