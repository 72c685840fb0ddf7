"""Homes of servers: new ones, and copies of one whose data are made, since initdb takes half a second."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from easeml_core.store.server.cluster import Cluster
from easeml_core.store.server.place import SecretFile
from easeml_core.store.server.server import FAST_SETTINGS, Server, throwaway_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def copy_home() -> Iterator[Callable[[Path], Path]]:
    """Makes a home whose server has run and was stopped: data, password and port are there."""
    with throwaway_folder() as folder:
        made = folder / "home"
        with Server(made, **FAST_SETTINGS).owned():
            pass
        yield lambda to: _copied(made, to)


def _copied(made: Path, to: Path) -> Path:
    subprocess.run(["cp", "-a", str(made), str(to)], check=True)  # with the owners of the files
    return to


@pytest.fixture
def ready_data(copy_home: Callable[[Path], Path], new_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers make their data by a copy, in place of initdb; every new password is that of the copy."""
    made = copy_home(new_home.with_name("made"))
    password, secret = SecretFile(made / "secrets.json")["postgres"], Server.secret
    monkeypatch.setattr(Server, "secret", lambda server, name: secret(server, name, lambda: password))
    monkeypatch.setattr(Cluster, "create", lambda cluster, *_, **__: _copied(made / "data", cluster.data))


@pytest.fixture
def new_home() -> Iterator[Path]:
    """Where no server has run; the folder is not there yet."""
    with throwaway_folder() as folder:
        yield folder / "home"


@pytest.fixture
def home(new_home: Path, copy_home: Callable[[Path], Path]) -> Path:
    """Where a server has run and was stopped."""
    return copy_home(new_home)
