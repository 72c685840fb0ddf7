"""One stack, since to start one takes 30 s of processor time: a story is played; its parts are killed.

The tests of this folder run in one process and in the order of their files.
"""

from __future__ import annotations

import shutil
from pathlib import Path
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

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def small_places() -> Iterator[Places]:
    """Where the stack has its state and its DAGs: small ones, and those of continuous integration."""
    with throwaway_folder() as folder:
        dags = folder / "dags"
        dags.mkdir()
        for name, text in DAGS.items():
            (dags / name).write_text(text)
        for name in ("easeml_commit_gate", "easeml_forced_promotion"):
            shutil.copy(ROOT / "dags" / f"{name}.py", dags)
        recipe = ROOT / "docs" / "examples" / "cookbook" / "on_promotion.py"
        (dags / recipe.name).write_text(recipe.read_text().replace("flowers", "cancer"))
        places = Places.of(folder / "home-of-all", dags)
        yield places
        Server(places.database).stop()


@pytest.fixture(scope="session")
def small_stack(small_places: Places) -> Iterator[Stack]:
    """The running stack; DAGs are paused until a test switches them on."""
    quiet = Progress(Console(quiet=True))
    with Stack(small_places, quiet, with_scheduler=True, referee_options=("--poll", "1")) as running:
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
