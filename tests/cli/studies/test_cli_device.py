"""``easeml device run``, ``list`` and ``announce``: what they print for people and programs, and the exit status."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.cli.connection import asked_to_end
from easeml_core.store.tables.capacity import Device, announce_device
from easeml_core.training.devices import host_name

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
    found = device("--request-key", "k", "--study", "cancer", "--policy", "roundrobin")
    assert found.status == 0
    assert "2 trials (" in found.text
    assert "left to train" in found.text
    assert "SUCCEEDED" in found.out
    assert "FAILED" in found.out
    assert found.err.startswith("request key k\n")
    assert "trial 1: " in found.err
    idle = device("--json").json
    assert (idle["reason"], idle["trials"]) == ("nothing left", [])


def test_a_device_that_fails_is_an_exit_status(device: Any, monkeypatch: Any) -> None:
    from easeml_core.services.trials import worker

    monkeypatch.setattr(worker._Stream, "run", lambda _: worker.Reason.DEVICE_FAILS)
    answer = device("--json")
    assert answer.status == 1
    assert (answer.json["reason"], "at the device" in answer.json["message"]) == (worker.Reason.DEVICE_FAILS, True)


def test_a_device_that_can_run_nothing_says_what_each_candidate_needs(
    ask: Any, artifacts: Any, make_study: Any, monkeypatch: Any, recorded: Any
) -> None:
    image = {"image": f"registry.example/net@sha256:{'0' * 64}", "runtime": "podman"}
    left = [
        {"name": "fit-1", "kind": "function"},
        {"name": "big", "kind": "decision_tree", "devices": ["gpu", "tpu"]},
        {"name": "boxed", "kind": "container", "parameters": image},
    ]
    make_study("cancer", candidates=[*left[:2], {"name": "tree", "kind": "decision_tree"}])
    run = ("device", "run", "--artifacts", str(artifacts.root), "--device", "cpu")
    first = ask(*run)
    assert first.status == 0  # it has trained the tree
    told = [line for line in first.err.splitlines() if line.startswith("cannot run here: ")]
    recorded("".join(f"{line}\n" for line in told), "device_run_blocked")
    assert all(line.removeprefix("cannot run here: ") in first.out for line in told)
    again = ask(*run, "--json")
    assert (again.status, again.json["reason"], again.json["is_useless"]) == (1, "nothing runnable", False)
    assert [b["candidate"] for b in again.json["blocked"]] == ["fit-1", "big"]
    assert ("0 trials: " in again.json["message"], "fit-1" in again.json["message"]) == (True, True)

    monkeypatch.setenv("PATH", "/nonexistent")
    make_study("boxes", candidates=left[2:])
    boxed = ask(*run, "--study", "boxes")
    assert boxed.status == 1
    assert "needs podman" in boxed.err
    assert ask("study", "show", "boxes", "--json").json["trials"] == []  # not claimed, so not failed
    monkeypatch.setattr("easeml_core.training.job._GPU_DEVICES", ())
    none = ask(*run, "--slot", "cuda")
    assert (none.status, none.out) == (2, "")
    assert "slot cuda: " in none.err
    assert "no GPU" in none.err


def test_what_cannot_be_is_an_error(device: Any) -> None:
    for arguments, words in (
        (("--until", "-1"), "until must"),
        (("--max-trials", "0"), "max_trials must"),
        (("--study", "nowhere"), "study 'nowhere'"),
        (("--policy", "luck"), "policy must"),
    ):
        answer = device(*arguments)
        assert answer.status == 2
        assert words in answer.err


GPU = Device("host-a", "cuda:0", "gpu", "NVIDIA L4", 23_034, "550.54", slots=3, held=1)


def test_the_live_devices_are_listed_with_their_free_slots(ask: Any, database: Any, recorded: Any) -> None:
    recorded(ask("device", "list").out, "device_list_none")
    with database.worker.begin() as tx:
        announce_device(tx, GPU, holder="k")
    found = ask("device", "list").out
    assert "host-a" in found
    assert found.endswith("free slots: 2 of kind gpu\n")
    (one,) = ask("device", "list", "--kind", "gpu", "--json").json
    assert (one["host"], one["memory_mb"], one["held"], one["login"]) == ("host-a", 23_034, 1, "easeml_worker")
    assert ask("device", "list", "--kind", "cpu", "--json").json == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_either_signal_asks_a_process_to_end(ending: signal.Signals) -> None:
    signal.signal(ending, signal.SIG_IGN)
    stop = asked_to_end()
    assert not stop.is_set()
    signal.raise_signal(ending)
    assert stop.is_set()


def test_a_host_is_announced_until_it_is_asked_to_end(ask: Any, monkeypatch: Any) -> None:
    heard: list[bool] = []

    def wait(event: threading.Event, *_: float) -> bool:
        signal.raise_signal(signal.SIGTERM)
        heard.append(event.is_set())
        return event.is_set()

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until the command takes it
    monkeypatch.setattr(threading.Event, "wait", wait)
    answer = ask("device", "announce", "--slot", "cpu", "--device", "cpu-large", "--json")
    assert f"announcing cpu of {host_name()}: cpu-large" in answer.err
    assert [(device["name"], device["kind"]) for device in answer.json] == [("cpu", "cpu-large")]
    assert any(heard)
