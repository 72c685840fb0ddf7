"""One stack for several stories, since to start one takes 40 s of processor time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pushed_dags import Developer
from rich.console import Console
from stack.launcher import Stack
from stack.places import Places
from stack.progress import Progress

from easeml_core.store.server.server import Server, throwaway_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="session")
def developer() -> Iterator[Developer]:
    """Who pushes versions of a DAG that the shared stack follows."""
    with throwaway_folder() as folder:
        yield Developer(folder)


@pytest.fixture(scope="session")
def shared_stack(developer: Developer) -> Iterator[Stack]:
    """A whole stack with the DAGs of the five studies, of the gate, and of two git bundles.

    The tests of this folder run in one process, one file after the other; each has studies that no other one has. DAGs
    are paused until a test switches them on.
    """
    folder = developer.repository.parent
    dags = folder / "dags"
    shutil.copytree(EXAMPLES / "studies", dags)
    shutil.copy(ROOT / "dags" / "easeml_commit_gate.py", dags)
    places = Places.of(folder / "home-of-all", dags)
    options = ("--bundle", f"candidates={developer.repository}", "--poll", "1")
    quiet = Progress(Console(quiet=True))
    with Stack(places, quiet, bundles=developer.bundles(), referee_options=options) as running:
        yield running
    Server(places.database).stop()
