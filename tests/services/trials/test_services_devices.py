"""Devices announce themselves while a stream or a task trains, and a registry that is away stops no training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.errors import StoreUnavailableError
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials import devices, execution
from easeml_core.services.trials.devices import announce_host, free_devices, free_for, list_devices
from easeml_core.services.trials.worker import run_device
from easeml_core.settings.device_requests import DeviceRequest
from easeml_core.store.tables.capacity import RegisteredDevice
from easeml_core.training.devices import host_name
from easeml_core.training.supervisor import run_job

if TYPE_CHECKING:
    import pytest


def held(store: Any) -> dict[str, int]:
    assert all(device.host == host_name() for device in list_devices(store))
    return {device.kind: device.held for device in list_devices(store)}


def test_a_stream_and_a_task_hold_a_slot_while_they_train(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.register(
        "busy", candidates=[{"name": kind, "kind": kind} for kind in ("nearest_centroid", "gaussian_naive_bayes")]
    )
    seen = []

    def watched(*arguments: Any, **given: Any) -> Any:
        seen.append(held(lab.worker))
        return run_job(*arguments, **given)

    monkeypatch.setattr(execution, "run_job", watched)
    monkeypatch.setattr(devices, "BEAT_SECONDS", 0.05)
    chosen = {"studies_only": ["busy"], "slot": "cpu"}
    run_device(lab.worker, lab.artifacts, device="big", request_key="s", max_trials=1, **chosen)
    assert held(lab.worker) == {"big": 0}
    (trial,) = suggest_trials(lab.worker, count=1, device="cpu", request_key="night", studies_only=["busy"]).trials
    execution.run_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="t", slot="cpu")
    assert seen == [{"big": 1}, {"cpu": 1}]  # one host, one processor: the kind is what was said last
    assert held(lab.worker) == {"cpu": 0}
    assert free_devices(lab.worker, device="cpu") == list_devices(lab.worker)[0].slots


def test_a_host_announces_itself_until_it_must_stop(lab: Any) -> None:
    waits: list[float] = []

    def should_stop(seconds: float) -> bool:
        waits.append(seconds)
        assert held(lab.worker) == {"cpu": 0}
        return len(waits) == 2

    announce_host(lab.worker, slot="cpu", should_stop=should_stop, log=lambda _: None)
    assert waits == [devices.BEAT_SECONDS] * 2


def test_a_registry_that_is_away_stops_no_training(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        message = "gone"
        raise StoreUnavailableError(message)

    monkeypatch.setattr(devices, "announce_device", gone)
    lab.register("busy", candidates=[{"name": "one", "kind": "nearest_centroid"}])
    lines: list[str] = []
    summary = run_device(
        lab.worker, lab.artifacts, device=None, request_key="s", studies_only=["busy"], log=lines.append
    )
    assert [trial.state for trial in summary.trials] == ["SUCCEEDED"]
    assert [line for line in lines if "not announced" in line] == [
        "this device is not announced, its trials run all the same (gone)"
    ]


def test_what_is_free_depends_on_what_a_trial_asks_for() -> None:
    """Two hosts with GPUs, one of which is half used, and a processor of five cores of which two are held."""

    def one(host: str, name: str, slots: int, held: int) -> RegisteredDevice:
        return RegisteredDevice(host, name, "gpu", None, None, None, slots, held, "easeml_worker", 1.0)

    gpus = [*(one("a", f"cuda:{n}", 1, n // 3) for n in range(4)), one("b", "cuda:0", 4, 2), one("b", "cuda:1", 1, 0)]
    counts = {text: free_for(gpus, DeviceRequest("gpu", *request)) for text, request in REQUESTS.items()}
    assert counts == {"gpu": 4, "gpu:2": 1, "gpu:3": 1, "gpu:4": 0, "gpu/4": 3 * 4 + 2 + 4, "gpu/2": 3 * 2 + 1 + 2}
    cores = [one("c", "cpu", 5, 2)]
    assert [free_for(cores, DeviceRequest("gpu", *REQUESTS[text])) for text in ("gpu", "gpu:2", "gpu/4")] == [3, 1, 3]


REQUESTS = {"gpu": (1, 1), "gpu:2": (2, 1), "gpu:3": (3, 1), "gpu:4": (4, 1), "gpu/4": (1, 4), "gpu/2": (1, 2)}
