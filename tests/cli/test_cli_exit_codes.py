"""0 done, 1 the answer is no, 2 an error: no command mixes these up, and nothing that fails looks like an answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import click
import pytest

from easeml_core.cli import app
from easeml_core.cli.app import cli
from easeml_core.entities import GivenAnswer, RequestKind, Symbol
from easeml_core.errors import StoreUnavailableError
from easeml_core.services.referee.answers import VerdictAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in sorted(group.commands.items()):
        yield from leaves(command, (*path, name)) if isinstance(command, click.Group) else [((*path, name), command)]


LEAVES = dict(leaves(cli))
NO_DATABASE = [path for path, command in LEAVES.items() if any(p.name == "database" for p in command.params)]


def filled(path: tuple[str, ...]) -> list[str]:
    """The command with something plausible for whatever it must have."""
    words = [*path]
    for parameter in LEAVES[path].params:
        if not parameter.required or parameter.name in ("database", "as_json"):
            continue
        word = word_for(parameter)
        words += [word] if isinstance(parameter, click.Argument) else [parameter.opts[0], word]
    return words


def word_for(parameter: click.Parameter) -> str:
    if isinstance(parameter.type, click.Choice):
        return str(parameter.type.choices[0])
    if isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType):
        return "1"
    return "file.txt" if isinstance(parameter.type, click.Path) else "cancer"


@pytest.fixture
def file(nowhere: Path) -> Path:
    """Something where paths must exist."""
    path = nowhere / "file.txt"
    path.write_text("nothing of use\n")
    return path


def test_an_unknown_option_is_an_error(run: Any, file: Path) -> None:
    answer = run("study", "list", "--no-such-option")
    assert (answer.status, answer.out) == (2, "")
    assert "No such option" in answer.err
    assert "study list [OPTIONS]" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_with_json_an_error_is_json_too(path: tuple[str, ...], run: Any, file: Path) -> None:
    answer = run(*filled(path), "--json", "--no-such-option")
    assert (answer.status, answer.out) == (2, "")
    assert json.loads(answer.err)["kind"] == "NoSuchOption"


@pytest.mark.parametrize("path", NO_DATABASE, ids=" ".join)
def test_without_a_database_it_is_an_error_and_says_what_to_do(path: tuple[str, ...], run: Any, file: Path) -> None:
    address = "postgresql+psycopg2://easeml_worker:wrong@127.0.0.1:9/easeml"  # a port without a listener
    if path in {
        ("backtest",),
        ("doctor",),
        ("mlflow", "sync"),
        ("referee",),
        ("device", "run"),
    }:
        pytest.skip("reads a file first, or waits for the database to come back")
    answer = run(*filled(path), *extra(path), "--database", address, "--json")
    assert (answer.status, answer.out) == (2, ""), answer.err
    assert "Traceback" not in answer.err
    found = json.loads(answer.err.strip().splitlines()[-1])
    assert found["kind"] in ("StoreUnavailableError", "InvalidInputError", "NotFoundError", "ConfigError"), found


def test_a_prune_that_removes_nothing_says_what_to_name(run: Any) -> None:
    answer = run("artifacts", "prune")
    assert (answer.status, answer.out) == (2, "")
    assert "--keep K" in answer.err
    assert "--curve-days DAYS" in answer.err


def extra(path: tuple[str, ...]) -> tuple[str, ...]:
    """Options without which the command has nothing to do, so that it does not end before the database is asked."""
    weight = ("--weight", "2")
    named = {
        ("artifacts", "prune"): ("--keep", "3"),
        ("evidence", "acknowledge"): ("--all",),
        ("policy", "set"): ("--guard", "0.1"),
        ("study", "set"): weight,
        ("tenant", "set"): weight,
    }
    return named.get(path, ())


ROLES = {
    "easeml_owner": "artifacts move, db backup, db note-restart, db restore, db upgrade, policy set",
    "easeml_referee": (
        "artifacts prune, evidence acknowledge, evidence rotate, evidence verify, labels conflicts, labels give, "
        "labels unsure, labels wanted, ledger, referee, test-set delete, test-set overlaps, test-set plan, "
        "test-set release, test-set retire, test-set seal, validation remeasure, validation replace"
    ),
    "easeml_scheduler": "scheduler",
    "postgres": "tenant archive, tenant login, tenant logout",
}
"""Commands that enter an embedded installation with more than the worker's rights."""


