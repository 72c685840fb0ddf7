"""Runs commands in this process, in an empty folder, against the test's database or none."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

import click
import pytest
from click.testing import CliRunner

from easeml_core.formats.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


ROOT = Path(__file__).resolve().parents[2]
TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00| UTC)?"


@dataclass
class Answer:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status in (0, 1), self.err
        return json.loads(self.out)

    @property
    def text(self) -> str:
        """What a person reads, without line breaks of tables."""
        assert self.status == 0, self.err
        return " ".join(self.out.split())

    @property
    def refusal(self) -> str:
        """The class of the error with which a command with ``--json`` ended, without an answer."""
        assert (self.status, self.out) == (2, ""), self.err
        return str(json.loads(self.err.splitlines()[-1])["kind"])

    def recorded(self, status: int = 0) -> str:
        """What a person reads of a command that ended so, whatever the time, as texts beside the tests keep it."""
        assert self.status == status, self.err
        shown = re.sub(f"(?<=│ ){TIME}", lambda found: "<time>".ljust(len(found[0])), self.out)  # columns stay in line
        return re.sub(" +$", "", re.sub(TIME, "<time>", shown), flags=re.MULTILINE)


@pytest.fixture(autouse=True)
def hearing() -> Iterator[None]:
    """A command that was interrupted hears no second Ctrl-C, but the tests' own process goes on."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: Any) -> Path:
    """A folder without an installation, and no address in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EASEML_DATABASE_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture(scope="session")
def answer_kinds() -> dict[str, Any]:
    """The class of each command's answer, as the reference has its schema."""
    spec = importlib.util.spec_from_file_location("answers", ROOT / "scripts" / "reference_pages" / "answers.py")
    assert spec is not None
    assert spec.loader is not None
    answers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(answers)
    return {name: answers.kind_of(text) for name, text in answers.TYPED.items()}


@pytest.fixture(autouse=True)
def declared(answer_kinds: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command prints with ``--json`` is of the class that the reference names."""
    from easeml_core.cli import output

    def checked(value: Any) -> Any:
        name = " ".join(("easeml", *click.get_current_context().command_path.split()[1:]))
        if (kind := answer_kinds.get(name)) is not None:
            entries, kind = (value, kind.__args__[0]) if get_origin(kind) is list else ([value], kind)
            names = set(getattr(kind, "__dataclass_fields__", ()))  # a mapping has the fields, and may have more
            assert all(
                (bool(names) and names <= {*entry}) if isinstance(entry, dict) else isinstance(entry, kind)
                for entry in entries
            ), name
        return to_json(value)

    monkeypatch.setattr(output, "to_json", checked)


@pytest.fixture
def breaks() -> None:
    """This test breaks a command on purpose."""


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Callable[..., Answer]:
    """Run a command; a fault of ours has the exit status of a refusal, and fails a test that does not expect it."""
    from easeml_core.cli.app import cli

    def invoke(*arguments: str, **environment: str) -> Answer:
        result = CliRunner().invoke(cli, arguments, env=environment, catch_exceptions=False)
        assert "breaks" in request.fixturenames or "a fault of easeml" not in result.stderr, result.stderr
        return Answer(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture
def ask(run: Any, database: Any) -> Callable[..., Answer]:
    """Run a command on the test's database, as the worker."""
    return lambda *arguments: run(*arguments, "--database", database.url("easeml_worker"))


@pytest.fixture
def referee(database: Any, artifacts: Any) -> Iterator[None]:
    """A referee at work, in a thread."""
    from easeml_core.services.referee.process import Referee

    stop = threading.Event()
    worker = threading.Thread(target=Referee(database.referee, artifacts, poll_seconds=0.5).run, args=(stop,))
    worker.start()
    yield
    stop.set()
    worker.join(timeout=60)
    assert not worker.is_alive()
