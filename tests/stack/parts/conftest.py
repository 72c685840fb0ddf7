"""One stack with small DAGs, whose parts are looked at, killed and stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from demo_night.runs import await_dag
from rich.console import Console
from small_dags import DAGS
from stack.launcher import Stack
from stack.places import Places
from stack.progress import Progress

from easeml_core.store.server.server import Server, throwaway_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def small_places() -> Iterator[Places]:
    """Where the stack of small DAGs has its state and its DAGs."""
    with throwaway_folder() as folder:
        dags = folder / "dags"
        dags.mkdir()
        for name, text in DAGS.items():
            (dags / name).write_text(text)
        places = Places.of(folder / "home-of-all", dags)
        yield places
        Server(places.database).stop()


@pytest.fixture(scope="session")
def small_stack(small_places: Places) -> Iterator[Stack]:
    """Tests of this folder, in one process and in the order of their files, kill its parts and stop it."""
    with Stack(small_places, Progress(Console(quiet=True)), with_scheduler=True) as running:
        yield running


@pytest.fixture(scope="session")
def tiny_run(small_stack: Stack) -> str:
    """A finished run of the DAG ``tiny`` with three numbers."""
    rest = small_stack.access.rest()
    await_dag(rest, "tiny", small_stack.check)
    rest.pause("tiny", False)
    run_id = rest.trigger("tiny", {"n": 3})
    assert list(rest.wait("tiny", run_id))[-1] == "success"
    return run_id
