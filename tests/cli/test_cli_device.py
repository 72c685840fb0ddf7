"""``easeml device run``: what it prints, for people and for programs, and its exit status."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CANDIDATES = [
    {"name": "tree", "kind": "decision_tree"},
    {"name": "net", "kind": "torch_mlp", "parameters": {"learning_rate": 1e30, "epochs": 1}},
]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command takes two signals for itself; the process of the tests gets them back."""
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


@pytest.fixture
def device(ask: Any, artifacts: Any, make_study: Any) -> Any:
    """Run the device on a study with two candidates, one of which diverges."""
    make_study("cancer", candidates=CANDIDATES)
    return lambda *arguments: ask("device", "run", "--artifacts", str(artifacts.root), *arguments)


def test_a_device_trains_everything_and_tells(device: Any) -> None:
    one = device("--json", "--max-trials", "1", "--request-key", "k").json
    assert (one["reason"], len(one["trials"]), one["device"]) == ("enough trials", 1, None)
    told = device("--request-key", "k", "--study", "cancer", "--policy", "roundrobin")
    assert told.status == 0
    assert "2 trials (" in told.text
    assert "nothing is left to train" in told.text
    assert "SUCCEEDED" in told.out
    assert "FAILED" in told.out
    assert told.err.startswith("request key k\n")
    assert "trial 1: " in told.err
    idle = device("--json").json
    assert (idle["reason"], idle["trials"]) == ("nothing left", [])


def test_a_device_that_fails_is_an_exit_status(device: Any, monkeypatch: Any) -> None:
    from easeml_core.services import stream

    monkeypatch.setattr(stream._Stream, "run", lambda _: stream.Reason.DEVICE_FAILS)
    answer = device("--json")
    assert answer.status == 1
    assert json.loads(answer.out)["message"].endswith("look at the device")


def test_what_cannot_be_is_an_error(device: Any) -> None:
    for arguments, words in (
        (("--until", "-1"), "until must be seconds, >= 0"),
        (("--max-trials", "0"), "max_trials must be >= 1"),
        (("--study", "nowhere"), "there is no study 'nowhere'"),
        (("--policy", "luck"), "policy must be one of"),
    ):
        answer = device(*arguments)
        assert answer.status == 2
        assert words in answer.err
