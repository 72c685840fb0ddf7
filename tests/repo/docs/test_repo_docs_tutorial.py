"""docs/tutorial.md: its commands are run one after the other, and say what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from doc_pages import Page

from easeml_core.cli.app import cli
from easeml_core.services.referee.process import Referee
from easeml_core.store.artifacts.local import ArtifactStore

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Page("tutorial.md")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE.text, re.DOTALL) for line in block.splitlines()]
SHOWN = [line for block in re.findall(r"```text\n(.*?)```", PAGE.text, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
def clone(database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like that of a clone whose stack runs: a database, a referee at work, tables of tenants."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".easeml" / "data").mkdir(parents=True)
    artifacts = ArtifactStore(tmp_path / ".easeml" / "artifacts")
    stop = threading.Event()
    referee = Referee(database.referee, artifacts, data=tmp_path / ".easeml" / "data", poll_seconds=0.5)
    worker = threading.Thread(target=referee.run, args=(stop,))
    worker.start()
    signals = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    for name, handler in signals.items():  # `easeml device run` takes them for itself
        signal.signal(name, handler)
    stop.set()
    worker.join(timeout=60)
    assert not worker.is_alive()


def run(command: str, url: str) -> str:
    """Run one line, a command of ours in this process and all others as a shell does; what it prints."""
    if not command.startswith("easeml "):
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=True).stdout
    done = CliRunner().invoke(cli, shlex.split(command)[1:], env={"EASEML_DATABASE_URL": url, "COLUMNS": "160"})
    allowed = (0, 1) if command == "easeml doctor" else (0,)  # it misses the Airflow that `make up` has started
    assert done.exit_code in allowed, f"{command}\n{done.output}"
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
        printed += run(command, database.url("easeml_worker"))
    for line in SHOWN:
        assert re.sub(r"\d+`$", "", line) in printed
    assert "is in production for study churn" in printed
    assert "11 candidates have not run" in printed  # of fourteen, three have
    assert "fourteen kinds of model" in PAGE.text
    assert "eleven candidates have not run" in PAGE.text