def test_an_embedded_installation_is_entered_with_the_role_that_a_command_needs(
    run: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def open_database(*_: object, role: str, **__: object) -> None:
        asked.append(role)
        raise StoreUnavailableError

    monkeypatch.setattr("easeml_core.cli.connection.open_database", open_database)
    expected = {name: role for role, names in ROLES.items() for name in names.split(", ")}
    for path in NO_DATABASE:
        run(*filled(path), *extra(path))
        name, role = " ".join(path), asked.pop() if asked else "none"
        assert role == ("none" if name == "doctor" else expected.pop(name, "easeml_worker")), name
    assert expected == {}


ANSWER = GivenAnswer(1, RequestKind.GATE, "cancer", 1, refused=True, message="no")


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question to the referee is filed, and refused."""
    for name in ("file_gate_request", "file_meter_request", "file_promotion", "file_rollback"):
        monkeypatch.setattr(f"easeml_core.services.referee.requests.{name}", lambda *_, **__: 1)
    monkeypatch.setattr("easeml_core.services.referee.requests.answer_of", lambda *_: ANSWER)


NO = [
    ("gate", "ask", "cancer", "1"),
    ("model", "meter", "cancer", "1"),
]
REFUSED_CHANGE = [
    ("model", "promote", "cancer", "1", "--request", "1"),
    ("promote", "cancer", "1", "--request", "1"),
    ("model", "rollback", "cancer", "--why", "x"),
    ("rollback", "cancer", "--why", "x"),
]


@pytest.mark.parametrize("words", NO, ids=" ".join)
def test_a_refusal_to_a_question_is_a_no(words: tuple[str, ...], ask: Callable[..., Any], refuse: None) -> None:
    assert ask(*words).status == 1
    answer = ask(*words, "--json")
    assert (answer.status, json.loads(answer.out).get("refused", True)) == (1, True)


@pytest.mark.parametrize(
    ("symbol", "planned", "status", "advises"),
    [("pass", True, 0, True), ("pass", False, 0, False), ("withheld", True, 0, False), ("fail", True, 1, False)],
)
def test_only_a_fail_is_a_no_and_a_pass_on_the_sets_condition_says_how_to_promote(
    symbol: str, planned: bool, status: int, advises: bool, ask: Any, refuse: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A withheld verdict ends as a pass does: the status would tell it otherwise."""
    verdict = {"symbol": Symbol(symbol), "planned": planned, "step": 1, "steps": 3, "cached": False}
    answer = VerdictAnswer(1, RequestKind.GATE, "cancer", 7, refused=False, message="its answer", **verdict)
    monkeypatch.setattr("easeml_core.services.referee.requests.answer_of", lambda *_: answer)
    told = ask("gate", "ask", "cancer", "7")
    assert (told.status, "model promote cancer 7" in told.out, "its answer" in told.out) == (status, advises, True)


@pytest.mark.parametrize("words", REFUSED_CHANGE, ids=" ".join)
def test_a_change_that_is_refused_did_not_happen(words: tuple[str, ...], ask: Callable[..., Any], refuse: None) -> None:
    """A refused order is an error and not an answer."""
    answer = ask(*words)
    assert (answer.status, answer.out, answer.err) == (2, "", "easeml: no\n")
    assert json.loads(ask(*words, "--json").err) == {"error": "no", "kind": "StateError"}


def test_a_failed_verdict_is_a_no(run: Any, nowhere: Path) -> None:
    (nowhere / "labels.csv").write_text("example,label\n" + "".join(f"{i},1\n" for i in range(50)))
    (nowhere / "bad.csv").write_text("example,prediction\n" + "".join(f"{i},{int(i < 10)}\n" for i in range(50)))
    (nowhere / "good.csv").write_text("example,prediction\n" + "".join(f"{i},1\n" for i in range(50)))
    words = ("gate", "decide", "--condition", "n > 0.5 +/- 0.2", "--steps", "1", "--reliability", "0.9")
    files = ("--labels", "labels.csv", "--old", "bad.csv", "--new")
    assert [run(*words, *files, f"{which}.csv").status for which in ("bad", "good")] == [1, 0]
    answer = run(*words, *files, "bad.csv", "--json")
    assert (answer.status, json.loads(answer.out)["verdict"], answer.err) == (1, "FAIL", "")


@pytest.mark.usefixtures("breaks")
def test_a_fault_of_ours_is_no_answer(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("easeml_core.services.operations.doctor.examine", stumble)
    answer = run("doctor")
    assert (answer.status, answer.out) == (2, "")
    assert "Traceback" in answer.err
    assert "fault of easeml: ZeroDivisionError()" in answer.err
    found = json.loads(run("doctor", "--json").err.splitlines()[-1])
    assert found["kind"] == "ZeroDivisionError"


def test_ctrl_c_is_130_and_one_line(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("easeml_core.services.operations.doctor.examine", interrupted)
    answer = run("doctor")
    assert (answer.status, answer.out, answer.err.strip()) == (130, "", "easeml: interrupted")
    assert json.loads(run("doctor", "--json").err) == {"error": "interrupted", "kind": "Interrupted"}


PROGRAM = "import signal; signal.signal(2, signal.default_int_handler); from easeml_core.cli import main; main()"


def test_a_second_ctrl_c_while_it_ends_changes_nothing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("easeml_core.services.operations.doctor.examine", interrupted)
    says = app._fail

    def impatient(*given: Any, **more: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        says(*given, **more)

    monkeypatch.setattr("easeml_core.cli.app._fail", impatient)
    answer = run("doctor")
    assert (answer.status, answer.out, answer.err.strip()) == (130, "", "easeml: interrupted")


def test_ctrl_c_in_a_program_of_its_own(nowhere: Path) -> None:
    pipe = nowhere / "history.csv"
    os.mkfifo(pipe)  # opening it waits
    words = ("meter", "replay", "--history", str(pipe), "--test-size", "10")
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stdout=-1, stderr=-1, text=True)
    descriptor = os.open(pipe, os.O_WRONLY)
    for _ in range(60):
        time.sleep(0.3)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    os.close(descriptor)
    assert (process.returncode, out, err.strip()) == (130, "", "easeml: interrupted")


def test_a_closed_standard_output_is_no_fault(nowhere: Path) -> None:
    command = ["sh", "-c", 'exec "$0" -m easeml_core.cli meter plan >&-', sys.executable]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", [("meter", "plan", "--json"), ("gate", "plan", "--condition", "n > 0.5 +/- 0.1")])
def test_a_reader_that_has_gone_hears_nothing_and_sees_no_answer(words: tuple[str, ...], nowhere: Path) -> None:
    """Also where a table is what comes first."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "easeml_core.cli", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (2, b"")
