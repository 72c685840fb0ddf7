"""docs/tutorial.md: its commands are run one after the other, and say what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from doc_pages import Page

from easeml_core.services.referee.process import Referee
from easeml_core.store.artifacts.local import ArtifactStore

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Page("tutorial.md")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE.text, re.DOTALL) for line in block.splitlines()]
SHOWN = [line for block in re.findall(r"```text\n(.*?)```", PAGE.text, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
def clone(database: Any, tmp_path: Path) -> Iterator[Path]:
    """A folder like that of a clone whose stack runs: a database, a referee at work, tables of tenants."""
    (tmp_path / ".easeml" / "data").mkdir(parents=True)
    artifacts = ArtifactStore(tmp_path / ".easeml" / "artifacts")
    stop = threading.Event()
    referee = Referee(database.referee, artifacts, data=tmp_path / ".easeml" / "data", poll_seconds=0.5)
    worker = threading.Thread(target=referee.run, args=(stop,))
    worker.start()
    yield tmp_path
    stop.set()
    worker.join(timeout=60)
    assert not worker.is_alive()


def run(command: str, folder: Path, url: str) -> str:
    """Run one line as a shell does; what it prints."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "EASEML_DATABASE_URL": url,
        "COLUMNS": "160",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    allowed = (0, 1) if command == "easeml doctor" else (0,)  # it misses the Airflow that `make up` has started
    assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.journey
def test_from_nothing_to_a_model_in_production(database: Any, clone: Path) -> None:
    promote = next(line for line in SHOWN if line.startswith("promote it with"))
    named = re.search(r"easeml model promote churn \d+", promote)
    assert named is not None
    assert named[0] in COMMANDS
    printed = ""
    for command in COMMANDS:
        if command == named[0]:  # the numbers of models follow from the order of trials, which is not promised
            found = re.search(r"easeml model promote churn \d+", printed)
            assert found is not None
            command = found[0]
        printed += run(command, clone, database.url("easeml_worker"))
    for line in SHOWN:
        assert re.sub(r"\d+`$", "", line) in printed
    assert "is in production for study churn" in printed
    assert "11 candidates have not run" in printed  # of fourteen, three have
    assert "fourteen kinds of model" in PAGE.text
    assert "eleven candidates have not run" in PAGE.text
